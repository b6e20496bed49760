"""`DeviceArray` as a producer of DLPack."""

from __future__ import annotations

import ctypes
import gc
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import COPIED, CPU, CUDA, capsule_name, take


@pytest.fixture
def results(faiss_ext, index, vectors, gpu_array):
    """Labels on the GPU, of work that is still pending, and what they will be."""
    queries = vectors(N, DIMS, 2)
    expected = index.search(queries, K)[1]
    x = gpu_array(queries)
    D, I = index.search(x, K)
    assert type(I) is faiss_ext.DeviceArray
    return I, expected


def give_back(managed):
    managed.deleter(ctypes.pointer(managed))


def on_host(tensor, values):
    """What a tensor holds that the host can read."""
    found = np.empty_like(values)
    ctypes.memmove(found.ctypes.data, tensor.data, found.nbytes)
    return found


@pytest.mark.parametrize("version, name", [
    (None, "dltensor"), ((0, 8), "dltensor"),
    ((1, 0), "dltensor_versioned"), ((2, 3), "dltensor_versioned"),
])
def test_the_capsule_is_of_the_version_asked_for(results, version, name):
    I, expected = results
    capsule = I.__dlpack__(max_version=version)
    assert capsule_name(capsule) == name
    managed = take(capsule)
    tensor = managed.tensor
    assert (tensor.device_type, tensor.device_id) == I.__dlpack_device__() == (CUDA, 0)
    assert (tensor.code, tensor.bits, tensor.lanes) == (0, 64, 1)
    assert tensor.rank == 2 and tensor.shape[:2] == [N, K]
    assert tensor.strides[:2] == [K, 1] and tensor.byte_offset == 0
    assert tensor.data == I.__cuda_array_interface__["data"][0]
    if name == "dltensor_versioned":
        assert (managed.major, managed.minor) == (1, 0) and managed.flags == 0
    give_back(managed)


def test_a_capsule_that_no_one_takes_gives_its_loan_back(
    results, simulator
):
    I, _ = results
    for version in (None, (1, 0)):
        capsule = I.__dlpack__(max_version=version)
        del capsule
    before = simulator.counter("live_device")
    del I, results
    # The fixture's own reference is gone only at the end of the test.
    assert simulator.counter("live_device") <= before


def test_the_loan_outlives_the_array_and_its_index(
    faiss_ext, vectors, gpu_array, simulator
):
    index = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), DIMS)
    index.add(vectors(200, DIMS, 1))
    queries = vectors(N, DIMS, 2)
    expected = index.search(queries, K)[1]
    I = index.search(gpu_array(queries), K)[1]
    managed = take(I.__dlpack__())
    simulator.finish()
    del I, index
    gc.collect()
    np.testing.assert_array_equal(
        simulator.download(managed.tensor.data, expected), expected)
    before = simulator.counter("live_device")
    give_back(managed)
    assert simulator.counter("live_device") < before


@pytest.mark.parametrize("which", ["new", "none", "legacy"])
def test_the_borrowers_stream_comes_after_the_pending_work(
    index, vectors, gpu_array, simulator, which
):
    queries = vectors(N, DIMS, 2)
    expected = index.search(queries, K)[1]
    handle = simulator.new_stream() if which == "new" else None
    stream = {"new": handle, "none": None, "legacy": 1}[which]
    x, copy = gpu_array(queries), gpu_array(np.zeros_like(expected))
    I = index.search(x, K)[1]
    assert simulator.pending()
    simulator.reset_counters()
    managed = take(I.__dlpack__(stream=stream))
    assert simulator.waits() == 0
    simulator.copy(copy._pointer, managed.tensor.data, expected.nbytes, handle)
    np.testing.assert_array_equal(copy.get(), expected)
    give_back(managed)


@pytest.mark.parametrize("stream", [0, -2, 1.5, "1"])
def test_streams_that_are_none_are_refused(results, stream):
    with pytest.raises(ValueError, match="stream"):
        results[0].__dlpack__(stream=stream)


