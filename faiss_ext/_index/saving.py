"""Faiss' functions that write indexes, which write those on the CPU alone.

Faiss opens the file, and so empties it, before it finds that an index on a GPU,
perhaps inside others, cannot be written. Here it writes to nowhere first: that costs
no copy, and knows all of Faiss' kinds of indexes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import faiss

from .._loader.native_part import native
from ..errors import check_kind

# Taken now: `faiss-ext run` may put ours in their place.
_stock_write_index = getattr(faiss, "write_index", None)
_stock_write_index_binary = getattr(faiss, "write_index_binary", None)


def write_index(idx: Any, target: Any, io_flags: int = 0) -> None:
    """Write an index to a file or an IOWriter, as ``faiss.write_index``.

    Parameters
    ----------
    idx : faiss.Index
        On the CPU, and what it holds too: for one on a GPU, and for replicas or
        shards, ``write_index(index_gpu_to_cpu(index), ...)``.
    target : str or faiss.IOWriter
        The name of a file, or what takes the bytes.
    io_flags : int
        Of later versions of Faiss.

    Raises
    ------
    RuntimeError
        If Faiss cannot write such an index. Nothing has been written then, and a
        file of that name is as it was.

    Examples
    --------
    >>> index = faiss.IndexFlatL2(4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> faiss.write_index(index, "four.index")
    >>> faiss.read_index("four.index").ntotal
    4
    """
    check_kind(idx, faiss.Index, "idx", "an index")
    _write(_stock_write_index, idx, target, *([io_flags] if io_flags else []))


def write_index_binary(idx: Any, target: Any) -> None:
    """The same for a binary index, as ``faiss.write_index_binary``.

    Examples
    --------
    >>> faiss.write_index_binary(faiss.IndexBinaryFlat(32), "binary.index")
    >>> faiss.read_index_binary("binary.index").d
    32
    """
    check_kind(idx, faiss.IndexBinary, "idx", "a binary index")
    _write(_stock_write_index_binary, idx, target)


def explains_gpu_index(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which copies or writes the index that is its first argument,
    with an error that tells what to do about one on a GPU."""

    @functools.wraps(function)
    def call(index: Any, *args: Any, **options: Any) -> Any:
        if index is None:
            raise TypeError("index: None; an index is needed")
        try:
            return function(index, *args, **options)
        except RuntimeError as error:
            _explain(index, error)
            raise

    return call


def _write(stock: Any, index: Any, target: Any, *flags: int) -> None:
    if native:
        explains_gpu_index(stock)(index, native.NowhereWriter(), *flags)
    stock(index, target, *flags)


def _explain(index: Any, error: RuntimeError) -> None:
    reason = str(error).rpartition(" failed: ")[2]
    if any(text in reason for text in _UNKNOWN_KINDS):
        raise RuntimeError(
            f"index: {type(index).__name__}, which Faiss neither writes nor "
            "copies, or which holds such an index. If it is on a GPU, or consists "
            "of replicas or shards, give index_gpu_to_cpu(index), its copy on "
            f"the CPU. (Faiss: {reason})"
        ) from error


#: Of Faiss' refusals.
_UNKNOWN_KINDS = ("know how to serialize", "not supported for this")
