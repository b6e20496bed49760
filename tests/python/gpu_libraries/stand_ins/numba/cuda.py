"""Arrays on the GPU."""

import memory_of_gpu as gpu


class DeviceNDArray(gpu.GpuMemory):
    @property
    def __cuda_array_interface__(self):
        return self.interface(version=3, stream=None)

    def copy_to_host(self):
        gpu._cuda.cudaDeviceSynchronize()
        return self.values()


def is_available():
    return True


def to_device(values):
    return DeviceNDArray.of(values)


def device_array(shape, dtype):
    return DeviceNDArray(shape, dtype)
