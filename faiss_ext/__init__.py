"""Stream-ordered results and any array for Faiss' GPU indexes.

A drop-in for Faiss: ``import faiss_ext as faiss``.
"""

import importlib as _importlib
import importlib.metadata as _metadata
import pathlib as _pathlib
import sys as _sys
import warnings as _warnings

from ._loader import checkout as _checkout, find_faiss as _find_faiss

_faiss = _find_faiss.import_faiss()
from faiss import *  # noqa: E402

# Of Faiss, if it was imported before; ours has that and more.
globals().pop("contrib", None)
_checkout.show_contrib()
#: What `import *` takes along: not the modules of this package.
__all__ = [
    _name for _name in vars(_faiss)
    if not _name.startswith("_") and _name in globals()
]

try:
    __version__ = _metadata.version("faiss_ext")
except _metadata.PackageNotFoundError:
    __version__ = (
        (_pathlib.Path(__file__).parents[1] / "VERSION").read_text().strip()
    )

from ._loader import native_part as _native_part  # noqa: E402

#: Why the native part is not in use; None where it is.
native_problem = _native_part.problem
#: Whether the native part is in use: our GPU classes stand for Faiss'.
has_native = native_problem is None

_mixture = _find_faiss.mixture_problem()
if _mixture:
    _warnings.warn(
        f"faiss_ext{'' if has_native else ' accelerates nothing'}: {_mixture}",
        RuntimeWarning,
        stacklevel=2,
    )

if has_native:
    from . import _with_native as _ours
else:
    from . import _without_native as _ours
    if not _mixture and (_native_part.is_there or _native_part.faiss_has_gpu):
        # Not what anybody wanted.
        _warnings.warn(
            f"faiss_ext accelerates nothing: {native_problem}",
            RuntimeWarning,
            stacklevel=2,
        )
for _made in _ours._names.values():
    # Where users find a class, pickles and messages name it, too.
    if isinstance(_made, type) and _made.__module__ != "faiss_ext.errors":
        _made.__module__ = "faiss_ext"
_replaced = {**_ours._names, **_ours._on_host}
globals().update(_replaced)
__all__ += ["has_native", "native_problem", *(_replaced.keys() - {*__all__})]


def __getattr__(name: str) -> object:
    """Whatever Faiss has that `import *` does not take along."""
    if name == "contrib":
        return _importlib.import_module("faiss_ext.contrib")
    try:
        return getattr(_faiss, name)
    except AttributeError:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}",
            name=name, obj=_sys.modules[__name__],
        ) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_faiss)})
