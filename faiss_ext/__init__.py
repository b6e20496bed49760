"""Stream-ordered results and any array for Faiss' GPU indexes.

A drop-in for Faiss: ``import faiss_ext as faiss``.
"""

import importlib as _importlib
import importlib.metadata as _metadata
import pathlib as _pathlib
import warnings as _warnings

try:
    import faiss as _faiss
    from faiss import *  # noqa: F401,F403
except ModuleNotFoundError as _error:
    if _error.name != "faiss":
        raise
    raise ModuleNotFoundError(
        "faiss_ext extends Faiss, and there is no module 'faiss': install "
        "faiss-cpu, or a Faiss that was built for the GPU",
        name="faiss",
    ) from None

try:
    __version__ = _metadata.version("faiss_ext")
except _metadata.PackageNotFoundError:
    __version__ = (
        (_pathlib.Path(__file__).parents[1] / "VERSION").read_text().strip()
    )

#: Why the native part is missing; None where it is there.
native_problem = None
if not hasattr(_faiss, "GpuIndexFlat"):
    native_problem = "this Faiss was built without GPU support"
else:
    try:
        from .native import *  # noqa: F401,F403
        from .native import on_host as _on_host

        globals().update(_on_host)
    except ImportError as _error:
        native_problem = str(_error)
        if any(_pathlib.Path(__file__).parent.glob("_swigfaiss_ext*")):
            # It is there and cannot be used: not what anybody wanted.
            _warnings.warn(
                f"faiss_ext gives Faiss as it is: {native_problem}",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            native_problem = (
                "these are the sources; `make build` makes it, in a folder of "
                "its own that PYTHONPATH must name first (see README.md)"
            )

#: Whether the native part is in use: our GPU classes stand for Faiss'.
has_native = native_problem is None


def __getattr__(name):
    """Whatever Faiss has that `import *` does not take along."""
    if name == "contrib":
        return _importlib.import_module("faiss.contrib")
    return getattr(_faiss, name)


def __dir__():
    return sorted({*globals(), *dir(_faiss)})
