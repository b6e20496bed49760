"""What the figures do not show by themselves, made from them."""

from __future__ import annotations

from . import bar
from .data import Results, ratio_of_bounds


def where_it_does_not_help(results: Results) -> str:
    """The cells of the grid in which nothing is gained, and those in which
    something is lost."""
    gained, level, lost = [], [], []
    for case in bar.grid_cases():
        ratio = results.ratio("grid", case, "stock", "ours pooled")
        if ratio is None:
            continue
        noise = bar.noise_of(results, case)
        kind = gained if ratio > 1 + noise else lost if ratio < 1 - noise else level
        kind.append((ratio, case))
    measured = len(gained) + len(level) + len(lost)
    if not measured:
        return "Nothing has been measured yet, so nothing can be said."
    text = [
        f"Of {measured} measured cells of the grid, {len(gained)} are faster than "
        f"stock Faiss beyond the noise, {len(level)} are not, and {len(lost)} are "
        "slower."
    ]
    if level:
        text.append("Nothing is gained at " + _list(level) + ".")
        text.append(_why(results, [case for _, case in level]))
    if lost:
        text.append("Slower at " + _list(lost, ratios=True) + ".")
    return " ".join(text)


def _why(results, cases):
    """What the measured ceilings say of these cases."""
    launches = [case for case in cases if bar.launch_bound(case)]
    computed = [
        case for case in cases if case not in launches
        and (ratio_of_bounds(results.get("grid", case, "ours pooled"), case) or 1)
        < 0.1
    ]
    return (
        f"In {len(launches)} of these {len(cases)} cells calls and launches "
        f"decide; in {len(computed)} the copy at best takes less than a tenth of "
        "the computation."
    )


def missing(results: Results) -> str:
    """What was left out, and what failed."""
    cells = list(bar.grid_cases())
    absent = [
        case for case in cells
        if (found := results.get("grid", case, "ours pooled")) is None
        or found.median is None
    ]
    lines = [f"{len(cells) - len(absent)} of {len(cells)} cells of the grid are "
             "measured."]
    lines += [f"Failed: {line}." for line in results.errors()]
    return "\n".join(lines)


def _list(cells, ratios=False, most=8):
    shown = [
        f"({bar.cell(case)})" + (f" {ratio:.2f}x" if ratios else "")
        for ratio, case in sorted(cells, key=lambda pair: pair[0])[:most]
    ]
    rest = len(cells) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest > 0 else "")
