"""A few queries at a time, where calls and not bytes decide.

With host arrays: the latency of a search. With arrays on the GPU: how long the
call keeps the caller (nothing is waited for), in Python and in C++, and what it
moves.
"""

from __future__ import annotations

from measure import memory
from measure.searches import TWICE, Searches, random_vectors
from measure.timing import Contender

NAME = "small_batches"


def run(session):
    """All batches on both databases."""
    shapes, k = session.shapes, session.shapes.small_k
    session.expect(2 * len(shapes.small_databases) * len(shapes.batches))
    for nb, d in shapes.small_databases:
        base = 4 * nb * d
        obstacle = session.obstacle(host_bytes=3 * base, device_bytes=6 * base)
        if obstacle:
            session.skip(NAME, {"nb": nb, "d": d}, obstacle)
            continue
        x = random_vectors(max(shapes.batches), d, 32)
        searches = Searches(session, random_vectors(nb, d, 31), x, k)
        for n in shapes.batches:
            _latency(session, searches, x[:n], k)
            _call(session, searches, x[:n], k)


def _latency(session, searches, x, k):
    n, (nb, d) = len(x), searches.base.shape
    pinned = tuple(
        memory.pinned(session.native, (n, k), dtype)
        for dtype in ("float32", "int64")
    )
    session.measure(
        NAME,
        {"n": n, "k": k, "nb": nb, "d": d, "timed": "latency"},
        [
            searches.returned(TWICE, "stock", x, k),
            searches.returned(f"{TWICE} again", "stock", x, k),
            searches.returned("ours pooled", "ours", x, k),
            searches.given("ours pinned", "ours", x, lambda: pinned),
            searches.given("C++ stock", "C++ stock", x, lambda: _touched(n, k)),
            searches.given("C++ ours pinned", "C++ ours", x, lambda: pinned),
            *searches.peers(x, k),
        ],
        searches.floors(n, k),
    )


def _call(session, searches, x, k):
    """The time of the call alone; the wait comes before the next one."""
    native = session.native
    n, (nb, d) = len(x), searches.base.shape
    gpu_x = memory.OnGpu.of(native, x)
    outputs = tuple(
        memory.OnGpu(native, (n, k), dtype) for dtype in ("float32", "int64")
    )

    def no_wait(contender: Contender) -> Contender:
        prepare = contender.prepare

        def idle_then_prepare():
            native.synchronize()
            prepare()

        contender.prepare = idle_then_prepare
        return contender

    session.measure(
        NAME,
        {"n": n, "k": k, "nb": nb, "d": d, "timed": "call, GPU arrays"},
        [
            no_wait(searches.given("ours GPU", "ours", gpu_x, lambda: outputs)),
            no_wait(searches.given(
                "C++ ours GPU", "C++ ours", gpu_x, lambda: outputs)),
        ],
    )
    native.synchronize()


def _touched(n, k):
    return memory.touched((n, k), "float32"), memory.touched((n, k), "int64")
