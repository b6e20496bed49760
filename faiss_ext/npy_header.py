"""The header of a .npy file, read without trusting it."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

import numpy as np

from .errors import VectorFileError

_MAGIC = b"\x93NUMPY"


class NpyHeader(NamedTuple):
    """What a .npy file says about its array.

    Attributes
    ----------
    shape : tuple of int
        None is negative.
    fortran_order : bool
        Whether the first axis varies fastest.
    dtype : numpy.dtype
        Byte order included.
    offset : int
        The byte at which the array begins.
    """

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    offset: int


def read_npy_header(path: str, file: BinaryIO) -> NpyHeader:
    """Read the header at the beginning of `file`.

    Parameters
    ----------
    path : str
        What to call the file in errors.
    file : binary file
        Positioned at its beginning; afterwards at the array.

    Raises
    ------
    VectorFileError
        Another format, a version that holds no plain numbers, or a header
        that is cut off or makes no sense.
    """
    start = file.read(8)
    if start[:6] != _MAGIC:
        raise VectorFileError(
            f"{path} begins with {start[:6]!r}, expected {_MAGIC!r} as every "
            ".npy file does"
        )
    version = tuple(start[6:])
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise VectorFileError(
            f"{path} is of .npy version {'.'.join(map(str, version))}, "
            "expected 1.0 or 2.0"
        )
    try:
        shape, fortran_order, dtype = readers[version](file)
    except (ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise VectorFileError(
            f"{path} has a broken .npy header: {reason}"
        ) from error
    if any(length < 0 for length in shape):
        raise VectorFileError(
            f"{path} promises an array of shape {list(shape)}, expected no "
            "negative number"
        )
    return NpyHeader(shape, fortran_order, dtype, file.tell())
