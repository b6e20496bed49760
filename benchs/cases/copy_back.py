"""Copy-back by itself: results that lie on the GPU come to the host.

For each destination and size: the pipeline of faiss_ext, a plain copy of each
array, and the steps of Faiss' own search; into pinned memory also no copy at all,
but kernels that store their results there (mapped memory). The floor is the
measured link.
"""

from __future__ import annotations

import numpy as np

from measure import memory, oracle
from measure.floors import BYTES_PER_RESULT, copy_back_floor
from measure.native import CopyBack
from measure.timing import Contender

NAME = "copy_back"

#: Contender and method.
_CONTENDERS = (("stock", "stock"), ("plain", "plain"), ("ours", "ours"),
               ("ours again", "ours"))
_INTO_PINNED = (("kernel stores", "kernel stores"),)

#: Bytes of results that are measured less often; seconds for the timed runs of
#: smaller ones.
_LARGE = 64 << 20
_MOST_S = 0.5


def run(session):
    """All sizes and destinations."""
    shapes = session.shapes
    session.expect(len(shapes.sizes) * len(shapes.destinations))
    for size in shapes.sizes:
        results = None
        for destination in shapes.destinations:
            case = {"bytes": size, "destination": destination}
            obstacle = session.obstacle(
                host_bytes=4 * size, device_bytes=4 * size,
                # All runs of all contenders; most is stock Faiss onto fresh pages.
                seconds=size * (6e-9 if destination == "fresh" else 2.5e-9),
            )
            if obstacle:
                session.skip(NAME, case, obstacle)
                continue
            results = results or _Results(session.native, size)
            _measure(session, case, results)


class _Results:
    """What lies on the GPU: below the size of one result, a distance alone."""

    def __init__(self, native, size):
        n = max(size // BYTES_PER_RESULT, 1)
        random = np.random.default_rng(size)
        self.distances = random.standard_normal(n, "float32")
        self.labels = (
            random.integers(0, 1 << 40, n) if size >= BYTES_PER_RESULT else None
        )
        self.nbytes = self.distances.nbytes
        if self.labels is not None:
            self.nbytes += self.labels.nbytes
        self.back = CopyBack(native, self.labels, self.distances)


def _measure(session, case, results):
    destination = case["destination"]
    out = _Outputs(session.native, destination, results.distances.size,
                   results.labels is not None)

    def check():
        if out.labels is not None:
            oracle.same_bytes(out.labels, results.labels)
        oracle.same_bytes(out.distances, results.distances)
        return f"all {results.nbytes} bytes"

    def contender(name, method):
        return Contender(
            name,
            lambda: results.back.run(method, out.labels, out.distances),
            prepare=out.renew,
            check=check,
            spoil=lambda: memory.poison(*out.arrays()),
        )

    session.measure(
        NAME,
        case,
        [
            contender(name, method) for name, method in
            _CONTENDERS + (_INTO_PINNED if destination == "pinned" else ())
        ],
        lambda name: {
            "copy_back": copy_back_floor(session.ceilings, results.nbytes)},
        least_runs=3 if case["bytes"] > _LARGE else 5,
        most_s=_MOST_S,
    )


class _Outputs:
    """Arrays at a destination; new ones for each run where they must be fresh."""

    def __init__(self, native, destination, n, with_labels):
        self._make = {
            "pinned": lambda shape, dtype: memory.pinned(native, shape, dtype),
            "touched": memory.touched,
            "fresh": memory.fresh,
            "mapped file": memory.mapped_file,
        }[destination]
        self._always = destination == "fresh"
        self._n, self._with_labels = n, with_labels
        self.labels = self.distances = None

    def renew(self):
        if self.distances is None or self._always:
            self.labels = self.distances = None
            if self._with_labels:
                self.labels = self._make((self._n,), "int64")
            self.distances = self._make((self._n,), "float32")

    def arrays(self):
        return [a for a in (self.labels, self.distances) if a is not None]
