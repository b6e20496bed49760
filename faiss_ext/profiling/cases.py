"""The shapes to be timed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Case", "all_cases"]


class Case(NamedTuple):
    """One shape: n queries for the k nearest of nb vectors of d components."""

    nb: int
    d: int
    metric: str
    storage: str
    n: int
    k: int

    def __str__(self) -> str:
        return (
            f"n {self.n}, k {self.k}, nb {self.nb}, d {self.d}, "
            f"{self.metric}, {self.storage}"
        )


def all_cases(
    nb: Sequence[int],
    d: Sequence[int],
    metric: Sequence[str],
    storage: Sequence[str],
    n: Sequence[int],
    k: Sequence[int],
) -> list[Case]:
    """Every combination; those on the same database come one after another."""
    return [
        Case(*values)
        for values in itertools.product(nb, d, metric, storage, n, k)
    ]
