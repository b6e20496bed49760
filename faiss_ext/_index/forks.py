"""What a process leaves alone that was forked from one that had used CUDA.

CUDA does not work in such a process, so what was made with it can neither be used
nor destroyed: Faiss aborts the process where CUDA refuses to free, and waits for
ever for the threads of replicas and shards, which are the parent's. Our own
classes see to that by themselves (gpu/threads/ProcessLife.h); this is for Faiss' own.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from typing import Any

from .._native import swigfaiss_ext as native
from .nested import GPU_INDEXES

_METHODS = (
    "add", "add_with_ids", "assign", "range_search", "reconstruct",
    "reconstruct_n", "remove_ids", "reset", "search", "search_and_reconstruct",
    "train",
)

#: Indexes of Faiss' types that hold others on GPUs.
_holders: weakref.WeakSet[Any] = weakref.WeakSet()

#: Whether this is such a process.
_lost = False


def watch(index: Any) -> Any:
    """The index, which children leave alone from now on."""
    _holders.add(index)
    return index


def check(arguments: Iterable[Any]) -> None:
    """Raise, in such a process, where an argument is on a GPU."""
    if _lost:
        for argument in arguments:
            if isinstance(argument, GPU_INDEXES) or any(
                    argument is holder for holder in _holders):
                native.refuse_after_fork_c()


def _refuse(*_arguments: Any, **_named: Any) -> None:
    native.refuse_after_fork_c()


def _in_child() -> None:
    global _lost
    if not native.leave_to_parent_c():
        return
    _lost = True
    for index in list(_holders):
        index.this.disown()
        for name in _METHODS:
            if hasattr(index, name):
                setattr(index, name, _refuse)


os.register_at_fork(after_in_child=_in_child)
