"""`knn_gpu` and `pairwise_distance_gpu`: one way for arrays of every kind, NumPy's
too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss

from .._call.call import Call
from .._call.operand import Operand
from .._gpus import gpu_or_any
from .._interop import dlpack, host, placement
from .._interop.dlpack import is_on_gpu
from .._interop.take import array_view
from .._interop.view import ArrayView
from .._native import swigfaiss_ext as native
from ..errors import MOST, InvalidArray, whole_number
from .cosine import is_cosine
from .gpu_arguments import check_resources

# Taken now: `faiss-ext run` may put ours in their place.
_stock_knn_gpu = faiss.knn_gpu

_LABEL_TYPES = {
    "int64": faiss.IndicesDataType_I64,
    "int32": faiss.IndicesDataType_I32,
}
#: GPU_MAX_SELECTION_K of Faiss, which only asserts it here: a larger k would end
#: the process.
_LARGEST_K = 2048


def knn_gpu(
    res: Any,
    xq: Any,
    xb: Any,
    k: int,
    D: Any = None,
    I: Any = None,
    metric: int | str = faiss.METRIC_L2,
    device: int = -1,
    use_cuvs: bool = False,
    vectorsMemoryLimit: int = 0,
    queriesMemoryLimit: int = 0,
    *,
    cast: bool = False,
    **later: Any,
) -> tuple[Any, Any]:
    """The k nearest of `xb` for each of `xq`, without an index.

    Parameters
    ----------
    res : faiss.StandardGpuResources
    xq, xb : array_like or GPU array, shapes (nq, d) and (nb, d)
        float32, row- or column-major. Others are converted as by the indexes:
        host arrays by NumPy, GPU arrays on their GPU. (Faiss computes with two
        float16 arrays as they are, and squares in float16, so that it finds
        others than the nearest.)
    k : int
        1 to 2048.
    D, I : array, optional
        Outputs of shape (nq, k), float32 (or float16) and int64 or int32,
        C-contiguous, in host or GPU memory.
    metric : int or "cosine"
        One of Faiss' metrics; or cosine similarity, the inner products of
        vectors that are normalised as by `GpuIndexFlatCosine`, in copies.
    device : int
        The GPU that does the work; -1: the one that `xq` lies on (else `xb`, else
        the current one).
    cast : bool
        Whether GPU arrays of float64 and wider integers are converted there
        too, to the nearest float32.
    use_cuvs, vectorsMemoryLimit, queriesMemoryLimit, **later
        What later versions of Faiss take beside these, for host arrays alone:
        Faiss' own function does it.

    Returns
    -------
    D, I : array
        The given outputs; else arrays of the library of `xq`, and int64 (for host
        queries in pinned memory, as by `search`). The label is -1 where there
        are fewer than k vectors.

    Raises
    ------
    InvalidArray
        If an array has another shape, dtype or layout.
    InvalidDevice
        If there is no such GPU, or none at all.
    TypeError
        If `res` are no resources, or `device` is no int.
    RuntimeError
        With the text of Faiss or CUDA.

    Notes
    -----
    The work is done on the GPU that `xq` lies on (else `xb`, else the current
    one), in the order of the default stream of `res` there: after what the
    arrays' streams hold, and these come after it. The host waits only for
    arrays in its memory: then results are complete, and inputs may be written.
    Any number of threads may use the same `res`.

    Examples
    --------
    >>> vectors = np.eye(4, dtype="float32")
    >>> D, I = faiss.knn_gpu(faiss.StandardGpuResources(), vectors[:2], vectors, k=1)
    >>> I.ravel()
    array([0, 1])
    """
    device = _check_where(res, device)
    k = whole_number("k", k, 1, MOST)
    limits = {
        "use_cuvs": use_cuvs,
        "vectorsMemoryLimit": vectorsMemoryLimit,
        "queriesMemoryLimit": queriesMemoryLimit,
        **later,
    }
    limits = {name: value for name, value in limits.items() if value}
    if k > _LARGEST_K and not limits.get("use_cuvs"):
        raise InvalidArray(f"k: {k}; 1 to {_LARGEST_K} is needed")
    search = _BruteForce(res, xq, xb, metric, device, cast)
    shape = (search.queries.shape[0], k)
    distances = search.call.output(
        D, "D", search.queries, shape, "float32", narrow=not limits
    )
    labels = search.call.output(
        I, "I", search.queries, shape, tuple(_LABEL_TYPES)
    )
    search.run(k, distances, labels, limits)
    return distances.array, labels.array


def pairwise_distance_gpu(
    res: Any,
    xq: Any,
    xb: Any,
    D: Any = None,
    metric: int | str = faiss.METRIC_L2,
    device: int = -1,
    *,
    cast: bool = False,
) -> Any:
    """All distances between `xq` and `xb`.

    Parameters
    ----------
    res, xq, xb, metric, device, cast
        As `knn_gpu`.
    D : array, optional
        Output of shape (nq, nb), float32, C-contiguous, in host or GPU memory.

    Returns
    -------
    D : array, shape (nq, nb), float32
        The given output; else an array of the library of `xq`.

    Raises
    ------
    InvalidArray, InvalidDevice, TypeError, RuntimeError
        As `knn_gpu`, whose notes hold too.

    Examples
    --------
    >>> vectors = np.eye(3, dtype="float32")
    >>> faiss.pairwise_distance_gpu(faiss.StandardGpuResources(), vectors[:1], vectors)
    array([[0., 2., 2.]], dtype=float32)
    """
    device = _check_where(res, device)
    search = _BruteForce(res, xq, xb, metric, device, cast)
    shape = (search.queries.shape[0], search.vectors.shape[0])
    distances = search.call.output(
        D, "D", search.queries, shape, "float32", narrow=True
    )
    search.run(-1, distances)
    return distances.array


def _check_where(res: Any, device: Any) -> int:
    """Raise InvalidDevice or TypeError unless these can do the work; -1 is the
    GPU of the arrays. Returns the device."""
    check_resources(res, "res")
    return gpu_or_any(device, "device")


class _BruteForce:
    """One call of Faiss' bfKnn, its inputs taken."""

    def __init__(
        self, res: Any, xq: Any, xb: Any, metric: int | str, device: int, cast: bool
    ):
        self.provider, self.cast = res, cast
        self.normalize = is_cosine(metric)
        self.metric: Any = (
            faiss.METRIC_INNER_PRODUCT if self.normalize else metric
        )
        if device == -1:
            device = _gpu_of(xq=xq, xb=xb)
        self.device = device
        resources = res.getResources()
        self.call = Call(
            res, resources, device,
            native.resources_stream_c(resources, device), stock=True,
        )
        views = self.call.view(xq, "xq"), self.call.view(xb, "xb")
        none_of_any_d = views[0].shape == (0,) and len(views[1].shape) == 2
        self.queries = self._matrix(
            xq, "xq", (None, views[1].shape[1] if none_of_any_d else None),
            views[0],
        )
        self.vectors = self._matrix(
            xb, "xb", (None, self.queries.shape[1]), views[1]
        )

    def _matrix(
        self, x: Any, name: str, shape: tuple[Any, ...], view: ArrayView
    ) -> Operand:
        return self.call.input(
            x, name, shape, "float32", cast=self.cast, column_major=True,
            normalize=self.normalize, view=view,
        )

    def run(
        self,
        k: int,
        distances: Operand,
        labels: Operand | None = None,
        limits: dict[str, Any] | None = None,
    ) -> None:
        """Search, or with k = -1 compute all distances."""
        if not (self.queries.shape[0] and distances.shape[1]):
            return
        if limits and labels is not None:
            work = self._by_faiss(k, distances, labels, limits)
        else:
            def work() -> None:
                native.bf_knn_c(
                    self.provider, self._arguments(k, distances, labels),
                    self.device,
                )
        self.call.run(work)

    def _by_faiss(
        self,
        k: int,
        distances: Operand,
        labels: Operand,
        limits: dict[str, Any],
    ) -> Callable[[], Any]:
        """The same by Faiss' Python function, which takes more arguments."""
        arrays = []
        for operand in (self.queries, self.vectors, distances, labels):
            if operand.view.on_gpu:
                raise InvalidArray(
                    f"{operand.name}: in GPU memory; not supported with "
                    f"{', '.join(limits)}, which need host arrays"
                )
            arrays.append(host.as_numpy(operand.view, operand.name))
        xq, xb, D, I = arrays
        return lambda: _stock_knn_gpu(
            self.provider, xq, xb, k, D, I, self.metric, device=self.device,
            **limits,
        )

    def _arguments(
        self, k: int, distances: Operand, labels: Operand | None
    ) -> faiss.GpuDistanceParams:
        queries, vectors = self.queries, self.vectors
        made = faiss.GpuDistanceParams()
        made.metric = self.metric
        made.k = k
        made.dims = queries.shape[1]
        made.queries = queries.void_pointer
        made.queriesRowMajor = queries.view.contiguous
        made.queryType = faiss.DistanceDataType_F32
        made.numQueries = queries.shape[0]
        made.vectors = vectors.void_pointer
        made.vectorsRowMajor = vectors.view.contiguous
        made.vectorType = faiss.DistanceDataType_F32
        made.numVectors = vectors.shape[0]
        made.outDistances = distances.pointer
        if labels is not None:
            made.outIndices = labels.void_pointer
            made.outIndicesType = _LABEL_TYPES[labels.dtype]
        return made


def _gpu_of(**arrays: Any) -> int:
    """The GPU that the first of `arrays` in GPU memory lies on, as it says or as
    the runtime does; the current one if none does."""
    for name, array in arrays.items():
        if is_on_gpu(array):
            device = _device_of(array, name)
            if device >= 0:
                return device
    return int(native.current_device_c())


def _device_of(array: Any, name: str) -> int:
    if dlpack.is_supported(array):
        return int(dlpack.device_of(array, name)[1])
    return placement.locate(array_view(array, name, -1), name).device
