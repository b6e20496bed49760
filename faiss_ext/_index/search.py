"""Search and growth of GPU indexes with arrays of any kind.

Each method keeps the name, keywords and defaults of Faiss' own, and takes every
array in one way, NumPy's too (`_call/call.py`), by the protocol that it supports
(`_interop/take.py`); GPU memory is used where it is. A search of arrays that need
nothing done to them is one call into C++ (PlainSearch.h), which leaves all others
to the code here.

The functions are named ``replacement_<method>`` because ``contrib.torch_utils``
looks for these names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import faiss

from .._call.call import Call, faiss_alone
from .._interop.dlpack import current_stream, is_on_gpu
from .._interop.make import results_like
from .._native import swigfaiss_ext as native
from ..errors import InvalidArray, whole_number
from ..memory.pinned import empty_results
from .staged import FLAT, is_ours

# Past SWIG's wrapper of it, which is Python code.
search_plain_c = native._swigfaiss_ext.search_plain_c

#: More neighbours than any selection gives. For these no results are allocated,
#: only to be told so by Faiss.
_TOO_MANY = 1 << 20

#: The numeric type that Faiss takes by default, where it knows others.
_FLOAT32 = getattr(faiss, "Float32", 0)


def call_on(index: Any, borrowed: dict[str, Any] | None = None) -> Call:
    """A call that works on the default stream of a GPU index; `borrowed` is that
    of `Call`."""
    device = index.getDevice()
    resources = index.getResources()
    return Call(
        index, resources, device, native.resources_stream_c(resources, device),
        stock=not is_ours(index), borrowed=borrowed,
    )


def replacement_add(
    self: Any,
    x: Any,
    numeric_type: Any = None,
    *,
    cast: bool = False,
    **later: Any,
) -> None:
    """Add vectors to the index; they get the ids ntotal, ntotal + 1, ...

    Parameters
    ----------
    x : array_like or GPU array, shape (n, d), float32
        Host arrays of other numbers are converted; a GPU array (one that has
        ``__cuda_array_interface__`` or ``__dlpack__``) is read where it is,
        after what its producer's stream holds. float16, bfloat16, int8, uint8
        and strided ones are converted on the GPU.
    numeric_type : int, optional
        Of later versions of Faiss, for NumPy arrays: if it is another one than
        ``Float32``, Faiss' own method does it.
    cast : bool
        Whether GPU arrays of float64 and other integers are converted there
        too, to the nearest float32.
    **later
        What later versions of Faiss take beside these, likewise.

    Raises
    ------
    InvalidArray
        If an array has another shape, dtype or layout.
    RuntimeError
        With the text of Faiss or CUDA, such as when memory runs out.

    Notes
    -----
    Waits until host memory has been read; for a GPU array only where Faiss
    itself waits to exchange its storage.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.ntotal
    4
    """
    later = _beside(later, numeric_type=numeric_type)
    if later:
        _by_faiss(self, "add", (x,), later)
        return
    call = call_on(self)
    vectors = call.input(x, "x", (None, self.d), "float32", cast=cast)
    call.run(lambda: self.add_c(vectors.shape[0], vectors.pointer))


def replacement_add_with_ids(
    self: Any,
    x: Any,
    ids: Any,
    numeric_type: Any = None,
    *,
    cast: bool = False,
    **later: Any,
) -> None:
    """Add vectors with ids of the caller's. Faiss' flat indexes refuse it.

    Parameters
    ----------
    x, numeric_type, cast, **later
        As `add`.
    ids : array_like or GPU array, shape (n,), int64 or int32

    Raises
    ------
    InvalidArray
        As `add`.
    RuntimeError
        With Faiss' text.

    Examples
    --------
    A flat one numbers its vectors; around it ``IndexIDMap`` keeps ids:

    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index = faiss.IndexIDMap(index)
    >>> index.add_with_ids(np.eye(4, dtype="float32"), [10, 11, 12, 13])
    >>> index.search(np.eye(4, dtype="float32")[:2], 1)[1].ravel()
    array([10, 11])
    """
    later = _beside(later, numeric_type=numeric_type)
    if later:
        _by_faiss(self, "add_with_ids", (x, ids), later)
        return
    call = call_on(self)
    vectors = call.input(x, "x", (None, self.d), "float32", cast=cast)
    labels = call.input(ids, "ids", (vectors.shape[0],), "int64")
    call.run(
        lambda: self.add_with_ids_c(
            vectors.shape[0], vectors.pointer, labels.pointer
        )
    )


def replacement_train(
    self: Any,
    x: Any,
    numeric_type: Any = None,
    *,
    cast: bool = False,
    **later: Any,
) -> None:
    """Train the index. A flat one needs none; the array is checked.

    Parameters
    ----------
    x, numeric_type, cast, **later
        As `add`.

    Raises
    ------
    InvalidArray, RuntimeError
        As `add`.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.train(np.eye(4, dtype="float32"))
    >>> index.is_trained
    True
    """
    later = _beside(later, numeric_type=numeric_type)
    if later:
        _by_faiss(self, "train", (x,), later)
        return
    call = call_on(self)
    vectors = call.input(x, "x", (None, self.d), "float32", cast=cast)
    call.run(lambda: self.train_c(vectors.shape[0], vectors.pointer))


def replacement_search(
    self: Any,
    x: Any,
    k: Any,
    D: Any = None,
    I: Any = None,
    numeric_type: Any = None,
    *,
    params: Any = None,
    cast: bool = False,
    **later: Any,
) -> tuple[Any, Any]:
    """Find the k nearest stored vectors of each query.

    Parameters
    ----------
    x, numeric_type, cast, **later
        As `add`.
    k : int
        1 to the limit of Faiss' selection (2048; 2047 in Faiss 1.7.3).
    params : faiss.SearchParameters, optional
        Flat indexes refuse one with an IDSelector: Faiss' would ignore it.
    D : array, optional
        Output of shape (n, k), float32 or float16, C-contiguous, in host or GPU
        memory. float16 is infinite for distances beyond 65504.
    I : array, optional
        Output of shape (n, k), int64 or int32, C-contiguous, in host or GPU
        memory.

    Returns
    -------
    D, I : array
        Distances and labels; the label is -1 where there are fewer than k
        vectors. The given outputs; or where none were given, NumPy arrays for
        host queries (of a flat index on pinned memory that returns to a pool
        when the last view dies, see `pinned_pool_stats`), and for GPU queries
        arrays of the queries' library, on their GPU, if it can make them there,
        else `faiss_ext.DeviceArray`, on that of the index. float32 and int64.

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

    Arrays may lie on another GPU than the index, and any GPU may be the current
    one, which stays so. The streams are the current ones, in the arrays'
    library, of the arrays' GPUs; where that library tells the stream of the
    current GPU (CuPy), that one too.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> D, I = index.search(np.eye(4, dtype="float32")[2:], k=1)
    >>> I.ravel()
    array([2, 3])

    Into arrays of the caller's:

    >>> D, I = np.empty((2, 1), "float32"), np.empty((2, 1), "int64")
    >>> _ = index.search(np.eye(4, dtype="float32")[:2], 1, D, I)
    >>> I.ravel()
    array([0, 1])
    """
    borrowed = None
    if later or numeric_type is not None:
        later = _beside(later, numeric_type=numeric_type)
    if params is None and not later:
        # The results, or what was borrowed before something was not plain.
        found = search_plain_c(
            self, x, k, D, I, results_like, current_stream
        )
        if type(found) is tuple:
            return found  # type: ignore[no-any-return]
        borrowed = found
    k = count(k)
    if later:
        by_faiss: tuple[Any, Any] = _by_faiss(
            self, "search", (x, k), {"D": D, "I": I, **given(params), **later}
        )
        return by_faiss
    call = call_on(self, borrowed)
    query = call.input(x, "x", (None, self.d), "float32", cast=cast)
    shape = (query.shape[0], k)
    packed = None
    if D is None and I is None and not query.view.on_gpu and is_ours(self):
        D, I, packed = empty_results(*shape)
    distances = call.output(D, "D", query, shape, "float32", narrow=True)
    labels = call.output(
        I, "I", query, shape, "int64", narrow=labels_fit_int32(self)
    )
    if packed is not None:
        # New results of ours lie in one block, which one copy can fill.
        call.run(lambda: self.search_packed_c(
            shape[0], query.pointer, k, packed, params
        ))
        return D, I
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


def replacement_assign(
    self: Any, x: Any, k: Any = 1, labels: Any = None, *, cast: bool = False
) -> Any:
    """The labels of `search` alone; the distances stay on the GPU.

    Parameters
    ----------
    x, cast
        As `add`.
    k : int
    labels : array, optional
        Output as the I of `search`.

    Returns
    -------
    labels : array, shape (n, k), int64
        As `search` gives them.

    Raises
    ------
    InvalidArray, RuntimeError
        As `search`.

    Examples
    --------
    >>> index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.assign(np.eye(4, dtype="float32")[:2]).ravel()
    array([0, 1])
    """
    k = count(k)
    call = call_on(self)
    query = call.input(x, "x", (None, self.d), "float32", cast=cast)
    shape = (query.shape[0], k)
    out = call.output(
        labels, "labels", query, shape, "int64", narrow=labels_fit_int32(self)
    )
    call.run(
        lambda: self.assign_c(shape[0], query.pointer, out.pointer, shape[1])
    )
    return out.array


#: What every GPU index of Faiss takes GPU memory in.
METHODS: dict[str, Callable[..., Any]] = {
    "add": replacement_add,
    "add_with_ids": replacement_add_with_ids,
    "train": replacement_train,
    "search": replacement_search,
    "assign": replacement_assign,
}


def count(k: Any) -> int:
    """k as an int that an array can have as an extent; Faiss judges its range."""
    return whole_number("k", k, 1, _TOO_MANY - 1)


def labels_fit_int32(index: Any) -> bool:
    """Whether all labels of an index do: those of flat ones are positions, and
    others hold ids of the caller's."""
    return isinstance(index, FLAT) and index.ntotal < 2**31


def _beside(given: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Of what later versions of Faiss take, what asks for something else than
    without it."""
    return {
        name: value for name, value in (given | more).items()
        if value is not None
        and not (name == "numeric_type" and value == _FLOAT32)
    }


def _by_faiss(
    index: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """What Faiss' own method does with NumPy arrays."""
    arrays = (*args, *options.values())
    if options and any(map(is_on_gpu, arrays)):
        names = ", ".join(sorted(options.keys() - {"D", "I", "params"}))
        raise InvalidArray(
            f"{names}: not supported with arrays on a GPU; NumPy arrays are needed"
        )
    alone = contextlib.nullcontext() if is_ours(index) else faiss_alone(index)
    with alone:
        return stock_method(index, name)(index, *args, **options)


def stock_method(index: Any, name: str) -> Any:
    """Faiss' own method. It was taken when our class was made: what others put
    into Faiss' classes later may call ours."""
    return type(index)._faiss_methods[name]


def given(params: Any) -> dict[str, Any]:
    """As keywords; `contrib.torch_utils` of Faiss 1.7.3 knows none."""
    return {} if params is None else {"params": params}
