"""Who keeps alive what an index only points at.

A Faiss index that holds others (shards, replicas, an index to train with) does
not own them: it points at them, so their Python objects must outlive it. Faiss'
Python code sees to that in constructors and in some methods; here are the
others. And where Faiss lets Python's object go for ever when it is put into an
attribute that no destructor deletes, it is kept as long as the attribute is. A view
(`downcast_index`, `extract_index_ivf`) keeps what it is a view of. Where nobody knows
the owner (an attribute of an attribute) what is set is held until it is set anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import faiss

from ..errors import refuse_none, said

#: Methods that make an object point at their argument, and what that is; and
#: those that undo it.
_HOLDING = {
    "addIndex": "an index", "add_replica": "an index", "add_shard": "an index",
    "add_sub_index": "an index", "prepend_transform": "a transform",
    "push_back": "an object such as faiss.StandardGpuResources()",
}
_LETTING_GO = {"removeIndex", "remove_replica", "remove_shard"}
#: Constructors that do, and that Faiss' Python code has forgotten.
_HOLDING_CONSTRUCTORS = {
    "IndexBinaryHNSW", "IndexHNSW2Level", "IndexNNDescent", "IndexNSG",
    "IndexShardsIVF", "MultiIndexQuantizer2",
}
#: Attributes that point at an object and never own it.
_ATTRIBUTES = ("assign_index", "assign_index_factory", "clustering_index")

_INDEXES = (faiss.Index, faiss.IndexBinary)

#: What objects hold whose owner is not known: in Faiss they are held for ever.
_of_unknown_owners: dict[Any, Any] = {}


def add_keep_alive(the_class: type, stock: type) -> None:
    """Let a class of ours keep alive what Faiss' class, `stock`, points at."""
    for name, method in vars(stock).items():
        if name in _HOLDING:
            setattr(the_class, name, _holding(method, name))
        elif name in _LETTING_GO:
            setattr(the_class, name, _letting_go(method))
    if issubclass(stock, _INDEXES) and "__init__" in vars(stock):
        the_class.__init__ = _constructor(  # type: ignore[misc]
            vars(stock)["__init__"], stock.__name__
        )
    for name in _ATTRIBUTES:
        if isinstance(getattr(stock, name, None), property):
            setattr(the_class, name, _attribute(name, getattr(stock, name)))


def keep_owner(made: Any, index: Any) -> Any:
    """`made`, a view of `index` or of a part of it, which keeps it alive."""
    if made is not None and made is not index:
        object.__setattr__(made, "_borrowed_from", index)
    return made


def _owner_of(holder: Any) -> Any:
    """The object that lives as long as what `holder` stands for; None if it is
    not known."""
    while not holder.thisown:
        holder = vars(holder).get("_borrowed_from")
        if holder is None:
            return None
    return holder


def _held_by(holder: Any) -> dict[Any, Any]:
    owner = _owner_of(holder)
    if owner is None:
        return _of_unknown_owners
    held: dict[Any, Any] = vars(owner).setdefault("_held", {})
    return held


def _address(of: Any) -> int:
    return int(of.this)


def _hold(holder: Any, held: Any) -> None:
    _held_by(holder)[_address(holder), _address(held)] = held


def _holding(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, held: Any, *args: Any) -> Any:
        if not hasattr(held, "this"):
            # Faiss takes None for a pointer.
            raise TypeError(
                f"{type(self).__name__}.{name}: {said(held)}; {_HOLDING[name]} "
                "is needed"
            )
        result = method(self, held, *args)
        _hold(self, held)
        return result

    return call


def _letting_go(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, gone: Any) -> Any:
        result = method(self, gone)
        address = _address(gone)
        _held_by(self).pop((_address(self), address), None)
        # Of Faiss' own methods.
        if hasattr(self, "referenced_objects"):
            self.referenced_objects = [
                held for held in self.referenced_objects
                if _address(held) != address
            ]
        return result

    return call


def _constructor(
    construct: Callable[..., Any], name: str
) -> Callable[..., Any]:
    holds = name in _HOLDING_CONSTRUCTORS

    @functools.wraps(construct)
    def call(self: Any, *args: Any) -> None:
        refuse_none(name, args)
        construct(self, *args)
        for held in args:
            if holds and isinstance(held, _INDEXES):
                _hold(self, held)

    return call


def _attribute(name: str, stock: property) -> property:
    def put(self: Any, value: Any) -> None:
        owned = value is not None and value.thisown
        stock.fset(self, value)  # type: ignore[misc]
        if owned:
            # Faiss' module takes it for C++'s now, where nothing deletes it.
            value.this.acquire()
        key = _address(self), name
        if value is None:
            _held_by(self).pop(key, None)
        else:
            _held_by(self)[key] = value

    return property(stock.fget, put, doc=stock.__doc__)
