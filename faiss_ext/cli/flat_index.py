"""Where the command line searches: a flat index on a GPU or the CPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import faiss_ext

from .._gpus import gpu_count
from ..errors import UserError, faiss_errors


class FlatIndex(NamedTuple):
    """An empty index for exact search, and where it is.

    Attributes
    ----------
    index : faiss.Index
        Flat, on the device.
    on_gpu : bool
        Whether the device is a GPU.
    device : str
        The device, for people.
    why : str
        Why it is this one.
    """

    index: Any
    on_gpu: bool
    device: str
    why: str


def open_flat(device: str | int, d: int, metric: int, k: int) -> FlatIndex:
    """Make an empty flat index.

    Parameters
    ----------
    device : {'auto', 'cpu'} or int
        'auto' takes GPU 0 where there is one and it can return `k` results.
    d : int
        Dimensions.
    metric : int
        `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`.
    k : int
        Results for each query that will be asked for.

    Returns
    -------
    FlatIndex

    Raises
    ------
    UserError
        There is no such GPU, or it cannot return `k` results.
    """
    if device == "cpu":
        return _on_cpu(d, metric, "as asked for")
    count, found = gpu_count()
    if device == "auto":
        if count == 0:
            return _on_cpu(d, metric, found)
        try:
            return _on_gpu(0, d, metric, k, found)
        except UserError as error:
            return _on_cpu(d, metric, str(error))
    if not 0 <= int(device) < count:
        have = f"{found}, numbered from 0" if count else found
        raise UserError(f"GPU {device} cannot be used: {have}")
    return _on_gpu(int(device), d, metric, k, "as asked for")


def _on_cpu(d: int, metric: int, why: str) -> FlatIndex:
    threads = faiss_ext.omp_get_max_threads()
    return FlatIndex(
        faiss_ext.IndexFlat(d, metric),
        False,
        f"CPU, {threads} thread{'s' if threads > 1 else ''}",
        why,
    )


def _on_gpu(number: int, d: int, metric: int, k: int, why: str) -> FlatIndex:
    config = faiss_ext.GpuIndexFlatConfig()
    config.device = number
    with faiss_errors(f"GPU {number} cannot be used"):
        index = faiss_ext.GpuIndexFlat(
            faiss_ext.StandardGpuResources(), d, metric, config
        )
    # The limit of k depends on the version and build of Faiss, and only
    # a search tells it. It is checked before the number of queries is.
    with faiss_errors(f"GPU {number} cannot return {k} results a query"):
        index.search(np.empty((0, d), np.float32), k)
    return FlatIndex(index, True, f"GPU {number}", why)
