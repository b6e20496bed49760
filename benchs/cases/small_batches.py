"""A few queries at a time, where calls and not bytes decide.

With host arrays: the latency of a search. With arrays on the GPU: how long the
call keeps the caller (nothing is waited for), in Python and in C++, and what it
moves.
"""

from __future__ import annotations

import statistics
import time

from measure import memory
from measure.floors import COMPUTE
from measure.gpu_arrays import families
from measure.searches import TWICE, Searches, database, random_vectors
from measure.timing import Contender

NAME = "small_batches"

#: Calls that are timed together where only calls are timed.
_IN_A_ROW = 9

#: Parts of the time that one query gets: the bar asks for it.
_WEIGHT_OF_ONE = 4


def run(session):
    """All batches on both databases."""
    shapes, k = session.shapes, session.shapes.small_k
    session.expect(
        2 * len(shapes.small_databases) * sum(map(_weight, shapes.batches)))
    for nb, d in shapes.small_databases:
        base = 4 * nb * d
        obstacle = session.obstacle(host_bytes=3 * base, device_bytes=7 * base)
        if obstacle:
            session.skip(NAME, {"nb": nb, "d": d}, obstacle)
            continue
        x = random_vectors(max(shapes.batches), d, 32)
        searches = Searches(session, database(nb, d), x, k)
        for n in shapes.batches:
            _latency(session, searches, x[:n], k)
            _call(session, searches, x[:n], k)


def _weight(n):
    return _WEIGHT_OF_ONE if n == 1 else 1


def _of_one(counts):
    return lambda: {
        name: count if isinstance(count, str) else count / _IN_A_ROW
        for name, count in counts().items()}


def _latency(session, searches, x, k):
    n, (nb, d) = len(x), searches.base.shape
    native = session.native
    pinned, touched, on_gpu = (
        tuple(make((n, k), dtype) for dtype in ("float32", "int64"))
        for make in (
            lambda shape, dtype: memory.pinned(native, shape, dtype),
            memory.touched,
            lambda shape, dtype: memory.OnGpu(native, shape, dtype),
        )
    )
    gpu_x = memory.OnGpu.of(native, x)
    given = searches.given
    session.measure(
        NAME,
        {"n": n, "k": k, "nb": nb, "d": d, "timed": "latency"},
        [
            searches.returned(TWICE, "stock", x, k),
            searches.returned(f"{TWICE} again", "stock again", x, k),
            searches.returned("ours pooled", "ours", x, k),
            given("ours pinned", "ours", x, lambda: pinned),
            given("C++ stock", "C++ stock", x, lambda: touched),
            given("C++ ours", "C++ ours", x, lambda: touched),
            given("C++ ours pinned", "C++ ours", x, lambda: pinned),
            given(COMPUTE, "C++ stock", gpu_x, lambda: on_gpu, wait=True),
            given("C++ ours GPU", "C++ ours", gpu_x, lambda: on_gpu, wait=True),
            *searches.peers(x, k),
        ],
        searches.floors(n, k),
        weight=_weight(n),
    )


def _call(session, searches, x, k):
    """The time of the call alone; the wait comes before the next one. In Python
    with the arrays of each library that is installed, which make their own
    results, as in `D, I = index.search(x, k)`, or are given them."""
    native = session.native
    n, (nb, d) = len(x), searches.base.shape

    def outputs(of):
        empty = memory.touched((n, k), "float32"), memory.touched((n, k), "int64")
        arrays = tuple(map(of, empty))
        return lambda: arrays

    def in_a_row(contender: Contender) -> Contender:
        """The median of some calls as a loop makes them, each on an idle GPU."""
        call = contender.run

        def run():
            times = []
            for _ in range(_IN_A_ROW):
                native.synchronize()
                begin = time.perf_counter()
                own = call()
                times.append(time.perf_counter() - begin if own is None else own)
            return statistics.median(times)

        # What one moves and waits for.
        contender.counts = contender.counts and _of_one(contender.counts)
        contender.run = run
        return contender

    def stand_in(values):
        return memory.OnGpu.of(native, values)

    contenders = [
        searches.given(name, kind, stand_in(x), outputs(stand_in))
        for name, kind in (
            ("C++ stock GPU, call", "C++ stock"), ("C++ ours GPU", "C++ ours"))
    ]
    # What Python adds is the difference to this: the same index, whose vectors
    # lie where they lie, and the same interpreter.
    contenders.append(searches.by_pointers(
        "ours GPU, pointers", "ours", stand_in(x), *outputs(stand_in)(),
        wait=False))
    for family in families(native):
        queries = family.of(x)
        contenders += [
            searches.returned(f"ours, {family.name}", "ours", queries, k),
            searches.given(f"ours, {family.name}, given outputs", "ours", queries,
                           outputs(family.of)),
        ]
    session.measure(
        NAME,
        {"n": n, "k": k, "nb": nb, "d": d, "timed": "call, GPU arrays"},
        [in_a_row(contender) for contender in contenders],
        weight=_weight(n),
    )
    native.synchronize()
