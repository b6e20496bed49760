"""How exact exact searches are: stock Faiss, ours with Faiss' kernels and with the
exact engine, and the peers, on data of several kinds, all arrays on the GPU.

Of each, beside its time: the share of labels that are among the k nearest in
float64, the largest error of a distance, as a part of its query's k-th one, and,
of the exact engine, by which path its queries were answered.
"""

from __future__ import annotations

import functools

import numpy as np

from measure import memory, peers
from measure.datasets import DATASETS, made
from measure.gpu_arrays import on_host
from measure.oracle import WrongResult
from measure.searches import Searches
from measure.timing import Contender

NAME = "exactness"

#: Rows of the base whose differences to a query are made at once, in float64.
_ROWS = 1 << 14
#: A label is right whose distance in float64 is not above the k-th one by more
#: than the rounding of float64 itself.
_SLACK = 1e-12


def run(session):
    """Every data set."""
    nb, n = session.shapes.exactness
    cases = [(name, k) for name in DATASETS
             for k in session.shapes.exactness_k]
    session.expect(len(cases))
    for name, k in cases:
        case = {"data": name, "n": n, "k": k, "nb": nb}
        base_bytes = 4 * nb * DATASETS[name][1]
        obstacle = session.obstacle(
            host_bytes=8 * base_bytes, device_bytes=8 * base_bytes)
        if obstacle:
            session.skip(NAME, case, obstacle)
            continue
        _measure(session, case, *_data(name, nb, n, max(session.shapes.exactness_k)))


@functools.lru_cache(maxsize=1)
def _data(name, nb, n, most):
    base, queries = made(name, nb, n)
    return base, queries, _Truth(base, queries, most)


def _arrays():
    """CuPy where it has a GPU, which takes seconds for what takes NumPy minutes."""
    try:
        import cupy

        cupy.zeros(1)
    except Exception:  # not installed, no GPU, another CUDA: each has its own
        return np
    return cupy


class _Truth:
    """Squared distances in float64, of differences: nothing cancels."""

    def __init__(self, base, queries, most):
        self.base, self.queries = base, queries.astype("float64")
        xp = _arrays()
        rows = xp.asarray(base)

        def least(query):
            parts = [
                xp.square(rows[i : i + _ROWS] - query).sum(1)
                for i in range(0, len(rows), _ROWS)
            ]
            return xp.sort(xp.partition(xp.concatenate(parts), most - 1)[:most])

        #: [n, most]: of each query the least distances, ascending.
        self._nearest = np.stack([
            on_host(least(query)) for query in xp.asarray(self.queries)
        ])

    def kth(self, k):
        """[n]: of each query the k-th least distance."""
        return self._nearest[:, k - 1]

    def of(self, labels):
        """[n, k]: the distances of these labels."""
        return np.stack([
            np.square(self.base[row] - query).sum(1)
            for query, row in zip(self.queries, labels)
        ])


def _measure(session, case, base, queries, truth):
    n, k = case["n"], case["k"]
    searches = Searches(session, base, queries, k)
    native = session.native
    x = memory.OnGpu.of(native, queries)
    D, I = (memory.OnGpu(native, (n, k), dtype) for dtype in ("float32", "int64"))
    contenders = [
        searches.by_pointers("stock", "stock", x, D, I, wait=True),
        searches.given("ours, Faiss' kernels", "ours", x, lambda: (D, I),
                       wait=True, search="faiss"),
        searches.given("ours, exact", "ours", x, lambda: (D, I),
                       wait=True, search="exact"),
    ]
    for contender in contenders:
        contender.check, contender.counts = _looks(
            truth, k, lambda: (D.get(), I.get()), contender.counts)
    for contender, results in _peers(session, base, queries, k):
        contender.check, contender.counts = _looks(truth, k, results, None)
        contenders.append(contender)
    session.measure(NAME, case, contenders)


def _peers(session, base, queries, k):
    for name, run, results in peers.available(
            session, base, queries, k, peers.WITH_LOW_PRECISION.__contains__):
        yield Contender(name, run), results


def _looks(truth, k, results, counts):
    """A check that notes how exact results are, and what reads it."""
    found = {}

    def check():
        distances, labels = (np.asarray(on_host(array)) for array in results())
        if labels.min() < 0 or labels.max() >= len(truth.base):
            raise WrongResult("a label is out of range")
        exact, kth = truth.of(labels), truth.kth(k)[:, None]
        right = exact <= kth * (1 + _SLACK)
        # None twice: a label that comes twice stands for one that is missing.
        distinct = sum(len(np.unique(row)) for row in labels)
        scale = np.where(kth > 0, kth, 1)
        found.update(
            label_agreement=float(min(right.sum(), distinct) / labels.size),
            largest_distance_error=float(
                (np.abs(distances.astype("float64") - exact) / scale).max()),
        )
        return (f"all {len(labels)} queries against NumPy in float64: "
                f"{found['label_agreement']:.4%} of the labels, distances to "
                f"{found['largest_distance_error']:.1e} of the k-th")

    def read():
        return {**(counts() if counts else {}), **found}

    return check, read
