"""DLPack capsules made by hand: what an exporter hands over, right or wrong."""

from __future__ import annotations

import ctypes

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
READ_ONLY, COPIED = 1, 2
FLOAT32, INT64 = (2, 32, 1), (0, 64, 1)


class Tensor(ctypes.Structure):
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


class Plain(ctypes.Structure):
    pass


class Versioned(ctypes.Structure):
    pass


PlainDeleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(Plain))
VersionedDeleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(Versioned))
Plain._fields_ = [
    ("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", PlainDeleter),
]
Versioned._fields_ = [
    ("major", ctypes.c_uint32),
    ("minor", ctypes.c_uint32),
    ("context", ctypes.c_void_p),
    ("deleter", VersionedDeleter),
    ("flags", ctypes.c_uint64),
    ("tensor", Tensor),
]

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]

#: Capsules name static strings.
_NAMES = {
    name: ctypes.create_string_buffer(name)
    for name in (b"dltensor", b"dltensor_versioned", b"used_dltensor",
                 b"used_dltensor_versioned", b"something_else")
}


def capsule_name(capsule):
    return _api.PyCapsule_GetName(capsule).decode()


#: What has a deleter that was not called yet, by the address of what is managed.
_lent = {}


def _delete(managed):
    _lent.pop(ctypes.addressof(managed.contents))._delete()


#: For all, because ctypes does not bear that a function ends while, or before, it
#: is called: a deleter may run in the garbage collection that ends its exporter.
#: (For that reason they do not end with the interpreter either.)
_DELETERS = {Plain: PlainDeleter(_delete), Versioned: VersionedDeleter(_delete)}
for _deleter in _DELETERS.values():
    _api.Py_IncRef(ctypes.py_object(_deleter))


class Loan:
    """A managed tensor, its capsule, and how often its deleter was called. It
    lives until then at least, as what it has lent may."""

    def __init__(
        self,
        data,
        shape,
        strides=None,
        *,
        dtype=FLOAT32,
        device=(CUDA, 0),
        offset=0,
        version=None,
        flags=0,
        deleter=True,
        on_delete=None,
        null_shape=False,
        rank=None,
        name=None,
    ):
        self.deleted = 0
        self._on_delete = on_delete
        self._shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self._strides = None if strides is None else (
            ctypes.c_int64 * max(len(strides), 1))(*strides)
        kind = Plain if version is None else Versioned
        self.managed = kind()
        tensor = self.managed.tensor
        tensor.data = data
        tensor.device_type, tensor.device_id = device
        tensor.rank = len(shape) if rank is None else rank
        tensor.code, tensor.bits, tensor.lanes = dtype
        if not null_shape:
            tensor.shape = ctypes.cast(self._shape, ctypes.POINTER(ctypes.c_int64))
        if strides is not None:
            tensor.strides = ctypes.cast(
                self._strides, ctypes.POINTER(ctypes.c_int64))
        tensor.byte_offset = offset
        if version is not None:
            self.managed.major, self.managed.minor = version
            self.managed.flags = flags
        if deleter:
            _lent[ctypes.addressof(self.managed)] = self
            self.managed.deleter = _DELETERS[kind]
        self.name = name or (b"dltensor" if version is None else
                             b"dltensor_versioned")

    def _delete(self):
        self.deleted += 1
        if self._on_delete:
            self._on_delete()

    def capsule(self):
        return _api.PyCapsule_New(
            ctypes.addressof(self.managed), _NAMES[self.name], None)


class Exporter:
    """An array of some library that offers DLPack and nothing else: `memory`, a
    `GpuArray` or an address, whose shape is to be told."""

    def __init__(self, memory, shape=None, *, device=(CUDA, 0), error=None, **loan):
        self.memory = memory
        self.loans = []
        self.calls = []
        shape = memory.shape if shape is None else shape
        self._make = lambda: Loan(
            getattr(memory, "_pointer", memory), shape, device=device, **loan)
        self.said = device
        self.error = error

    def __dlpack_device__(self):
        return self.said

    def __dlpack__(self, **options):
        self.calls.append(options)
        if self.error:
            raise self.error
        self.loans.append(self._make())
        return self.loans[-1].capsule()

    @property
    def deleted(self):
        return [loan.deleted for loan in self.loans]


def take(capsule):
    """What a consumer does: rename, read; returns the managed tensor."""
    name = capsule_name(capsule).encode()
    assert name in (b"dltensor", b"dltensor_versioned"), name
    kind = Plain if name == b"dltensor" else Versioned
    pointer = _api.PyCapsule_GetPointer(capsule, name)
    _api.PyCapsule_SetName(capsule, _NAMES[b"used_" + name])
    return ctypes.cast(pointer, ctypes.POINTER(kind)).contents
