"""Runs exported networks in ONNX Runtime and compares with our own logits.

usage: python check.py [--folder FOLDER] [--record]

Needs the Python packages numpy, onnx, onnxruntime, safetensors and torch, and the release build of `onnx_cases`
(cargo build --release --workspace --bin onnx_cases).

For networks of every kind, with random weights, running statistics included:

  files      onnx.checker with full shape inference; the same bytes when they are written again
  padded     jets of 1 to 90 constituents in batches of 1 and of all, padded to the longest, and to more; padding at the
             end or anywhere; not-a-number, infinity and large numbers in padded slots; a jet without any constituent
  outputs    probabilities are the softmax of the logits
  standard   the standardisation inside the graph against numpy
  vectors    the preprocessing inside the graph against numpy in double precision, for jets anywhere in the detector, given
             the four-vectors of the constituents
  pytorch    the safetensors under the peers' names in PyTorch modules (modules.py): logits

Differences are relative to the root mean square of the logits of a case. Each must be below 2e-5.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.numpy import load_file

import modules

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BOUND = 2e-5


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def padded(rows, offsets, slots, random, junk=0.0, anywhere=False):
    """Rows of ragged jets in padded slots, and the slots of each jet."""
    jets = len(offsets) - 1
    out = np.full((jets, slots) + rows.shape[1:], junk, rows.dtype)
    places = []
    for jet in range(jets):
        size = offsets[jet + 1] - offsets[jet]
        place = np.arange(size)
        if anywhere:
            place = np.sort(random.permutation(slots)[:size])
        out[jet, place] = rows[offsets[jet] : offsets[jet + 1]]
        places.append(place)
    return out, places


class Case:
    def __init__(self, folder, facts):
        self.facts, self.name = facts, facts["name"]
        self.path = folder / f"{self.name}.onnx"
        jets = load_file(str(folder / f"{self.name}.jets"))
        self.offsets = jets["jet_offsets"].astype(int)
        self.features, self.kinematics = jets["features"], jets["kinematics"]
        self.parents = jets["parents"].astype(np.int64)
        self.logits = jets["logits"]
        self.size = float(np.sqrt(np.mean(self.logits.astype(float) ** 2)))

    def worst(self, found, expected):
        assert found.shape == expected.shape, (found.shape, expected.shape)
        assert np.isfinite(found).all(), f"{self.name}: not finite"
        return float(np.abs(found - expected).max()) / self.size

    def inputs(self, jets, slots, random, junk=0.0, anywhere=False, features=None):
        features = self.features if features is None else features
        if self.facts["kind"] == "mlp":
            return {"features": features[jets]}
        rows = np.concatenate([np.arange(self.offsets[j], self.offsets[j + 1]) for j in jets] or [[]]).astype(int)
        offsets = np.cumsum([0] + [self.offsets[j + 1] - self.offsets[j] for j in jets])
        state = random.bit_generator.state

        def pad(values, junk):
            random.bit_generator.state = state
            return padded(values[rows], offsets, slots, random, junk, anywhere)

        out, places = pad(features, junk)
        inputs = {"features": out, "mask": pad(np.ones(len(features), np.float32), 0.0)[0]}
        if self.facts["kinematics"]:
            inputs["kinematics"] = pad(self.kinematics, junk)[0]
        if self.facts["edges"]:
            parents = pad(self.parents, -1)[0]
            for jet, place in enumerate(places):
                known = parents[jet, place] >= 0
                parents[jet, place[known]] = place[parents[jet, place[known]]]
            inputs["parents"] = parents
        return inputs


def check_files(case, folder, again):
    model = onnx.load(str(case.path))
    onnx.checker.check_model(model, full_check=True)
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.glob(f"{case.name}.*"):
        assert digest(path) == digest(again / path.name), f"{path.name}: other bytes when written again"


def check_padded(case, random):
    run = session(case.path)
    everything = list(range(len(case.offsets) - 1))
    longest = int(np.diff(case.offsets).max())
    worst = 0.0
    for jet in everything:
        size = int(case.offsets[jet + 1] - case.offsets[jet])
        for slots in (size, size + 5):
            found = run.run(["logits"], case.inputs([jet], slots, random))[0]
            worst = max(worst, case.worst(found, case.logits[[jet]]))
    for slots in (longest, 128):
        for junk in (0.0, 1e30, np.inf, np.nan):
            for anywhere in (False, True):
                inputs = case.inputs(everything, slots, random, junk, anywhere)
                found, chance = run.run(["logits", "probabilities"], inputs)
                worst = max(worst, case.worst(found, case.logits))
                shifted = np.exp(found - found.max(1, keepdims=True))
                assert np.abs(chance - shifted / shifted.sum(1, keepdims=True)).max() < 1e-6
    for jets in ([5, 3, 3], [11, 0]):
        found = run.run(["logits"], case.inputs(jets, 100, random))[0]
        worst = max(worst, case.worst(found, case.logits[jets]))
    if case.facts["kind"] != "mlp":
        # A jet without constituents is one constituent of zeros, wherever it stands in a batch.
        nothing = {k: np.zeros((1, 1) + v.shape[2:], v.dtype) for k, v in case.inputs([0], 1, random).items()}
        nothing["mask"][:] = 1
        if "parents" in nothing:
            nothing["parents"][:] = -1
        expected = run.run(["logits"], nothing)[0]
        inputs = case.inputs(everything, longest, random, 7.0)
        inputs["mask"][4] = 0
        found = run.run(["logits"], inputs)[0]
        others = [jet for jet in everything if jet != 4]
        worst = max(worst, case.worst(found[[4]], expected), case.worst(found[others], case.logits[others]))
    return worst


def check_standardised(case, folder, random):
    count = case.facts["features"]
    centre = np.float32(0.1) * np.arange(count, dtype=np.float32)
    scale = np.float32(0.5) + np.float32(0.25) * np.arange(count, dtype=np.float32)
    everything = list(range(len(case.offsets) - 1))
    raw = case.features * scale + centre
    found = session(folder / f"{case.name}.standardised.onnx").run(
        ["logits"], case.inputs(everything, 100, random, features=raw)
    )[0]
    plain = session(case.path).run(["logits"], case.inputs(everything, 100, random, features=(raw - centre) / scale))[0]
    return case.worst(found, plain)


def four_vectors(case, random):
    """The case's constituents around jets anywhere in the detector, (px, py, pz, E) in double precision."""
    jets = len(case.offsets) - 1
    jet = np.repeat(np.arange(jets), np.diff(case.offsets))
    axis_y, axis_phi = random.uniform(-2.5, 2.5, jets), np.linspace(-np.pi, np.pi, jets)
    pt, y, phi, mass = case.kinematics.astype(float).T
    y, phi = y + axis_y[jet], phi + axis_phi[jet]
    mt = np.hypot(pt, mass)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(y), mt * np.cosh(y)], 1), jet


