"""What a search costs beside its C++: counted, because times say nothing here."""

from __future__ import annotations

import contextlib
import gc
import sys
import types

import numpy as np
import pytest
from common_search import K, N


def python_calls(call):
    """Names of the functions, of Python and of C, that `call` runs, but for its
    own. The first run, which imports and learns, does not count, and no garbage
    is collected."""
    call()
    gc.collect()
    gc.disable()
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
        gc.enable()
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


@pytest.mark.parametrize("device, most", [
    (contextlib.nullcontext(), 30),
    # Which GPU it is on is asked of CUDA.
    (None, 45),
], ids=["that names its device", "that does not"])
def test_results_of_the_callers_library_cost_little_more(
    index, queries, gpu_array, monkeypatch, device, most
):
    library = types.ModuleType("some_array_library")
    made = [gpu_array(np.zeros((N, K), t)) for t in ["float32", "int64"] * 4]
    library.empty = lambda shape, dtype: made.pop(0)
    monkeypatch.setitem(sys.modules, "some_array_library", library)
    x = gpu_array(queries)
    x.__class__ = type("ndarray", (type(x),), {
        "__module__": "some_array_library", "device": device})
    seen = python_calls(lambda: index.search(x, K))
    assert seen[:2] == SEARCH and seen.count("results_like") == 1
    assert len(seen) <= most, " ".join(seen)


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
