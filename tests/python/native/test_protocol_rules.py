"""Rules of the protocols that no other test here would miss."""

from __future__ import annotations

import numpy as np
import pytest
from common_search import DIMS, K, N
from dlpack_capsules import Exporter


def test_without_a_stream_nothing_is_joined(index, queries, gpu_array, simulator):
    D = gpu_array(np.zeros((N, K), "float32"))
    I = gpu_array(np.zeros((N, K), "int64"))

    def joined(x):
        index.search(x, K, D=D, I=I)
        simulator.synchronize()
        simulator.reset_counters()
        index.search(x, K, D=D, I=I)
        return simulator.calls("cudaStreamWaitEvent")

    none = joined(gpu_array(queries))
    absent = gpu_array(queries)
    del absent._interface["stream"]
    assert joined(absent) == none
    # Before and after.
    assert joined(gpu_array(queries, stream=simulator.new_stream())) == none + 2


def test_stream_2_is_the_per_thread_default_stream(
    index, queries, expected, gpu_array, simulator
):
    per_thread = 2
    source = gpu_array(queries)
    x = gpu_array(np.zeros_like(queries), stream=per_thread)
    I = gpu_array(np.zeros((N, K), "int64"), stream=per_thread)
    copy = gpu_array(np.zeros((N, K), "int64"))
    simulator.copy(x._pointer, source._pointer, queries.nbytes, per_thread)
    index.search(x, K, I=I)
    simulator.copy(copy._pointer, I._pointer, N * K * 8, per_thread)
    np.testing.assert_array_equal(copy.get(), expected[1])


def test_an_exporter_whose_type_error_is_its_own_is_named(
    faiss_ext, index, queries, gpu_array
):
    x = Exporter(gpu_array(queries))
    x.__class__ = type("Odd", (Exporter,), {
        "__dlpack__": lambda self, **options: len(3)})
    with pytest.raises(faiss_ext.InvalidArray, match="x: its __dlpack__ raised TypeError"):
        index.search(x, K)


@pytest.mark.parametrize("given", [[N, DIMS], np.array([N, DIMS]), (np.int64(N), True)])
def test_shapes_are_what_integers_they_hold(index, queries, expected, gpu_array, given):
    if given[1] is True:
        given = (given[0], np.uint8(DIMS))
    I = index.search(gpu_array(queries, shape=given), K)[1]
    np.testing.assert_array_equal(I.copy_to_host(), expected[1])


def test_an_empty_array_may_have_no_pointer_at_all(index, gpu_array):
    for nothing in (None, 0):
        x = gpu_array(np.empty((0, DIMS), "float32"), data=(nothing, False))
        D, I = index.search(x, K)
        assert D.shape == I.shape == (0, K)


def test_families_and_protocols_are_mixed(index, queries, expected, gpu_array):
    x = Exporter(gpu_array(queries))
    D = gpu_array(np.zeros((N, K), "float32"))
    I = np.zeros((N, K), "int64")
    index.search(x, K, D=D, I=I)
    np.testing.assert_array_equal(D.get(), expected[0])
    np.testing.assert_array_equal(I, expected[1])
    x = gpu_array(queries, stream=1)
    D = Exporter(gpu_array(np.zeros((N, K), "float32")))
    index.search(x, K, D=D, I=I)
    np.testing.assert_array_equal(D.memory.get(), expected[0])


def test_a_refusal_of_a_later_argument_gives_back_the_earlier_ones(
    faiss_ext, index, queries, gpu_array
):
    x = Exporter(gpu_array(queries.astype("float16")), dtype=(2, 16, 1))
    with pytest.raises(faiss_ext.InvalidArray, match="^I: "):
        index.search(x, K, I=gpu_array(np.zeros((N, K), "float32")))
    assert x.deleted == [1]
