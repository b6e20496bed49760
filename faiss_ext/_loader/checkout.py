"""`faiss_ext.contrib` where the package is used as it lies in a checkout: there
`contrib/` lies beside it. The build tree and installations have it inside."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


class _ContribBesideThePackage(importlib.abc.MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != f"{_PACKAGE.name}.contrib":
            return None
        return importlib.machinery.PathFinder.find_spec(
            fullname, [str(_PACKAGE.parent)]
        )


def show_contrib() -> None:
    """Let imports find it. (Behind all other finders: what is inside counts.)"""
    if (_PACKAGE.parent / "contrib" / "_faiss_contrib.py").exists():
        sys.meta_path.append(_ContribBesideThePackage())
