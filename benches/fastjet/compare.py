"""Our clustering and Lund trees against FastJet's C++ core: builds both sides, runs them in turn on one core, prints a table.

    python benches/fastjet/compare.py JETS.parquet [--rounds 7] [--core 0] [--work DIR] [--json]

Needs a Python with `fastjet` (its wheel brings headers and libraries), numpy and pyarrow; a C++ compiler; cargo.
Times are CPU seconds of the thread, best of several passes inside a run, median over the runs; ratios are of runs that followed
each other. FastJet is tried with every strategy it has for the job; the ratio is to its fastest.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import export

HERE = pathlib.Path(__file__).resolve().parent
STRATEGIES = ["Best", "N2Plain", "N2Tiled", "N2MinHeapTiled", "N2MHTLazy9", "N2MHTLazy25"]


def fastjet_folder():
    import importlib.util

    spec = importlib.util.find_spec("fastjet")
    if spec is None:
        sys.exit("error: no Python package `fastjet`\n\nhint: pip install fastjet, and run this with that Python")
    return pathlib.Path(spec.origin).parent


def build_peer(source, to, libraries=("fastjet",)):
    folder = fastjet_folder()
    library = folder / "lib64" if (folder / "lib64").exists() else folder / "lib"
    command = [os.environ.get("CXX", "g++"), "-O3", "-march=native", "-std=c++17", f"-I{folder / 'include'}"]
    command += [str(source), "-o", str(to), f"-L{library}", f"-Wl,-rpath,{library}"]
    subprocess.run(command + [f"-l{name}" for name in libraries], check=True)
    return to


def build_ours():
    command = ["cargo", "build", "--release", "-p", "jetgraft-benches", "--bin", "fastjet_workload"]
    command += ["--message-format", "json-render-diagnostics"]
    lines = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout.splitlines()
    built = [json.loads(line) for line in lines]
    return next(b["executable"] for b in built if b.get("executable") and b["target"]["name"] == "fastjet_workload")


def run(core, program, *arguments):
    command = ["taskset", "-c", str(core), str(program), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def compare(name, ours, peer, job, core, rounds, passes):
    """`job` is (kind, file, further arguments)."""
    kind, file, further = job
    strategies = STRATEGIES[:2] + STRATEGIES[3:5] if kind == "lund" else STRATEGIES
    first = {s: run(core, peer, kind, file, passes, *further, s)["us_per_set"] for s in strategies}
    fastest = min(first, key=first.get)
    mine, best, default, ratios, checks = [], [], [], [], []
    for _ in range(rounds):
        a = run(core, ours, kind, file, passes, *further)
        b = run(core, peer, kind, file, passes, *further, fastest)
        c = run(core, peer, kind, file, passes, *further, "Best")
        mine.append(a["us_per_set"])
        best.append(b["us_per_set"])
        default.append(c["us_per_set"])
        ratios.append(a["us_per_set"] / b["us_per_set"])
        checks.append(abs(a["check"] / b["check"] - 1) if a["count"] == b["count"] else float("inf"))
    return {
        "job": name,
        "ours_us": statistics.median(mine),
        "fastjet_us": statistics.median(best),
        "fastjet_strategy": fastest,
        "fastjet_default_us": statistics.median(default),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "ratio_to_default": statistics.median(a / c for a, c in zip(mine, default)),
        "difference_of_sums": max(checks),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jets", type=pathlib.Path, help="parquet with jet_eta, jet_phi, part_pt, part_deta, part_dphi, part_energy")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--work", type=pathlib.Path, default=HERE.parent.parent / "target" / "fastjet")
    parser.add_argument("--ours", type=pathlib.Path, help="a built fastjet_workload; built with cargo when absent")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    mean = export.write_all(options.jets, options.work)
    peer = build_peer(HERE / "peer.cc", options.work / "peer")
    ours = options.ours or build_ours()
    jobs = [(f"recluster + Lund tree + features, {mean:.0f} constituents", ("lund", options.work / "jets.bin", ()), 5)]
    for events, words in [("piled_up", "pile-up"), ("overlaid", "jets")]:
        for algorithm in ["antikt", "cambridge"]:
            job = ("cluster", options.work / f"{events}.bin", (algorithm, "0.4"))
            jobs.append((f"{algorithm} R = 0.4, 2000 particles, {words}", job, 5))
    rows = [compare(name, ours, peer, job, options.core, options.rounds, passes) for name, job, passes in jobs]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'job (us per jet or event)':<52}{'ours':>9}{'FastJet':>10}{'ratio':>8}  {'range':<14}{'strategy':<16}{'Best':>9}{'ratio':>8}  sums differ")
    for row in rows:
        low, high = row["ratio_range"]
        print(
            f"{row['job']:<52}{row['ours_us']:>9.1f}{row['fastjet_us']:>10.1f}{row['ratio']:>8.3f}  {f'{low:.3f}-{high:.3f}':<14}"
            f"{row['fastjet_strategy']:<16}{row['fastjet_default_us']:>9.1f}{row['ratio_to_default']:>8.3f}  {row['difference_of_sums']:.1e}"
        )


if __name__ == "__main__":
    main()
