"""Where to search: the GPUs there are, and a flat index on one or the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import faiss
import numpy as np

import faiss_ext

from .errors import UserError
from .native_part import native

__all__ = [
    "FlatIndex", "faiss_errors", "get_num_gpus", "gpu_count", "open_flat",
]

# Taken now: `in_place` may put ours in its place.
_stock_get_num_gpus = getattr(faiss, "get_num_gpus", lambda: 0)
_CUDA_ERROR_NO_DEVICE = 100


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


def gpu_count() -> tuple[int, str]:
    """Number of GPUs that Faiss can use.

    Never ends the process, which Faiss' own `get_num_gpus` does where the
    CUDA runtime fails, for instance without a driver.

    Returns
    -------
    count : int
        0 where there is none.
    why : str
        What the number means, for people.
    """
    if not hasattr(faiss, "StandardGpuResources"):
        return 0, "this Faiss is built for the CPU only"
    if _driver_works():
        count = _stock_get_num_gpus()
    else:
        counted = _count_elsewhere()
        if counted is None:
            return 0, "the CUDA runtime finds no working driver"
        count = counted
    if count == 0:
        return 0, "there is no GPU"
    return count, f"{count} GPU{'s' if count > 1 else ''} found"


def get_num_gpus() -> int:
    """Number of GPUs that Faiss can use.

    0 also where there is no driver, where Faiss' own function ends the process.

    Raises
    ------
    RuntimeError
        If CUDA cannot tell.
    """
    return native.gpu_count_c() if native else _count_once()


@functools.cache
def _count_once() -> int:
    return gpu_count()[0]


def _driver_works() -> bool:
    """Whether Faiss may ask the CUDA runtime in this process."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return driver.cuInit(0) in (0, _CUDA_ERROR_NO_DEVICE)


def _count_elsewhere() -> int | None:
    """Ask in a process that may be aborted; None if it was."""
    answer = subprocess.run(
        [sys.executable, "-c", "import faiss; print(faiss.get_num_gpus())"],
        capture_output=True,
        text=True,
    )
    return int(answer.stdout) if answer.returncode == 0 else None


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


@contextlib.contextmanager
def faiss_errors(what: str) -> Iterator[None]:
    """Turn an error of Faiss within the block into one line.

    Parameters
    ----------
    what : str
        What failed; begins the line.

    Raises
    ------
    UserError
        Faiss raised an error.
    """
    try:
        yield
    except MemoryError as error:
        raise UserError(f"{what}: there is not enough memory") from error
    except RuntimeError as error:
        # Faiss puts the function, file and expression in front.
        reason = str(error).rpartition(" failed: ")[2]
        raise UserError(f"{what}: {reason}") from error
