"""What an index points at lives as long as the index does, and no longer."""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest

DIMS, LISTS = 8, 4


@pytest.fixture
def base(vectors):
    return vectors(200, DIMS, 1)


@pytest.fixture
def part(faiss_ext):
    """Makes a GPU index that nobody else holds, and notes its end."""
    ends = []

    def make():
        index = faiss_ext.GpuIndexFlatL2(faiss_ext.StandardGpuResources(), DIMS)
        weakref.finalize(index, ends.append, True)
        return index

    make.ends = ends
    return make


HOLDERS = {
    "IndexReplicas.add_replica": (
        lambda f: f.IndexReplicas(DIMS), "add_replica", "remove_replica"),
    "IndexReplicas.addIndex": (
        lambda f: f.IndexReplicas(DIMS), "addIndex", "removeIndex"),
    "IndexShards.add_shard": (
        lambda f: f.IndexShards(DIMS, False, True), "add_shard", "remove_shard"),
    "IndexShards.addIndex": (
        lambda f: f.IndexShards(DIMS, False, True), "addIndex", "removeIndex"),
}


@pytest.mark.parametrize("way", HOLDERS)
def test_what_is_put_in_lives_until_the_outer_index_ends(
    faiss_ext, part, base, way
):
    make, put, _ = HOLDERS[way]
    outer = make(faiss_ext)
    for _ in range(2):
        getattr(outer, put)(part())
    gc.collect()
    assert not part.ends and outer.count() == 2
    outer.add(base)
    np.testing.assert_array_equal(outer.search(base[:9], 1)[0], 0)
    del outer
    gc.collect()
    assert len(part.ends) == 2


@pytest.mark.parametrize("way", HOLDERS)
def test_what_is_taken_out_ends(faiss_ext, part, base, way):
    make, put, take = HOLDERS[way]
    outer = make(faiss_ext)
    for _ in range(2):
        getattr(outer, put)(part())
    # One more holder, by the view that Faiss gives.
    getattr(outer, take)(outer.at(0))
    gc.collect()
    assert len(part.ends) == 1 and outer.count() == 1
    outer.add(base)
    np.testing.assert_array_equal(outer.search(base[:9], 1)[0], 0)


def test_split_vectors(faiss_ext, part):
    outer = faiss_ext.IndexSplitVectors(2 * DIMS)
    for _ in range(2):
        outer.add_sub_index(part())
    gc.collect()
    assert not part.ends
    del outer
    gc.collect()
    assert len(part.ends) == 2


def test_a_view_keeps_what_it_is_a_view_of(faiss_ext, base):
    f = faiss_ext
    quantizer = f.IndexFlatL2(DIMS)
    for make, view, wanted in (
        (lambda: f.index_factory(DIMS, f"IVF{LISTS},Flat"), f.extract_index_ivf,
         "IndexIVF"),
        (lambda: f.index_factory(DIMS, f"PCA4,IVF{LISTS},Flat"),
         f.try_extract_index_ivf, "IndexIVF"),
        (lambda: f.IndexIDMap(quantizer), f.downcast_index, "IndexIDMap"),
    ):
        inner = view(make())
        gc.collect()
        assert isinstance(inner, getattr(f, wanted))
        assert inner.d in (DIMS, 4)
    assert f.try_extract_index_ivf(f.IndexFlatL2(DIMS)) is None


def train_on(f, clustering, base):
    """An inverted file trained with `clustering`, its attribute still set."""
    index = f.index_factory(DIMS, f"IVF{LISTS},Flat")
    f.extract_index_ivf(index).clustering_index = clustering
    gc.collect()
    index.train(base)
    index.add(base)
    return index


