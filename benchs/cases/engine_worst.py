"""The exact engine where it has most to do, all arrays on the GPU, beside stock
Faiss: data and queries that its filter is of little use for, and the first
search after vectors were added, which makes anew what the engine keeps of them.
"""

from __future__ import annotations

import gc

import numpy as np

from measure import memory
from measure.datasets import HARD, made
from measure.names import FIRST_SEARCH, NEXT_SEARCH, OURS, STOCK
from measure.searches import Searches, database, random_vectors

NAME = "engine_worst"

AFTER_ADD = "after an add"
D = 128

#: Which part of the queries lies beyond what float16 copies can hold, so that
#: they are compared with every vector.
OUT_OF_RANGE = {"1 % out of range": 0.01, "10 % out of range": 0.1,
                "all out of range": 1.0}
#: The square of such a query's norm is still a float32.
_BEYOND = np.float32(1e18)

#: For the timed runs of a case whose least runs take less.
_MOST_S = 0.3


def run(session):
    """The first searches, then every kind of data."""
    nb, numbers, neighbours = session.shapes.engine_worst
    databases, first_n, _ = session.shapes.engine_first
    kinds = [*HARD, *OUT_OF_RANGE]
    session.expect(
        len(kinds) * len(numbers) * len(neighbours) + len(databases) * len(first_n))
    for shape in databases:
        _first_searches(session, *shape)
    for data in kinds:
        _kind(session, data, nb, numbers, neighbours)
        gc.collect()


def _first_searches(session, nb, d):
    _, numbers, k = session.shapes.engine_first
    searches = None
    for n in numbers:
        case = {"data": AFTER_ADD, "n": n, "k": k, "nb": nb, "d": d}
        if not _skipped(session, case):
            searches = searches or Searches(
                session, database(nb, d), random_vectors(max(numbers), d, 2), k,
                rows={n - 1 for n in numbers})
            _measure_first(session, case, searches)


def _kind(session, data, nb, numbers, neighbours):
    searches = None
    for n in numbers:
        for k in neighbours:
            case = {"data": data, "n": n, "k": k, "nb": nb, "d": D}
            if not _skipped(session, case):
                searches = searches or _searches(
                    session, data, nb, max(numbers), max(neighbours))
                _measure(session, case, searches)


def _skipped(session, case):
    base = 4 * case["nb"] * case["d"]
    obstacle = session.obstacle(
        host_bytes=4 * base, device_bytes=4 * base + 24 * case["n"] * case["k"])
    if obstacle:
        session.skip(NAME, case, obstacle)
    return bool(obstacle)


def _searches(session, data, nb, n, k):
    if data in HARD:
        base, queries = made(data, nb, n)
    else:
        base, queries = database(nb, D), random_vectors(n, D, 2)
        queries[_beyond(n, OUT_OF_RANGE[data])] *= _BEYOND
    return Searches(session, base, queries, k)


def _beyond(n, share):
    """Which of n queries: spread among the others, and the first one."""
    return np.unique(np.arange(0, n, 1 / share).astype(int))


def _places(session, searches, case):
    n, k = case["n"], case["k"]
    x = memory.OnGpu.of(session.native, searches.queries[:n])
    return x, *(memory.OnGpu(session.native, (n, k), dtype)
                for dtype in ("float32", "int64"))


def _measure(session, case, searches):
    places = _places(session, searches, case)
    session.measure(NAME, case, [
        searches.by_pointers(STOCK, "stock", *places, wait=True),
        searches.by_pointers(OURS, "ours", *places, wait=True, search="exact"),
    ], least_runs=3, slow_runs=1, most_s=_MOST_S)


def _measure_first(session, case, searches):
    places = _places(session, searches, case)
    index = searches.index("ours", search="exact")
    # Nearest to no query, and of the size of the others.
    more = 3 * searches.base[:1]

    def add():
        index.add(more)
        session.native.synchronize()

    first, following = (
        searches.by_pointers(name, "ours", *places, wait=True, search="exact")
        for name in (FIRST_SEARCH, NEXT_SEARCH))
    first.prepare = add
    session.measure(NAME, case, [following, first], most_s=_MOST_S)
