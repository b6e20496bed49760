"""The classes and functions that replace Faiss' own, where the native part is in
use: all that this module shows. (`_without_native` has the same names.)"""

from typing import Any as _Any

from ._gpus import get_num_gpus
from ._index import classes as _classes, staged as _staged
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
from ._index.normalize import normalize_L2
from ._index.saving import write_index, write_index_binary
from ._interop.device_array import DeviceArray
from ._native.swigfaiss_ext import (
    GpuIndexFlat,
    GpuIndexFlatCosine,
    GpuIndexFlatIP,
    GpuIndexFlatL2,
    StagedConfig,
)
from .errors import GpuUnavailable, InvalidArray, InvalidDevice
from .memory.pinned import pinned_empty, pinned_pool_stats, trim
from .memory.pooled import PooledGpuResources
from .profiling import methods as _profiling
from .profiling.search_profile import (
    ComputeSpan,
    ComputeStage,
    SearchProfile,
    StageSpan,
)

for _class in _staged.CLASSES:
    _classes.add_methods(_class)
    globals()[_class.__name__] = _class
    for _method in _profiling.METHODS:
        setattr(_class, _method.__name__, _method)

# In Faiss a GpuIndexFlatL2 is a GpuIndexFlat. Ours derive from Faiss' classes
# one by one, so Python is told here; every method that C++ must see under its
# own type stands in each class, and is found before the added base's.
for _class in (GpuIndexFlatL2, GpuIndexFlatIP, GpuIndexFlatCosine):
    _class.__bases__ = (*_class.__bases__, GpuIndexFlat)

_gpu_classes, _others = _classes.make_all()
globals().update({n: c for n, c in _gpu_classes.items() if n not in globals()})

#: What stands for Faiss' own here, by name.
_names: dict[str, _Any] = {
    _name: _made for _name, _made in globals().items() if not _name.startswith("_")
}
#: The same of Faiss' classes and functions that have to do with no GPU.
_on_host = {n: made for n, made in _others.items() if n not in _names}
