"""The modules of ``faiss.contrib`` under a second name.

A package path that names both folders would load a module of Faiss twice, once
under each name; some of them (``torch_utils``) change Faiss' classes when they
are loaded. So the import of the second name gives the module of the first.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_THEIRS = "faiss.contrib"


class _SecondName(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what the package itself does not have, and Faiss' has."""

    def __init__(self, package: str, path: Sequence[str]):
        self._prefix = package + "."
        self._path = path
        self._specs: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(self._prefix):
            return None
        child = self._prefix + fullname[len(self._prefix):].partition(".")[0]
        if importlib.machinery.PathFinder.find_spec(child, self._path):
            return None
        try:
            if importlib.util.find_spec(self._first_name(fullname)) is None:
                return None
        except ModuleNotFoundError:
            # Not even the folder that it would lie in.
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._first_name(spec.name))
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It ran under its first name, which is to stay its name.
        second = module.__spec__
        assert second is not None
        module.__spec__ = self._specs.pop(second.name)

    def _first_name(self, fullname: str) -> str:
        return f"{_THEIRS}.{fullname[len(self._prefix):]}"


def show_in(package: str, path: Sequence[str]) -> None:
    """Let imports from `package` find Faiss' modules, after those on `path`."""
    # First, because a folder of Faiss' under its second name would be searched
    # by the usual finder.
    sys.meta_path.insert(0, _SecondName(package, path))


def attribute(package: str, name: str) -> object:
    """What Faiss' package has under `name`. Raises AttributeError."""
    try:
        return getattr(importlib.import_module(_THEIRS), name)
    except (AttributeError, ModuleNotFoundError):
        raise AttributeError(
            f"module {package!r} has no attribute {name!r}"
        ) from None
