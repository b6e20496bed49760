"""PooledGpuResources: memory from two Python callables, on any thread."""

import gc
import os
import signal
import sys
import threading
import time
import weakref

import faiss as stock
import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import take
from programs import run_program
from stand_ins.simulated_gpu import StreamPool, current_device


class Pool(StreamPool):
    """The pool, as the resources call it."""

    def resources(self, faiss_ext):
        return faiss_ext.PooledGpuResources(self.give, self.take_back)

    def give(self, nbytes, device, stream):
        return self.allocate(nbytes, device, stream)

    def take_back(self, address, nbytes, device, stream):
        assert self.lent[address] == (nbytes, device, stream)
        self.deallocate(address)


@pytest.fixture
def pool(request):
    pool = Pool()
    yield pool
    # What the test has used ends here, and not after this.
    in_flight().finish()
    request.node.funcargs.clear()
    gc.collect()
    assert not pool.lent


@pytest.fixture
def pooled(faiss_ext, pool):
    return pool.resources(faiss_ext)


@pytest.fixture
def index(faiss_ext, pooled, vectors):
    index = faiss_ext.GpuIndexFlatL2(pooled, DIMS)
    index.add(vectors(200, DIMS, 1))
    # What an exact search keeps is made by the first one.
    index.search(vectors(1, DIMS, 2), K)
    return index


@pytest.fixture
def expected(vectors, queries):
    cpu = stock.IndexFlatL2(DIMS)
    cpu.add(vectors(200, DIMS, 1))
    return cpu.search(queries, K)


def in_flight():
    from faiss_ext._call import in_flight

    return in_flight


def check(got, expected):
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


def test_all_memory_comes_from_the_pool_and_returns(
    faiss_ext, simulator, pool, pooled, vectors, queries, expected
):
    simulator.reset_counters()
    index = faiss_ext.GpuIndexFlatL2(pooled, DIMS)
    assert pooled.getMemoryInfo() == {0: {}} and not pool.requests
    index.add(vectors(200, DIMS, 1))
    check(index.search(queries, K), expected)
    (kinds,) = pooled.getMemoryInfo().values()
    # The exact engine keeps something of each vector, too.
    assert kinds["FlatData"][0] == 2 and not kinds.keys() - {"FlatData", "Other"}
    assert sum(nbytes for _, nbytes in kinds.values()) == pool.used_bytes
    assert simulator.counter("bytes_allocated_device") == pool.held_bytes
    del index
    assert pool.used_bytes == 0 and pooled.getMemoryInfo() == {0: {}}


def test_scratch_lasts_as_long_as_a_search_and_is_of_its_size(
    index, pool, queries
):
    stored = pool.used_bytes
    before = len(pool.requests)
    index.search(queries, K)
    asked = pool.requests[before:]
    assert pool.used_bytes == stored
    # Queries, results, and Faiss' own; far from the 1.5 GiB of Faiss' stack.
    assert 1 <= len(asked) <= 12
    assert sum(nbytes for nbytes, _, _ in asked) < 256 << 10


def test_they_go_wherever_faiss_resources_go(
    faiss_ext, pool, pooled, vectors, queries, expected
):
    assert isinstance(pooled, stock.GpuResourcesProvider)
    base = vectors(200, DIMS, 1)
    cpu = stock.IndexFlatL2(DIMS)
    cpu.add(base)
    check(faiss_ext.index_cpu_to_gpu(pooled, 0, cpu).search(queries, K), expected)
    check(
        faiss_ext.index_cpu_to_gpu_multiple_py([pooled], cpu).search(queries, K),
        expected)
    check(faiss_ext.knn_gpu(pooled, queries, base, K), expected)
    one = stock.GpuIndexFlatL2(pooled, DIMS)
    one.add(base)
    check(one.search(queries, K), expected)
    for provider in (pooled.getResources(), pooled):
        index = faiss_ext.GpuIndexFlatL2(provider, DIMS)
        index.add(base)
        check(index.search(queries, K), expected)
    assert len(pool.requests) > 10


@pytest.mark.parametrize("handle", [0, "own"])
def test_scratch_is_of_the_stream_that_was_set(
    simulator, index, pool, pooled, queries, expected, handle
):
    stream = simulator.new_stream() if handle == "own" else handle
    pooled.setDefaultStream(0, stream)
    got = pooled.getDefaultStream(0)
    assert (stock.cast_cudastream_t_to_integer(got) if got else 0) == stream
    before = len(pool.requests)
    check(index.search(queries, K), expected)
    assert {s for _, _, s in pool.requests[before:]} == {stream}
    pooled.revertDefaultStream(0)
    check(index.search(queries, K), expected)
    assert pool.requests[-1][2] != stream
    pooled.setDefaultStream(0, stock.cast_integer_to_cudastream_t(stream))
    check(index.search(queries, K), expected)
    assert pool.requests[-1][2] == stream
    pooled.revertDefaultStream(0)


