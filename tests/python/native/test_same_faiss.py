"""Two builds of Faiss in one process are noticed when the package is imported."""

import subprocess
import sys

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
    assert "built on Faiss" in done.stdout and "is 9.8.7" in done.stdout
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
    from faiss_ext import same_faiss

    assert same_faiss.native.shares_types_with_faiss()
    monkeypatch.setattr(
        same_faiss.native, "shares_types_with_faiss", lambda: False
    )
    with pytest.raises(same_faiss.OtherFaiss, match="versions of SWIG"):
        same_faiss.check_same_faiss()
