"""Files of vectors, read in chunks of rows.

========  ==================================================================
suffix    layout (little-endian, except that .npy names its byte order)
========  ==================================================================
.npy      NumPy's, two-dimensional: float32, float16, uint8 or int8; with
          `cast` other numbers too
.fvecs    per row: int32 d, then d times float32
.bvecs    per row: int32 d, then d times uint8
.fbin     uint32 n, uint32 d, then n rows of d times float32
.u8bin    the same with uint8
.i8bin    the same with int8
========  ==================================================================

Every row leaves as float32, which holds each of these types without loss.
Wider types are refused, unless the caller says `cast`: what to round is the
owner's decision.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Iterator
from io import FileIO
from typing import BinaryIO, NamedTuple

import numpy as np

from ...errors import VectorFileError
from .file_kinds import kind_of, known_content

__all__ = ["SUFFIXES", "VectorFile", "open_vectors"]


def open_vectors(
    path: str | os.PathLike[str], cast: bool = False
) -> VectorFile:
    """Open a file of vectors; its suffix says the format.

    Only the header is read, and checked against the size of the file.

    Parameters
    ----------
    path : path-like
        The file; see the table at the head of this module.
    cast : bool
        Whether float64, wider integers and bool in .npy files become the
        nearest float32.

    Returns
    -------
    VectorFile
        A context manager that closes the file.

    Raises
    ------
    VectorFileError
        No regular file, an unknown suffix, a wrong or truncated header, a
        size that the header does not account for, or a type that float32
        cannot hold.
    OSError
        The file cannot be opened or read.
    """
    path = os.fspath(path)
    # Looked at before it is opened: opening a FIFO would wait for a writer.
    kind = kind_of(path, "standard input")
    if kind:
        raise VectorFileError(
            f"{path} is {kind}, expected a file of vectors"
            + ("" if kind == "a folder" else
               ", which is read more than once: save it to a file first")
        )
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _FORMATS:
        raise VectorFileError(
            f"{path} has the suffix '{suffix}', expected one of "
            f"{', '.join(SUFFIXES)}"
        )
    file = FileIO(path)
    try:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise VectorFileError(
                f"{path} is empty (0 bytes), expected a {suffix} file"
            )
        opener, dtype = _FORMATS[suffix]
        try:
            opened = opener(path, file, size, dtype)
        except VectorFileError as error:
            like = _looks_like(path, file, size, suffix)
            if like is None:
                raise
            raise VectorFileError(f"{error}; it looks like {like}") from error
        opened.cast_to_float32(cast)
        return opened
    except BaseException:
        file.close()
        raise


def _looks_like(
    path: str, file: FileIO, size: int, suffix: str
) -> str | None:
    """What a file that is not of the format of its suffix may be."""
    file.seek(0)
    head = file.read(64)
    known = known_content(head)
    if known:
        return None if suffix in known.split() else known
    fitting = []
    for other, (opener, dtype) in _FORMATS.items():
        file.seek(0)
        if other in (suffix, ".npy"):
            continue
        try:
            opened = opener(path, file, size, dtype)
            if opened.d > _LIKELY_DIMENSIONS:
                continue
            opened.read(0, min(opened.n, 2))
        except VectorFileError:
            continue
        fitting.append((other, opened))
    if not fitting and size % 4 == 0 and _are_float32(head):
        return (
            "float32 numbers alone, without the number of dimensions: "
            "x = numpy.fromfile(..., 'float32').reshape(-1, d), and save that by "
            "numpy.save"
        )
    if not fitting:
        return None
    names = " or ".join(name for name, _ in fitting)
    _, first = fitting[0]
    return f"a {names} file ({first.n} rows of {first.d} dimensions): rename it"


def _are_float32(head: bytes) -> bool:
    """Whether these bytes may be float32 numbers. (Small integers are not.)"""
    found = np.frombuffer(head[: len(head) // 4 * 4], "<f4")
    size = np.abs(found[found != 0])
    return size.size > 0 and bool(((size > 1e-10) & (size < 1e10)).all())


class VectorFile(abc.ABC):
    """`n` vectors of `d` dimensions in an open file.

    Rows are read with plain reads, so that a file that shrinks meanwhile is
    an error and not the crash that it is through a mapping. (Only .npy files
    in Fortran order have to be mapped.) Not thread-safe.

    Attributes
    ----------
    path : str
        As it was given.
    n, d : int
        Number of rows, which may be 0, and of dimensions, at least 1.
    dtype : numpy.dtype
        The type in the file.
    """

    def __init__(
        self, path: str, file: FileIO, n: int, d: int, dtype: np.dtype
    ) -> None:
        self.path = path
        self.n = n
        self.d = d
        self.dtype = dtype
        self._file = file

    def cast_to_float32(self, allowed: bool) -> None:
        """Refuse a type that float32 does not hold, unless it is `allowed` to
        become the nearest. Raises VectorFileError."""
        if self.dtype.newbyteorder("=") not in _EXACT and not allowed:
            casts = "takes it as 0 and 1" if self.dtype.kind == "b" else "rounds it"
            raise VectorFileError(
                f"{self.path} holds {self.dtype}, expected float32, float16, "
                "uint8 or int8: Faiss computes in float32. Add --cast, which "
                f"{casts}, or convert it once with .astype('float32')"
            )

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._file.close()

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """Read the rows from `start` to just before `stop`.

        Parameters
        ----------
        start, stop : int
            0 <= start <= stop <= n.

        Returns
        -------
        numpy.ndarray
            float32, C-contiguous, shape [stop - start, d]; the caller's own.

        Raises
        ------
        VectorFileError
            The file became shorter, or a row is not what the header says.
        OSError
            Reading failed.
        """

    def chunks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Read all rows in order, `rows` at a time.

        Parameters
        ----------
        rows : int
            At least 1. The last chunk may have fewer.

        Yields
        ------
        tuple of int and numpy.ndarray
            The number of the first row, and what `read` returns.

        Raises
        ------
        VectorFileError, OSError
            As `read`.
        """
        for start in range(0, self.n, rows):
            yield start, self.read(start, min(start + rows, self.n))

    def _read_block(
        self, offset: int, shape: tuple[int, int], dtype: np.dtype
    ) -> np.ndarray:
        """The array that lies at byte `offset`."""
        block = np.empty(shape, dtype)
        wanted = block.reshape(-1).view(np.uint8).data
        try:
            self._file.seek(offset)
            while wanted:
                got = self._file.readinto(wanted)
                if not got:
                    raise VectorFileError(
                        f"{self.path} became shorter while it was read: "
                        f"{len(wanted)} bytes are missing from row "
                        f"{self._row_at(offset + block.nbytes - len(wanted))}"
                        " on"
                    )
                wanted = wanted[got:]
        except OSError as error:
            error.filename = self.path
            raise
        return block

    def _as_float32(self, rows: np.ndarray, start: int) -> np.ndarray:
        """The rows, of which `start` is the first, as C-contiguous float32.
        Raises VectorFileError."""
        try:
            with np.errstate(over="raise"):
                return np.asarray(rows, np.float32, order="C")
        except FloatingPointError:
            largest = np.finfo(np.float32).max
            beyond = np.isfinite(rows) & (np.abs(rows) > largest)
            row = start + int(np.argmax(beyond.any(axis=1)))
            raise VectorFileError(
                f"{self.path} has a number in row {row} that is beyond float32 "
                f"({largest:.2g}): scale the vectors first"
            ) from None

    @abc.abstractmethod
    def _row_at(self, offset: int) -> int:
        """The row that the byte at `offset` belongs to."""


