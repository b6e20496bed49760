"""Copy-back by itself: results that lie on the GPU come to the host.

For each destination and size: the pipeline of faiss_ext, a plain copy of each
array, and the steps of Faiss' own search. The floor is the measured link.
"""

from __future__ import annotations

import numpy as np

from measure import memory, oracle
from measure.floors import BYTES_PER_RESULT
from measure.native import CopyBack
from measure.timing import Contender

NAME = "copy_back"

def run(session):
    """All sizes and destinations."""
    shapes = session.shapes
    session.expect(len(shapes.sizes) * len(shapes.destinations))
    for size in shapes.sizes:
        for destination in shapes.destinations:
            _measure(session, size, destination)


def _measure(session, size, destination):
    case = {"bytes": size, "destination": destination}
    obstacle = session.obstacle(host_bytes=4 * size, device_bytes=4 * size)
    if obstacle:
        session.skip(NAME, case, obstacle)
        return
    # Below one result, a distance alone.
    n = max(size // BYTES_PER_RESULT, 1)
    random = np.random.default_rng(size)
    distances = random.standard_normal(n, "float32")
    labels = (
        random.integers(0, 1 << 40, n) if size >= BYTES_PER_RESULT else None
    )
    back = CopyBack(session.native, labels, distances)
    out = _Outputs(session.native, destination, n, labels is not None)
    link = session.ceilings["link_to_host_bytes_s"]
    moved = n * BYTES_PER_RESULT if labels is not None else 4

    def contender(name, method):
        def check():
            memory.poison(*out.arrays())
            back.run(method, out.labels, out.distances)
            if labels is not None:
                oracle.same_bytes(out.labels, labels)
            return oracle.same_bytes(out.distances, distances) and (
                f"all {moved} bytes"
            )

        return Contender(
            name,
            lambda: back.run(method, out.labels, out.distances),
            prepare=out.renew,
            check=check,
        )

    session.measure(
        NAME,
        case,
        [
            contender("stock", "stock"),
            contender("plain", "plain"),
            contender("ours", "ours"),
            contender("ours again", "ours"),
        ],
        lambda name: {"copy_back": moved / link},
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
