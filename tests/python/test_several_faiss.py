"""Several distributions bring a `faiss` into the same folder; the import says so
once. Each case is a folder of made-up ones, and a process that finds it first."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import faiss_ext
import pytest
from made_up_faiss import FAISS, install


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    (folder / "faiss").mkdir(parents=True)
    (folder / "faiss" / "__init__.py").write_text(FAISS)
    return folder


def warnings_of_import(site: pathlib.Path, *options: str) -> list[str]:
    package = pathlib.Path(faiss_ext.__file__).parents[1]
    path = [site, package, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *options, "-c",
         "import faiss_ext.errors, faiss_ext as faiss"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "faiss_ext" in line
            and "Warning" in line]


@pytest.mark.parametrize("other", ["faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12"])
def test_a_faiss_for_the_cpu_over_one_for_the_gpu_is_one_warning(site, other):
    install(site, other, "1.15.1")
    install(site, "faiss-cpu", "1.14.3")
    (line,) = warnings_of_import(site)
    assert f"faiss-cpu 1.14.3 and {other} 1.15.1" in line
    assert str(site / "faiss") in line
    assert f"`pip uninstall faiss-cpu {other}`" in line
    assert f"`pip install {other}==1.15.1`" in line


def test_one_is_no_warning(site):
    install(site, "faiss-gpu", "1.15.1")
    assert warnings_of_import(site) == []


def test_one_that_lies_elsewhere_is_no_warning(site):
    install(site, "faiss-gpu", "1.15.1")
    # Ours, and one that extends Faiss.
    install(site, "faiss_ext", "0.1.0", "faiss_ext/__init__.py")
    install(site, "faiss-more", "1.0", "faiss_more/__init__.py")
    assert warnings_of_import(site) == []


def test_what_is_no_distribution_is_no_error(site):
    install(site, "faiss-gpu", "1.15.1")
    for name in ("faiss_cpu-1.dist-info", "faiss_cpu-2.dist-info"):
        (site / name).mkdir()
    (site / "faiss_cpu-2.dist-info" / "RECORD").write_text("faiss/__init__.py,,\n")
    assert warnings_of_import(site) == []
