"""Faiss' classes with methods that take arrays of any library.

Every class of Faiss with array methods has one of ours derived from it, of the
same name, and Faiss' own stay as they are. What Faiss' functions return becomes
one of ours too (`returns_ours`), and so does the index of a ``Kmeans``; an index
that another one holds (``index.quantizer``) is Faiss' own until `downcast_index`.
Which methods take arrays, decisions.py says.
"""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable
from typing import Any

import faiss

from .._loader.native_part import native
from . import cosine, decisions, host
from .host import takes_any_host_array
from .keep_alive import add_keep_alive, keep_owner
from .nested import GPU_INDEXES, holds_others
from .saving import explains_gpu_index
from .staged import FLAT

if native:
    from . import faiss_calls, forks, search, shards, vectors
    from .float16 import warns_of_overflow
    from .gpu_arguments import (
        check_constructor,
        check_device_methods,
        check_kmeans,
        checked_brute_force,
    )

#: Faiss' GPU indexes, if it has any. Without the native part they stay its own.
_GPU_INDEX = getattr(faiss, "GpuIndex", ())
#: All that has to do with GPUs alone.
_ON_GPU = (
    *GPU_INDEXES,
    *(getattr(faiss, n, ()) for n in sorted(decisions.CLASSES_WITHOUT_ARRAYS)),
)
#: Attributes that Faiss' Python code sets to indexes, by class.
_HELD = {"Kmeans": ("index",)}


class _StandsFor(abc.ABCMeta):
    """The class of our classes: an object of Faiss' class counts as one of
    ours, as where no class of ours is. (Of `ABCMeta`, so that a user's class may
    derive from one of ours and from an abstract one.)"""

    def __instancecheck__(cls, instance: Any) -> bool:
        stock = vars(cls).get("_faiss_class")
        return isinstance(instance, stock) if stock else (
            super().__instancecheck__(instance)
        )

    def __subclasscheck__(cls, subclass: type) -> bool:
        stock = vars(cls).get("_faiss_class")
        return issubclass(subclass, stock) if stock else (
            super().__subclasscheck__(subclass)
        )


_ours: dict[type, type] = {}


def class_of(stock: type) -> type:
    """Our class for one of Faiss'; Faiss' own if it has no array methods."""
    if stock not in _ours:
        _ours[stock] = _derive(stock)
    return _ours[stock]


def ours(made: Any) -> Any:
    """An object that Faiss made, from now on of our class."""
    wanted = _ours.get(type(made))
    if wanted is not None:
        object.__setattr__(made, "__class__", wanted)
    return made


