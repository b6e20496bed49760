"""The names of the native part where there is none.

So that a program is one for every machine: an error class can be caught, a class
can be named (nothing is an instance of it), and what needs a GPU says so when it
is used. Faiss' own GPU names are among them where Faiss is built for the CPU; a
Faiss that is built for the GPU keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import faiss

from ._gpus import get_num_gpus
from ._index.classes import make_all
from ._index.saving import write_index, write_index_binary
from ._loader.native_part import faiss_has_gpu, problem
from .errors import GpuUnavailable, InvalidArray, InvalidDevice
from .profiling.search_profile import (
    ComputeSpan,
    ComputeStage,
    SearchProfile,
    StageSpan,
)

#: Our classes that need the native part, and those of Faiss that need a GPU, by
#: name; each with the name of its base.
_OUR_CLASSES = {
    "DeviceArray": "",
    "GpuIndexFlatCosine": "GpuIndexFlat",
    "PooledGpuResources": "",
    "StagedConfig": "",
}
_FAISS_CLASSES = {
    "GpuClonerOptions": "",
    "GpuDistanceParams": "",
    "GpuIndexConfig": "",
    "GpuIndexFlatConfig": "GpuIndexConfig",
    "GpuIndexIVFConfig": "GpuIndexConfig",
    "GpuIndexIVFFlatConfig": "GpuIndexIVFConfig",
    "GpuIndexIVFPQConfig": "GpuIndexIVFConfig",
    "GpuIndexIVFScalarQuantizerConfig": "GpuIndexIVFConfig",
    "GpuIndexBinaryFlatConfig": "GpuIndexConfig",
    "GpuMultipleClonerOptions": "GpuClonerOptions",
    "GpuResources": "",
    "GpuResourcesProvider": "",
    "GpuResourcesVector": "",
    "StandardGpuResources": "GpuResourcesProvider",
    "GpuIndex": "Index",
    "GpuIndexFlat": "GpuIndex",
    "GpuIndexFlatL2": "GpuIndexFlat",
    "GpuIndexFlatIP": "GpuIndexFlat",
    "GpuIndexIVF": "GpuIndex",
    "GpuIndexIVFFlat": "GpuIndexIVF",
    "GpuIndexIVFPQ": "GpuIndexIVF",
    "GpuIndexIVFScalarQuantizer": "GpuIndexIVF",
    "GpuIndexBinaryFlat": "IndexBinary",
    "GpuIndexCagra": "GpuIndex",
    "GpuIndexCagraConfig": "GpuIndexConfig",
    "GpuIcmEncoder": "",
    "GpuIcmEncoderFactory": "",
    "GpuParameterSpace": "ParameterSpace",
    "GpuProgressiveDimIndexFactory": "ProgressiveDimIndexFactory",
    "ToCPUCloner": "",
    "ToGpuCloner": "",
    "ToGpuClonerMultiple": "",
}
_OUR_FUNCTIONS = ("pinned_empty",)
#: Some of these Faiss has on the CPU too, where they end in a NameError.
_FAISS_FUNCTIONS = (
    "bfKnn",
    "bfKnn_tiling",
    "gpu_sync_all_devices",
    "index_binary_cpu_to_gpu",
    "index_binary_cpu_to_gpu_multiple",
    "index_binary_gpu_to_cpu",
    "index_cpu_to_all_gpus",
    "index_cpu_to_gpu",
    "index_cpu_to_gpu_multiple",
    "index_cpu_to_gpu_multiple_py",
    "index_cpu_to_gpus_list",
    "index_gpu_to_cpu",
    "knn_gpu",
    "pairwise_distance_gpu",
)


def pinned_pool_stats() -> dict[str, int]:
    """As where there is a GPU; nothing is pinned here, and nothing can be."""
    return {"bound": 0, "pinned_bytes": 0, "allocations": 0}


def trim() -> None:
    """As where there is a GPU; there is nothing to unpin here."""


def _refuse(name: str) -> NoReturn:
    raise GpuUnavailable(
        f"{name}: the native part of faiss_ext is not in use: {problem}. A "
        "program for machines without it asks faiss_ext.has_native first"
        if name in _OUR_CLASSES or name in _OUR_FUNCTIONS else
        f"{name}: {problem}. A program for machines without a GPU asks "
        "get_num_gpus() first, and uses an index on the CPU where it is 0"
    )


def _class(name: str, base: type) -> type:
    """A class without instances."""

    def refuse(cls: type, *args: Any, **options: Any) -> NoReturn:
        _refuse(name)

    return type(base)(
        name, (base,),
        {"__module__": "faiss_ext", "__new__": refuse,
         "__doc__": f"Not available here: {problem}."},
    )


def _function(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **options: Any) -> NoReturn:
        _refuse(name)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__module__ = "faiss_ext"
    refuse.__doc__ = f"Not available here: {problem}."
    return refuse


#: What stands for Faiss' classes and functions that have to do with no GPU, by
#: name; its GPU classes stay its own.
_, _on_host = make_all()

_functions = list(_OUR_FUNCTIONS)
if faiss_has_gpu:
    _classes = _OUR_CLASSES
else:
    # A base before what derives from it.
    _classes = {**_FAISS_CLASSES, **_OUR_CLASSES}
    _functions += _FAISS_FUNCTIONS

#: What is here in the place of the native part, by name.
_names: dict[str, Any] = {
    made.__name__: made for made in (
        ComputeSpan, ComputeStage, GpuUnavailable, InvalidArray, InvalidDevice,
        SearchProfile, StageSpan,
        get_num_gpus, pinned_pool_stats, trim, write_index, write_index_binary,
    )
}
for _name, _base in _classes.items():
    _names[_name] = _class(
        _name,
        _names.get(_base, _on_host.get(_base, getattr(faiss, _base, object))),
    )
for _name in _functions:
    _names[_name] = _function(_name)
    _on_host.pop(_name, None)