def test_results_on_the_gpu_are_lent_by_the_pool_and_return(
    index, pool, queries, expected, gpu_array, simulator
):
    stored = pool.used_bytes
    D, I = index.search(gpu_array(queries), K)
    assert pool.used_bytes > stored
    check((D.copy_to_host(), I.copy_to_host()), expected)
    capsule = I.__dlpack__()
    del D, I
    in_flight().finish()
    assert pool.used_bytes > stored
    del capsule
    assert pool.used_bytes == stored


@pytest.mark.parametrize("copy", [False, True])
def test_results_that_others_read_are_not_lent_again_before_that(
    faiss_ext, index, queries, gpu_array, simulator, copy
):
    x = gpu_array(queries)
    taken = gpu_array(np.zeros((N, K), "int64"))
    simulator.synchronize()
    reader = simulator.new_stream()
    I = index.search(x, K)[1]
    if copy:
        lent = take(I.__dlpack__(stream=reader, copy=True))
        address = lent.tensor.data
    else:
        array = I.__cuda_array_interface__
        address = array["data"][0]
        native = faiss_ext._native.swigfaiss_ext
        native.order_streams_c(array["stream"], 0, reader, 0)
    simulator.copy(taken._pointer, address, I.copy_to_host().nbytes, reader)
    labels = I.copy_to_host()
    # Given back, and written anew.
    if copy:
        lent.deleter(lent)
        again = I.__dlpack__(stream=-1, copy=True)
    else:
        del I
        in_flight().finish()
        again = index.search(x, K)
    np.testing.assert_array_equal(taken.get(), labels)
    del again


def test_half_queries_are_converted_in_memory_of_the_pool(
    index, pool, queries, expected, gpu_array
):
    before = len(pool.requests)
    D, I = index.search(gpu_array(queries.astype("float16")), K)
    check((D.copy_to_host(), I.copy_to_host()), expected)
    assert queries.nbytes <= max(
        nbytes for nbytes, _, _ in pool.requests[before:])


@pytest.mark.parametrize("make", ["faiss_ext", "stock"])
def test_an_exhausted_pool_is_one_exception_and_the_index_answers_afterwards(
    faiss_ext, pool, pooled, vectors, queries, expected, make
):
    index = {"faiss_ext": faiss_ext, "stock": stock}[make].GpuIndexFlatL2(
        pooled, DIMS)
    index.add(vectors(200, DIMS, 1))
    # What an exact search keeps is made by the first one of many queries.
    index.search(np.tile(queries, (100, 1)), K)
    stored = pool.used_bytes
    outcomes = set()
    for room in range(0, 128 << 10, 4096):
        pool.limit = stored + room
        try:
            check(index.search(queries, K), expected)
            outcomes.add("answered")
        except RuntimeError as error:
            text = str(error)
            assert "the pool did not give" in text and "bytes on GPU 0" in text
            assert "MemoryError: out of memory: tried to allocate" in text
            assert pool.used_bytes == stored
            outcomes.add("refused")
        pool.limit = None
        check(index.search(queries, K), expected)
    assert outcomes == {"answered", "refused"}


def test_vectors_that_the_pool_cannot_hold_are_not_added(
    faiss_ext, index, pool, vectors, queries, expected
):
    pool.limit = pool.used_bytes
    with pytest.raises(RuntimeError, match=r"\(FlatData\): MemoryError"):
        index.add(vectors(1000, DIMS, 3))
    pool.limit = None
    assert index.ntotal == 200
    check(index.search(queries, K), expected)


@pytest.mark.parametrize("allocate, text", [
    (lambda *a: None, "TypeError"),
    (lambda *a: "memory", "TypeError"),
    (lambda: 1, "TypeError"),
    (lambda *a: 0, "address 0"),
    (lambda *a: -1, "aligned"),
    (lambda *a: np.zeros(1).ctypes.data & ~255, "host memory"),
    (lambda *a: 1 / 0, "ZeroDivisionError: division by zero"),
    (lambda *a: exec("raise ValueError"), "ValueError"),
])
def test_a_pool_that_gives_no_memory_is_told_so(faiss_ext, allocate, text):
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.PooledGpuResources(allocate, lambda *a: None), DIMS)
    with pytest.raises(RuntimeError, match=text):
        index.add(np.zeros((1, DIMS), "float32"))


