"""What is to be reached, row by row, and whether it is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from measure.floors import COMPUTE, copy_back_floor
from measure.shapes import WHOLE

from .data import (
    NOT_YET,
    Results,
    few_queries,
    rate,
    ratio_of_bounds,
    result_bytes,
)

#: Whose arrays cases/small_batches.py searches with.
GPU_LIBRARIES = ("CuPy", "torch", "stand-in")

#: Two timings of the same version are never closer than this counts for.
LEAST_NOISE = 0.01


@dataclasses.dataclass
class Row:
    """One line of the bar. `passed` None: not measured. Not `whole`: measured on
    a part of the grid alone. `limit`: what the row would be if nothing but the
    computation took time, as that was measured; `out_of_reach`: that this would
    miss too."""

    wanted: str
    found: str = NOT_YET
    passed: bool | None = None
    whole: bool = True
    limit: str = ""
    out_of_reach: bool = False

    @property
    def told(self) -> str:
        """For a table: what was found and, where it was missed, the limit."""
        if self.passed is False and self.limit:
            return f"{self.found}. {self.limit}"
        return self.found

    @property
    def verdict(self) -> str:
        """For a table."""
        if self.passed is None:
            return NOT_YET
        if not self.passed:
            return "**missed**" + (
                ", out of reach of any copying" if self.out_of_reach else "")
        return "reached" if self.whole else "reached where measured"


def rows(results: Results) -> list[Row]:
    """All of it."""
    return [
        _host_results_cost_little(results),
        _link_is_used(results),
        _never_slower(results),
        _faster(results, 10_000, 128, 100, 4.0),
        _faster(results, 1_000_000, 128, 1000, 1.3),
        _one_query(results),
        _gpu_arrays(results),
        _threads(results),
        _beyond_memory(results),
    ]


def grid_cases() -> Iterator[dict]:
    """Every cell of the grid."""
    for (nb, d), n, k in itertools.product(
        WHOLE.databases, WHOLE.queries, WHOLE.neighbours
    ):
        yield {"n": n, "k": k, "nb": nb, "d": d}


def launch_bound(case) -> bool:
    """Whether calls and launches, not bytes or operations, decide."""
    return case["n"] <= 32 or (case["nb"] <= 10_000 and case["n"] <= 500)


def noise_of(results, case) -> float:
    """What a difference must exceed to count, in a cell of the grid: what two
    timings of stock Faiss differ by there or, where it was timed once, at most in
    the longer searches of that database."""
    own = results.noise("grid", case)
    if own is None:
        own = max(
            (results.noise("grid", other) or 0 for other in grid_cases()
             if (other["nb"], other["d"]) == (case["nb"], case["d"])
             and not launch_bound(other)), default=0)
    return max(own, LEAST_NOISE)


def cell(case) -> str:
    return ", ".join(f"{name} {case[name]:,}" for name in ("n", "k", "nb", "d"))


def _extreme(results, row, values, pick, meets, show):
    """Fill a row by the worst of (value, case)."""
    values = list(values)
    case = None
    if values:
        row.whole = all(
            (found := results.get("grid", case, "ours pooled")) and found.median
            for case in grid_cases()
        )
        value, case = pick(values, key=lambda pair: pair[0])
        row.found = f"worst of {len(values)}: {show(value)} ({cell(case)})"
        row.passed = meets(value)
    return row, case


def _limited(row, value, meets, text):
    """Fill in what the computation alone allows, if it was measured."""
    if value is not None:
        row.limit, row.out_of_reach = text(value), not meets(value)
    return row


def _host_results_cost_little(results):
    row = Row("Results in pinned host memory take at most 2 % longer than results "
              "left on the GPU, wherever the copy at best takes less than half of "
              "the computation (and calls do not decide)")
    pinned = "ours GPU queries, pinned"

    def values(on_gpu):
        for case in grid_cases():
            found = results.pair("grid", case, pinned, on_gpu)
            bounds = found and ratio_of_bounds(found[0], case)
            if bounds and bounds < 0.5 and not launch_bound(case):
                yield results.ratio("grid", case, pinned, on_gpu) - 1, case

    row, case = _extreme(
        results, row, values("ours GPU"), max, lambda v: v <= 0.02,
        lambda v: f"{100 * v:+.1f} %")
    if case:
        above = [
            (value, results.ratio_error("grid", case, pinned, "ours GPU"))
            for value, case in values("ours GPU") if value > 0.02
        ]
        if above:
            beyond = sum(value - error > 0.02 for value, error in above)
            row.found += (f"; {len(above)} above 2 %, {beyond} of them by more than "
                          "twice the standard error of the medians")
        wait = results.get(
            "grid", case, "ours GPU").ceilings["copy_call_s"]
        row.limit = (
            f"A copy of 4 bytes with its wait takes {wait * 1e6:.3g} µs of it")
        stock = list(values(COMPUTE))
        if stock:
            row.limit += (". Over stock Faiss with its results on the GPU it is, at "
                          f"worst, {100 * max(stock)[0]:+.1f} %")
    return row


def _link_is_used(results):
    row = Row("At least 90 % of the measured link, wherever the copy at best takes "
              "more than twice the computation (and calls do not decide)")

    def values():
        for case in grid_cases():
            found = results.get("grid", case, "ours GPU queries, pinned")
            if not found or not found.median or launch_bound(case):
                continue
            bounds = ratio_of_bounds(found, case)
            if bounds and bounds > 2:
                link = found.ceilings["link_to_host_bytes_s"]
                yield rate(found, result_bytes(case)) / link, case

    row, case = _extreme(
        results, row, values(), min, lambda v: v >= 0.9, lambda v: f"{100 * v:.0f} %")
    if case is None:
        return row
    return _limited(
        row, _link_share(results, "grid", case), lambda v: v >= 0.9, _link_limit)


def _link_limit(share):
    return (f"The computation alone, measured, takes so long that {100 * share:.0f} % "
            "of the link would carry the results meanwhile")


def _link_share(results, bench, case):
    """The share of the link that is needed while the computation lasts."""
    found = results.compute(bench, case)
    if not found:
        return None
    return min(
        copy_back_floor(found.ceilings, result_bytes(case)) / found.median, 1.0)


def _never_slower(results):
    row = Row("Never slower than stock Faiss beyond the noise, on the whole grid, "
              "as a drop-in and into the same touched arrays")
    pairs = (("stock", "ours pooled"), ("stock touched", "ours touched"))

    def values():
        for case in grid_cases():
            for stock, ours in pairs:
                ratio = results.ratio("grid", case, stock, ours)
                if ratio:
                    yield ratio + noise_of(results, case), case

    row, _ = _extreme(
        results, row, values(), min, lambda v: v >= 1,
        lambda v: f"{v:.2f}x with the noise")
    return row


def _faster(results, nb, d, k, wanted):
    row = Row(f"At least {wanted:g} times stock Faiss at nb = {nb:,}, d = {d}, "
              f"k = {k:,}, n from 10,000 on")

    def values():
        for case in grid_cases():
            if (case["nb"], case["d"], case["k"]) == (nb, d, k) and case["n"] >= 10_000:
                ratio = results.ratio("grid", case, "stock", "ours pooled")
                if ratio:
                    yield ratio, case

    row, case = _extreme(
        results, row, values(), min, lambda v: v >= wanted, lambda v: f"{v:.2f}x")
    # The longest searches are not timed with nothing to copy.
    for other in (case, *(other for _, other in sorted(
            values(), key=lambda pair: pair[0]))):
        limit = other and results.over_compute("grid", other, "stock", "ours pooled")
        if limit:
            where = "" if other == case else f" (n {other['n']:,})"
            return _limited(
                row, limit, lambda v: v >= wanted,
                lambda v: f"With nothing to copy at all it would be {v:.2f}x{where}")
    return row


def _one_query(results):
    row = Row("One query (k = 100, nb = 1M, d = 128): at most 0.75 of stock "
              "Faiss' median")
    case = few_queries(1, 1_000_000, 128, "latency")
    ratio = results.ratio("small_batches", case, "ours pooled", "stock")
    if ratio is not None:
        row.found, row.passed = f"{ratio:.2f} of stock Faiss", ratio <= 0.75
    return _limited(
        row, results.over_compute("small_batches", case, "stock", "ours pooled"),
        lambda v: 1 / v <= 0.75,
        lambda v: f"With nothing to copy at all it would be {1 / v:.2f}")


def _gpu_arrays(results):
    row = Row("CuPy arrays in and out: no byte over the link, no wait of the host, "
              "at most 15 µs of Python on top of the call in C++")
    worst, others = None, []
    for (nb, d), library in itertools.product(
        WHOLE.small_databases, ("CuPy", "stand-in")
    ):
        case = few_queries(1, nb, d, "call, GPU arrays")
        python, given = _over_pointers(results, case, f"ours, {library}, given outputs")
        if not given:
            continue
        counts = given.entry.get("counts", {})
        moved = counts.get("bytes_to_host", 0) + counts.get("bytes_to_device", 0)
        also = ""
        made_python, made = _over_pointers(results, case, f"ours, {library}")
        if made:
            also = (f"; {made_python * 1e6:.1f} µs with results that {library} makes")
        found = (python, moved, counts.get("host_waits", 0),
                 f"{library}, nb = {nb:,}{also}")
        others.append((found[0], nb))
        worst = max(worst, found) if worst else found
    if worst:
        python, moved, waits, where = worst
        row.limit = "; ".join(
            f"nb = {nb:,}: {seconds * 1e6:.1f} µs" for seconds, nb in others)
        row.found = (f"{python * 1e6:.1f} µs of Python, {moved:g} bytes, {waits:g} "
                     f"waits, one query into given arrays ({where})")
        row.passed = python <= 15e-6 and moved == 0 and waits == 0
    return row


def _over_pointers(results, case, name):
    """What a contender takes beyond the same call with raw pointers, in seconds,
    and what was measured; (None, None) if it was not."""
    found = results.pair("small_batches", case, name, "ours GPU, pointers")
    if not found:
        return None, None
    measured, call = found
    return measured.median - call.median, measured


def _threads(results):
    row = Row(f"{WHOLE.threads} threads with one query each on one index: at least 4 "
              "times the queries a second of stock Faiss behind a mutex")
    ratios = [
        (ratio, case) for case in results.cases("threads")
        if (ratio := results.ratio(
            "threads", case, "C++ stock, mutex", "C++ ours")) is not None
    ]
    if not ratios:
        return row
    ratio, case = min(ratios, key=lambda found: found[0])
    row.found, row.passed = f"worst: {ratio:.2f}x (nb {case['nb']:,})", ratio >= 4
    return _limited(
        row, results.ratio("threads", case, "C++ stock, mutex", COMPUTE),
        lambda v: v >= 4,
        lambda v: "With the queries of all threads in one search, and nothing to "
        f"copy, it would be {v:.2f}x")


def _beyond_memory(results):
    row = Row("Results three times as large as the free GPU memory come at 80 % of "
              "the link or more")
    for case in results.cases("beyond_memory"):
        found = results.get("beyond_memory", case, "ours pinned")
        if found and found.median:
            link = found.ceilings["link_to_host_bytes_s"]
            share = rate(found, result_bytes(case)) / link
            row.found, row.passed = f"{100 * share:.0f} %", share >= 0.8
            _limited(
                row, _link_share(results, "beyond_memory", case),
                lambda v: v >= 0.8, _link_limit)
    return row
