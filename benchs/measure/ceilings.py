"""What the machine can do at best, measured in the run that uses it."""

from __future__ import annotations

import statistics
import time

import numpy as np

from . import memory

_MIB = 1 << 20


def ceilings(native, *, smoke=False):
    """Rates and latencies: medians of several runs after one that warms up.

    Returns
    -------
    dict of str to float or None
        ``link_to_host_bytes_s`` and ``link_to_device_bytes_s`` (one copy of
        pinned memory), ``device_memory_bytes_s`` (bytes read and written by a
        copy within GPU memory), ``host_copy_bytes_s`` (NumPy copying touched
        memory, one thread), ``page_fault_s`` (one page of fresh memory,
        one thread), ``gemm_flops`` (cuBLAS, float32, the mode that Faiss sets),
        ``copy_call_s`` (copy of 4 bytes, with its wait), ``host_function_s`` and
        ``event_s`` (one of many on a stream).
    """
    size = _MIB if smoke else 256 * _MIB
    runs = 3 if smoke else 15
    host = memory.pinned(native, (size,), "u1")
    host[...] = np.random.default_rng(1).integers(0, 256, size, "u1")
    one, two = (memory.OnGpu.of(native, host) for _ in range(2))
    address = host.ctypes.data

    def median(action):
        action()
        return statistics.median(action() for _ in range(runs))

    def copy(to, source, nbytes):
        return median(lambda: native.call("copy", to, source, nbytes))

    result = {
        "link_to_host_bytes_s": size / copy(address, one._address, size),
        "link_to_device_bytes_s": size / copy(one._address, address, size),
        "device_memory_bytes_s": 2 * size
        / copy(two._address, one._address, size),
        "copy_call_s": copy(address, one._address, 4),
        "gemm_flops": _gemm(native, 256 if smoke else 8192, median),
        "host_copy_bytes_s": size / median(lambda: _host_copy(host)),
        "page_fault_s": median(lambda: _page_faults(size)),
    }
    count = 100
    for name, function in (
        ("host_function_s", "host_functions"), ("event_s", "events")
    ):
        result[name] = median(lambda: native.call(function, count)) / count
    return result


def _gemm(native, size, median):
    """2 size^3 operations a run, on random matrices: zeros would need less
    power and run faster."""
    if native.simulated:
        # It computes nothing.
        return None
    values = np.random.default_rng(2).standard_normal((size, size), "float32")
    a, b = (memory.OnGpu.of(native, values) for _ in range(2))
    c = memory.OnGpu(native, (size, size), "float32")
    return 2 * size**3 / median(lambda: native.call(
        "gemm", size, a._address, b._address, c._address
    ))


def _host_copy(source):
    target = memory.touched(source.shape, "u1")
    begin = time.perf_counter()
    np.copyto(target, source)
    return time.perf_counter() - begin


def _page_faults(size):
    pages = memory.fresh((size,), "u1")[:: 4096]
    begin = time.perf_counter()
    pages[...] = 1
    return (time.perf_counter() - begin) / len(pages)
