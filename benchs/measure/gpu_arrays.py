"""Arrays of the GPU libraries that are installed, as users have them."""

from __future__ import annotations

from . import memory

#: For what offers the CUDA Array Interface and is of no library.
STAND_IN = "stand-in"


class Family:
    """One library's arrays: `name`; `of(values)` puts a NumPy array on the GPU."""

    def __init__(self, name, of):
        self.name, self.of = name, of


def families(native) -> list[Family]:
    """CuPy's and PyTorch's where they are installed and have a GPU; a stand-in
    where neither is."""
    found = []
    for name, make in (("CuPy", _cupy), ("torch", _torch)):
        try:
            found.append(Family(name, make()))
        except Exception:  # missing, or without a GPU
            continue
    return found or [
        Family(STAND_IN, lambda values: memory.OnGpu.of(native, values))
    ]


def on_host(array):
    """A NumPy array of an array of any of them."""
    for name in ("get", "copy_to_host"):
        if hasattr(array, name):
            return getattr(array, name)()
    return array.cpu().numpy() if hasattr(array, "cpu") else array


def _cupy():
    import cupy

    cupy.zeros(1)
    return cupy.asarray


def _torch():
    import torch

    torch.zeros(1).cuda()
    return lambda values: torch.from_numpy(values).cuda()
