"""Writes particles.parquet: whole events of stable visible particles, for `jetgraft cluster`.

python3 -m venv V && V/bin/pip install pythia8mc==8.317.2 pyarrow numpy
V/bin/python samples/particles.py samples/particles.parquet
"""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pythia8mc

EVENTS = 60
SEED = 20_26

pythia = pythia8mc.Pythia("", False)
for line in (
    "Beams:eCM = 13000.",
    "HardQCD:all = on",
    "PhaseSpace:pTHatMin = 200.",
    "Random:setSeed = on",
    f"Random:seed = {SEED}",
    "Print:quiet = on",
):
    pythia.readString(line)
assert pythia.init()

columns = {name: [] for name in ("px", "py", "pz", "energy")}
while len(columns["px"]) < EVENTS:
    if not pythia.next():
        continue
    kept = [p for p in pythia.event if p.isFinal() and p.isVisible() and abs(p.eta()) < 5.0]
    for name, value in (("px", "px"), ("py", "py"), ("pz", "pz"), ("energy", "e")):
        columns[name].append(np.array([getattr(p, value)() for p in kept], dtype=np.float32))

# Bits 60 and above: 3, particles; below: the event number.
event_id = pa.array([(3 << 60) | i for i in range(EVENTS)], pa.uint64())
lists = {name: pa.array(rows, pa.list_(pa.float32())) for name, rows in columns.items()}
table = pa.table({"event_id": event_id, **lists})
leaves = [f"{name}.list.element" for name in lists]
pq.write_table(
    table,
    sys.argv[1],
    row_group_size=100,
    compression="zstd",
    compression_level=19,
    use_dictionary=False,
    column_encoding={leaf: "BYTE_STREAM_SPLIT" for leaf in leaves},
)
print(len(table), "events,", sum(map(len, columns["px"])), "particles")
