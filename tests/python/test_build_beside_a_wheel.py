"""What CMake says where a wheel of Faiss, headers and tools do not fit.

Each case is a made-up wheel, right but for one thing, and a configuration that
ends with one line that names what was found and the fix.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from test_faiss_build import wheel

from conftest import ROOT

NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")

pytestmark = pytest.mark.skipif(not NVCC, reason="no CUDA toolkit here")


class Beside:
    """A folder with a made-up wheel `faiss-gpu` 1.15.1 and headers that fit it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        said = subprocess.run([NVCC, "--version"], capture_output=True, text=True).stdout
        self.cuda = int(re.search(r"release (\d+)\.", said)[1])
        self.faiss = wheel(folder / "site", ("faiss-gpu", "1.15.1"))
        self.library(self.cuda)
        self.types("99")
        self.headers("1.15.1")

    def compile(self, name: str, text: str, *options: str) -> pathlib.Path:
        """A shared library in the wheel's folder."""
        path = self.faiss / name
        subprocess.run(
            ["g++", "-shared", "-nostdlib", "-x", "c++", "-", "-x", "none",
             f"-Wl,-soname,{name}", "-o", str(path), *options],
            input=text, text=True, check=True,
        )
        return path

    def library(self, cuda: int | None) -> None:
        """libfaiss.so, linked to that version of CUDA."""
        runtime = cuda and self.compile(f"libcudart.so.{cuda}", "")
        self.compile("libfaiss.so", "", "-Wl,--no-as-needed", *([str(runtime)] if cuda else []))

    def types(self, table: str) -> None:
        """The compiled part of the module, by a SWIG with that table of types."""
        self.compile("_swigfaiss.abi3.so", f'char types[] = "swig_runtime_data{table}";')

    def headers(self, version: str) -> None:
        """Headers of that version, as far as they are looked at."""
        folder = self.folder / "headers" / "faiss"
        (folder / "gpu").mkdir(parents=True, exist_ok=True)
        (folder / "gpu" / "GpuIndexFlat.h").touch()
        (folder / "Index.h").write_text("".join(
            f"#define FAISS_VERSION_{part} {number}\n"
            for part, number in zip(("MAJOR", "MINOR", "PATCH"), version.split("."))))

    def configure(self, *options: str) -> str:
        """The error, as one line."""
        done = subprocess.run(
            ["cmake", "-S", str(ROOT), "-B", str(self.folder / "build"), "-G", "Ninja",
             f"-DFAISS_EXT_FAISS_WHEEL={self.faiss}",
             f"-DFAISS_EXT_FAISS_HEADERS={self.folder / 'headers'}",
             f"-DPython_EXECUTABLE={sys.executable}", *options],
            capture_output=True, text=True,
        )
        assert done.returncode == 1
        errors = re.findall(r"CMake Error.*\n((?:.*\S.*\n|\n(?=  ))+)", done.stderr)
        assert len(errors) == 1, done.stderr
        return " ".join(errors[0].split())


@pytest.fixture
def beside(tmp_path):
    return Beside(tmp_path)


def test_no_library(beside):
    (beside.faiss / "libfaiss.so").unlink()
    said = beside.configure()
    assert f"faiss_ext: there is no libfaiss.so in '{beside.faiss}'" in said
    assert "Fix: `pip install faiss-gpu==VERSION`" in said


def test_a_library_that_is_none(beside):
    (beside.faiss / "libfaiss.so").write_text("a text")
    assert "is no shared library of 64-bit Linux" in beside.configure()


def test_a_wheel_that_another_distribution_has_overwritten(beside):
    shutil.move(beside.faiss, beside.folder / "before")
    wheel(beside.folder / "site", ("faiss-cpu", "1.15.1"))
    shutil.copytree(beside.folder / "before", beside.faiss, dirs_exist_ok=True)
    said = beside.configure()
    assert "is of 2 (faiss-cpu 1.15.1, faiss-gpu 1.15.1)" in said
    assert "Fix: make a fresh virtual environment" in said


def test_a_build_with_cuvs(beside):
    (beside.faiss / "_cuvs_build.py").touch()
    said = beside.configure()
    assert "(faiss-gpu 1.15.1) is a build with cuVS" in said
    assert "`pip install faiss-gpu==1.15.1`" in said


@pytest.mark.parametrize("flags", ["CMAKE_CXX_FLAGS", "CMAKE_CUDA_FLAGS"])
def test_cuvs_by_the_compilers_flags(beside, flags):
    said = beside.configure(f"-D{flags}=-DUSE_NVIDIA_CUVS")
    assert "USE_NVIDIA_CUVS is defined" in said
    assert "and faiss-gpu 1.15.1 is a build without it" in said


def test_no_headers(beside):
    shutil.rmtree(beside.folder / "headers")
    said = beside.configure()
    assert f"there is no faiss/Index.h in '{beside.folder / 'headers'}' for faiss-gpu 1.15.1" in said
    assert "Fix: set FAISS_EXT_FAISS_HEADERS to the folder of Faiss' sources at the tag v1.15.1" in said


def test_headers_of_another_version(beside):
    beside.headers("1.15.0")
    said = beside.configure()
    assert "are those of Faiss 1.15.0, and the wheel is faiss-gpu 1.15.1" in said
    assert "at the tag v1.15.1" in said


def test_headers_without_the_gpu(beside):
    (beside.folder / "headers" / "faiss" / "gpu" / "GpuIndexFlat.h").unlink()
    assert "lack faiss/gpu/GpuIndexFlat.h. Fix: " in beside.configure()


def test_a_faiss_for_the_cpu(beside):
    beside.library(None)
    assert "was built without GPU support. Fix: " in beside.configure()


def test_another_version_of_cuda(beside):
    other = beside.cuda - 1
    beside.library(other)
    said = beside.configure()
    assert f"faiss-gpu 1.15.1 needs CUDA {other}, and the CUDA toolkit is {beside.cuda}." in said
    assert f"Fix: set CUDACXX and CUDAToolkit_ROOT to those of CUDA {other}" in said


def test_another_swig(beside):
    said = beside.configure()
    assert re.search(r"SWIG [\d.]+ \(\S+\) makes modules with the type table \d,", said)
    assert "and that of faiss-gpu 1.15.1 is 99. Fix: install SWIG" in said
