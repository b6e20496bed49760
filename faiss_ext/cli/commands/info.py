"""Versions, devices, and what this installation can do.

Examples:
  faiss-ext info
"""

from __future__ import annotations

import argparse
import os
import platform
import textwrap
from types import ModuleType

import faiss
import numpy

import faiss_ext

from ..._gpus import gpu_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command: none."""


def run(args: argparse.Namespace) -> int:
    """Print the report on standard output."""
    problem = faiss_ext.native_problem
    gpus, meaning = gpu_count()
    rows = [
        ("faiss_ext", f"{faiss_ext.__version__}, {_folder(faiss_ext)}"),
        ("native part", f"not in use: {problem}" if problem else "in use"),
        ("Faiss", f"{faiss.__version__}, {_folder(faiss)}"),
        ("compiled with", faiss.get_compile_options().strip() or "unknown"),
        ("GPUs", f"{gpus} ({meaning})"),
        ("searches", _searches()),
        ("NumPy", numpy.__version__),
        ("Python", f"{platform.python_version()}, {platform.platform()}"),
    ]
    for name, value in rows:
        print(
            textwrap.fill(
                value,
                79,
                initial_indent=f"{name:<14} ",
                subsequent_indent=" " * 15,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return 0


def _searches() -> str:
    """By which kernels indexes search that are not told otherwise."""
    chosen = os.environ.get("FAISS_EXT_SEARCH", "")
    if not chosen:
        return (
            "by the exact engine on GPUs of compute capability 9.0, else by "
            "Faiss' kernels (FAISS_EXT_SEARCH: 'exact' or 'faiss')"
        )
    if chosen == "exact":
        return "by the exact engine, where it knows the GPU (FAISS_EXT_SEARCH)"
    if chosen == "faiss":
        return "by Faiss' kernels (FAISS_EXT_SEARCH)"
    return f"none: FAISS_EXT_SEARCH is {chosen!r}; give 'exact' or 'faiss'"


def _folder(module: ModuleType) -> str:
    return os.path.dirname(module.__file__ or "")
