"""The shapes to be timed."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Case", "all_cases", "counts"]

_UNITS = {"k": 10**3, "M": 10**6}


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


def counts(text: str) -> list[int]:
    """Whole numbers of at least 1 with commas between them, such as
    ``1,100,10k,1M``.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is anything else.
    """
    return [_count(part, text) for part in text.split(",")]


def _count(part: str, text: str) -> int:
    unit = _UNITS.get(part[-1:], 1)
    digits = part[:-1] if part[-1:] in _UNITS else part
    if digits.isascii() and digits.isdecimal() and int(digits) > 0:
        return int(digits) * unit
    raise argparse.ArgumentTypeError(
        "expected whole numbers of at least 1 with commas between them (10k is "
        f"10000, 1M is 1000000), got '{text}'"
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
