"""The control functions of cuda_sim.h for Python programs that run on the
simulated CUDA runtime. See README.md; the names are those of the header,
without the prefix."""

import contextlib
import ctypes
import os
import re

IN_ORDER, REVERSE, STARVE, AS_LATE_AS_POSSIBLE, RANDOM = range(5)
POLICIES = ("in_order", "reverse", "starve", "as_late_as_possible", "random")

_HEADER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda_sim.h")

_int, _size, _u64 = ctypes.c_int, ctypes.c_size_t, ctypes.c_uint64
_ptr, _str = ctypes.c_void_p, ctypes.c_char_p

# name: (result, arguments)
_FUNCTIONS = {
    "reset": (None, []),
    "set_device_count": (None, [_int]),
    "set_device_memory": (None, [_size]),
    "set_policy": (None, [_int]),
    "set_seed": (None, [_u64]),
    "starve_stream": (None, [_ptr]),
    "hold_stream": (None, [_ptr]),
    "release_stream": (None, [_ptr]),
    "release_all": (None, []),
    "set_hold_timeout_ms": (None, [_int]),
    "run": (_size, [_size]),
    "pending": (_size, []),
    "pending_on": (_size, [_ptr]),
    "set_background_us": (None, [_int]),
    "set_pageable_h2d": (None, [_int]),
    "set_pageable_d2h": (None, [_int]),
    "set_copy_pieces": (None, [_int]),
    "set_free_policy": (None, [_int]),
    "set_separate_threads": (None, [_int]),
    "thread_release": (None, [_ptr]),
    "thread_acquire": (None, [_ptr]),
    "fail_call": (None, [_str, _u64, _int]),
    "fail_operation": (None, [_u64, _int]),
    "poison_device_at_call": (None, [_str, _u64, _int]),
    "last_fault": (_str, []),
    "clear_faults": (None, []),
    "counter": (_u64, [_str]),
    "reset_counters": (None, []),
    "calls": (_u64, [_str]),
    "check": (_size, []),
    "check_kind": (_size, [_int]),
    "report": (_str, [_size]),
    "report_kind_of": (_int, [_size]),
    "clear_reports": (None, []),
    "report_leaks": (_size, []),
    "set_verbose": (None, [_int]),
    "read_device": (_int, [_ptr, _ptr, _size]),
    "write_device": (_int, [_ptr, _ptr, _size]),
    "is_poison": (_int, [_ptr, _size]),
    "poison_host": (None, [_ptr, _size]),
    "host_access": (None, [_ptr, _size, _int]),
}


def environment(directory, base=None):
    """The environment in which a program runs on the simulator, whose
    libraries lie in `directory`."""
    env = dict(os.environ if base is None else base)
    paths = [str(directory), env.get("LD_LIBRARY_PATH", "")]
    env["LD_LIBRARY_PATH"] = ":".join(p for p in paths if p)
    env["LD_PRELOAD"] = os.path.join(str(directory), "libcuda_sim_faiss.so")
    return env


def _loaded_runtime():
    with open("/proc/self/maps") as maps:
        for line in maps:
            if re.search(r"/libcudart\.so[.0-9]*$", line.rstrip()):
                return line.split(maxsplit=5)[5].strip()
    return None


class Simulator:
    """The simulated runtime of this process. Raises OSError where the process
    does not run on it."""

    def __init__(self):
        runtime = ctypes.CDLL(_loaded_runtime() or "libcudart.so")
        self.runtime = runtime
        for name, (result, arguments) in _FUNCTIONS.items():
            try:
                function = getattr(runtime, "cuda_sim_" + name)
            except AttributeError:
                raise OSError("the CUDA runtime here is not the simulated one") from None
            function.restype, function.argtypes = result, arguments
            setattr(self, name, self._with_text(function))
        with open(_HEADER) as header:
            text = header.read().split("#define CUDA_SIM_COUNTERS(X)")[1]
        self.counter_names = re.findall(r"\bX\((\w+)\)", text.split("struct")[0])

    @staticmethod
    def _with_text(function):
        """str where the function takes or gives bytes."""

        def call(*args):
            result = function(*(a.encode() if isinstance(a, str) else a for a in args))
            return result.decode() if isinstance(result, bytes) else result

        return call

    def counters(self):
        """All counters by name."""
        return {name: self.counter(name) for name in self.counter_names}

    def reports(self):
        """The texts of all reports."""
        return [self.report(i) for i in range(self.check())]

    @contextlib.contextmanager
    def held(self, stream):
        """Holds a stream, given by its address, while in the block."""
        self.hold_stream(stream)
        try:
            yield
        finally:
            self.release_stream(stream)
