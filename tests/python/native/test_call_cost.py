"""What a search costs beside its C++: counted, because times say nothing here."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

DIMS, N, K = 8, 40, 4


@pytest.fixture
def index(faiss_ext, resources, vectors):
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(vectors(200, DIMS, 1))
    return index


@pytest.fixture
def queries(vectors):
    return vectors(N, DIMS, 2)


def python_calls(call):
    """Names of the functions, of Python and of C, that `call` runs, but for its
    own. The first run, which imports and learns, does not count."""
    call()
    seen = []

    def note(frame, event, argument):
        if event == "call":
            seen.append(frame.f_code.co_name)
        elif event == "c_call":
            seen.append(argument.__name__)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    assert seen.pop(0) == "<lambda>" and seen.pop() == "setprofile"
    return seen


SEARCH = ["replacement_search", "search_plain_c"]


def test_numpy_arrays_cost_one_call(index, queries):
    D, I = np.empty((N, K), "float32"), np.empty((N, K), "int64")
    assert python_calls(lambda: index.search(queries, K, D=D, I=I)) == SEARCH
    assert python_calls(lambda: index.search(queries, K)) == SEARCH


@pytest.mark.parametrize("stream", [None, 1])
def test_gpu_arrays_cost_one_call_and_their_own_attributes(
    index, queries, gpu_array, stream
):
    x = gpu_array(queries, stream=stream)
    D = gpu_array(np.zeros((N, K), "float32"), stream=stream)
    I = gpu_array(np.zeros((N, K), "int64"), stream=stream)
    seen = python_calls(lambda: index.search(x, K, D=D, I=I))
    assert seen == [*SEARCH, *["__cuda_array_interface__"] * 3]


def test_results_of_the_callers_library_cost_little_more(
    index, queries, gpu_array, monkeypatch
):
    library = types.ModuleType("some_array_library")
    made = [gpu_array(np.zeros((N, K), t)) for t in ["float32", "int64"] * 4]
    library.empty = lambda shape, dtype: made.pop(0)
    monkeypatch.setitem(sys.modules, "some_array_library", library)
    x = gpu_array(queries)
    x.__class__ = type("ndarray", (type(x),), {"__module__": "some_array_library"})
    seen = python_calls(lambda: index.search(x, K))
    assert seen[:2] == SEARCH and seen.count("results_like") == 1
    assert len(seen) <= 30


def test_a_search_in_steady_state_makes_no_event(
    index, queries, gpu_array, simulator
):
    x = gpu_array(queries, stream=simulator.new_stream())
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    for _ in range(2):
        index.search(x, K, D=D, I=I)
        simulator.synchronize()
    simulator.reset_counters()
    index.search(x, K, D=D, I=I)
    assert simulator.calls("cudaEventRecord") == 2
    assert simulator.calls("cudaEventCreateWithFlags") == 0


class Interface:
    def __init__(self, interface):
        self.__cuda_array_interface__ = interface


@pytest.mark.parametrize("change", [
    {"version": 2}, {"version": True}, {"mask": 1}, {"typestr": "<f8"},
    {"typestr": ">f4"}, {"typestr": 4}, {"shape": (N,)}, {"shape": (0, DIMS)},
    {"shape": (N, DIMS + 1)}, {"shape": [N, DIMS]}, {"shape": (2**62, DIMS)},
    {"shape": (N + 0.0, DIMS)}, {"strides": (4, N * 4)}, {"strides": (-32, 4)},
    {"strides": (32, 4, 1)}, {"data": (0, False)}, {"data": None},
    {"data": (64, 0)}, {"stream": 0}, {"stream": -1}, {"stream": "1"},
    {"stream": 2**64}, {"data": (2**63 - 64, False)}, {"data": (2**65, False)},
], ids=repr)
def test_what_is_not_plain_is_left_to_those_who_say_why(
    index, queries, gpu_array, change
):
    from faiss_ext.index_methods import search_plain_c

    memory = gpu_array(queries)
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    interface = dict(memory.__cuda_array_interface__)
    x = Interface(interface)
    assert search_plain_c(index, x, K, D, I, None) == (D, I)
    interface.update(change)
    assert search_plain_c(index, x, K, D, I, None) is None
    before = I.get()
    assert search_plain_c(index, memory, K, D, Interface(
        {**I.__cuda_array_interface__, **change}), None) is None
    np.testing.assert_array_equal(I.get(), before)


def test_outputs_that_are_not_plain_are_left_too(index, queries, gpu_array):
    from faiss_ext.index_methods import search_plain_c

    D, I = np.empty((N, K), "float32"), np.empty((N, K), "int64")
    readonly = I.copy()
    readonly.flags.writeable = False
    on_gpu = gpu_array(np.zeros((N, K), "int64"))
    interface = on_gpu.__cuda_array_interface__
    address = interface["data"][0]
    for labels in (
        None, readonly, I.T, I.astype(">i8"), I.astype("uint64"),
        I.astype("int32"), np.ma.array(I), I[:, ::2], I[:-1], I.tolist(),
        Interface({**interface, "data": (address, True)}),
        # Host memory, and the GPU's that ends too early.
        Interface({**interface, "data": (I.ctypes.data, False)}),
        Interface({**interface, "data": (address + 64 * N * K, False)}),
    ):
        assert search_plain_c(index, queries, K, D, labels, None) is None
    same = Interface({**interface, "typestr": "<f4"})
    assert search_plain_c(index, queries, K, same, on_gpu, None) is None


def test_an_attribute_that_is_interrupted_is_not_hidden(index, queries):
    class Interrupted:
        @property
        def __cuda_array_interface__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.search(Interrupted(), K)
