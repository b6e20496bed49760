"""DLPack, as a consumer reads it: the Python half of the protocol.

The native part takes the capsule and answers for its deleter (ArrayGlue.h,
gpu/arrays/DLPackView.h). Where there is none, `host_capsules` reads that of host
memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._loader.native_part import native
from ..errors import InvalidArray
from . import host_capsules, placement
from .view import ArrayView, attribute, libraries_of

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
ON_GPU = (CUDA, CUDA_MANAGED)
#: What is borrowed must be. (PyTorch says of pinned tensors that they are such,
#: and gives them as host memory.)
_KINDS = {CPU: ("host",), CUDA: ("device",), CUDA_HOST: ("pinned", "host"),
          CUDA_MANAGED: ("managed",)}
#: What we read: the highest version of DLPack whose layout is known.
_VERSION = (1, 0)
#: What reads a capsule.
_reader: Any = native or host_capsules


def is_supported(array: Any) -> bool:
    """Whether `array` has both methods of the protocol."""
    return callable(attribute(array, "__dlpack__")) and callable(
        attribute(array, "__dlpack_device__")
    )


def device_of(array: Any, name: str) -> tuple[int, int]:
    """(device type, number) as the array says, of a type we can read."""
    found = _ask(name, "__dlpack_device__", array.__dlpack_device__)
    try:
        kind, number = found
        device = int(kind), int(number)
    except (TypeError, ValueError):
        raise InvalidArray(
            f"{name}: its __dlpack_device__ gave {found!r}; "
            "(device type, number) is needed"
        ) from None
    if device[0] not in _KINDS:
        raise InvalidArray(
            f"{name}: on DLPack device type {device[0]}; "
            "the host (1) and CUDA (2, 3, 13) are taken"
        )
    if device[0] == CUDA and native:
        count = native.gpu_count_c()
        if not 0 <= device[1] < count:
            raise InvalidArray(
                f"{name}: says it is on GPU {device[1]}; this process sees "
                f"{count} GPU{'s' if count != 1 else ''}, numbered from 0"
            )
    return device


def view(
    array: Any,
    name: str,
    device: tuple[int, int],
    stream: int | None,
    gpu: int,
    writable: bool,
    owner: Any = None,
) -> ArrayView:
    """Take an array through its ``__dlpack__``.

    Parameters
    ----------
    array : object
    name : str
    device : tuple
        What `device_of` gave.
    stream : int or None
        Handle of the stream that will use the array, -1 for no ordering; None
        for host memory.
    gpu : int
        The GPU of the call; -1: the host.
    writable : bool
    owner : object, optional
        What holds the array, or what the exporter raised, where that was asked
        already.

    Raises
    ------
    InvalidArray
        If the exporter raises, or what is borrowed is refused; then it has been
        given back.
    """
    if is_negated(array, name):
        raise InvalidArray(
            f"{name}: its numbers lie in memory with the opposite sign "
            "(is_neg()), which DLPack does not tell; resolve_neg() first"
        )
    if isinstance(owner, Exception):
        raise _raised(name, "__dlpack__", owner) from owner
    before: tuple[tuple[int, int], ...] = ()
    after: tuple[tuple[int, int], ...] = ()
    if device[0] == CUDA:
        there = current_stream(array, device[1])
        # An exporter orders our stream after its own, and so takes it into a
        # capture.
        if native:
            native.refuse_capture_c(there, device[1], name)
        after = ((there, device[1]),)
        if stream != -1 and gpu != device[1]:
            # An exporter takes a handle for a stream of its own GPU. A default
            # stream of ours has the same handle as the one there.
            stream, before = there, after
    if owner is None:
        wish: dict[str, Any] = {}
        if device[0] in ON_GPU:
            # CUDA's handle of the legacy default stream is 0, the protocol's 1.
            wish["stream"] = stream or 1
        capsule = _export(array, name, device, wish, writable)
        owner = _reader.take_dlpack_c(name, capsule)
    description, copied = _reader.describe_borrowed_c(name, owner)
    found = ArrayView(*description)
    number = found.device if found.kind == "device" else -1
    said = device[1] if device[0] == CUDA else -1
    if found.kind not in _KINDS[device[0]] or number != said:
        raise InvalidArray(
            f"{name}: its __dlpack_device__ gave {device}, but its array is "
            f"of kind {found.kind!r}, number {found.device}"
        )
    # Who works on the host alone does not start CUDA for ordinary memory.
    asks = device[0] == CUDA_HOST or (device[0] == CPU and gpu >= 0)
    if asks and found.span:
        placement.refuse_unreadable(
            name, found.lowest, found.span, pinned=device[0] == CUDA_HOST
        )
    if writable and found.readonly:
        raise InvalidArray(
            f"{name}: read-only, but results are written to it"
        )
    if writable and copied:
        raise InvalidArray(
            f"{name}: its __dlpack__ gives a copy, where results would be lost"
        )
    return found._replace(
        device=number if found.span else -1,
        ready_after=before,
        used_next_on=after,
        owner=(array, owner),
    )


def is_on_gpu(array: Any) -> bool:
    """Whether `array` says it is memory of a GPU, by any protocol. Asks for no
    pointer, and does not judge."""
    if array is None or isinstance(array, np.ndarray):
        return False
    if attribute(array, "__cuda_array_interface__") is not None:
        return True
    if not is_supported(array):
        return False
    try:
        return device_of(array, "array")[0] in ON_GPU
    except InvalidArray:
        return False


def is_negated(array: Any, name: str) -> bool:
    """Whether the memory of `array` holds the negatives of its numbers. PyTorch
    has such views (``z.conj().imag``), and exports them as they lie."""
    method = attribute(array, "is_neg")
    return callable(method) and bool(_ask(name, "is_neg", method))


def _ask(name: str, what: str, call: Any, *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except InvalidArray:
        raise
    except Exception as error:
        raise _raised(name, what, error) from error


def _raised(name: str, what: str, error: Exception) -> InvalidArray:
    return InvalidArray(
        f"{name}: its {what} raised {type(error).__name__}: {error}"
    )


def _export(
    array: Any,
    name: str,
    device: tuple[Any, ...],
    wish: dict[str, Any],
    writable: bool,
) -> Any:
    """Call ``__dlpack__`` by the newest signature, then by the oldest. Its GPU
    is current meanwhile: PyTorch refuses to export a tensor of another one.
    Pinned memory stays where it is unasked: PyTorch does not know its name."""
    if device[0] != CUDA_HOST:
        wish = {**wish, "dl_device": device}
    with placement.current(device[1] if device[0] == CUDA else -1):
        try:
            return array.__dlpack__(
                **wish,
                max_version=_VERSION,
                copy=False if writable else None,
            )
        except TypeError:
            # An exporter from before these words.
            wish.pop("dl_device", None)
            return _ask(name, "__dlpack__", array.__dlpack__, **wish)
        except Exception as error:
            raise _raised(name, "__dlpack__", error) from error


def current_stream(array: Any, device: int) -> int:
    """The stream that the array's library goes on with.

    DLPack lets an exporter's work come before ours, and says nothing of its
    work after. A library with a current stream (``cuda.current_stream``) uses
    that, also for classes that others derive from its own; for others it is the
    legacy default stream.
    """
    for library in libraries_of(array):
        current = attribute(attribute(library, "cuda"), "current_stream")
        if callable(current):
            try:
                stream = current(device)
                protocol = attribute(stream, "__cuda_stream__")
                if callable(protocol):
                    return int(protocol()[1]) or 1
                return int(stream.cuda_stream) or 1
            except Exception:
                pass
    return 1
