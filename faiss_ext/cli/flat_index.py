"""Where the command line searches: a flat index on a GPU or the CPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import faiss_ext

from .._gpus import gpu_count
from .._interop.unit_vectors import normalized
from ..errors import UserError, faiss_errors


class FlatIndex(NamedTuple):
    """A flat index for exact search, and where it is.

    Attributes
    ----------
    index : faiss.Index
        On the device.
    on_gpu : bool
        Whether the device is a GPU.
    device : str
        The device, for people.
    why : str
        Why it is this one.
    normalize : bool
        Whether `add` and `search` normalise, as the index does not.
    """

    index: Any
    on_gpu: bool
    device: str
    why: str
    normalize: bool = False

    def add(self, x: np.ndarray) -> None:
        """Store float32 vectors."""
        self.index.add(normalized(x) if self.normalize else x)

    def search(self, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and labels of the `k` nearest of each."""
        found: tuple[np.ndarray, np.ndarray] = self.index.search(
            normalized(x) if self.normalize else x, k
        )
        return found


def open_flat(device: str | int, d: int, metric: str, k: int) -> FlatIndex:
    """Make an empty flat index.

    Parameters
    ----------
    device : {'auto', 'cpu'} or int
        'auto' takes GPU 0 where there is one and it can return `k` results.
    d : int
        Dimensions.
    metric : {'l2', 'ip', 'cosine'}
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


def _on_cpu(d: int, metric: str, why: str) -> FlatIndex:
    threads = faiss_ext.omp_get_max_threads()
    return FlatIndex(
        faiss_ext.IndexFlat(d, _number_of(metric)),
        False,
        f"CPU, {threads} thread{'s' if threads > 1 else ''}",
        why,
        normalize=metric == "cosine",
    )


def _on_gpu(number: int, d: int, metric: str, k: int, why: str) -> FlatIndex:
    config = faiss_ext.GpuIndexFlatConfig()
    config.device = number
    resources = faiss_ext.StandardGpuResources()
    with faiss_errors(f"GPU {number} cannot be used"):
        index = (
            faiss_ext.GpuIndexFlatCosine(resources, d, config)
            if metric == "cosine"
            else faiss_ext.GpuIndexFlat(
                resources, d, _number_of(metric), config
            )
        )
    # The limit of k depends on the version and build of Faiss, and only
    # a search tells it. It is checked before the number of queries is.
    with faiss_errors(f"GPU {number} cannot return {k} results a query"):
        index.search(np.empty((0, d), np.float32), k)
    return FlatIndex(index, True, f"GPU {number}", why)


def _number_of(metric: str) -> int:
    name = "METRIC_L2" if metric == "l2" else "METRIC_INNER_PRODUCT"
    number: int = getattr(faiss_ext, name)
    return number