def quantities(vectors, jet, axis, properties):
    """What the features are made of, by the usual formulas."""
    axis = axis[jet]

    def parts(v):
        pt = np.hypot(v[:, 0], v[:, 1])
        rapidity = np.arctanh(v[:, 2] / v[:, 3])
        return pt, np.arcsinh(v[:, 2] / pt), rapidity, np.arctan2(v[:, 1], v[:, 0]), v[:, 3]

    pt, eta, rapidity, phi, energy = parts(vectors)
    jet_pt, jet_eta, jet_rapidity, jet_phi, jet_energy = parts(axis)
    delta_eta = (eta - jet_eta) * np.where(jet_eta < 0, -1, 1)
    delta_phi = (phi - jet_phi + np.pi) % (2 * np.pi) - np.pi
    total = np.bincount(jet, pt)[jet]
    centre_eta = (np.bincount(jet, pt * (eta - jet_eta))[jet]) / total
    centre_phi = (np.bincount(jet, pt * delta_phi)[jet]) / total
    mass = np.sqrt(np.maximum(energy**2 - (vectors[:, :3] ** 2).sum(1), 0))
    return {
        "LogPt": np.log(pt),
        "LogEnergy": np.log(energy),
        "LogPtShare": np.log(pt / jet_pt),
        "LogEnergyShare": np.log(energy / jet_energy),
        "DeltaR": np.hypot(delta_eta, delta_phi),
        "MirroredDeltaEta": delta_eta,
        "Pt": pt,
        "PtFraction": pt / total,
        "CentredEta": eta - jet_eta - centre_eta,
        "CentredPhi": delta_phi - centre_phi,
        "DeltaRapidity": rapidity - jet_rapidity,
        "DeltaPhi": delta_phi,
        "Property": properties,
        "TanhProperty": np.tanh(properties),
    }, np.stack([pt, rapidity - jet_rapidity, delta_phi, mass], 1)


