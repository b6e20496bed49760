"""The document of a profile as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .cases import Case
from .search_profile import CALLER_PARTS, STAGES

__all__ = ["LABELS", "seconds_of", "table"]

#: The variants, for people.
LABELS = {
    "stock": "stock Faiss, given arrays",
    "new": "stock Faiss, new arrays each time",
    "given": "faiss_ext, the same arrays",
    "pooled": "faiss_ext, pooled results",
    "device": "faiss_ext, all arrays on the GPU",
}

_HEAD = f"{'':36} {'median':>11} {'p99':>11} {'share':>7} {'floor':>11}"

_LEGEND = """\
1.50x: median time of stock Faiss over this one; +-: how far the medians of every
other repetition are apart; share: of the search it belongs to; floor: what the
link alone needs, and of kernels the GPU, as far as known; (12%): floor over
median; by difference: from stock Faiss with arrays on the GPU."""


def table(document: dict[str, Any]) -> str:
    """All cases, for a terminal of 80 columns."""
    lines = [_about(document)]
    for case in document["cases"]:
        shape = Case(**{name: case[name] for name in Case._fields})
        searches = len(seconds_of(case, "stock"))
        lines += ["", f"{shape}: {searches} searches of each kind", _HEAD]
        lines += _case(case, document["link"])
    lines += ["", _LEGEND]
    return "\n".join(lines)


def _about(document: dict[str, Any]) -> str:
    about = document["environment"]
    link = document["link"]
    speed = (
        f"{link['to_device'] / 1e9:.1f} GB/s up, "
        f"{link['to_host'] / 1e9:.1f} GB/s back"
        if link
        else "not measured"
    )
    return "\n".join(
        (
            f"{about['gpu']}, driver {about['driver']}, CUDA {about['cuda']}",
            f"Faiss {about['faiss']}, faiss_ext {about['faiss_ext']}, "
            f"{about['date']}",
            f"copies between pinned memory and the GPU: {speed}",
        )
    )


def _case(
    case: dict[str, Any], link: dict[str, float] | None
) -> Iterator[str]:
    floors = _floors(case, link)
    stock = seconds_of(case, "stock")
    for name, label in LABELS.items():
        seconds = seconds_of(case, name)
        yield _columns(
            label, _time(float(np.median(seconds))),
            _time(float(np.percentile(seconds, 99))),
            f"{np.median(stock) / np.median(seconds):.2f}x",
            f"+-{_noise(seconds):.1%}",
        )
        if name == "stock":
            yield from _stock_parts(case["stock"], floors)
        elif name in case["profiles"]:
            yield from _our_parts(case["profiles"][name], floors)
    yield _verdict(case["profiles"]["given"])


def _stock_parts(
    parts: dict[str, float], floors: dict[str, float]
) -> Iterator[str]:
    whole = sum(parts.values())
    labels = {
        "upload": "queries, by difference",
        "compute": "compute (all arrays on the GPU)",
        "copy-back": "results, by difference",
    }
    for name, label in labels.items():
        yield _line(
            f"  {label}", parts[name], None, parts[name] / whole,
            floors.get(name),
        )


def _our_parts(
    profiles: list[dict[str, Any]], floors: dict[str, float]
) -> Iterator[str]:
    whole = [profile["seconds"] for profile in profiles]
    yield _row("  recorded, with two events a stage", whole, None, None)
    yield "    the caller's time"
    for part in CALLER_PARTS:
        seconds = [profile["caller"][part] for profile in profiles]
        if any(seconds):
            yield _row(f"      {part}", seconds, whole, None)
    yield from _plan(profiles[0]["plan"])
    tiles = profiles[0]["tiles"]
    yield (
        f"    under way ({tiles} tile{'s' if tiles > 1 else ''}; "
        "these overlap)"
    )
    for stage in STAGES:
        seconds = [profile["busy"][stage] for profile in profiles]
        if any(seconds):
            yield _row(f"      {stage}", seconds, whole, floors.get(stage))
        if stage == "compute":
            yield from _compute_stages(profiles)
    yield from _computed(profiles)


def _plan(plan: str) -> Iterator[str]:
    """Its lines, in 80 columns."""
    for line in plan.splitlines():
        yield from textwrap.wrap(
            line, 80, initial_indent="    ", subsequent_indent="      "
        )


def _compute_stages(profiles: list[dict[str, Any]]) -> Iterator[str]:
    """Of the exact engine: those that most searches had."""
    names = dict.fromkeys(
        stage["name"] for profile in profiles
        for stage in profile["compute_stages"]
    )
    for name in names:
        found = [
            (stage["seconds"], profile["seconds"], stage["floor"])
            for profile in profiles for stage in profile["compute_stages"]
            if stage["name"] == name
        ]
        if 2 * len(found) <= len(profiles):
            continue
        seconds, whole, floors = map(list, zip(*found))
        floor = None if None in floors else float(np.median(floors))
        median = float(np.median(seconds))
        part = f" ({floor / median:.0%})" if floor and median else ""
        yield _row(f"        {name}{part}", seconds, whole, floor)


def _computed(profiles: list[dict[str, Any]]) -> Iterator[str]:
    """How the exact engine did it, and how near to what the GPU allows."""
    profile = profiles[0]
    yield from _plan(profile["compute_plan"])
    if paths := profile["paths"]:
        yield "    queries: " + ", ".join(
            f"{count} {path}" for path, count in paths.items()
        )
    if not (peaks := profile["peaks"]):
        return
    floor = profile["floor"]
    busy = float(np.median([found["busy"]["compute"] for found in profiles]))
    if floor is None or not busy:
        yield from _plan(f"peaks of the GPU: {peaks}")
        return
    yield from _plan(
        f"the GPU needs {_time(floor)} for such a search at the least, "
        f"{floor / busy:.1%} of its time in compute: {peaks}"
    )


def _verdict(profiles: list[dict[str, Any]]) -> str:
    """What a published breakdown would have said, and what is true of it."""
    kernels = _share(profiles, ("wait for compute",))
    copies = _share(
        profiles, ("wait for copy-back", "wait for host copy", "host copy")
    )
    return (
        f"A timer round the copies would call {kernels + copies:.1%} of our "
        f"search copy-back;\n{kernels:.1%} is the wait for the kernels, "
        f"{copies:.1%} the copies."
    )


def _share(profiles: list[dict[str, Any]], parts: Iterable[str]) -> float:
    return float(
        np.median(
            [
                sum(profile["caller"][part] for part in parts)
                / profile["seconds"]
                for profile in profiles
            ]
        )
    )


def _floors(
    case: dict[str, Any], link: dict[str, float] | None
) -> dict[str, float]:
    """Seconds that the link alone needs."""
    if link is None:
        return {}
    return {
        "upload": 4 * case["n"] * case["d"] / link["to_device"],
        "copy-back": 12 * case["n"] * case["k"] / link["to_host"],
    }


def seconds_of(case: dict[str, Any], name: str) -> list[float]:
    """Of each search of a variant."""
    for variant in case["variants"]:
        if variant["name"] == name:
            seconds: list[float] = variant["seconds"]
            return seconds
    raise KeyError(name)


def _noise(seconds: list[float]) -> float:
    """By how much the medians of every other repetition differ."""
    if len(seconds) < 2:
        return 0.0
    halves = np.median(seconds[::2]), np.median(seconds[1::2])
    return float(abs(halves[0] - halves[1]) / np.median(seconds))


def _row(
    label: str,
    seconds: list[float],
    whole: list[float] | None,
    floor: float | None,
) -> str:
    share = None
    if whole is not None:
        share = float(np.median(np.divide(seconds, whole)))
    return _line(
        label, float(np.median(seconds)), float(np.percentile(seconds, 99)),
        share, floor,
    )


def _line(
    label: str,
    median: float,
    p99: float | None,
    share: float | None,
    floor: float | None,
) -> str:
    return _columns(
        label, _time(median), _time(p99),
        "" if share is None else f"{share:.1%}", _time(floor),
    )


def _columns(
    label: str, median: str, p99: str, share: str, floor: str
) -> str:
    line = f"{label:36} {median:>11} {p99:>11} {share:>7} {floor:>11}"
    return line.rstrip()


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.3f} ms"
