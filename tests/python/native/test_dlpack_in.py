"""Arrays that offer DLPack: the rules a careful consumer obeys."""

from __future__ import annotations

import ctypes
import enum
import gc
import sys
import types
import weakref

import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import (
    COPIED,
    CPU,
    CUDA,
    CUDA_HOST,
    CUDA_MANAGED,
    FLOAT32,
    INT64,
    READ_ONLY,
    Exporter,
    Loan,
    capsule_name,
)


@pytest.fixture
def search(index, faiss_ext, simulator):
    """Search, and let the arrays go; returns the labels."""
    def search(x):
        D, I = np.empty((N, K), "float32"), np.empty((N, K), "int64")
        index.search(x, K, D=D, I=I)
        simulator.finish()
        return I

    return search


@pytest.fixture
def exporter(gpu_array):
    def make(values, shape=None, **options):
        memory = gpu_array(values)
        return Exporter(
            memory, values.shape if shape is None else shape, **options)

    return make


@pytest.mark.parametrize("version", [None, (1, 0), (1, 7)])
@pytest.mark.parametrize("strides", [None, (DIMS, 1)])
def test_an_exporter_of_any_version_is_taken_and_given_back_once(
    exporter, queries, expected, search, version, strides
):
    x = exporter(queries, version=version, strides=strides)
    np.testing.assert_array_equal(search(x), expected[1])
    assert x.deleted == [1]


def test_the_stream_and_the_newest_words_are_passed(
    exporter, queries, search, index
):
    x = exporter(queries)
    search(x)
    assert x.calls == [
        {
            "stream": index.default_stream_c() or 1,
            "max_version": (1, 0),
            "dl_device": (CUDA, 0),
            "copy": None,
        }
    ]


def test_the_legacy_stream_is_called_one(faiss_ext, vectors, exporter, queries):
    resources = faiss_ext.StandardGpuResources()
    resources.setDefaultNullStreamAllDevices()
    index = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    index.add(vectors(50, DIMS, 1))
    assert index.default_stream_c() == 0
    x = exporter(queries)
    index.search(x, K)
    assert x.calls[0]["stream"] == 1


def test_an_exporter_that_knows_only_the_stream_is_called_plainly(
    exporter, queries, expected, search
):
    x = exporter(queries)
    x.__class__ = type("Old", (Exporter,), {
        "__dlpack__": lambda self, stream=None: Exporter.__dlpack__(
            self, stream=stream),
    })
    np.testing.assert_array_equal(search(x), expected[1])
    assert len(x.calls) == 1 and x.calls[0]["stream"] > 0


def test_device_types_may_be_enumerations(exporter, queries, expected, search):
    x = exporter(queries)
    x.said = (enum.IntEnum("DeviceType", {"CUDA": 2}).CUDA, 0)
    np.testing.assert_array_equal(search(x), expected[1])


def test_the_byte_offset_is_honoured(exporter, vectors, queries, expected, search):
    both = np.concatenate([vectors(3, DIMS, 9), queries])
    x = exporter(both, (N, DIMS), offset=3 * DIMS * 4)
    np.testing.assert_array_equal(search(x), expected[1])


def test_empty_arrays_need_no_pointer(index):
    x = Exporter(0, (0, DIMS), offset=64)
    D, I = index.search(x, K)
    assert tuple(I.shape) == (0, K)


def test_a_missing_deleter_is_not_called(exporter, queries, expected, search):
    for version in (None, (1, 0)):
        x = exporter(queries, deleter=False, version=version)
        np.testing.assert_array_equal(search(x), expected[1])


def test_a_capsule_is_renamed_when_it_is_taken_and_not_taken_twice(
    exporter, queries, search
):
    for version, name in (
        (None, "used_dltensor"), ((1, 0), "used_dltensor_versioned")
    ):
        x = exporter(queries, version=version)
        loan = x._make()
        capsule = loan.capsule()
        x.__class__ = type("Same", (Exporter,), {
            "__dlpack__": lambda self, **options: capsule})
        search(x)
        assert capsule_name(capsule) == name
        with pytest.raises(ValueError, match=f"gave '{name}'"):
            search(x)
        assert loan.deleted == 1


