"""A stand-in for JAX on the simulated GPU: what the example uses of it, with the
meaning that its documentation gives."""

import math

import numpy as np
import simulated_gpu
from dlpack_capsules import CUDA, FLOAT32, Loan

from . import numpy, random

__all__ = ["Array", "block_until_ready", "numpy", "random"]


class Array:
    """Immutable: it offers DLPack, and no library can write it."""

    __module__ = "jaxlib._jax"

    def __init__(self, values=None, base=None, shape=None, dtype=None, address=None):
        self._base = base
        if values is not None:
            shape, dtype = values.shape, values.dtype
            address = simulated_gpu.malloc(values.nbytes)
            simulated_gpu.upload(address, values)
            # Its work is done when its array is exported.
            simulated_gpu.synchronize()
        self.shape, self.dtype, self._address = tuple(shape), dtype, address

    def __getitem__(self, rows):
        if isinstance(rows, tuple):
            return Array(np.ascontiguousarray(np.asarray(self)[rows]))
        begin, end, _ = rows.indices(self.shape[0])
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        return Array(base=self, shape=(end - begin, *self.shape[1:]),
                     dtype=self.dtype, address=self._address + begin * row)

    def __dlpack_device__(self):
        return (CUDA, 0)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        version = (1, 0) if max_version else None
        loan = Loan(self._address, self.shape, dtype=FLOAT32, version=version,
                    on_delete=lambda: _loans.discard(held))
        held = (self, loan)
        _loans.add(held)
        return loan.capsule()

    def __array__(self, *args, **options):
        return simulated_gpu.download(self._address, self.shape, self.dtype)

    def block_until_ready(self):
        simulated_gpu.synchronize()
        return self


_loans = set()


def block_until_ready(array):
    return array.block_until_ready()


def taken(exporter):
    """An array on the memory of `exporter`, as from_dlpack gives it."""
    from dlpack_capsules import take

    assert exporter.__dlpack_device__()[0] == CUDA
    tensor = take(exporter.__dlpack__(stream=1)).tensor
    dtype = np.dtype({(2, 32): "float32", (0, 64): "int64"}[tensor.code, tensor.bits])
    shape = tuple(tensor.shape[i] for i in range(tensor.rank))
    return Array(base=exporter, shape=shape, dtype=dtype, address=tensor.data)
