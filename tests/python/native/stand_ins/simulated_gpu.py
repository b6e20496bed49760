"""What the stand-ins of array libraries have in common: memory of the simulated
GPU, and a pool of it as such libraries have them."""

from __future__ import annotations

import ctypes

import numpy as np

runtime = ctypes.CDLL(None)  # preloaded

_pointer, _size = ctypes.c_void_p, ctypes.c_size_t
runtime.cudaMemcpyAsync.argtypes = [_pointer, _pointer, _size, ctypes.c_int, _pointer]
runtime.cudaStreamSynchronize.argtypes = [_pointer]

#: cudaMemcpyDefault.
_DEFAULT = 4


def check(status):
    if status:
        runtime.cudaGetLastError()
        raise RuntimeError(f"CUDA error {status}")


def current_device():
    device = ctypes.c_int()
    check(runtime.cudaGetDevice(ctypes.byref(device)))
    return device.value


def malloc(nbytes):
    """Memory of the current device. It ends with the process."""
    address = _pointer()
    check(runtime.cudaMalloc(ctypes.byref(address), _size(nbytes)))
    return address.value


def synchronize():
    check(runtime.cudaDeviceSynchronize())


def upload(address, values, stream=0):
    """Writes host values in the order of a stream; they have been read when this
    returns."""
    check(runtime.cudaMemcpyAsync(
        address, values.ctypes.data, values.nbytes, _DEFAULT, stream))


def download(address, shape, dtype, stream=0):
    """The values, once the stream has come to them."""
    values = np.empty(shape, dtype)
    check(runtime.cudaMemcpyAsync(
        values.ctypes.data, address, values.nbytes, _DEFAULT, stream))
    check(runtime.cudaStreamSynchronize(stream))
    return values


class StreamPool:
    """Lends what a stream has given back to that stream again, at once, without
    asking whether the GPU is done with it: the simulator sees who gives back
    too early."""

    #: What is raised beyond the limit.
    error = MemoryError

    def __init__(self):
        self.limit = None
        #: address: (nbytes, device, stream)
        self.lent = {}
        self.requests = []
        self._cached = {}

    @property
    def used_bytes(self):
        return sum(nbytes for nbytes, _, _ in self.lent.values())

    @property
    def held_bytes(self):
        """Those in use, and those that it will lend again."""
        return self.used_bytes + sum(
            nbytes * len(addresses)
            for (nbytes, _, _), addresses in self._cached.items())

    def allocate(self, nbytes, device, stream):
        assert current_device() == device
        key = (nbytes, device, stream)
        self.requests.append(key)
        if self.limit is not None and self.used_bytes + nbytes > self.limit:
            raise self.error(
                f"out of memory: tried to allocate {nbytes} bytes, "
                f"{self.used_bytes} of {self.limit} are in use"
            )
        cached = self._cached.setdefault(key, [])
        address = cached.pop() if cached else malloc(nbytes)
        self.lent[address] = key
        return address

    def deallocate(self, address):
        key = self.lent.pop(address)
        self._cached[key].append(address)
