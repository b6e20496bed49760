# What faiss_ext adds to Faiss or puts in the place of its own. Everything else
# that `faiss` exports is there too; Faiss has no stubs. All names are there on
# every machine; what needs a GPU raises RuntimeError when it is used without.

from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsIndex

import numpy
import numpy.typing

__version__: str
has_native: bool
native_problem: str | None

def __getattr__(name: str) -> Any: ...

class InvalidArray(ValueError, TypeError, AssertionError): ...

class StagedConfig:
    pinnedBytes: int
    tileRows: int
    oneTileBytes: int
    endTileBytes: int
    tileBytes: int
    mappedBytes: int
    computeLanes: int
    sliceVectors: int
    pipelineDepth: int
    secondsAhead: float
    batchedQueries: int
    copyThreads: int
    copyChunkBytes: int
    def __init__(self) -> None: ...

class PooledGpuResources:
    def __init__(
        self,
        allocate: Callable[[int, int, int], int],
        deallocate: Callable[[int, int, int, int], Any],
    ) -> None: ...
    def getResources(self) -> Any: ...
    def setTempMemory(self, size: int) -> None: ...
    def noTempMemory(self) -> None: ...
    def getTempMemoryAvailable(self, device: int) -> int: ...
    def setPinnedMemory(self, bytes: int) -> None: ...
    def setDefaultStream(self, device: int, stream: Any) -> None: ...
    def revertDefaultStream(self, device: int) -> None: ...
    def setDefaultNullStreamAllDevices(self) -> None: ...
    def getDefaultStream(self, device: int) -> Any: ...
    def syncDefaultStreamCurrentDevice(self) -> None: ...
    def getMemoryInfo(self) -> dict[int, dict[str, tuple[int, int]]]: ...

class StageSpan:
    stage: str
    lane: str
    tile: int
    bytes: int
    begin: float
    end: float
    @property
    def seconds(self) -> float: ...

class SearchProfile:
    spans: list[StageSpan]
    seconds: float
    clock_error: float
    tiles: int
    def __init__(
        self,
        spans: Iterable[StageSpan],
        seconds: float,
        clock_error: float,
        tiles: int,
    ) -> None: ...
    def busy(self) -> dict[str, float]: ...
    def moved(self) -> dict[str, int]: ...
    def caller(self) -> dict[str, float]: ...

class DeviceArray:
    shape: tuple[int, ...]
    dtype: numpy.dtype[Any]
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def copy_to_host(self) -> numpy.ndarray[Any, Any]: ...
    def __len__(self) -> int: ...

class Index:
    # As our GPU indexes have them. Other classes of Faiss are `Any` here; each
    # has those of these methods that Faiss gives it.
    d: int
    ntotal: int
    metric_type: int
    metric_arg: float
    is_trained: bool
    def __init__(self, *args: Any) -> None: ...
    def add(self, x: Any, *, cast: bool = False, **later: Any) -> None: ...
    def search(
        self,
        x: Any,
        k: SupportsIndex,
        *,
        params: Any = None,
        D: Any = None,
        I: Any = None,
        cast: bool = False,
        **later: Any,
    ) -> tuple[Any, Any]: ...
    def assign(
        self,
        x: Any,
        k: SupportsIndex = 1,
        labels: Any = None,
        *,
        cast: bool = False,
    ) -> Any: ...
    def reconstruct(self, key: SupportsIndex, x: Any = None) -> Any: ...
    def reconstruct_n(
        self, n0: SupportsIndex = 0, ni: SupportsIndex = -1, x: Any = None
    ) -> Any: ...
    def reconstruct_batch(self, key: Any, x: Any = None) -> Any: ...
    def add_with_ids(
        self, x: Any, ids: Any, *, cast: bool = False, **later: Any
    ) -> None: ...
    def train(self, x: Any, *, cast: bool = False, **later: Any) -> None: ...
    def remove_ids(self, x: Any) -> int: ...
    def search_and_reconstruct(
        self,
        x: Any,
        k: SupportsIndex,
        *,
        params: Any = None,
        D: Any = None,
        I: Any = None,
        R: Any = None,
        cast: bool = False,
    ) -> tuple[Any, Any, Any]: ...
    def compute_residual(
        self,
        x: Any,
        residual: Any = None,
        key: SupportsIndex | None = None,
        *,
        cast: bool = False,
    ) -> Any: ...
    def compute_residual_n(
        self,
        n: SupportsIndex,
        xs: Any,
        residuals: Any = None,
        keys: Any = None,
        *,
        cast: bool = False,
    ) -> Any: ...
    def range_search(
        self, x: Any, thresh: float, *, params: Any = None
    ) -> tuple[Any, Any, Any]: ...
    def sa_encode(self, x: Any, codes: Any = None) -> Any: ...
    def sa_decode(self, codes: Any, x: Any = None) -> Any: ...
    def reset(self) -> None: ...

class GpuIndex(Index):
    def getDevice(self) -> int: ...
    def getResources(self) -> Any: ...

class GpuIndexIVF(GpuIndex): ...
class GpuIndexIVFFlat(GpuIndexIVF): ...
class GpuIndexIVFPQ(GpuIndexIVF): ...
class GpuIndexIVFScalarQuantizer(GpuIndexIVF): ...

class GpuIndexFlat(GpuIndex):
    def copyFrom(self, index: Any) -> None: ...
    def copyTo(self, index: Any) -> None: ...
    def profile_search(
        self,
        x: Any,
        k: SupportsIndex,
        *,
        params: Any = None,
        D: Any = None,
        I: Any = None,
        cast: bool = False,
    ) -> tuple[Any, Any, SearchProfile]: ...
    def transfer_stats(self) -> dict[str, int]: ...
    def reset_transfer_stats(self) -> None: ...

class GpuIndexFlatL2(GpuIndexFlat): ...
class GpuIndexFlatIP(GpuIndexFlat): ...

def knn_gpu(
    res: Any,
    xq: Any,
    xb: Any,
    k: SupportsIndex,
    D: Any = None,
    I: Any = None,
    metric: int = 1,
    device: int = -1,
    *,
    cast: bool = False,
    **limits: Any,
) -> tuple[Any, Any]: ...
def pairwise_distance_gpu(
    res: Any,
    xq: Any,
    xb: Any,
    D: Any = None,
    metric: int = 1,
    device: int = -1,
    *,
    cast: bool = False,
) -> Any: ...
def pinned_empty(
    shape: int | tuple[int, ...], dtype: numpy.typing.DTypeLike = "float32"
) -> numpy.ndarray[Any, Any]: ...
def pinned_pool_stats() -> dict[str, int]: ...
def trim() -> None: ...
def get_num_gpus() -> int: ...
def downcast_index(index: Any) -> Any: ...
def index_cpu_to_gpu(
    provider: Any, device: int, index: Any, options: Any = None
) -> Any: ...
def index_cpu_to_gpu_multiple(
    provider: Any, devices: Any, index: Any, options: Any = None
) -> Any: ...
def index_cpu_to_gpu_multiple_py(
    resources: Sequence[Any],
    index: Any,
    co: Any = None,
    gpus: Sequence[int] | None = None,
) -> Any: ...
def index_cpu_to_gpus_list(
    index: Any,
    co: Any = None,
    gpus: Sequence[int] | None = None,
    ngpu: int = -1,
) -> Any: ...
def index_cpu_to_all_gpus(index: Any, co: Any = None, ngpu: int = -1) -> Any: ...
