"""The C++ part (benchs/cpp/Benchs.h) and the CUDA runtime that it is linked to,
through ctypes."""

from __future__ import annotations

import ctypes
import os
import pathlib

NAME = "libfaiss_ext_benchs.so"

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_LONG, _SECONDS = ctypes.c_int64, ctypes.c_double

_FUNCTIONS = {
    "error": (ctypes.c_char_p, ()),
    "copy": (_SECONDS, (_POINTER, _POINTER, _SIZE)),
    "gemm": (_SECONDS, (_INT, _POINTER, _POINTER, _POINTER)),
    "host_functions": (_SECONDS, (_INT,)),
    "events": (_SECONDS, (_INT,)),
    "copy_back_new": (_POINTER, (_LONG, _POINTER, _POINTER)),
    "copy_back_run": (_SECONDS, (_POINTER, _INT, _POINTER, _POINTER)),
    "copy_back_delete": (None, (_POINTER,)),
    "index_new": (_POINTER, (_INT, _INT, _LONG, _POINTER)),
    "index_search": (
        _SECONDS,
        (_POINTER, _LONG, _POINTER, _LONG, _POINTER, _POINTER, _INT),
    ),
    "index_search_threads": (
        _SECONDS,
        (_POINTER, _INT, _INT, _POINTER, _LONG, _POINTER, _POINTER, _INT),
    ),
    "index_delete": (None, (_POINTER,)),
}

_RUNTIME = {
    "cudaMalloc": (_POINTER, _SIZE),
    "cudaFree": (_POINTER,),
    "cudaHostAlloc": (_POINTER, _SIZE, ctypes.c_uint),
    "cudaFreeHost": (_POINTER,),
    "cudaMemcpy": (_POINTER, _POINTER, _SIZE, _INT),
    "cudaMemset": (_POINTER, _INT, _SIZE),
    "cudaMemGetInfo": (_POINTER, _POINTER),
    "cudaDeviceSynchronize": (),
    "cudaGetDeviceCount": (_POINTER,),
    "cudaRuntimeGetVersion": (_POINTER,),
    "cudaDriverGetVersion": (_POINTER,),
}

#: cudaMemcpyDefault: the runtime tells the direction by the pointers.
_DEFAULT = 4
#: cudaHostAllocMapped: kernels may store into it.
_MAPPED = 2


class Failed(RuntimeError):
    """A function of the C++ part or of the CUDA runtime failed."""


class Native:
    """The library, loaded."""

    def __init__(self, path: pathlib.Path):
        self._library = ctypes.CDLL(os.fspath(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self._library, f"faiss_ext_benchs_{name}")
            function.restype, function.argtypes = result, arguments
        for name, arguments in _RUNTIME.items():
            # Found in what the library is linked to, so it is the same runtime.
            function = getattr(self._library, name)
            function.restype, function.argtypes = _INT, arguments

    def call(self, name, *arguments):
        """A function of Benchs.h, by its name without the prefix."""
        value = getattr(self._library, f"faiss_ext_benchs_{name}")(*arguments)
        result = _FUNCTIONS[name][0]
        if (result is _SECONDS and value < 0) or (
            result is _POINTER and not value
        ):
            text = self._library.faiss_ext_benchs_error().decode()
            raise Failed(f"{name}: {text}")
        return value

    def cuda(self, name, *arguments):
        """A function of the CUDA runtime."""
        status = getattr(self._library, name)(*arguments)
        if status:
            self._library.cudaGetLastError()
            raise Failed(f"{name} ended with CUDA error {status}")

    @property
    def simulated(self) -> bool:
        """Whether the runtime is the simulated one of tests/cuda_sim."""
        return hasattr(self._library, "cuda_sim_reset")

    def gpu_count(self) -> int:
        try:
            return self._integer("cudaGetDeviceCount")
        except Failed:
            return 0

    def cuda_versions(self) -> dict[str, str]:
        """Of the runtime and of what the driver supports."""
        return {
            key: f"{number // 1000}.{number % 1000 // 10}"
            for key, number in (
                ("runtime", self._integer("cudaRuntimeGetVersion")),
                ("driver", self._integer("cudaDriverGetVersion")),
            )
        }

    def device_memory(self) -> tuple[int, int]:
        """Free and total bytes of the GPU."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.cuda("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def malloc(self, nbytes: int) -> int:
        pointer = ctypes.c_void_p()
        self.cuda("cudaMalloc", ctypes.byref(pointer), max(nbytes, 1))
        return pointer.value

    def malloc_pinned(self, nbytes: int) -> int:
        pointer = ctypes.c_void_p()
        self.cuda("cudaHostAlloc", ctypes.byref(pointer), max(nbytes, 1), _MAPPED)
        return pointer.value

    def memcpy(self, to: int, source: int, nbytes: int) -> None:
        """Copies, after and before whatever else the GPU does."""
        self.synchronize()
        self.cuda("cudaMemcpy", to, source, nbytes, _DEFAULT)
        self.synchronize()

    def synchronize(self) -> None:
        self.cuda("cudaDeviceSynchronize")

    def _integer(self, name):
        value = ctypes.c_int()
        self.cuda(name, ctypes.byref(value))
        return value.value


class _Handle:
    """An object of the C++ part, deleted with this one."""

    _delete: str

    def __init__(self, native, pointer):
        self._native, self._pointer = native, pointer

    def close(self):
        pointer, self._pointer = self._pointer, None
        if pointer:
            self._native.call(self._delete, pointer)

    __del__ = close


class CopyBack(_Handle):
    """Results on the GPU that come to the host: labels [n] int64 (or None) and
    distances [n] float32."""

    _delete = "copy_back_delete"
    METHODS = {"ours": 0, "stock": 1, "plain": 2, "kernel stores": 3}

    def __init__(self, native, labels, distances):
        super().__init__(native, native.call(
            "copy_back_new", distances.size, _address(labels),
            _address(distances),
        ))

    def run(self, method, labels, distances) -> float:
        return self._native.call(
            "copy_back_run", self._pointer, self.METHODS[method],
            _address(labels), _address(distances),
        )


class Index(_Handle):
    """A flat L2 index made and searched in C++."""

    _delete = "index_delete"

    def __init__(self, native, ours, base):
        super().__init__(native, native.call(
            "index_new", int(ours), base.shape[1], base.shape[0],
            _address(base),
        ))

    def search(self, x, D, I, *, wait=False) -> float:
        return self._native.call(
            "index_search", self._pointer, x.shape[0], _address(x),
            D.shape[1], _address(D), _address(I), int(wait),
        )

    def search_threads(self, x, D, I, calls, *, locked) -> float:
        return self._native.call(
            "index_search_threads", self._pointer, x.shape[0], calls,
            _address(x), D.shape[1], _address(D), _address(I), int(locked),
        )


def _address(array):
    """Of a NumPy array or of one in GPU memory; None stays None."""
    if array is None:
        return None
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None:
        return interface["data"][0]
    return array.ctypes.data


def find(given: str | None) -> pathlib.Path:
    """The library: where it was said to be, or where the build puts it."""
    root = pathlib.Path(__file__).resolve().parents[2]
    build = os.environ.get("FAISS_EXT_BUILD_DIR", root / "build/ci")
    path = pathlib.Path(
        given
        or os.environ.get("FAISS_EXT_BENCHS_LIBRARY")
        or pathlib.Path(build) / "benchs/cpp" / NAME
    )
    if not path.exists():
        raise SystemExit(
            f"error: no {NAME} at {path}. Fix: run 'make build', or name it "
            "with --library"
        )
    return path
