"""faiss_ext.contrib on stand-ins of PyTorch, CuPy and RMM (stand_ins/): Faiss'
memory is theirs, and returns to them."""

import gc
import importlib
import pathlib
import sys
import types

import faiss as stock
import numpy as np
import pytest
from common_search import DIMS, K, N
from docstrings import check_examples
from programs import run_program

STAND_INS = pathlib.Path(__file__).parent / "stand_ins"


@pytest.fixture
def load(monkeypatch):
    """Imports an integration, and what it integrates, for this test alone."""
    monkeypatch.syspath_prepend(str(STAND_INS))

    def forget():
        for name in list(sys.modules):
            if name.partition(".")[0] in ("cupy", "rmm", "torch") or (
                name.startswith("faiss_ext.contrib.")
                and name.endswith("_interop")
            ):
                del sys.modules[name]

    forget()
    yield lambda name: importlib.import_module(f"faiss_ext.contrib.{name}_interop")
    forget()


@pytest.fixture(params=["cupy", "rmm", "torch"])
def library(request, load):
    """An integration, and of what it integrates: how its pool is reached, and
    the name of its error."""
    interop = load(request.param)
    pool, error = {
        "cupy": lambda: (
            interop.cupy.get_default_memory_pool().arenas, "OutOfMemoryError"),
        "rmm": lambda: (
            interop.rmm.mr.get_per_device_resource(0).pool, "MemoryError"),
        "torch": lambda: (interop.torch.cuda.allocator, "OutOfMemoryError"),
    }[request.param]()
    return types.SimpleNamespace(
        name=request.param, interop=interop, pool=pool, error=error)


@pytest.fixture
def expected(vectors, queries):
    cpu = stock.IndexFlatL2(DIMS)
    cpu.add(vectors(200, DIMS, 1))
    return cpu.search(queries, K)


def check(got, expected):
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def make_index(faiss_ext, resources, vectors, device=0):
    config = faiss_ext.GpuIndexFlatConfig()
    config.device = device
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS, config)
    index.add(vectors(200, DIMS, 1))
    return index


def test_examples_run(faiss_ext, library):
    check_examples("gpu_resources", library.interop.gpu_resources)
    if library.name == "torch":
        check_examples("search", library.interop.search, torch=library.interop.torch)


def test_memory_is_the_librarys_and_returns(
    faiss_ext, library, vectors, queries, expected, simulator
):
    simulator.reset_counters()
    resources = library.interop.gpu_resources()
    assert isinstance(resources, faiss_ext.PooledGpuResources)
    index = make_index(faiss_ext, resources, vectors)
    check(index.search(queries, K), expected)
    stored = library.pool.used_bytes
    assert stored >= 200 * DIMS * 4
    (kinds,) = resources.getMemoryInfo().values()
    assert kinds["FlatData"][0] == 2
    # The exact engine keeps something of each vector, too.
    assert sum(count for count, _ in kinds.values()) == len(library.pool.lent)
    assert simulator.counter("bytes_allocated_device") <= sum(
        nbytes for nbytes, _, _ in library.pool.requests)
    del index
    assert library.pool.used_bytes == 0 and resources.getMemoryInfo() == {0: {}}


def test_scratch_is_of_the_stream_that_was_set(
    faiss_ext, library, vectors, queries, expected, simulator
):
    resources = library.interop.gpu_resources()
    index = make_index(faiss_ext, resources, vectors)
    # What an exact search keeps is made by the first one.
    check(index.search(queries, K), expected)
    for stream in (0, simulator.new_stream()):
        resources.setDefaultStream(0, stream)
        before = len(library.pool.requests)
        check(index.search(queries, K), expected)
        assert {s for _, _, s in library.pool.requests[before:]} == {stream}
    resources.revertDefaultStream(0)


def test_out_of_memory_is_one_exception_with_the_librarys_text(
    faiss_ext, library, vectors, queries, expected
):
    index = make_index(faiss_ext, library.interop.gpu_resources(), vectors)
    stored = library.pool.used_bytes
    library.pool.limit = stored
    with pytest.raises(RuntimeError) as raised:
        index.search(queries, K)
    assert "the pool did not give" in str(raised.value)
    assert f"{library.error}: out of memory: tried to allocate" in str(raised.value)
    assert library.pool.used_bytes == stored
    library.pool.limit = None
    check(index.search(queries, K), expected)


