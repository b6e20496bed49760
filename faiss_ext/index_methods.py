"""The array methods of our index classes.

Each keeps the name, keywords and defaults of Faiss' own. Where all arrays are
NumPy's, Faiss' own method does the work (and reaches our C++ search through its
virtual functions). Other arrays are taken by what they offer (`arrays.py`): GPU
memory is used where it is.

The functions are named ``replacement_<method>`` because ``contrib.torch_utils``
looks for these names.
"""

from __future__ import annotations

import inspect
import operator

import faiss
import numpy as np

from .arrays import is_numpy, is_on_gpu
from .calls import Call
from .errors import InvalidArray
from .pinned import empty_results


def _call(index):
    """A call that works on the default stream of `index`."""
    return Call(
        index.default_stream_c(), index.getDevice(), index.make_device_buffer_c
    )


def _numpy_vectors(x, name="x"):
    """Whether `x` is a NumPy array, for Faiss' own method; a single vector is
    refused with the mend."""
    if not isinstance(x, np.ndarray):
        return False
    if x.ndim == 1:
        raise InvalidArray(
            f"{name}: one vector of shape {x.shape}; "
            f"give [1, {x.shape[0]}] (such as {name}[None, :])"
        )
    return True


def replacement_add(self, x):
    """Add vectors to the index; they get the ids ntotal, ntotal + 1, ...

    Parameters
    ----------
    x : array_like or GPU array, shape (n, d), float32
        Host arrays are converted like in Faiss; a GPU array (one that offers
        ``__cuda_array_interface__`` or ``__dlpack__``) is read where it is,
        after what its producer's stream holds.

    Raises
    ------
    InvalidArray
        If a GPU array has another shape, dtype or layout.
    RuntimeError
        With the text of Faiss or CUDA, such as when memory runs out.

    Notes
    -----
    Waits until host memory has been read; for a GPU array only where Faiss
    itself waits to exchange its storage.
    """
    if _numpy_vectors(x):
        return _stock(self, "add")(self, x)
    call = _call(self)
    vectors = call.input(x, "x", (None, self.d), "float32")
    call.run(lambda: self.add_c(vectors.shape[0], vectors.pointer))


def replacement_add_with_ids(self, x, ids):
    """Add vectors with ids of the caller's. Faiss' flat indexes refuse it.

    Parameters
    ----------
    x : array_like or GPU array, shape (n, d), float32
    ids : array_like or GPU array, shape (n,), int64

    Raises
    ------
    RuntimeError
        With Faiss' text.
    InvalidArray
        As `add`.
    """
    if _numpy_vectors(x) and is_numpy(ids):
        return _stock(self, "add_with_ids")(self, x, ids)
    call = _call(self)
    vectors = call.input(x, "x", (None, self.d), "float32")
    labels = call.input(ids, "ids", (vectors.shape[0],), "int64")
    call.run(
        lambda: self.add_with_ids_c(
            vectors.shape[0], vectors.pointer, labels.pointer
        )
    )


