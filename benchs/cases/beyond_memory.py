"""Results three times as large as the GPU memory that is free.

The GPU's memory is taken up first, but for a part, so that the case needs no
more host memory than there is. Stock Faiss would abort the process here, so it
is not run. What the computation takes by itself is measured before, while the
results still fit: with them on the GPU.
"""

from __future__ import annotations

from measure import memory
from measure.floors import BYTES_PER_RESULT, COMPUTE
from measure.searches import Searches, random_vectors

NAME = "beyond_memory"

#: GPU memory that Faiss and the tiles need besides.
_NEEDED = 4 << 30


def run(session):
    """One case, into touched and into pinned memory."""
    nb, d, k = session.shapes.beyond_memory
    left = session.shapes.beyond_left
    n = 3 * left // (BYTES_PER_RESULT * k) if left else 2000
    case = {"n": n, "k": k, "nb": nb, "d": d}
    results = BYTES_PER_RESULT * n * k
    obstacle = session.obstacle(
        host_bytes=3 * results, device_bytes=results + _NEEDED if left else 0
    )
    if obstacle:
        session.skip(NAME, case, obstacle)
        return
    x = random_vectors(n, d, 52)
    searches = Searches(session, random_vectors(nb, d, 51), x, k)
    searches.index("ours")
    native = session.native
    session.expect(3)
    compute_s = _on_gpu(session, searches, case)
    taken = None
    if left:
        taken = memory.OnGpu(
            native, (native.device_memory()[0] - left,), "u1"
        )
    touched, pinned = (
        tuple(make((n, k), dtype) for dtype in ("float32", "int64"))
        for make in (
            memory.touched,
            lambda shape, dtype: memory.pinned(native, shape, dtype),
        )
    )
    session.measure(
        NAME,
        case,
        [
            searches.given("ours touched", "ours", x, lambda: touched),
            searches.given("ours pinned", "ours", x, lambda: pinned),
            searches.given("ours pinned again", "ours", x, lambda: pinned),
        ],
        searches.floors(n, k),
        weight=2,
        compute_s=compute_s,
    )
    del taken


def _on_gpu(session, searches, case):
    """Times searches whose results stay on the GPU; the least of their
    medians."""
    n, k = case["n"], case["k"]
    x = memory.OnGpu.of(session.native, searches.queries)
    outputs = tuple(
        memory.OnGpu(session.native, (n, k), dtype)
        for dtype in ("float32", "int64")
    )
    entries = session.measure(
        NAME,
        case,
        [
            searches.given(name, kind, x, lambda: outputs, wait=True)
            for name, kind in ((COMPUTE, "C++ stock"), ("ours GPU", "ours"))
        ],
        searches.floors(n, k),
    )
    # No further index than ours while memory is short.
    searches.forget("C++ stock")
    return min(
        (entry["median_s"] for entry in entries.values() if "median_s" in entry),
        default=None)
