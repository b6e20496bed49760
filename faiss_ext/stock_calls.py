"""What comes around Faiss' own methods where host memory may be pinned.

Faiss' code on a GPU takes no lock, and does not wait for what it copies to and
from pinned memory: its copies from pageable memory are what it relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import swigfaiss_ext as native
from .calls import faiss_alone


def on_gpu(function: Callable, args: tuple, options: dict) -> Any:
    """A method of an index of Faiss' own on a GPU: one at a time on its
    resources, and complete when it returns."""
    with faiss_alone(args[0]):
        return function(*args, **options)


def over_others(function: Callable, args: tuple, options: dict) -> Any:
    """A method of an index that holds others, which may be Faiss' own on GPUs. It
    reads their results at once and hands on the caller's arrays, so pinned ones
    go by way of ordinary memory."""
    copies: list[tuple[np.ndarray, np.ndarray]] = []

    def ordinary(value: Any) -> Any:
        if not isinstance(value, np.ndarray) or _is_pageable(value):
            return value
        copies.append((value, value.copy()))
        return copies[-1][1]

    result = function(
        *map(ordinary, args), **{k: ordinary(v) for k, v in options.items()}
    )
    if not copies:
        return result
    outputs = result if isinstance(result, tuple) else (result,)
    # What was given comes back, in the place of its copy.
    found = tuple(
        next((_written(*pair) for pair in copies if pair[1] is item), item)
        for item in outputs
    )
    return found if isinstance(result, tuple) else found[0]


def _is_pageable(array: np.ndarray) -> bool:
    return array.size == 0 or (
        native.placement_c("array", array.ctypes.data, 1)[0] == "pageable"
    )


def _written(output: np.ndarray, copy: np.ndarray) -> np.ndarray:
    np.copyto(output, copy)
    return output
