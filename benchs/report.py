#!/usr/bin/env python3
"""Make benchs/RESULTS.md and its plots of the records in benchs/results.

    benchs/report.py [--records FOLDER] [--out FILE]

Records of the simulated CUDA runtime and of smoke runs are refused, and those of
several versions of Faiss in one folder: what is faster than one need not be
faster than another. Those of an older one have a folder of their own, and their
report lies in it.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from measure.record import InvalidRecord
from measure.shapes import WHOLE
from reporting import engine, filter_rates, plots, tables, words
from reporting.data import Refused, Results

HERE = pathlib.Path(__file__).resolve().parent

_HEAD = """\
# Results against Faiss {faiss}

Made by `benchs/report.py` of records of this version of Faiss; not written by hand. `benchs/README.md` tells how they
were measured, what each figure means, and where those against other versions are. A figure that is not there is "not yet
measured"; none is estimated, and none is from the simulated CUDA runtime.
"""


def sections(results, pictures):
    """(title, text) of each section."""
    shown = "\n\n".join(
        f"![{caption.partition(' (')[0].partition(':')[0]}](plots/{name})\n\n{caption}."
        for name, caption in pictures
    ) or "Not yet measured."
    databases = [
        (f"nb = {nb:,}, d = {d}", nb, d) for nb, d in WHOLE.small_databases
    ]
    yield from engine.sections(results)
    yield "Measured on", "\n\n".join(
        (tables.machines(results), tables.ceilings(results)))
    yield "What is to be reached", tables.bar_table(results)
    yield "Where it does not help", words.where_it_does_not_help(results)
    yield "Pictures", shown
    yield "Speed against stock Faiss, no output arrays given", tables.grids(
        results, "stock", "ours pooled")
    yield "Speed against stock Faiss, into the same touched arrays", tables.grids(
        results, "stock touched", "ours touched")
    yield "The same in C++", tables.grids(
        results, "C++ stock touched", "C++ ours touched")
    yield "All arrays on the GPU", "\n\n".join(
        f"nb = {nb:,}, d = {d}:\n\n{tables.on_gpu(results, nb, d)}"
        for nb, d in WHOLE.databases)
    yield ("Copy-back by itself (GB/s from 1 MiB on, time below)",
           tables.copy_back(results))
    yield "Small batches, k = 100, host arrays", "\n\n".join(
        f"{text}:\n\n{tables.small_batches(results, nb, d)}"
        for text, nb, d in databases)
    yield "How long a call keeps its caller, GPU arrays", "\n\n".join(
        f"{text}:\n\n{tables.calls(results, nb, d)}"
        for text, nb, d in databases)
    yield "16 threads, one query each, one index", tables.threads(results)
    yield "The script of Faiss' issue #4118", tables.cupy_script(results)
    yield "Many results for little computation", tables.large_results(results)
    yield "Results larger than the GPU's free memory", tables.beyond_memory(results)
    yield "How exact the results are", tables.exactness(results)
    yield from engine.details(results)
    yield "Constants", tables.constants(results)
    rates = filter_rates.section(results.folder / "filter")
    if rates:
        yield "How many vectors the exact search's filter lets pass", rates
    yield "What is missing", words.missing(results)


def write(results, out: pathlib.Path) -> None:
    """RESULTS.md at `out`, the plots in plots/ beside it."""
    pictures = plots.draw(results, out.parent / "plots")
    text = "\n".join(
        [_HEAD.format(faiss=results.faiss or "(not yet measured)")]
        + [f"## {title}\n\n{body}\n" for title, body in sections(results, pictures)]
    )
    out.write_text(text, encoding="utf-8")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=pathlib.Path, default=HERE / "results")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "RESULTS.md")
    # For tests alone: takes records marked as made up, and no others.
    parser.add_argument("--made-up", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        results = Results(options.records, made_up=options.made_up)
    except (InvalidRecord, Refused) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write(results, options.out)
    print(f"{options.out}: {len(results.records)} records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