def test_what_deallocate_raises_is_reported(faiss_ext, pool, recwarn):
    def take_back(*arguments):
        pool.take_back(*arguments)
        raise ValueError("after the fact")

    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.PooledGpuResources(pool.give, take_back), DIMS)
    seen = []
    former, sys.unraisablehook = sys.unraisablehook, lambda u: seen.append(
        repr(u.exc_value))
    try:
        index.add(np.zeros((1, DIMS), "float32"))
        del index
    finally:
        sys.unraisablehook = former
    assert set(seen) == {"ValueError('after the fact')"}


@pytest.mark.parametrize("arguments", [(None, print), (print, 3), (print,)])
def test_two_callables_are_needed(faiss_ext, arguments):
    with pytest.raises(TypeError):
        faiss_ext.PooledGpuResources(*arguments)


def test_the_gpu_is_current_in_the_callables_and_kept(
    faiss_ext, simulator, pool, vectors, queries, expected
):
    simulator.library.cuda_sim_set_device_count(2)

    def give(nbytes, device, stream):
        assert current_device() == device
        address = pool.give(nbytes, device, stream)
        simulator.library.cudaSetDevice(1 - device)
        return address

    pooled = faiss_ext.PooledGpuResources(give, pool.take_back)
    config = faiss_ext.GpuIndexFlatConfig()
    for config.device in (0, 1):
        index = faiss_ext.GpuIndexFlatL2(pooled, DIMS, config)
        index.add(vectors(200, DIMS, 1))
        check(index.search(queries, K), expected)
        assert current_device() == 0
    assert {device for _, device, _ in pool.requests} == {0, 1}


def test_replicas_on_two_gpus(faiss_ext, simulator, pool, vectors, queries, expected):
    simulator.library.cuda_sim_set_device_count(2)
    cpu = stock.IndexFlatL2(DIMS)
    cpu.add(vectors(200, DIMS, 1))
    index = faiss_ext.index_cpu_to_gpu_multiple_py(
        [pool.resources(faiss_ext) for _ in range(2)], cpu)
    check(index.search(queries, K), expected)
    assert {device for _, device, _ in pool.lent.values()} == {0, 1}


def test_the_pool_lives_until_the_last_index_is_gone(
    faiss_ext, vectors, queries, expected
):
    pool = Pool()
    index = faiss_ext.GpuIndexFlatL2(pool.resources(faiss_ext), DIMS)
    alive = weakref.ref(pool)
    del pool
    index.add(vectors(200, DIMS, 1))
    check(index.search(queries, K), expected)
    assert alive()
    del index
    gc.collect()
    assert alive() is None


QUERIES_ON_THE_GPU = """
import ctypes, threading, time
import faiss_ext
import numpy as np
from dlpack_capsules import take
from programs import run_program
from stand_ins import simulated_gpu
from test_pooled_resources import Pool

class Queries:
    __cuda_array_interface__ = {
        "version": 3, "shape": (20, 8), "typestr": "<f4", "stream": 1,
        "data": (simulated_gpu.malloc(640), False),
    }

x = np.zeros((20, 8), "float32")
simulated_gpu.upload(Queries.__cuda_array_interface__["data"][0], x)
simulated_gpu.synchronize()
pool = Pool()
"""


def test_a_loan_comes_back_while_another_thread_allocates():
    # Whoever gives back under the interpreter's lock must not wait for the
    # resources' lock, whose holder waits for the interpreter's.
    run_program(QUERIES_ON_THE_GPU + """
allocating = threading.Event()
slow = False

def give(*arguments):
    if slow:
        allocating.set()
        time.sleep(0.2)
    return pool.give(*arguments)

index = faiss_ext.GpuIndexFlatL2(
    faiss_ext.PooledGpuResources(give, pool.take_back), 8)
index.add(x)
labels = index.search(Queries(), 1)[1]
faiss_ext._call.in_flight.finish()
capsule = labels.__dlpack__(stream=-1)
del labels
slow = True
searching = threading.Thread(target=index.search, args=(x, 1))
searching.start()
allocating.wait()
del capsule
searching.join()
print("done", flush=True)
""")


