"""cupy.cuda: streams, devices, memory pools."""

import threading
import types
import weakref

import simulated_gpu

_current = threading.local()


class Device:
    def __init__(self, device=None):
        self.id = simulated_gpu.current_device() if device is None else device

    def __enter__(self):
        self._former = simulated_gpu.current_device()
        simulated_gpu.check(simulated_gpu.runtime.cudaSetDevice(self.id))
        return self

    def __exit__(self, *why):
        simulated_gpu.check(simulated_gpu.runtime.cudaSetDevice(self._former))

    def synchronize(self):
        with self:
            simulated_gpu.synchronize()


class _Stream:
    def __init__(self, ptr, device_id=-1):
        self.ptr, self.device_id = ptr, device_id

    def __enter__(self):
        if self.device_id not in (-1, simulated_gpu.current_device()):
            raise RuntimeError("the stream is of another device")
        _streams().append(self)
        return self

    def __exit__(self, *why):
        _streams().pop()


class Stream(_Stream):
    @classmethod
    def from_external(cls, obj):
        version, ptr = obj.__cuda_stream__()
        assert version == 0 and isinstance(ptr, int)
        return cls(ptr)


class ExternalStream(_Stream):
    """What CuPy had before 14."""


Stream.null = Stream(0)


def _streams():
    if not hasattr(_current, "streams"):
        _current.streams = [Stream.null]
    return _current.streams


def get_current_stream():
    return _streams()[-1]


class OutOfMemoryError(MemoryError):
    __module__ = "cupy.cuda.memory"


memory = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)


class _Arenas(simulated_gpu.StreamPool):
    error = OutOfMemoryError


class _Block:
    """Goes back to its pool when nobody refers to it."""

    def __init__(self, arenas, nbytes):
        self._arenas = arenas
        self.address = arenas.allocate(
            nbytes, simulated_gpu.current_device(), get_current_stream().ptr)

    def __del__(self):
        if hasattr(self, "address"):
            self._arenas.deallocate(self.address)


class MemoryPointer:
    def __init__(self, block, offset):
        self._block, self._offset = block, offset

    @property
    def ptr(self):
        return self._block.address + self._offset

    def __add__(self, offset):
        return MemoryPointer(self._block, self._offset + offset)


class _AsyncBlock:
    """Freed on its stream while that lives, then on the current one."""

    freed_on = []

    def __init__(self, nbytes, stream):
        self.address = simulated_gpu.malloc(nbytes)
        self._stream = weakref.ref(stream)

    def __del__(self):
        stream = self._stream() or get_current_stream()
        self.freed_on.append(stream.ptr)


def malloc_async(size):
    return MemoryPointer(_AsyncBlock(size, get_current_stream()), 0)


class MemoryPool:
    def __init__(self):
        self.arenas = _Arenas()

    def malloc(self, size):
        # Rounded as CuPy rounds.
        return MemoryPointer(_Block(self.arenas, -(-size // 512) * 512), 0)

    def used_bytes(self):
        return self.arenas.used_bytes

    def set_limit(self, size):
        self.arenas.limit = size or None


_default_pool = MemoryPool()
_allocator = _default_pool.malloc


def get_default_memory_pool():
    return _default_pool


def get_allocator():
    return _allocator


def set_allocator(allocator):
    global _allocator
    _allocator = allocator or _default_pool.malloc
