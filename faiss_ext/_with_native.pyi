# The types of `_with_native.py`, which makes its classes when it is imported: what
# stands in the place of Faiss' own. `__init__.pyi` shows it.

from collections.abc import Iterable, Sequence
from typing import (
    Any,
    Literal,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    overload,
)

import faiss
import numpy
import numpy.typing
from typing_extensions import Buffer

from ._gpus import get_num_gpus as get_num_gpus
from ._index.saving import (
    write_index as write_index,
    write_index_binary as write_index_binary,
)
from ._interop.device_array import DeviceArray as DeviceArray
from ._native.swigfaiss_ext import StagedConfig as StagedConfig
from .errors import (
    GpuUnavailable as GpuUnavailable,
    InvalidArray as InvalidArray,
    InvalidDevice as InvalidDevice,
)
from .memory.pinned import (
    pinned_empty as pinned_empty,
    pinned_pool_stats as pinned_pool_stats,
    trim as trim,
)
from .memory.pooled import PooledGpuResources as PooledGpuResources
from .profiling.methods import TransferStats
from .profiling.search_profile import (
    ComputeSpan as ComputeSpan,
    ComputeStage as ComputeStage,
    SearchProfile as SearchProfile,
    StageSpan as StageSpan,
)

_names: dict[str, Any]
_on_host: dict[str, Any]

# Arrays, by what they support.

class _SupportsDLPack(Protocol):
    def __dlpack__(self) -> Any: ...

class _SupportsCudaInterface(Protocol):
    @property
    def __cuda_array_interface__(self) -> Any: ...

class _SupportsInterface(Protocol):
    @property
    def __array_interface__(self) -> Any: ...

class _SupportsNumPy(Protocol):
    def __array__(self) -> Any: ...

# What NumPy makes an array of.
_HostArray: TypeAlias = (
    numpy.typing.NDArray[Any]
    | Sequence[SupportsFloat]
    | Sequence[Sequence[SupportsFloat]]
    | Sequence[numpy.typing.NDArray[Any]]
)
_Array: TypeAlias = (
    _HostArray
    | _SupportsDLPack
    | _SupportsCudaInterface
    | _SupportsInterface
    | _SupportsNumPy
    | Buffer
)
_Floats: TypeAlias = numpy.typing.NDArray[numpy.float32]
_Labels: TypeAlias = numpy.typing.NDArray[numpy.int64]

_R_co = TypeVar("_R_co", covariant=True)

# A tensor of PyTorch, and what is derived from it: results are plain tensors.
class _Tensor(Protocol[_R_co]):
    def new_empty(self, size: tuple[int, ...], /) -> _R_co: ...

class _IsArray(Protocol):
    @property
    def shape(self) -> Any: ...

# Outputs that a caller gives: they are what is returned.
_DT = TypeVar("_DT", bound=_IsArray)
_IT = TypeVar("_IT", bound=_IsArray)
_RT = TypeVar("_RT", bound=_IsArray)
_T = TypeVar("_T")

# In the place of one of Faiss' metrics.
_Cosine: TypeAlias = Literal["cosine"]

# In Faiss both are providers, which its stubs do not say.
_Provider: TypeAlias = (
    faiss.GpuResourcesProvider | faiss.StandardGpuResources | PooledGpuResources
)

class StandardGpuResources(faiss.StandardGpuResources):
    def setDefaultStream(self, device: SupportsIndex, stream: Any) -> None: ...
    def revertDefaultStream(self, device: SupportsIndex) -> None: ...
    def getDefaultStream(self, device: SupportsIndex) -> Any: ...

