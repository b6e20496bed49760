"""Records of measurements that nobody made, for the tests of the report. They
say so of themselves, and the report refuses them unless a test asks."""

from __future__ import annotations

import itertools
import pathlib
import random
import sys

BENCHS = pathlib.Path(__file__).resolve().parents[2] / "benchs"
sys.path.append(str(BENCHS))

from measure import names  # noqa: E402
from measure.floors import COMPUTE, floor, floors, measured_floor  # noqa: E402
from measure.record import SCHEMA  # noqa: E402
from measure.shapes import WHOLE  # noqa: E402
from measure.timing import Timing  # noqa: E402

CEILINGS = {
    "link_to_host_bytes_s": 50e9, "link_to_device_bytes_s": 50e9,
    "device_memory_bytes_s": 4e15, "gemm_flops": 50e12,
    "host_copy_bytes_s": 10e9, "page_fault_s": 1e-6, "copy_call_s": 8e-6,
    "host_function_s": 1e-5, "event_s": 1e-6,
}


def environment(**more):
    return {
        "date": "2000-01-01 00:00 UTC", "commit": "made up", "simulated": False,
        "host": {"processor": "made up", "cores": 1}, "gpu": {"name": "made up"},
        "cuda": {"runtime": "0.0"}, "versions": {"faiss": "0.0.0"}, **more,
    }


def record(measurements, **more):
    return {
        "schema": SCHEMA, "made_up": True, "smoke": False,
        "environment": environment(), "ceilings": dict(CEILINGS),
        "measurements": measurements, **more,
    }


def timed(bench, case, contender, median, bounds=None, counts=None,
          compute_s=None):
    """One measurement whose samples lie around a median."""
    noise = random.Random(repr((bench, case, contender)))
    samples = [median * (1 + 0.02 * noise.random()) for _ in range(30)]
    entry = {
        "bench": bench, "case": case,
        **Timing(contender, "made up", [*samples, 2 * median], counts).summary(),
        "floors_s": bounds or {},
    }
    entry["floor_s"] = floor(bounds) if bounds else None
    entry["gap"] = entry["median_s"] / entry["floor_s"] if bounds else None
    least = entry["measured_floor_s"] = measured_floor(bounds or {}, compute_s)
    entry["measured_gap"] = entry["median_s"] / least if least else None
    return entry


#: Times of the copy-back over its time at best, by contender.
_COPIES = {
    "stock": 8.0, "stock again": 8.0, "stock fresh": 30.0, "stock touched": 7.0,
    "stock GPU": 0.0, "ours pooled": 1.05, "ours fresh": 9.0, "ours touched": 3.0,
    "ours pinned": 1.05, "ours GPU": 0.0, "ours GPU queries, pinned": 1.05,
    "C++ stock touched": 7.0, "C++ ours touched": 3.0, "C++ ours pinned": 1.05,
    "C++ ours GPU": 0.0, COMPUTE: 0.0,
}


def grid():
    """Every cell, by a formula: computation and copy-back one after the other in
    stock Faiss, at once in ours."""
    for (nb, d), n, k in itertools.product(
        WHOLE.databases, WHOLE.queries, WHOLE.neighbours
    ):
        bounds = floors(CEILINGS, n=n, k=k, nb=nb, d=d, queries_on_host=True,
                        results_on_host=True)
        case = {"n": n, "k": k, "nb": nb, "d": d}
        for name, copies in _COPIES.items():
            copy, work = copies * bounds["copy_back"], 3e-5 + bounds["compute"]
            median = max(copy, work) if "ours" in name else copy + work
            yield timed("grid", case, name, median, bounds, compute_s=work)


def small_batches():
    for nb, d in WHOLE.small_databases:
        for n in WHOLE.batches:
            case = {"n": n, "k": WHOLE.small_k, "nb": nb, "d": d}
            for name, median in (
                ("stock", 9e-5), ("stock again", 9e-5), ("ours pooled", 6e-5),
                ("ours pinned", 5e-5), ("C++ stock", 8e-5),
                ("C++ ours pinned", 4e-5), ("torch", 7e-5), (COMPUTE, 3e-5),
            ):
                yield timed("small_batches", {**case, "timed": "latency"}, name,
                            median * (1 + n / 64))
            counts = {"bytes_to_host": 0, "bytes_to_device": 0, "host_waits": 0}
            calls = {**case, "timed": "call, GPU arrays"}
            yield timed("small_batches", calls, "ours, CuPy", 5e-5, None, counts)
            yield timed("small_batches", calls, "ours, CuPy, given outputs", 3e-5,
                        None, counts)
            yield timed("small_batches", calls, "C++ ours GPU", 2e-5)
            yield timed("small_batches", calls, "ours GPU, pointers", 2e-5)


