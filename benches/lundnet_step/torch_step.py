"""PyTorch's side of the LundNet comparison; see compare.py.

usage: torch_step.py {eager,split,compiled} BATCH.safetensors WEIGHTS.safetensors

eager:    per edge, Theta(x_dst - x_src) + Phi(x_src), as the LundNet paper and its DGL code write it
split:    the linear maps act on nodes before the gather
compiled: split, through torch.compile
"""

import json
import resource
import sys
import time

import torch
from safetensors.torch import load_file
from torch import nn


class EdgeConv(nn.Module):
    def __init__(self, inputs, outputs, split):
        super().__init__()
        self.split = split
        self.theta = nn.Linear(inputs, outputs, bias=False)
        self.phi = nn.Linear(inputs, outputs, bias=False)
        self.fcs = nn.ModuleList([nn.Linear(outputs, outputs, bias=False)])
        self.bns = nn.ModuleList([nn.BatchNorm1d(outputs) for _ in range(2)])
        if inputs != outputs:
            self.sc = nn.Linear(inputs, outputs, bias=False)
            self.sc_bn = nn.BatchNorm1d(outputs)
        self.identity = inputs == outputs

    def forward(self, x, src, dst, inverse_degree):
        if self.split:
            theta = self.theta(x)
            e = theta.index_select(0, dst) + (self.phi(x) - theta).index_select(0, src)
        else:
            sender = x.index_select(0, src)
            e = self.theta(x.index_select(0, dst) - sender) + self.phi(sender)
        e = torch.relu(self.bns[0](e))
        e = torch.relu(self.bns[1](self.fcs[0](e)))
        a = torch.zeros(x.shape[0], e.shape[1]).index_add(0, dst, e) * inverse_degree
        s = x if self.identity else self.sc_bn(self.sc(x))
        return torch.relu(a + s)


class LundNet(nn.Module):
    def __init__(self, features, split):
        super().__init__()
        widths = [32, 32, 64, 64, 128, 128]
        self.bn_fts = nn.BatchNorm1d(features)
        self.edge_convs = nn.ModuleList(
            [EdgeConv(i, o, split) for i, o in zip([features] + widths[:-1], widths)]
        )
        self.fusion_block = nn.Sequential(nn.Linear(sum(widths), 384), nn.ReLU(), nn.BatchNorm1d(384))
        self.fc = nn.Sequential(nn.Sequential(nn.Linear(384, 256), nn.ReLU()), nn.Linear(256, 2))

    def forward(self, x, src, dst, inverse_degree, jet, inverse_size):
        x = self.bn_fts(x)
        outputs = []
        for conv in self.edge_convs:
            x = conv(x, src, dst, inverse_degree)
            outputs.append(x)
        x = self.fusion_block(torch.cat(outputs, 1))
        x = torch.zeros(inverse_size.shape[0], x.shape[1]).index_add(0, jet, x) * inverse_size
        return self.fc(x)


def main():
    kind, batch, weights = sys.argv[1:]
    torch.set_num_threads(2)
    batch = {name: tensor.contiguous() for name, tensor in load_file(batch).items()}
    degrees = batch["in_offsets"].diff().long()
    sizes = batch["jet_offsets"].diff().long()
    graph = (
        batch["senders"].long(),
        torch.repeat_interleave(torch.arange(len(degrees)), degrees),
        (1.0 / degrees.clamp(min=1).float())[:, None],
        torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        (1.0 / sizes.float())[:, None],
    )
    labels = batch["labels"].long()
    network = LundNet(batch["features"].shape[1], kind != "eager")
    network.load_state_dict(load_file(weights))
    run = torch.compile(network) if kind == "compiled" else network
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        seconds, losses = [], []
        for _ in range(int(line)):
            start = time.perf_counter()
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(run(batch["features"], *graph), labels)
            losses.append(loss.item())
            loss.backward()
            optimiser.step()
            seconds.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "losses": losses, "peak_mib": peak}), flush=True)


main()