@pytest.mark.parametrize("given", [None, 7, "capsule"])
def test_what_is_no_capsule_is_refused(exporter, queries, search, given):
    x = exporter(queries)
    if given == "capsule":
        given = Loan(0, (0,), name=b"something_else").capsule()
    x.__class__ = type("Odd", (Exporter,), {
        "__dlpack__": lambda self, **options: given})
    with pytest.raises(ValueError, match="x: __dlpack__ gave"):
        search(x)


HUGE = 2**62

REFUSED = [
    # options, text; what is judged of a tensor is the same in a capsule with a
    # version, which a few have
    ({"version": (2, 0)}, "DLPack version 2.0; version 1"),
    ({"version": (0, 9)}, "DLPack version 0.9"),
    ({"shape": (-N, DIMS)}, "not one of an array"),
    ({"shape": (HUGE, HUGE)}, "more bytes than memory"),
    ({"shape": (HUGE, DIMS)}, "more bytes than memory"),
    ({"shape": (2**61 + N, DIMS)}, "more bytes than memory"),
    ({"shape": (DIMS,)}, r"x\[None, :\]"),
    ({"shape": (N, DIMS, 1)}, r"needed \(n, 8\)"),
    ({"shape": (N, DIMS - 1), "version": (1, 0)}, r"needed \(n, 8\)"),
    ({"shape": (N + 1, DIMS)}, "shorter|no memory"),
    ({"rank": -1}, "-1 dimensions"),
    ({"rank": 65, "version": (1, 7)}, "65 dimensions"),
    ({"rank": 2**31 - 1}, "dimensions"),
    ({"null_shape": True}, "without a shape"),
    ({"strides": (-DIMS, 1)}, "shorter|no memory"),
    ({"strides": (1, N + 1)}, "shorter|no memory"),
    ({"strides": (2 * DIMS, 1), "version": (1, 0)}, "shorter|no memory"),
    ({"strides": (HUGE, 1)}, "address space|further than memory"),
    ({"strides": (-(2**63), 1)}, "address space|further than memory"),
    ({"strides": (2**58, 1)}, "address space|further than memory|shorter|no memory"),
    ({"dtype": (2, 64, 1)}, "float64; float32 is needed"),
    ({"dtype": (0, 32, 1)}, "int32; float32 is needed"),
    ({"dtype": (5, 64, 1)}, "complex64"),
    ({"dtype": (6, 8, 1)}, "bool"),
    ({"dtype": (3, 32, 1), "version": (1, 0)}, "type code 3"),
    ({"dtype": (99, 32, 1)}, "type code 99"),
    ({"dtype": (2, 32, 4)}, "4 lanes"),
    ({"dtype": (2, 32, 0)}, "0 lanes"),
    ({"dtype": (2, 0, 1)}, "0 bits"),
    ({"dtype": (0, 4, 1)}, "4 bits"),
    ({"offset": 2**64 - 1}, "byte offset"),
    ({"offset": 2, "version": (1, 0)}, "not a multiple of 4"),
    ({"offset": 4}, "shorter|no memory"),
]


@pytest.mark.parametrize("options, text", REFUSED, ids=str)
def test_what_breaks_the_rules_is_refused_and_given_back_once(
    faiss_ext, exporter, queries, expected, search, options, text
):
    x = exporter(queries, **options)
    with pytest.raises(faiss_ext.InvalidArray, match=f"^x\\b.*({text})"):
        search(x)
    assert x.deleted == [1]
    np.testing.assert_array_equal(search(queries), expected[1])


def test_a_null_pointer_is_refused(search):
    x = Exporter(0, (N, DIMS))
    with pytest.raises(ValueError, match="null pointer"):
        search(x)
    assert x.deleted == [1]


def test_a_pointer_that_cuda_does_not_know_is_refused(search, queries):
    host = np.ascontiguousarray(queries)
    x = Exporter(host.ctypes.data, (N, DIMS))
    with pytest.raises(ValueError, match="no memory of a GPU"):
        search(x)
    assert x.deleted == [1]


def test_the_device_is_what_the_runtime_says(exporter, queries, search, simulator):
    simulator.library.cuda_sim_set_device_count(2)
    x = exporter(queries, device=(CUDA, 1))
    with pytest.raises(ValueError, match="says it is on GPU 1, but its memory is on GPU 0"):
        search(x)
    assert x.deleted == [1]


