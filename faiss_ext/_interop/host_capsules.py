"""DLPack's capsules of host memory, read without the native part.

What ArrayGlue.cpp and gpu/arrays/DLPackView.cpp do, by the same rules and in the same
words, for machines without them. A capsule that nobody takes gives its tensor
back when it dies (the protocol says so); so it is the owner, and stays as it is.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

from ..errors import InvalidArray

_MOST = 2**63 - 1
_MAX_RANK = 64
_READ_ONLY, _COPIED = 1, 2
_TYPES = ("int", "uint", "float", "", "bfloat", "complex", "bool")
_NAMES = (b"dltensor_versioned", b"dltensor")
_KINDS = {1: "host", 2: "device", 3: "pinned", 13: "managed"}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


# Of its own, so that nobody else's idea of the arguments matters.
_api = ctypes.PyDLL(None)
_api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p


def take_dlpack_c(name: str, capsule: Any) -> Any:
    """What holds the array of a capsule; raises InvalidArray."""
    if not any(_api.PyCapsule_IsValid(capsule, n) for n in _NAMES):
        found = type(capsule).__name__
        if found == "PyCapsule":
            found = (_api.PyCapsule_GetName(capsule) or b"").decode()
        raise InvalidArray(
            f"{name}: __dlpack__ gave '{found}'; a capsule 'dltensor' or "
            "'dltensor_versioned' that no one has taken is needed"
        )
    return capsule


def describe_borrowed_c(name: str, capsule: Any) -> tuple[tuple[Any, ...], bool]:
    """The first fields of an `ArrayView`, and whether it is a copy;
    raises InvalidArray."""
    if not _api.PyCapsule_IsValid(capsule, _NAMES[0]):
        pointer = _api.PyCapsule_GetPointer(capsule, _NAMES[1])
        return _describe(name, _Tensor.from_address(pointer), False), False
    pointer = _api.PyCapsule_GetPointer(capsule, _NAMES[0])
    managed = _Versioned.from_address(pointer)
    if managed.major != 1:
        raise InvalidArray(
            f"{name}: DLPack version {managed.major}.{managed.minor}; version 1 "
            "is needed"
        )
    readonly = bool(managed.flags & _READ_ONLY)
    copied = bool(managed.flags & _COPIED)
    return _describe(name, managed.tensor, readonly), copied


def _describe(name: str, tensor: _Tensor, readonly: bool) -> tuple[Any, ...]:
    rank = tensor.rank
    # Before anything that counts on it is read.
    if not 0 <= rank <= _MAX_RANK:
        raise InvalidArray(
            f"{name}: {rank} dimensions; 0 to {_MAX_RANK} are taken"
        )
    if rank and not tensor.shape:
        raise InvalidArray(f"{name}: an array without a shape")
    dtype, item = _dtype(name, tensor)
    shape = tuple(tensor.shape[:rank]) if rank else ()
    given = rank > 0 and bool(tensor.strides)
    strides = tuple(
        _stride(name, stride, extent, item)
        for stride, extent in zip(tensor.strides[:rank] if given else (), shape)
    )
    if any(extent < 0 for extent in shape):
        raise InvalidArray(f"{name}: shape {shape} is not one of an array")
    count = math.prod(shape)
    if count * item > _MOST:
        raise InvalidArray(
            f"{name}: shape {shape} of {dtype} has more bytes than memory can "
            "hold"
        )
    compact = tuple(
        item * math.prod(shape[i + 1 :]) if count else 0 for i in range(rank)
    )
    strides = strides if given else compact
    if tensor.device_type not in _KINDS:
        raise InvalidArray(
            f"{name}: on DLPack device type {tensor.device_type}; "
            "the host (1) and CUDA (2, 3, 13) are taken"
        )
    pointer = (tensor.data or 0) + (tensor.byte_offset if tensor.data else 0)
    low, high = _reach(name, pointer, shape, strides, item) if count else (0, 0)
    contiguous = not count or all(
        extent == 1 or have == want
        for extent, have, want in zip(shape, strides, compact)
    )
    return (
        pointer if count else 0, shape, strides, dtype,
        _KINDS[tensor.device_type], tensor.device_id, readonly, count * item,
        contiguous, pointer + low if count else 0, high - low,
    )


def _stride(name: str, stride: int, extent: int, item: int) -> int:
    """A stride of elements in bytes."""
    if -_MOST - 1 <= stride * item <= _MOST:
        return stride * item
    # That of an extent of 1 is never taken, and means nothing.
    if extent > 1:
        raise InvalidArray(
            f"{name}: a stride of {stride} elements reaches outside of the "
            "address space"
        )
    return 0


def _dtype(name: str, tensor: _Tensor) -> tuple[str, int]:
    """The name of a dtype, and its bytes."""
    if tensor.lanes != 1:
        raise InvalidArray(
            f"{name}: elements of {tensor.lanes} lanes; plain numbers are needed"
        )
    kind = _TYPES[tensor.code] if tensor.code < len(_TYPES) else ""
    if not kind:
        raise InvalidArray(
            f"{name}: DLPack type code {tensor.code}; numbers are needed"
        )
    bits = tensor.bits
    if bits not in (8, 16, 32, 64) and (kind, bits) != ("complex", 128):
        raise InvalidArray(f"{name}: elements of {bits} bits are not taken")
    return kind if (kind, bits) == ("bool", 8) else f"{kind}{bits}", bits // 8


def _reach(
    name: str,
    pointer: int,
    shape: tuple[Any, ...],
    strides: tuple[Any, ...],
    item: int,
) -> tuple[int, int]:
    """How far below and above its first element an array reaches, in bytes."""
    if not pointer:
        raise InvalidArray(
            f"{name}: {math.prod(shape)} elements at a null pointer"
        )
    reaches = [(n - 1) * stride for n, stride in zip(shape, strides)]
    low = sum(reach for reach in reaches if reach < 0)
    high = item + sum(reach for reach in reaches if reach > 0)
    if pointer + low <= 0 or pointer + high >= 2**64 or high - low > _MOST:
        raise InvalidArray(
            f"{name}: strides {strides} of shape {shape} reach outside of the "
            "address space"
        )
    if pointer % min(item, 8):
        raise InvalidArray(
            f"{name}: elements of {item} bytes at an address that is not a "
            f"multiple of {min(item, 8)}"
        )
    return low, high
