"""Exports networks of run folders with their preprocessing and compares ONNX Runtime on four-vectors with `predict`.

usage: python check_commands.py

Needs the Python packages numpy, onnxruntime and pyarrow, and the release build of jetgraft (cargo build --release).

For each network on constituents a training of two epochs on a few hundred jets of samples/, then `jetgraft predict` on
all jets above 1 TeV, `jetgraft export --preprocessing`, and the same jets from the parquet file through ONNX Runtime, the
four-vectors in the order of the file. Differences are relative to the root mean square of the logits; each must be below
2e-5.
"""

import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime
import pyarrow.parquet as parquet

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
JETS = "samples/jets_r10_pt500.parquet"
SELECT = "jet_pt > 1000 and abs(jet_eta) < 2.5"
BOUND = 2e-5
# Network, features, the jet they are relative to.
RUNS = [
    ('{kind="particlenet-lite"}', "kin", "stored"),
    ('{kind="particlenet-lite"}', "kin", "sum"),
    ('{kind="particle-transformer",blocks=2,embed=[32,64,32],hidden=64}', "kin", "stored"),
    ('{kind="jetclr",width=64,heads=4,feed_forward=64,layers=2,projection=[32]}', "jetclr", "stored"),
    ('{kind="pfn"}', "flow", "stored"),
    ('{kind="efn"}', "directions", "sum"),
]


def jetgraft(*arguments):
    program = ROOT / "target" / "release" / "jetgraft"
    done = subprocess.run([program, *arguments, "--quiet"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"jetgraft {' '.join(map(str, arguments))}\n{done.stderr}")


def jets():
    """The selected jets, padded."""
    table = parquet.read_table(ROOT / JETS)
    column = lambda name: table[name].to_numpy()
    keep = np.flatnonzero((column("jet_pt") > 1000) & (np.abs(column("jet_eta")) < 2.5))
    lists = [table[f"part_{name}"].to_pylist() for name in ("px", "py", "pz", "energy")]
    slots = max(len(lists[0][row]) for row in keep)
    vectors, mask = np.zeros((len(keep), slots, 4)), np.zeros((len(keep), slots), np.float32)
    for place, row in enumerate(keep):
        count = len(lists[0][row])
        vectors[place, :count] = np.stack([values[row] for values in lists], 1)
        mask[place, :count] = 1
    pt, eta, phi, mass = (column(f"jet_{name}")[keep].astype(float) for name in ("pt", "eta", "phi", "mass"))
    pz = pt * np.sinh(eta)
    axis = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, np.sqrt(mass**2 + pt**2 + pz**2)], 1)
    return {"four_vectors": vectors, "mask": mask, "jet": axis}


def main():
    everything = jets()
    print(f"onnxruntime {onnxruntime.__version__}, {len(everything['mask'])} jets\n")
    print("| network | features | relative to | difference |\n|---|---|---|---:|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for at, (model, features, axis) in enumerate(RUNS):
            run, scores, network = (f"{folder}/{at}{ending}" for ending in ("", ".parquet", ".onnx"))
            changes = [
                f"model={model}",
                f'input={{kind="particles",features="{features}",jet="{axis}"}}',
                'task.select="jet_pt > 900 and abs(jet_eta) < 2.5"',
                "train.budget.epochs=2",
                "train.schedule.milestones=[1]",
            ]
            jetgraft("train", "lundnet5-w", "--out", run, *(x for change in changes for x in ("--set", change)))
            jetgraft("predict", run, JETS, "-o", scores, "--select", SELECT)
            jetgraft("export", run, "-o", network, "--preprocessing")
            table = parquet.read_table(scores)
            names = [name for name in table.column_names if name.startswith("logit_")]
            expected = np.stack([table[name].to_numpy() for name in names], 1)
            session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
            inputs = {entry.name: everything[entry.name] for entry in session.get_inputs()}
            found = session.run(["logits"], inputs)[0]
            assert found.shape == expected.shape, (found.shape, expected.shape)
            difference = np.abs(found - expected).max() / np.sqrt((expected.astype(float) ** 2).mean())
            kind = model.split('"')[1]
            print(f"| {kind} | {features} | {axis} | {difference:.1e} |", flush=True)
            failed |= not difference < BOUND
    if failed:
        raise SystemExit(f"above {BOUND}")


main()
