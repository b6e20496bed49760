"""The exact engine in RESULTS.md: its speed beside everybody else's, the bar, and
what it takes where it falls back."""

from __future__ import annotations

import dataclasses

from measure.names import FIRST_SEARCH, IN_A_ROW, NEXT_SEARCH, OURS, STOCK
from measure.shapes import WHOLE

from . import bar
from .data import NOT_YET, Results, seconds, text
from .markdown import table

BENCH, WORST = "engine", "engine_worst"
#: Whom ours must not be slower than in any cell.
NOT_SLOWER_THAN = (STOCK, "torch", "FlashLib fp16")


def _times(*milliseconds):
    """By k; one for all of them may stand alone."""
    if len(milliseconds) == 1:
        milliseconds *= len(WHOLE.neighbours)
    return dict(zip(WHOLE.neighbours, milliseconds))


#: The bar, by (nb, d) and n: milliseconds that are accepted, and those that are
#: aimed at, of the searches of a C++ program by the GPU's own clock.
BAR = {
    (10_000, 128): {
        1: (_times(.031, .034, .038, .060), {}),
        10_000: (_times(.26, .31, .51, 1.7), _times(.15, .18, .30, 1.0)),
    },
    (1_000_000, 128): {
        1: (_times(.28, .28, .30, .33), _times(.17)),
        32: (_times(.30, .30, .33, .45), _times(.18)),
        500: (_times(.75, .75, .85, 1.3), _times(.50)),
        10_000: (_times(11, 11, 14, 19), _times(7, 7, 8, 11)),
        100_000: (_times(102, 104, 119, 170), _times(60, 61, 70, 100)),
    },
    (1_000_000, 512): {
        1: (_times(.65), _times(.58)),
        10_000: (_times(41, 41, 43, 58), _times(24, 24, 25, 34)),
    },
    (10_000_000, 96): {
        10_000: (_times(88, 88, 92, 102), _times(52, 52, 54, 60)),
    },
    (1_000_000, 1024): {
        10_000: (_times(71, 71, 75, 102), _times(42, 42, 44, 60)),
    },
}

#: The bar where the engine falls back: at most so many times what stock Faiss
#: takes; where nothing is named, 1.
WORST_BAR = {"1 % out of range": 1.1, "10 % out of range": 2.0,
             "all out of range": 2.0, "all equal": 2.0, "near duplicates": 2.0}
#: And of the first search after an add: so many searches' time.
FIRST_BAR = 3.0


@dataclasses.dataclass
class Cell:
    """What was found of one: seconds, and by contender how many times our time
    it took."""

    case: dict
    ours: float
    in_a_row: float | None
    ratios: dict

    @property
    def best(self):
        """(how many times our time, name) of the fastest of the others."""
        return min(((ratio, name) for name, ratio in self.ratios.items()),
                   default=None)

    @property
    def bar(self):
        """Milliseconds that are accepted, and aimed at; None where not."""
        by_n = BAR.get((self.case["nb"], self.case["d"]), {})
        return tuple(
            times.get(self.case["k"])
            for times in by_n.get(self.case["n"], ({}, {})))

    @property
    def kept(self):
        """"aim", "bar", "neither", or None without a bar. Its times are without
        the call and its wait, which are much of a search of few queries."""
        accept, aim = self.bar
        if accept is None:
            return None
        found = 1e3 * (self.in_a_row or self.ours)
        return "aim" if found <= (aim or 0) else "bar" if found <= accept else (
            "neither")

    @property
    def verdict(self):
        """For a table."""
        accept, aim = self.bar
        aimed = f", aim {aim:g}" if aim else ""
        return {
            None: "", "aim": f"aim {aim or 0:g} reached",
            "bar": f"within the bar {accept or 0:g}{aimed}",
            "neither": f"**beyond the bar {accept or 0:g}**",
        }[self.kept]


def cells(results: Results) -> list[Cell]:
    """Those in which ours was timed, in the order of the table."""
    order = {cell: i for i, cell in enumerate(WHOLE.engine_cells())}
    found = []
    for case in results.cases(BENCH):
        ours = results.get(BENCH, case, OURS)
        if ours is None or ours.median is None:
            continue
        row = results.ratio(BENCH, case, IN_A_ROW, OURS)
        found.append(Cell(case, ours.median, row and row * ours.median, {
            name: ratio for name in results.contenders(BENCH, case)
            if not name.startswith("ours")
            and (ratio := results.ratio(BENCH, case, name, OURS)) is not None
        }))
    return sorted(found, key=lambda cell: (
        order.get(_key(cell.case), len(order)), *_key(cell.case)))


