"""What the machine can do at best, measured in the run that uses it."""

from __future__ import annotations

import statistics
import time

import numpy as np

from . import memory

_MIB = 1 << 20


class Implausible(RuntimeError):
    """A rate that cannot be: the clock did not see the work."""


def ceilings(native, *, smoke=False, failed=lambda error: None):
    """Rates and latencies: medians of several runs after one that warms up.

    A rate is taken only if a quarter of the work (an eighth, of a matrix product)
    takes less than half of the time; where it does not, `failed` is called with
    the reason, and the rate is None. So is what the simulated runtime cannot do.

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

    def rate(name, amount, seconds):
        """Work a second; `amount` and `seconds` for a part of it and for all."""
        times = [median(action) for action in seconds]
        try:
            if not smoke:
                plausible(name, amount, times)
        except Implausible as error:
            failed(error)
            return None
        return amount[1] / times[1]

    def copies(name, to, source, moved=1):
        sizes = (size // 4, size)
        return rate(name, [moved * nbytes for nbytes in sizes], [
            lambda nbytes=nbytes: native.call("copy", to, source, nbytes)
            for nbytes in sizes
        ])

    def gemm(small, large):
        """On random matrices: zeros would need less power and run faster."""
        values = np.random.default_rng(2).standard_normal((large, large), "float32")
        a, b = (memory.OnGpu.of(native, values) for _ in range(2))
        c = memory.OnGpu(native, (large, large), "float32")
        return rate("gemm_flops", [2 * n**3 for n in (small, large)], [
            lambda n=n: native.call("gemm", n, a._address, b._address, c._address)
            for n in (small, large)
        ])

    result = {
        "link_to_host_bytes_s": copies(
            "link_to_host_bytes_s", address, one._address),
        "link_to_device_bytes_s": copies(
            "link_to_device_bytes_s", one._address, address),
        "device_memory_bytes_s": copies(
            "device_memory_bytes_s", two._address, one._address, 2),
        "copy_call_s": median(
            lambda: native.call("copy", address, one._address, 4)),
        # The simulated runtime computes nothing.
        "gemm_flops": None if native.simulated
        else gemm(128, 256) if smoke else gemm(4096, 8192),
        "host_copy_bytes_s": size / median(lambda: _host_copy(host)),
        "page_fault_s": median(lambda: _page_faults(size)),
    }
    count = 100
    for name, function in (
        ("host_function_s", "host_functions"), ("event_s", "events")
    ):
        result[name] = median(lambda: native.call(function, count)) / count
    return result


def plausible(name, amounts, times):
    """Raise Implausible unless the larger amount of work, four times the other or
    more, took at least twice as long."""
    more, longer = amounts[1] / amounts[0], times[1] / max(times[0], 1e-12)
    if longer < 2:
        raise Implausible(
            f"{name}: {more:.3g} times the work took {longer:.2f} times as long "
            f"({times[0]:.3g} s, {times[1]:.3g} s), so what was timed is not the "
            "work; is the stream that does it waited for?"
        )


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