class _Rows(VectorFile):
    """Rows without heads, one after the other from byte `offset` on."""

    def __init__(
        self,
        path: str,
        file: FileIO,
        n: int,
        d: int,
        dtype: np.dtype,
        offset: int,
    ) -> None:
        super().__init__(path, file, n, d, dtype)
        self._offset = offset
        self._row_bytes = d * dtype.itemsize

    def read(self, start: int, stop: int) -> np.ndarray:
        rows = self._read_block(
            self._offset + start * self._row_bytes,
            (stop - start, self.d),
            self.dtype,
        )
        return self._as_float32(rows, start)

    def _row_at(self, offset: int) -> int:
        return (offset - self._offset) // self._row_bytes


class _Columns(VectorFile):
    """A .npy file in Fortran order, which only a mapping reads by rows."""

    def __init__(
        self,
        path: str,
        file: FileIO,
        n: int,
        d: int,
        dtype: np.dtype,
        offset: int,
    ) -> None:
        super().__init__(path, file, n, d, dtype)
        self._columns = np.memmap(
            file, dtype, mode="r", offset=offset, shape=(n, d), order="F"
        )

    def read(self, start: int, stop: int) -> np.ndarray:
        # A copy, so that nothing of the mapping is handed out.
        return self._as_float32(np.array(self._columns[start:stop]), start)

    def _row_at(self, offset: int) -> int:
        raise AssertionError("a mapping has no short reads")