def test_each_gpu_has_memory_of_its_own(
    faiss_ext, library, vectors, queries, expected, simulator
):
    simulator.library.cuda_sim_set_device_count(2)
    resources = library.interop.gpu_resources()
    pools = {library.pool}
    if library.name == "rmm":
        pools.add(library.interop.rmm.mr.get_per_device_resource(1).pool)
    indexes = [make_index(faiss_ext, resources, vectors, device)
               for device in (0, 1)]
    for index in indexes:
        check(index.search(queries, K), expected)
    assert {device for pool in pools for _, device, _ in pool.lent.values()} == {
        0, 1}
    del index, indexes
    assert not any(pool.lent for pool in pools)


def test_the_process_ends_cleanly(library):
    run_program(f"""
sys.path[:0] = [{str(STAND_INS)!r}]
import faiss_ext, numpy
from faiss_ext.contrib import {library.name}_interop
index = faiss_ext.GpuIndexFlatL2({library.name}_interop.gpu_resources(), 8)
index.add(numpy.zeros((20, 8), "float32"))
sys.modules["last"] = index
print("done")
""")


# CuPy


def test_cupy_before_14_has_another_way_to_name_a_stream(
    faiss_ext, load, monkeypatch, vectors, queries, expected
):
    interop = load("cupy")
    monkeypatch.delattr(interop.cupy.cuda.Stream, "from_external")
    index = make_index(faiss_ext, interop.gpu_resources(), vectors)
    check(index.search(queries, K), expected)
    del index
    assert not interop.cupy.get_default_memory_pool().used_bytes()


def test_a_pool_of_ones_own_for_cupy(faiss_ext, load, vectors, queries, expected):
    interop = load("cupy")
    pool = interop.cupy.cuda.MemoryPool()
    index = make_index(faiss_ext, interop.gpu_resources(pool.malloc), vectors)
    check(index.search(queries, K), expected)
    assert pool.used_bytes() > 0
    assert not interop.cupy.get_default_memory_pool().used_bytes()
    del index
    assert not pool.used_bytes()


def test_the_allocator_that_cupy_was_told_to_use(faiss_ext, load, vectors):
    interop = load("cupy")
    pool = interop.cupy.cuda.MemoryPool()
    interop.cupy.cuda.set_allocator(pool.malloc)
    resources = interop.gpu_resources()
    interop.cupy.cuda.set_allocator(None)
    index = make_index(faiss_ext, resources, vectors)
    assert pool.used_bytes() > 0
    del index


def test_cupys_asynchronous_memory_is_freed_on_its_stream(
    faiss_ext, load, vectors, queries, expected, simulator
):
    interop = load("cupy")
    cuda = interop.cupy.cuda
    resources = interop.gpu_resources(cuda.malloc_async)
    index = make_index(faiss_ext, resources, vectors)
    streams = set(cuda._AsyncBlock.freed_on)
    check(index.search(queries, K), expected)
    scratch = set(cuda._AsyncBlock.freed_on) - streams
    assert scratch == {
        stock.cast_cudastream_t_to_integer(resources.getDefaultStream(0))}
    del index
    assert cuda._AsyncBlock.freed_on[-1] not in {0, *scratch}


def test_cupy_arrays_and_faiss_share_the_pool_in_one_stream(
    faiss_ext, load, vectors, queries, expected
):
    interop = load("cupy")
    cp = interop.cupy
    resources = interop.gpu_resources()
    resources.setDefaultStream(0, cp.cuda.get_current_stream().ptr)
    index = make_index(faiss_ext, resources, vectors)
    for _ in range(3):
        # Lent to each other again and again, without a wait.
        x = cp.asarray(queries)
        D, I = index.search(x, K)
        assert isinstance(D, cp.ndarray)
        del x
        other = cp.asarray(np.full((N, DIMS), 99, "float32"))
        check((D.get(), I.get()), expected)
        del D, I, other


