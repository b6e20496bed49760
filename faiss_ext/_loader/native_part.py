"""Whether the native part, `swigfaiss_ext`, is in use: the one place that decides.

What works with and without it (host arrays on indexes on the CPU) takes `native`
from here. Modules that are nothing without it import `swigfaiss_ext` themselves,
and are imported where it is in use.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import faiss

from . import find_faiss
from .check_faiss import check_build, check_same_faiss, share_loaded_library

#: Whether there is a compiled module, which may not fit.
is_there = importlib.util.find_spec("faiss_ext._native._swigfaiss_ext") is not None

#: Whether the module `faiss` has GPU indexes.
faiss_has_gpu = hasattr(faiss, "GpuIndexFlat")


def _load() -> tuple[Any, str | None]:
    """`swigfaiss_ext`, or why it is not in use."""
    if not faiss_has_gpu:
        problem = (
            "this Faiss was built without GPU support; install one that was, "
            "and faiss_ext built on it (README.md, Install)"
        )
    elif not is_there:
        problem = (
            "this is faiss_ext without its native part; install it with it, or "
            "in a checkout run `make build` (README.md, Install)"
        )
    else:
        try:
            # Loading it beside another build may end the process.
            check_build()
            share_loaded_library()
            from .._native import swigfaiss_ext

            check_same_faiss()
            return swigfaiss_ext, None
        except ImportError as error:
            problem = str(error)
    return None, find_faiss.mixture_problem() or problem


#: The module, and None; or None, and why it is not in use.
native, problem = _load()
