"""Where a search leaves DLPack's table of C functions alone: arrays that are not
plain, tables that are odd. ``__dlpack__`` is asked then, and refuses in its own
words."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import COPIED, CUDA, READ_ONLY
from exchange_tables import (
    METHODS,
    RAISES_AND_SUCCEEDS,
    TABLE,
    TRUTH,
    Library,
    Table,
)


@pytest.fixture
def library(simulator, gpu_array):
    return Library(simulator, gpu_array)


@pytest.mark.parametrize("flags, text", [
    (READ_ONLY, "^I: read-only, but results"),
    (COPIED, "^I: its __dlpack__ gives a copy"),
])
def test_outputs_must_be_neither(
    faiss_ext, index, queries, library, simulator, flags, text
):
    D, I = library.outputs(N, K)
    I.loan["flags"] = flags
    with pytest.raises(faiss_ext.InvalidArray, match=text):
        index.search(library.make(queries), K, D=D, I=I)
    simulator.finish()
    assert set(library.deleted) == {1}


def test_an_output_that_another_offer_may_forbid_is_not_lent(
    faiss_ext, index, queries, library
):
    D, I = library.outputs(N, K)
    I.__array_interface__ = {"data": (64, True)}
    with pytest.raises(faiss_ext.InvalidArray, match="^I: read-only"):
        index.search(queries, K, D=D, I=I)
    assert library.asked[:2] == TABLE and "lend" not in library.asked[2:]


def methods_were_asked(library, simulator):
    """Whether the table was no use, and the methods were."""
    simulator.finish()
    asked = [name for name in library.asked if name in METHODS]
    return asked[:2] == METHODS and asked.count("__dlpack__") == 1


def by_methods(index, x, expected, library, simulator):
    """A search that takes `x` by its methods."""
    D, I = np.zeros((N, K), "float32"), np.zeros((N, K), "int64")
    index.search(x, K, D=D, I=I)
    np.testing.assert_array_equal(D, expected[0])
    np.testing.assert_array_equal(I, expected[1])
    return methods_were_asked(library, simulator)


def truth(array):
    """The ``bool`` of an array whose table's `lend` is TRUTH."""
    if isinstance(array.answer, BaseException):
        # A new one: what is raised keeps the frames that it went through.
        raise type(array.answer)(*array.answer.args)
    return array.answer


@pytest.mark.parametrize("table", [
    {"version": (0, 9)}, {"version": (2, 0)}, {"lend": None},
    {"current_stream": None}, {"name": b"another_table"},
    {"lend": lambda array: None}, {"lend": RAISES_AND_SUCCEEDS},
    {"current_stream": lambda kind, number: None},
    {"current_stream": RAISES_AND_SUCCEEDS},
], ids=str)
def test_a_table_that_is_odd_is_left_alone(
    index, queries, expected, library, simulator, table
):
    x = library.make(queries, library.new_type(table=table))
    assert by_methods(index, x, expected, library, simulator)
    assert set(library.deleted) == {1}


@pytest.mark.parametrize("offer", [None, 7, "dlpack_exchange_api"])
def test_what_is_no_table_is_left_alone(
    index, queries, expected, library, simulator, offer
):
    x = library.make(
        queries, library.new_type(__dlpack_c_exchange_api__=offer))
    assert by_methods(index, x, expected, library, simulator)


@pytest.mark.parametrize(
    "answer", [False, True, BufferError("not now"), MemoryError()], ids=repr)
def test_a_table_that_fails_or_raises_is_left_alone(
    index, queries, expected, library, simulator, answer
):
    x = library.make(queries, library.new_type(
        table={"lend": TRUTH}, __bool__=truth, answer=answer))
    assert by_methods(index, x, expected, library, simulator)


def test_what_a_table_that_fails_has_left_is_not_taken(
    index, queries, expected, library, simulator
):
    def lend(array):
        return library.loan_of(array), -1

    x = library.make(queries, library.new_type(table={"lend": lend}))
    assert by_methods(index, x, expected, library, simulator)
    assert library.deleted == [0, 1]


def test_what_dlpack_raises_is_told_where_the_table_fails(
    faiss_ext, index, queries, library
):
    def refuse(self, **options):
        raise BufferError("no dense memory")

    x = library.make(queries, library.new_type(
        table={"lend": lambda array: None}, __dlpack__=refuse))
    with pytest.raises(
        faiss_ext.InvalidArray,
        match="^x: its __dlpack__ raised BufferError: no dense memory$",
    ):
        index.search(x, K)


