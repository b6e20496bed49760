"""Results three times as large as the GPU memory that is free.

The GPU's memory is taken up first, but for a part, so that the case needs no
more host memory than there is. Stock Faiss would abort the process here, so it
is not run.
"""

from __future__ import annotations

from measure import memory
from measure.floors import BYTES_PER_RESULT
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
        host_bytes=3 * results, device_bytes=_NEEDED if left else 0
    )
    if obstacle:
        session.skip(NAME, case, obstacle)
        return
    x = random_vectors(n, d, 52)
    searches = Searches(session, random_vectors(nb, d, 51), x, k)
    searches.index("ours")
    native = session.native
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
    )
    del taken
