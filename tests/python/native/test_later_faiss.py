"""What later versions of Faiss take, where they take it: by place and by name,
at its default without a difference. (Faiss' own methods are stood in for, since
the Faiss here may be an older one.)"""

import faiss as stock
import numpy as np
import pytest

FLOAT32, FLOAT16 = 0, 1


@pytest.fixture
def asked(faiss_ext, monkeypatch):
    """The calls of Faiss' own methods of a flat index."""
    calls = []

    def method(name):
        return lambda self, *args, **options: calls.append(
            (name, len(args), options))

    for name in ("add", "add_with_ids", "train", "search"):
        monkeypatch.setitem(
            faiss_ext.GpuIndexFlatL2._faiss_methods, name, method(name))
    return calls


def test_another_type_of_numbers_is_for_faiss_itself(index, queries, asked):
    ids = np.arange(len(queries))
    index.add(queries, FLOAT16)
    index.add(queries, numeric_type=FLOAT16)
    index.add_with_ids(queries, ids, FLOAT16)
    index.train(queries, numeric_type=FLOAT16)
    index.train(queries, xq_train=queries)
    index.search(queries, 3, numeric_type=FLOAT16)
    half = {"numeric_type": FLOAT16}
    assert [name for name, _, _ in asked] == [
        "add", "add", "add_with_ids", "train", "train", "search"]
    assert [options for _, _, options in asked[:4]] == [half] * 4
    assert asked[4][2].keys() == {"xq_train"}
    assert asked[5][2] == {"D": None, "I": None, **half}


def test_the_type_that_is_taken_anyway_changes_nothing(
    index, queries, expected, gpu_array, asked
):
    count = index.ntotal
    for x in (queries, gpu_array(queries)):
        index.add(x, FLOAT32)
        index.add(x, numeric_type=FLOAT32)
        index.train(x, numeric_type=FLOAT32, xq_train=None)
    assert index.ntotal == count + 4 * len(queries) and not asked
    # (Of the vectors that were there before.)
    found = index.search(expected[0][:0].reshape(0, index.d), 3, numeric_type=FLOAT32)
    assert found[0].shape == (0, 3)
    D, _ = index.search(gpu_array(queries), 1, numeric_type=FLOAT32)
    assert (D.copy_to_host() == 0).all() and not asked


def test_another_type_is_for_host_arrays(faiss_ext, index, queries, gpu_array, asked):
    with pytest.raises(faiss_ext.InvalidArray, match="^numeric_type: "):
        index.add(gpu_array(queries), FLOAT16)
    assert not asked


def test_limits_of_knn_gpu(faiss_ext, resources, queries, gpu_array, monkeypatch):
    from faiss_ext._index import knn as brute_force

    calls = []
    monkeypatch.setattr(
        brute_force, "_stock_knn_gpu",
        lambda *args, **options: calls.append(options))
    none = (False, 0, 0)
    plain = faiss_ext.knn_gpu(resources, queries, queries, 3)
    by_place = faiss_ext.knn_gpu(
        resources, queries, queries, 3, None, None, faiss_ext.METRIC_L2, 0, *none)
    np.testing.assert_array_equal(plain[1], by_place[1])
    on_gpu = faiss_ext.knn_gpu(
        resources, *map(gpu_array, (queries, queries)), 3, use_cuvs=False,
        vectorsMemoryLimit=0)
    np.testing.assert_array_equal(plain[1], on_gpu[1].copy_to_host())
    assert not calls
    faiss_ext.knn_gpu(
        resources, queries, queries, 3, None, None, faiss_ext.METRIC_L2, 0, False, 5)
    faiss_ext.knn_gpu(resources, queries, queries, 3, queriesMemoryLimit=7)
    assert calls == [
        {"device": 0, "vectorsMemoryLimit": 5}, {"device": 0, "queriesMemoryLimit": 7}]
    with pytest.raises(faiss_ext.InvalidArray, match="not supported with vectorsMemoryLimit"):
        faiss_ext.knn_gpu(
            resources, gpu_array(queries), queries, 3, vectorsMemoryLimit=5)


def test_outputs_by_place_as_contrib_torch_utils_takes_them(
    index, queries, expected, gpu_array
):
    D, I = np.empty_like(expected[0]), np.empty_like(expected[1])
    k = D.shape[1]
    found = index.search(queries, k, D, I)
    assert found[0] is D and found[1] is I
    np.testing.assert_array_equal(I, expected[1])
    R = np.empty((*I.shape, index.d), "float32")
    found = index.search_and_reconstruct(queries, k, D, I, R)
    assert found[2] is R
    outputs = gpu_array(D), gpu_array(I)
    found = index.search(gpu_array(queries), k, *outputs, FLOAT32)
    assert found[0] is outputs[0]
    np.testing.assert_array_equal(outputs[1].get(), expected[1])
    index.train(queries, FLOAT32)


def since(name):
    """Skips where this Faiss does not have the name yet."""
    return pytest.mark.skipif(
        not hasattr(stock, name), reason=f"this Faiss has no {name}")


@since("Float16")
def test_faiss_own_words_for_a_type_that_its_index_does_not_take(index, queries):
    for call in (
        lambda: index.add(queries, stock.Float16),
        lambda: index.search(queries, 3, numeric_type=stock.Float16),
    ):
        with pytest.raises(RuntimeError, match="[Uu]nsupported numeric type"):
            call()
    count = index.ntotal
    index.train(queries, xq_train=queries)
    index.add(queries)
    assert index.ntotal == count + len(queries)


@since("index_binary_cpu_to_gpu")
def test_binary_indexes_go_to_the_gpu_and_come_back(faiss_ext, resources):
    codes = np.random.default_rng(0).integers(0, 256, (50, 4)).astype("uint8")
    cpu = faiss_ext.IndexBinaryFlat(32)
    cpu.add(codes)
    made = [
        faiss_ext.index_cpu_to_gpu(resources, 0, cpu),
        faiss_ext.index_cpu_to_all_gpus(cpu, ngpu=1),
        faiss_ext.index_binary_cpu_to_gpu(resources, 0, cpu),
    ]
    for gpu in made:
        assert type(gpu) is faiss_ext.GpuIndexBinaryFlat and gpu.thisown
        np.testing.assert_array_equal(gpu.reconstruct(7), codes[7])
        back = faiss_ext.index_binary_gpu_to_cpu(gpu)
        assert type(back) is faiss_ext.IndexBinaryFlat and back.ntotal == 50
    both = faiss_ext.index_cpu_to_gpus_list(cpu, gpus=[0, 0])
    assert type(both) is faiss_ext.IndexBinaryReplicas and both.count() == 2
    assert type(faiss_ext.clone_binary_index(cpu)) is faiss_ext.IndexBinaryFlat


@since("SuperKmeans")
def test_every_kmeans_is_trained(faiss_ext, vectors):
    clusters = faiss_ext.SuperKmeans(256, 4, niter=2)
    clusters.train(memoryview(vectors(300, 256, 1)))
    assert clusters.centroids.shape == (4, 256)
    assert type(clusters.index) is faiss_ext.IndexFlatL2


@since("TimeoutGuard")
def test_a_time_limit_is_faiss_own(faiss_ext, index, queries, expected):
    with faiss_ext.TimeoutGuard(60):
        found = index.search(queries, expected[0].shape[1])
    np.testing.assert_array_equal(found[1], expected[1])
