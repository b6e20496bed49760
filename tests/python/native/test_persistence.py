"""Copies, files and bytes of our indexes are what they are of Faiss' own."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import faiss as stock
import numpy as np
import pytest

DIMS, K = 8, 4
CPU = ["Flat", "IVF4,Flat", "IDMap,Flat", "PCA4,Flat", "SQ8"]


@pytest.fixture
def base(vectors):
    return vectors(300, DIMS, 1)


@pytest.fixture
def queries(vectors):
    return vectors(9, DIMS, 2)


def filled(f, description, base):
    index = f.index_factory(DIMS, description)
    index.train(base)
    if "IDMap" in description:
        index.add_with_ids(base, np.arange(len(base)) + 50)
    else:
        index.add(base)
    return index


def on_gpu(f, resources, base):
    index = f.GpuIndexFlatL2(resources, DIMS)
    index.add(base)
    return index


def outcome(call):
    """What a call does: its exception by class and text, or its result."""
    try:
        return "returns", call()
    except Exception as error:
        # Without the place in Faiss' sources and the name of the type.
        return type(error).__name__, str(error).rpartition("failed:")[2][:40]


WAYS = {
    "pickle": lambda f, index: pickle.loads(pickle.dumps(index)),
    "copy": lambda f, index: copy.copy(index),
    "deepcopy": lambda f, index: copy.deepcopy(index),
    "clone": lambda f, index: f.clone_index(index),
    "bytes": lambda f, index: f.deserialize_index(f.serialize_index(index)),
}


@pytest.mark.parametrize("description", CPU)
@pytest.mark.parametrize("way", WAYS)
def test_indexes_on_the_host(faiss_ext, base, queries, description, way):
    ours = filled(faiss_ext, description, base)
    theirs = filled(stock, description, base)
    made = WAYS[way](faiss_ext, ours)
    wanted = WAYS[way](stock, theirs)
    assert type(made) is getattr(faiss_ext, type(wanted).__name__)
    assert made.ntotal == wanted.ntotal
    for found, expected in zip(made.search(queries.tolist(), K), wanted.search(queries, K)):
        np.testing.assert_array_equal(found, expected)


def id_map(f, resources, base):
    index = f.IndexIDMap(f.GpuIndexFlatL2(resources, DIMS))
    index.add_with_ids(base, np.arange(len(base)) + 50)
    return index


def replicas(f, resources, base):
    index = f.index_cpu_to_gpus_list(f.IndexFlatL2(DIMS), gpus=[0, 0])
    index.add(base)
    return index


def shards(f, resources, base):
    index = f.IndexShards(DIMS, False, True)
    for _ in range(2):
        index.add_shard(on_gpu(f, resources, base))
    return index


def transformed(f, resources, base):
    rotation = f.RandomRotationMatrix(DIMS, DIMS)
    rotation.init(5)
    return f.IndexPreTransform(rotation, on_gpu(f, resources, base))


def refined(f, resources, base):
    index = f.IndexRefineFlat(f.GpuIndexFlatL2(resources, DIMS))
    index.add(base)
    return index


ON_GPU = {
    f.__name__: f
    for f in (on_gpu, id_map, replicas, shards, transformed, refined)
}


def raised_by_stock(f, make, way):
    """Whether Faiss' own raises, for its own index of this kind."""
    return outcome(lambda: WAYS[way](f, make()))[0] != "returns"


@pytest.mark.parametrize("kind", ON_GPU)
@pytest.mark.parametrize("way", WAYS)
def test_indexes_on_the_gpu_are_refused_with_the_fix(
    faiss_ext, resources, base, way, kind
):
    assert raised_by_stock(stock, lambda: ON_GPU[kind](stock, resources, base), way)
    index = ON_GPU[kind](faiss_ext, resources, base)
    with pytest.raises(
        RuntimeError, match=f"^index: {type(index).__name__}.*index_gpu_to_cpu"
    ):
        WAYS[way](faiss_ext, index)
    assert index.ntotal


@pytest.mark.parametrize("kind", ON_GPU)
def test_a_file_is_left_as_it_is_by_an_index_on_the_gpu(
    faiss_ext, resources, base, queries, tmp_path, kind
):
    index, path = ON_GPU[kind](faiss_ext, resources, base), tmp_path / "index"
    path.write_bytes(b"of yesterday")
    written = []
    for target in (
        str(path), faiss_ext.PyCallbackIOWriter(written.append),
        faiss_ext.VectorIOWriter(),
    ):
        with pytest.raises(RuntimeError, match="^index: .*index_gpu_to_cpu"):
            faiss_ext.write_index(index, target)
    assert path.read_bytes() == b"of yesterday" and not written
    if kind == "refined":
        return  # Faiss has no copy of it
    # The fix works.
    faiss_ext.write_index(faiss_ext.index_gpu_to_cpu(index), str(path))
    back = faiss_ext.read_index(str(path))
    # Of transformed vectors the exact engine gives other last bits.
    np.testing.assert_allclose(
        back.search(queries, K)[0], index.search(queries, K)[0], rtol=1e-6)


def test_a_file_is_left_as_it_is_by_a_binary_index_on_the_gpu(
    faiss_ext, resources, tmp_path
):
    path = tmp_path / "index"
    path.write_bytes(b"of yesterday")
    index = faiss_ext.GpuIndexBinaryFlat(resources, 16)
    with pytest.raises(RuntimeError, match="^index: GpuIndexBinaryFlat"):
        faiss_ext.write_index_binary(index, str(path))
    with pytest.raises(RuntimeError, match="^index: GpuIndexBinaryFlat"):
        faiss_ext.serialize_index_binary(index)
    assert path.read_bytes() == b"of yesterday"