def rest():
    """One case of everything else."""
    for size, destination in itertools.product(
        WHOLE.sizes, WHOLE.destinations
    ):
        case = {"bytes": size, "destination": destination}
        for name, times in (("stock", 7), ("plain", 3), ("ours", 1.1)):
            yield timed("copy_back", case, name, 1e-5 + times * size / 50e9)
    case = {"threads": 16, "calls": 20, "k": 100, "nb": 10_000, "d": 128}
    for name, median in (("C++ stock, mutex", 0.05), ("C++ ours", 0.01),
                         ("stock, mutex", 0.06), ("ours", 0.02)):
        yield timed("threads", case, name, median)
    for name in ("stock script", "ours script", "stock search", "ours search"):
        yield timed(
            "cupy_script", {
                **dict(zip(("nb", "d", "n", "k"), WHOLE.cupy_script)),
                "arrays": "CuPy"}, name, 0.01)
    case = {"n": 268_435, "k": 1000, "nb": 10_000, "d": 64}
    for name in ("ours touched", "ours pinned"):
        yield timed("beyond_memory", case, name, 0.08)
    case = {"data": "around 100", "n": 1000, "k": 10, "nb": 100_000}
    for name, right, error, paths in (
            ("stock", 0.75, 0.02, {}),
            ("ours, exact", 1.0, 1e-7, {
                "certified_queries": 900, "widened_queries": 0,
                "last_path_queries": 100})):
        yield timed("exactness", case, name, 0.01, None, {
            "label_agreement": right, "largest_distance_error": error, **paths})
    case = {"setting": "pipelineDepth", "destination": "pinned",
            "n": 200_000, "k": 100, "nb": 10_000, "d": 64}
    for value in (0, 2, 4):
        yield timed("constants", case, f"pipelineDepth={value}", 0.01 + value / 1e3)


def engine():
    """Every cell of the exact engine's table, by a formula: others take longer
    the more queries there are, but for FlashLib fp16 with k = 1."""
    paths = {"widened_queries": 0, "last_path_queries": 0}
    for n, k, nb, d in WHOLE.engine_cells():
        case = {"n": n, "k": k, "nb": nb, "d": d}
        ours = 1e-5 + n * nb * d * (5e-15 + k * 1e-17)
        for name, times in (
            (names.OURS, 1), ("stock", 8), ("FlashLib fp16", 0.9 if k == 1 else 2),
            ("torch TF32", 5), *([(names.IN_A_ROW, 0.5)] if n <= 32 else []),
        ):
            yield timed("engine", case, name, times * ours, None, {
                "label_agreement": 0.99 if "fp16" in name else 1.0,
                **({"certified_queries": n, "scratch_bytes": 3 << 20, **paths}
                   if name == names.OURS else {})})
        yield {"bench": "engine", "case": case, "contender": "FlashLib",
               "skipped": "time budget: a search takes about 1 s"}


def engine_worst():
    for data, times in (("1 % out of range", 1.05), ("all equal", 3.0),
                        ("sorted by cluster", 0.4)):
        case = {"data": data, "n": 32, "k": 10, "nb": 1_000_000, "d": 128}
        yield timed("engine_worst", case, "stock", 0.01)
        yield timed("engine_worst", case, names.OURS, times * 0.01, None, {
            "certified_queries": 30, "widened_queries": 1, "last_path_queries": 1})
    for n, times in ((1, 2.0), (10_000, 4.0)):
        case = {"data": "after an add", "n": n, "k": 10, "nb": 10_000, "d": 128}
        yield timed("engine_worst", case, names.NEXT_SEARCH, 0.01)
        yield timed("engine_worst", case, names.FIRST_SEARCH, times * 0.01)
