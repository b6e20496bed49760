"""`normalize_L2` for arrays of every kind: Faiss' own for host memory, and a kernel
of ours for arrays on a GPU."""

from __future__ import annotations

from typing import Any

import faiss

from .._call import in_flight
from .._interop import cai, dlpack, placement
from .._interop.dlpack import is_on_gpu
from .._interop.take import array_view
from .._interop.view import ArrayView
from .._native import swigfaiss_ext as native
from ..errors import InvalidArray, check_shape
from . import decisions
from .host import takes_any_host_array

# Taken now: `faiss-ext run` may put ours in its place.
_stock_normalize_L2 = faiss.normalize_L2
_normalize_on_host = takes_any_host_array(
    lambda: _stock_normalize_L2, "normalize_L2",
    decisions.FUNCTIONS["normalize_L2"],
    # Arrays on a GPU do not come there.
    lambda where, subject: "give host memory",
    method=False,
)


def normalize_L2(x: Any) -> None:
    """Divide each vector by its length, in place.

    Parameters
    ----------
    x : array, shape (n, d), float32
        C-contiguous and writable, in host or GPU memory, of any library.

    Raises
    ------
    InvalidArray
        If it has another shape, dtype or layout, or cannot be written to (as
        those of JAX).
    RuntimeError
        With the text of CUDA; while a stream of the array is being captured
        into a CUDA graph.

    Notes
    -----
    Vectors of zeros stay as they are. On host memory Faiss' own function does
    it, in float32. On a GPU the formula is that of `GpuIndexFlatCosine`, right
    for lengths of every size: it leaves vectors as they are that are normalised
    already, and makes those with NaN or infinity all NaN. The work there is
    in the order of the array's stream, on its GPU; the host does not wait.

    Examples
    --------
    >>> x = np.array([[3, 4], [0, 0]], dtype="float32")
    >>> faiss.normalize_L2(x)
    >>> x
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    >>> faiss.normalize_L2(gpu_queries)
    """
    if not is_on_gpu(x):
        _normalize_on_host(x)
        return
    device, stream = _where(x)
    view = array_view(x, "x", stream, gpu=device, writable=True)
    check_shape("x", view.shape, (None, None))
    _check(view)
    view = cai.with_streams_of_its_gpu(placement.locate(view, "x"), "x")
    if view.span == 0:
        return
    if view.device >= 0:
        device = view.device
    # Where the array's library goes on with it, so that nothing is put in
    # order but what it has elsewhere.
    of_library = [s for s, gpu in view.used_next_on if gpu == device]
    stream = of_library[0] if of_library else stream
    for handle, gpu in {*view.ready_after, *view.used_next_on, (stream, device)}:
        native.refuse_capture_c(handle, gpu, "x")
    for before, gpu in view.ready_after:
        native.order_streams_c(before, gpu, stream, device)
    n, d = view.shape
    native.normalize_rows_c(view.pointer, n, d, view.pointer, stream, device)
    for after, gpu in view.used_next_on:
        native.order_streams_c(stream, device, after, gpu)
    in_flight.release_finished()
    in_flight.keep(stream, device, [(x, view.owner)])


def _where(x: Any) -> tuple[int, int]:
    """The GPU of an array, and the stream of it that its library goes on with:
    both only as far as it says by DLPack."""
    device = int(native.current_device_c())
    if dlpack.is_supported(x):
        kind, number = dlpack.device_of(x, "x")
        if kind == dlpack.CUDA:
            device = number
    return device, dlpack.current_stream(x, device)


def _check(view: ArrayView) -> None:
    if view.dtype != "float32":
        raise InvalidArray(
            f"x: dtype {view.dtype}; float32 is needed in GPU memory, where it is "
            "normalised in place, such as x.astype('float32')"
        )
    if not view.contiguous:
        raise InvalidArray(
            "x: with gaps or column-major; C-contiguous rows are needed, such as "
            "a copy of it"
        )
