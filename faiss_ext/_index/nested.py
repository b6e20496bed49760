"""The indexes that an index holds, and hands vectors and queries on to.

What is known of an index that holds others (how many vectors there are, whether
a GPU is in use) is known of those; its own numbers may lag behind theirs. They tell
whether there is anything to search, whether pinned arrays need a detour, and which
stores of float16 to look at; CPU indexes in others so need no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss

# Taken now: `faiss-ext run` may put ours in their place.
_stock_downcast_index = faiss.downcast_index
_stock_downcast_binary = faiss.downcast_IndexBinary

#: Attributes that are such indexes.
_ATTRIBUTES = ("index", "base_index", "refine_index")
#: Faiss' classes of indexes on a GPU, if it has any.
GPU_INDEXES = tuple(
    getattr(faiss, name) for name in ("GpuIndex", "GpuIndexBinaryFlat")
    if hasattr(faiss, name)
)
_INDEXES = (faiss.Index, faiss.IndexBinary)


def holds_others(the_class: type) -> bool:
    """Whether the indexes of a class hold others."""
    return issubclass(the_class, _INDEXES) and any(
        hasattr(the_class, name) for name in (*_ATTRIBUTES, "at")
    )


def leaves(index: Any) -> Iterator[Any]:
    """The indexes within an index, at any depth, that hold no others, under
    Faiss' types; the index itself if it holds none."""
    found = False
    if holds_others(type(index)):
        for part in _parts(index):
            found = True
            yield from leaves(
                _stock_downcast_binary(part)
                if isinstance(part, faiss.IndexBinary)
                else _stock_downcast_index(part)
            )
    if not found:
        yield index


def _parts(index: Any) -> Iterator[Any]:
    if hasattr(index, "at"):
        yield from map(index.at, range(index.count()))
    for name in _ATTRIBUTES:
        part = getattr(index, name, None)
        if isinstance(part, _INDEXES):
            yield part
