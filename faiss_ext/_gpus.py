"""Which GPUs there are, and arguments that name them, checked before Faiss is
asked: it ends the process over some of these."""

from __future__ import annotations

import ctypes
import functools
import operator
import subprocess
import sys
from typing import Any

import faiss

from ._loader.native_part import native
from .errors import InvalidDevice

# Taken now: `faiss-ext run` may put ours in its place.
_stock_get_num_gpus = getattr(faiss, "get_num_gpus", lambda: 0)
_CUDA_ERROR_NO_DEVICE = 100
_NONE_THERE = (
    "this process sees no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES, or "
    "use an index on the CPU"
)


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

    Examples
    --------
    >>> faiss.get_num_gpus() >= 0
    True
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


def gpu_number(value: Any, name: str) -> int:
    """The number of a GPU that is there; raises InvalidDevice, TypeError."""
    number = _integer(value, name, "the number of a GPU")
    _check_number(number, name)
    return number


def gpu_or_any(value: Any, name: str) -> int:
    """The same, or -1 for any GPU, of which there is one."""
    number = _integer(value, name, "the number of a GPU")
    _check_number(0 if number == -1 else number, name)
    return number


def gpu_numbers(values: Any, name: str) -> list[int]:
    """The same for a sequence of one or more."""
    try:
        found = list(values)
    except TypeError:
        raise TypeError(
            f"{name}: {values!r}; a list of GPUs is needed, such as [0, 1]"
        ) from None
    if not found:
        raise InvalidDevice(
            f"{name}: no GPU; one or more is needed, such as [0]"
        )
    return [gpu_number(gpu, f"{name}[{i}]") for i, gpu in enumerate(found)]


def first_gpus(ngpu: Any, name: str) -> list[int]:
    """The numbers of the first `ngpu` GPUs; of all for -1."""
    count = native.gpu_count_c()
    wanted = _integer(ngpu, name, "a number of GPUs")
    if count == 0:
        raise InvalidDevice(f"{name}: {wanted}; {_NONE_THERE}")
    if wanted != -1 and not 1 <= wanted <= count:
        raise InvalidDevice(
            f"{name}: {wanted}; this process sees {_gpus(count)}: give "
            f"{'1' if count == 1 else f'1 to {count}'}, or -1 for all"
        )
    return list(range(count if wanted == -1 else wanted))


def _integer(value: Any, name: str, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}: {value!r}; {what} is needed, an int"
        ) from None


def _check_number(number: int, name: str) -> None:
    count = native.gpu_count_c()
    if count == 0:
        raise InvalidDevice(f"{name}: GPU {number}; {_NONE_THERE}")
    if not 0 <= number < count:
        raise InvalidDevice(
            f"{name}: GPU {number}; this process sees {_gpus(count)}: give "
            f"{'0' if count == 1 else f'0 to {count - 1}'}"
        )


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count > 1 else ''}"
