"""Tests with the array libraries themselves, on a GPU.

Each test runs once for each library that is installed. With
FAISS_EXT_STAND_INS=1 modules of the same names stand for them (`stand_ins/`), on
the simulated CUDA runtime: that shows that these tests are right, not that the
libraries do what is expected of them.
"""

from __future__ import annotations

import os
import pathlib
import sys

import numpy as np
import pytest

_FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(_FOLDER))
_STAND_INS = os.environ.get("FAISS_EXT_STAND_INS") == "1"
if _STAND_INS:
    sys.path.insert(0, str(_FOLDER / "stand_ins"))

import libraries  # noqa: E402
from small_search import DIMS, QUERIES, STORED, integers  # noqa: E402


@pytest.fixture(scope="session")
def faiss_ext():
    import faiss_ext

    if faiss_ext.native_problem is not None:
        pytest.fail(f"no native part: {faiss_ext.native_problem}")
    if faiss_ext.get_num_gpus() == 0:
        pytest.skip("no GPU here")
    return faiss_ext


@pytest.fixture(autouse=True)
def no_reports():
    """With stand-ins: the simulated runtime has no race or misuse to report,
    whatever order it happened to run in."""
    yield
    if _STAND_INS:
        import memory_of_gpu

        assert not memory_of_gpu.end_test()


@pytest.fixture(scope="session", params=libraries.NAMES)
def library(request, faiss_ext):
    """The adapter of one library."""
    try:
        return libraries.load(request.param)
    except libraries.Missing as missing:
        pytest.skip(str(missing))


#: Bytes that keep a stream busy for a while, and how often they are copied. The
#: simulated runtime is as late as possible anyway.
BUSY_BYTES, BUSY_TIMES = (4096, 2) if _STAND_INS else (64 << 20, 40)


@pytest.fixture
def busy(library):
    """Enqueues work of milliseconds on the current stream of a GPU; a call that
    does not wait for it is ahead of it by far."""
    if library.stream is None:
        pytest.skip("no current stream in this library")
    zeros = np.zeros(BUSY_BYTES // 4, "float32")
    arrays = [
        [library.to_gpu(zeros, gpu) for _ in range(2)]
        for gpu in range(min(library.gpus(), 2))
    ]

    def enqueue(gpu=0):
        for _ in range(BUSY_TIMES):
            library.overwrite(*arrays[gpu])

    return enqueue


@pytest.fixture(scope="session")
def stored():
    return integers(STORED, 1)


@pytest.fixture(scope="session")
def queries():
    return integers(QUERIES, 2)


@pytest.fixture(scope="session")
def resources(faiss_ext):
    return faiss_ext.StandardGpuResources()


@pytest.fixture
def index(faiss_ext, resources, stored):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(stored)
    return index


@pytest.fixture
def expect_neighbours(stored):
    """Checks distances and labels in host memory; of equally near vectors any
    may be named."""

    def check(D, I, queries):
        exact = np.square(queries[:, None, :] - stored[None, :, :]).sum(2)
        k = D.shape[1]
        np.testing.assert_array_equal(D, np.sort(exact, axis=1)[:, :k])
        np.testing.assert_array_equal(np.take_along_axis(exact, I, axis=1), D)
        assert all(len(set(row)) == k for row in I.tolist())

    return check
