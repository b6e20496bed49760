"""`faiss_ext.contrib` beside, and including, `faiss.contrib`."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import faiss.contrib
import pytest
from conftest import package_environment

import faiss_ext

OURS = {"cupy_interop", "rmm_interop", "torch_interop"}


def test_it_lies_in_the_package():
    import faiss_ext.contrib as contrib

    assert contrib is faiss_ext.contrib
    modules = {m.name for m in pkgutil.iter_modules(contrib.__path__)}
    assert {name for name in modules if not name.startswith("_")} == OURS


def test_a_module_of_faiss_is_the_same_under_both_names():
    second = importlib.import_module("faiss_ext.contrib.evaluation")
    import faiss.contrib.evaluation as first

    assert second is first is faiss_ext.contrib.evaluation
    assert first.__name__ == first.__spec__.name == "faiss.contrib.evaluation"
    from faiss_ext.contrib.evaluation import knn_intersection_measure

    assert knn_intersection_measure is first.knn_intersection_measure


@pytest.mark.parametrize("program", [
    "import faiss_ext.contrib.evaluation as a; import faiss.contrib.evaluation as b",
    "import faiss.contrib.evaluation as b; import faiss_ext.contrib.evaluation as a",
    "from faiss_ext.contrib import evaluation as a; from faiss.contrib import evaluation as b",
    "import faiss.contrib.evaluation as b, faiss_ext; a = faiss_ext.contrib.evaluation",
    "import faiss.contrib.evaluation as b, faiss_ext as faiss; a = faiss.contrib.evaluation",
])
def test_in_whatever_order_they_are_imported(program):
    done = subprocess.run(
        [sys.executable, "-c",
         f"{program}; assert a is b; import faiss_ext;"
         "assert faiss_ext.contrib.__name__ == 'faiss_ext.contrib'"],
        env=package_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_that_nobody_has_is_not_found():
    for name in ("nothing", "nothing.at_all", "evaluation.inside"):
        with pytest.raises(ModuleNotFoundError, match="nothing|inside"):
            importlib.import_module(f"faiss_ext.contrib.{name}")
    with pytest.raises(AttributeError, match="faiss_ext.contrib.*nothing"):
        faiss_ext.contrib.nothing
    assert not hasattr(faiss_ext.contrib, "nothing")


def test_packages_inside_have_one_copy_too(tmp_path, monkeypatch):
    inside = tmp_path / "a_package"
    inside.mkdir()
    (inside / "__init__.py").write_text("")
    (inside / "a_module.py").write_text("made = object()\n")
    monkeypatch.setattr(
        faiss.contrib, "__path__", [*faiss.contrib.__path__, str(tmp_path)])
    second = importlib.import_module("faiss_ext.contrib.a_package.a_module")
    first = importlib.import_module("faiss.contrib.a_package.a_module")
    assert second is first
    for name in [n for n in sys.modules if ".contrib.a_package" in n]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name, library, product", [
    ("cupy_interop", "cupy", "CuPy"),
    ("rmm_interop", "rmm", "RMM"),
    ("torch_interop", "torch", "PyTorch"),
])
def test_a_missing_library_is_one_clear_error(monkeypatch, name, library, product):
    monkeypatch.delitem(sys.modules, f"faiss_ext.contrib.{name}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError) as raised:
        importlib.import_module(f"faiss_ext.contrib.{name}")
    assert str(raised.value) == (
        f"faiss_ext.contrib.{name} is for {product}, and there is no module "
        f"'{library}'")
    assert raised.value.name == library


def test_without_the_native_part_there_are_no_resources(monkeypatch):
    from faiss_ext.contrib import _pools

    monkeypatch.setattr(faiss_ext, "has_native", False)
    monkeypatch.setattr(faiss_ext, "native_problem", "it rains")
    with pytest.raises(RuntimeError, match="need the native part.*it rains"):
        _pools.gpu_resources(None)