# The methods of indexes on a GPU. Where several results are arrays, they are of
# one library: outputs that are given, else NumPy's for host arrays, and for those
# on a GPU their library's. (CuPy's and Numba's have no types; they give `Any`.)
class GpuIndex(faiss.GpuIndex):
    def add(
        self,
        x: _Array,
        numeric_type: int | None = None,
        *,
        cast: bool = False,
        **later: Any,
    ) -> None: ...
    def add_with_ids(
        self,
        x: _Array,
        ids: _Array,
        numeric_type: int | None = None,
        *,
        cast: bool = False,
        **later: Any,
    ) -> None: ...
    def train(
        self,
        x: _Array,
        numeric_type: int | None = None,
        *,
        cast: bool = False,
        **later: Any,
    ) -> None: ...
    @overload
    def search(
        self,
        x: _Array,
        k: SupportsIndex,
        D: _DT,
        I: _IT,
        numeric_type: int | None = None,
        *,
        params: Any = None,
        cast: bool = False,
        **later: Any,
    ) -> tuple[_DT, _IT]: ...
    @overload
    def search(
        self,
        x: _HostArray,
        k: SupportsIndex,
        D: _Floats | None = None,
        I: _Labels | None = None,
        numeric_type: int | None = None,
        *,
        params: Any = None,
        cast: bool = False,
        **later: Any,
    ) -> tuple[_Floats, _Labels]: ...
    @overload
    def search(
        self,
        x: DeviceArray,
        k: SupportsIndex,
        D: None = None,
        I: None = None,
        numeric_type: int | None = None,
        *,
        params: Any = None,
        cast: bool = False,
        **later: Any,
    ) -> tuple[DeviceArray, DeviceArray]: ...
    @overload
    def search(
        self,
        x: _Tensor[_T],
        k: SupportsIndex,
        D: None = None,
        I: None = None,
        numeric_type: int | None = None,
        *,
        params: Any = None,
        cast: bool = False,
        **later: Any,
    ) -> tuple[_T, _T]: ...
    @overload
    def search(
        self,
        x: _Array,
        k: SupportsIndex,
        D: _Array | None = None,
        I: _Array | None = None,
        numeric_type: int | None = None,
        *,
        params: Any = None,
        cast: bool = False,
        **later: Any,
    ) -> tuple[Any, Any]: ...
    @overload
    def assign(
        self,
        x: _Array,
        k: SupportsIndex,
        labels: _IT,
        *,
        cast: bool = False,
    ) -> _IT: ...
    @overload
    def assign(
        self,
        x: _HostArray,
        k: SupportsIndex = 1,
        labels: None = None,
        *,
        cast: bool = False,
    ) -> _Labels: ...
    @overload
    def assign(
        self,
        x: DeviceArray,
        k: SupportsIndex = 1,
        labels: None = None,
        *,
        cast: bool = False,
    ) -> DeviceArray: ...
    @overload
    def assign(
        self,
        x: _Tensor[_T],
        k: SupportsIndex = 1,
        labels: None = None,
        *,
        cast: bool = False,
    ) -> _T: ...
    @overload
    def assign(
        self,
        x: _Array,
        k: SupportsIndex = 1,
        labels: Any = None,
        *,
        cast: bool = False,
    ) -> Any: ...
    @overload
    def reconstruct(
        self, key: SupportsIndex, x: _Floats | None = None
    ) -> _Floats: ...
    @overload
    def reconstruct(self, key: SupportsIndex, x: _RT) -> _RT: ...
    @overload
    def reconstruct_n(
        self,
        n0: SupportsIndex = 0,
        ni: SupportsIndex = -1,
        x: _Floats | None = None,
    ) -> _Floats: ...
    @overload
    def reconstruct_n(
        self, n0: SupportsIndex = 0, ni: SupportsIndex = -1, x: _RT = ...
    ) -> _RT: ...
    # Faiss' stubs call its argument keys, and Faiss key.
    @overload  # type: ignore[override]
    def reconstruct_batch(self, key: _Array, x: _RT) -> _RT: ...
    @overload
    def reconstruct_batch(self, key: _HostArray, x: None = None) -> _Floats: ...
    @overload
    def reconstruct_batch(
        self, key: DeviceArray, x: None = None
    ) -> DeviceArray: ...
    @overload
    def reconstruct_batch(self, key: _Tensor[_T], x: None = None) -> _T: ...
    @overload
    def reconstruct_batch(self, key: _Array, x: Any = None) -> Any: ...
    @overload
    def search_and_reconstruct(
        self,
        x: _Array,
        k: SupportsIndex,
        *,
        D: _DT,
        I: _IT,
        R: _RT,
        params: Any = None,
        cast: bool = False,
    ) -> tuple[_DT, _IT, _RT]: ...
    @overload
    def search_and_reconstruct(
        self,
        x: _HostArray,
        k: SupportsIndex,
        *,
        D: _Floats | None = None,
        I: _Labels | None = None,
        R: _Floats | None = None,
        params: Any = None,
        cast: bool = False,
    ) -> tuple[_Floats, _Labels, _Floats]: ...
    @overload
    def search_and_reconstruct(
        self,
        x: DeviceArray,
        k: SupportsIndex,
        *,
        D: None = None,
        I: None = None,
        R: None = None,
        params: Any = None,
        cast: bool = False,
    ) -> tuple[DeviceArray, DeviceArray, DeviceArray]: ...
    @overload
    def search_and_reconstruct(
        self,
        x: _Tensor[_T],
        k: SupportsIndex,
        *,
        D: None = None,
        I: None = None,
        R: None = None,
        params: Any = None,
        cast: bool = False,
    ) -> tuple[_T, _T, _T]: ...
    @overload
    def search_and_reconstruct(
        self,
        x: _Array,
        k: SupportsIndex,
        *,
        D: _Array | None = None,
        I: _Array | None = None,
        R: _Array | None = None,
        params: Any = None,
        cast: bool = False,
    ) -> tuple[Any, Any, Any]: ...
    # Pointers of SWIG too, as Faiss' own take them.
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
    # Host memory alone, of any library.
    def remove_ids(self, x: Any) -> int: ...
    def range_search(
        self, x: _Array, thresh: SupportsFloat, *, params: Any = None
    ) -> tuple[_Labels, _Floats, _Labels]: ...
    def sa_encode(
        self, x: _Array, codes: Any = None
    ) -> numpy.typing.NDArray[numpy.uint8]: ...
    def sa_decode(self, codes: _Array, x: Any = None) -> _Floats: ...

