"""Vectors of length one, as cosine similarity needs them, in host memory.

The formula is that of gpu/compute/exact/Normalize.h, which the native part has for
GPUs and for the host; where there is none, NumPy gives the same bits. Each sum of
squares is made in double, in 128 chains: component i is of chain i % 128.
"""

from __future__ import annotations

import numpy as np

from .._loader.native_part import native

_CHAINS = 128
#: Numbers of double precision that NumPy works on at a time, about.
_AT_ONCE = 1 << 21


def normalized(x: np.ndarray) -> np.ndarray:
    """A copy of the float32 vectors x [n, d], C-contiguous, each divided by its
    length.

    Zeros, which have no direction, stay as they are, and so do vectors that are
    normalised already; one with NaN or infinity becomes all NaN.
    """
    x = np.ascontiguousarray(x, "float32")
    made: np.ndarray = np.empty_like(x)
    n, d = x.shape
    if native:
        native.normalize_rows_on_host_c(x.ctypes.data, n, d, made.ctypes.data)
        return made
    step = max(1, _AT_ONCE // max(d, _CHAINS))
    for first in range(0, n, step):
        rows = slice(first, first + step)
        made[rows] = _of_block(x[rows])
    return made


def _of_block(x: np.ndarray) -> np.ndarray:
    sums = _sums_of_squares(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = 1 / np.sqrt(sums)
        factors[(sums == 0) | (np.abs(sums - 1) <= 2.0**-22)] = 1
        factors[~np.isfinite(sums)] = np.nan
        made: np.ndarray = (x * factors[:, None]).astype("float32")
    made[np.isnan(made)] = np.nan
    return made


def _sums_of_squares(x: np.ndarray) -> np.ndarray:
    n, d = x.shape
    chains = np.zeros((n, _CHAINS))
    for first in range(0, d, _CHAINS):
        part = x[:, first : first + _CHAINS].astype("float64")
        chains[:, : part.shape[1]] += part * part
    fours = chains.reshape(n, -1, 4)
    lanes = (fours[..., 0] + fours[..., 1]) + (fours[..., 2] + fours[..., 3])
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    sums: np.ndarray = lanes[:, 0]
    return sums