def _key(case):
    return tuple(case[name] for name in ("n", "k", "nb", "d"))


_HEAD = """All arrays on the GPU; host clock, with the wait for the results. A cell: our time; where a bar was set, whether it
is kept (milliseconds); the fastest of the others, and stock Faiss, as multiples of our time. The bar's figures are
what a search takes by the GPU's own clock; up to 32 queries they are compared with a search out of 50 in a row ("in a row"), before one
wait. Others may be less exact; how much is told below.

"""


def speed(results):
    """The first table."""
    found = {_key(cell.case): cell for cell in cells(results)}
    rows = list(dict.fromkeys(
        (nb, d, n) for n, _, nb, d in (*WHOLE.engine_cells(), *found)))

    def show(nb, d, n, k):
        cell = found.get((n, k, nb, d))
        if cell is None:
            case = {"n": n, "k": k, "nb": nb, "d": d}
            return text(results.get(BENCH, case, OURS), str)
        parts = [f"**{seconds(cell.ours)}**" + (
            f" ({seconds(cell.in_a_row)} in a row)" if cell.in_a_row else "")]
        if cell.verdict:
            parts.append(cell.verdict)
        if cell.best and cell.best[1] != STOCK:
            parts.append(f"{cell.best[1]} {_times_ours(cell.best[0])}")
        if STOCK in cell.ratios:
            parts.append(f"stock {_times_ours(cell.ratios[STOCK])}")
        return "; ".join(parts)

    return _HEAD + table(
        ("nb", "d", "n", *(f"k = {k:,}" for k in WHOLE.neighbours)),
        [(f"{nb:,}", f"{d}", f"{n:,}",
          *(show(nb, d, n, k) for k in WHOLE.neighbours))
         for nb, d, n in rows])


def _times_ours(ratio):
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def honest(results):
    """How many cells keep the bar, and where somebody is faster."""
    found = cells(results)
    kept = [cell.kept for cell in found]
    told = [(
        f"Of {len(found)} measured cells {len(found) - kept.count(None)} have a bar: "
        f"{kept.count('aim')} reach what was aimed at, {kept.count('bar')} are within "
        f"the bar, {kept.count('neither')} beyond it.")]
    beyond = [bar.cell(cell.case) for cell in found if cell.kept == "neither"]
    if beyond:
        told.append("Beyond the bar: " + "; ".join(f"({cell})" for cell in beyond)
                    + ".")
    faster = [
        (cell, ratio, name) for cell in found
        for name, ratio in cell.ratios.items() if ratio < 1
    ]
    if not faster:
        return "\n\n".join([*told, "Nobody is faster than ours in any of them."])
    where = {_key(cell.case) for cell, _, _ in faster}
    named = {_key(cell.case) for cell, _, name in faster if name in NOT_SLOWER_THAN}
    told.append(
        f"In {len(where)} cells somebody is faster than ours, in {len(named)} of "
        f"them one of those whom the bar names ({', '.join(NOT_SLOWER_THAN)}):")
    told.append(table(
        ("n, k, nb, d", "who", "of our time", "labels that ours has"),
        [(bar.cell(cell.case), name, f"{ratio:.2f}",
          _agreement(results, cell.case, name)) for cell, ratio, name in faster]))
    return "\n\n".join(told)


def _agreement(results, case, name):
    share = (results.get(BENCH, case, name).entry.get("counts") or {}).get(
        "label_agreement")
    return NOT_YET if share is None else f"{share:.3%}"


def labels(results):
    """Of each contender: where it takes part, and how many labels are right."""
    shares, out = {}, {}
    for case in results.cases(BENCH):
        for name in results.contenders(BENCH, case):
            share = (results.get(BENCH, case, name).entry.get("counts") or {}).get(
                "label_agreement")
            if share is not None and name != IN_A_ROW:
                shares.setdefault(name, []).append(share)
    for name, case, why in results.left_out(BENCH):
        # What differs between cases is in how much time was left.
        out.setdefault(name, {}).setdefault(
            why.partition(":")[0] if why.startswith("time") else why, []).append(case)
    rows = [
        (name, f"{len(found)}", f"{min(found):.3%}", f"{sum(found) / len(found):.3%}",
         _reasons(out.pop(name, {})))
        for name, found in shares.items()
    ]
    rows += [(name, "0", "-", "-", _reasons(why)) for name, why in out.items()]
    return (
        "The share of the labels that the exact engine, and so D (docs/exact-search.md), has nearest; of 1,000 queries, and "
        "100,000 labels, at most in each cell.\n\n"
    ) + table(("", "cells", "least", "on average", "left out"), rows)


