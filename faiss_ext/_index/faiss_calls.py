"""What comes around Faiss' own methods where host memory may be pinned.

Faiss' code on a GPU takes no lock, and does not wait for what it copies to and
from pinned memory: its copies from pageable memory are what it relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._call.call import faiss_alone
from .._interop import placement
from . import forks
from .nested import GPU_INDEXES, leaves
from .staged import as_ours


def on_gpu(
    function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """A method of an index of Faiss' own on a GPU: one at a time on its
    resources, and complete when it returns."""
    with faiss_alone(args[0]):
        return function(*args, **options)


def over_others(
    function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """A method of an index that holds others. Faiss' own on GPUs are handed the
    caller's arrays, and their results are read at once, so there pinned arrays
    go by way of ordinary memory. Where there is none CUDA is not asked at all."""
    of_faiss = [
        leaf for leaf in leaves(args[0])
        if isinstance(leaf, GPU_INDEXES) and as_ours(leaf) is None
    ]
    if not of_faiss:
        return function(*args, **options)
    forks.check(of_faiss)
    copies: list[tuple[np.ndarray, np.ndarray]] = []

    def ordinary(value: Any) -> Any:
        if not isinstance(value, np.ndarray) or placement.is_pageable(
            value.ctypes.data, value.nbytes
        ):
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


def _written(output: np.ndarray, copy: np.ndarray) -> np.ndarray:
    np.copyto(output, copy)
    return output
