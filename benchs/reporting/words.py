"""What the figures do not show by themselves, made from them."""

from __future__ import annotations

from measure.floors import COMPUTE
from measure.shapes import WHOLE

from . import bar
from .data import Results


def where_it_does_not_help(results: Results) -> str:
    """The cells of the grid in which nothing is gained and why, those in which
    something is lost, and those in which another library is faster."""
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
        return "The grid has not been measured yet, so nothing can be said of it."
    text = [
        f"Of {measured} measured cells of the grid, {len(gained)} are faster than "
        f"stock Faiss beyond the noise, {len(level)} are not, and {len(lost)} are "
        "slower."
    ]
    if level:
        text.append("Nothing is gained at " + _list(level) + ".")
    if lost:
        text.append("Slower at " + _list(lost, ratios=True) + ".")
    text += [_why(results, nb, d, level + lost) for nb, d in WHOLE.databases]
    text += [_peer(results, name) for name in ("torch", "CuPy", "cuVS")]
    return "\n\n".join(filter(None, text))


def _why(results, nb, d, cells):
    """What of stock Faiss' time is computation, where nothing is gained in one
    database."""
    shares = [
        (share, case) for _, case in cells if (case["nb"], case["d"]) == (nb, d)
        if (share := results.shares("grid", case, COMPUTE, "stock")) is not None
    ]
    if not shares:
        return ""
    launches = sum(bar.launch_bound(case) for _, case in shares)
    low, high = (pick(share for share, _ in shares) for pick in (min, max))
    return (
        f"With nb = {nb:,} and d = {d}, stock Faiss' computation alone, its arrays "
        f"on the GPU, takes {100 * low:.0f} to {100 * high:.0f} % of its whole "
        f"search in the {len(shares)} cells without a gain, and only the rest can be "
        "saved by copying less."
    ) + (f" In {launches} of them calls and launches decide." if launches else "")


def _peer(results, name):
    """Where another library finds the same neighbours faster than we do, all
    arrays on the GPU."""
    ratios = [
        (ratio, case) for case in bar.grid_cases()
        if (ratio := results.ratio("grid", case, "ours GPU", name)) is not None
    ]
    faster = [pair for pair in ratios if pair[0] > 1 + bar.LEAST_NOISE]
    if not faster:
        return ""
    ratio, case = max(faster, key=lambda pair: pair[0])
    return (
        f"{name} finds the neighbours faster than Faiss' kernels, and so than ours, "
        f"in {len(faster)} of {len(ratios)} cells with all arrays on the GPU; most "
        f"so at ({bar.cell(case)}), {ratio:.1f} times as fast."
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
    for case in absent:
        found = results.get("grid", case, None)
        if found is not None:
            lines.append(f"- Skipped ({bar.cell(case)}): {found.entry['skipped']}.")
    lines += [f"- Failed: {line}." for line in results.errors()]
    return "\n".join(lines)


def _list(cells, ratios=False, most=8):
    shown = [
        f"({bar.cell(case)})" + (f" {ratio:.2f}x" if ratios else "")
        for ratio, case in sorted(cells, key=lambda pair: pair[0])[:most]
    ]
    rest = len(cells) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest > 0 else "")
