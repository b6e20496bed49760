"""Whether results are right, before anything is timed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

#: Share of |q|^2 + |b|^2 that a float32 distance may be off. Faiss computes
#: |q|^2 + |b|^2 - 2 q.b in float32, whose rounding grows with these norms;
#: epsilon is 1.2e-7, and d <= 512 terms are summed.
TOLERANCE = 2e-5

_CHUNK = 1 << 14


class WrongResult(AssertionError):
    """Results that are not those of an exact search."""


class Oracle:
    """Exact L2 neighbours of a few queries, in float64."""

    def __init__(self, base, queries, rows, k):
        """`rows`: which queries; `k`: how many neighbours at most."""
        self.base = base
        self.queries = {row: queries[row].astype("float64") for row in rows}
        block = np.stack(list(self.queries.values()))
        norms = np.square(block).sum(1)[:, None]
        distances = np.empty((len(block), len(base)))

        def part_of(first):
            """Fills a part of the distances; returns the largest norm in it."""
            part = base[first : first + _CHUNK].astype("float64")
            squares = np.square(part).sum(1)
            distances[:, first : first + _CHUNK] = (
                norms + squares[None, :] - 2 * block @ part.T
            )
            return float(squares.max())

        with ThreadPoolExecutor() as pool:
            self.norm = max(pool.map(part_of, range(0, len(base), _CHUNK)))
        k = min(k, len(base))
        nearest = np.sort(np.partition(distances, k - 1, axis=1)[:, :k], axis=1)
        self.nearest = dict(zip(self.queries, nearest))

    def check(self, D, I) -> str:
        """Raise WrongResult, or say what was checked. D and I are NumPy arrays
        of shape [n, k]."""
        n, k = D.shape
        rows = [row for row in self.queries if row < n]
        for row in rows:
            self._check_row(row, D[row].astype("float64"), I[row], k)
        if not np.isfinite(D).all() or I.min() < 0 or I.max() >= len(self.base):
            raise WrongResult("some result was not written, or is out of range")
        return (
            f"{len(rows)} of {n} queries against NumPy in float64, tolerance "
            f"{TOLERANCE:g} of the norms; all {n} for range"
        )

    def _check_row(self, row, distances, labels, k):
        query = self.queries[row]
        allowed = TOLERANCE * (np.square(query).sum() + self.norm)
        if len(np.unique(labels)) != k:
            raise WrongResult(f"query {row}: a label comes twice")
        if labels.min() < 0 or labels.max() >= len(self.base):
            raise WrongResult(f"query {row}: a label is out of range")
        found = np.square(
            self.base[labels].astype("float64") - query
        ).sum(1)
        for what, values in (
            ("the distance of its label", found),
            ("the exact neighbour's", self.nearest[row][:k]),
        ):
            off = np.abs(distances - values).max()
            if not off <= allowed:
                raise WrongResult(
                    f"query {row}: a distance is off by {off:g} from {what}; "
                    f"{allowed:g} is allowed"
                )


def same_bytes(found, expected) -> str:
    """Raise WrongResult unless two arrays are equal, byte by byte."""
    if not np.array_equal(found.view("u1"), expected.view("u1")):
        raise WrongResult("the bytes that arrived are not those that left")
    return f"all {expected.nbytes} bytes"