def returns_ours(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose results become objects of our classes."""

    decided = decisions.INDEX_FUNCTIONS[function.__name__]

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if decided.refuses_none and args and args[0] is None:
            raise TypeError("index: None; an index is needed")
        if native:
            forks.check(args)
        made = ours(function(*args, **options))
        return keep_owner(made, args[0]) if decided.borrows else made

    return call


def add_methods(the_class: type) -> None:
    """Give one of our native classes all the methods that take arrays."""
    stock = the_class.__bases__[0]
    flat = the_class in FLAT
    # What is left of Faiss' own methods, flat ones refuse.
    around = None if flat else _around(stock)
    for base in reversed(stock.__mro__):
        _set_host_methods(the_class, base, around)
    _set_gpu_methods(the_class, stock, search.METHODS)
    _set_constructor(the_class, vars(the_class)["__init__"])
    if flat:
        _set_gpu_methods(the_class, stock, vectors.METHODS)
        for name in ("__init__", "add", "copyFrom"):
            warns = warns_of_overflow(getattr(the_class, name))
            setattr(the_class, name, warns)
    _set_getstate(the_class, stock)


def make_all() -> tuple[dict[str, Any], dict[str, Any]]:
    """Our classes and functions, by the names of Faiss' own: those for GPU
    indexes, and all others."""
    gpu: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, member in vars(faiss).items():
        decided = decisions.INDEX_FUNCTIONS.get(name)
        if decided and decided.copies:
            others[name] = member = explains_gpu_index(member)
        if inspect.isclass(member) and class_of(member) is not member:
            found = gpu if issubclass(member, _ON_GPU) else others
            found[name] = class_of(member)
        elif native and name in decisions.BRUTE_FORCE:
            others[name] = checked_brute_force(member)
        elif decided and decided.makes:
            others[name] = returns_ours(member)
        elif name in decisions.FUNCTIONS:
            others[name] = _host_function(name)
    return gpu, others


def _derive(stock: type) -> type:
    if native is None and issubclass(stock, _ON_GPU):
        return stock
    parents = [class_of(b) for b in stock.__bases__ if class_of(b) is not b]
    if not (
        parents or _array_methods(stock)
        or stock.__name__ in decisions.CLASSES_WITHOUT_ARRAYS
    ):
        return stock
    derived = _StandsFor(
        stock.__name__, (*parents, stock),
        {"__module__": "faiss_ext", "__doc__": stock.__doc__,
         "_faiss_class": stock},
    )
    if "__init__" in vars(stock):
        # Before that of a parent of ours, which comes before Faiss' class.
        derived.__init__ = vars(stock)["__init__"]  # type: ignore[misc]
    around = _around(stock)
    # What it inherits has nothing around it.
    for base in reversed(stock.__mro__) if around else (stock,):
        _set_host_methods(derived, base, around)
    add_keep_alive(derived, stock)
    _set_getstate(derived, stock)
    if issubclass(stock, _GPU_INDEX):
        _set_gpu_methods(derived, stock, search.METHODS)
    if native and holds_others(stock) and issubclass(stock, faiss.Index):
        for name in ("add", "add_with_ids"):
            adds = warns_of_overflow(getattr(derived, name))
            setattr(derived, name, adds)
    if issubclass(stock, GPU_INDEXES):
        _set_constructor(derived, stock.__init__)  # type: ignore[misc]
    if stock.__name__ == "StandardGpuResources":
        check_device_methods(derived, stock)
    if native and stock is faiss.IndexShards:
        derived.__init__ = shards.init  # type: ignore[misc]
    if native and stock.__name__ == "Kmeans":
        derived.__init__ = check_kmeans(stock.__init__)  # type: ignore[misc]
    for name in _HELD.get(stock.__name__, ()):
        setattr(derived, name, _index_attribute(name))
    return derived


def _set_constructor(the_class: type, construct: Callable[..., Any]) -> None:
    """Let a class of GPU indexes check what Faiss would end the process over."""
    name = the_class.__name__

    @functools.wraps(construct)
    def checked(self: Any, *args: Any) -> None:
        check_constructor(name, args)
        try:
            construct(self, *args)
        except TypeError as error:
            given = ", ".join(type(value).__name__ for value in args)
            raise TypeError(
                f"{name}({given}): no constructor takes these. {error}"
            ) from None

    the_class.__init__ = checked  # type: ignore[misc]


def _set_getstate(the_class: type, stock: type) -> None:
    """For pickles and copies."""
    if "__getstate__" in vars(stock):
        the_class.__getstate__ = explains_gpu_index(  # type: ignore[method-assign]
            vars(stock)["__getstate__"]
        )


def _index_attribute(name: str) -> property:
    """An attribute of Faiss' Python code whose value becomes one of ours."""

    def get(self: Any) -> Any:
        try:
            return vars(self)[name]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            ) from None

    def put(self: Any, value: Any) -> None:
        vars(self)[name] = ours(value)

    return property(get, put)


def _around(stock: type) -> Callable[..., Any] | None:
    """What comes around the methods of a class where arrays may be pinned."""
    if native is None:
        return None
    if issubclass(stock, GPU_INDEXES):
        return faiss_calls.on_gpu
    if holds_others(stock):
        return faiss_calls.over_others
    return None


def _set_host_methods(
    the_class: type, stock: type, around: Callable[..., Any] | None = None
) -> None:
    for name, arrays in _array_methods(stock).items():
        current: Callable[[], Any] = (
            functools.partial(getattr, host, name) if arrays.ours
            else functools.partial(vars(stock).__getitem__, name)
        )
        function = takes_any_host_array(
            current, name, arrays, _fix, method=True, around=around
        )
        setattr(the_class, name, function)


def _set_gpu_methods(
    the_class: type, stock: type, methods: dict[str, Callable[..., Any]]
) -> None:
    for name, method in methods.items():
        setattr(the_class, name, method)
    the_class._faiss_methods = {  # type: ignore[attr-defined]
        **getattr(the_class, "_faiss_methods", {}),
        **{name: getattr(stock, name) for name in methods},
    }


def _array_methods(stock: type) -> dict[str, decisions.Arrays]:
    """The methods, of this class itself, that take arrays."""
    decided = {name: decisions.arrays_of(stock, name) for name in vars(stock)}
    return {name: arrays for name, arrays in decided.items() if arrays}


def _host_function(name: str) -> Callable[..., Any]:
    decided = decisions.FUNCTIONS[name]
    function = takes_any_host_array(
        functools.partial(vars(faiss).__getitem__, name), name, decided, _fix,
        method=False,
    )
    return cosine.takes_cosine(function, _fix) if decided.cosine else function


def _fix(where: str, subject: Any) -> str:
    """What to do with an array in GPU memory, which `where` does not take."""
    fix = f"{where} takes host memory: give a copy there"
    if native is None:
        return fix + (
            "; arrays on the GPU are taken by indexes on the GPU, which need "
            "the native part of faiss_ext (`python -m faiss_ext info`)"
        )
    if isinstance(subject, faiss.Index) and not isinstance(
        subject, faiss.GpuIndex
    ):
        return fix + ", or use an index on the GPU (index_cpu_to_gpu)"
    function = decisions.FUNCTIONS.get(where)
    return f"{fix}, or call {function.gpu}" if function and function.gpu else fix
