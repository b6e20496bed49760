"""Faiss' classes with methods that take arrays of any library.

Every class of Faiss with array methods has one of ours derived from it, of the
same name, and Faiss' own stay as they are. What Faiss' functions return becomes
one of ours too (`returns_ours`); an index that another one holds
(``index.quantizer``) is Faiss' own until `downcast_index`.
"""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable
from typing import Any

import faiss

from .._loader.native_part import native
from . import host
from .host import takes_any_host_array
from .keep_alive import add_holding, borrows
from .nested import GPU_INDEXES, holds_others
from .saving import explains

if native:
    from . import faiss_calls, forks, search, shards, vectors
    from .float16 import tells_of_too_large
    from .gpu_arguments import (
        check_constructor,
        check_device_methods,
        check_kmeans,
        checked_brute_force,
    )

#: Functions of Faiss that return indexes and the like.
_MAKERS = (
    "clone_Quantizer", "clone_binary_index", "clone_index",
    "deserialize_index", "deserialize_index_binary", "downcast_AdditiveQuantizer",
    "downcast_IndexBinary", "downcast_Quantizer", "downcast_VectorTransform",
    "extract_index_ivf", "index_binary_factory", "index_binary_gpu_to_cpu",
    "index_factory", "index_gpu_to_cpu",
    "read_ProductQuantizer", "read_VectorTransform", "read_index",
    "read_index_binary",
    "try_extract_index_ivf",
)
#: Those that give their argument, or a part of it, under another type; those
#: that take None for no index, though they need one; those that work on a GPU with
#: what they are told in a structure; and those that copy an index on the CPU.
_BORROWERS = {
    "downcast_AdditiveQuantizer", "downcast_IndexBinary", "downcast_Quantizer",
    "downcast_VectorTransform", "downcast_index", "extract_index_ivf",
    "try_extract_index_ivf",
}
_OF_INDEXES = {
    "extract_index_ivf", "index_binary_gpu_to_cpu", "index_gpu_to_cpu",
}
_BRUTE_FORCE = {"bfKnn", "bfKnn_tiling"}
_COPIERS = {
    "clone_binary_index", "clone_index", "serialize_index",
    "serialize_index_binary",
}
#: Classes without array methods that have one of ours all the same: it keeps
#: alive what is put in, and checks numbers of GPUs.
_WITHOUT_ARRAYS = {"GpuResourcesVector", "StandardGpuResources"}
#: Functions of Faiss that take arrays; for those that exist on the GPU too, its
#: name.
_FUNCTIONS = {
    "bucket_sort": "",
    "checksum": "",
    "eval_intersection": "",
    "kmax": "",
    "kmin": "",
    "knn": "knn_gpu",
    "knn_hamming": "",
    "matrix_bucket_sort_inplace": "",
    "merge_knn_results": "",
    "normalize_L2": "",
    "pack_bitstrings": "",
    "pairwise_distances": "pairwise_distance_gpu",
    "range_search_with_parameters": "",
    "search_with_parameters": "",
    "unpack_bitstrings": "",
}
#: Faiss' GPU indexes, if it has any. Without the native part they stay its own.
_GPU_INDEX = getattr(faiss, "GpuIndex", ())
#: All that has to do with GPUs alone.
_ON_GPU = (
    *GPU_INDEXES, *(getattr(faiss, n, ()) for n in sorted(_WITHOUT_ARRAYS))
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

    name = function.__name__

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if name in _OF_INDEXES and args and args[0] is None:
            raise TypeError("index: None; an index is needed")
        if native:
            forks.check(args)
        made = ours(function(*args, **options))
        return borrows(made, args[0]) if name in _BORROWERS else made

    return call


def add_methods(the_class: type) -> None:
    """Give one of our native classes all the methods that take arrays."""
    stock = the_class.__bases__[0]
    for base in reversed(stock.__mro__):
        _set_host_methods(the_class, base)
    _set_gpu_methods(the_class, stock, search.METHODS)
    _set_gpu_methods(the_class, stock, vectors.METHODS)
    _set_constructor(the_class, vars(the_class)["__init__"])
    for name in ("__init__", "add", "copyFrom"):
        setattr(the_class, name, tells_of_too_large(getattr(the_class, name)))
    _set_getstate(the_class, stock)


def make_all() -> tuple[dict[str, Any], dict[str, Any]]:
    """Our classes and functions, by the names of Faiss' own: those for GPU
    indexes, and all others."""
    gpu: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, member in vars(faiss).items():
        if name in _COPIERS:
            others[name] = member = explains(member)
        if inspect.isclass(member) and class_of(member) is not member:
            found = gpu if issubclass(member, _ON_GPU) else others
            found[name] = class_of(member)
        elif native and name in _BRUTE_FORCE:
            others[name] = checked_brute_force(member)
        elif name in _MAKERS:
            others[name] = returns_ours(member)
        elif name in _FUNCTIONS:
            others[name] = _host_function(name)
    return gpu, others


def _derive(stock: type) -> type:
    if native is None and issubclass(stock, _ON_GPU):
        return stock
    parents = [class_of(b) for b in stock.__bases__ if class_of(b) is not b]
    if not (
        parents or _array_methods(stock) or stock.__name__ in _WITHOUT_ARRAYS
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
    add_holding(derived, stock)
    _set_getstate(derived, stock)
    if issubclass(stock, _GPU_INDEX):
        _set_gpu_methods(derived, stock, search.METHODS)
    if native and holds_others(stock) and issubclass(stock, faiss.Index):
        for name in ("add", "add_with_ids"):
            adds = tells_of_too_large(getattr(derived, name))
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
        setattr(derived, name, _held(name))
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
        the_class.__getstate__ = explains(  # type: ignore[method-assign]
            vars(stock)["__getstate__"]
        )


def _held(name: str) -> property:
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
    for name, current in _array_methods(stock).items():
        function = takes_any_host_array(
            current, name, _fix, method=True, around=around
        )
        setattr(the_class, name, function)


def _set_gpu_methods(
    the_class: type, stock: type, methods: tuple[Callable[..., Any], ...]
) -> None:
    named = {m.__name__.removeprefix("replacement_"): m for m in methods}
    for name, method in named.items():
        setattr(the_class, name, method)
    the_class._faiss_methods = {  # type: ignore[attr-defined]
        **getattr(the_class, "_faiss_methods", {}),
        **{name: getattr(stock, name) for name in named},
    }


def _array_methods(stock: type) -> dict[str, Callable[..., Any]]:
    """What gives the methods, of this class itself, that take arrays: Python
    code of Faiss, and ours where Faiss has none."""
    found: dict[str, Callable[..., Any]] = {
        name: functools.partial(vars(stock).__getitem__, name)
        for name, member in vars(stock).items()
        if inspect.isfunction(member) and _takes_arrays(stock, name, member)
    }
    if stock is faiss.Index:
        for name in ("compute_residual", "compute_residual_n"):
            found[name] = functools.partial(getattr, host, name)
    return found


def _takes_arrays(stock: type, name: str, member: Callable[..., Any]) -> bool:
    if stock.__module__ == "faiss.extra_wrappers":
        return not name.startswith("_")
    if name == "__init__":
        return member.__qualname__.startswith(
            ("handle_IDSelectorSubset.", "handle_MatrixStats.")
        )
    return not name.startswith("__") and member.__qualname__.startswith(
        "handle_"
    ) and member.__name__.startswith(("replacement_", "apply_"))


def _host_function(name: str) -> Callable[..., Any]:
    return takes_any_host_array(
        functools.partial(vars(faiss).__getitem__, name), name, _fix,
        method=False,
    )


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
    if _FUNCTIONS.get(where):
        return f"{fix}, or call {_FUNCTIONS[where]}"
    return fix
