# What faiss_ext adds to Faiss or puts in the place of its own (_with_native.pyi), and
# everything else that `faiss` exports, under Faiss' own types: those of its
# stubs, which it has from 1.15 on, or `Any` with an older one. All names are
# there on every machine; what needs a GPU raises RuntimeError when it is used
# without.
#
# Ours are imported before and behind Faiss': of two imports of a name mypy takes
# the first, and pyright the last.

from typing import Any

from ._with_native import (
    DeviceArray as DeviceArray,
    GpuIndex as GpuIndex,
    GpuIndexFlat as GpuIndexFlat,
    GpuIndexFlatIP as GpuIndexFlatIP,
    GpuIndexFlatL2 as GpuIndexFlatL2,
    GpuIndexIVF as GpuIndexIVF,
    GpuIndexIVFFlat as GpuIndexIVFFlat,
    GpuIndexIVFPQ as GpuIndexIVFPQ,
    GpuIndexIVFScalarQuantizer as GpuIndexIVFScalarQuantizer,
    GpuUnavailable as GpuUnavailable,
    InvalidArray as InvalidArray,
    InvalidDevice as InvalidDevice,
    PooledGpuResources as PooledGpuResources,
    SearchProfile as SearchProfile,
    StageSpan as StageSpan,
    StagedConfig as StagedConfig,
    StandardGpuResources as StandardGpuResources,
    downcast_index as downcast_index,
    get_num_gpus as get_num_gpus,
    index_binary_cpu_to_gpu as index_binary_cpu_to_gpu,
    index_binary_cpu_to_gpu_multiple as index_binary_cpu_to_gpu_multiple,
    index_cpu_to_all_gpus as index_cpu_to_all_gpus,
    index_cpu_to_gpu as index_cpu_to_gpu,
    index_cpu_to_gpu_multiple as index_cpu_to_gpu_multiple,
    index_cpu_to_gpu_multiple_py as index_cpu_to_gpu_multiple_py,
    index_cpu_to_gpus_list as index_cpu_to_gpus_list,
    knn_gpu as knn_gpu,
    pairwise_distance_gpu as pairwise_distance_gpu,
    pinned_empty as pinned_empty,
    pinned_pool_stats as pinned_pool_stats,
    trim as trim,
    write_index as write_index,
    write_index_binary as write_index_binary,
)
from faiss import *  # type: ignore[assignment, no-redef]
from ._with_native import (
    DeviceArray as DeviceArray,
    GpuIndex as GpuIndex,
    GpuIndexFlat as GpuIndexFlat,
    GpuIndexFlatIP as GpuIndexFlatIP,
    GpuIndexFlatL2 as GpuIndexFlatL2,
    GpuIndexIVF as GpuIndexIVF,
    GpuIndexIVFFlat as GpuIndexIVFFlat,
    GpuIndexIVFPQ as GpuIndexIVFPQ,
    GpuIndexIVFScalarQuantizer as GpuIndexIVFScalarQuantizer,
    GpuUnavailable as GpuUnavailable,
    InvalidArray as InvalidArray,
    InvalidDevice as InvalidDevice,
    PooledGpuResources as PooledGpuResources,
    SearchProfile as SearchProfile,
    StageSpan as StageSpan,
    StagedConfig as StagedConfig,
    StandardGpuResources as StandardGpuResources,
    downcast_index as downcast_index,
    get_num_gpus as get_num_gpus,
    index_binary_cpu_to_gpu as index_binary_cpu_to_gpu,
    index_binary_cpu_to_gpu_multiple as index_binary_cpu_to_gpu_multiple,
    index_cpu_to_all_gpus as index_cpu_to_all_gpus,
    index_cpu_to_gpu as index_cpu_to_gpu,
    index_cpu_to_gpu_multiple as index_cpu_to_gpu_multiple,
    index_cpu_to_gpu_multiple_py as index_cpu_to_gpu_multiple_py,
    index_cpu_to_gpus_list as index_cpu_to_gpus_list,
    knn_gpu as knn_gpu,
    pairwise_distance_gpu as pairwise_distance_gpu,
    pinned_empty as pinned_empty,
    pinned_pool_stats as pinned_pool_stats,
    trim as trim,
    write_index as write_index,
    write_index_binary as write_index_binary,
)

__version__: str
has_native: bool
native_problem: str | None

# What Faiss has and its stubs do not name, such as most of its GPU classes.
def __getattr__(name: str) -> Any: ...
