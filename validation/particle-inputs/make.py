#!/usr/bin/env python3
"""Features of jets by NumPy, from the published formulas, for `crates/jetgraft-data/tests/inputs.rs`.

`python make.py` writes, beside itself and always the same,

* `jetclass_style.parquet`, `pdg_style.parquet`: the same jets with the columns of JetClass, and with our own and particle numbers;
* `expected.json`: features of every set, kinematics, variables of the whole jet; charges of all numbers of the `particle` package.

Needs numpy, pyarrow and particle; the versions that made the files are in `expected.json`.
"""
import json
import math
import os

import numpy as np
import particle
import pyarrow as pa
import pyarrow.parquet as pq

HERE = os.path.dirname(os.path.abspath(__file__))
RNG = np.random.default_rng(20221124)
JETS = 14
LIMIT = 16
CODES = [211, -211, 321, -321, 2212, -2212, 130, 2112, -2112, 22, 11, -11, 13, -13]
MASS = {211: 0.13957, 321: 0.49368, 2212: 0.93827, 130: 0.49761, 2112: 0.93957, 22: 0.0, 11: 0.000511, 13: 0.10566}
KIND = {211: 0, 321: 0, 2212: 0, 130: 1, 2112: 1, 22: 2, 11: 3, 13: 4}
CHARGED = {211: 1, 321: 1, 2212: 1, 130: 0, 2112: 0, 22: 0, 11: -1, 13: -1}


def wrap(x):
    return (x + np.pi) % (2 * np.pi) - np.pi


def rapidity(e, pz, pt):
    """Space-like by rounding to single precision counts as massless."""
    return np.where(e**2 < pt**2 + pz**2, np.arcsinh(pz / pt), 0.5 * np.log((e + pz) / (e - pz)))


def jet(number):
    """Constituents of one jet, as they come from single-precision columns."""
    count = [1, 2, 3, 5, 20, 25][number % 6] if number else 20
    # Jets on both sides of the detector and across the edge of the azimuth.
    eta0 = [0.0, 1.3, -1.7, 0.4, -0.2][number % 5]
    phi0 = [3.1, -3.12, 0.5, 2.0][number % 4]
    pt = np.sort(RNG.exponential(25.0, count) + 0.3)[::-1]
    if number % 3 == 2:
        RNG.shuffle(pt)
    eta = eta0 + RNG.normal(0, 0.3, count)
    phi = phi0 + RNG.normal(0, 0.3, count)
    code = RNG.choice(CODES, count)
    mass = np.array([MASS[abs(c)] for c in code])
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    d = RNG.normal(0, 1.5, (4, count))
    d[1], d[3] = abs(d[1]), abs(d[3])
    charged = np.array([CHARGED[abs(c)] * np.sign(c) for c in code])
    d[:, charged == 0] = 0.0
    columns = {
        "part_px": px,
        "part_py": py,
        "part_pz": pz,
        "part_energy": e,
        "part_charge": charged,
        "part_d0val": d[0],
        "part_d0err": d[1],
        "part_dzval": d[2],
        "part_dzerr": d[3],
    }
    columns = {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}
    for at, name in enumerate(["ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon"]):
        columns[f"part_is{name}"] = np.array([KIND[abs(c)] == at for c in code], dtype=np.int32)
    columns["part_pdgid"] = np.asarray(code, dtype=np.int16)
    # The stored jet is not exactly the sum, as in a file with a detector's own jets.
    total = [float(np.sum(v)) for v in (px, py, pz, e)]
    pt_jet = math.hypot(total[0], total[1])
    columns["jet_pt"] = np.float32(1.01 * pt_jet)
    columns["jet_eta"] = np.float32(0.0 if number == 0 else math.asinh(total[2] / pt_jet) + 0.01)
    columns["jet_phi"] = np.float32(wrap(math.atan2(total[1], total[0]) - 0.02))
    columns["jet_energy"] = np.float32(1.02 * max(total[3], pt_jet * math.cosh(columns["jet_eta"])))
    return columns