def test_a_table_that_is_interrupted_is_not_hidden(
    index, queries, library
):
    x = library.make(queries, library.new_type(
        table={"lend": TRUTH}, __bool__=truth,
        answer=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        index.search(x, K)
    assert library.loans == []


def test_an_older_version_may_stand_behind_a_newer_one(
    index, queries, expected, library
):
    older = Table(library.lend, library.current_stream, version=(1, 9))
    x = library.make(queries, library.new_type(
        table={"version": (3, 0), "lend": TRUTH, "previous": Table(
            TRUTH, None, version=(2, 0), previous=older)}))
    D, I = library.outputs(N, K)
    index.search(x, K, D=D, I=I)
    assert library.asked == TABLE * 3
    np.testing.assert_array_equal(I.memory.get(), expected[1])


def test_a_tensor_of_another_major_version_is_given_back(
    faiss_ext, index, queries, library, simulator
):
    x = library.make(queries, version=(2, 0))
    with pytest.raises(faiss_ext.InvalidArray, match="DLPack version 2.0"):
        index.search(x, K)
    assert methods_were_asked(library, simulator)
    assert library.deleted == [1, 1]


def test_what_needs_converting_is_taken_by_dlpack(
    index, queries, expected, library, simulator
):
    half = library.make(queries.astype("float16"))
    assert by_methods(index, half, expected, library, simulator)
    assert library.deleted == [1, 1]


def test_strided_queries_are_taken_by_dlpack(
    index, queries, expected, library, simulator
):
    wide = np.zeros((N, 2 * DIMS), "float32")
    wide[:, ::2] = queries
    x = library.make(wide, strides=(2 * DIMS, 2))
    x.shape = (N, DIMS)
    assert by_methods(index, x, expected, library, simulator)


@pytest.mark.parametrize("device, text", [
    (1, "but its memory is on GPU 0"), (3, "GPU 3"),
])
def test_another_gpu_than_the_memory_is_on_is_refused(
    faiss_ext, index, queries, library, simulator, device, text
):
    simulator.library.cuda_sim_set_device_count(2)
    x = library.make(queries, device=(CUDA, device))
    with pytest.raises(faiss_ext.InvalidArray, match=f"^x: .*{text}"):
        index.search(x, K)
    simulator.finish()
    assert set(library.deleted) == {1}


@pytest.mark.parametrize("change, text", [
    ({"shape": (N + 1, DIMS)}, "shorter|no memory"),
    ({"shape": (2**61 + N, DIMS)}, "more bytes than memory"),
    ({"rank": -1}, "-1 dimensions"),
    ({"null_shape": True}, "without a shape"),
    ({"offset": 2**64 - 1}, "byte offset"),
    ({"offset": 2}, "not a multiple of 4"),
    ({"dtype": (2, 32, 4)}, "4 lanes"),
    ({"dtype": (17, 4, 1)}, "type code 17"),
], ids=str)
def test_what_breaks_the_rules_is_refused_as_it_is_by_dlpack(
    faiss_ext, index, queries, library, simulator, change, text
):
    x = library.make(queries)
    x.shape = change.pop("shape", x.shape)
    x.loan.update(change)
    with pytest.raises(faiss_ext.InvalidArray, match=f"^x\\b.*({text})"):
        index.search(x, K)
    assert methods_were_asked(library, simulator)
    assert library.deleted == [1, 1]


@pytest.mark.parametrize("records", [True, 1, None])
def test_tensors_that_record_gradients_are_asked_by_dlpack(
    faiss_ext, index, queries, library, records
):
    def refuse(self, **options):
        raise BufferError("use tensor.detach()")

    x = library.make(queries, library.new_type(
        __dlpack__=refuse, requires_grad=records))
    with pytest.raises(
        faiss_ext.InvalidArray,
        match=r"^x: its __dlpack__ raised BufferError: use tensor.detach\(\)$",
    ):
        index.search(x, K)
    assert library.loans == []


def test_tensors_that_do_not_are_plain(index, queries, expected, library):
    tensor = library.new_type(requires_grad=False, is_neg=lambda self: False)
    x, (D, I) = library.make(queries, tensor), library.outputs(N, K, tensor)
    index.search(x, K, D=D, I=I)
    assert library.asked == TABLE * 3
    np.testing.assert_array_equal(I.memory.get(), expected[1])


@pytest.mark.parametrize("table", [True, False])
def test_numbers_that_lie_with_the_opposite_sign_are_refused(
    faiss_ext, index, queries, library, table
):
    negated = library.new_type(table=table, is_neg=lambda self: True)
    x, (D, I) = library.make(queries, negated), library.outputs(N, K, negated)
    with pytest.raises(faiss_ext.InvalidArray, match=r"^x: .*is_neg\(\)"):
        index.search(x, K)
    with pytest.raises(faiss_ext.InvalidArray, match=r"^I: .*is_neg\(\)"):
        index.search(queries, K, D=library.outputs(N, K)[0], I=I)
    with pytest.raises(faiss_ext.InvalidArray, match=r"^x: .*is_neg\(\)"):
        index.add(x)
    assert all(loan.deleted for loan in library.loans[1:])


def test_a_class_derived_from_one_with_a_table_is_taken_by_dlpack(
    index, queries, expected, library, simulator
):
    x = library.make(queries, library.new_type(library.Array, table=False))
    assert by_methods(index, x, expected, library, simulator)
    assert library.asked.count("lend") == 0


def test_a_derived_class_may_refuse_what_its_base_lends(
    faiss_ext, index, queries, library
):
    def refuse(self, **options):
        raise BufferError("wrapped")

    derived = library.new_type(library.Array, table=False, __dlpack__=refuse)
    with pytest.raises(faiss_ext.InvalidArray, match="BufferError: wrapped"):
        index.search(library.make(queries, derived), K)
    assert library.loans == []


def test_a_table_that_comes_and_goes_is_seen(
    index, queries, expected, library, simulator
):
    array_type = library.new_type()
    x = library.make(queries, array_type)
    capsule = array_type.__dlpack_c_exchange_api__
    del array_type.__dlpack_c_exchange_api__
    assert by_methods(index, x, expected, library, simulator)
    del library.asked[:]
    array_type.__dlpack_c_exchange_api__ = capsule
    index.search(x, K, D=np.zeros((N, K), "float32"),
                 I=np.zeros((N, K), "int64"))
    assert library.asked == TABLE


def test_no_type_is_kept(index, queries, library, simulator):
    array_type = library.new_type()
    index.search(library.make(queries, array_type), K)
    simulator.finish()
    gone = weakref.ref(array_type)
    del array_type
    gc.collect()
    assert gone() is None


def test_two_arrays_of_one_memory_are_still_refused(
    faiss_ext, index, queries, library
):
    x, (D, I) = library.make(queries), library.outputs(N, K)
    D.memory = I.memory
    with pytest.raises(faiss_ext.InvalidArray, match="^D and I overlap"):
        index.search(x, K, D=D, I=I)