class GpuIndexIVF(GpuIndex, faiss.GpuIndexIVF): ...

class GpuIndexIVFPQ(GpuIndexIVF, faiss.GpuIndexIVFPQ):
    def __init__(self, provider: _Provider, *args: Any) -> None: ...

# Of these Faiss' stubs know nothing.
class GpuIndexIVFFlat(GpuIndexIVF):
    def __init__(self, provider: _Provider, *args: Any) -> None: ...

class GpuIndexIVFScalarQuantizer(GpuIndexIVF):
    def __init__(self, provider: _Provider, *args: Any) -> None: ...

class GpuIndexFlat(GpuIndex, faiss.GpuIndexFlat):
    @overload
    def __init__(
        self,
        provider: _Provider,
        index: faiss.IndexFlat,
        config: faiss.GpuIndexFlatConfig = ...,
        staged: StagedConfig = ...,
        /,
    ) -> None: ...
    @overload
    def __init__(
        self,
        provider: _Provider,
        dims: int,
        metric: int,
        config: faiss.GpuIndexFlatConfig = ...,
        staged: StagedConfig = ...,
        /,
    ) -> None: ...
    # (As narrow as Faiss' own in C++.)
    def copyFrom(self, index: faiss.IndexFlat) -> None: ...  # type: ignore[override]
    def copyTo(self, index: faiss.IndexFlat) -> None: ...  # type: ignore[override]
    def beyondFloat16(self, i0: int, n: int) -> bool: ...
    @overload
    def profile_search(
        self,
        x: _Array,
        k: SupportsIndex,
        *,
        params: Any = None,
        D: _DT,
        I: _IT,
        cast: bool = False,
    ) -> tuple[_DT, _IT, SearchProfile]: ...
    @overload
    def profile_search(
        self,
        x: _HostArray,
        k: SupportsIndex,
        *,
        params: Any = None,
        D: _Floats | None = None,
        I: _Labels | None = None,
        cast: bool = False,
    ) -> tuple[_Floats, _Labels, SearchProfile]: ...
    @overload
    def profile_search(
        self,
        x: DeviceArray,
        k: SupportsIndex,
        *,
        params: Any = None,
        D: None = None,
        I: None = None,
        cast: bool = False,
    ) -> tuple[DeviceArray, DeviceArray, SearchProfile]: ...
    @overload
    def profile_search(
        self,
        x: _Tensor[_T],
        k: SupportsIndex,
        *,
        params: Any = None,
        D: None = None,
        I: None = None,
        cast: bool = False,
    ) -> tuple[_T, _T, SearchProfile]: ...
    @overload
    def profile_search(
        self,
        x: _Array,
        k: SupportsIndex,
        *,
        params: Any = None,
        D: _Array | None = None,
        I: _Array | None = None,
        cast: bool = False,
    ) -> tuple[Any, Any, SearchProfile]: ...
    def transfer_stats(self) -> TransferStats: ...
    def reset_transfer_stats(self) -> None: ...

