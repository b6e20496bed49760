"""Two builds of Faiss in one process are noticed when the package is imported."""

import pathlib
import re
import subprocess
import sys

import faiss
import pytest


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True
    )


def test_another_version_is_named_and_stock_faiss_goes_on(faiss_ext):
    done = python(
        "import faiss\n"
        "faiss.__version__ = '9.8.7'\n"
        "import faiss_ext\n"
        "assert not faiss_ext.has_native\n"
        "assert faiss_ext.GpuIndexFlat is faiss.GpuIndexFlat\n"
        "print(faiss_ext.native_problem)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "the native part is built on " in done.stdout and "is 9.8.7" in done.stdout
    assert "RuntimeWarning: faiss_ext accelerates nothing" in done.stderr


def test_another_library_is_noticed(tmp_path):
    import ctypes.util
    import math

    # A module that does not use the library: any other shared object.
    other = math.__spec__.origin or ctypes.util.find_library("c")
    done = python(
        "import faiss, types\n"
        f"faiss.swigfaiss._swigfaiss.__file__ = {other!r}\n"
        "import faiss_ext\n"
        "assert not faiss_ext.has_native\n"
        "print(faiss_ext.native_problem)\n"
    )
    assert done.returncode == 0, done.stderr
    assert "does not use the library" in done.stdout


def test_the_right_one_is_taken_without_a_word():
    done = python("import faiss_ext; assert faiss_ext.has_native")
    assert done.returncode == 0 and "accelerates" not in done.stderr


def test_versions_of_swig_that_do_not_fit_are_noticed(faiss_ext, monkeypatch):
    from faiss_ext._loader import check_faiss as same_faiss
    from faiss_ext._native import swigfaiss_ext

    assert swigfaiss_ext.shares_types_with_faiss()
    monkeypatch.setattr(swigfaiss_ext, "shares_types_with_faiss", lambda: False)
    with pytest.raises(same_faiss.OtherFaiss, match="versions of SWIG"):
        same_faiss.check_same_faiss()


@pytest.fixture
def built_on(faiss_ext, monkeypatch):
    """What was recorded, as if the Faiss here were that of a wheel."""
    from faiss_ext._loader import built_on, faiss_build, check_faiss as same_faiss

    (part,) = same_faiss._compiled_parts()
    library = faiss_build.SharedLibrary(faiss_build.loaded_library(part))
    table = faiss_build.swig_table(pathlib.Path(part).parent)
    monkeypatch.setattr(built_on, "DISTRIBUTION", "faiss-gpu")
    monkeypatch.setattr(built_on, "FINGERPRINT", library.fingerprint())
    monkeypatch.setattr(built_on, "SWIG_TABLE", table)
    same_faiss.check_build()
    return built_on


def refused():
    """What the check before loading says, in one line."""
    from faiss_ext._loader import check_faiss as same_faiss

    with pytest.raises(same_faiss.OtherFaiss) as caught:
        same_faiss.check_build()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_library_of_another_build_is_named_and_so_is_the_fix(built_on, monkeypatch):
    found = built_on.FINGERPRINT
    monkeypatch.setattr(built_on, "FINGERPRINT", "build-id 0123")
    said = refused()
    assert f"built on faiss-gpu {built_on.VERSION} with the library of build-id 0123" in said
    assert re.search(rf"uses /\S*libfaiss\S* of {found}:", said)
    assert f"pip install --force-reinstall --no-deps faiss-gpu=={built_on.VERSION}`" in said


def test_a_build_with_cuvs_is_named(built_on, monkeypatch, tmp_path):
    (tmp_path / "_cuvs_build.py").touch()
    monkeypatch.setattr(faiss, "__file__", str(tmp_path / "__init__.py"))
    said = refused()
    assert f"a build with cuVS ({tmp_path})" in said
    assert "`pip uninstall faiss-gpu-cuvs`" in said


def test_another_table_of_types_is_noticed_before_loading(built_on, monkeypatch):
    found = built_on.SWIG_TABLE
    monkeypatch.setattr(built_on, "SWIG_TABLE", "99")
    assert f"(swig_runtime_data99 and swig_runtime_data{found})" in refused()
