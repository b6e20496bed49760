"""The driver of validate.sh: runs parts, each within its time limit, and sums up.

Needs Python 3.8 and nothing else.
"""

import argparse
import json
import pathlib
import sys
import time

from host import BUNDLE, Host
from parts import BENCHMARK_MARGIN, FAILED, LIMITS, PARTS, PASSED, SKIPPED, Part


def arguments():
    parser = argparse.ArgumentParser(
        prog="validate.sh",
        description="Tests and measures faiss_ext on this machine.",
        epilog="PARTs: " + "; ".join(
            "%s (%d s): %s" % (name, LIMITS[name], run.__doc__)
            for name, (run, _) in PARTS.items()
        ),
    )
    parser.add_argument("outdir", type=pathlib.Path, help="folder for logs and records")
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--seconds", type=int,
                        help="budget of the benchmarks, instead of %d"
                        % (LIMITS["benchmarks"] - BENCHMARK_MARGIN))
    parser.add_argument("--benchmarks", metavar="NAME,NAME,...",
                        help="which of them (benchs/run.py has them); default: all")
    parser.add_argument("--cells", metavar="N:K:NB:D,...",
                        help="of the grid, these cells alone")
    parser.add_argument("--simulated", action="store_true",
                        help="on the simulated CUDA runtime in place of a GPU")
    options = parser.parse_args()
    for part in options.parts:
        if part not in PARTS:
            parser.error("no part %r; there are %s" % (part, ", ".join(PARTS)))
    return options


def run(name, host, folder, limit, benchmarks):
    """One part; whatever happens in it stays in it."""
    function, needs_device = PARTS[name]
    if needs_device and not host.has_device:
        return SKIPPED, "no GPU"
    if needs_device and not host.simulated and host.cuda is None:
        return FAILED, "CUDA's libraries are not found"
    try:
        return function(Part(name, host, folder, limit, benchmarks))
    except Exception as error:
        return FAILED, "%s: %s" % (type(error).__name__, error)


def main():
    options = arguments()
    folder = options.outdir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    limits = dict(LIMITS)
    if options.seconds:
        limits["benchmarks"] = options.seconds + BENCHMARK_MARGIN
    host = Host(options.simulated, folder)
    rows = []
    for name in options.parts or PARTS:
        print("==> %s (at most %d s)" % (name, limits[name]), flush=True)
        begin = time.monotonic()
        state, line = run(name, host, folder, limits[name], [
            word for option, value in (
                ("--only", options.benchmarks), ("--cells", options.cells))
            if value for word in (option, value)
        ])
        rows.append({
            "part": name, "state": state, "seconds": round(time.monotonic() - begin, 1),
            "line": line,
        })
        print("    %s: %s" % (state, line), flush=True)
    table = "\n".join(
        ["", "%-12s %-8s %8s  %s" % ("part", "state", "seconds", "")]
        + ["%-12s %-8s %8.1f  %s" % (r["part"], r["state"], r["seconds"], r["line"])
           for r in rows]
    )
    print(table)
    (folder / "summary.txt").write_text(table + "\n")
    (folder / "summary.json").write_text(json.dumps({
        "simulated": options.simulated,
        "manifest": json.loads((BUNDLE / "MANIFEST.json").read_text()),
        "parts": rows,
    }, indent=1) + "\n")
    # What the host has is no test.
    states = {
        row["state"] for row in rows
        if row["part"] != "host" or row["state"] == FAILED
    }
    return 1 if FAILED in states else 0 if PASSED in states else 3


if __name__ == "__main__":
    sys.exit(main())
