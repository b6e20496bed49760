"""The classes and functions that replace Faiss' own, where the native part is in
use. (`_without_native` has the same names.)"""

from ._gpus import get_num_gpus
from ._index.classes import add_methods, make_all
from ._index.cloning import (
    downcast_index,
    index_binary_cpu_to_gpu,
    index_binary_cpu_to_gpu_multiple,
    index_cpu_to_all_gpus,
    index_cpu_to_gpu,
    index_cpu_to_gpu_multiple,
    index_cpu_to_gpu_multiple_py,
    index_cpu_to_gpus_list,
)
from ._index.knn import knn_gpu, pairwise_distance_gpu
from ._index.saving import write_index, write_index_binary
from ._interop.device_array import DeviceArray
from ._native.swigfaiss_ext import (
    GpuIndexFlat,
    GpuIndexFlatIP,
    GpuIndexFlatL2,
    StagedConfig,
)
from .errors import GpuUnavailable, InvalidArray, InvalidDevice
from .memory.pinned import pinned_empty, pinned_pool_stats, trim
from .memory.pooled import PooledGpuResources
from .profiling import methods as _profiling
from .profiling.search_profile import SearchProfile, StageSpan

__all__ = [
    "DeviceArray",
    "GpuIndexFlat",
    "GpuIndexFlatIP",
    "GpuIndexFlatL2",
    "GpuUnavailable",
    "InvalidArray",
    "InvalidDevice",
    "PooledGpuResources",
    "SearchProfile",
    "StageSpan",
    "StagedConfig",
    "downcast_index",
    "get_num_gpus",
    "index_binary_cpu_to_gpu",
    "index_binary_cpu_to_gpu_multiple",
    "index_cpu_to_all_gpus",
    "index_cpu_to_gpu",
    "index_cpu_to_gpu_multiple",
    "index_cpu_to_gpu_multiple_py",
    "index_cpu_to_gpus_list",
    "knn_gpu",
    "pairwise_distance_gpu",
    "pinned_empty",
    "pinned_pool_stats",
    "trim",
    "write_index",
    "write_index_binary",
]

for _class in (GpuIndexFlat, GpuIndexFlatL2, GpuIndexFlatIP):
    add_methods(_class)
    for _method in _profiling.METHODS:
        setattr(_class, _method.__name__, _method)

# In Faiss a GpuIndexFlatL2 is a GpuIndexFlat. Ours derive from Faiss' classes
# one by one, so Python is told here; every method that C++ must see under its
# own type stands in each class, and is found before the added base's.
for _class in (GpuIndexFlatL2, GpuIndexFlatIP):
    _class.__bases__ = (*_class.__bases__, GpuIndexFlat)

_gpu_classes, _others = make_all()
for _name in _gpu_classes.keys() - set(__all__):
    globals()[_name] = _gpu_classes[_name]
    __all__.append(_name)

#: What stands for Faiss' classes and functions that have to do with no GPU, by
#: name.
on_host = {n: made for n, made in _others.items() if n not in __all__}
