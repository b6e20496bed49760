"""rmm.mr: memory resources, one for each GPU."""

import simulated_gpu

from .pylibrmm.stream import Stream


class DeviceMemoryResource:
    def __init__(self):
        self.pool = simulated_gpu.StreamPool()

    def allocate(self, nbytes, stream):
        assert type(stream) is Stream
        return self.pool.allocate(
            nbytes, simulated_gpu.current_device(), stream.handle)

    def deallocate(self, ptr, nbytes, stream):
        assert type(stream) is Stream
        assert self.pool.lent[ptr] == (
            nbytes, simulated_gpu.current_device(), stream.handle)
        self.pool.deallocate(ptr)


_of_gpu = {}


def get_per_device_resource(device):
    return _of_gpu.setdefault(device, DeviceMemoryResource())


def set_per_device_resource(device, resource):
    _of_gpu[device] = resource