def test_a_loan_comes_back_after_the_interpreter_has_ended():
    run_program(QUERIES_ON_THE_GPU + """
index = faiss_ext.GpuIndexFlatL2(pool.resources(faiss_ext), 8)
index.add(x)
lent = take(index.search(Queries(), 1)[1].__dlpack__(stream=-1))
at_exit = ctypes.CDLL(None).__cxa_atexit
at_exit.argtypes = [ctypes.c_void_p] * 3
assert at_exit(
    ctypes.cast(lent.deleter, ctypes.c_void_p), ctypes.addressof(lent), None) == 0
print("done", flush=True)
""")


def test_the_garbage_collector_waits(faiss_ext, pool, vectors, queries):
    collecting = []

    def give(*arguments):
        collecting.append(gc.isenabled())
        return pool.give(*arguments)

    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.PooledGpuResources(give, pool.take_back), DIMS)
    index.add(vectors(200, DIMS, 1))
    assert collecting and not any(collecting)
    assert gc.isenabled()
    gc.disable()
    try:
        index.search(queries, K)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_garbage_collector_waits_for_all_threads(faiss_ext, pool, vectors):
    first_in, second_in, first_done = (threading.Event() for _ in range(3))
    collecting = []

    def give_first(*arguments):
        first_in.set()
        assert second_in.wait(60)
        return pool.give(*arguments)

    def give_second(*arguments):
        second_in.set()
        assert first_done.wait(60)
        collecting.append(gc.isenabled())
        return pool.give(*arguments)

    def add(give):
        resources = faiss_ext.PooledGpuResources(give, pool.take_back)
        faiss_ext.GpuIndexFlatL2(resources, DIMS).add(vectors(200, DIMS, 1))

    first = threading.Thread(target=add, args=(give_first,))
    second = threading.Thread(target=add, args=(give_second,))
    first.start()
    assert first_in.wait(60)
    second.start()
    first.join(60)
    first_done.set()
    second.join(60)
    assert collecting and not any(collecting)
    assert gc.isenabled()


@pytest.mark.parametrize("where", ["give", "take_back"])
def test_a_signal_is_raised_after_the_call(
    faiss_ext, pool, vectors, queries, expected, where
):
    armed = []

    def interrupting(function):
        def call(*arguments):
            done = function(*arguments)
            if armed:
                armed.pop()
                signal.raise_signal(signal.SIGINT)
            return done
        return call

    given = []

    def give(*arguments):
        given.append(arguments)
        return pool.give(*arguments)

    calls = {"give": give, "take_back": pool.take_back}
    calls[where] = interrupting(calls[where])
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.PooledGpuResources(calls["give"], calls["take_back"]), DIMS)
    index.add(vectors(200, DIMS, 1))
    armed.append(True)
    asked = len(given)
    with pytest.raises(KeyboardInterrupt):
        index.search(queries, K)
        assert where == "take_back"
        sum(range(1000))
    if where == "give":
        # Nothing is tried again.
        assert len(given) == asked + 1
    check(index.search(queries, K), expected)
    del index
    if where == "give":
        # What it gave was lost with the interrupt.
        assert len(pool.lent) <= 1
        pool.lent.clear()


def test_a_signal_that_comes_while_the_gpu_works_leaves_no_scratch(
    index, pool, pooled, simulator, queries, expected
):
    stored = pool.used_bytes
    stream = stock.cast_cudastream_t_to_integer(pooled.getDefaultStream(0))
    simulator.hold(stream)

    waited = simulator.waits()

    def interrupt():
        while simulator.waits() == waited:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        simulator.release(stream)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        index.search(queries, K)
        sum(range(1000))
    thread.join()
    assert pool.used_bytes == stored
    check(index.search(queries, K), expected)


@pytest.mark.parametrize("more", [
    "",
    # Outlives the modules: it is destroyed with them, in some order.
    "sys.modules['kept'] = index; del index, pool",
    "import builtins; builtins.kept = index",
    # Never destroyed.
    "ctypes.pythonapi.Py_IncRef(ctypes.py_object(index))",
    # A cycle.
    "pool.index = index; del pool, index",
    # A loan that nobody returns.
    "take(index.search(Queries(), 1)[1].__dlpack__(stream=-1))",
    # Used at the very end.
    "import atexit; atexit.register(lambda: index.search(x, 1))",
])
def test_the_end_of_the_process_is_clean(more):
    run_program(QUERIES_ON_THE_GPU + f"""
index = faiss_ext.GpuIndexFlatL2(pool.resources(faiss_ext), 8)
index.add(x)
index.search(x, 1)
{more}
print("done", flush=True)
""")
