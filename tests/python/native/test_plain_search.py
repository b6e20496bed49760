"""The search of arrays that need nothing done to them, which Python only hands
on: the rules of the array entry hold there, too."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import COPIED, CUDA, FLOAT32, INT64, READ_ONLY, Exporter


def search_plain_c(*arguments):
    from faiss_ext._index.search import current_stream, search_plain_c

    return search_plain_c(*arguments, current_stream)


def search(index, x, k, D, I):
    """A search that is plain."""
    assert search_plain_c(index, x, k, D, I, None) == (D, I)


def outputs(make, **options):
    return (make(np.zeros((N, K), "float32"), **options),
            make(np.zeros((N, K), "int64"), **options))


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


def test_results_over_the_queries_are_refused(
    faiss_ext, index, queries, gpu_array
):
    x = gpu_array(queries)
    interface = x.__cuda_array_interface__
    D, I = outputs(gpu_array)
    over = Interface({**interface, "shape": (N, K)})
    assert search_plain_c(index, x, K, over, I, None) is None
    over = Interface({**interface, "shape": (N, K), "typestr": "<i8"})
    assert search_plain_c(index, x, K, D, over, None) is None
    with pytest.raises(faiss_ext.InvalidArray, match="^I and x overlap"):
        index.search(x, K, D=D, I=over)


def test_a_stream_that_is_named_while_another_gpu_is_current_is_looked_at_twice(
    faiss_ext, vectors, queries, gpu_array, simulator
):
    # It may be one of that GPU (test_several_gpus.py).
    simulator.library.cuda_sim_set_device_count(2)
    config = faiss_ext.GpuIndexFlatConfig()
    config.device = 1
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.StandardGpuResources(), DIMS, config)
    index.add(vectors(200, DIMS, 1))
    with simulator.on_gpu(1):
        x = gpu_array(queries, stream=simulator.new_stream())
        D, I = outputs(gpu_array)
        search(index, x, K, D, I)
        with simulator.on_gpu(0):
            assert search_plain_c(index, x, K, D, I, None) is None
        del x, D, I, index


def test_a_search_that_fails_hands_the_streams_on(
    index, queries, gpu_array, simulator
):
    from faiss_ext._call import in_flight

    stream = simulator.new_stream()
    x = gpu_array(queries, stream=stream)
    I = gpu_array(np.zeros((N, 3000), "int64"))
    D = gpu_array(np.zeros((N, 3000), "float32"))
    simulator.reset_counters()
    with pytest.raises(RuntimeError):
        search_plain_c(index, x, 3000, D, I, None)
    # Once before our work and once behind it.
    assert simulator.calls("cudaStreamWaitEvent") == 2
    in_flight.finish()


def test_the_end_waits_for_what_is_in_flight(
    index, queries, gpu_array, simulator
):
    from faiss_ext._call import in_flight

    x, (D, I) = gpu_array(queries), outputs(gpu_array)
    search(index, x, K, D, I)
    simulator.reset_counters()
    in_flight.finish()
    assert simulator.waits() == 1


def test_dlpack_comes_before_an_interface_without_a_stream(
    index, queries, gpu_array
):
    class Both(Interface):
        def __dlpack__(self, **options):
            raise NotImplementedError

    memory = gpu_array(queries)
    D, I = outputs(gpu_array)
    both = Both(memory.__cuda_array_interface__)
    assert search_plain_c(index, both, K, D, I, None) is None
    both.__cuda_array_interface__ = {
        **memory.__cuda_array_interface__, "stream": 1}
    search(index, both, K, D, I)


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_dlpack_is_plain(index, queries, expected, gpu_array, simulator, version):
    x = Exporter(gpu_array(queries), version=version)
    D, I = outputs(gpu_array)
    D = Exporter(D, version=version)
    I = Exporter(I, version=version, dtype=INT64)
    simulator.reset_counters()
    search(index, x, K, D, I)
    assert simulator.waits() == 0 and simulator.pending()
    assert simulator.bytes_up() == simulator.bytes_down() == 0
    np.testing.assert_array_equal(D.memory.get(), expected[0])
    np.testing.assert_array_equal(I.memory.get(), expected[1])
    stream = index.default_stream_c()
    for array, copy in ((x, None), (D, False), (I, False)):
        assert array.calls == [{
            "stream": stream, "max_version": (1, 0), "dl_device": (CUDA, 0),
            "copy": copy}]
        assert array.deleted == [0]
    simulator.synchronize()
    search(index, gpu_array(queries), K, *outputs(gpu_array))
    assert x.deleted == D.deleted == I.deleted == [1]


@pytest.mark.parametrize("loan", [
    {"flags": READ_ONLY}, {"flags": COPIED}, {"strides": (1, N)},
    {"dtype": FLOAT32}, {"device": (CUDA, 1)},
], ids=repr)
def test_a_loan_that_is_not_plain_is_handed_over(
    index, queries, gpu_array, loan
):
    x = Exporter(gpu_array(queries), version=(1, 0))
    D, I = outputs(gpu_array)
    I = Exporter(I, **{"version": (1, 0), "dtype": INT64, **loan})
    I.said = (CUDA, 0)
    handed = search_plain_c(index, x, K, D, I, None)
    assert sorted(handed) == ["I", "x"]
    assert handed["I"][0] is I and handed["x"][0] is x
    assert I.deleted == x.deleted == [0]
    del handed
    assert I.deleted == x.deleted == [1]


def test_an_output_with_offers_that_may_forbid_it_is_not_asked_for(
    index, queries, gpu_array
):
    D, I = outputs(gpu_array)
    output = Exporter(I, dtype=INT64)
    address = I.__cuda_array_interface__["data"][0]
    for name, offer in (
        ("__array_interface__", {}),
        ("__cuda_array_interface__", {"data": (address, True)}),
        ("__cuda_array_interface__", {}),
    ):
        setattr(output, name, offer)
        assert search_plain_c(index, queries, K, D, output, None) is None
        assert output.calls == []
        delattr(output, name)
    search(index, queries, K, D, output)


def test_what_an_exporter_raised_is_handed_over(index, queries, gpu_array):
    class Raising(Exporter):
        def __dlpack__(self, **options):
            raise BufferError("not now")

    x = Raising(gpu_array(queries))
    array, error = search_plain_c(index, x, K, *outputs(gpu_array), None)["x"]
    assert array is x and type(error) is BufferError


def test_an_exporter_that_is_interrupted_is_not_hidden(index, queries, gpu_array):
    class Interrupted(Exporter):
        def __dlpack__(self, **options):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.search(Interrupted(gpu_array(queries)), K)


def test_results_that_turn_out_not_plain_are_made_anew(
    index, queries, expected, gpu_array, monkeypatch
):
    made = []

    def new_empty(shape, dtype):
        made.append(dtype)
        # The second labels, which the plain search asks for, have wrong numbers.
        number = {"float32": "float32", "int64": "int64"}[dtype]
        if made.count("int64") == 2 and dtype == "int64":
            number = "float32"
        memory = gpu_array(np.zeros(shape, number))
        kind = INT64 if number == "int64" else FLOAT32
        return Exporter(memory, dtype=kind, version=(1, 0))

    library = types.ModuleType("some_array_library")
    library.float32, library.int64 = "float32", "int64"
    monkeypatch.setitem(sys.modules, "some_array_library", library)
    x = Exporter(gpu_array(queries), version=(1, 0))
    x.__class__ = type("Tensor", (Exporter,), {
        "__module__": "some_array_library", "new_empty": staticmethod(new_empty)})
    for _ in range(3):
        D, I = index.search(x, K)
        np.testing.assert_array_equal(D.memory.get(), expected[0])
        np.testing.assert_array_equal(I.memory.get(), expected[1])
    assert len(made) == 8
