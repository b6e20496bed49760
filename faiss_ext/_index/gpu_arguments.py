"""What GPU indexes are made of, checked before Faiss is asked: resources, GPUs,
None. Faiss ends the process over some of these, and over others makes an index on
fewer GPUs, or one that has lost its vectors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import faiss

from .._gpus import first_gpus, gpu_number, gpu_or_any
from ..errors import check_kind, refuse_none, said


def check_resources(value: Any, name: str) -> None:
    """Raise TypeError unless it is what Faiss takes as GPU resources."""
    if not isinstance(value, _RESOURCES):
        raise TypeError(
            f"{name}: {said(value)}; resources are needed, such as "
            "faiss.StandardGpuResources()"
        )


def check_constructor(what: str, args: tuple[Any, ...]) -> None:
    """Judge the arguments of a constructor of a GPU index, of Faiss or of ours:
    the resources first, the configuration somewhere behind them."""
    if not args:
        raise TypeError(
            f"{what}: no argument; resources are needed, such as "
            "faiss.StandardGpuResources(), and then dimensions or an index"
        )
    check_resources(args[0], f"{what}: resources")
    configs = [v for v in args[1:] if isinstance(v, faiss.GpuIndexConfig)]
    if configs:
        gpu_number(configs[0].device, f"{what}: config.device")
    else:
        # What Faiss takes where no other is named.
        gpu_number(0, f"{what}: device")
    refuse_none(what, args)


def check_device_methods(the_class: type, stock: type) -> None:
    """Let a class of resources check the number of a GPU that its methods take
    first."""

    def checked(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Any, device: Any, *args: Any) -> Any:
            return method(self, gpu_number(device, "device"), *args)

        return call

    for name in (
        "getDefaultStream", "getTempMemoryAvailable", "revertDefaultStream",
        "setDefaultStream", "supportsBFloat16",
    ):
        if name in vars(stock):
            setattr(the_class, name, checked(vars(stock)[name]))
    name = "syncDefaultStreamCurrentDevice"
    if name in vars(stock):
        setattr(the_class, name, _where_there_is_a_gpu(vars(stock)[name]))


def _where_there_is_a_gpu(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        gpu_number(0, f"{method.__name__}: device")
        return method(self, *args)

    return call


def check_kmeans(construct: Callable[..., Any]) -> Callable[..., Any]:
    """The constructor of Faiss' ``Kmeans``, which takes a number of GPUs."""

    @functools.wraps(construct)
    def call(self: Any, *args: Any, **options: Any) -> None:
        gpus = options.get("gpu")
        # True is for all, or for the CPU where there are none.
        if gpus and gpus is not True:
            first_gpus(gpus, "gpu")
        construct(self, *args, **options)

    return call


def checked_brute_force(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Faiss' ``bfKnn`` and its kin, for arguments that are there."""

    @functools.wraps(stock)
    def call(resources: Any, args: Any, *limits: Any) -> Any:
        check_resources(resources, "resources")
        check_kind(
            args, faiss.GpuDistanceParams, "args", "faiss.GpuDistanceParams"
        )
        # Versions before 1.8 take the current GPU.
        gpu_or_any(getattr(args, "device", -1), "args.device")
        return stock(resources, args, *limits)

    return call


#: (The second is a name that Faiss' stubs do not have.)
_RESOURCES = (
    faiss.GpuResourcesProvider,
    faiss.GpuResources,  # type: ignore[attr-defined]
)
