"""Faiss' functions that make GPU indexes of CPU ones, with our flat classes."""

from __future__ import annotations

import faiss

from . import forks
from . import swigfaiss_ext as native
from .index_classes import ours

# Taken now: `in_place` may put ours in its place.
_stock_downcast_index = faiss.downcast_index


def downcast_index(index):
    """The index under its own type: as ``faiss.downcast_index`` says, of our
    classes. The result borrows from `index`, as in Faiss."""
    for downcast in (
        native.as_GpuIndexFlat,
        native.as_GpuIndexFlatL2,
        native.as_GpuIndexFlatIP,
    ):
        found = downcast(index)
        if found is not None:
            return found
    return ours(_stock_downcast_index(index))


def _owned(index):
    """A new index that C++ handed over as a plain Index, under its own type and
    from here on owned by Python."""
    return forks.watch(ours(native.owning_proxy(downcast_index(index))))


def index_cpu_to_gpu(provider, device, index, options=None):
    """Copy an index to a GPU; flat indexes, also inside others, become ours.

    Parameters
    ----------
    provider : faiss.GpuResourcesProvider
        Such as ``faiss.StandardGpuResources()``.
    device : int
    index : faiss.Index
        A CPU index.
    options : faiss.GpuClonerOptions, optional

    Returns
    -------
    faiss.Index
        The GPU index, owned by the caller.

    Raises
    ------
    RuntimeError
        With Faiss' text, such as for an index that has no GPU form.
    """
    return _owned(
        native.index_cpu_to_gpu_c(provider, device, index, options)
    )


def index_cpu_to_gpu_multiple(provider, devices, index, options=None):
    """The same on several GPUs, as replicas or (``options.shard``) shards.

    Parameters
    ----------
    provider : faiss.GpuResourcesVector
    devices : faiss.Int32Vector
    index : faiss.Index
    options : faiss.GpuMultipleClonerOptions, optional
    """
    return _owned(
        native.index_cpu_to_gpu_multiple_c(provider, devices, index, options)
    )


def index_cpu_to_gpu_multiple_py(resources, index, co=None, gpus=None):
    """`index_cpu_to_gpu_multiple` for Python sequences: one of the `resources`
    for each of the `gpus` (by default 0, 1, ...)."""
    if gpus is None:
        gpus = range(len(resources))
    providers = faiss.GpuResourcesVector()
    devices = faiss.Int32Vector()
    for gpu, resource in zip(gpus, resources):
        devices.push_back(gpu)
        providers.push_back(resource)
    return index_cpu_to_gpu_multiple(providers, devices, index, co)


def index_cpu_to_gpus_list(index, co=None, gpus=None, ngpu=-1):
    """Copy an index to the `gpus` (a list of ids), or to the first `ngpu`, or
    to all."""
    if gpus is None:
        gpus = range(faiss.get_num_gpus() if ngpu == -1 else ngpu)
    resources = [faiss.StandardGpuResources() for _ in gpus]
    return index_cpu_to_gpu_multiple_py(resources, index, co, gpus)


def index_cpu_to_all_gpus(index, co=None, ngpu=-1):
    """Copy an index to all GPUs, or to the first `ngpu`."""
    return index_cpu_to_gpus_list(index, co=co, gpus=None, ngpu=ngpu)
