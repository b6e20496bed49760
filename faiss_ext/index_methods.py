"""The array methods of our index classes.

Each keeps the name, keywords and defaults of Faiss' own. Where every array is
in host memory, Faiss' own method does the work (and reaches our C++ search
through its virtual functions); where one is in GPU memory, it is used there.

The functions are named ``replacement_<method>`` because ``contrib.torch_utils``
looks for these names.
"""

from __future__ import annotations

import inspect
import operator
from typing import Any

import faiss
import numpy as np

from . import swigfaiss_ext as native
from .arrays import DeviceView, device_view, is_device_array
from .device_array import empty_like_family
from .pinned import empty_results


class _Operand:
    """An array of a call: its pointer for C++, and the stream to join: None, or
    a handle and the GPU that the stream belongs to (-1: that of the index)."""

    def __init__(self, array, name, shape, dtype, *, writable=False):
        self.array = array
        self.stream = None
        if is_device_array(array):
            view: DeviceView = device_view(
                array, name, shape, dtype, writable=writable
            )
            self.shape = view.shape
            if view.stream is not None and view.pointer:
                self.stream = view.stream, native.device_of_c(view.pointer)
            cast = {
                "float32": faiss.cast_integer_to_float_ptr,
                "int64": faiss.cast_integer_to_idx_t_ptr,
            }[dtype]
            self.pointer = cast(view.pointer)
            return
        if writable:
            _check_host_output(array, name, shape, dtype)
            host = array
        else:
            host = np.ascontiguousarray(array, dtype=dtype)
            if host.ndim != len(shape) or any(
                want is not None and want != have
                for want, have in zip(shape, host.shape)
            ):
                raise ValueError(f"{name}: shape {host.shape}; needed {shape}")
        # Kept: the pointer owns nothing.
        self.array = host
        self.shape = host.shape
        self.pointer = faiss.swig_ptr(host)