def _reasons(out):
    return "; ".join(f"{len(where)}: {why}" for why, where in out.items()) or "-"


def paths(results):
    """Scratch memory, and by which path queries were answered, by shape."""
    rows = []
    for cell in cells(results):
        counts = results.get(BENCH, cell.case, OURS).entry.get("counts") or {}
        scratch = counts.get("scratch_bytes")
        rows.append((
            bar.cell(cell.case),
            f"{scratch / 2**20:,.1f} MiB" if scratch is not None else NOT_YET,
            *_by_path(counts)))
    return table(
        ("n, k, nb, d", "scratch memory", "certified", "widened", "last path"), rows)


def times(results):
    """Of everybody."""
    found = cells(results)
    names = list(dict.fromkeys(
        name for cell in found for name in results.contenders(BENCH, cell.case)
        if name != IN_A_ROW))
    return table(
        ("n, k, nb, d", *names),
        [(bar.cell(cell.case), *(
            text(results.get(BENCH, cell.case, name), lambda it: seconds(it.median))
            for name in names)) for cell in found])


def _by_path(counts):
    return tuple(
        f"{counts[f'{path}_queries']:,}" if f"{path}_queries" in counts else NOT_YET
        for path in ("certified", "widened", "last_path"))


def worst(results):
    """Data and queries for which the engine falls back, and first searches."""
    rows, first = [], []
    for case in results.cases(WORST):
        if results.get(WORST, case, FIRST_SEARCH):
            first.append(case)
            continue
        shape = case["data"], f"{case['n']:,}", f"{case['k']:,}"
        ours = results.get(WORST, case, OURS)
        ratio = results.ratio(WORST, case, OURS, STOCK)
        if ratio is None:
            rows.append((*shape, *[text(ours, lambda found: "-")] * 2, *["-"] * 5))
            continue
        most = WORST_BAR.get(case["data"], 1.0)
        rows.append((
            *shape, seconds(results.get(WORST, case, STOCK).median),
            seconds(ours.median), f"{ratio:.2f}", _kept(ratio, most),
            *_by_path(ours.entry.get("counts") or {})))
    shapes = {(case["nb"], case["d"]) for case in results.cases(WORST)
              if case not in first}
    told = ", ".join(f"nb = {nb:,}, d = {d}" for nb, d in sorted(shapes))
    parts = []
    if rows:
        parts.append(
            f"{told}; kinds of data in benchs/measure/datasets.py. Queries out of "
            "range are compared with every vector.\n\n" + table(
                ("data", "n", "k", "stock", "ours, exact", "of stock's time", "bar",
                 "certified", "widened", "last path"), rows))
    if first:
        parts.append("The first search after an add, which makes anew what the "
                     "engine keeps of all vectors:\n\n" + table(
                         ("n, k, nb, d", "first search", "next search", "times",
                          "bar"), [_first(results, case) for case in first]))
    return "\n\n".join(parts)


def _first(results, case):
    found = results.pair(WORST, case, FIRST_SEARCH, NEXT_SEARCH)
    if not found:
        return bar.cell(case), *[NOT_YET] * 4
    first, following = (measured.median for measured in found)
    return (bar.cell(case), seconds(first), seconds(following),
            f"{first / following:.2f}", _kept(first / following, FIRST_BAR))


def _kept(ratio, most):
    return f"within ({most:g})" if ratio <= most else f"**beyond ({most:g})**"


def sections(results):
    """(title, text) of each that something was measured for."""
    if cells(results):
        yield "The exact engine's speed", speed(results)
        yield "Where the exact engine is not the fastest, or beyond its bar", honest(
            results)
        yield "How many labels the others have right", labels(results)
    if results.cases(WORST):
        yield "Where the exact engine falls back", worst(results)


def details(results):
    """What comes behind the other tables."""
    if cells(results):
        yield "The exact engine and all others", times(results)
        yield "The exact engine's memory and paths", paths(results)
