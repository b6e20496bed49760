"""As much of PyTorch as the tests use."""

import contextlib
import pathlib
import sys
import types

import memory_of_gpu as gpu
import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "native"))
from dlpack_capsules import CPU, CUDA, CUDA_HOST, Loan
from exchange_tables import Table

_CODES = {"float32": (2, 32, 1), "float16": (2, 16, 1), "int64": (0, 64, 1)}
#: Each outlives what borrows from it.
_loans = []

float32, float16, int64 = map(np.dtype, _CODES)


class Tensor(gpu.GpuMemory):
    requires_grad = False
    _negated = False

    def requires_grad_(self):
        self.requires_grad = True
        return self

    def is_neg(self):
        return self._negated

    @property
    def __cuda_array_interface__(self):
        # Without a stream, as PyTorch's.
        return self.interface(version=2)

    @property
    def device(self):
        return types.SimpleNamespace(index=self.gpu)

    def __dlpack_device__(self):
        return (CUDA, self.gpu)

    def __dlpack__(self, stream=None):
        if self.requires_grad:
            raise BufferError(
                "Can't export tensors that require gradient, "
                "use tensor.detach()"
            )
        if self.gpu != gpu.current_gpu():
            raise BufferError(
                "Can't export tensors on a different CUDA device index"
            )
        if stream not in (None, -1):
            gpu.order_before(stream)
        return _lend(self).capsule()

    def new_empty(self, shape, dtype):
        with gpu.on_gpu(self.gpu):
            return Tensor(shape, dtype)

    def cpu(self):
        return types.SimpleNamespace(numpy=self.values)

    def copy_(self, other):
        with gpu.on_gpu(self.gpu):
            self.take(other)


def _lend(tensor, **options):
    _loans.append(Loan(
        tensor.address, tensor.shape, dtype=_CODES[tensor.dtype.name],
        device=(CUDA, tensor.gpu), **options,
    ))
    return _loans[-1]


# As PyTorch's: it lends tensors that record gradients, too.
_table = Table(
    lambda tensor: _lend(tensor, version=(1, 3)),
    lambda kind, number: gpu.current_stream(number),
)
Tensor.__dlpack_c_exchange_api__ = _table.capsule


def _neg_view(tensor):
    made = Tensor.__new__(Tensor)
    made.__dict__.update(tensor.__dict__, _viewed=tensor, _negated=True)
    return made


class _HostTensor:
    """A tensor in host memory. A pinned one tells so, but its own device is not
    taken for one that could be asked for, and the loan says host memory."""

    requires_grad = False

    def __init__(self, values, pinned=False):
        self._values, self._pinned = values, pinned

    def cuda(self, number):
        with gpu.on_gpu(number):
            return Tensor.of(self._values)

    def pin_memory(self):
        return _HostTensor(gpu.pinned(self._values), True)

    def numpy(self):
        return self._values

    def is_neg(self):
        return False

    def __array__(self, dtype=None, copy=None):
        return self._values

    def __dlpack_device__(self):
        return (CUDA_HOST if self._pinned else CPU, 0)

    def __dlpack__(
        self, *, stream=None, max_version=None, dl_device=None, copy=None
    ):
        if dl_device not in (None, (CPU, 0)):
            raise BufferError(f"Unsupported device_type: {dl_device[0]}")
        return _lend_host(self, version=max_version).capsule()


def _lend_host(tensor, **options):
    values = tensor.numpy()
    _loans.append(Loan(
        values.ctypes.data, values.shape, dtype=_CODES[values.dtype.name],
        device=(CPU, 0), **options,
    ))
    return _loans[-1]


_host_table = Table(
    lambda tensor: _lend_host(tensor, version=(1, 3)), lambda kind, number: 0)
_HostTensor.__dlpack_c_exchange_api__ = _host_table.capsule

from_numpy = _HostTensor


class _Stream:
    def __init__(self, device):
        self.device, self.cuda_stream = device, gpu.new_stream(device)


@contextlib.contextmanager
def _stream(stream):
    """Its GPU is the current one, too."""
    with gpu.on_gpu(stream.device):
        with gpu.on_stream(stream.cuda_stream):
            yield


class _Graph(gpu.Graph):
    """Captured on a stream of its own, as by torch.cuda.graph."""


@contextlib.contextmanager
def _graph(graph):
    with gpu.on_stream(graph.begin()):
        yield
    graph.end()


cuda = types.SimpleNamespace(
    CUDAGraph=_Graph,
    graph=_graph,
    synchronize=gpu.synchronize,
    is_available=lambda: True,
    init=lambda: None,
    caching_allocator_alloc=lambda nbytes, device, stream: gpu.allocate(nbytes),
    caching_allocator_delete=gpu.give_up,
    device_count=gpu.gpu_count,
    current_device=gpu.current_gpu,
    device=gpu.on_gpu,
    Stream=_Stream,
    stream=_stream,
    current_stream=lambda device: types.SimpleNamespace(
        cuda_stream=gpu.current_stream(device)
    ),
)