def replacement_train(self, x):
    """Nothing: a flat index needs no training. The array is checked.

    Parameters
    ----------
    x : array_like or GPU array, shape (n, d), float32

    Raises
    ------
    InvalidArray
        As `add`.
    """
    if _numpy_vectors(x):
        return _stock(self, "train")(self, x)
    call = _call(self)
    vectors = call.input(x, "x", (None, self.d), "float32")
    call.run(lambda: self.train_c(vectors.shape[0], vectors.pointer))


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
    InvalidArray
        If an array has another shape, dtype or layout.
    RuntimeError
        With the text of Faiss or CUDA.

    Notes
    -----
    Waits once if an output is in host memory. Otherwise returns when the work
    is enqueued: it comes after what the arrays' streams hold, and these streams
    come after it. The arrays are kept until the work is done.
    """
    if _numpy_vectors(x) and D is None and I is None:
        return _search_packed(self, x, _count(k), params)
    if _numpy_vectors(x) and is_numpy(D, I):
        return _stock(self, "search")(self, x, k, params=params, D=D, I=I)
    call = _call(self)
    query = call.input(x, "x", (None, self.d), "float32")
    shape = (query.shape[0], _count(k))
    distances = call.output(D, "D", query, shape, "float32")
    labels = call.output(I, "I", query, shape, "int64")
    call.run(
        lambda: self.search_c(
            shape[0],
            query.pointer,
            shape[1],
            distances.pointer,
            labels.pointer,
            params,
        )
    )
    return distances.array, labels.array


def _search_packed(index, x, k, params):
    """`search` of NumPy queries into a new block, which one copy can fill."""
    n, d = x.shape
    # As Faiss' own method, which does the work where there are outputs.
    assert d == index.d, f"x: shape {x.shape}; needed (n, {index.d})"
    x = np.ascontiguousarray(x, dtype="float32")
    D, I, address = empty_results(n, k)
    index.search_packed_c(n, faiss.swig_ptr(x), k, address, params)
    return D, I


def replacement_search_and_reconstruct(
    self, x, k, *, params=None, D=None, I=None, R=None
):
    """`search`, and the vectors that were found.

    Parameters
    ----------
    x, k, params, D, I
        As `search`.
    R : array, optional
        Output of shape (n, k, d), float32, C-contiguous, in host or GPU memory.

    Returns
    -------
    D, I, R : array
        As `search`; R holds zeros where the label is -1.

    Raises
    ------
    InvalidArray, RuntimeError
        As `search`.
    """
    if _numpy_vectors(x) and is_numpy(D, I, R):
        return _stock(self, "search_and_reconstruct")(
            self, x, k, params=params, D=D, I=I, R=R
        )
    call = _call(self)
    query = call.input(x, "x", (None, self.d), "float32")
    shape = (query.shape[0], _count(k))
    distances = call.output(D, "D", query, shape, "float32")
    labels = call.output(I, "I", query, shape, "int64")
    found = call.output(R, "R", query, (*shape, self.d), "float32")
    call.run(
        lambda: self.search_and_reconstruct_c(
            shape[0],
            query.pointer,
            shape[1],
            distances.pointer,
            labels.pointer,
            found.pointer,
            params,
        )
    )
    return distances.array, labels.array, found.array


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
    InvalidArray, RuntimeError
        As `search`.
    """
    if _numpy_vectors(x) and is_numpy(labels):
        return _stock(self, "assign")(self, x, k, labels)
    call = _call(self)
    query = call.input(x, "x", (None, self.d), "float32")
    shape = (query.shape[0], _count(k))
    out = call.output(labels, "labels", query, shape, "int64")
    call.run(
        lambda: self.assign_c(shape[0], query.pointer, out.pointer, shape[1])
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
    call = _call(self)
    out = call.output(x, "x", None, (self.d,), "float32")
    call.run(lambda: self.reconstruct_c(operator.index(key), out.pointer))
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
    call = _call(self)
    out = call.output(x, "x", None, (ni, self.d), "float32")
    call.run(lambda: self.reconstruct_n_c(n0, ni, out.pointer))
    return out.array


def replacement_reconstruct_batch(self, key, x=None):
    """The vectors of several ids.

    Parameters
    ----------
    key : array_like or GPU array, shape (n,), int64
        0 to ntotal - 1, or -1 for zeros. Those in GPU memory are not checked.
    x : array, optional
        Output of shape (n, d), float32, in host or GPU memory.

    Returns
    -------
    x : array, shape (n, d), float32
        The given output; else a NumPy array for host keys, and an array of
        their library for GPU keys. Waits once if it is in host memory.

    Raises
    ------
    InvalidArray
        If an array has another shape, dtype or layout.
    RuntimeError
        If a key in host memory is out of bounds.
    """
    call = _call(self)
    keys = call.input(key, "key", (None,), "int64")
    out = call.output(x, "x", keys, (keys.shape[0], self.d), "float32")
    call.run(
        lambda: self.reconstruct_batch_c(
            keys.shape[0], keys.pointer, out.pointer
        )
    )
    return out.array


def compute_residual(self, x, residual=None, key=None):
    """x minus vector `key`.

    Parameters
    ----------
    x : array_like or GPU array, shape (d,), float32
    residual : array, optional
        Output of shape (d,), float32, in host or GPU memory.
    key : int

    Returns
    -------
    residual : array, shape (d,), float32
        The given output, or a new array in the family of `x`.

    Raises
    ------
    InvalidArray, RuntimeError
        As `reconstruct_batch`.

    Notes
    -----
    Takes the pointers that Faiss' method takes, too.
    """
    if _is_pointer(x):
        return _stock(self, "compute_residual")(self, x, residual, key)
    call = _call(self)
    vector = call.input(x, "x", (self.d,), "float32")
    out = call.output(residual, "residual", vector, (self.d,), "float32")
    call.run(
        lambda: _stock(self, "compute_residual")(
            self, vector.pointer, out.pointer, int(key)
        )
    )
    return out.array


def compute_residual_n(self, n, xs, residuals=None, keys=None):
    """xs minus the vectors `keys`.

    Parameters
    ----------
    n : int
        Rows of `xs`.
    xs : array_like or GPU array, shape (n, d), float32
    residuals : array, optional
        Output of shape (n, d), float32, in host or GPU memory.
    keys : array_like or GPU array, shape (n,), int64
        As `reconstruct_batch`; -1 gives NaN.

    Returns
    -------
    residuals : array, shape (n, d), float32
        The given output, or a new array in the family of `xs`.

    Raises
    ------
    InvalidArray, RuntimeError
        As `reconstruct_batch`.

    Notes
    -----
    Takes the pointers that Faiss' method takes, too.
    """
    if _is_pointer(xs):
        return _stock(self, "compute_residual_n")(self, n, xs, residuals, keys)
    call = _call(self)
    vectors = call.input(xs, "xs", (int(n), self.d), "float32")
    labels = call.input(keys, "keys", (int(n),), "int64")
    out = call.output(
        residuals, "residuals", vectors, (int(n), self.d), "float32"
    )
    call.run(
        lambda: _stock(self, "compute_residual_n")(
            self, n, vectors.pointer, out.pointer, labels.pointer
        )
    )
    return out.array


def replacement_remove_ids(self, x):
    """Raises what Faiss raises: its GPU flat indexes remove nothing.

    Parameters
    ----------
    x : array_like or faiss.IDSelector
    """
    if is_on_gpu(x):
        raise InvalidArray(
            "x: ids in GPU memory; Faiss takes an IDSelector or ids in host "
            "memory, and flat indexes on a GPU remove none (keep them in an "
            "IndexIDMap, or make the index anew)"
        )
    if not isinstance(x, faiss.IDSelector):
        x = np.asarray(x)
    return _stock(self, "remove_ids")(self, x)


def _is_pointer(x):
    """Whether `x` is a pointer as Faiss' module gives it."""
    return type(x).__name__ == "SwigPyObject" or hasattr(x, "this")


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
        replacement_add_with_ids,
        replacement_train,
        replacement_search,
        replacement_search_and_reconstruct,
        replacement_assign,
        replacement_reconstruct,
        replacement_reconstruct_n,
        replacement_reconstruct_batch,
        replacement_remove_ids,
    ):
        name = function.__name__.removeprefix("replacement_")
        setattr(the_class, name, function)
    for function in (
        compute_residual,
        compute_residual_n,
        transfer_stats,
        reset_transfer_stats,
    ):
        setattr(the_class, function.__name__, function)
    assert inspect.isfunction(the_class.search_c), "Faiss' wrappers are missing"
