"""Cosine similarity without an index: ``metric="cosine"``, which Faiss has not, and
`normalize_L2` for arrays on a GPU.

Vectors are normalised, into memory of ours, and compared by their inner products.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from .._interop import host
from .._interop.unit_vectors import normalized
from ..errors import InvalidArray, check_shape
from .host import as_host_array

COSINE = "cosine"


def is_cosine(metric: Any) -> bool:
    """Whether a metric is cosine similarity, and not one of Faiss' numbers.
    Raises InvalidArray for another text."""
    if not isinstance(metric, str):
        return False
    if metric != COSINE:
        raise InvalidArray(
            f"metric: {metric!r}; {COSINE!r} is needed, or a number of Faiss', "
            "such as METRIC_L2 or METRIC_INNER_PRODUCT"
        )
    return True


def takes_cosine(
    knn: Callable[..., Any], fix: Callable[[str, Any], str]
) -> Callable[..., Any]:
    """Faiss' `knn`, with ``metric="cosine"``; `fix` says what to do with an
    array in GPU memory."""
    signature = inspect.signature(knn)

    @functools.wraps(knn)
    def call(*args: Any, **options: Any) -> Any:
        if not any(isinstance(v, str) for v in (*args, *options.values())):
            return knn(*args, **options)
        bound = signature.bind(*args, **options)
        arguments = bound.arguments
        if is_cosine(arguments.get("metric")):
            for name in ("xq", "xb"):
                arguments[name] = _normalized(
                    arguments[name], name, lambda: fix("knn", None)
                )
            arguments["metric"] = faiss.METRIC_INNER_PRODUCT
        return knn(*bound.args, **bound.kwargs)

    call.__doc__ = f"{knn.__doc__}{_NOTE}"
    return call


_NOTE = """
metric="cosine" is taken too: the inner products of the vectors, normalised in
memory of their own (a copy of both), largest first. Zeros have similarity 0 with
everything; a vector with NaN or infinity is never found.
"""


def _normalized(x: Any, name: str, fix: Callable[[], str]) -> Any:
    values = as_host_array(x, name, None, fix)
    if not isinstance(values, np.ndarray):
        # Says what it is.
        values = host.view(x, name, False).owner
    if values.shape == (0,):
        # None of any dimension.
        return values
    check_shape(name, values.shape, (None, None), host.indexable(x, name))
    return normalized(host.converted(values, name, "float32"))
