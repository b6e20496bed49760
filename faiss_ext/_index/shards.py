"""`IndexShards` whose C++ is ours (gpu/index/IndexShards.h), under Faiss' own type."""

from __future__ import annotations

from typing import Any

import faiss

from .._native import swigfaiss_ext as native

# Taken now: `faiss-ext run` may put ours in its place.
_stock_downcast_index = faiss.downcast_index


def init(self: Any, *args: Any) -> None:
    """As Faiss' constructors: ``(d=0, threaded=False, successive_ids=True)``, or
    without `d`, which is then that of the first shard."""
    if not args or isinstance(args[0], bool):
        args = (0, *args)
    args += (False, True)[len(args) - 1 :]
    made = _stock_downcast_index(native.make_shards_c(*args))
    self.this = native.owning_proxy(made).this
