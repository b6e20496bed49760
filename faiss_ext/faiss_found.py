"""The module `faiss` that this package extends: loaded, or what is wrong with it.

CUDA's libraries come from where the loader finds them, from the CUDA wheels on
PyPI, or from a toolkit. A wheel of this package may carry Faiss
(docs/architecture.md, Packaging); then another distribution that brings a `faiss`
has put its files among those.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import pathlib
import re
import sys
from types import ModuleType

_NOT_FOUND = re.compile(
    r"(lib(?:cudart|cublas|cublasLt)\.so\.(\d+)): cannot open shared object"
)


def import_faiss() -> ModuleType:
    """Import `faiss`.

    A library of CUDA that the loader does not find is loaded from the CUDA
    wheels, wherever on `sys.path` they are, or from the toolkit that CUDA_HOME or
    CUDA_PATH names, else the one in /usr/local/cuda.

    Raises
    ------
    ImportError
        With one line that says what to install, where that is known; else what
        the import raised.
    """
    loaded = set()
    while True:
        try:
            return importlib.import_module("faiss")
        # AttributeError: names of one build, and the compiled part of another.
        except (ImportError, AttributeError) as error:
            missing = _NOT_FOUND.match(str(error))
            if missing and missing[1] not in loaded and _load_cuda(missing[1]):
                loaded.add(missing[1])
                continue
            problem: str | None
            if missing:
                problem = f"Faiss needs {missing[1]}: {_cuda_fix(missing[2])}"
            else:
                problem = mixture_problem()
            if problem:
                raise ImportError(problem, name="faiss") from None
            if getattr(error, "name", None) != "faiss":
                raise
            raise ModuleNotFoundError(
                "faiss_ext extends Faiss, and there is no module 'faiss': "
                "install faiss-cpu, or a Faiss that was built for the GPU",
                name="faiss",
            ) from None


def other_distributions() -> list[str]:
    """Installed distributions that have put files among those of the Faiss that
    this one carries; empty if it carries none."""
    # Python 3.10's `packages_distributions` does not look into RECORD.
    owners = {
        distribution.metadata["Name"]
        for distribution in importlib.metadata.distributions()
        if any(str(file) == "faiss/__init__.py" for file in distribution.files or ())
    }
    ours = {"faiss_ext", "faiss-ext"}
    return sorted(owners - ours) if ours & owners else []


def mixture_problem() -> str | None:
    """One line that says that, and the fix; None if it is not so."""
    others = other_distributions()
    if not others:
        return None
    names = " ".join(others)
    return (
        f"faiss_ext carries its Faiss, and {names} overwrote parts of it: "
        f"`pip uninstall {names}`, then install faiss_ext again with "
        "`pip install --force-reinstall --no-deps`"
    )


def _load_cuda(name: str) -> bool:
    """Load a library of CUDA from an installed wheel or a toolkit, if one has it.
    What is linked to it finds it by its name afterwards."""
    variables = map(os.environ.get, ("CUDA_HOME", "CUDA_PATH"))
    toolkit = pathlib.Path(next(filter(None, variables), "/usr/local/cuda"))
    places = [
        *(path for folder in map(pathlib.Path, sys.path)
          for path in sorted(folder.glob(f"nvidia/*/lib/{name}"))),
        toolkit / "lib64" / name,
    ]
    for path in filter(pathlib.Path.is_file, places):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return True
    return False


def _cuda_fix(major: str) -> str:
    """What to do where CUDA's libraries of this version are missing."""
    if int(major) < 13:
        wheels = f"nvidia-cuda-runtime-cu{major} nvidia-cublas-cu{major}"
    else:
        wheels = f"'nvidia-cuda-runtime=={major}.*' 'nvidia-cublas=={major}.*'"
    return f"install CUDA {major}, or its wheels, `pip install {wheels}`"
