"""torch.cuda: one stream, the legacy default one, and the caching allocator."""

import ctypes

import simulated_gpu
from simulated_gpu import current_device, synchronize

__all__ = ["current_device", "synchronize"]

initialized = False


class OutOfMemoryError(RuntimeError):
    pass


class _CachingAllocator(simulated_gpu.StreamPool):
    error = OutOfMemoryError


allocator = _CachingAllocator()


def init():
    global initialized
    initialized = True


class Stream:
    def __init__(self, device_index, cuda_stream):
        import torch

        self.device = torch.device("cuda", device_index)
        self.cuda_stream = cuda_stream


def current_stream(device=None):
    return Stream(current_device() if device is None else device, 0)


def caching_allocator_alloc(size, device=None, stream=None):
    assert initialized and isinstance(device, int) and isinstance(stream, int)
    # Rounded as PyTorch rounds.
    return allocator.allocate(-(-size // 512) * 512, device, stream)


def caching_allocator_delete(mem_ptr):
    allocator.deallocate(mem_ptr)


def memory_allocated():
    return allocator.used_bytes


class Block:
    """The memory of a tensor."""

    def __init__(self, nbytes, device):
        init()
        self.address = caching_allocator_alloc(nbytes, device, 0)

    def __del__(self):
        if hasattr(self, "address"):
            caching_allocator_delete(self.address)


def order_after_default(stream):
    event = ctypes.c_void_p()
    runtime = simulated_gpu.runtime
    simulated_gpu.check(runtime.cudaEventCreateWithFlags(ctypes.byref(event), 2))
    simulated_gpu.check(runtime.cudaEventRecord(event, None))
    simulated_gpu.check(
        runtime.cudaStreamWaitEvent(ctypes.c_void_p(stream), event, 0))
    simulated_gpu.check(runtime.cudaEventDestroy(event))
