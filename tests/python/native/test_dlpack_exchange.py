"""Arrays whose type offers DLPack's table of C functions, as PyTorch's does: a
search takes them by that, in the order of their library's current stream."""

from __future__ import annotations

import gc
import sys
import types
import weakref

import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import COPIED, CPU, CUDA, CUDA_HOST, READ_ONLY
from exchange_tables import TABLE, Library


@pytest.fixture
def library(simulator, gpu_array):
    return Library(simulator, gpu_array)


@pytest.fixture
def copy_later(simulator):
    """Copies on a stream that joins no other by itself."""
    return lambda to, source, nbytes, stream: simulator.copy(
        to._pointer, source._pointer, nbytes, stream)


def test_only_the_table_is_asked(
    index, queries, expected, library, simulator, monkeypatch
):
    monkeypatch.setattr("faiss_ext._index.search.current_stream", None)
    x, (D, I) = library.make(queries), library.outputs(N, K)
    simulator.reset_counters()
    found = index.search(x, K, D=D, I=I)
    assert found[0] is D and found[1] is I
    assert library.asked == TABLE * 3
    assert simulator.waits() == 0 and simulator.pending()
    np.testing.assert_array_equal(D.memory.get(), expected[0])
    np.testing.assert_array_equal(I.memory.get(), expected[1])


def test_queries_are_read_after_what_the_current_stream_holds(
    index, queries, expected, library, simulator, copy_later
):
    library.stream = simulator.new_stream()
    source = library.gpu_array(queries)
    x, (D, I) = library.make(np.zeros_like(queries)), library.outputs(N, K)
    copy_later(x.memory, source, queries.nbytes, library.stream)
    index.search(x, K, D=D, I=I)
    np.testing.assert_array_equal(D.memory.get(), expected[0])
    np.testing.assert_array_equal(I.memory.get(), expected[1])


@pytest.mark.parametrize("which", [0, 1], ids="DI")
def test_outputs_are_written_after_what_the_current_stream_holds(
    index, queries, expected, library, simulator, copy_later, which
):
    library.stream = simulator.new_stream()
    outputs = [library.gpu_array(np.zeros((N, K), t))
               for t in ("float32", "int64")]
    rubbish = library.gpu_array(np.full((N, K), 7, outputs[which].dtype))
    output = library.make(rubbish.get())
    copy_later(output.memory, rubbish, rubbish.get().nbytes, library.stream)
    outputs[which] = output
    index.search(library.gpu_array(queries), K, D=outputs[0], I=outputs[1])
    assert library.asked == TABLE
    np.testing.assert_array_equal(output.memory.get(), expected[which])


def test_the_current_stream_goes_on_after_the_search(
    index, queries, expected, library, simulator, copy_later
):
    library.stream = simulator.new_stream()
    x, (D, I) = library.make(queries), library.outputs(N, K)
    wrong = library.gpu_array(np.zeros_like(queries))
    copies = [library.gpu_array(np.zeros((N, K), t))
              for t in ("float32", "int64")]
    index.search(x, K, D=D, I=I)
    copy_later(x.memory, wrong, queries.nbytes, library.stream)
    copy_later(copies[0], D.memory, N * K * 4, library.stream)
    copy_later(copies[1], I.memory, N * K * 8, library.stream)
    np.testing.assert_array_equal(copies[0].get(), expected[0])
    np.testing.assert_array_equal(copies[1].get(), expected[1])


def test_no_stream_is_the_legacy_default_stream(
    index, queries, expected, library, copy_later
):
    source = library.gpu_array(queries)
    x, (D, I) = library.make(np.zeros_like(queries)), library.outputs(N, K)
    copy = library.gpu_array(np.zeros((N, K), "int64"))
    copy_later(x.memory, source, queries.nbytes, None)
    index.search(x, K, D=D, I=I)
    copy_later(copy, I.memory, N * K * 8, None)
    np.testing.assert_array_equal(copy.get(), expected[1])


