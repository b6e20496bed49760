"""Faiss' functions that make GPU indexes of CPU ones, with our flat classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss

from .._gpus import first_gpus, gpu_number, gpu_numbers
from .._native import swigfaiss_ext as native
from ..errors import InvalidDevice, check_kind
from . import forks
from .classes import ours
from .float16 import warn_of_overflow
from .gpu_arguments import check_resources
from .keep_alive import keep_owner
from .staged import as_ours

# Taken now: `faiss-ext run` may put ours in their place.
_stock_downcast_index = faiss.downcast_index
_stock_binary_cloners = {
    name: getattr(faiss, name, None)
    for name in (
        "index_binary_cpu_to_gpu", "index_binary_cpu_to_gpu_multiple"
    )
}


def downcast_index(index: Any) -> Any:
    """The index under its own type: as ``faiss.downcast_index`` says, of our
    classes. The result borrows from `index`, as in Faiss, and keeps it alive.

    Examples
    --------
    >>> index = faiss.IndexIDMap(faiss.IndexFlatL2(4))
    >>> isinstance(faiss.downcast_index(index.index), faiss.IndexFlat)
    True
    """
    found = as_ours(index)
    if found is None:
        found = ours(_stock_downcast_index(index))
    return keep_owner(found, index)


def _owned(index: Any) -> Any:
    """A new index that C++ handed over as a plain Index, under its own type and
    from here on owned by Python."""
    made = forks.watch(ours(native.owning_proxy(downcast_index(index))))
    warn_of_overflow(made)
    return made


def _owned_binary(index: Any) -> Any:
    """The same for a binary index, which Faiss' module (1.15) leaves without an
    owner."""
    return forks.watch(
        ours(index if index.thisown else native.owning_proxy(index)))


def index_cpu_to_gpu(
    provider: Any, device: Any, index: Any, options: Any = None
) -> Any:
    """Copy an index to a GPU; flat indexes, also inside others, become ours.

    Parameters
    ----------
    provider : faiss.GpuResourcesProvider
        Such as ``faiss.StandardGpuResources()``.
    device : int
        0 to ``get_num_gpus() - 1``.
    index : faiss.Index or faiss.IndexBinary
        A CPU index; a binary one where this Faiss can; or a
        `GpuIndexFlatCosine`, which stays one.
    options : faiss.GpuClonerOptions, optional

    Returns
    -------
    faiss.Index or faiss.IndexBinary
        The GPU index, owned by the caller.

    Raises
    ------
    InvalidDevice
        If there is no such GPU.
    TypeError
        If an argument is of another kind, or None.
    RuntimeError
        With Faiss' text, such as for an index that has no GPU form.

    Examples
    --------
    >>> index = faiss.IndexFlatL2(4)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    >>> isinstance(gpu, faiss.GpuIndexFlat), gpu.ntotal
    (True, 4)
    """
    check_resources(provider, "provider")
    device = gpu_number(device, "device")
    _check_index(index)
    _check_options(options, faiss.GpuClonerOptions, "options")
    if isinstance(index, faiss.IndexBinary):
        clone = _binary_cloner("index_binary_cpu_to_gpu", index)
        return _owned_binary(clone(provider, device, index, options))
    return _owned(
        native.index_cpu_to_gpu_c(provider, device, index, options)
    )


def index_cpu_to_gpu_multiple(
    provider: Any, devices: Any, index: Any, options: Any = None
) -> Any:
    """The same on several GPUs, as replicas or (``options.shard``) shards.

    Parameters
    ----------
    provider : faiss.GpuResourcesVector
        One for each of the `devices`.
    devices : faiss.Int32Vector
        One or more. A GPU may be named several times.
    index : faiss.Index or faiss.IndexBinary
    options : faiss.GpuMultipleClonerOptions, optional

    Returns
    -------
    faiss.Index or faiss.IndexBinary
        Owned by the caller.

    Raises
    ------
    InvalidDevice
        If there is no such GPU, none is named, or there are not as many
        resources.
    TypeError, RuntimeError
        As `index_cpu_to_gpu`.

    Examples
    --------
    >>> resources, devices = faiss.GpuResourcesVector(), faiss.Int32Vector()
    >>> for gpu in [0, 0]:
    ...     resources.push_back(faiss.StandardGpuResources())
    ...     devices.push_back(gpu)
    >>> index = faiss.IndexFlatL2(4)
    >>> index = faiss.index_cpu_to_gpu_multiple(resources, devices, index)
    >>> type(index).__name__, index.count()
    ('IndexReplicas', 2)
    """
    check_kind(
        provider, faiss.GpuResourcesVector, "provider",
        "a faiss.GpuResourcesVector",
    )
    check_kind(devices, faiss.Int32Vector, "devices", "a faiss.Int32Vector")
    _check_fit(
        provider.size(), "provider",
        gpu_numbers(map(devices.at, range(devices.size())), "devices"),
        "devices",
    )
    _check_index(index)
    _check_options(options, faiss.GpuMultipleClonerOptions, "options")
    if isinstance(index, faiss.IndexBinary):
        clone = _binary_cloner("index_binary_cpu_to_gpu_multiple", index)
        return _owned_binary(clone(provider, devices, index, options))
    return _owned(
        native.index_cpu_to_gpu_multiple_c(provider, devices, index, options)
    )


# They take binary indexes too.
index_binary_cpu_to_gpu = index_cpu_to_gpu
index_binary_cpu_to_gpu_multiple = index_cpu_to_gpu_multiple


def index_cpu_to_gpu_multiple_py(
    resources: Any, index: Any, co: Any = None, gpus: Any = None
) -> Any:
    """`index_cpu_to_gpu_multiple` for Python sequences.

    Parameters
    ----------
    resources : sequence of faiss.GpuResourcesProvider
    index : faiss.Index or faiss.IndexBinary
    co : faiss.GpuMultipleClonerOptions, optional
    gpus : sequence of int, optional
        One for each of the `resources`; by default 0, 1, ...

    Raises
    ------
    InvalidDevice, TypeError, RuntimeError
        As `index_cpu_to_gpu_multiple`.

    Examples
    --------
    >>> resources = [faiss.StandardGpuResources() for _ in range(2)]
    >>> options = faiss.GpuMultipleClonerOptions()
    >>> options.shard = True
    >>> index = faiss.index_cpu_to_gpu_multiple_py(
    ...     resources, faiss.IndexFlatL2(4), options, gpus=[0, 0])
    >>> type(index).__name__, index.count()
    ('IndexShards', 2)
    """
    try:
        resources = list(resources)
    except TypeError:
        raise TypeError(
            f"resources: {type(resources).__name__}; a list is needed, one for "
            "each GPU"
        ) from None
    for i, resource in enumerate(resources):
        check_resources(resource, f"resources[{i}]")
    if gpus is None:
        gpus = range(len(resources))
    numbers = gpu_numbers(gpus, "gpus")
    _check_fit(len(resources), "resources", numbers, "gpus")
    providers = faiss.GpuResourcesVector()
    devices = faiss.Int32Vector()
    for gpu, resource in zip(numbers, resources):
        devices.push_back(gpu)
        providers.push_back(resource)
    _check_options(co, faiss.GpuMultipleClonerOptions, "co")
    return index_cpu_to_gpu_multiple(providers, devices, index, co)


def index_cpu_to_gpus_list(
    index: Any, co: Any = None, gpus: Any = None, ngpu: Any = -1
) -> Any:
    """Copy an index to several GPUs, with resources of its own for each.

    Parameters
    ----------
    index : faiss.Index or faiss.IndexBinary
    co : faiss.GpuMultipleClonerOptions, optional
    gpus : sequence of int, optional
        The GPUs; then `ngpu` does not count.
    ngpu : int
        The first so many, 1 or more; -1: all.

    Raises
    ------
    InvalidDevice, TypeError, RuntimeError
        As `index_cpu_to_gpu_multiple`.

    Examples
    --------
    >>> index = faiss.index_cpu_to_gpus_list(faiss.IndexFlatL2(4), gpus=[0, 0])
    >>> index.count()
    2
    """
    if gpus is None:
        gpus = first_gpus(ngpu, "ngpu")
    gpus = gpu_numbers(gpus, "gpus")
    _check_index(index)
    resources = [faiss.StandardGpuResources() for _ in gpus]
    return index_cpu_to_gpu_multiple_py(resources, index, co, gpus)


def index_cpu_to_all_gpus(index: Any, co: Any = None, ngpu: Any = -1) -> Any:
    """Copy an index to all GPUs, or to the first `ngpu`, as
    `index_cpu_to_gpus_list`.

    Examples
    --------
    >>> index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(4), ngpu=1)
    >>> index.add(np.eye(4, dtype="float32"))
    >>> index.ntotal
    4
    """
    return index_cpu_to_gpus_list(index, co=co, gpus=None, ngpu=ngpu)


def _check_index(index: Any) -> None:
    check_kind(
        index, (faiss.Index, faiss.IndexBinary), "index", "an index on the CPU"
    )


def _check_options(options: Any, kind: type, name: str) -> None:
    if options is not None:
        check_kind(options, kind, name, f"faiss.{kind.__name__}")


def _check_fit(
    resources: int, of_resources: str, gpus: list[int], of_gpus: str
) -> None:
    if resources != len(gpus):
        raise InvalidDevice(
            f"{of_resources}: {resources} for {len(gpus)} GPUs ({of_gpus}: "
            f"{gpus}); give one for each"
        )


def _binary_cloner(name: str, index: Any) -> Callable[..., Any]:
    """Faiss' function of this name, which versions before 1.8 lack."""
    clone: Callable[..., Any] | None = _stock_binary_cloners[name]
    if clone is None:
        raise TypeError(
            f"index: {type(index).__name__}; this Faiss ({faiss.__version__}) "
            "copies no binary index to a GPU: use "
            "GpuIndexBinaryFlat(resources, index) on one, for an "
            "IndexBinaryFlat, or a later Faiss"
        )
    return clone
