"""Which build of Faiss a folder `faiss` holds: what a native part has to fit.

Told from the files alone, without loading any: a library under code that was
compiled for another one may end the process. CMake runs this file to record what
it builds on (cmake/FaissExtFaissWheel.cmake); the import compares with that
(check_faiss.py). So it needs nothing but Python.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import mmap
import pathlib
import re
import struct
import sys
from typing import NamedTuple

_PT_LOAD, _PT_DYNAMIC, _PT_NOTE = 1, 2, 4
_DT_NEEDED, _DT_STRTAB = 1, 5
_NT_GNU_BUILD_ID = 3

#: A symbol of the library of every Faiss, which no other library has.
_FAISS_SYMBOL = "_ZTVN5faiss5IndexE"


class Distribution(NamedTuple):
    """An installed distribution that has put a `faiss` into site-packages."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class SharedLibrary:
    """What is asked about a library of 64-bit Linux: its file, not its code."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._bytes[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path} is no shared library of 64-bit Linux")
        (begin,) = struct.unpack_from("<Q", self._bytes, 32)
        size, count = struct.unpack_from("<HH", self._bytes, 54)
        #: Type, offset in the file, address and size in the file of each segment.
        self._segments = [
            (kind, offset, address, length)
            for kind, _, offset, address, _, length in (
                struct.unpack_from("<IIQQQQ", self._bytes, begin + i * size)
                for i in range(count)
            )
        ]

    def fingerprint(self) -> str:
        """Its build-id, which the linker has made of its contents; of a library
        without one, a hash of the file."""
        build_id = self._build_id()
        if build_id:
            return f"build-id {build_id.hex()}"
        return f"sha256 {hashlib.sha256(self._bytes).hexdigest()}"

    def needed(self) -> list[str]:
        """The libraries that it is linked to."""
        for kind, offset, _, length in self._segments:
            if kind == _PT_DYNAMIC:
                entries = [
                    struct.unpack_from("<QQ", self._bytes, at)
                    for at in range(offset, offset + length, 16)
                ]
                texts = self._offset(dict(entries)[_DT_STRTAB])
                return [
                    self._text(texts + value)
                    for tag, value in entries if tag == _DT_NEEDED
                ]
        return []

    def find(self, pattern: bytes) -> re.Match[bytes] | None:
        """The first place in the file that matches."""
        return re.search(pattern, self._bytes)

    def _build_id(self) -> bytes | None:
        for kind, offset, _, length in self._segments:
            at, end = offset, offset + length
            while kind == _PT_NOTE and at + 12 <= end:
                name, size, note = struct.unpack_from("<III", self._bytes, at)
                begin = at + 12 + _rounded(name)
                owner = self._bytes[at + 12:at + 16]
                if note == _NT_GNU_BUILD_ID and owner == b"GNU\0":
                    return self._bytes[begin:begin + size]
                at = begin + _rounded(size)
        return None

    def _offset(self, address: int) -> int:
        """Where in the file that is which is loaded to the address."""
        for kind, offset, start, length in self._segments:
            if kind == _PT_LOAD and start <= address < start + length:
                return int(offset + address - start)
        raise ValueError(f"{self.path}: no segment has the address {address:#x}")

    def _text(self, at: int) -> str:
        return self._bytes[at:self._bytes.find(b"\0", at)].decode()


def _rounded(size: int) -> int:
    return (size + 3) & ~3


def owners(folder: pathlib.Path) -> list[Distribution]:
    """The distributions that have put files into this folder `faiss`; it is one
    of them that should have. Only those of which the name begins so are looked
    at: an import is no time to read what all others have brought."""
    found = set()
    for path in folder.parent.glob("faiss*.dist-info"):
        distribution = importlib.metadata.PathDistribution(path)
        if any(str(file) == "faiss/__init__.py" for file in distribution.files or ()):
            metadata = distribution.metadata
            if metadata and "Name" in metadata and "Version" in metadata:
                found.add(Distribution(metadata["Name"], metadata["Version"]))
    return sorted(found)


def has_cuvs(folder: pathlib.Path) -> bool:
    """Whether it is a build with cuVS, whose classes have other virtual functions
    under the same names."""
    return (folder / "_cuvs_build.py").exists()


def swig_table(folder: pathlib.Path) -> str:
    """The version of the table of types that its SWIG modules share with those
    of the same version, or "" where none is found."""
    for path in sorted(folder.glob("_swigfaiss*.so")):
        found = SharedLibrary(path).find(rb"swig_runtime_data(\d+)")
        if found:
            return found[1].decode()
    return ""


def cuda_major(library: SharedLibrary) -> str:
    """The version of CUDA's runtime that a library needs, or ""."""
    for name in library.needed():
        found = re.fullmatch(r"libcudart\.so\.(\d+)", name)
        if found:
            return found[1]
    return ""


class _Symbol(ctypes.Structure):
    """What dladdr tells."""

    _fields_ = [
        ("library", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def loaded_library(module: str) -> pathlib.Path | None:
    """The library of Faiss that this compiled module, which is loaded, uses."""
    try:
        symbol = ctypes.c_char.in_dll(ctypes.CDLL(module), _FAISS_SYMBOL)
    except (OSError, ValueError):
        return None
    found = _Symbol()
    dladdr = ctypes.CDLL(None).dladdr
    dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Symbol)]
    if not dladdr(ctypes.addressof(symbol), ctypes.byref(found)) or not found.library:
        return None
    return pathlib.Path(found.library.decode())


def describe(folder: pathlib.Path) -> dict[str, object]:
    """All of that about a folder with a libfaiss.so, as CMake reads it."""
    library = SharedLibrary(folder / "libfaiss.so")
    return {
        "owners": [each._asdict() for each in owners(folder)],
        "fingerprint": library.fingerprint(),
        "cuda": cuda_major(library),
        "cuvs": has_cuvs(folder),
        "swig": swig_table(folder),
    }


if __name__ == "__main__":
    print(json.dumps(describe(pathlib.Path(sys.argv[1]))))
