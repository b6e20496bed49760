"""As much of JAX as the tests use."""

import types

import memory_of_gpu as gpu


class Array(gpu.GpuMemory):
    @property
    def __cuda_array_interface__(self):
        # Immutable.
        return {**self.interface(version=2), "data": (self.address, True)}

    def __array__(self, dtype=None, copy=None):
        return self.values()


def devices(kind):
    assert kind == "gpu"
    return range(gpu.gpu_count())


def device_put(values, device):
    with gpu.on_gpu(device):
        return Array.of(values)


def _from_dlpack(array):
    assert array.__dlpack_device__()[0] == 2
    return array.copy_to_host()


dlpack = types.SimpleNamespace(from_dlpack=_from_dlpack)
