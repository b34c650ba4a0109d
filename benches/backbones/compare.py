"""One training step of each backbone on two threads: ours against PyTorch, in turn, in one run.

usage: python compare.py [--only NAME ...] [--rounds 5] [--steps 3] [--threads 2] [--fill 1.0] [--no-compile] [--cpu]

Needs the Python packages torch, numpy and safetensors, and the release build of `backbone_step`
(cargo build --release --workspace --bin backbone_step).

All sides get the same batch and the same initial weights, and must have the same losses in the first steps. Then each
takes a few steps in turn, round after round; the ratio is of medians over all rounds, its range that of the ratios
within each round.

  eager     PyTorch as the peers write the network, as installed
  split     the fastest eager form we could write, glibc told to keep large blocks (MALLOC_*_THRESHOLD_)
  compiled  the faster of the two through torch.compile, with the same thresholds

`--cpu` compares CPU time of the processes instead of elapsed time: for one thread on a shared machine.
"""

import argparse
import importlib
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
from safetensors.torch import save_file as save_torch

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
MODULES = [
    name
    for name in ("lundnet", "particlenet", "particle_transformer", "events", "jetclr")
    if (HERE / f"{name}.py").exists()
]
KEEP = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}


class Side:
    def __init__(self, name, command, environment, key):
        self.name, self.key, self.values, self.by_round = name, key, [], []
        self.process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self.process.stdout.readline()
        self.ready = json.loads(line) if line else None

    def step(self, count):
        if self.ready is None:
            return None
        print(count, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def round(self, count):
        self.answer = self.step(count)
        self.values += self.answer[self.key]
        self.by_round.append(statistics.median(self.answer[self.key]))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(name, side, row, options, folder):
    random = np.random.default_rng(1)
    torch.manual_seed(1)
    batch = side.batch(row, random) if options.fill == 1.0 else side.batch(row, random, options.fill)
    files = [f"{folder}/config.json", f"{folder}/batch.safetensors", f"{folder}/weights.safetensors"]
    pathlib.Path(files[0]).write_text(json.dumps(row["config"] | {"kind": row["kind"]}))
    save_file({key: np.ascontiguousarray(values) for key, values in batch.items()}, files[1])
    modules = side.modules(row)
    save_torch({key: value.contiguous() for key, value in modules["eager"].state_dict().items()}, files[2])
    threads = {"RAYON_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
    key = "cpu_seconds" if options.cpu else "seconds"
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    ours = Side("ours", [str(target / "release/backbone_step"), *files, row["loss"]], threads, key)
    if ours.ready is None:
        raise SystemExit(f"{row['name']}: our side does not start: {target}/release/backbone_step {' '.join(files)}")
    python = [sys.executable, str(HERE / "torch_step.py"), name, row["name"]]
    sides = [ours, Side("eager", [*python, "eager", *files[1:]], threads, key)]
    forms = [form for form in ("split",) if form in modules]
    sides += [Side(form, [*python, form, *files[1:]], threads | KEEP, key) for form in forms]
    if not options.no_compile:
        form = "compiled-" + (forms or ["eager"])[0]
        sides.append(Side("compiled", [*python, form, *files[1:]], threads | KEEP, key))
    first = {}
    for peer in list(sides):
        answer = peer.step(3)
        if answer is None:
            print(f"{row['name']}: {peer.name} failed")
            sides.remove(peer)
            continue
        first[peer.name] = answer["losses"]
    for peer, losses in first.items():
        difference = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(losses, first["ours"]))
        assert difference < options.tolerance, f"{row['name']}, {peer}: losses {losses}, ours {first['ours']}"
    for _ in range(options.rounds):
        for peer in sides:
            peer.round(options.steps)
    nodes = len(batch["features"])
    median = {peer.name: statistics.median(peer.values) for peer in sides}
    unit = "CPU" if options.cpu else "elapsed"
    print(f"\n{row['name']}: {len(batch['jet_offsets']) - 1} graphs, {nodes} nodes; first losses agree to "
          f"{max(abs(a - b) for losses in first.values() for a, b in zip(losses, first['ours'])):.1e}")
    print(f"{'':9} {unit + ' ms':>11} {'peak MiB':>9}   ours is faster by")
    for peer in sides:
        ratios = [theirs / own for theirs, own in zip(peer.by_round, ours.by_round)]
        note = "" if peer is ours else (
            f"{median[peer.name] / median['ours']:6.2f}   rounds {min(ratios):.2f} to {max(ratios):.2f}"
        )
        print(f"{peer.name:9} {1e3 * median[peer.name]:11.1f} {peer.answer['peak_mib']:9.0f}   {note}")
    rate = side.gigaflop(row, batch) / median["ours"] if hasattr(side, "gigaflop") else float("nan")
    peak = ours.ready["gemm_gflops"]
    parts = ", ".join(f"{1e3 * part:.1f}" for part in ours.answer["forward_backward_adam"])
    print(f"ours: {rate:.0f} GFLOP/s, {100 * rate / peak:.0f} % of a large product's {peak:.0f}; "
          f"forward, backward, Adam: {parts} ms")
    for peer in sides:
        peer.close()
    best = min(value for peer, value in median.items() if peer not in ("ours", "eager"))
    return {
        "name": row["name"],
        "ours": 1e3 * median["ours"],
        "eager": median["eager"] / median["ours"],
        "best": min(best, median["eager"]) / median["ours"],
        "share": 100 * rate / peak,
        "memory": ours.answer["peak_mib"],
        "peers": min(peer.answer["peak_mib"] for peer in sides if peer is not ours),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fill", type=float, default=1.0)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.threads} threads each")
    results = []
    for name in MODULES:
        side = importlib.import_module(name)
        for row in side.ROWS:
            wanted = not options.only or any(text.lower() in row["name"].lower() for text in options.only)
            if wanted:
                with tempfile.TemporaryDirectory() as folder:
                    results.append(compare(name, side, row, options, folder))
    print("\n| network | ours, ms | against eager | against best PyTorch | share of peak | MiB | least of PyTorch's |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in results:
        print(f"| {row['name']} | {row['ours']:.1f} | {row['eager']:.2f} | {row['best']:.2f} | {row['share']:.0f} % | "
              f"{row['memory']:.0f} | {row['peers']:.0f} |")


if __name__ == "__main__":
    main()
