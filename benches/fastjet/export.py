"""Writes the momenta of the comparison: real jets, and events of 2,000 particles made of real jets.

File: u64 count, u64 offsets (count + 1), then px, py, pz, E (f64, GeV) of every particle; little-endian.
"""

import numpy as np
import pyarrow.parquet as parquet


def write(path, sets):
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype("<u8")
    with open(path, "wb") as file:
        file.write(np.array([len(sets)], "<u8").tobytes())
        file.write(offsets.tobytes())
        file.write(np.concatenate(sets).astype("<f8").tobytes())


def real_jets(source, count, least):
    """`count` jets of at least `least` constituents, evenly over the file, absolute momenta."""
    columns = ["jet_eta", "jet_phi", "part_pt", "part_deta", "part_dphi", "part_energy"]
    table = parquet.read_table(source, columns=columns)
    n = np.diff(table["part_pt"].combine_chunks().offsets.to_numpy())
    rows = np.flatnonzero(n >= least)
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    table = table.take(rows)
    jets = []
    for i in range(len(rows)):
        value = lambda name: np.asarray(table[name][i].as_py(), float)
        pt, eta = value("part_pt"), value("part_deta") + table["jet_eta"][i].as_py()
        phi = value("part_dphi") + table["jet_phi"][i].as_py()
        jets.append(np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), value("part_energy")], 1))
    return jets


def moved(jet, rapidity, angle, scale):
    """A jet boosted along the beam, turned about it, and scaled."""
    px, py, pz, energy = jet.T * scale
    plus, minus = (energy + pz) * np.exp(rapidity), (energy - pz) * np.exp(-rapidity)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * px - s * py, s * px + c * py, (plus - minus) / 2, (plus + minus) / 2], 1)


def overlaid(jets, count, particles, rng):
    """Events of jets alone: constituents of some 25 jets, scaled by 0.02 to 1, spread over |y| < 3 and all azimuths."""
    events = []
    for _ in range(count):
        parts = []
        while sum(map(len, parts)) < particles:
            jet = jets[rng.integers(len(jets))]
            parts.append(moved(jet, rng.uniform(-2, 2), rng.uniform(0, 2 * np.pi), 50.0 ** -rng.random()))
        events.append(np.concatenate(parts)[:particles])
    return events


def piled_up(jets, count, particles, rng):
    """Events of four jets in pile-up: the rest is flat in |y| < 4.5 and azimuth, pt exponential (mean 0.7 GeV), pion mass."""
    events = []
    for _ in range(count):
        parts = [moved(jets[rng.integers(len(jets))], rng.uniform(-1, 1), rng.uniform(0, 2 * np.pi), 0.4) for _ in range(4)]
        n = particles - sum(map(len, parts))
        pt, y, phi = rng.exponential(0.7, n), rng.uniform(-4.5, 4.5, n), rng.uniform(0, 2 * np.pi, n)
        mt = np.hypot(pt, 0.13957)
        parts.append(np.stack([pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(y), mt * np.cosh(y)], 1))
        events.append(rng.permutation(np.concatenate(parts)))
    return events


def write_all(source, folder):
    rng = np.random.default_rng(1)
    jets = real_jets(source, 2000, 50)
    write(folder / "jets.bin", jets)
    write(folder / "overlaid.bin", overlaid(jets, 40, 2000, rng))
    write(folder / "piled_up.bin", piled_up(jets, 40, 2000, rng))
    return float(np.mean([len(j) for j in jets]))
