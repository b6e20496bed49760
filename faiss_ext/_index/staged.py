"""Our index classes of C++: those that `STAGED` in the SWIG file names, without a
list of them in Python.
"""

from __future__ import annotations

from typing import Any

from .._loader.native_part import native

#: All of them; none without the native part.
CLASSES: tuple[Any, ...] = tuple(
    member for member in (vars(native).values() if native else ())
    if hasattr(member, "downcast_c")
)
#: Those that store the vectors themselves, in the order of their labels.
FLAT = tuple(c for c in CLASSES if hasattr(c, "beyondFloat16"))


def is_ours(index: Any) -> bool:
    """Whether the C++ of an index is ours."""
    return isinstance(index, CLASSES)


def as_ours(index: Any) -> Any:
    """A GPU index whose C++ is ours, under our class; None for another."""
    return _under(CLASSES, index)


def as_our_flat(index: Any) -> Any:
    """The same of flat ones."""
    return _under(FLAT, index)


def _under(classes: tuple[Any, ...], index: Any) -> Any:
    for the_class in classes:
        found = the_class.downcast_c(index)
        if found is not None:
            return found
    return None
