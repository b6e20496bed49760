"""The package's modules import one another in one direction."""

from __future__ import annotations

import ast
import graphlib
import pathlib

import pytest
from check_tools import ROOT

PACKAGE = ROOT / "faiss_ext"
pytestmark = pytest.mark.skipif(
    not (PACKAGE / "__init__.py").exists(), reason="needs the sources"
)
#: What imports and what is imported, from the bottom up. What is in none of them
#: (`__init__`, the command line, profiling, contrib) stands above.
LAYERS = ("errors", "_native", "_loader", "_gpus", "_interop", "memory", "_call", "_index")


def modules(folder: pathlib.Path, package: str) -> dict[str, pathlib.Path]:
    """The modules in a folder, by their full names."""
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join((package, *parts)).removesuffix(".__init__")
        found[name] = path
    return found


def imports(name: str, path: pathlib.Path, known: set[str]) -> set[str]:
    """The modules among `known` that one imports, wherever in it: a circle that a
    function or TYPE_CHECKING hides is a circle."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                found.add(inner if inner in known else origin)
    return found & known - {name}


def graph(folder: pathlib.Path, package: str) -> dict[str, set[str]]:
    """What each module imports of the same package."""
    found = modules(folder, package)
    return {name: imports(name, path, set(found)) for name, path in found.items()}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none where there is no such."""
    try:
        tuple(graphlib.TopologicalSorter(edges).static_order())
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_module_imports_itself_by_way_of_others():
    edges = graph(PACKAGE, "faiss_ext")
    edges.update(graph(ROOT / "contrib", "faiss_ext.contrib"))
    assert len(edges) > 50
    assert circle(edges) == []


def test_folders_import_in_one_direction():
    def layer(name: str) -> int:
        part = [*name.split("."), ""][1]
        return LAYERS.index(part) if part in LAYERS else len(LAYERS)

    upwards = [
        f"{name} imports {imported}"
        for name, found in graph(PACKAGE, "faiss_ext").items()
        for imported in found if layer(imported) > layer(name)
    ]
    assert upwards == []


def test_the_view_of_an_array_depends_on_nothing_of_ours():
    assert graph(PACKAGE, "faiss_ext")["faiss_ext._interop.view"] == set()


def test_hidden_circles_are_seen(tmp_path):
    (tmp_path / "__init__.py").write_text("from . import a")
    (tmp_path / "a.py").write_text("def work():\n    from .folder import b")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/__init__.py").touch()
    b = tmp_path / "folder/b.py"
    b.write_text("import os, p.folder")
    assert circle(graph(tmp_path, "p")) == []
    b.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..a import work")
    assert set(circle(graph(tmp_path, "p"))) == {"p.a", "p.folder.b"}
