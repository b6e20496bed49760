#!/usr/bin/env python3
"""Run the benchmarks and leave their record.

    benchs/run.py --out FOLDER [--seconds S] [NAME...]
    benchs/run.py --out FOLDER --only grid,threads
    benchs/run.py --out FOLDER --only grid --cells 10000:100:10000:128
    benchs/run.py --smoke

The names are those of the files in benchs/cases. FOLDER gets one JSON file
(benchs/measure/record.py describes it). --smoke runs all of them with the
smallest cases, checks the record and keeps nothing: times of such a run mean
nothing, and on the simulated CUDA runtime nothing else is allowed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import sys
import tempfile
import time

from measure import native, record
from measure.session import Session

#: Seconds of each in a run of WHOLE_S; in this order, so that a run that is ended
#: has what says most. One that needs less leaves it to those that follow.
CASES = {"engine": 240, "engine_worst": 60, "copy_back": 45, "small_batches": 45,
         "threads": 12, "cupy_script": 14, "large_results": 30, "beyond_memory": 12,
         "exactness": 30, "grid": 265, "constants": 105}
WHOLE_S = 840

#: A run of all benchmarks with less than this leaves the sweeps out, which
#: settle constants and compare nothing.
LEAST_S_WITH_CONSTANTS = 700


def _cells(text):
    try:
        cells = [tuple(map(int, cell.split(":"))) for cell in text.split(",")]
    except ValueError:
        cells = [()]
    if any(len(cell) != 4 or min(cell) < 1 for cell in cells):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of cells; one is n:k:nb:d, four counts")
    return cells


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"NAMEs: {', '.join(CASES)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="which benchmarks (default: all)")
    parser.add_argument("--only", metavar="NAME,NAME,...", default="",
                        help="the same, as one word")
    parser.add_argument("--out", type=pathlib.Path,
                        help="folder for the record")
    parser.add_argument("--seconds", type=float, default=WHOLE_S,
                        help=f"budget of all benchmarks (default {WHOLE_S})")
    parser.add_argument("--cell-seconds", type=float, default=3,
                        help="budget of the timed runs of one case (default 3), but "
                        "of those in --cells")
    parser.add_argument("--cells", metavar="N:K:NB:D,...", type=_cells, default=[],
                        help="of the grid and of engine: these cells alone")
    parser.add_argument("--without", metavar="CONTENDER,...", default="",
                        help="of engine: contenders to leave out")
    parser.add_argument("--library", help=f"path of {native.NAME}")
    parser.add_argument("--smoke", action="store_true",
                        help="the smallest cases; keeps nothing")
    options = parser.parse_args()
    options.names += filter(None, options.only.split(","))
    unknown = set(options.names) - set(CASES)
    if unknown:
        parser.error(f"no benchmark {min(unknown)!r}; there are {', '.join(CASES)}")
    return options


def measured(options, library, path) -> Session:
    """Run what was asked for; the record grows in `path`."""
    print("==> ceilings", flush=True)
    session = Session(
        library,
        budget_s=options.seconds,
        cell_s=0 if options.smoke else options.cell_seconds,
        smoke=options.smoke,
        cells=options.cells,
        without=options.without.split(","),
        say=lambda text: print(text, flush=True),
        save=lambda content: record.write(content, path),
    )
    for name, value in session.ceilings.items() if not options.smoke else ():
        print(f"    {name} {value:.4g}" if value else f"    {name} not measured")
    names = options.names or list(CASES)
    if not options.names and options.seconds < LEAST_S_WITH_CONSTANTS:
        names.remove("constants")
        session.skip("constants", {}, (
            f"time budget: {options.seconds:.0f} s for all, and it is run from "
            f"{LEAST_S_WITH_CONSTANTS} s on, or by its name"))
    for place, name in enumerate(names):
        begin = time.monotonic()
        print(f"==> {name}", flush=True)
        session.begin(CASES[name] / sum(CASES[n] for n in names[place:]))
        try:
            importlib.import_module(f"cases.{name}").run(session)
        except Exception as error:  # the others go on
            session.fail(name, error)
        print(f"    {name}: {time.monotonic() - begin:.0f} s", flush=True)
    return session


def main() -> int:
    options = arguments()
    library = native.Native(native.find(options.library))
    if library.gpu_count() == 0:
        print("error: no GPU in sight. Fix: run on a machine with one, or "
              "'make bench-smoke'", file=sys.stderr)
        return 2
    if library.simulated and not options.smoke:
        print("error: this is the simulated CUDA runtime, whose times mean "
              "nothing. Fix: --smoke, or a GPU", file=sys.stderr)
        return 2
    if not options.smoke and options.out is None:
        print("error: where to? Fix: --out FOLDER", file=sys.stderr)
        return 2

    with tempfile.TemporaryDirectory() as temporary:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = pathlib.Path(
            temporary if options.smoke else options.out, f"run-{stamp}.json"
        )
        session = measured(options, library, path)
        record.read(path)
        if not options.smoke:
            print(f"record: {path}")
    errors = session.errors()
    for line in errors:
        print(f"ERROR {line}")
    counts = {"timed": 0, "skipped": 0, "errors": len(errors)}
    for entry in session.record["measurements"]:
        if "skipped" not in entry:
            counts["timed"] += 1
        elif "contender" not in entry:
            counts["skipped"] += 1
    counts["timed"] -= len(errors)
    print(json.dumps(counts))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