def test_a_capsule_on_another_device_than_said_is_refused(
    exporter, queries, search, simulator
):
    x = exporter(queries)
    simulator.library.cuda_sim_set_device_count(4)
    x.said = (CUDA, 3)
    with pytest.raises(ValueError, match="__dlpack_device__ gave"):
        search(x)
    assert x.deleted == [1]


@pytest.mark.parametrize("said", [None, 2, (2,), ("cuda", 0), (4, 0), (10, 0)])
def test_devices_that_are_none_are_refused_before_anything_is_lent(
    exporter, queries, search, said
):
    x = exporter(queries)
    x.said = said
    with pytest.raises(ValueError, match="^x: "):
        search(x)
    assert not x.calls


def test_an_exporter_finds_its_gpu_current(
    faiss_ext, vectors, exporter, queries, expected, simulator
):
    """PyTorch refuses to lend a tensor of another GPU than the current one."""
    simulator.library.cuda_sim_set_device_count(2)

    def lend(self, **options):
        if simulator.current_gpu() != 1:
            raise BufferError("on another device")
        return Exporter.__dlpack__(self, **options)

    config = faiss_ext.GpuIndexFlatConfig()
    config.device = 1
    index = faiss_ext.GpuIndexFlatL2(
        faiss_ext.StandardGpuResources(), DIMS, config)
    with simulator.on_gpu(1):
        stored, x = (exporter(values, device=(CUDA, 1))
                     for values in (vectors(200, DIMS, 1), queries))
        D = exporter(np.zeros((N, K), "float32"), device=(CUDA, 1))
        I = exporter(np.zeros((N, K), "int64"), device=(CUDA, 1), dtype=INT64)
        for array in (stored, x, D, I):
            array.__class__ = type("Careful", (Exporter,), {"__dlpack__": lend})
        with simulator.on_gpu(0):
            index.add(stored)
            index.search(x, K, D=D, I=I)
            assert simulator.current_gpu() == 0 and len(x.calls) == 1
        np.testing.assert_array_equal(I.memory.get(), expected[1])
        del stored, x, D, I, array, index


@pytest.mark.parametrize("error", [
    BufferError("requires grad"), RuntimeError("no"), ValueError("stream")])
def test_an_exporter_that_raises_is_named(
    faiss_ext, exporter, queries, search, error
):
    x = exporter(queries, error=error)
    with pytest.raises(faiss_ext.InvalidArray, match="x: its __dlpack__ raised") as caught:
        search(x)
    assert caught.value.__cause__ is error
    assert len(x.calls) == 1


