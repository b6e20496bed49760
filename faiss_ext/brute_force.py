"""`knn_gpu` and `pairwise_distance_gpu` for arrays of any kind.

Where all arrays are NumPy's, Faiss' own functions do the work.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from . import dlpack, gpu_memory
from . import swigfaiss_ext as native
from .arrays import array_view, is_on_gpu
from .calls import Call
from .errors import InvalidArray, check_shape
from .gpu_arguments import check_resources, gpu_or_any
from .index_methods import count

# Taken now: `in_place` may put ours in their place.
_stock_knn_gpu = faiss.knn_gpu
_stock_pairwise_distance_gpu = faiss.pairwise_distance_gpu

_VECTOR_TYPES = {
    "float32": faiss.DistanceDataType_F32,
    "float16": faiss.DistanceDataType_F16,
}
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
    metric: int = faiss.METRIC_L2,
    device: int = -1,
    *,
    cast: bool = False,
    **limits: Any,
) -> tuple[Any, Any]:
    """The k nearest of `xb` for each of `xq`, without an index.

    Parameters
    ----------
    res : faiss.StandardGpuResources
    xq, xb : array_like or GPU array, shapes (nq, d) and (nb, d)
        Both float32, or both float16 on the GPU. Row- or column-major; others
        are converted on the GPU, as by the indexes.
    k : int
        1 to 2048.
    D, I : array, optional
        Outputs of shape (nq, k), float32 and int64 or int32, C-contiguous, in
        host or GPU memory.
    metric : int
    device : int
        The GPU that does the work; -1: the one that `xq` lies on (else `xb`, else
        the current one).
    cast : bool
        Whether GPU arrays of float64 and wider integers are converted there
        too, to the nearest float32.
    **limits
        What later versions of Faiss take beside these, for NumPy arrays alone.

    Returns
    -------
    D, I : array
        The given outputs; else arrays in the family of `xq`, and int64.

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
    outputs in its memory.
    """
    device = _check_where(res, device)
    k = count(k)
    if k > _LARGEST_K and not limits.get("use_cuvs"):
        raise InvalidArray(f"k: {k}; 1 to {_LARGEST_K} is needed")
    plain = _are_plain((xq, xb), (D, I))
    if limits and not plain:
        raise InvalidArray(
            f"{', '.join(limits)}: for NumPy arrays alone, unmasked, and outputs "
            "that are C-contiguous and writable"
        )
    if limits or (device == -1 and plain):
        if device != -1:
            limits["device"] = device
        _check_vectors(xq, xb)
        _check_outputs((len(xq), k), D=D, I=I)
        return _stock_knn_gpu(res, xq, xb, k, D, I, metric, **limits)
    search = _BruteForce(res, xq, xb, metric, device, cast)
    shape = (search.queries.shape[0], k)
    distances = search.call.output(
        D, "D", search.queries, shape, "float32", narrow=True
    )
    labels = search.call.output(
        I, "I", search.queries, shape, tuple(_LABEL_TYPES)
    )
    search.run(k, distances, labels)
    return distances.array, labels.array


def pairwise_distance_gpu(
    res: Any,
    xq: Any,
    xb: Any,
    D: Any = None,
    metric: int = faiss.METRIC_L2,
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
        The given output; else an array in the family of `xq`.

    Raises
    ------
    InvalidArray, InvalidDevice, TypeError, RuntimeError
        As `knn_gpu`, whose notes hold too.
    """
    device = _check_where(res, device)
    if device == -1 and _are_plain((xq, xb), (D,)):
        _check_vectors(xq, xb)
        _check_outputs((len(xq), len(xb)), D=D)
        return _stock_pairwise_distance_gpu(res, xq, xb, D, metric)
    search = _BruteForce(res, xq, xb, metric, device, cast)
    shape = (search.queries.shape[0], search.vectors.shape[0])
    distances = search.call.output(
        D, "D", search.queries, shape, "float32", narrow=True
    )
    search.run(-1, distances)
    return distances.array


def _check_where(res, device):
    """Raise InvalidDevice or TypeError unless these can do the work; -1 is the
    GPU of the arrays. Returns the device."""
    check_resources(res, "res")
    return gpu_or_any(device, "device")


def _check_vectors(xq, xb):
    """Refuse NumPy arrays of which Faiss would only assert that they fit."""
    check_shape("xq", np.shape(xq), (None, None))
    check_shape("xb", np.shape(xb), (None, xq.shape[1]))


def _check_outputs(shape, **outputs):
    """The same for outputs; None is one that Faiss makes."""
    for name, output in outputs.items():
        if output is not None:
            check_shape(name, output.shape, shape)


class _BruteForce:
    """One call of Faiss' bfKnn, its inputs taken."""

    def __init__(self, res, xq, xb, metric, device, cast):
        self.provider, self.metric, self.cast = res, metric, cast
        if device == -1:
            device = _gpu_of(xq=xq, xb=xb)
        self.device = device
        resources = res.getResources()
        self.call = Call(
            res, resources, device,
            native.resources_stream_c(resources, device), stock=True,
        )
        # Host arrays are float32, as an index has them; on the GPU both may be
        # float16.
        self.queries = self._matrix(xq, "xq", None)
        self.vectors = self._matrix(xb, "xb", self.queries.shape[1])
        types = self.queries.dtype, self.vectors.dtype
        if types[0] != types[1]:
            raise InvalidArray(
                f"xb: dtype {types[1]}; {types[0]} is needed, that of xq"
            )

    def _matrix(self, x, name, d):
        return self.call.input(
            x, name, (None, d), tuple(_VECTOR_TYPES),
            cast=self.cast, column_major=True,
        )

    def run(self, k, distances, labels=None):
        """Search, or with k = -1 compute all distances."""
        if self.queries.shape[0] > 0:
            self.call.run(lambda: native.bf_knn_c(
                self.provider, self._arguments(k, distances, labels),
                self.device,
            ))

    def _arguments(self, k, distances, labels):
        queries, vectors = self.queries, self.vectors
        made = faiss.GpuDistanceParams()
        made.metric = self.metric
        made.k = k
        made.dims = queries.shape[1]
        made.queries = queries.void_pointer
        made.queriesRowMajor = queries.view.contiguous
        made.queryType = _VECTOR_TYPES[queries.dtype]
        made.numQueries = queries.shape[0]
        made.vectors = vectors.void_pointer
        made.vectorsRowMajor = vectors.view.contiguous
        made.vectorType = _VECTOR_TYPES[vectors.dtype]
        made.numVectors = vectors.shape[0]
        made.outDistances = distances.pointer
        if labels is not None:
            made.outIndices = labels.void_pointer
            made.outIndicesType = _LABEL_TYPES[labels.dtype]
        return made


def _are_plain(inputs, outputs):
    """Whether all are NumPy's, and as Faiss' own functions want them."""
    return all(type(x) is np.ndarray for x in inputs) and all(
        x is None or (type(x) is np.ndarray and x.flags.carray)
        for x in outputs
    )


def _gpu_of(**arrays):
    """The GPU that the first of `arrays` in GPU memory lies on, as it says or as
    the runtime does; the current one if none does."""
    for name, array in arrays.items():
        if is_on_gpu(array):
            device = _device_of(array, name)
            if device >= 0:
                return device
    return native.current_device_c()


def _device_of(array, name):
    if dlpack.is_offered(array):
        return dlpack.device_of(array, name)[1]
    return gpu_memory.locate(array_view(array, name, -1), name).device