def test_each_library_of_a_call_has_its_stream(
    index, queries, expected, simulator, gpu_array, copy_later
):
    one, two = (Library(simulator, gpu_array, simulator.new_stream())
                for _ in range(2))
    source = gpu_array(queries)
    x = one.make(np.zeros_like(queries))
    I = two.make(np.zeros((N, K), "int64"))
    copy = gpu_array(np.zeros((N, K), "int64"))
    copy_later(x.memory, source, queries.nbytes, one.stream)
    copy_later(I.memory, copy, N * K * 8, two.stream)
    index.search(x, K, D=gpu_array(np.zeros((N, K), "float32")), I=I)
    copy_later(x.memory, gpu_array(np.zeros_like(queries)), queries.nbytes,
               one.stream)
    copy_later(copy, I.memory, N * K * 8, two.stream)
    np.testing.assert_array_equal(copy.get(), expected[1])


def test_streams_are_joined_once_for_all_arrays(
    index, queries, library, simulator
):
    library.stream = simulator.new_stream()
    x, (D, I) = library.make(queries), library.outputs(N, K)
    for _ in range(2):
        index.search(x, K, D=D, I=I)
        simulator.synchronize()
    simulator.reset_counters()
    index.search(x, K, D=D, I=I)
    assert simulator.calls("cudaStreamWaitEvent") == 2
    assert simulator.calls("cudaEventCreateWithFlags") == 0


def test_the_stream_is_asked_of_the_gpu_of_the_index(
    faiss_ext, vectors, queries, expected, gpu_array, simulator, copy_later
):
    simulator.library.cuda_sim_set_device_count(2)
    config = faiss_ext.GpuIndexFlatConfig()
    config.device = 1
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.StandardGpuResources(), DIMS, config)
    index.add(vectors(200, DIMS, 1))
    numbers = []

    class TwoGpus(Library):
        def current_stream(self, kind, number):
            numbers.append(number)
            return self.stream

    with simulator.on_gpu(1):
        library = TwoGpus(simulator, gpu_array, simulator.new_stream())
        source = gpu_array(queries)
        x = library.make(np.zeros_like(queries), device=(CUDA, 1))
        D, I = gpu_array(np.zeros((N, K), "float32")), library.make(
            np.zeros((N, K), "int64"), device=(CUDA, 1))
        copy_later(x.memory, source, queries.nbytes, library.stream)
        with simulator.on_gpu(0):
            index.search(x, K, D=D, I=I)
        assert numbers == [1, 1]
        np.testing.assert_array_equal(I.memory.get(), expected[1])
        del x, source, D, I, index


def test_arrays_are_kept_until_the_work_is_done_and_given_back_once(
    index, queries, library, simulator
):
    from faiss_ext._call import in_flight

    x, (D, I) = library.make(queries), library.outputs(N, K)
    memory = [array.memory for array in (x, D, I)]
    gone = [weakref.ref(array) for array in (x, D, I)]
    stream = index.default_stream_c()
    # Indexes of tests that failed would wait for the stream when they go.
    gc.collect()
    simulator.hold(stream)
    index.search(x, K, D=D, I=I)
    del x, D, I
    in_flight.release_finished()
    assert library.deleted == [0, 0, 0] and all(array() for array in gone)
    simulator.release(stream)
    simulator.finish()
    assert library.deleted == [1, 1, 1] and not any(array() for array in gone)
    del memory


def test_a_search_that_fails_gives_back(index, queries, library, simulator):
    x = library.make(queries)
    D = library.make(np.zeros((N, 3000), "float32"))
    I = library.make(np.zeros((N, 3000), "int64"))
    references = sys.getrefcount(x)
    with pytest.raises(RuntimeError):
        index.search(x, 3000, D=D, I=I)
    simulator.finish()
    assert library.deleted == [1, 1, 1]
    assert sys.getrefcount(x) == references


def test_a_missing_deleter_is_not_called(index, queries, expected, library):
    x = library.make(queries, deleter=False)
    np.testing.assert_array_equal(index.search(x, K)[1].copy_to_host(),
                                  expected[1])


def test_host_outputs_are_filled(index, queries, expected, library, simulator):
    D, I = np.zeros((N, K), "float32"), np.zeros((N, K), "int64")
    index.search(library.make(queries), K, D=D, I=I)
    assert library.asked == TABLE
    np.testing.assert_array_equal(D, expected[0])
    np.testing.assert_array_equal(I, expected[1])
    simulator.finish()
    assert library.deleted == [1]


