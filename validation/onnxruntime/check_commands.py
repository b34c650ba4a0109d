"""Exports networks of run folders with their preprocessing and compares ONNX Runtime on four-vectors with `predict`.

usage: python check_commands.py

Needs the Python packages numpy, onnxruntime and pyarrow, and the release build of jetgraft (cargo build --release).

For LundNet and each network on constituents a training of two epochs on a few hundred jets of samples/, then `jetgraft predict` on
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
# Network, features, the jet they are relative to; without one, Lund trees from `jetgraft lund`.
RUNS = [
    ('{kind="lundnet"}', "lundnet-5", None),
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
    lists = [table[f"part_{name}"].to_pylist() for name in ("pt", "deta", "dphi", "energy")]
    pt, eta, phi, mass = (column(f"jet_{name}")[keep].astype(float) for name in ("pt", "eta", "phi", "mass"))
    pz = pt * np.sinh(eta)
    axis = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, np.sqrt(mass**2 + pt**2 + pz**2)], 1)
    slots = max(len(lists[0][row]) for row in keep)
    vectors, mask = np.zeros((len(keep), slots, 4)), np.zeros((len(keep), slots), np.float32)
    for place, row in enumerate(keep):
        part_pt, deta, dphi, energy = (np.array(values[row], float) for values in lists)
        y, x = eta[place] + deta, phi[place] + dphi
        momenta = part_pt * np.cos(x), part_pt * np.sin(x), part_pt * np.sinh(y), energy
        vectors[place, : len(part_pt)] = np.stack(momenta, 1)
        mask[place, : len(part_pt)] = 1
    return {"four_vectors": vectors, "mask": mask, "jet": axis}


def trees(path):
    """The Lund trees of a file of `jetgraft lund`, padded."""
    table = parquet.read_table(path)
    columns = [table[name].to_pylist() for name in ("ln_z", "ln_delta", "psi", "ln_m", "ln_kt", "parent")]
    slots = max(len(parents) for parents in columns[5])
    shape = len(table), slots
    features, mask = np.zeros((*shape, 5), np.float32), np.zeros(shape, np.float32)
    parents = np.full(shape, -1, np.int64)
    for jet in range(len(table)):
        count = len(columns[5][jet])
        features[jet, :count] = np.stack([column[jet] for column in columns[:5]], 1)
        mask[jet, :count], parents[jet, :count] = 1, columns[5][jet]
    return {"features": features, "mask": mask, "parents": parents}


def main():
    everything = jets()
    print(f"onnxruntime {onnxruntime.__version__}, {len(everything['mask'])} jets\n")
    print("| network | features | relative to | difference |\n|---|---|---|---:|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for at, (model, features, axis) in enumerate(RUNS):
            run, scores, network = (f"{folder}/{at}{ending}" for ending in ("", ".parquet", ".onnx"))
            spec = f'{{kind="particles",features="{features}",jet="{axis}"}}' if axis else '{kind="lund",features="lundnet-5"}'
            changes = [
                f"model={model}",
                f"input={spec}",
                'task.select="jet_pt > 900 and abs(jet_eta) < 2.5"',
                "train.budget.epochs=2",
                "train.schedule.milestones=[1]",
            ]
            jetgraft("train", "lundnet5-w", "--out", run, *(x for change in changes for x in ("--set", change)))
            jetgraft("predict", run, JETS, "-o", scores, "--select", SELECT)
            jetgraft("export", run, "-o", network, *(["--preprocessing"] if axis else []))
            given = everything
            if not axis:
                jetgraft("lund", JETS, "-o", f"{folder}/trees.parquet", "--select", SELECT)
                given = trees(f"{folder}/trees.parquet")
            table = parquet.read_table(scores)
            names = [name for name in table.column_names if name.startswith("logit_")]
            expected = np.stack([table[name].to_numpy() for name in names], 1)
            session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
            inputs = {entry.name: given[entry.name] for entry in session.get_inputs()}
            found = session.run(["logits"], inputs)[0]
            assert found.shape == expected.shape, (found.shape, expected.shape)
            difference = np.abs(found - expected).max() / np.sqrt((expected.astype(float) ** 2).mean())
            kind = model.split('"')[1]
            print(f"| {kind} | {features} | {axis or '-'} | {difference:.1e} |", flush=True)
            failed |= not difference < BOUND
    if failed:
        raise SystemExit(f"above {BOUND}")


main()
