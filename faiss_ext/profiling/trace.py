"""Recorded searches in Chrome's trace event format, for Perfetto
(https://ui.perfetto.dev) and chrome://tracing."""

from __future__ import annotations

from typing import Any

from .cases import Case
from .table import LABELS

__all__ = ["lanes_of", "middle", "trace"]

#: The lanes of a search, from top to bottom.
LANES = (
    "calling thread",
    "copy threads",
    "upload stream",
    "default stream",
    *(f"compute stream {number}" for number in range(1, 9)),
    "copy stream",
)


def lanes_of(profile: dict[str, Any]) -> list[str]:
    """The lanes on which a recorded search did something, from top to bottom."""
    used = {span["lane"] for span in profile["spans"]}
    return [lane for lane in LANES if lane in used]


def middle(profiles: list[dict[str, Any]]) -> dict[str, Any]:
    """The recorded search whose time is the median: one that happened."""
    return sorted(profiles, key=lambda profile: profile["seconds"])[
        (len(profiles) - 1) // 2
    ]


def trace(document: dict[str, Any]) -> dict[str, Any]:
    """The median search of each case and variant: a process each, with a
    thread for each lane. Times are microseconds since its call."""
    events = []
    process = 0
    for case in document["cases"]:
        shape = Case(**{name: case[name] for name in Case._fields})
        for name, profiles in case["profiles"].items():
            process += 1
            profile = middle(profiles)
            lanes = lanes_of(profile)
            events += _names(process, f"{LABELS[name]}: {shape}", lanes)
            events += _spans(process, profile, lanes)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": document["environment"],
    }


def _names(
    process: int, title: str, lanes: list[str]
) -> list[dict[str, Any]]:
    names: list[tuple[str, int, dict[str, Any]]] = [
        ("process_name", 0, {"name": title})
    ]
    for thread, lane in enumerate(lanes):
        names.append(("thread_name", thread, {"name": lane}))
        names.append(("thread_sort_index", thread, {"sort_index": thread}))
    return [
        {"ph": "M", "name": what, "pid": process, "tid": thread, "args": args}
        for what, thread, args in names
    ]


def _spans(
    process: int, profile: dict[str, Any], lanes: list[str]
) -> list[dict[str, Any]]:
    def event(
        name: str, category: str, span: dict[str, Any], args: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "ph": "X",
            "name": name,
            "cat": category,
            "pid": process,
            "tid": lanes.index(span["lane"]),
            "ts": span["begin"] * 1e6,
            "dur": (span["end"] - span["begin"]) * 1e6,
            "args": {"tile": span["tile"], **args},
        }

    # Those of the exact engine lie within 'compute': viewers nest them.
    return [
        event(
            span["stage"]
            if span["tile"] < 0
            else f"{span['stage']} {span['tile']}",
            span["stage"], span, {"bytes": span["bytes"]},
        )
        for span in profile["spans"]
    ] + [
        event(span["name"], "compute stage", span, {})
        for span in profile["compute_spans"]
    ]
