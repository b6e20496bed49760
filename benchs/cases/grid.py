"""The grid: queries n, neighbours k, databases (nb, d); host queries.

Stock Faiss against faiss_ext with outputs given (fresh, touched, pinned) and not
given (pooled pinned memory), both with all arrays on the GPU, the same searches
made in C++, and the peers that are installed. The cells of the bar come first,
then the others, those that take least first; long ones are measured with fewer
contenders and runs (measure/plan.py).
"""

from __future__ import annotations

import itertools

from measure import memory, peers
from measure.floors import BYTES_PER_RESULT, COMPUTE
from measure.plan import Plan
from measure.searches import TWICE, Searches, database, random_vectors

NAME = "grid"

#: For the timed runs of a cell whose least runs take less, unless the cell was
#: asked for.
MOST_S = 1.2


def run(session):
    """All cells, or those that are asked for."""
    shapes = session.shapes
    cells = session.cells or [
        (n, k, nb, d)
        for (nb, d), n, k in itertools.product(
            shapes.databases, shapes.queries, shapes.neighbours)
    ]
    measure_cells(session, NAME, cells, set(shapes.bar_cells))


def measure_cells(session, name, cells, important=frozenset()):
    """Measure cells (n, k, nb, d), the `important` ones first."""
    plan = Plan(session.left_s(), len(cells))
    left = sorted(cells, key=lambda cell: (
        cell not in important, plan.compute_s(*cell) * (1 + cell[1] / 1000)))
    session.expect(len(left))
    databases = {}
    for n, k, nb, d in left:
        case = {"n": n, "k": k, "nb": nb, "d": d}
        obstacle = _obstacle(session, n, k, nb, d)
        effort = None
        if not obstacle:
            names = [*(c[0] for c in _CONTENDERS), *peers.installed()]
            effort, obstacle = plan.effort(
                case, names, session.left_s(),
                important=(n, k, nb, d) in important)
        if obstacle:
            session.skip(name, case, obstacle)
            continue
        if (nb, d) not in databases:
            databases[nb, d] = _searches(
                session, [c for c in left if c[2:] == (nb, d)])
        plan.learn(case, _measure(
            session, name, case, databases[nb, d], effort, names))


def _searches(session, cells):
    """Of one database, for the largest of its cells that there is room for."""
    fitting = [cell for cell in cells if not _obstacle(session, *cell)]
    n, k = max(c[0] for c in fitting), max(c[1] for c in fitting)
    _, _, nb, d = fitting[0]
    return Searches(
        session, database(nb, d), random_vectors(n, d, 2), k,
        rows={row for n, *_ in fitting for row in (0, n // 2, n - 1)},
    )


def _measure(session, name, case, searches, effort, names):
    n, k = case["n"], case["k"]
    for left_out in names:
        if not effort.takes(left_out):
            session.leave_out(
                name, case, left_out, f"long case: {effort.what}")
    return session.measure(
        name, case, _contenders(searches, searches.queries[:n], k, effort),
        searches.floors(n, k), least_runs=effort.least_runs,
        slow_runs=min(effort.least_runs, 2),
        most_s=MOST_S, bounded=not session.cells,
    )


def _obstacle(session, n, k, nb, d):
    results, queries, base = BYTES_PER_RESULT * n * k, 4 * n * d, 4 * nb * d
    return session.obstacle(
        # Touched, pinned, fresh and pooled results; the database twice.
        host_bytes=4 * results + queries + 3 * base,
        # Results twice; two indexes in Python and two in C++, and the peers' copies.
        device_bytes=3 * results + 2 * queries + 7 * base,
    )


#: Name; kind of index; where queries and results lie ("" for results that the
#: search makes).
_CONTENDERS = (
    (TWICE, "stock", "host", ""),
    (f"{TWICE} again", "stock again", "host", ""),
    ("stock fresh", "stock", "host", "fresh"),
    ("stock touched", "stock", "host", "touched"),
    ("stock GPU", "stock", "GPU", "GPU"),
    ("ours pooled", "ours", "host", ""),
    ("ours fresh", "ours", "host", "fresh"),
    ("ours touched", "ours", "host", "touched"),
    ("ours pinned", "ours", "host", "pinned"),
    ("ours GPU", "ours", "GPU", "GPU"),
    ("ours GPU queries, pinned", "ours", "GPU", "pinned"),
    ("C++ stock touched", "C++ stock", "host", "touched"),
    (COMPUTE, "C++ stock", "GPU", "GPU"),
    ("C++ ours touched", "C++ ours", "host", "touched"),
    ("C++ ours pinned", "C++ ours", "host", "pinned"),
    ("C++ ours GPU", "C++ ours", "GPU", "GPU"),
)


def _contenders(searches, x, k, effort):
    """Those of the effort; each place is allocated once, if it is needed."""
    shape = len(x), k
    native = searches.native
    places, gpu_x = {}, None

    def pair(make, *arguments):
        return tuple(
            make(*arguments, shape, dtype) for dtype in ("float32", "int64"))

    def outputs(place):
        if place == "fresh":
            return lambda: pair(memory.fresh)
        if place not in places:
            places[place] = {
                "touched": lambda: pair(memory.touched),
                "pinned": lambda: pair(memory.pinned, native),
                "GPU": lambda: pair(memory.OnGpu, native),
            }[place]()
        return lambda: places[place]

    made = []
    for name, kind, source, place in _CONTENDERS:
        if not effort.takes(name):
            continue
        if source == "GPU" and gpu_x is None:
            gpu_x = memory.OnGpu.of(native, x)
        queries = gpu_x if source == "GPU" else x
        if name == "stock GPU":
            made.append(searches.by_pointers(
                name, kind, queries, *outputs(place)(), wait=True))
        elif place:
            made.append(searches.given(
                name, kind, queries, outputs(place), wait=place == "GPU"))
        else:
            made.append(searches.returned(name, kind, queries, k))
    return [*made, *searches.peers(x, k, effort.takes)]