def _check_host_output(array, name, shape, dtype):
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{name}: {type(array).__name__}; a NumPy array or one that "
            "offers the CUDA Array Interface is needed"
        )
    if array.dtype != np.dtype(dtype):
        raise TypeError(f"{name}: dtype {array.dtype}; {dtype} is needed")
    if array.shape != tuple(shape):
        raise ValueError(f"{name}: shape {array.shape}; needed {tuple(shape)}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"{name}: must be C-contiguous and writable")


def _run(index, operands, call):
    """Call C++ after the producers of all `operands`, and let their streams go
    on after it. The host waits for none of them."""
    streams = {o.stream for o in operands if o.stream is not None}
    for stream, gpu in streams:
        index.wait_for_stream_c(stream, gpu)
    call()
    for stream, gpu in streams:
        index.make_stream_wait_c(stream, gpu)


def _any_on_device(*arrays: Any) -> bool:
    return any(a is not None and is_device_array(a) for a in arrays)


def _output(index, given, name, like, shape, dtype):
    """The caller's output, or a new one where `like` lies."""
    if given is None:
        if is_device_array(like):
            given = empty_like_family(index, like, shape, dtype)
        else:
            given = np.empty(shape, dtype=dtype)
    return _Operand(given, name, shape, dtype, writable=True)


def replacement_add(self, x):
    """Add vectors to the index; they get the ids ntotal, ntotal + 1, ...

    Parameters
    ----------
    x : array_like or GPU array, shape (n, d), float32
        Host arrays are converted like in Faiss; a GPU array (one that offers
        ``__cuda_array_interface__``) is read where it is, after what its
        producer's stream holds.

    Raises
    ------
    ValueError, TypeError
        If a GPU array has another shape, dtype or layout.
    RuntimeError
        With the text of Faiss or CUDA, such as when memory runs out.

    Notes
    -----
    Waits until host memory has been read; for a GPU array only where Faiss
    itself waits to exchange its storage.
    """
    if not _any_on_device(x):
        return _stock(self, "add")(self, x)
    operand = _Operand(x, "x", (None, self.d), "float32")
    _run(
        self,
        [operand],
        lambda: self.add_c(operand.shape[0], operand.pointer),
    )


def replacement_search(self, x, k, *, params=None, D=None, I=None):
    """Find the k nearest stored vectors of each query.

    Parameters
    ----------
    x : array_like or GPU array, shape (n, d), float32
    k : int
        1 to the limit of Faiss' selection (2048; 2047 in Faiss 1.7.3).
    params : faiss.SearchParameters, optional
        One with an IDSelector is refused: Faiss' GPU index would ignore it.
    D, I : array, optional
        Outputs of shape (n, k), float32 and int64, C-contiguous, in host or GPU
        memory, each by itself.

    Returns
    -------
    D, I : array
        Distances and labels; the label is -1 where there are fewer than k
        vectors. The given outputs; or where none were given, NumPy arrays for
        host queries (on pinned memory that returns to a pool when the last view
        dies, see `pinned_pool_stats`), and for GPU queries arrays of the queries' library if it
        can make them, else `faiss_ext.DeviceArray`.

    Raises
    ------
    ValueError, TypeError
        If an array has another shape, dtype or layout.
    RuntimeError
        With the text of Faiss or CUDA.

    Notes
    -----
    Waits once if an output is in host memory. Otherwise returns when the work
    is enqueued: it comes after what the arrays' streams hold (the ``stream`` of
    their interface), and these streams come after it.
    """
    if not _any_on_device(x, D, I):
        if D is None and I is None:
            D, I = empty_results(len(x), _count(k))
        return _stock(self, "search")(self, x, k, params=params, D=D, I=I)
    query = _Operand(x, "x", (None, self.d), "float32")
    shape = (query.shape[0], _count(k))
    distances = _output(self, D, "D", x, shape, "float32")
    labels = _output(self, I, "I", x, shape, "int64")
    _run(
        self,
        [query, distances, labels],
        lambda: self.search_c(
            shape[0],
            query.pointer,
            shape[1],
            distances.pointer,
            labels.pointer,
            params,
        ),
    )
    return distances.array, labels.array


def replacement_assign(self, x, k=1, labels=None):
    """The labels of `search` alone; the distances stay on the GPU.

    Parameters
    ----------
    x : array_like or GPU array, shape (n, d), float32
    k : int
    labels : array, optional
        Output of shape (n, k), int64, in host or GPU memory.

    Returns
    -------
    labels : array, shape (n, k), int64
        As `search` gives them.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As `search`.
    """
    if not _any_on_device(x, labels):
        return _stock(self, "assign")(self, x, k, labels)
    query = _Operand(x, "x", (None, self.d), "float32")
    shape = (query.shape[0], _count(k))
    out = _output(self, labels, "labels", x, shape, "int64")
    _run(
        self,
        [query, out],
        lambda: self.assign_c(shape[0], query.pointer, out.pointer, shape[1]),
    )
    return out.array


def replacement_reconstruct(self, key, x=None):
    """Vector `key`.

    Parameters
    ----------
    key : int
        0 to ntotal - 1.
    x : array, optional
        Output of shape (d,), float32, in host or GPU memory.

    Returns
    -------
    x : array, shape (d,), float32
        Waits once if it is in host memory.

    Raises
    ------
    RuntimeError
        If `key` is out of bounds.
    """
    out = _output(self, x, "x", None, (self.d,), "float32")
    _run(self, [out], lambda: self.reconstruct_c(operator.index(key), out.pointer))
    return out.array


def replacement_reconstruct_n(self, n0=0, ni=-1, x=None):
    """Vectors n0 to n0 + ni - 1.

    Parameters
    ----------
    n0 : int
    ni : int
        -1: all from n0 on.
    x : array, optional
        Output of shape (ni, d), float32, in host or GPU memory.

    Returns
    -------
    x : array, shape (ni, d), float32
        Waits once if it is in host memory.

    Raises
    ------
    RuntimeError
        If a vector is out of bounds.
    """
    if ni == -1:
        ni = self.ntotal - n0
    out = _output(self, x, "x", None, (ni, self.d), "float32")
    _run(self, [out], lambda: self.reconstruct_n_c(n0, ni, out.pointer))
    return out.array


def transfer_stats(self):
    """What this index has moved and waited for, since it was made or since
    `reset_transfer_stats`.

    Returns
    -------
    dict of str to int
        Copies and bytes to the GPU, to the host and between GPUs, host waits,
        and allocations of staging memory. Copies that Faiss makes by itself (in
        `add`) are not in it. Does not wait.
    """
    stats = self.getTransferStats()
    return {
        snake: int(getattr(stats, camel))
        for snake, camel in _STATS.items()
    }


def reset_transfer_stats(self):
    """Set the counts of `transfer_stats` back to zero."""
    self.resetTransferStats()


_STATS = {
    "copies_to_device": "copiesToDevice",
    "bytes_to_device": "bytesToDevice",
    "copies_to_host": "copiesToHost",
    "bytes_to_host": "bytesToHost",
    "copies_across_devices": "copiesAcrossDevices",
    "bytes_across_devices": "bytesAcrossDevices",
    "host_waits": "hostWaits",
    "device_allocations": "deviceAllocations",
    "pinned_allocations": "pinnedAllocations",
}


def _count(k):
    """k as an int that an array can have as an extent; Faiss judges its range."""
    k = operator.index(k)
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    return k


def _stock(index, name):
    """Faiss' method `name` of the class that `index`'s class derives from."""
    for base in type(index).__mro__:
        if base.__module__.partition(".")[0] == "faiss":
            return getattr(base, name)
    raise AssertionError(f"{type(index)} does not derive from a Faiss class")


def add_methods(the_class):
    """Give an index class of the native module the methods of this one."""
    for function in (
        replacement_add,
        replacement_search,
        replacement_assign,
        replacement_reconstruct,
        replacement_reconstruct_n,
    ):
        name = function.__name__.removeprefix("replacement_")
        setattr(the_class, name, function)
    for function in (transfer_stats, reset_transfer_stats):
        setattr(the_class, function.__name__, function)
    assert inspect.isfunction(the_class.search_c), "Faiss' wrappers are missing"
