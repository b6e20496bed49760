"""Faiss' own benchmark of flat GPU indexes runs unmodified, with the same
results."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
CACHE = pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
)


def test_bench_gpu_sift1m():
    if not list((CACHE / "faiss_ext/work").glob("faiss-*/benchs")):
        pytest.skip("no source package of Faiss in the cache")
    done = subprocess.run(
        [
            sys.executable, ROOT / "tests/faiss_benchs.py",
            os.environ["FAISS_EXT_BUILD_DIR"], "benchs/bench_gpu_sift1m.py",
        ],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "k=1024 #ms, R@1 1.0000" in done.stdout
    assert "= the same 18 lines" in done.stdout