def test_minus_one_asks_for_no_order(results, simulator):
    I, _ = results
    before = simulator.library.cuda_sim_calls(b"cudaStreamWaitEvent")
    managed = take(I.__dlpack__(stream=-1))
    assert simulator.library.cuda_sim_calls(b"cudaStreamWaitEvent") == before
    give_back(managed)


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_the_host_gets_a_finished_copy(results, simulator, version):
    I, expected = results
    managed = take(I.__dlpack__(dl_device=(CPU, 0), max_version=version))
    tensor = managed.tensor
    assert tensor.device_type == CPU
    np.testing.assert_array_equal(on_host(tensor, expected), expected)
    if version:
        assert managed.flags == COPIED
    give_back(managed)


def test_numpy_takes_the_host_copy(results):
    I, expected = results

    class OnHost:
        def __dlpack_device__(self):
            return (CPU, 0)

        def __dlpack__(self, **options):
            options.pop("stream", None)
            options["dl_device"] = (CPU, 0)
            options.pop("copy", None)
            return I.__dlpack__(**options)

    np.testing.assert_array_equal(np.from_dlpack(OnHost()), expected)


def test_a_copy_that_is_forbidden_is_refused(results):
    I, _ = results
    with pytest.raises(BufferError, match="copy: False"):
        I.__dlpack__(dl_device=(CPU, 0), copy=False)
    with pytest.raises(BufferError, match="dl_device: "):
        I.__dlpack__(dl_device=(CUDA, 1))
    with pytest.raises(ValueError, match="host"):
        I.__dlpack__(dl_device=(CPU, 0), stream=1)
    give_back(take(I.__dlpack__(dl_device=(CUDA, 0), copy=False)))


def test_a_copy_that_is_asked_for_is_one(results, simulator):
    I, expected = results
    managed = take(I.__dlpack__(copy=True, max_version=(1, 0)))
    assert managed.flags == COPIED
    assert managed.tensor.data != I.__cuda_array_interface__["data"][0]
    np.testing.assert_array_equal(
        simulator.download(managed.tensor.data, expected), expected)
    give_back(managed)


def test_numpy_gets_an_array_only_by_asking(faiss_ext, results, vectors):
    I, expected = results
    np.testing.assert_array_equal(I.copy_to_host(), expected)
    with pytest.raises(faiss_ext.InvalidArray, match="copy_to_host"):
        np.asarray(I)
    assert not hasattr(I, "__array_interface__")


def test_a_cpu_index_names_the_mend(faiss_ext, index, vectors, gpu_array):
    x = index.search(gpu_array(vectors(N, DIMS, 2)), DIMS)[0]
    cpu = faiss_ext.IndexFlatL2(DIMS)
    for call in (cpu.add, lambda x: cpu.search(x, 1)):
        with pytest.raises(faiss_ext.InvalidArray, match="index_cpu_to_gpu"):
            call(x)


def test_an_empty_array_is_lent_too(index, gpu_array):
    I = index.search(gpu_array(np.empty((0, DIMS), "float32")), K)[1]
    assert tuple(I.shape) == (0, K)
    for options in ({}, {"dl_device": (CPU, 0)}, {"copy": True}):
        managed = take(I.__dlpack__(**options))
        assert managed.tensor.shape[:2] == [0, K]
        give_back(managed)


PROGRAM = """
import sys
sys.path.insert(0, {here!r})
import numpy as np
from conftest import GpuArray, Simulator
import faiss_ext
from dlpack_capsules import take
index = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), 8)
index.add(np.zeros((20, 8), "float32"))
x = GpuArray(Simulator(), np.zeros((5, 8), "float32"))
D, I = index.search(x, 3)
capsule = D.__dlpack__()
lent = I.__dlpack__(max_version=(1, 0))
sys.not_freed = [capsule, lent, D, I, index]
print("end")
"""


def test_loans_survive_the_end_of_the_interpreter():
    program = PROGRAM.format(here=str(pathlib.Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "end" and done.returncode == 0, done.stderr