class GpuIndexFlatL2(GpuIndexFlat, faiss.GpuIndexFlatL2):
    def __init__(
        self,
        provider: _Provider,
        index_or_dims: faiss.IndexFlat | int,
        config: faiss.GpuIndexFlatConfig = ...,
        staged: StagedConfig = ...,
        /,
    ) -> None: ...

class GpuIndexFlatIP(GpuIndexFlat, faiss.GpuIndexFlatIP):
    def __init__(
        self,
        provider: _Provider,
        index_or_dims: faiss.IndexFlat | int,
        config: faiss.GpuIndexFlatConfig = ...,
        staged: StagedConfig = ...,
        /,
    ) -> None: ...

# (Of Faiss' GpuIndexFlatIP too, but not of that of this package.)
class GpuIndexFlatCosine(GpuIndexFlat):
    def __init__(
        self,
        provider: _Provider,
        index_or_dims: faiss.IndexFlat | int,
        config: faiss.GpuIndexFlatConfig = ...,
        staged: StagedConfig = ...,
        /,
    ) -> None: ...

# Of Faiss, for arrays of every kind.
def normalize_L2(x: _Array) -> None: ...
@overload
def knn_gpu(
    res: _Provider,
    xq: _Array,
    xb: _Array,
    k: SupportsIndex,
    D: _DT,
    I: _IT,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    use_cuvs: bool = False,
    vectorsMemoryLimit: int = 0,
    queriesMemoryLimit: int = 0,
    *,
    cast: bool = False,
    **later: Any,
) -> tuple[_DT, _IT]: ...
@overload
def knn_gpu(
    res: _Provider,
    xq: _HostArray,
    xb: _Array,
    k: SupportsIndex,
    D: _Floats | None = None,
    I: _Labels | None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    use_cuvs: bool = False,
    vectorsMemoryLimit: int = 0,
    queriesMemoryLimit: int = 0,
    *,
    cast: bool = False,
    **later: Any,
) -> tuple[_Floats, _Labels]: ...
@overload
def knn_gpu(
    res: _Provider,
    xq: DeviceArray,
    xb: _Array,
    k: SupportsIndex,
    D: None = None,
    I: None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    use_cuvs: bool = False,
    vectorsMemoryLimit: int = 0,
    queriesMemoryLimit: int = 0,
    *,
    cast: bool = False,
    **later: Any,
) -> tuple[DeviceArray, DeviceArray]: ...
@overload
def knn_gpu(
    res: _Provider,
    xq: _Tensor[_T],
    xb: _Array,
    k: SupportsIndex,
    D: None = None,
    I: None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    use_cuvs: bool = False,
    vectorsMemoryLimit: int = 0,
    queriesMemoryLimit: int = 0,
    *,
    cast: bool = False,
    **later: Any,
) -> tuple[_T, _T]: ...
@overload
def knn_gpu(
    res: _Provider,
    xq: _Array,
    xb: _Array,
    k: SupportsIndex,
    D: _Array | None = None,
    I: _Array | None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    use_cuvs: bool = False,
    vectorsMemoryLimit: int = 0,
    queriesMemoryLimit: int = 0,
    *,
    cast: bool = False,
    **later: Any,
) -> tuple[Any, Any]: ...
@overload
def pairwise_distance_gpu(
    res: _Provider,
    xq: _Array,
    xb: _Array,
    D: _DT,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    *,
    cast: bool = False,
) -> _DT: ...
@overload
def pairwise_distance_gpu(
    res: _Provider,
    xq: _HostArray,
    xb: _Array,
    D: _Floats | None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    *,
    cast: bool = False,
) -> _Floats: ...
@overload
def pairwise_distance_gpu(
    res: _Provider,
    xq: DeviceArray,
    xb: _Array,
    D: None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    *,
    cast: bool = False,
) -> DeviceArray: ...
@overload
def pairwise_distance_gpu(
    res: _Provider,
    xq: _Tensor[_T],
    xb: _Array,
    D: None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    *,
    cast: bool = False,
) -> _T: ...
@overload
def pairwise_distance_gpu(
    res: _Provider,
    xq: _Array,
    xb: _Array,
    D: _Array | None = None,
    metric: int | _Cosine = 1,
    device: SupportsIndex = -1,
    *,
    cast: bool = False,
) -> Any: ...
@overload
def downcast_index(index: None) -> None: ...
@overload
def downcast_index(index: faiss.Index) -> Any: ...
# Whatever is no flat index is a `GpuIndex` as in Faiss' stubs; in truth it may
# be another class that holds such ones.
@overload
def index_cpu_to_gpu(
    provider: _Provider,
    device: SupportsIndex,
    index: faiss.IndexFlat,
    options: faiss.GpuClonerOptions | None = None,
) -> GpuIndexFlat: ...
@overload
def index_cpu_to_gpu(
    provider: _Provider,
    device: SupportsIndex,
    index: GpuIndexFlatCosine,
    options: faiss.GpuClonerOptions | None = None,
) -> GpuIndexFlatCosine: ...
@overload
def index_cpu_to_gpu(
    provider: _Provider,
    device: SupportsIndex,
    index: faiss.IndexBinary,
    options: faiss.GpuClonerOptions | None = None,
) -> faiss.IndexBinary: ...
@overload
def index_cpu_to_gpu(
    provider: _Provider,
    device: SupportsIndex,
    index: faiss.Index,
    options: faiss.GpuClonerOptions | None = None,
) -> GpuIndex: ...
index_binary_cpu_to_gpu = index_cpu_to_gpu
@overload
def index_cpu_to_gpu_multiple(
    provider: faiss.GpuResourcesVector,
    devices: faiss.Int32Vector,
    index: faiss.IndexBinary,
    options: faiss.GpuMultipleClonerOptions | None = None,
) -> faiss.IndexBinary: ...
@overload
def index_cpu_to_gpu_multiple(
    provider: faiss.GpuResourcesVector,
    devices: faiss.Int32Vector,
    index: faiss.Index,
    options: faiss.GpuMultipleClonerOptions | None = None,
) -> GpuIndex: ...
index_binary_cpu_to_gpu_multiple = index_cpu_to_gpu_multiple
@overload
def index_cpu_to_gpu_multiple_py(
    resources: Iterable[_Provider],
    index: faiss.IndexBinary,
    co: faiss.GpuMultipleClonerOptions | None = None,
    gpus: Iterable[SupportsIndex] | None = None,
) -> faiss.IndexBinary: ...
@overload
def index_cpu_to_gpu_multiple_py(
    resources: Iterable[_Provider],
    index: faiss.Index,
    co: faiss.GpuMultipleClonerOptions | None = None,
    gpus: Iterable[SupportsIndex] | None = None,
) -> GpuIndex: ...
@overload
def index_cpu_to_gpus_list(
    index: faiss.IndexBinary,
    co: faiss.GpuMultipleClonerOptions | None = None,
    gpus: Iterable[SupportsIndex] | None = None,
    ngpu: SupportsIndex = -1,
) -> faiss.IndexBinary: ...
@overload
def index_cpu_to_gpus_list(
    index: faiss.Index,
    co: faiss.GpuMultipleClonerOptions | None = None,
    gpus: Iterable[SupportsIndex] | None = None,
    ngpu: SupportsIndex = -1,
) -> GpuIndex: ...
@overload
def index_cpu_to_all_gpus(
    index: faiss.IndexBinary,
    co: faiss.GpuMultipleClonerOptions | None = None,
    ngpu: SupportsIndex = -1,
) -> faiss.IndexBinary: ...
@overload
def index_cpu_to_all_gpus(
    index: faiss.Index,
    co: faiss.GpuMultipleClonerOptions | None = None,
    ngpu: SupportsIndex = -1,
) -> GpuIndex: ...