def check_vectors(case, folder, random):
    steps = case.facts["preprocessing"]
    if not steps:
        return None
    vectors, jet = four_vectors(case, random)
    given = [step for step in steps if step[0].endswith("Property")]
    properties = random.uniform(-2, 2, (len(vectors), len(given))).astype(np.float32)
    # Constituents without transverse momentum are left out; the hardest ones are kept; all of them make the jet.
    vectors[np.flatnonzero(jet == 9)[3], :2] = 0
    jets = jet.max() + 1
    axis = np.stack([np.bincount(jet, vectors[:, k], jets) for k in range(4)], 1)
    pt = np.hypot(vectors[:, 0], vectors[:, 1])
    rank = np.empty(len(pt), int)
    for one in range(jets):
        members = np.flatnonzero(jet == one)
        rank[members[np.argsort(-pt[members])]] = np.arange(len(members))
    keep = (rank < case.facts["limit"]) & (pt > 0)
    columns, place = [], 0
    for what, shift, scale, (low, high) in steps:
        column = properties[keep, place] if what.endswith("Property") else np.zeros(keep.sum())
        place += what.endswith("Property")
        found, kinematics = quantities(vectors[keep], jet[keep], axis, column.astype(float))
        columns.append(np.clip((found[what] - shift) * scale, low, high))
    plain = Case(folder, case.facts)
    plain.features, plain.kinematics = np.stack(columns, 1).astype(np.float32), kinematics.astype(np.float32)
    plain.offsets = np.cumsum([0] + np.bincount(jet[keep]).tolist())
    everything = list(range(len(case.offsets) - 1))
    expected = session(case.path).run(["logits"], plain.inputs(everything, 100, random))[0]
    worst = 0.0
    for junk, anywhere in ((0.0, False), (np.nan, False), (np.inf, True)):
        state = random.bit_generator.state

        def pad(values, junk):
            random.bit_generator.state = state
            return padded(values, case.offsets, 100, random, junk, anywhere)[0]

        inputs = {
            "four_vectors": pad(vectors, junk),
            "mask": pad(np.ones(len(vectors), np.float32), 0.0),
        }
        if given:
            inputs["properties"] = pad(properties, junk)
        found = session(folder / f"{case.name}.four_vectors.onnx").run(["logits"], inputs)[0]
        worst = max(worst, case.worst(found, expected))
    return worst


def check_pytorch(case, folder):
    network = modules.build(case.facts)
    if network is None:
        return None
    weights = {name: torch.from_numpy(v) for name, v in load_file(str(folder / f"{case.name}.safetensors")).items()}
    # Counters of batches are stored as 32-bit floats.
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not missing and not unexpected, (case.name, missing, unexpected)
    network.eval()
    with torch.no_grad():
        found = network(*modules.inputs(case)).numpy()
    return case.worst(found, case.logits)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", help="keep the files here")
    options = parser.parse_args()
    scratch = tempfile.TemporaryDirectory()
    folder = pathlib.Path(options.folder or scratch.name)
    again = pathlib.Path(scratch.name) / "again"
    program = ROOT / "target" / "release" / "onnx_cases"
    for place in (folder, again):
        subprocess.run([program, "write", place], check=True)
    cases = [Case(folder, facts) for facts in json.loads((folder / "cases.json").read_text())]
    versions = {m.__name__: m.__version__ for m in (onnx, onnxruntime, torch, np)}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"| {'network':24} | padded  | standardised | four-vectors | PyTorch |")
    print("|---|---:|---:|---:|---:|")
    failed = []
    for case in cases:
        random = np.random.default_rng(5)
        check_files(case, folder, again)
        found = [
            check_padded(case, random),
            check_standardised(case, folder, random),
            check_vectors(case, folder, random),
            check_pytorch(case, folder),
        ]
        cells = ["-" if value is None else f"{value:.1e}" for value in found]
        print(f"| {case.name:24} | {cells[0]} | {cells[1]} | {cells[2]} | {cells[3]} |", flush=True)
        if any(value is not None and not value < BOUND for value in found):
            failed.append(case.name)
    if failed:
        raise SystemExit(f"above {BOUND}: {', '.join(failed)}")


main()