class _Vecs(VectorFile):
    """Rows that each begin with their number of dimensions (TEXMEX)."""

    def __init__(
        self, path: str, file: FileIO, size: int, dtype: np.dtype
    ) -> None:
        if size < 4:
            raise VectorFileError(
                f"{path} is truncated: {size} bytes, expected at least the 4 "
                "of the first row's number of dimensions"
            )
        d = int.from_bytes(file.read(4), "little", signed=True)
        if d <= 0:
            raise VectorFileError(
                f"{path} promises {d} dimensions in its first 4 bytes, "
                "expected at least 1"
            )
        self._row_bytes = 4 + d * dtype.itemsize
        n, rest = divmod(size, self._row_bytes)
        if n == 0:
            raise VectorFileError(
                f"{path} is truncated or of another format: {size} bytes, "
                f"expected at least {self._row_bytes} for one row of the {d} "
                "dimensions in its first 4 bytes"
            )
        if rest:
            raise VectorFileError(
                f"{path} is truncated or of another format: {size} bytes, "
                f"expected a multiple of {self._row_bytes}, a row of the {d} "
                "dimensions in its first 4 bytes"
            )
        super().__init__(path, file, n, d, dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        block = self._read_block(
            start * self._row_bytes,
            (stop - start, self._row_bytes),
            np.dtype(np.uint8),
        )
        heads = block[:, :4].view("<i4")[:, 0]
        wrong = np.flatnonzero(heads != self.d)
        if wrong.size:
            row = wrong[0]
            raise VectorFileError(
                f"{self.path} has {heads[row]} dimensions in row "
                f"{start + row}, expected {self.d} as in row 0"
            )
        return np.array(block[:, 4:].view(self.dtype), np.float32, order="C")

    def _row_at(self, offset: int) -> int:
        return offset // self._row_bytes


def _open_bin(
    path: str, file: FileIO, size: int, dtype: np.dtype
) -> VectorFile:
    """A file of the billion-scale benchmarks: one header of 8 bytes."""
    if size < 8:
        raise VectorFileError(
            f"{path} is truncated: {size} bytes, expected at least the 8 of "
            "its header"
        )
    n, d = (int(x) for x in np.frombuffer(file.read(8), "<u4"))
    if d == 0:
        raise VectorFileError(
            f"{path} promises 0 dimensions in its header, expected at least 1"
        )
    expected = 8 + n * d * dtype.itemsize
    if size != expected:
        raise VectorFileError(
            f"{path} is {'truncated' if size < expected else 'too long'}: "
            f"{size} bytes, expected {expected} for the {n} rows of {d} "
            "dimensions in its header"
        )
    return _Rows(path, file, n, d, dtype, 8)


def _open_npy(path: str, file: FileIO, size: int, _: np.dtype) -> VectorFile:
    """NumPy's own format, which names its type itself."""
    header = _read_npy_header(path, file)
    dtype = header.dtype
    for holds, kind in _NO_VECTORS:
        if holds(dtype):
            raise VectorFileError(f"{path} holds {dtype}: {kind}")
    if len(header.shape) != 2:
        raise VectorFileError(
            f"{path} holds an array of shape {list(header.shape)}, expected "
            "[n, d]"
        )
    n, d = header.shape
    if d == 0:
        raise VectorFileError(
            f"{path} promises 0 dimensions in its header, expected at least 1"
        )
    # What follows the array is ignored, as NumPy does.
    expected = header.offset + n * d * dtype.itemsize
    if size < expected:
        raise VectorFileError(
            f"{path} is truncated: {size} bytes, expected {expected} for the "
            f"{n} rows of {d} dimensions in its header"
        )
    by_columns = header.fortran_order and n > 1 and d > 1
    layout = _Columns if by_columns else _Rows
    return layout(path, file, n, d, dtype, header.offset)


#: What is no number that a distance is computed of, and what to do with it.
_NO_VECTORS: tuple[tuple[Callable[[np.dtype], bool], str], ...] = (
    (
        lambda dtype: dtype.hasobject,
        "pickled Python objects, expected numbers: load it where you trust it "
        "(allow_pickle=True), make one matrix (such as by numpy.stack) and save "
        "that with .astype('float32')",
    ),
    (
        lambda dtype: dtype.names is not None,
        "records with named fields, expected numbers: save one matrix of the "
        "fields with .astype('float32') (see "
        "numpy.lib.recfunctions.structured_to_unstructured)",
    ),
    (
        lambda dtype: dtype.kind == "c",
        "complex numbers, of which Faiss computes no distances: save the parts "
        "side by side, numpy.concatenate([x.real, x.imag], axis=1)"
        ".astype('float32'), which keeps L2 distances",
    ),
    (
        lambda dtype: dtype.kind not in "biuf",
        "text or dates, expected numbers: convert it once with "
        ".astype('float32')",
    ),
)
#: More than this no file is thought to have whose name says otherwise.
_LIKELY_DIMENSIONS = 10**6
_EXACT = [np.dtype(t) for t in ("float32", "float16", "uint8", "int8")]
_FORMATS: dict[
    str, tuple[Callable[[str, FileIO, int, np.dtype], VectorFile], np.dtype]
] = {
    ".npy": (_open_npy, np.dtype("<f4")),
    ".fvecs": (_Vecs, np.dtype("<f4")),
    ".bvecs": (_Vecs, np.dtype("u1")),
    ".fbin": (_open_bin, np.dtype("<f4")),
    ".u8bin": (_open_bin, np.dtype("u1")),
    ".i8bin": (_open_bin, np.dtype("i1")),
}

#: The suffixes that `open_vectors` knows.
SUFFIXES = tuple(_FORMATS)


_NPY_MAGIC = b"\x93NUMPY"


class _NpyHeader(NamedTuple):
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


def _read_npy_header(path: str, file: BinaryIO) -> _NpyHeader:
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
    if start[:6] != _NPY_MAGIC:
        raise VectorFileError(
            f"{path} begins with {start[:6]!r}, expected {_NPY_MAGIC!r} as every "
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
    return _NpyHeader(shape, fortran_order, dtype, file.tell())
