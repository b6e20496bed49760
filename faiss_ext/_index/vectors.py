"""Stored vectors of our flat indexes, in arrays of any kind.

The same rules hold as in `search.py`. Faiss' other GPU indexes do these
things, where they do them at all, with host memory alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InvalidArray, whole_number
from .host import is_pointer
from .search import (
    call_on,
    count,
    labels_fit_int32,
    stock_method,
)


def replacement_search_and_reconstruct(
    self: Any,
    x: Any,
    k: Any,
    D: Any = None,
    I: Any = None,
    R: Any = None,
    *,
    params: Any = None,
    cast: bool = False,
) -> tuple[Any, Any, Any]:
    """`search`, and the vectors that were found.

    Parameters
    ----------
    x, k, params, D, I, cast
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

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> D, I, R = index.search_and_reconstruct(np.eye(4, dtype="float32")[:1], k=1)
    >>> R[0, 0]
    array([1., 0., 0., 0.], dtype=float32)
    """
    k = count(k)
    call = call_on(self)
    query = call.input(x, "x", (None, self.d), "float32", cast=cast)
    shape = (query.shape[0], k)
    distances = call.output(D, "D", query, shape, "float32", narrow=True)
    labels = call.output(
        I, "I", query, shape, "int64", narrow=labels_fit_int32(self)
    )
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


def replacement_reconstruct(self: Any, key: Any, x: Any = None) -> Any:
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

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.reconstruct(2)
    array([0., 0., 1., 0.], dtype=float32)
    """
    key = whole_number("key", key)
    call = call_on(self)
    out = call.output(x, "x", None, (self.d,), "float32")
    call.run(lambda: self.reconstruct_c(key, out.pointer))
    return out.array


def replacement_reconstruct_n(
    self: Any, n0: Any = 0, ni: Any = -1, x: Any = None
) -> Any:
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
    InvalidArray
        If `n0` lies behind the last vector, or `ni` is negative.
    RuntimeError
        If a vector is out of bounds.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.reconstruct_n(1, 2)
    array([[0., 1., 0., 0.],
           [0., 0., 1., 0.]], dtype=float32)
    """
    n0, ni = whole_number("n0", n0), whole_number("ni", ni)
    if ni == -1:
        ni = self.ntotal - n0
    if ni < 0:
        raise InvalidArray(
            f"n0: {n0}, ni: {ni}; of {self.ntotal} vectors none or more are needed"
        )
    call = call_on(self)
    out = call.output(x, "x", None, (ni, self.d), "float32")
    call.run(lambda: self.reconstruct_n_c(n0, ni, out.pointer))
    return out.array


def replacement_reconstruct_batch(self: Any, key: Any, x: Any = None) -> Any:
    """The vectors of several ids.

    Parameters
    ----------
    key : array_like or GPU array, shape (n,), int64 or int32
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

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.reconstruct_batch([3, 0])
    array([[0., 0., 0., 1.],
           [1., 0., 0., 0.]], dtype=float32)
    """
    call = call_on(self)
    keys = call.input(key, "key", (None,), "int64")
    out = call.output(x, "x", keys, (keys.shape[0], self.d), "float32")
    call.run(
        lambda: self.reconstruct_batch_c(
            keys.shape[0], keys.pointer, out.pointer
        )
    )
    return out.array


def compute_residual(
    self: Any,
    x: Any,
    residual: Any = None,
    key: Any = None,
    *,
    cast: bool = False,
) -> Any:
    """x minus vector `key`.

    Parameters
    ----------
    x : array_like or GPU array, shape (d,), float32
        Converted as by `add`.
    residual : array, optional
        Output of shape (d,), float32, in host or GPU memory.
    key : int
    cast : bool
        As in `add`.

    Returns
    -------
    residual : array, shape (d,), float32
        The given output, or a new array of the library of `x`.

    Raises
    ------
    InvalidArray, RuntimeError
        As `reconstruct_batch`.

    Notes
    -----
    Takes the pointers that Faiss' method takes, too.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.compute_residual(np.ones(4, "float32"), key=0)
    array([0., 1., 1., 1.], dtype=float32)
    """
    stock = stock_method(self, "compute_residual")
    if is_pointer(x):
        return stock(self, x, residual, key)
    key = whole_number("key", key)
    call = call_on(self)
    vector = call.input(x, "x", (self.d,), "float32", cast=cast)
    out = call.output(residual, "residual", vector, (self.d,), "float32")
    call.run(lambda: stock(self, vector.pointer, out.pointer, key))
    return out.array


def compute_residual_n(
    self: Any,
    n: Any,
    xs: Any,
    residuals: Any = None,
    keys: Any = None,
    *,
    cast: bool = False,
) -> Any:
    """xs minus the vectors `keys`.

    Parameters
    ----------
    n : int
        Rows of `xs`.
    xs : array_like or GPU array, shape (n, d), float32
        Converted as by `add`.
    residuals : array, optional
        Output of shape (n, d), float32, in host or GPU memory.
    keys : array_like or GPU array, shape (n,), int64 or int32
        As `reconstruct_batch`; -1 gives NaN.
    cast : bool
        As in `add`.

    Returns
    -------
    residuals : array, shape (n, d), float32
        The given output, or a new array of the library of `xs`.

    Raises
    ------
    InvalidArray, RuntimeError
        As `reconstruct_batch`.

    Notes
    -----
    Takes the pointers that Faiss' method takes, too.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.compute_residual_n(1, np.ones((1, 4), "float32"), keys=[1])
    array([[1., 0., 1., 1.]], dtype=float32)
    """
    stock = stock_method(self, "compute_residual_n")
    if is_pointer(xs):
        return stock(self, n, xs, residuals, keys)
    n = whole_number("n", n, 0)
    call = call_on(self)
    vectors = call.input(xs, "xs", (n, self.d), "float32", cast=cast)
    labels = call.input(keys, "keys", (n,), "int64")
    out = call.output(
        residuals, "residuals", vectors, (n, self.d), "float32"
    )
    call.run(
        lambda: stock(self, n, vectors.pointer, out.pointer, labels.pointer)
    )
    return out.array


METHODS: dict[str, Callable[..., Any]] = {
    "search_and_reconstruct": replacement_search_and_reconstruct,
    "reconstruct": replacement_reconstruct,
    "reconstruct_n": replacement_reconstruct_n,
    "reconstruct_batch": replacement_reconstruct_batch,
    "compute_residual": compute_residual,
    "compute_residual_n": compute_residual_n,
}
