"""Stream-ordered results and any array for Faiss' GPU indexes.

A drop-in for Faiss: ``import faiss_ext as faiss``.
"""

import importlib as _importlib
import importlib.metadata as _metadata
import importlib.util as _util
import pathlib as _pathlib
import warnings as _warnings

from . import faiss_found as _faiss_found

_faiss = _faiss_found.import_faiss()
from faiss import *  # noqa: E402,F401,F403

# Of Faiss, if it was imported before; ours has that and more.
globals().pop("contrib", None)

try:
    __version__ = _metadata.version("faiss_ext")
except _metadata.PackageNotFoundError:
    __version__ = (
        (_pathlib.Path(__file__).parents[1] / "VERSION").read_text().strip()
    )

#: Why the native part is not in use; None where it is.
native_problem = None
_native_is_there = _util.find_spec(f"{__name__}._swigfaiss_ext") is not None
if not hasattr(_faiss, "GpuIndexFlat"):
    native_problem = (
        "this Faiss was built without GPU support; install one that was, and "
        "faiss_ext built on it (README.md, Install)"
    )
elif not _native_is_there:
    native_problem = (
        "this is the package without it; install one with it, or in a checkout "
        "run `make build` (README.md, Install)"
    )
else:
    try:
        from .native import *  # noqa: F401,F403
        from .native import on_host as _on_host

        globals().update(_on_host)
    except ImportError as _error:
        native_problem = str(_error)
if native_problem and _native_is_there:
    # It is there and cannot be used: not what anybody wanted.
    native_problem = _faiss_found.mixture_problem() or native_problem
    _warnings.warn(
        f"faiss_ext gives Faiss as it is: {native_problem}",
        RuntimeWarning,
        stacklevel=2,
    )

#: Whether the native part is in use: our GPU classes stand for Faiss'.
has_native = native_problem is None


def __getattr__(name):
    """Whatever Faiss has that `import *` does not take along."""
    if name == "contrib":
        return _importlib.import_module("faiss_ext.contrib")
    return getattr(_faiss, name)


def __dir__():
    return sorted({*globals(), *dir(_faiss)})
