"""LundNet-5, one training step of 256 jets on two threads: ours against PyTorch, in turn, in one run.

usage: python compare.py [--rounds 5] [--steps 3] [--no-compile] [--jets 256]

Needs the Python packages torch, numpy and safetensors, and the release build of `lundnet_step`
(cargo build --release --workspace --bin lundnet_step).

All sides get the same graphs (random binary trees of 50 to 60 declusterings, the size of jets of
constituents with no cut) and the same initial weights, and must have the same losses in the first
steps. Then each takes a few steps in turn, round after round; the ratio is of medians over all
rounds, and its range is that of the ratios within each round.

  eager     PyTorch as LundNet writes it: linear maps per edge; plain glibc
  split     linear maps per node, glibc told to keep large blocks (MALLOC_*_THRESHOLD_)
  compiled  split, through torch.compile; left out if it cannot compile within --compile-limit
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEEP = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}


def trees(jets, seed=1):
    """Random trees with at most two children per node, both directions of every edge, by receiver."""
    random = np.random.default_rng(seed)
    jet_offsets, parents = [0], []
    for _ in range(jets):
        first, nodes = jet_offsets[-1], int(random.integers(50, 61))
        children = np.zeros(nodes, int)
        parents.append(-1)
        for node in range(1, nodes):
            # Mostly the newest node that still has room: long chains, as in a jet's primary plane.
            parent = node - 1 if random.random() < 0.6 else int(random.integers(node))
            while children[parent] >= 2:
                parent = (parent + 1) % node
            children[parent] += 1
            parents.append(first + parent)
        jet_offsets.append(first + nodes)
    neighbours = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            neighbours[node].append(parent)
            neighbours[parent].append(node)
    in_offsets = np.cumsum([0] + [len(row) for row in neighbours])
    return {
        "features": random.normal(size=(len(parents), 5)).astype(np.float32),
        "jet_offsets": np.array(jet_offsets, np.int32),
        "in_offsets": in_offsets.astype(np.int32),
        "senders": np.concatenate([np.array(row, np.int32) for row in neighbours]),
        "labels": random.integers(0, 2, jets).astype(np.int32),
    }


def weights(seed=1):
    """PyTorch's default start, under the names of the authors' weight files."""
    random = np.random.default_rng(seed)
    tensors = {}

    def norm(name, width):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = np.ones(width), np.zeros(width)
        tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"] = np.zeros(width), np.ones(width)
        tensors[f"{name}.num_batches_tracked"] = np.array(0)

    def linear(name, inputs, outputs, bias=False):
        bound = inputs**-0.5
        tensors[f"{name}.weight"] = random.uniform(-bound, bound, (outputs, inputs))
        if bias:
            tensors[f"{name}.bias"] = random.uniform(-bound, bound, outputs)

    norm("bn_fts", 5)
    widths = [32, 32, 64, 64, 128, 128]
    for block, (i, o) in enumerate(zip([5] + widths[:-1], widths)):
        name = f"edge_convs.{block}"
        linear(f"{name}.theta", i, o)
        linear(f"{name}.phi", i, o)
        linear(f"{name}.fcs.0", o, o)
        norm(f"{name}.bns.0", o)
        norm(f"{name}.bns.1", o)
        if i != o:
            linear(f"{name}.sc", i, o)
            norm(f"{name}.sc_bn", o)
    linear("fusion_block.0", sum(widths), 384, True)
    norm("fusion_block.2", 384)
    linear("fc.0.0", 384, 256, True)
    linear("fc.1", 256, 2, True)
    return {
        name: value.astype(np.int64 if name.endswith("tracked") else np.float32)
        for name, value in tensors.items()
    }


class Side:
    def __init__(self, name, command, environment):
        self.name, self.seconds, self.by_round = name, [], []
        self.process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ready = json.loads(self.process.stdout.readline())

    def step(self, count):
        print(count, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def round(self, count):
        self.answer = self.step(count)
        self.seconds += self.answer["seconds"]
        self.by_round.append(statistics.median(self.answer["seconds"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--jets", type=int, default=256)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()

    batch = trees(options.jets)
    nodes, edges = len(batch["features"]), len(batch["senders"])
    # Multiply-adds of a forward pass, linear maps on nodes; a step is three passes of two operations each.
    forward = edges * 43_008 + nodes * (63_808 + 10_400 + 172_032) + options.jets * 98_816
    print(f"{options.jets} jets, {nodes} nodes, {edges} edges; {6e-9 * forward:.2f} GFLOP per step; "
          f"torch {torch.__version__}, two threads each")

    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/batch.safetensors", f"{folder}/weights.safetensors"]
        save_file(batch, files[0])
        save_file(weights(), files[1])
        two = {"RAYON_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        python = [sys.executable, str(HERE / "torch_step.py")]
        ours = Side("ours", [str(target / "release/lundnet_step"), *files], two)
        sides = [
            ours,
            Side("eager", [*python, "eager", *files], two),
            Side("split", [*python, "split", *files], two | KEEP),
        ]
        if not options.no_compile:
            sides.append(Side("compiled", [*python, "compiled", *files], two | KEEP))
        first = {}
        for side in list(sides):
            answer = side.step(3)
            if answer is None:
                print(f"{side.name}: failed")
                sides.remove(side)
                continue
            first[side.name] = answer["losses"]
        for name, losses in first.items():
            difference = max(abs(a - b) for a, b in zip(losses, first["ours"]))
            print(f"{name:9} first losses {losses}")
            assert difference < 1e-3, f"{name}: losses differ by {difference}"
        for _ in range(options.rounds):
            for side in sides:
                side.round(options.steps)

        print(f"\n{'':9} {'median ms':>10} {'peak MiB':>9}   ours is faster by")
        for side in sides:
            median = statistics.median(side.seconds)
            ratios = [other / own for other, own in zip(side.by_round, ours.by_round)]
            note = "" if side is ours else (
                f"{median / statistics.median(ours.seconds):6.2f}   rounds {min(ratios):.2f} to {max(ratios):.2f}"
            )
            print(f"{side.name:9} {1e3 * median:10.1f} {side.answer['peak_mib']:9.0f}   {note}")
        rate = 6e-9 * forward / statistics.median(ours.seconds)
        peak = ours.ready["gemm_gflops"]
        parts = ", ".join(f"{1e3 * part:.1f}" for part in ours.answer["forward_backward_adam"])
        print(f"\nours: {rate:.0f} GFLOP/s, {100 * rate / peak:.0f} % of a large product's {peak:.0f} GFLOP/s; "
              f"forward, backward, Adam: {parts} ms")
        for side in sides:
            side.process.stdin.close()
            side.process.wait()


if __name__ == "__main__":
    main()
