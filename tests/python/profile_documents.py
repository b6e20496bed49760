"""A document of `python -m faiss_ext profile`, made up: six tiles whose copies
are hidden behind the kernels of the next, and one tile; each by the exact engine."""

from __future__ import annotations

from typing import Any

from faiss_ext.profiling.search_profile import (
    ComputeSpan,
    ComputeStage,
    SearchProfile,
    StageSpan,
)

CALLER = "calling thread"


def document() -> dict[str, Any]:
    return {
        "environment": {
            "host": "nowhere", "gpu": "made-up GPU", "driver": "13.0",
            "cuda": "13.0", "faiss": "1.7.3", "faiss_options": "",
            "faiss_ext": "0.1.0", "python": "3.11", "platform": "Linux",
            "date": "2026-01-01 00:00 +0000", "arguments": "profile",
        },
        "link": {"to_device": 40e9, "to_host": 50e9},
        "cases": [case(20_000, tiles(6)), case(1, tiles(1))],
    }


def case(n: int, profile: SearchProfile) -> dict[str, Any]:
    t = profile.seconds
    return {
        "nb": 10_000, "d": 128, "metric": "l2", "storage": "float32", "n": n,
        "k": 100,
        "variants": [
            {"name": "stock", "seconds": [3 * t, 3.1 * t, 3 * t]},
            {"name": "new", "seconds": [5 * t, 5 * t, 5 * t]},
            {"name": "given", "seconds": [t, 1.1 * t, t]},
            {"name": "pooled", "seconds": [0.9 * t, 0.9 * t, 0.9 * t]},
            {"name": "device", "seconds": [0.8 * t, 0.8 * t, 0.8 * t]},
        ],
        "stock": {
            "upload": -0.1 * t, "compute": 0.8 * t, "copy-back": 2.3 * t
        },
        "profiles": {
            "given": [as_dict(profile)] * 3, "pooled": [as_dict(profile)] * 3
        },
    }


def as_dict(profile: SearchProfile) -> dict[str, Any]:
    return {
        "seconds": profile.seconds, "clock_error": profile.clock_error,
        "tiles": profile.tiles,
        "plan": profile.plan,
        "spans": [span._asdict() for span in profile.spans],
        "caller": profile.caller(), "busy": profile.busy(),
        "moved": profile.moved(),
        "compute_spans": [span._asdict() for span in profile.compute_spans],
        "compute_stages": [
            stage._asdict() for stage in profile.compute_stages
        ],
        "compute_plan": profile.compute_plan, "paths": profile.paths,
        "floor": profile.floor, "peaks": profile.peaks,
    }


def tiles(count: int) -> SearchProfile:
    """Each tile is read in 0.1 ms, goes up in 0.2 ms, computes for 1 ms, comes
    back in 0.5 ms and is copied in 0.3 ms; 0.1 ms lie before and after. Of the
    1 ms a filter takes 0.6, of which the GPU needs 0.45, and a selection 0.3."""
    spans = []
    stages = []
    up = compute = back = 0.1e-3
    for tile in range(count):
        up += 0.1e-3
        if tile < 3:
            add(spans, "host read", "copy threads", tile, up - 0.1e-3, up, 1000)
            add(spans, "wait", CALLER, tile, up - 0.05e-3, up, 0)
        else:
            add(spans, "host read", "upload stream", tile, up - 0.1e-3, up, 1000)
        add(spans, "upload", "upload stream", tile, up, up + 0.2e-3, 1000)
        up += 0.2e-3
        compute = max(up, compute)
        add(spans, "compute", "default stream", tile, compute,
            compute + 1e-3, 0)
        for name, begin, end in ("filter 1", 0, 0.6e-3), ("select 1", 0.6e-3, 0.9e-3):
            stages.append(ComputeSpan(
                name, "default stream", tile, compute + begin, compute + end))
        compute += 1e-3
        back = max(compute, back)
        add(spans, "copy-back", "copy stream", tile, back, back + 0.5e-3, 2000)
        add(spans, "host copy", "copy stream", tile, back + 0.5e-3,
            back + 0.8e-3, 2000)
        back += 0.8e-3
    begin = max(s.end for s in spans if s.lane == CALLER) + 0.05e-3
    add(spans, "wait", CALLER, -1, begin, back, 0)
    return SearchProfile(
        spans, back + 0.1e-3, 2e-6, count, f"in {count} tiles, on one stream",
        compute_spans=stages,
        compute_stages=[
            ComputeStage("filter 1", count, count * 0.6e-3, count * 0.45e-3),
            ComputeStage("select 1", count, count * 0.3e-3, None),
        ],
        compute_plan="by fused filters of 10000 vectors, and so on: " + "words " * 20,
        paths={"certified": 19_990, "widened": 8, "last path": 2},
        floor=count * 0.4e-3, peaks="1071 Tflop/s by tensor cores, 3.35 TB/s")


def add(spans, stage, lane, tile, begin, end, nbytes):
    spans.append(StageSpan(stage, lane, tile, nbytes, begin, end))
