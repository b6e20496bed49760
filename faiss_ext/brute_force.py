"""`knn_gpu` and `pairwise_distance_gpu` for arrays of any kind.

Where all arrays are NumPy's, Faiss' own functions do the work.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from . import swigfaiss_ext as native
from .arrays import is_numpy, is_on_gpu
from .calls import Call
from .errors import InvalidArray

_VECTOR_TYPES = {
    "float32": faiss.DistanceDataType_F32,
    "float16": faiss.DistanceDataType_F16,
}
_LABEL_TYPES = {
    "int64": faiss.IndicesDataType_I64,
    "int32": faiss.IndicesDataType_I32,
}


def knn_gpu(
    res: Any,
    xq: Any,
    xb: Any,
    k: int,
    D: Any = None,
    I: Any = None,
    metric: int = faiss.METRIC_L2,
) -> tuple[Any, Any]:
    """The k nearest of `xb` for each of `xq`, without an index.

    Parameters
    ----------
    res : faiss.StandardGpuResources
    xq, xb : array_like or GPU array, shapes (nq, d) and (nb, d)
        Both float32, or both float16 on the GPU. Row- or column-major.
    k : int
    D, I : array, optional
        Outputs of shape (nq, k), float32 and int64 or int32, C-contiguous, in
        host or GPU memory.
    metric : int

    Returns
    -------
    D, I : array
        The given outputs; else arrays in the family of `xq`, and int64.

    Raises
    ------
    InvalidArray
        If an array has another shape, dtype or layout.
    RuntimeError
        With the text of Faiss or CUDA.

    Notes
    -----
    The work is done on the GPU that `xq` lies on (else `xb`, else the current
    one), in the order of the default stream of `res` there: after what the
    arrays' streams hold, and these come after it. The host waits only for
    outputs in its memory.
    """
    if is_numpy(xq, xb, D, I):
        return faiss.knn_gpu(res, xq, xb, k, D, I, metric)
    k = int(k)
    if k < 1:
        raise InvalidArray(f"k is {k}; it must be 1 or more")
    run = _BruteForce(res, xq, xb, metric)
    run.arguments.k = k
    shape = (run.queries.shape[0], k)
    distances = run.call.output(D, "D", run.queries, shape, "float32")
    labels = run.call.output(I, "I", run.queries, shape, tuple(_LABEL_TYPES))
    run.arguments.outDistances = distances.pointer
    run.arguments.outIndices = labels.void_pointer
    run.arguments.outIndicesType = _LABEL_TYPES[labels.view.dtype]
    run(distances, labels)
    return distances.array, labels.array


def pairwise_distance_gpu(
    res: Any, xq: Any, xb: Any, D: Any = None, metric: int = faiss.METRIC_L2
) -> Any:
    """All distances between `xq` and `xb`.

    Parameters
    ----------
    res, xq, xb, metric
        As `knn_gpu`.
    D : array, optional
        Output of shape (nq, nb), float32, C-contiguous, in host or GPU memory.

    Returns
    -------
    D : array, shape (nq, nb), float32
        The given output; else an array in the family of `xq`.

    Raises
    ------
    InvalidArray, RuntimeError
        As `knn_gpu`, whose notes hold too.
    """
    if is_numpy(xq, xb, D):
        return faiss.pairwise_distance_gpu(res, xq, xb, D, metric)
    run = _BruteForce(res, xq, xb, metric)
    run.arguments.k = -1
    shape = (run.queries.shape[0], run.vectors.shape[0])
    distances = run.call.output(D, "D", run.queries, shape, "float32")
    run.arguments.outDistances = distances.pointer
    run(distances)
    return distances.array


class _BruteForce:
    """One call of Faiss' bfKnn, its inputs taken."""

    def __init__(self, res, xq, xb, metric):
        self.provider = res
        self.device = device = _gpu_of(xq, xb)
        self.call = Call(
            native.resources_stream_c(res, device),
            device,
            lambda size: native.make_buffer_c(res, device, size),
        )
        # Host arrays are float32, as an index has them; on the GPU both may be
        # float16.
        self.queries = self._matrix(xq, "xq", None)
        self.vectors = self._matrix(xb, "xb", self.queries.shape[1])
        types = self.queries.view.dtype, self.vectors.view.dtype
        if types[0] != types[1]:
            raise InvalidArray(
                f"xb: dtype {types[1]}; {types[0]} is needed, that of xq"
            )
        arguments = faiss.GpuDistanceParams()
        arguments.metric = metric
        arguments.dims = self.queries.shape[1]
        arguments.queries = self.queries.void_pointer
        arguments.queriesRowMajor = self.queries.view.contiguous
        arguments.queryType = _VECTOR_TYPES[types[0]]
        arguments.numQueries = self.queries.shape[0]
        arguments.vectors = self.vectors.void_pointer
        arguments.vectorsRowMajor = self.vectors.view.contiguous
        arguments.vectorType = _VECTOR_TYPES[types[1]]
        arguments.numVectors = self.vectors.shape[0]
        self.arguments = arguments

    def _matrix(self, x, name, d):
        return self.call.input(
            x, name, (None, d), tuple(_VECTOR_TYPES), column_major=True
        )

    def __call__(self, *outputs):
        if self.queries.shape[0] == 0:
            return
        on_host = any(not output.view.on_gpu for output in outputs)
        self.call.run(
            lambda: native.bf_knn_c(
                self.provider, self.arguments, self.device, on_host
            )
        )


def _gpu_of(*arrays):
    """The GPU that the first of `arrays` in GPU memory lies on, as it says or as
    the runtime does; the current one if none does."""
    for array in arrays:
        if is_on_gpu(array):
            device = _device_of(array)
            if device >= 0:
                return device
    return native.current_device_c()


def _device_of(array):
    from . import dlpack, gpu_memory
    from .arrays import array_view

    if dlpack.is_offered(array):
        return dlpack.device_of(array, "xq")[1]
    return gpu_memory.locate(array_view(array, "xq", -1), "xq").device
