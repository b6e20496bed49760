"""The module `faiss` that this package extends: loaded, or what is wrong with it.

CUDA's libraries come from where the loader finds them, from the CUDA wheels on
PyPI, or from a toolkit. Several distributions bring a `faiss`, into the same
folder, and pip does not notice; then what is there is a mixture.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import os
import pathlib
import re
import sys
from types import ModuleType

from . import faiss_build

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
        except RuntimeError as error:
            # The wheels of a GPU Faiss look for CUDA's wheels, one by one.
            if not str(error).startswith("faiss-gpu"):
                raise
            raise ImportError(
                f"{error}; {mixture_problem() or _wheel_fix()}", name="faiss"
            ) from None


def built_on() -> ModuleType | None:
    """What the native part is built on, if that is the Faiss of a wheel."""
    try:
        recorded = importlib.import_module(f"{__package__}.built_on")
    except ImportError:
        return None
    return recorded if recorded.DISTRIBUTION else None


def reinstall(recorded: ModuleType) -> str:
    """The command that brings back the Faiss of a wheel."""
    return (
        "`pip install --force-reinstall --no-deps "
        f"{recorded.DISTRIBUTION}=={recorded.VERSION}`"
    )


def mixture_problem() -> str | None:
    """One line that says that several distributions have put their files into the
    folder `faiss`, and the fix; None if it is not so."""
    folder = _folder()
    owners = faiss_build.owners(folder) if folder else []
    if len(owners) < 2:
        return None
    recorded = built_on()
    if recorded and recorded.DISTRIBUTION in {each.name for each in owners}:
        wanted, again = recorded.DISTRIBUTION, reinstall(recorded)
    else:
        likely = next((each for each in owners if "gpu" in each.name), owners[0])
        wanted, again = "", (
            "install the one that is wanted, such as "
            f"`pip install {likely.name}=={likely.version}`"
        )
    others = " ".join(each.name for each in owners if each.name != wanted)
    return (
        f"{' and '.join(map(str, owners))} have put their files into the same "
        f"folder, {folder}, and overwritten each other's: `pip uninstall {others}`, "
        f"then {again}"
    )


def _folder() -> pathlib.Path | None:
    """Where the module `faiss` is, whether or not it can be imported."""
    spec = importlib.machinery.PathFinder.find_spec("faiss")
    return pathlib.Path(spec.origin).parent if spec and spec.origin else None


def _wheel_fix() -> str:
    """What to do where a wheel of Faiss lacks CUDA's wheels."""
    folder, recorded = _folder(), built_on()
    if not folder or not faiss_build.has_cuvs(folder):
        return (
            "`pip install --upgrade 'faiss_ext[cuda12]'` brings all that the wheel "
            "faiss-gpu needs of CUDA 12"
        )
    if not recorded:
        return "builds of Faiss with cuVS are not supported by faiss_ext"
    return (
        f"the native part of faiss_ext is built on {recorded.DISTRIBUTION} "
        f"{recorded.VERSION}, and not on a build with cuVS: `pip uninstall "
        f"faiss-gpu-cuvs`, then {reinstall(recorded)}"
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
        wheels = " ".join(
            f"nvidia-{part}-cu{major}" for part in ("cuda-runtime", "cublas", "curand"))
    else:
        wheels = f"'nvidia-cuda-runtime=={major}.*' 'nvidia-cublas=={major}.*'"
    return f"install CUDA {major}, or its wheels, `pip install {wheels}`"
