"""`GpuIndexFlatCosine`, `knn_gpu` by cosine and `normalize_L2` with arrays of every
kind."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from common_search import values_of

from faiss_ext._interop.unit_vectors import normalized

DIMS, NB, NQ, K = 8, 200, 40, 4


@pytest.fixture
def xb(vectors):
    """Of many lengths, zeros among them."""
    x = vectors(NB, DIMS, 1)
    x[0] = 0
    x[1:20] *= 1e30
    x[20:40] *= 1e-40
    return x


@pytest.fixture
def xq(vectors):
    x = vectors(NQ, DIMS, 2)
    x[3] = 0
    x[4] *= 1e-30
    return x


@pytest.fixture
def two_gpus(simulator):
    simulator.library.cuda_sim_set_device_count(2)


@pytest.fixture
def exact(faiss_ext):
    config = faiss_ext.StagedConfig()
    config.search = "exact"
    return config


@pytest.fixture
def index(faiss_ext, resources, xb, exact):
    index = faiss_ext.GpuIndexFlatCosine(
        resources, DIMS, faiss_ext.GpuIndexFlatConfig(), exact)
    index.add(xb)
    return index


@pytest.fixture
def expected(faiss_ext, resources, xb, xq, exact):
    """What an index of inner products finds among normalised vectors."""
    other = faiss_ext.GpuIndexFlatIP(
        resources, DIMS, faiss_ext.GpuIndexFlatConfig(), exact)
    other.add(normalized(xb))
    return other.search(normalized(xq), K)


def expect_same(found, expected):
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(values_of(one), other)


def test_it_is_a_flat_index_of_inner_products(faiss_ext, index):
    assert isinstance(index, faiss_ext.GpuIndexFlat)
    assert not isinstance(index, faiss_ext.GpuIndexFlatIP)
    assert index.metric_type == faiss_ext.METRIC_INNER_PRODUCT
    assert type(index).__module__ == "faiss_ext" and index.ntotal == NB


def test_searches_are_of_normalised_vectors(index, xq, gpu_array, expected):
    given = xq.copy()
    on_gpu = gpu_array(xq)
    expect_same(index.search(xq, K), expected)
    expect_same(index.search(on_gpu, K), expected)
    D, I, R = index.search_and_reconstruct(xq, K)
    expect_same((D, I), expected)
    np.testing.assert_array_equal(R, index.reconstruct_batch(I.ravel()).reshape(R.shape))
    np.testing.assert_array_equal(index.assign(xq, K), expected[1])
    D, I, profile = index.profile_search(xq, K)
    expect_same((D, I), expected)
    assert "exact" in profile.plan and "exact" in index.transfer_stats()["searched_by"]
    np.testing.assert_array_equal(xq, given)
    np.testing.assert_array_equal(on_gpu.get(), given)


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize("where", ["host", "gpu"])
def test_what_is_added_is_stored_normalised(
    faiss_ext, resources, xb, gpu_array, float16, where
):
    config = faiss_ext.GpuIndexFlatConfig()
    config.useFloat16 = float16
    index = faiss_ext.GpuIndexFlatCosine(resources, DIMS, config)
    given = gpu_array(xb) if where == "gpu" else xb.copy()
    index.add(given)
    index.add(np.ones((1, DIMS), "float16"))
    right = normalized(np.vstack([xb, np.ones((1, DIMS), "float32")]))
    if float16:
        right = right.astype("float16").astype("float32")
    np.testing.assert_array_equal(index.reconstruct_n(), right)
    np.testing.assert_array_equal(values_of(given), xb)


def test_copies_keep_the_normalised_vectors(faiss_ext, resources, index, xb, xq, expected):
    cpu = faiss_ext.index_gpu_to_cpu(index)
    assert isinstance(cpu, faiss_ext.IndexFlat)
    assert cpu.metric_type == faiss_ext.METRIC_INNER_PRODUCT
    np.testing.assert_array_equal(cpu.reconstruct_n(0, NB), normalized(xb))
    copy = faiss_ext.index_cpu_to_gpu(resources, 0, index)
    assert type(copy) is faiss_ext.GpuIndexFlatCosine
    expect_same(copy.search(xq, K), expected)
    again = faiss_ext.GpuIndexFlatCosine(resources, cpu)
    np.testing.assert_array_equal(again.reconstruct_n(), normalized(xb))
    again.copyFrom(faiss_ext.deserialize_index(faiss_ext.serialize_index(cpu)))
    np.testing.assert_array_equal(again.reconstruct_n(), normalized(xb))


@pytest.mark.parametrize("shard", [False, True])
def test_replicas_and_shards_answer_as_one(faiss_ext, index, xq, expected, shard):
    options = faiss_ext.GpuMultipleClonerOptions()
    options.shard = shard
    many = faiss_ext.index_cpu_to_gpus_list(index, co=options, gpus=[0, 0])
    assert type(faiss_ext.downcast_index(many.at(1))) is faiss_ext.GpuIndexFlatCosine
    np.testing.assert_array_equal(many.search(xq, K)[0], expected[0])


def test_indexes_that_hold_one(faiss_ext, resources, xb, xq, expected):
    flat = faiss_ext.GpuIndexFlatCosine(resources, DIMS)
    held = faiss_ext.IndexIDMap(flat)
    held.add_with_ids(xb, np.arange(NB) + 1000)
    D, I = held.search(xq, K)
    np.testing.assert_array_equal(D, expected[0])
    assert type(faiss_ext.downcast_index(held.index)) is faiss_ext.GpuIndexFlatCosine
    shards = faiss_ext.IndexShards(DIMS)
    parts = [faiss_ext.GpuIndexFlatCosine(resources, DIMS) for _ in range(2)]
    for part in parts:
        shards.add_shard(part)
    shards.add(xb)
    assert shards.metric_type == faiss_ext.METRIC_INNER_PRODUCT
    np.testing.assert_array_equal(shards.search(xq, K)[0], expected[0])


def test_wrong_arguments_are_one_error(faiss_ext, resources, index, xq):
    with pytest.raises(faiss_ext.InvalidArray, match=r"^x: shape \(40, 7\)"):
        index.search(xq[:, :7], K)
    with pytest.raises(faiss_ext.InvalidArray, match="^x: "):
        index.add("text")
    with pytest.raises(RuntimeError, match="add_with_ids not supported"):
        index.add_with_ids(xq, np.arange(NQ))
    with pytest.raises(TypeError, match="no constructor takes these"):
        faiss_ext.GpuIndexFlatCosine(resources, "8")
    with pytest.raises(TypeError, match="resources are needed"):
        faiss_ext.GpuIndexFlatCosine(None, 8)
    with pytest.raises(RuntimeError, match="index: null; an index on the CPU"):
        index.copyFrom(None)
    assert index.ntotal == NB


def places(inputs, gpu_array, *arrays):
    return [
        gpu_array(x) if side == "gpu" else x for x, side in zip(arrays, inputs.split("-"))
    ]


@pytest.mark.parametrize("inputs", ["host-host", "gpu-gpu", "gpu-host", "host-gpu"])
def test_knn_gpu_by_cosine(faiss_ext, resources, xq, xb, gpu_array, inputs):
    right = faiss_ext.knn_gpu(
        resources, normalized(xq), normalized(xb), K,
        metric=faiss_ext.METRIC_INNER_PRODUCT)
    given = places(inputs, gpu_array, xq, xb)
    D, I = faiss_ext.knn_gpu(resources, *given, K, metric="cosine")
    expect_same((D, I), right)
    for x, before in zip(given, (xq, xb)):
        np.testing.assert_array_equal(values_of(x), before)
    all_of_them = faiss_ext.pairwise_distance_gpu(resources, *given, metric="cosine")
    np.testing.assert_array_equal(
        values_of(all_of_them),
        faiss_ext.pairwise_distance_gpu(
            resources, normalized(xq), normalized(xb),
            metric=faiss_ext.METRIC_INNER_PRODUCT))


def test_knn_gpu_by_cosine_converts(faiss_ext, resources, xq, xb, gpu_array):
    xq, xb = xq.astype("float16").clip(-7, 7), xb.clip(-7, 7)
    right = faiss_ext.knn_gpu(resources, xq.astype("float32"), xb, K, metric="cosine")
    columns = gpu_array(
        np.asfortranarray(xb).ravel(order="K"), shape=(NB, DIMS), strides=(4, 4 * NB))
    expect_same(
        faiss_ext.knn_gpu(resources, gpu_array(xq), columns, K, metric="cosine"), right)
    wide = gpu_array(xb.astype("float64"))
    expect_same(
        faiss_ext.knn_gpu(resources, xq, wide, K, metric="cosine", cast=True), right)
    with pytest.raises(faiss_ext.InvalidArray, match="xb: dtype float64"):
        faiss_ext.knn_gpu(resources, xq, wide, K, metric="cosine")
    expect_same(
        faiss_ext.knn_gpu(resources, xq, np.asfortranarray(xb), K, metric="cosine"),
        right)


@pytest.mark.usefixtures("two_gpus")
def test_knn_gpu_by_cosine_of_arrays_on_two_gpus(
    faiss_ext, resources, xq, xb, gpu_array, simulator
):
    right = faiss_ext.knn_gpu(resources, xq, xb, K, metric="cosine")
    with simulator.on_gpu(1):
        elsewhere = gpu_array(xb)
    expect_same(
        faiss_ext.knn_gpu(resources, gpu_array(xq), elsewhere, K, metric="cosine",
                          device=0), right)
    with simulator.on_gpu(1):
        del elsewhere
        gc.collect()


def test_knn_gpu_by_cosine_among_none(faiss_ext, resources, xq, xb, gpu_array):
    for queries in (xq, gpu_array(xq)):
        D, I = faiss_ext.knn_gpu(
            resources, queries, np.empty((0, DIMS), "float32"), 2, metric="cosine")
        assert (values_of(I) == -1).all()
        assert (values_of(D) == -np.finfo("float32").max).all()
    none = gpu_array(np.empty((0, DIMS), "float32"))
    assert faiss_ext.knn_gpu(resources, none, xb, 2, metric="cosine")[0].shape == (0, 2)
    assert faiss_ext.knn_gpu(resources, [], xb, 2, metric="cosine")[0].shape == (0, 2)
    I = faiss_ext.knn_gpu(resources, xq, none, 2, metric="cosine")[1]
    assert (values_of(I) == -1).all()


def test_another_text_is_no_metric(faiss_ext, resources, xq, xb):
    for call in (
        lambda: faiss_ext.knn_gpu(resources, xq, xb, K, metric="ip"),
        lambda: faiss_ext.pairwise_distance_gpu(resources, xq, xb, metric="ip"),
    ):
        with pytest.raises(faiss_ext.InvalidArray, match="^metric: 'ip'; 'cosine'"):
            call()


def test_knn_gpu_by_cosine_waits_for_nothing_on_a_gpu(
    faiss_ext, resources, xq, xb, gpu_array, simulator
):
    xq, xb = gpu_array(xq), gpu_array(xb)
    faiss_ext.knn_gpu(resources, xq, xb, K, metric="cosine")
    simulator.finish()
    simulator.reset_counters()
    faiss_ext.knn_gpu(resources, xq, xb, K, metric="cosine")
    assert simulator.waits() == 0
    assert simulator.bytes_up() == simulator.bytes_down() == 0


def test_normalize_l2_on_a_gpu_has_the_bits_of_the_host(faiss_ext, xb, gpu_array):
    xb[5, 1], xb[6, 2] = np.nan, np.inf
    x = gpu_array(xb)
    assert faiss_ext.normalize_L2(x) is None
    np.testing.assert_array_equal(x.get().view("uint32"), normalized(xb).view("uint32"))


def test_normalize_l2_is_in_the_order_of_the_arrays_stream(
    faiss_ext, xb, gpu_array, simulator
):
    stream = simulator.new_stream()
    x, later = gpu_array(xb * 0, stream=stream), gpu_array(xb * 0)
    source = gpu_array(xb)
    simulator.hold(stream)
    simulator.reset_counters()
    address = [a.__cuda_array_interface__["data"][0] for a in (x, later, source)]
    simulator.copy(address[0], address[2], xb.nbytes, stream)
    faiss_ext.normalize_L2(x)
    simulator.copy(address[1], address[0], xb.nbytes, stream)
    assert simulator.waits() == 0 and simulator.pending() > 0
    simulator.release(stream)
    np.testing.assert_array_equal(later.get(), normalized(xb))


@pytest.mark.usefixtures("two_gpus")
def test_normalize_l2_on_another_gpu_than_the_current_one(
    faiss_ext, xb, gpu_array, simulator
):
    with simulator.on_gpu(1):
        x = gpu_array(xb)
    faiss_ext.normalize_L2(x)
    assert simulator.current_gpu() == 0
    with simulator.on_gpu(1):
        np.testing.assert_array_equal(x.get(), normalized(xb))
        simulator.finish()
        del x
        gc.collect()


@pytest.mark.usefixtures("two_gpus")
def test_normalize_l2_is_in_the_order_of_the_streams_of_both_gpus(
    faiss_ext, xb, gpu_array, simulator
):
    # The interface names the default stream, and no GPU: that of either.
    source, later = gpu_array(xb), gpu_array(xb * 0)
    with simulator.on_gpu(1):
        x = gpu_array(xb * 0, stream=1)
    address = [a.__cuda_array_interface__["data"][0] for a in (x, later, source)]
    simulator.copy(address[0], address[2], xb.nbytes, 1)
    faiss_ext.normalize_L2(x)
    simulator.copy(address[1], address[0], xb.nbytes, 1)
    np.testing.assert_array_equal(later.get(), normalized(xb))
    with simulator.on_gpu(1):
        simulator.finish()
        del x
        gc.collect()


def test_normalize_l2_keeps_what_is_in_use(faiss_ext, xb, gpu_array, simulator):
    stream = simulator.new_stream()
    x = gpu_array(xb, stream=stream)
    simulator.hold(stream)
    faiss_ext.normalize_L2(x)
    del x
    # Freeing it now, in use, would be reported.
    gc.collect()
    simulator.release(stream)


def test_normalize_l2_on_the_host_is_faiss_own(faiss_ext, xb):
    import faiss as stock

    ours, theirs = xb.copy(), xb.copy()
    assert faiss_ext.normalize_L2(ours) is None
    stock.normalize_L2(theirs)
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(faiss_ext.InvalidArray, match="^x: dtype float64"):
        faiss_ext.normalize_L2(xb.astype("float64"))


@pytest.mark.parametrize("change, message", [
    ({"typestr": "<f2"}, "x: dtype float16; float32 is needed"),
    ({"shape": (NB * DIMS,)}, r"x: shape \(1600,\); needed \(n, d\)"),
    ({"shape": (NB, 4), "strides": (32, 4)}, "x: with gaps or column-major"),
    ({"data": (1 << 20, False)}, "x: address 0x100000 is no memory of a GPU"),
])
def test_normalize_l2_refuses_what_it_cannot_do(faiss_ext, xb, gpu_array, change, message):
    with pytest.raises(faiss_ext.InvalidArray, match=message):
        faiss_ext.normalize_L2(gpu_array(xb, **change))


def test_normalize_l2_refuses_what_is_read_only(faiss_ext, xb, gpu_array):
    address = gpu_array(xb).__cuda_array_interface__["data"][0]
    x = gpu_array(xb, data=(address, True))
    with pytest.raises(faiss_ext.InvalidArray, match="x: read-only"):
        faiss_ext.normalize_L2(x)


def test_normalize_l2_of_none(faiss_ext, gpu_array):
    faiss_ext.normalize_L2(gpu_array(np.empty((0, 4), "float32")))
