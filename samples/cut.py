#!/usr/bin/env python3
"""Cuts the sample of jets in this folder from the full set of simulated jets.

    python cut.py SOURCE.parquet jets_r10_pt500.parquet

Needs pyarrow (26.0.1 was used; another version may write other bytes for the same numbers).

Whole events are chosen, so that both jets of an event are in or out together: the events of a class are
ordered by SHA-256 of "jetgraft sample 1:<event_id>" and taken from the front until the class has its number
of jets. The rows keep the order of the source (shuffled there), the numbers keep their bits; some columns
are left out to save space. The file is written under a temporary name and renamed when it is whole.
"""
import hashlib
import json
import os
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# name of the class, value of `process`, jets wanted (the last event may add one more)
CLASSES = (("qcd", 0, 6540), ("w", 1, 2400), ("top", 2, 4440))
COLUMNS = (
    "event_id", "process", "jet_index", "jet_pt", "jet_eta", "jet_phi", "jet_mass", "jet_nconst",
    "truth_contained", "part_pt", "part_deta", "part_dphi", "part_energy",
)
FLOATS = ("jet_pt", "jet_eta", "jet_phi", "jet_mass")
LISTS = ("part_pt", "part_deta", "part_dphi", "part_energy")
ROWS_PER_GROUP = 1000
ZSTD_LEVEL = 22


def place(event_id: int) -> str:
    """Where an event stands in the order of choice."""
    return hashlib.sha256(f"jetgraft sample 1:{event_id}".encode()).hexdigest()


def chosen_events(events: list[int], wanted_jets: int) -> set[int]:
    """Whole events in the order of their hash until `wanted_jets` jets are reached."""
    jets: dict[int, int] = {}
    for event in events:
        jets[event] = jets.get(event, 0) + 1
    chosen, total = set(), 0
    for event in sorted(jets, key=place):
        if total >= wanted_jets:
            break
        chosen.add(event)
        total += jets[event]
    return chosen


def main(source: str, target: str) -> None:
    table = pq.read_table(source, columns=list(COLUMNS))
    process = table["process"].to_pylist()
    event_id = table["event_id"].to_pylist()
    chosen: set[int] = set()
    for _, value, wanted in CLASSES:
        chosen |= chosen_events([e for e, p in zip(event_id, process) if p == value], wanted)
    table = table.filter(pa.array([e in chosen for e in event_id]))
    # One chunk, so that the row groups below do not depend on those of the source.
    table = table.combine_chunks().replace_schema_metadata(None)

    temporary = target + ".tmp"
    pq.write_table(
        table,
        temporary,
        row_group_size=ROWS_PER_GROUP,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=["process", "jet_index", "jet_nconst"],
        column_encoding={name: "BYTE_STREAM_SPLIT" for name in FLOATS}
        | {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in LISTS},
        write_page_index=False,
        data_page_size=1 << 24,
    )
    with open(temporary, "rb") as file:
        content = file.read()
        os.fsync(file.fileno())
    os.replace(temporary, target)

    counts = {}
    for name, value, _ in CLASSES:
        part = table.filter(pc.equal(table["process"], value))
        counts[name] = {"jets": part.num_rows, "events": len(set(part["event_id"].to_pylist()))}
    print(json.dumps({
        "file": os.path.basename(target),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "rows": table.num_rows,
        "constituents": pc.sum(pc.list_value_length(table["part_pt"])).as_py(),
        "classes": counts,
    }, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
