"""What an import says where Faiss, or CUDA, is not as it should be.

Each case is a folder of made-up packages, and a process that finds it first.
"""

from __future__ import annotations

import _ctypes
import re
import shutil
import subprocess
import sys

import pytest
from made_up_faiss import FAISS, install

from conftest import ROOT, package_environment

PYPROJECT = (ROOT / "pyproject.toml").read_text()
NEEDS_CUDA = """
import pathlib
if "libcublas.so.{0}" not in pathlib.Path("/proc/self/maps").read_text():
    raise ImportError("libcublas.so.{0}: cannot open shared object file: No such file")
"""


@pytest.fixture
def found(tmp_path):
    """Imports the package where the module `faiss` begins with the text given,
    and goes on as Faiss for the CPU; returns what standard output and standard
    error got."""

    def run(faiss: str, code: str = "") -> tuple[str, str]:
        folder = tmp_path / "site" / "faiss"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(faiss + FAISS)
        environment = package_environment()
        environment["PYTHONPATH"] = f"{folder.parent}:{environment['PYTHONPATH']}"
        # Not the one that this machine may have.
        environment["CUDA_HOME"] = str(tmp_path / "toolkit")
        done = subprocess.run(
            [sys.executable, "-c", f"import faiss_ext\n{code}"],
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.stdout, done.stderr

    return run


def last_line(text: str) -> str:
    return text.splitlines()[-1]


@pytest.mark.parametrize("place", ["site/nvidia/cu99/lib", "toolkit/lib64"])
def test_cuda_comes_from_its_wheels_or_a_toolkit_where_the_loader_finds_none(
    found, tmp_path, place
):
    library = tmp_path / place / "libcublas.so.99"
    library.parent.mkdir(parents=True)
    # Any library will do.
    shutil.copy(_ctypes.__file__, library)
    out, err = found(NEEDS_CUDA.format(99), "print(faiss_ext.native_problem)")
    assert out.startswith("this Faiss was built without GPU support"), err


@pytest.mark.parametrize("major", ["12", "13"])
def test_without_cuda_the_error_names_the_wheels(found, major):
    out, err = found(NEEDS_CUDA.format(major))
    assert last_line(err).startswith(f"ImportError: Faiss needs libcublas.so.{major}: ")
    # Those of the extra that installs them.
    extras = re.findall(r"^cuda(\d+) = \[(.*)\]$", PYPROJECT, re.MULTILINE)
    for wheel in dict(extras)[major].split(", "):
        assert wheel.strip('"') in last_line(err)


def test_a_wheel_without_the_library_that_is_missing_is_no_help(found, tmp_path):
    (tmp_path / "site" / "nvidia" / "cu13" / "lib").mkdir(parents=True)
    assert "Faiss needs libcublas.so.13" in last_line(found(NEEDS_CUDA.format(13))[1])


@pytest.mark.parametrize(
    "broken", ["raise AttributeError('StandardGpuResources_new')", "import nosuch"]
)
def test_a_mixture_of_two_distributions_is_named(found, tmp_path, broken):
    install(tmp_path / "site", "faiss-gpu", "1.0")
    install(tmp_path / "site", "faiss-cpu", "1.0")
    line = last_line(found(broken)[1])
    folder = tmp_path / "site" / "faiss"
    assert line == (
        "ImportError: faiss-cpu 1.0 and faiss-gpu 1.0 have put their files into the "
        f"same folder, {folder}, and overwritten each other's: `pip uninstall "
        "faiss-cpu faiss-gpu`, then install the one that is wanted, such as "
        "`pip install faiss-gpu==1.0`"
    )


def test_a_faiss_for_the_cpu_over_one_for_the_gpu_is_a_warning(found, tmp_path):
    install(tmp_path / "site", "faiss-gpu", "1.0")
    install(tmp_path / "site", "faiss-cpu", "1.0")
    # What it leaves of the other one.
    mark = "import pathlib\npathlib.Path(__file__).with_name('_gpu_build.py').touch()\n"
    out, err = found(mark, "print(faiss_ext.has_native)")
    assert out == "False\n"
    assert "RuntimeWarning: faiss_ext accelerates nothing: faiss-cpu 1.0 and faiss-gpu" in err


NO_CUDA_WHEELS = "raise RuntimeError('faiss-gpu installed but nvidia-any-cu12 is missing')"


def test_without_the_wheels_of_cuda_faiss_words_and_ours_are_told(found):
    assert last_line(found(NO_CUDA_WHEELS)[1]) == (
        "ImportError: faiss-gpu installed but nvidia-any-cu12 is missing; `pip install "
        "--upgrade 'faiss_ext[cuda12]'` brings all that the wheel faiss-gpu needs of CUDA 12"
    )


def test_a_build_with_cuvs_that_lacks_something_is_not_offered_other_wheels(found):
    mark = "import pathlib\npathlib.Path(__file__).with_name('_cuvs_build.py').touch()\n"
    line = last_line(found(mark + NO_CUDA_WHEELS)[1])
    assert line.endswith("; builds of Faiss with cuVS are not supported by faiss_ext")


def test_other_errors_at_run_time_stay_as_they_are(found):
    assert last_line(found("raise RuntimeError('a word')")[1]) == "RuntimeError: a word"


def test_other_errors_of_faiss_stay_as_they_are(found):
    assert last_line(found("import nosuch")[1]) == (
        "ModuleNotFoundError: No module named 'nosuch'"
    )


def test_a_native_part_beside_a_faiss_without_gpu_is_a_warning(found, tmp_path):
    package = tmp_path / "site" / "faiss_ext"
    shutil.copytree(ROOT / "faiss_ext", package)
    shutil.copy(ROOT / "VERSION", package.parent)
    (package / "_native" / "_swigfaiss_ext.py").touch()
    out, err = found("", "print(faiss_ext.has_native)")
    assert out == "False\n"
    assert "RuntimeWarning: faiss_ext accelerates nothing: this Faiss was built without" in err


def test_the_sources_beside_a_faiss_without_gpu_are_no_warning(found):
    out, err = found("", "print(faiss_ext.native_problem)")
    assert out.startswith("this Faiss was built without GPU support") and err == ""