# RMM


def test_rmm_memory_goes_back_to_where_it_came_from(faiss_ext, load, vectors):
    interop = load("rmm")
    mr = interop.rmm.mr
    first = mr.get_per_device_resource(0)
    index = make_index(faiss_ext, interop.gpu_resources(), vectors)
    other = mr.DeviceMemoryResource()
    mr.set_per_device_resource(0, other)
    assert first.pool.used_bytes > 0
    del index
    assert first.pool.used_bytes == 0 and not other.pool.requests


def test_a_resource_of_ones_own_for_rmm(faiss_ext, load, vectors):
    interop = load("rmm")
    own = interop.rmm.mr.DeviceMemoryResource()
    index = make_index(faiss_ext, interop.gpu_resources(own), vectors)
    assert own.pool.used_bytes > 0
    assert not interop.rmm.mr.get_per_device_resource(0).pool.requests
    del index
    assert own.pool.used_bytes == 0


def test_an_rmm_that_cannot_be_told_of_a_stream_is_refused(load, monkeypatch):
    interop = load("rmm")

    def old(self, obj=None):
        raise TypeError(f"Cannot create stream from {type(obj)}")

    monkeypatch.setattr(interop._Stream, "__init__", old)
    with pytest.raises(ImportError, match="RMM 25.12 or newer.*this is 25.12.00"):
        interop.gpu_resources()


# PyTorch


@pytest.fixture
def torch_interop(load):
    return load("torch")


def on_gpu(torch, values):
    made = torch.Tensor(values.shape, values.dtype, torch.device("cuda", 0))
    torch.simulated_gpu.upload(made.data_ptr(), values)
    return made


def test_tensors_of_a_graph_are_searched_in_place_and_results_have_no_gradient(
    faiss_ext, torch_interop, vectors, queries, expected
):
    torch = torch_interop.torch
    index = make_index(faiss_ext, torch_interop.gpu_resources(), vectors)
    # What an exact search keeps is made by the first one.
    check(index.search(queries, K), expected)
    index.reset_transfer_stats()
    x = on_gpu(torch, queries).requires_grad_()
    with pytest.raises((ValueError, BufferError), match="detach"):
        index.search(x, K)
    before = torch.cuda.memory_allocated()
    D, I = torch_interop.search(index, x, K)
    for result in (D, I):
        assert type(result) is torch.Tensor and result.is_cuda
        assert not result.requires_grad
    assert x.requires_grad
    check((D.cpu().numpy(), I.cpu().numpy()), expected)
    stats = index.transfer_stats()
    assert stats["bytes_to_device"] == stats["bytes_to_host"] == 0
    # The results, and no copy of x.
    assert torch.cuda.memory_allocated() - before == 1024 + 1536
    del D, I, result, x, index
    importlib.import_module("faiss_ext._call.in_flight").finish()
    gc.collect()
    assert torch.cuda.memory_allocated() == 0


@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_tensors_on_the_host_give_tensors_there(
    faiss_ext, torch_interop, resources, vectors, queries, expected, where
):
    torch = torch_interop.torch
    index = {"cpu": stock.IndexFlatL2(DIMS),
             "gpu": faiss_ext.GpuIndexFlatL2(resources, DIMS)}[where]
    index.add(vectors(200, DIMS, 1))
    x = torch.from_numpy(queries).requires_grad_()
    D, I = torch_interop.search(index, x, K)
    assert type(D) is type(I) is torch.Tensor and not D.is_cuda
    check((D.numpy(), I.numpy()), expected)


def test_given_outputs_are_those_of_the_index(
    faiss_ext, torch_interop, resources, vectors, queries, expected
):
    torch = torch_interop.torch
    index = make_index(faiss_ext, resources, vectors)
    D = torch.Tensor((N, K), torch.float32, torch.device("cuda", 0))
    got = torch_interop.search(index, on_gpu(torch, queries), K, D=D)
    assert got[0] is D
    check((D.cpu().numpy(), got[1].cpu().numpy()), expected)