def test_results_made_by_the_library_are_taken_by_its_table(
    index, queries, expected, library, monkeypatch
):
    module = types.ModuleType("some_array_library")
    module.float32, module.int64 = "float32", "int64"
    monkeypatch.setitem(sys.modules, "some_array_library", module)
    tensor = library.new_type(
        __module__="some_array_library",
        new_empty=lambda self, shape, dtype: library.make(
            np.zeros(shape, dtype), type(self)))
    x = library.make(queries, tensor)
    index.search(x, K)
    del library.asked[:]
    D, I = index.search(x, K)
    assert library.asked == TABLE * 3
    np.testing.assert_array_equal(D.memory.get(), expected[0])
    np.testing.assert_array_equal(I.memory.get(), expected[1])


@pytest.fixture(params=["pageable", "pinned", "pinned, not told"])
def on_host(request, faiss_ext, library):
    """Makes arrays in host memory, offered by the table."""

    def on_host(values):
        if request.param == "pageable":
            memory = np.array(values)
        else:
            memory = faiss_ext.pinned_empty(values.shape, values.dtype.name)
            memory[...] = values
        kind = CUDA_HOST if request.param == "pinned" else CPU
        array = library.make(values, device=(kind, 0))
        array.memory = types.SimpleNamespace(
            _pointer=memory.ctypes.data, get=lambda: memory)
        return array

    return on_host


def test_host_arrays_are_taken_by_the_table_too(
    index, queries, expected, library, on_host, simulator
):
    x = on_host(queries)
    D, I = on_host(np.zeros((N, K), "float32")), on_host(np.zeros((N, K), "int64"))
    found = index.search(x, K, D=D, I=I)
    assert found[0] is D and found[1] is I
    # They are on no stream.
    assert library.asked == ["lend"] * 3
    np.testing.assert_array_equal(D.memory.get(), expected[0])
    np.testing.assert_array_equal(I.memory.get(), expected[1])
    del found
    simulator.finish()
    assert library.deleted == [1, 1, 1]


def test_host_queries_without_outputs_give_numpy_arrays(
    index, queries, expected, library, on_host
):
    D, I = index.search(on_host(queries), K)
    assert library.asked == ["lend"] and type(D) is type(I) is np.ndarray
    np.testing.assert_array_equal(D, expected[0])
    np.testing.assert_array_equal(I, expected[1])


def test_host_arrays_beside_those_on_the_gpu(
    index, queries, expected, library, on_host, simulator
):
    D, I = on_host(np.zeros((N, K), "float32")), on_host(np.zeros((N, K), "int64"))
    index.search(library.make(queries), K, D=D, I=I)
    np.testing.assert_array_equal(D.memory.get(), expected[0])
    np.testing.assert_array_equal(I.memory.get(), expected[1])
    D, I = library.outputs(N, K)
    # Nobody else has the queries.
    index.search(on_host(queries), K, D=D, I=I)
    np.testing.assert_array_equal(D.memory.get(), expected[0])
    np.testing.assert_array_equal(I.memory.get(), expected[1])


def test_host_arrays_that_overlap_are_refused(
    faiss_ext, index, queries, library, on_host
):
    D, I = on_host(np.zeros((N, K), "float32")), on_host(np.zeros((N, K), "int64"))
    D.memory = I.memory
    with pytest.raises(faiss_ext.InvalidArray, match="^D and I overlap"):
        index.search(on_host(queries), K, D=D, I=I)


@pytest.mark.parametrize("given", [False, True], ids=["results made", "results given"])
def test_memory_of_the_gpu_is_not_taken_for_the_hosts(
    faiss_ext, index, queries, library, given
):
    x = library.make(queries, device=(CPU, 0))
    D, I = np.zeros((N, K), "float32"), np.zeros((N, K), "int64")
    with pytest.raises(faiss_ext.InvalidArray, match="^x: .* of GPU 0"):
        index.search(x, K, **({"D": D, "I": I} if given else {}))
    # Not by the table alone, which says less.
    assert "__dlpack__" in library.asked


@pytest.mark.parametrize("flags", [READ_ONLY, COPIED])
def test_queries_may_be_read_only_or_copies(
    index, queries, expected, library, flags
):
    x, (D, I) = library.make(queries, flags=flags), library.outputs(N, K)
    index.search(x, K, D=D, I=I)
    assert library.asked == TABLE * 3
    np.testing.assert_array_equal(I.memory.get(), expected[1])
