"""Makes crates/jetgraft-physics/tests/expected/n_subjettiness.json: twelve real jets (40 hardest constituents) and the tau_N of
FastJet contrib's Nsubjettiness for them.

    python benches/fastjet/n_subjettiness.py JETS.parquet
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import compare
import export

to = compare.HERE.parent.parent / "crates/jetgraft-physics/tests/expected/n_subjettiness.json"
jets = [jet[:40] for jet in export.real_jets(sys.argv[1], 12, 25)]
text = "\n".join(f"{len(jet)}\n" + "\n".join(" ".join(repr(float(x)) for x in p) for p in jet) for jet in jets)
with tempfile.TemporaryDirectory() as folder:
    libraries = ("fastjetcontribfragile", "fastjettools", "fastjet")
    program = compare.build_peer(compare.HERE / "n_subjettiness.cc", pathlib.Path(folder) / "taus", libraries)
    lines = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
taus = [json.loads(line) for line in lines if line.startswith("[")]
rows = [
    json.dumps({"constituents": [[float(x) for x in p] for p in jet], "beta_1": tau[:4], "beta_2": tau[4:]})
    for jet, tau in zip(jets, taus, strict=True)
]
to.write_text("[\n" + ",\n".join(rows) + "\n]\n")
