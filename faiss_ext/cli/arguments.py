"""Values of command line arguments; each function raises
`argparse.ArgumentTypeError` for what it does not take."""

from __future__ import annotations

import argparse
import math
from typing import Any

__all__ = ["counts", "device_number", "positive", "seconds", "some_of"]

_UNITS = {"k": 10**3, "M": 10**6}


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"expected a whole number of at least 1, got '{text}'"
    )


def device_number(text: str) -> int:
    """The number of a GPU."""
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(
        f"expected the number of a GPU, got '{text}'"
    )


def seconds(text: str) -> float:
    """A time of more than nothing."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < math.inf:
        return value
    raise argparse.ArgumentTypeError(
        f"expected a number of seconds above 0, got '{text}'"
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


def some_of(choices: tuple[str, ...]) -> Any:
    """Takes a list of these with commas between them."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        if set(found) <= set(choices):
            return found
        raise argparse.ArgumentTypeError(
            f"expected {' or '.join(choices)}, or both with a comma between "
            f"them, got '{text}'"
        )

    return parse
