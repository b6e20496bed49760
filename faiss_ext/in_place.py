"""Our classes and functions in the module `faiss` itself, for programs that
say ``import faiss``."""

from __future__ import annotations

import faiss

import faiss_ext


def replace_in_faiss() -> list[str]:
    """Let the module `faiss` of this process hold what replaces its own.

    Modules that are imported later (``faiss.contrib`` among them) find ours;
    what has taken a class out of `faiss` before keeps Faiss' own.

    Returns
    -------
    list of str
        The names replaced; none where there is no native part.
    """
    if not faiss_ext.has_native:
        return []
    from . import native

    for name in native.__all__:
        setattr(faiss, name, getattr(native, name))
    return list(native.__all__)
