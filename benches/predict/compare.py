"""Jets per second of our evaluation against ONNX Runtime on the exported network, same cores, in turn, in one run.

usage: python compare.py [--rounds 7] [--threads 2] [--fill 1.0] [NAME...]

Needs the Python packages numpy, onnxruntime and safetensors, and the release build of `onnx_cases`
(cargo build --release --workspace --bin onnx_cases).

Both sides get the same jets: ours as packed rows, ONNX Runtime padded to the longest jet of the batch. With --fill 1 all
jets are full, with less they have that share of the slots on average. Nothing is timed unless the logits agree. A round
runs each side for about the same time; the ratio is of medians over all rounds, its range that of the rounds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime
from safetensors.numpy import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Network, jets, slots.
ROWS = [
    ("lundnet-5", 256, 55),
    ("particlenet", 32, 128),
    ("particlenet-lite-fusion", 256, 50),
    ("particle-transformer", 64, 64),
    ("jetclr", 128, 50),
    ("event-gnn", 2048, 6),
    ("event-gat", 2048, 6),
    ("particle-flow", 256, 64),
]


def batch(facts, jets, slots, fill):
    random = np.random.default_rng(1)
    sizes = np.full(jets, slots) if fill == 1 else np.clip(random.poisson(fill * slots, jets), 1, slots)
    nodes = int(sizes.sum())
    parents = []
    for size in sizes:
        # Mostly the newest declustering: long chains, as in a jet's primary plane.
        parents += [-1] + [n - 1 if random.random() < 0.6 else int(random.integers(n)) for n in range(1, size)]
    kinematics = np.stack(
        [random.exponential(20, nodes) + 0.5, *random.normal(size=(2, nodes)) * 0.3, np.full(nodes, 0.14)], 1
    )
    return {
        "features": random.normal(size=(nodes, facts["features"])).astype(np.float32),
        "kinematics": kinematics.astype(np.float32),
        "parents": np.array(parents, np.float32),
        "jet_offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.float32),
    }


def padded(facts, packed):
    offsets = packed["jet_offsets"].astype(int)
    sizes = np.diff(offsets)
    place = np.arange(sizes.max()) < sizes[:, None]

    def pad(values, empty):
        out = np.full(place.shape + values.shape[1:], empty, values.dtype)
        out[place] = values
        return out

    inputs = {"features": pad(packed["features"], 0), "mask": place.astype(np.float32)}
    if facts["kinematics"]:
        inputs["kinematics"] = pad(packed["kinematics"], 0)
    if facts["edges"]:
        inputs["parents"] = pad(packed["parents"].astype(np.int64), -1)
    return inputs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fill", type=float, default=1.0)
    options = parser.parse_args()
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "onnx_cases"
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    print(f"onnxruntime {onnxruntime.__version__}, {options.threads} threads each, fill {options.fill}\n")
    print("| network | jets x slots | ours, jets/s | ONNX Runtime, jets/s | ours is faster by (rounds) |")
    print("|---|---|---:|---:|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        subprocess.run([program, "write", folder], check=True)
        cases = {facts["name"]: facts for facts in json.loads((folder / "cases.json").read_text())}
        for name, jets, slots in ROWS:
            if options.names and name not in options.names:
                continue
            facts = cases[name]
            packed = batch(facts, jets, slots, options.fill)
            files = folder / "bench.jets", folder / "ours"
            save_file(packed, str(files[0]))
            ours = subprocess.Popen(
                [program, "predict", name, *files],
                env=os.environ | {"RAYON_NUM_THREADS": str(options.threads)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert json.loads(ours.stdout.readline())["ready"]
            run = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), settings, ["CPUExecutionProvider"])
            inputs = padded(facts, packed)

            def other(count):
                seconds = []
                for _ in range(count):
                    start = time.perf_counter()
                    run.run(["logits"], inputs)
                    seconds.append(time.perf_counter() - start)
                return seconds

            def own(count):
                print(count, file=ours.stdin, flush=True)
                return json.loads(ours.stdout.readline())["seconds"]

            found = run.run(["logits"], inputs)[0]
            expected = load_file(str(files[1]))["logits"]
            difference = np.abs(found - expected).max() / np.sqrt((expected.astype(float) ** 2).mean())
            assert difference < 2e-5, f"{name}: logits differ by {difference}"
            # About a quarter of a second a round and side.
            counts = [max(1, round(0.25 / min(side(3)[1:]))) for side in (own, other)]
            rounds = []
            for _ in range(options.rounds):
                rounds.append([statistics.median(side(count)) for side, count in zip((own, other), counts)])
            mine, theirs = (statistics.median(side) for side in zip(*rounds))
            ratios = [b / a for a, b in rounds]
            print(
                f"| {name} | {jets} x {slots} | {jets / mine:.0f} | {jets / theirs:.0f} "
                f"| {theirs / mine:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
                flush=True,
            )
            ours.stdin.close()
            ours.wait()


main()
