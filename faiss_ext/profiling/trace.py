"""Recorded searches in Chrome's trace event format, for Perfetto
(https://ui.perfetto.dev) and chrome://tracing."""

from __future__ import annotations

from typing import Any

from .cases import Case
from .table import LABELS

__all__ = ["LANES", "middle", "trace"]

#: The lanes of a search, from top to bottom.
LANES = ("calling thread", "upload stream", "default stream", "copy stream")


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
            events += _names(process, f"{LABELS[name]}: {shape}")
            events += _spans(process, middle(profiles))
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": document["environment"],
    }


def _names(process: int, title: str) -> list[dict[str, Any]]:
    names = [("process_name", 0, {"name": title})]
    for thread, lane in enumerate(LANES):
        names.append(("thread_name", thread, {"name": lane}))
        names.append(("thread_sort_index", thread, {"sort_index": thread}))
    return [
        {"ph": "M", "name": what, "pid": process, "tid": thread, "args": args}
        for what, thread, args in names
    ]


def _spans(process: int, profile: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "ph": "X",
            "name": (
                span["stage"]
                if span["tile"] < 0
                else f"{span['stage']} {span['tile']}"
            ),
            "cat": span["stage"],
            "pid": process,
            "tid": LANES.index(span["lane"]),
            "ts": span["begin"] * 1e6,
            "dur": (span["end"] - span["begin"]) * 1e6,
            "args": {"tile": span["tile"], "bytes": span["bytes"]},
        }
        for span in profile["spans"]
    ]
