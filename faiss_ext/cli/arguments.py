"""Values of command line arguments; each function raises
`argparse.ArgumentTypeError` for what it does not take."""

from __future__ import annotations

import argparse
import math

__all__ = ["device_number", "positive", "seconds"]


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
