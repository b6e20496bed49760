"""A stand-in for PyTorch on the simulated GPU: what the tests and the examples
use of it, with the meaning that its documentation gives."""

import math

import numpy as np
import simulated_gpu
from dlpack_capsules import CPU, CUDA, Loan

from . import cuda

float32, float16, int64, int32, uint8 = (
    np.dtype(name) for name in ("float32", "float16", "int64", "int32", "uint8"))
_DLPACK_CODES = {"f": 2, "i": 0, "u": 1}


class device:
    def __init__(self, kind, index=None):
        self.type, self.index = kind, index

    def __eq__(self, other):
        return (self.type, self.index) == (other.type, other.index)


class Tensor:
    """C-contiguous, on the host or in memory of the caching allocator."""

    __module__ = "torch"

    def __init__(self, shape, dtype, where, base=None, offset=0):
        self.shape, self.dtype, self.device = tuple(shape), np.dtype(dtype), where
        self.requires_grad = False
        self._base = base or _storage(
            math.prod(self.shape) * self.dtype.itemsize, where)
        self._offset = offset

    @property
    def is_cuda(self):
        return self.device.type == "cuda"

    def data_ptr(self):
        return self._base.address + self._offset

    def _view(self, shape, offset):
        made = Tensor(shape, self.dtype, self.device, self._base, offset)
        made.requires_grad = self.requires_grad
        return made

    def detach(self):
        made = self._view(self.shape, self._offset)
        made.requires_grad = False
        return made

    def requires_grad_(self):
        self.requires_grad = True
        return self

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        if isinstance(rows, int):
            return self.cpu().numpy()[rows]
        begin, end, step = rows.indices(len(self))
        assert step == 1
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        return self._view((end - begin, *self.shape[1:]),
                          self._offset + begin * row)

    def size(self):
        return self.shape

    def contiguous(self):
        return self

    def is_contiguous(self):
        return True

    def untyped_storage(self):
        return _Storage(self._base.address)

    storage = untyped_storage

    def storage_offset(self):
        return self._offset // self.dtype.itemsize

    def new_empty(self, shape, dtype=None):
        return Tensor(shape, dtype or self.dtype, self.device)

    def _refuse_gradient(self):
        if self.requires_grad:
            raise BufferError(
                "Can't export tensors that require gradient, "
                "use tensor.detach()")

    def __dlpack_device__(self):
        return (CUDA, self.device.index) if self.is_cuda else (CPU, 0)

    def __dlpack__(self, stream=None, **new):
        if new:
            raise TypeError("unexpected keyword")
        self._refuse_gradient()
        # The work of this library is on the legacy default stream, which a
        # stream of the simulator does not join by itself.
        if stream not in (None, -1, 1):
            cuda.order_after_default(stream)
        dtype = _DLPACK_CODES[self.dtype.kind], self.dtype.itemsize * 8, 1
        loan = Loan(self.data_ptr(), self.shape, dtype=dtype,
                    device=self.__dlpack_device__(),
                    on_delete=lambda: _loans.discard(held))
        held = (self, loan)
        _loans.add(held)
        return loan.capsule()

    def __array__(self, *args, **options):
        return self.numpy()

    def numpy(self):
        self._refuse_gradient()
        if self.is_cuda:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        count = math.prod(self.shape)
        begin = self._offset // self.dtype.itemsize
        flat = self._base.values.view(self.dtype)[begin:begin + count]
        return flat.reshape(self.shape)

    def cpu(self):
        if not self.is_cuda:
            return self
        return from_numpy(
            simulated_gpu.download(self.data_ptr(), self.shape, self.dtype))

    def cuda(self):
        made = Tensor(self.shape, self.dtype, device("cuda", cuda.current_device()))
        simulated_gpu.upload(made.data_ptr(), self.numpy())
        return made


class _Storage:
    def __init__(self, address):
        self._address = address

    def data_ptr(self):
        return self._address


_loans = set()


class _HostStorage:
    def __init__(self, values):
        self.values = values.reshape(-1)
        self.address = values.ctypes.data


def _storage(nbytes, where):
    if where.type == "cpu":
        return _HostStorage(np.empty(max(nbytes, 1), "uint8"))
    return cuda.Block(max(nbytes, 1), where.index)


def empty(*shape, device="cpu", dtype=float32):
    if isinstance(device, str):
        device = globals()["device"](
            device, cuda.current_device() if device == "cuda" else None)
    return Tensor(shape, dtype, device)


def from_numpy(values):
    return Tensor(values.shape, values.dtype, device("cpu"), _HostStorage(values))


def as_tensor(data):
    return data if isinstance(data, Tensor) else from_numpy(data)


def rand(*shape, device):
    values = np.random.default_rng(0).random(shape, "float32")
    if device == "cpu":
        return from_numpy(values)
    assert device == "cuda"
    made = Tensor(shape, float32, globals()["device"]("cuda", cuda.current_device()))
    simulated_gpu.upload(made.data_ptr(), values)
    return made


def arange(n, device):
    made = Tensor((n,), int64, globals()["device"]("cuda", cuda.current_device()))
    simulated_gpu.upload(made.data_ptr(), np.arange(n))
    return made
