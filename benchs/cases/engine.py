"""The speed of the exact engine, all arrays on the GPU: stock Faiss, ours with
Faiss' kernels and with the exact engine, and the peers, exact ones and others.

Beside the times: how many labels of a contender are among those that D, the
formula of docs/exact-search.md, has nearest, which are those of the exact engine
(that they are is for the tests); of the exact engine by which path queries were
answered, and its scratch memory. Slow contenders run once, and those that the
time does not suffice for are left out, with the reason (measure/plan.py).
"""

from __future__ import annotations

import gc
import itertools
import time

import numpy as np

from measure import memory, peers
from measure.names import IN_A_ROW, OURS, STOCK
from measure.oracle import WrongResult
from measure.plan import Contest
from measure.scratch import ScratchMeter
from measure.searches import Searches, database, random_vectors
from measure.timing import Contender

NAME = "engine"

#: Up to so many queries a call and its wait are a large part of a search.
_FEW = 32
_CALLS = 50

#: Those that come last are left out first.
CONTENDERS = (
    OURS, STOCK, "torch", "FlashLib fp16", "torch TF32", "FlashLib", "cuVS",
    "ours, Faiss' kernels",
)

#: Queries and labels whose labels are compared.
_QUERIES, _LABELS = 1000, 100_000

#: For the timed runs of a cell whose least runs take less, unless the cell was
#: asked for.
_MOST_S = 0.4


def run(session):
    """All cells, or those that are asked for."""
    cells = session.cells or session.shapes.engine_cells()
    order = list(dict.fromkeys(cell[2:] for cell in cells))
    cells = sorted(cells, key=lambda cell: order.index(cell[2:]))
    contest = Contest(
        [name for name in CONTENDERS
         if peers.may_start(name) and name not in session.without], cells,
        session.shapes.engine_bar_cells())
    session.expect(len(cells))
    for _, group in itertools.groupby(cells, lambda cell: cell[2:]):
        _database(session, contest, list(group))
        # The next one needs the room.
        peers.forget()
        gc.collect()


def _database(session, contest, cells):
    searches = meter = None
    for n, k, nb, d in cells:
        case = {"n": n, "k": k, "nb": nb, "d": d}
        obstacle = _obstacle(session, n, k, nb, d, made=searches is not None)
        entered, why = (None, obstacle) if obstacle else contest.entered(
            (n, k, nb, d), session.left_s())
        if entered is None:
            session.skip(NAME, case, why)
            continue
        if searches is None:
            searches = _searches(session, cells)
            meter = ScratchMeter(session.native, searches.base, search="exact")
        for name, reason in why.items():
            session.leave_out(NAME, case, name, reason)
        contest.learn((n, k, nb, d), session.measure(
            NAME, case, _contenders(session, contest, case, searches, meter, entered),
            slow_runs=0, slow_s=contest.SLOW_S, most_s=_MOST_S,
            bounded=not session.cells,
        ))
    if meter:
        meter.close()


def _searches(session, cells):
    n, k = max(cell[0] for cell in cells), max(cell[1] for cell in cells)
    _, _, nb, d = cells[0]
    return Searches(
        session, database(nb, d), random_vectors(n, d, 2), k,
        rows={cell[0] - 1 for cell in cells})


def _obstacle(session, n, k, nb, d, made):
    base, results = 4 * nb * d, 12 * n * k
    return session.obstacle(
        host_bytes=3 * results + 2 * base,
        # Three indexes, that of the scratch meter, and copies of three peers;
        # a product of theirs, too.
        device_bytes=4 * results + (0 if made else 8 * base) + (16 << 30)
        * (not session.smoke),
    )


def _contenders(session, contest, case, searches, meter, entered):
    n, k = case["n"], case["k"]
    native, queries = session.native, searches.queries[:n]
    x = memory.OnGpu.of(native, queries)
    D, I = (memory.OnGpu(native, (n, k), dtype) for dtype in ("float32", "int64"))
    agreement = _Agreement(case["nb"], n, k)

    def results(rows=None):
        return D.get(rows), I.get(rows)

    made = []
    for name, kind, config in (
        (OURS, "ours", {"search": "exact"}),
        (IN_A_ROW, "ours", {"search": "exact", "in_a_row": _CALLS}),
        (STOCK, "stock", {}),
        ("ours, Faiss' kernels", "ours", {"search": "faiss"}),
    ):
        if name not in entered and not (
                name == IN_A_ROW and OURS in entered and n <= _FEW):
            continue
        contender = searches.by_pointers(name, kind, x, D, I, wait=True, **config)
        contender.check = agreement.check(
            results, contender.check, contender.counts, config.get("search"),
            first=name == OURS)
        contender.counts = agreement.counts(contender.counts)
        if name == OURS:
            contender.counts = _with(
                contender.counts, scratch_bytes=meter.bytes_of(x, k))
        made.append(contender)
    for name, search, fetch in peers.available(
            session, searches.base, queries, k, entered.__contains__):
        try:
            begin = time.perf_counter()
            # It may compile kernels, or not serve so many neighbours.
            if not name.startswith("torch"):
                search()
                contest.began(name, time.perf_counter() - begin)
        except Exception as error:
            session.leave_out(
                NAME, case, name, f"does not search: {type(error).__name__}: "
                f"{error}"[:200])
            continue
        made.append(Contender(name, search, None, agreement.check(fetch),
                              counts=agreement.counts(None)))
    return made


def _with(counts, **more):
    return lambda: {**counts(), **more}


class _Agreement:
    """The labels of a case, beside ours by the exact engine, which come first."""

    def __init__(self, nb, n, k):
        self._nb = nb
        self._rows = min(n, _QUERIES, max(1, _LABELS // k))
        self._ours = self._share = None

    def check(self, results, also=None, counts=None, asked=None, first=False):
        """`also`: what else a contender is checked by; `counts` of one of ours,
        and by which kernels it was `asked` to search. `first`: it is the one
        that the others are compared with."""

        def check():
            text = also() if also else "for range"
            if asked:
                found = counts()["searched_by"]
                if (asked == "exact") != (found == "the exact engine"):
                    raise WrongResult(f"asked for {asked!r}, searched by {found}")
            _, labels = results(self._rows)
            if labels.min() < 0 or labels.max() >= self._nb:
                raise WrongResult("a label is out of range")
            # Of each query they are others.
            labels = np.unique(
                labels.astype("int64")
                + self._nb * np.arange(self._rows, dtype="int64")[:, None])
            if first:
                self._ours = labels
            elif self._ours is None:
                raise WrongResult("nothing to compare the labels with")
            self._share = float(
                np.isin(labels, self._ours, assume_unique=True).sum()
                / len(self._ours))
            return (f"{text}; {self._share:.4%} of the labels of {self._rows} "
                    "queries are those of the exact engine")

        return check

    def counts(self, counts):
        return lambda: {
            **(counts() if counts else {}), "label_agreement": self._share}