def test_the_index_to_train_with_ends_when_it_is_taken_back(faiss_ext, part, base):
    index = train_on(faiss_ext, part(), base)
    assert not part.ends
    assert faiss_ext.extract_index_ivf(index).clustering_index.ntotal
    faiss_ext.extract_index_ivf(index).clustering_index = None
    gc.collect()
    assert part.ends
    assert faiss_ext.extract_index_ivf(index).clustering_index is None
    index.nprobe = LISTS
    np.testing.assert_array_equal(index.search(base[:9], 1)[0], 0)


def test_the_index_to_train_with_ends_when_another_comes(faiss_ext, part, base):
    index = train_on(faiss_ext, part(), base)
    faiss_ext.extract_index_ivf(index).clustering_index = part()
    gc.collect()
    assert len(part.ends) == 1
    index.train(base)


def test_the_index_to_train_with_ends_with_the_inverted_file(faiss_ext, part, base):
    index = train_on(faiss_ext, part(), base)
    del index
    gc.collect()
    assert part.ends


def test_the_index_to_train_with_belongs_to_who_else_has_it(faiss_ext, part, base):
    clustering = part()
    index = train_on(faiss_ext, clustering, base)
    assert clustering.thisown
    del index
    gc.collect()
    assert not part.ends and clustering.search(base[:3], 1)[1].shape == (3, 1)


def test_gpu_memory_of_training_comes_back(faiss_ext, simulator, base):
    """As Faiss' issue of the leak does it, on an index of the cloner."""

    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    seen = []
    for _ in range(4):
        clustering = faiss_ext.index_cpu_to_all_gpus(
            faiss_ext.IndexFlatL2(DIMS), ngpu=1)
        index = train_on(faiss_ext, clustering, base)
        faiss_ext.extract_index_ivf(index).clustering_index = None
        del clustering, index
        gc.collect()
        simulator.synchronize()
        assert simulator.library.cudaMemGetInfo(
            ctypes.byref(free), ctypes.byref(total)) == 0
        seen.append(free.value)
    assert seen[-1] == seen[0]


@pytest.mark.parametrize("name", ["assign_index", "clustering_index"])
def test_an_attribute_of_a_quantizer_of_its_own(faiss_ext, part, name):
    if name == "assign_index":
        holder = faiss_ext.ProductQuantizer(DIMS, 1, 4)
    else:
        holder = faiss_ext.IndexBinaryIVF(faiss_ext.IndexBinaryFlat(16), 16, LISTS)
    setattr(holder, name, part())
    gc.collect()
    assert not part.ends and getattr(holder, name).d == DIMS
    setattr(holder, name, None)
    gc.collect()
    assert part.ends and getattr(holder, name) is None


def test_vectors_of_resources_keep_them(faiss_ext, base):
    f = faiss_ext
    providers, devices = f.GpuResourcesVector(), f.Int32Vector()
    for _ in range(2):
        providers.push_back(f.StandardGpuResources())
        devices.push_back(0)
    gc.collect()
    cpu = f.IndexFlatL2(DIMS)
    cpu.add(base)
    index = f.index_cpu_to_gpu_multiple(providers, devices, cpu)
    del providers
    gc.collect()
    np.testing.assert_array_equal(index.search(base[:9], 1)[0], 0)


def test_nothing_is_not_held(faiss_ext):
    with pytest.raises(TypeError, match="^GpuResourcesVector.push_back: None; "):
        faiss_ext.GpuResourcesVector().push_back(None)
    with pytest.raises(TypeError, match="^index: None; an index is needed"):
        faiss_ext.index_gpu_to_cpu(None)


def test_constructors_that_faiss_forgot(faiss_ext):
    f, made = faiss_ext, []

    def inner():
        index = f.IndexFlatL2(DIMS)
        weakref.finalize(index, made.append, True)
        return index

    outers = [f.IndexNSG(inner(), 4), f.IndexNNDescent(inner(), 4)]
    gc.collect()
    assert not made
    assert all(outer.storage.ntotal == 0 for outer in outers)
    del outers
    gc.collect()
    assert len(made) == 2
