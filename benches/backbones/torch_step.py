"""PyTorch's side of the comparison of backbones; compare.py starts it and describes it.

usage: torch_step.py MODULE ROW {eager,split,compiled-eager,compiled-split} BATCH.safetensors WEIGHTS.safetensors

For each line `N` on standard input: N training steps (forward, loss, backward, Adam), one line of JSON.
"""

import importlib
import json
import os
import resource
import sys
import time

import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file
from torch import nn


def nt_xent(z, temperature=0.1):
    """Chen et al. 2020 as JetCLR has it: the first half of the rows is one view, the second half the other."""
    z = nn.functional.normalize(z)
    half = len(z) // 2
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    partner = torch.arange(2 * half).roll(half)
    return nn.functional.cross_entropy(similarity, partner)


def main():
    module, row, variant, batch, weights = sys.argv[1:]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    side = importlib.import_module(module)
    row = next(entry for entry in side.ROWS if entry["name"] == row)
    batch = load_numpy(batch)
    form = variant.removeprefix("compiled-")
    network = side.modules(row)[form]
    network.load_state_dict(load_file(weights))
    network.train()
    # Dropout off on all sides, so that the losses can be compared step by step.
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    inputs = side.inputs(row, batch, form)
    run = torch.compile(network) if variant.startswith("compiled") else network
    labels = torch.from_numpy(batch["labels"]).long()
    loss_of = nt_xent if row["loss"] == "nt-xent" else lambda logits: nn.functional.cross_entropy(logits, labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        seconds, cpu, losses = [], [], []
        for _ in range(int(line)):
            start, used = time.perf_counter(), time.process_time()
            optimiser.zero_grad()
            loss = loss_of(run(*inputs))
            losses.append(loss.item())
            loss.backward()
            optimiser.step()
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "losses": losses, "peak_mib": peak}), flush=True)


main()
