"""The table of what benchs/filter_rates.py counted."""

from __future__ import annotations

import json
import pathlib

_TEXT = """\
Counts on a CPU by `benchs/filter_rates.py`, with the functions that the GPU runs: {queries} queries, {host}, commit
{commit}, {date}. A first chunk of {sample:,} vectors or 64 k, whichever is more; each chunk makes all until then four times as
many; after each the k best stay on the list, and D of the k-th is the cut of the next. Each cell: how many vectors of a query
pass, in the mean over queries; how long its list was, in the mean and at most; in brackets how many pass the last cut, in the mean,
which no order of chunks can do without (k of them are the result); and what share of the queries had no room in its list
(k {capacities}), and so would fall back. Chunks take every 64th row, and every vector has a spread by its own norm, but where
the name says otherwise. `the engine's chunks` are a prime number of equal ones, of 65,536 vectors or fewer, as the engine has them.
`kinds by turns` are 64 clusters, of which each 64th vector is one. `ordinary`: data of which 1 % or fewer are to fall back."""


def section(folder: pathlib.Path) -> str:
    """The newest record's, or "" where there is none."""
    records = [json.loads(path.read_text(encoding="utf-8"))
               for path in folder.glob("*.json")]
    if not records:
        return ""
    record = max(records, key=lambda one: one["environment"]["date"])
    cases = record["cases"]
    ks = sorted({case["k"] for case in cases})
    rows = {}
    for case in cases:
        name = case["data"] + (", ordinary" if case["ordinary"] else "")
        row = rows.setdefault((name, case["nb"], case["d"], case["metric"]), {})
        row[case["k"]] = _cell(case)
    environment = record["environment"]
    text = _TEXT.format(
        queries=record["queries"], sample=record["sample"], host=environment["host"]["processor"],
        commit=environment["commit"], date=environment["date"],
        capacities="; ".join(
            f"{k:,}: {case['capacity']:,}"
            for k in ks for case in [next(c for c in cases if c["k"] == k)]),
    )
    head = ["data", "nb", "d", "metric", *(f"k = {k:,}" for k in ks)]
    lines = [head, ["---"] * len(head)]
    lines += [[name, f"{nb:,}", f"{d}", metric, *(row.get(k, "") for k in ks)]
              for (name, nb, d, metric), row in rows.items()]
    return text + "\n\n" + "\n".join(
        "| " + " | ".join(line) + " |" for line in lines)


def _cell(case):
    share = case["beyond_capacity"]
    return (
        f"{_count(case['passed_mean'])}; {_count(case['list_mean'])}, "
        f"{case['list_most']:,} ({_count(case['window_mean'])})"
        + (f"; **{100 * share:.2g} %**" if share else "")
    )


def _count(mean):
    return f"{mean:.1f}" if mean < 100 else f"{mean:,.0f}"