def features(jet, reference):
    """Everything of one jet; `reference` is `stored` or `sum`."""
    c = {name: np.asarray(values, dtype=np.float64) for name, values in jet.items()}
    px, py, pz, e = (c[f"part_{name}"] for name in ("px", "py", "pz", "energy"))
    if reference == "stored":
        pt_jet, eta_jet, phi_jet, e_jet = (float(c[f"jet_{name}"]) for name in ("pt", "eta", "phi", "energy"))
        pz_jet = pt_jet * math.sinh(eta_jet)
    else:
        pt_jet = math.hypot(px.sum(), py.sum())
        eta_jet, phi_jet = math.asinh(pz.sum() / pt_jet), math.atan2(py.sum(), px.sum())
        e_jet, pz_jet = e.sum(), pz.sum()
    pt = np.hypot(px, py)
    order = np.argsort(-pt, kind="stable")[:LIMIT]
    px, py, pz, e, pt = (values[order] for values in (px, py, pz, e, pt))
    deta = np.arcsinh(pz / pt) - eta_jet
    dphi = wrap(np.arctan2(py, px) - phi_jet)
    scaled = lambda x, shift, scale: np.clip((x - shift) * scale, -5, 5)
    kin = [
        scaled(np.log(pt), 1.7, 0.7),
        scaled(np.log(e), 2.0, 0.7),
        scaled(np.log(pt / pt_jet), -4.7, 0.7),
        scaled(np.log(e / e_jet), -4.7, 0.7),
        scaled(np.hypot(deta, dphi), 0.2, 4.0),
    ]
    angles = [deta * (1 if eta_jet >= 0 else -1), dphi]
    flags = ["charge"] + [f"is{kind}" for kind in ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")]
    pid = [c[f"part_{name}"][order] for name in flags]
    d0, d0_error, dz, dz_error = (c[f"part_{name}"][order] for name in ("d0val", "d0err", "dzval", "dzerr"))
    track = [np.tanh(d0), np.clip(d0_error, 0, 1), np.tanh(dz), np.clip(dz_error, 0, 1)]
    centre = [np.sum(pt * deta) / np.sum(pt), np.sum(pt * dphi) / np.sum(pt)]
    y = rapidity(e, pz, pt) - rapidity(e_jet, pz_jet, pt_jet)
    mass2 = e**2 - px**2 - py**2 - pz**2
    sets = {
        "kin": kin + angles,
        "kinpid": kin + pid + angles,
        "full": kin + pid + track + angles,
        "jetclr": [pt / 600, deta - centre[0], dphi - centre[1]],
        "flow": [pt / pt.sum(), y, dphi],
        "directions": [y, dphi],
        "kinematics": [pt, y, dphi, np.sqrt(np.maximum(mass2, 0))],
    }
    # Nine digits: the features are compared in single precision.
    short = lambda columns: [float(f"{x:.9g}") for x in np.stack(columns, axis=1).ravel()]
    return {name: short(columns) for name, columns in sets.items()}


def variables(jet):
    """Variables of the whole jet that need no clustering, by plain loops over all constituents."""
    c = {name: np.asarray(values, dtype=np.float64) for name, values in jet.items()}
    px, py, pz, e = (c[f"part_{name}"] for name in ("px", "py", "pz", "energy"))
    pt, y, phi = np.hypot(px, py), rapidity(e, pz, np.hypot(px, py)), np.arctan2(py, px)
    z = pt / pt.sum()
    n = len(pt)
    angle = lambda i, j: math.hypot(y[i] - y[j], wrap(phi[i] - phi[j]))
    e2 = sum(z[i] * z[j] * angle(i, j) for i in range(n) for j in range(i + 1, n))
    e3 = sum(
        z[i] * z[j] * z[k] * angle(i, j) * angle(i, k) * angle(j, k)
        for i in range(n)
        for j in range(i + 1, n)
        for k in range(j + 1, n)
    )
    y_jet, phi_jet = rapidity(e.sum(), pz.sum(), math.hypot(px.sum(), py.sum())), math.atan2(py.sum(), px.sum())
    p_jet = float(c["jet_pt"]) * math.cosh(float(c["jet_eta"]))
    return {
        "pt": float(c["jet_pt"]),
        "mass": math.sqrt(max(float(c["jet_energy"]) ** 2 - p_jet**2, 0.0)),
        "multiplicity": n,
        "c2": e3 / e2**2 if n > 1 else 0.0,
        "d2": e3 / e2**3 if n > 1 else 0.0,
        "width": float(np.sum(z * np.hypot(y - y_jet, wrap(phi - phi_jet)))) if n > 1 else 0.0,
    }


def main():
    jets = [jet(number) for number in range(JETS)]
    scalars = ["jet_pt", "jet_eta", "jet_phi", "jet_energy"]
    lists = [name for name in jets[0] if name not in scalars]

    def table(names):
        columns = {"event_id": pa.array(range(1000, 1000 + JETS), pa.uint64())}
        for name in names:
            values = [j[name] for j in jets]
            columns[name] = pa.array(values, pa.float32()) if name in scalars else pa.array([v.tolist() for v in values], pa.list_(pa.from_numpy_dtype(values[0].dtype)))
        return pa.table(columns)

    jetclass = scalars + [name for name in lists if name != "part_pdgid"]
    pq.write_table(table(jetclass), os.path.join(HERE, "jetclass_style.parquet"))
    pdg = ["part_px", "part_py", "part_pz", "part_energy", "part_pdgid"]
    pq.write_table(table(scalars + pdg), os.path.join(HERE, "pdg_style.parquet"))

    # Free particles only: the package also lists quarks, diquarks and the names of models' particles.
    charges = {}
    for p in particle.Particle.all():
        code = int(p.pdgid)
        free = p.pdgid.is_hadron or abs(code) in (11, 12, 13, 14, 15, 16, 22, 23, 24, 25)
        if free and p.three_charge is not None and abs(code) < 10_000_000:
            charges[code] = int(p.three_charge) // 3
    expected = {
        "versions": {"numpy": np.__version__, "pyarrow": pa.__version__, "particle": particle.__version__},
        "limit": LIMIT,
        "stored": [features(j, "stored") for j in jets],
        "sum": [features(j, "sum") for j in jets],
        "variables": [variables(j) for j in jets],
        "charges": {str(code): charges[code] for code in sorted(charges)},
    }
    with open(os.path.join(HERE, "expected.json"), "w", encoding="utf-8") as out:
        json.dump(expected, out, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main()