def test_an_exporter_whose_device_raises_is_named(exporter, queries, search):
    x = exporter(queries)
    x.__class__ = type("Odd", (Exporter,), {
        "__dlpack_device__": lambda self: 1 // 0})
    with pytest.raises(ValueError, match="__dlpack_device__ raised ZeroDiv"):
        search(x)


def test_a_deleter_runs_without_the_pending_exception(gpu_array, queries):
    from faiss_ext._native import swigfaiss_ext as native

    pending = ctypes.pythonapi.PyErr_Occurred
    pending.restype = ctypes.c_void_p
    seen = []
    memory = gpu_array(queries)
    loan = Loan(memory._pointer, (N, DIMS), on_delete=lambda: seen.append(pending()))
    capsule = loan.capsule()
    with pytest.raises(ZeroDivisionError):
        # The array dies on the interpreter's stack, while the error is on its
        # way.
        print(native.take_dlpack_c("x", capsule), 1 // 0)
    assert loan.deleted == 1 and seen == [None]


def test_read_only_arrays_are_inputs_and_no_outputs(
    index, exporter, queries, expected, search
):
    x = exporter(queries, version=(1, 0), flags=READ_ONLY)
    np.testing.assert_array_equal(search(x), expected[1])
    D = exporter(np.zeros((N, K), "float32"), version=(1, 0), flags=READ_ONLY)
    with pytest.raises(ValueError, match="D: read-only"):
        index.search(queries, K, D=D)
    assert D.deleted == [1]


def test_a_copy_is_no_output(index, exporter, queries):
    D = exporter(np.zeros((N, K), "float32"), version=(1, 0), flags=COPIED)
    with pytest.raises(ValueError, match="D: its __dlpack__ gives a copy"):
        index.search(queries, K, D=D)
    assert D.calls[0]["copy"] is False


def test_arrays_are_kept_until_the_work_is_done(
    index, exporter, queries, simulator
):
    from faiss_ext._call import in_flight

    x = exporter(queries)
    D = exporter(np.zeros((N, K), "float32"))
    I = exporter(np.zeros((N, K), "int64"), dtype=INT64)
    loans = [a.loans for a in (x, D, I)]
    stream = index.default_stream_c()
    # Indexes of tests that failed would wait for the stream when they go.
    gc.collect()
    simulator.hold(stream)
    index.search(x, K, D=D, I=I)
    memory = [a.memory for a in (x, D, I)]
    del x, D, I
    in_flight.release_finished()
    assert [loan[0].deleted for loan in loans] == [0, 0, 0]
    simulator.release(stream)
    simulator.synchronize()
    in_flight.release_finished()
    assert [loan[0].deleted for loan in loans] == [1, 1, 1]
    del memory


def library_with_stream(monkeypatch, stream):
    library = types.ModuleType("lib_with_stream")
    library.cuda = types.SimpleNamespace(
        current_stream=lambda device: types.SimpleNamespace(cuda_stream=stream))
    monkeypatch.setitem(sys.modules, "lib_with_stream", library)
    return type("Tensor", (Exporter,), {"__module__": "lib_with_stream"})


@pytest.mark.parametrize("known", ["current", "legacy", "derived"])
def test_the_library_goes_on_after_the_results(
    index, exporter, queries, expected, gpu_array, simulator, monkeypatch, known
):
    stream = None if known == "legacy" else simulator.new_stream()
    D = exporter(np.zeros((N, K), "float32"))
    I = exporter(np.zeros((N, K), "int64"), dtype=INT64)
    copy = gpu_array(np.zeros((N, K), "int64"))
    if stream:
        its_class = library_with_stream(monkeypatch, stream)
        if known == "derived":
            its_class = type("Derived", (its_class,), {})
        D.__class__ = I.__class__ = its_class
    index.search(queries, K, D=D, I=I)
    simulator.copy(copy._pointer, I.memory._pointer, N * K * 8, stream)
    np.testing.assert_array_equal(copy.get(), expected[1])


def test_host_arrays_that_offer_only_dlpack_are_inputs_and_outputs(
    index, queries, expected, search
):
    host = np.ascontiguousarray(queries)
    x = Exporter(host.ctypes.data, (N, DIMS), device=(CPU, 0))
    D, I = np.zeros((N, K), "float32"), np.zeros((N, K), "int64")
    outs = [
        Exporter(D.ctypes.data, (N, K), device=(CPU, 0)),
        Exporter(I.ctypes.data, (N, K), device=(CPU, 0), dtype=INT64),
    ]
    index.search(x, K, D=outs[0], I=outs[1])
    np.testing.assert_array_equal(I, expected[1])
    np.testing.assert_array_equal(D, expected[0])
    assert all("stream" not in call for a in (x, *outs) for call in a.calls)
    gc.collect()
    assert x.deleted == [1]


def test_strided_host_arrays_are_converted_as_faiss_does(
    queries, expected, search
):
    host = np.ascontiguousarray(queries[::-1]).astype("float64")
    last = host.ctypes.data + (N - 1) * DIMS * 8
    x = Exporter(last, (N, DIMS), device=(CPU, 0), strides=(-DIMS, 1),
                 dtype=(2, 64, 1))
    np.testing.assert_array_equal(search(x), expected[1])


def test_host_arrays_beyond_numpy_are_refused(faiss_ext, search):
    x = Exporter(0, (0, 2**40, 2**40), device=(CPU, 0))
    with pytest.raises(faiss_ext.InvalidArray, match="^x: shape"):
        search(x)
    assert x.deleted == [1]


def test_pinned_and_managed_memory(
    queries, expected, search, simulator
):
    library = simulator.library
    pinned = ctypes.c_void_p()
    assert library.cudaHostAlloc(
        ctypes.byref(pinned), ctypes.c_size_t(queries.nbytes), 0) == 0
    ctypes.memmove(pinned, queries.ctypes.data, queries.nbytes)
    x = Exporter(pinned.value, (N, DIMS), device=(CUDA_HOST, 0))
    np.testing.assert_array_equal(search(x), expected[1])
    assert "stream" not in x.calls[0]
    simulator.synchronize()
    assert library.cudaFreeHost(pinned) == 0
    managed = ctypes.c_void_p()
    assert library.cudaMallocManaged(
        ctypes.byref(managed), ctypes.c_size_t(queries.nbytes), 1) == 0
    ctypes.memmove(managed, queries.ctypes.data, queries.nbytes)
    x = Exporter(managed.value, (N, DIMS), device=(CUDA_MANAGED, 0))
    np.testing.assert_array_equal(search(x), expected[1])
    assert x.calls[0]["stream"] > 0
    simulator.synchronize()
    assert library.cudaFree(managed) == 0


@pytest.mark.parametrize("said", [CPU, CUDA_HOST])
@pytest.mark.parametrize("rows", [N, 1])
def test_memory_of_a_gpu_that_is_said_to_be_the_hosts_is_refused(
    faiss_ext, index, queries, gpu_array, said, rows
):
    memory = gpu_array(queries)
    x = Exporter(memory._pointer.value, (rows, DIMS), device=(said, 0))
    cpu = faiss_ext.IndexFlatL2(DIMS)
    # An index on the CPU asks where the array speaks of CUDA.
    for on in (index, cpu) if said == CUDA_HOST else (index,):
        with pytest.raises(faiss_ext.InvalidArray, match="^x: .* of GPU 0"):
            on.search(x, K)
    D = Exporter(memory._pointer.value, (N, K), device=(said, 0))
    with pytest.raises(faiss_ext.InvalidArray, match="^D: .* of GPU 0"):
        index.search(queries, K, D=D)
    assert set(x.deleted + D.deleted) == {1}


def test_ordinary_memory_that_is_said_to_be_pinned_is_refused(
    faiss_ext, index, queries
):
    x = Exporter(queries.ctypes.data, (N, DIMS), device=(CUDA_HOST, 0))
    with pytest.raises(faiss_ext.InvalidArray, match="^x: .* pinned memory"):
        index.search(x, K)
    # An address of nobody's, too: to read it would end the process.
    x = Exporter(1 << 40, (N, DIMS), device=(CUDA_HOST, 0))
    with pytest.raises(faiss_ext.InvalidArray, match="^x: .* pinned memory"):
        index.search(x, K)


@pytest.mark.parametrize("number", [-1, 7, 99])
@pytest.mark.parametrize("rows", [0, N])
def test_arrays_of_a_gpu_that_does_not_exist_are_refused(
    faiss_ext, index, gpu_array, queries, number, rows
):
    memory = gpu_array(queries)
    x = Exporter(memory._pointer.value, (rows, DIMS), device=(CUDA, number))
    with pytest.raises(faiss_ext.InvalidArray, match=f"^x: .* GPU {number};"):
        index.search(x, K)


class Pinned(Exporter):
    """Pinned memory as PyTorch lends it: it does not know the name that it gives
    its own device, and the loan is on the host."""

    def __init__(self, shape, dtype="float32"):
        self.values = pinned_memory(shape, dtype)
        codes = {"float32": FLOAT32, "float16": (2, 16, 1), "int64": INT64}
        super().__init__(
            self.values.ctypes.data, shape, device=(CPU, 0), dtype=codes[dtype])
        self.said = (CUDA_HOST, 0)

    def __dlpack__(self, **options):
        if options.get("dl_device"):
            raise BufferError("Unsupported device_type: 3")
        return super().__dlpack__(**options)


def pinned_memory(shape, dtype):
    """Of the simulated runtime; it is not freed."""
    cuda = ctypes.CDLL(None)  # preloaded
    values = np.zeros(shape, dtype)
    address = ctypes.c_void_p()
    assert cuda.cudaHostAlloc(
        ctypes.byref(address), ctypes.c_size_t(values.nbytes), 0) == 0
    memory = (ctypes.c_char * values.nbytes).from_address(address.value)
    return np.frombuffer(memory, dtype).reshape(shape)


@pytest.mark.parametrize("type_of_d", ["float32", "float16"])
def test_pinned_tensors_are_host_arrays(
    index, queries, expected, simulator, type_of_d
):
    x = Pinned(queries.shape)
    x.values[:] = queries
    D, I = Pinned((N, K), type_of_d), Pinned((N, K), "int64")
    index.search(x, K, D=D, I=I)
    # Without another wait, and without a copy by the host.
    np.testing.assert_array_equal(D.values, expected[0].astype(type_of_d))
    np.testing.assert_array_equal(I.values, expected[1])
    assert simulator.counter("copies_d2h_pageable") == 0
    # No array of a GPU was given, so none is returned.
    D, I = index.search(x, K)
    assert type(D) is type(I) is np.ndarray
    np.testing.assert_array_equal(I, expected[1])


def test_pinned_outputs_of_gpu_queries(exporter, index, queries, expected):
    D, I = Pinned((N, K)), Pinned((N, K), "int64")
    index.search(exporter(queries), K, D=D, I=I)
    np.testing.assert_array_equal(D.values, expected[0])
    np.testing.assert_array_equal(I.values, expected[1])


@pytest.mark.parametrize("kind", ["DLPack", "NumPy"])
def test_pinned_queries_are_kept_until_they_are_read(
    index, queries, gpu_array, simulator, kind
):
    from faiss_ext._call import in_flight

    x = Pinned(queries.shape)
    x.values[:] = queries
    if kind == "NumPy":
        x = x.values
    alive = weakref.ref(x)
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))
    index.search(x, K, D=D, I=I)
    assert simulator.pending()
    del x
    gc.collect()
    in_flight.release_finished()
    assert alive() is not None
    simulator.synchronize()
    in_flight.release_finished()
    gc.collect()
    assert alive() is None


def both(exporter, gpu_array, queries, interface):
    """An array that offers DLPack and the CUDA Array Interface."""
    x = exporter(queries)
    x.__class__ = type("Both", (Exporter,), {
        "__cuda_array_interface__": property(interface)})
    return x


def test_an_interface_with_a_stream_goes_before_dlpack(
    exporter, gpu_array, queries, expected, search, simulator
):
    stream = simulator.new_stream()
    x = both(exporter, gpu_array, queries, lambda self: {
        **self.memory.__cuda_array_interface__, "stream": stream})
    np.testing.assert_array_equal(search(x), expected[1])
    assert not x.calls


@pytest.mark.parametrize("interface", [
    {"version": 2}, {"version": 3, "stream": None}], ids=str)
def test_dlpack_goes_before_an_interface_without_a_stream(
    exporter, gpu_array, queries, expected, search, interface
):
    x = both(exporter, gpu_array, queries, lambda self: {
        **self.memory.__cuda_array_interface__, **interface})
    np.testing.assert_array_equal(search(x), expected[1])
    assert len(x.calls) == 1


def test_an_interface_that_raises_is_no_offer(
    exporter, gpu_array, queries, expected, search
):
    x = both(exporter, gpu_array, queries, lambda self: 1 // 0)
    np.testing.assert_array_equal(search(x), expected[1])
    assert len(x.calls) == 1


def test_an_output_that_another_protocol_calls_read_only_is_refused(
    faiss_ext, index, exporter, queries
):
    # Capsules without a version do not tell; arrays of JAX are immutable.
    immutable = (0, True)
    D = exporter(np.zeros((N, K), "float32"))
    D.__class__ = type("Immutable", (Exporter,), {
        "__cuda_array_interface__": {"version": 2, "data": immutable}})
    with pytest.raises(faiss_ext.InvalidArray, match="D: read-only"):
        index.search(queries, K, D=D)
    assert not D.loans
    values = np.zeros((N, K), "float32")
    values.flags.writeable = False

    host = Exporter(values.ctypes.data, (N, K), device=(CPU, 0))
    host.__class__ = type("Immutable", (Exporter,), {
        "__array_interface__": values.__array_interface__})
    for index in (index, faiss_ext.IndexFlatL2(DIMS)):
        with pytest.raises(faiss_ext.InvalidArray, match="D: read-only"):
            index.search(queries, K, D=host)
    assert not host.loans