def test_what_is_no_index_is_not_written(faiss_ext, tmp_path):
    path = tmp_path / "index"
    path.write_bytes(b"of yesterday")
    for given in (None, 7, faiss_ext.IndexBinaryFlat(16)):
        with pytest.raises(TypeError, match="^idx: .* is needed"):
            faiss_ext.write_index(given, str(path))
    with pytest.raises(TypeError, match="^idx: IndexFlatL2; a binary index"):
        faiss_ext.write_index_binary(faiss_ext.IndexFlatL2(4), str(path))
    assert path.read_bytes() == b"of yesterday"


def test_written_files_are_those_of_faiss(faiss_ext, base, tmp_path):
    for i, description in enumerate(CPU):
        paths = []
        for f in (faiss_ext, stock):
            paths.append(tmp_path / f"{i}-{f.__name__}")
            f.write_index(filled(f, description, base), str(paths[-1]))
        assert paths[0].read_bytes() == paths[1].read_bytes()
    binary = faiss_ext.IndexBinaryFlat(16)
    binary.add(np.arange(20, dtype="uint8").reshape(10, 2))
    faiss_ext.write_index_binary(binary, str(tmp_path / "binary"))
    assert faiss_ext.read_index_binary(str(tmp_path / "binary")).ntotal == 10


def test_serialised_indexes_are_the_same_bytes(faiss_ext, base):
    for description in CPU:
        np.testing.assert_array_equal(
            faiss_ext.serialize_index(filled(faiss_ext, description, base)),
            stock.serialize_index(filled(stock, description, base)))


def test_pickles_are_read_where_there_is_no_native_part(faiss_ext, base, tmp_path):
    (tmp_path / "index").write_bytes(
        pickle.dumps(filled(faiss_ext, "Flat", base)))
    program = (
        "import pickle, sys, types, faiss\n"
        # What faiss_ext is without its native part: Faiss as it is.
        "sys.modules['faiss_ext'] = faiss\n"
        "index = pickle.load(open('index', 'rb'))\n"
        "print(type(index).__name__, index.ntotal)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path,
        capture_output=True, text=True)
    assert done.stdout == "IndexFlatL2 300\n" or done.stdout == "IndexFlat 300\n", done


def test_files_by_way_of_the_host(faiss_ext, resources, base, queries, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    gpu = on_gpu(faiss_ext, resources, base)
    faiss_ext.write_index(faiss_ext.index_gpu_to_cpu(gpu), str(ours))
    stock.write_index(
        stock.index_gpu_to_cpu(on_gpu(stock, resources, base)), str(theirs))
    assert ours.read_bytes() == theirs.read_bytes()
    back = faiss_ext.index_cpu_to_gpu(resources, 0, faiss_ext.read_index(str(ours)))
    assert isinstance(back, faiss_ext.GpuIndexFlat)
    np.testing.assert_array_equal(
        back.search(queries, K), gpu.search(queries, K))


@pytest.mark.parametrize("description", ["Flat", "PCA4,Flat", "IDMap,Flat"])
def test_factory_indexes_go_to_the_gpu_and_back(
    faiss_ext, resources, base, queries, description
):
    results = []
    for f in (faiss_ext, stock):
        cpu = filled(f, description, base)
        outcome_of_it = outcome(lambda: f.index_cpu_to_gpu(resources, 0, cpu))
        if outcome_of_it[0] == "returns":
            gpu = outcome_of_it[1]
            found = gpu.search(queries, K)
            back = f.index_gpu_to_cpu(gpu)
            results.append((*found, *back.search(queries, K), type(back).__name__))
        else:
            results.append(outcome_of_it)
    for ours, theirs in zip(*results):
        if getattr(ours, "dtype", None) == "float32":
            # Other last bits, where the exact engine searches.
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        else:
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shard", [False, True])
def test_shards_and_replicas(faiss_ext, resources, base, queries, shard):
    made = []
    for f in (faiss_ext, stock):
        options = f.GpuMultipleClonerOptions()
        options.shard = shard
        cpu = filled(f, "Flat", base)
        gpu = f.index_cpu_to_gpus_list(cpu, co=options, gpus=[0, 0])
        made.append(gpu)
    ours, theirs = made
    assert type(ours) is getattr(faiss_ext, type(theirs).__name__)
    for call in (
        lambda index: index.search(queries, K),
        lambda index: index.assign(queries, K),
        lambda index: index.ntotal,
        lambda index: index.count(),
    ):
        np.testing.assert_array_equal(call(ours), call(theirs))
    for module, index in zip((faiss_ext, stock), made):
        index.add(queries) if not shard else index.reset()
    assert ours.ntotal == theirs.ntotal
    one = faiss_ext.downcast_index(ours.at(0))
    assert type(one) is faiss_ext.GpuIndexFlat
    back, wanted = (
        f.index_gpu_to_cpu(index) for f, index in zip((faiss_ext, stock), made))
    assert back.ntotal == wanted.ntotal
    assert type(back).__name__ == type(wanted).__name__


def test_classes_of_pythons_own_making_are_pickled(faiss_ext, base):
    for make in (
        lambda f: f.IndexFlatIP(DIMS),
        lambda f: f.IndexIDMap2(f.IndexFlatL2(DIMS)),
    ):
        made = pickle.loads(pickle.dumps(make(faiss_ext)))
        assert type(made) is type(make(faiss_ext))
    assert pickle.loads(pickle.dumps(stock.IndexFlatL2(DIMS))).d == DIMS
