"""A .npz file whose arrays grow side by side.

NumPy's own writer wants each array whole, and `zipfile` one member after the
other. A search yields a few rows of every array at a time, and together they
may exceed memory. Their final sizes are known at the start, though, so each
member gets its place in the (uncompressed) archive at once.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .atomic_files import AtomicFile

__all__ = ["NpzStream"]

# Always the 64-bit variant: one layout for archives of every size.
_VERSION = 45
_DATE = 0x21  # 1 January 1980: equal results make equal files
_IN_EXTRA = 0xFFFFFFFF


class NpzStream:
    """Writes the rows of several arrays into one .npz file.

    Parameters
    ----------
    file : AtomicFile
        Empty; stays the caller's. Anything that seeks and writes will do.
    arrays : mapping of str to (shape, dtype)
        The arrays in the order in which they will lie in the file.
    """

    def __init__(
        self,
        file: AtomicFile,
        arrays: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    ) -> None:
        self._file = file
        self._members = {}
        offset = 0
        for name, (shape, dtype) in arrays.items():
            member = _Member(name, offset, shape, np.dtype(dtype))
            self._members[name] = member
            offset = member.end
        self._end = offset
        for member in self._members.values():
            member.write(file, member.header)

    def write(self, name: str, rows: np.ndarray) -> None:
        """Append rows to one array.

        Parameters
        ----------
        name : str
            Which array.
        rows : numpy.ndarray
            Shape [m, ...] as promised; converted to the promised dtype.

        Raises
        ------
        ValueError
            More rows than promised.
        UserError
            The system refuses to write.
        """
        member = self._members[name]
        rows = np.ascontiguousarray(rows, member.dtype)
        member.write(self._file, rows.reshape(-1).view(np.uint8).data)

    def finish(self) -> None:
        """Write what makes the file a complete archive.

        Raises
        ------
        ValueError
            Fewer rows were written than promised.
        UserError
            The system refuses to write.
        """
        for member in self._members.values():
            member.write_head(self._file)
        contents = b"".join(m.contents_entry() for m in self._members.values())
        count = len(self._members)
        end64 = struct.pack(
            "<4sQHHIIQQQQ",
            b"PK\x06\x06",
            44,
            _VERSION,
            _VERSION,
            0,
            0,
            count,
            count,
            len(contents),
            self._end,
        )
        locator = struct.pack(
            "<4sIQI", b"PK\x06\x07", 0, self._end + len(contents), 1
        )
        end = struct.pack(
            "<4sHHHHIIH",
            b"PK\x05\x06",
            0,
            0,
            count,
            count,
            len(contents),
            _IN_EXTRA,
            0,
        )
        self._file.seek(self._end)
        self._file.write(contents + end64 + locator + end)


class _Member:
    """One array: where it lies, how far it is written, its checksum."""

    def __init__(
        self, name: str, offset: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.name = f"{name}.npy".encode()
        self.dtype = dtype
        self.header = _npy_header(shape, dtype)
        self.size = len(self.header) + dtype.itemsize * int(
            np.prod(shape, dtype=object)
        )
        self._offset = offset
        self._start = offset + 30 + len(self.name) + 20
        self._written = 0
        self._crc = 0

    @property
    def end(self) -> int:
        return self._start + self.size

    def write(self, file: AtomicFile, data: bytes | memoryview) -> None:
        if self._written + len(data) > self.size:
            raise ValueError(f"too many rows for {self.name.decode()}")
        file.seek(self._start + self._written)
        file.write(data)
        self._crc = zlib.crc32(data, self._crc)
        self._written += len(data)

    def write_head(self, file: AtomicFile) -> None:
        if self._written != self.size:
            raise ValueError(f"too few rows for {self.name.decode()}")
        file.seek(self._offset)
        file.write(
            struct.pack("<4s", b"PK\x03\x04")
            + self._common(20)
            + self.name
            + struct.pack("<HHQQ", 1, 16, self.size, self.size)
        )

    def contents_entry(self) -> bytes:
        return (
            struct.pack("<4sH", b"PK\x01\x02", _VERSION)
            + self._common(28)
            + struct.pack("<HHHII", 0, 0, 0, 0, _IN_EXTRA)
            + self.name
            + struct.pack("<HHQQQ", 1, 24, self.size, self.size, self._offset)
        )

    def _common(self, extra_bytes: int) -> bytes:
        """What the head of a member and its entry in the contents share."""
        return struct.pack(
            "<HHHHHIIIHH",
            _VERSION,
            0,  # flags
            0,  # not compressed
            0,  # time
            _DATE,
            self._crc,
            _IN_EXTRA,
            _IN_EXTRA,
            len(self.name),
            extra_bytes,
        )


def _npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )
    return header.getvalue()
