"""The package beside Faiss."""

from __future__ import annotations

import pathlib
import pkgutil

import faiss

import faiss_ext


def test_no_module_hides_something_of_faiss():
    modules = {m.name for m in pkgutil.iter_modules(faiss_ext.__path__)}
    assert "errors" in modules
    # `contrib` has what Faiss' has, and more.
    assert not modules & set(vars(faiss)) - {"contrib"}


def test_the_version_is_that_of_the_project():
    version = pathlib.Path(__file__).parents[2] / "VERSION"
    assert faiss_ext.__version__ == version.read_text().strip()


def test_whether_the_native_part_is_there_agrees_with_why_not():
    assert faiss_ext.has_native == (faiss_ext.native_problem is None)
