"""The grid: queries n, neighbours k, databases (nb, d); host queries.

Stock Faiss against faiss_ext with outputs given (fresh, touched, pinned) and not
given (pooled pinned memory), both with all arrays on the GPU, the same searches
made in C++, and the peers that are installed.
"""

from __future__ import annotations

import itertools

from measure import memory
from measure.floors import BYTES_PER_RESULT, floor, floors
from measure.searches import TWICE, Searches, random_vectors

NAME = "grid"

#: A cell whose floor takes longer is measured with the contenders that the bar
#: needs, and few runs: its noise is small.
LONG_S = 1.0
LONG_CONTENDERS = (TWICE, "stock touched", "ours pooled", "ours touched",
                   "ours GPU", "ours GPU queries, pinned")
LONG_RUNS = 2

#: Contenders times runs, checks and warm-ups, for the time budget.
_LEAST_SEARCHES = 16 * 7
_LEAST_LONG_SEARCHES = len(LONG_CONTENDERS) * (LONG_RUNS + 2)


def run(session):
    """All cells, the small ones of each database first."""
    shapes = session.shapes
    cells = sorted(
        itertools.product(shapes.queries, shapes.neighbours),
        key=lambda nk: nk[0] * nk[1],
    )
    session.expect(len(shapes.databases) * len(cells))
    for nb, d in shapes.databases:
        measure_cells(session, NAME, nb, d, cells)


def measure_cells(session, name, nb, d, cells, seed=0):
    """Measure cells (n, k) of one database, those that fit."""
    fitting = []
    for n, k in cells:
        obstacle = _obstacle(session, n, k, nb, d)
        if obstacle:
            session.skip(name, _case(n, k, nb, d), obstacle)
        else:
            fitting.append((n, k))
    if not fitting:
        return
    base = random_vectors(nb, d, seed + 1)
    x = random_vectors(max(n for n, _ in fitting), d, seed + 2)
    searches = Searches(session, base, x, max(k for _, k in fitting))
    searches.add_oracle_rows(
        {row for n, _ in fitting for row in (n // 2, n - 1)},
        max(k for _, k in fitting),
    )
    for n, k in fitting:
        # Time has passed.
        obstacle = _obstacle(session, n, k, nb, d)
        if obstacle:
            session.skip(name, _case(n, k, nb, d), obstacle)
            continue
        contenders, options = _contenders(searches, x[:n], k), {}
        if _floor(session, n, k, nb, d) > LONG_S:
            contenders = [c for c in contenders if c.name in LONG_CONTENDERS]
            options["least_runs"] = LONG_RUNS
        session.measure(
            name, _case(n, k, nb, d), contenders, searches.floors(n, k), **options
        )


def _case(n, k, nb, d):
    return {"n": n, "k": k, "nb": nb, "d": d}


def _obstacle(session, n, k, nb, d):
    results, queries, base = BYTES_PER_RESULT * n * k, 4 * n * d, 4 * nb * d
    least = _floor(session, n, k, nb, d)
    times = _LEAST_LONG_SEARCHES if least > LONG_S else _LEAST_SEARCHES
    return session.obstacle(
        # Touched, pinned, fresh and pooled results; the database twice.
        host_bytes=4 * results + queries + 3 * base,
        # Results twice; an index each in Python and C++, and the peers' copies.
        device_bytes=3 * results + 2 * queries + 6 * base,
        # Computation, and the pages that fresh results take.
        seconds=times * least + 28 * results / 1e9,
    )


def _floor(session, n, k, nb, d):
    """Seconds; 0 where the rates are not known."""
    return floor(floors(
        session.ceilings, n=n, k=k, nb=nb, d=d, queries_on_host=True,
        results_on_host=True,
    )) or 0


def _contenders(searches, x, k):
    n = len(x)
    native = searches.native

    def pair(make, *arguments):
        return (
            make(*arguments, (n, k), "float32"),
            make(*arguments, (n, k), "int64"),
        )

    touched = pair(memory.touched)
    pinned = pair(memory.pinned, native)
    on_gpu = pair(memory.OnGpu, native)
    gpu_x = memory.OnGpu.of(native, x)

    def always(outputs):
        return lambda: outputs

    def fresh():
        return pair(memory.fresh)

    given, returned = searches.given, searches.returned
    return [
        returned(TWICE, "stock", x, k),
        returned(f"{TWICE} again", "stock", x, k),
        given("stock fresh", "stock", x, fresh),
        given("stock touched", "stock", x, always(touched)),
        searches.stock_on_gpu("stock GPU", gpu_x, *on_gpu),
        returned("ours pooled", "ours", x, k),
        given("ours fresh", "ours", x, fresh),
        given("ours touched", "ours", x, always(touched)),
        given("ours pinned", "ours", x, always(pinned)),
        given("ours GPU", "ours", gpu_x, always(on_gpu), wait=True),
        given("ours GPU queries, pinned", "ours", gpu_x, always(pinned)),
        given("C++ stock touched", "C++ stock", x, always(touched)),
        given("C++ ours touched", "C++ ours", x, always(touched)),
        given("C++ ours pinned", "C++ ours", x, always(pinned)),
        given("C++ ours GPU", "C++ ours", gpu_x, always(on_gpu), wait=True),
        *searches.peers(x, k),
    ]
