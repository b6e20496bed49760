"""Faiss' indexes on the CPU take arrays of any library in host memory."""

from __future__ import annotations

import abc
import array
import inspect

import faiss as stock
import numpy as np
import pytest
from dlpack_capsules import CPU, INT64, Loan

from faiss_ext._index import classes as index_classes
from faiss_ext._index import decisions
from faiss_ext._index import host as host_methods

DIMS, NB, N, K = 16, 700, 20, 4


class HostTensor:
    """An array of some library in host memory, which offers DLPack alone."""

    def __init__(self, values):
        self.values = np.ascontiguousarray(values)
        self.loans = []

    def __dlpack_device__(self):
        return (CPU, 0)

    def __dlpack__(self, **options):
        assert "stream" not in options
        dtype = {"f": (2, self.values.itemsize * 8, 1), "i": INT64,
                 "u": (1, 8, 1)}[self.values.dtype.kind]
        self.loans.append(Loan(
            self.values.ctypes.data, self.values.shape, device=(CPU, 0), dtype=dtype))
        return self.loans[-1].capsule()


HOST = {
    "list": lambda x: x.tolist(),
    "memoryview": memoryview,
    "float64": lambda x: x.astype("float64") if x.dtype.kind == "f" else x,
    "strided": np.asfortranarray,
    "dlpack": HostTensor,
    "interface": lambda x: type("A", (), {
        "__array_interface__": x.__array_interface__, "keep": x})(),
    "convertible": lambda x: type("A", (), {
        "__array__": lambda self, dtype=None, copy=None: x})(),
}
FACTORY = ["Flat", "IVF8,Flat", "PQ4x4", "HNSW8", "SQ8", "LSH", "IDMap,Flat",
           "PCA8,Flat", "IVF8,PQ4x4fs", "SQ8,RFlat", "L2norm,Flat"]


@pytest.fixture
def base(vectors):
    return vectors(NB, DIMS, 1)


@pytest.fixture
def queries(vectors):
    return vectors(N, DIMS, 2)


@pytest.fixture
def index(faiss_ext, base):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(base)
    return index


@pytest.fixture(autouse=True)
def one_thread():
    # Those of OpenMP spin, which takes long where cores are shared.
    threads = stock.omp_get_max_threads()
    stock.omp_set_num_threads(1)
    yield
    stock.omp_set_num_threads(threads)


@pytest.mark.parametrize("description, kind", [
    *((description, "dlpack") for description in FACTORY),
    *(("IVF8,Flat", kind) for kind in HOST),
])
def test_every_kind_of_index_takes_every_kind_of_host_array(
    faiss_ext, base, queries, description, kind
):
    make = HOST[kind]
    ids = np.arange(NB) + 7
    ours = faiss_ext.index_factory(DIMS, description)
    theirs = stock.index_factory(DIMS, description)
    ours.train(make(base))
    theirs.train(base)
    if description.startswith(("IDMap", "IVF")):
        ours.add_with_ids(make(base), make(ids))
        theirs.add_with_ids(base, ids)
    else:
        ours.add(make(base))
        theirs.add(base)
    for found, wanted in (
        (ours.search(make(queries), K), theirs.search(queries, K)),
        (ours.assign(make(queries), K), theirs.assign(queries, K)),
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", HOST)
def test_every_method_of_a_flat_index(index, base, queries, kind):
    make = HOST[kind]
    theirs = stock.IndexFlatL2(DIMS)
    theirs.add(base)
    x, keys = make(queries), make(np.array([3, 0, 699]))
    for found, wanted in (
        (index.range_search(x, 50.0), theirs.range_search(queries, 50.0)),
        (index.search_and_reconstruct(x, K),
         theirs.search_and_reconstruct(queries, K)),
    ):
        for a, b in zip(found, wanted):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        index.reconstruct_batch(keys), base[[3, 0, 699]])
    codes = index.sa_encode(x)
    np.testing.assert_array_equal(codes, theirs.sa_encode(queries))
    np.testing.assert_array_equal(index.sa_decode(codes), queries)
    np.testing.assert_array_equal(
        index.compute_residual_n(3, make(queries[:3]), None, keys),
        queries[:3] - base[[3, 0, 699]])
    np.testing.assert_array_equal(
        index.compute_residual(make(queries[1]), key=2), queries[1] - base[2])
    assert index.remove_ids(keys) == 3
    assert index.ntotal == NB - 3


@pytest.mark.parametrize("kind", ["list", "memoryview", "dlpack"])
def test_other_classes_take_them_too(faiss_ext, base, queries, kind):
    make = HOST[kind]
    bits = np.random.default_rng(3).integers(0, 256, (50, 4)).astype("uint8")
    binary = [m.IndexBinaryFlat(32) for m in (faiss_ext, stock)]
    codes = make(bits)
    if kind == "list":
        codes = bits
    binary[0].add(codes)
    binary[1].add(bits)
    for found, wanted in zip(binary[0].search(codes, K), binary[1].search(bits, K)):
        np.testing.assert_array_equal(found, wanted)
    pca = [m.PCAMatrix(DIMS, 4) for m in (faiss_ext, stock)]
    pca[0].train(make(base))
    pca[1].train(base)
    np.testing.assert_array_equal(pca[0].apply(make(queries)), pca[1].apply(queries))
    quantizer = [m.ProductQuantizer(DIMS, 4, 4) for m in (faiss_ext, stock)]
    quantizer[0].train(make(base))
    quantizer[1].train(base)
    np.testing.assert_array_equal(
        quantizer[0].compute_codes(make(queries)),
        quantizer[1].compute_codes(queries))
    means = [m.Kmeans(DIMS, 5, niter=2, seed=1) for m in (faiss_ext, stock)]
    assert means[0].train(make(base)) == means[1].train(base)
    np.testing.assert_array_equal(
        means[0].assign(make(queries)), means[1].assign(queries))
    clustering = [m.Clustering(DIMS, 5) for m in (faiss_ext, stock)]
    clustering[0].train(make(base), faiss_ext.IndexFlatL2(DIMS))
    clustering[1].train(base, stock.IndexFlatL2(DIMS))
    np.testing.assert_array_equal(*(
        stock.vector_to_array(c.centroids) for c in clustering))
    selector = faiss_ext.IDSelectorBatch(make(np.array([2, 4])))
    assert selector.is_member(4) and not selector.is_member(3)


def test_methods_of_the_same_name_that_take_no_vectors(faiss_ext):
    table = faiss_ext.MapLong2Long()
    keys, values = np.array([5, 7]), np.array([50, 70])
    table.add(keys, values)
    assert table.search_multiple(HostTensor(np.array([7, 5, 6]))).tolist() == [70, 50, -1]
    table.add(HostTensor(keys + 10), values)
    assert table.search_multiple(np.array([15])).tolist() == [50]


@pytest.mark.parametrize("kind", ["list", "memoryview", "dlpack"])
def test_functions_take_them_too(faiss_ext, base, queries, kind):
    make = HOST[kind]
    x, y = make(queries), make(base)
    for name, ours, theirs in (
        ("knn", (x, y, K), (queries, base, K)),
        ("kmin", (x, K), (queries, K)),
        ("kmax", (x, K), (queries, K)),
        ("pairwise_distances", (x, y), (queries, base)),
    ):
        np.testing.assert_array_equal(
            getattr(faiss_ext, name)(*ours), getattr(stock, name)(*theirs))
    labels = make(np.arange(12).reshape(3, 4))
    assert faiss_ext.eval_intersection(labels, labels) == 12


def test_a_buffer_is_an_output(index, queries):
    labels = array.array("q", [0] * (N * K))
    out = memoryview(labels).cast("B").cast("q", (N, K))
    index.search(queries, K, I=out)
    np.testing.assert_array_equal(np.array(out), index.search(queries, K)[1])


def test_normalising_in_place_reaches_the_callers_memory(faiss_ext, queries):
    values = queries.copy()
    faiss_ext.normalize_L2(HostTensor(values))
    expected = queries.copy()
    stock.normalize_L2(expected)
    with pytest.raises(faiss_ext.InvalidArray, match="^x: list"):
        faiss_ext.normalize_L2(queries.tolist())


def test_read_only_outputs_are_refused_by_position_too(
    faiss_ext, index, queries, base
):
    def read_only(shape, dtype="float32"):
        made = np.zeros(shape, dtype)
        made.flags.writeable = False
        return made

    codes = index.sa_encode(base)
    for name, call, output in (
        ("x", lambda x: index.reconstruct_n(0, 5, x), read_only((5, DIMS))),
        ("labels", lambda x: index.assign(queries, K, x), read_only((N, K), "int64")),
        ("x", lambda x: index.sa_decode(codes, x), read_only(base.shape)),
        ("x", faiss_ext.normalize_L2, read_only(base.shape)),
    ):
        with pytest.raises(faiss_ext.InvalidArray, match=f"^{name}: read-only"):
            call(output)
        assert not output.any()


def test_the_index_of_a_clustering_takes_them_too(faiss_ext, base, queries):
    means = faiss_ext.Kmeans(DIMS, 5, niter=2, seed=1)
    # Faiss 1.15 makes it at once, 1.7.3 when it trains.
    same = stock.Kmeans(DIMS, 5, niter=2, seed=1)
    assert hasattr(means, "index") == hasattr(same, "index")
    means.train(base)
    assert type(means.index) is faiss_ext.IndexFlatL2
    np.testing.assert_array_equal(
        means.index.search(HostTensor(queries), 1)[1][:, 0],
        means.assign(queries)[1])


def test_arrays_as_faiss_wants_them_go_to_it_at_once(index, queries, monkeypatch):
    D, I = np.zeros((N, K), "float32"), np.zeros((N, K), "int64")

    def fail(*args):
        raise AssertionError("looked at one by one")

    monkeypatch.setattr(host_methods, "as_host_array", fail)
    found = index.search(queries, K, D=D, I=I)
    assert found[0] is D and found[1] is I and D.any()
    labels = np.zeros((N, K), "int64")
    assert index.assign(queries, K, labels) is labels and (labels == I).all()


def test_every_argument_may_be_named(faiss_ext, index, queries):
    found = faiss_ext.Index.search(self=index, x=queries, k=K)
    np.testing.assert_array_equal(found[1], index.search(queries, K)[1])


def test_masked_arrays_are_refused(faiss_ext, resources, index, queries):
    masked = np.ma.masked_less(queries, 0)
    gpu = faiss_ext.GpuIndexFlatL2(resources, DIMS)
    for call in (lambda: index.search(masked, K), lambda: gpu.search(masked, K),
                 lambda: index.add(masked), lambda: gpu.add(masked)):
        with pytest.raises(faiss_ext.InvalidArray, match="^x: masked.*filled"):
            call()
    nothing_hidden = np.ma.masked_array(queries)
    np.testing.assert_array_equal(
        index.search(nothing_hidden, K)[1], index.search(queries, K)[1])


def test_cast_says_nothing_new_to_a_host_index(index, queries):
    np.testing.assert_array_equal(
        index.search(queries.astype("float64"), K, cast=True),
        index.search(queries, K))


def wrapped():
    """Every function of ours before one of Faiss': its name, itself, and the
    parameters that may be arrays."""
    for name in decisions.FUNCTIONS:
        if hasattr(stock, name):
            yield name, index_classes._host_function(name), 0
    for made in dict.fromkeys(index_classes._ours.values()):
        if isinstance(made, index_classes._StandsFor):
            for name, member in vars(made).items():
                if getattr(member, "__wrapped__", None) and (
                    member.__code__.co_filename == host_methods.__file__
                ):
                    yield f"{made.__name__}.{name}", member, 1


def test_every_method_of_every_class_refuses_gpu_memory_by_name(
    faiss_ext, gpu_array
):
    x = gpu_array(np.zeros((2, 4), "float32"))
    checked = set()
    for where, function, first in wrapped():
        parameters = inspect.signature(function.__wrapped__).parameters
        names = list(parameters)[first:]
        for name in names:
            if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                continue
            # None is no object; the refusal comes before anything is done.
            if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                args, options = [None] * first + [x], {}
            else:
                args = [None] * first
                options = dict.fromkeys(names)
                options[name] = x
            with pytest.raises(faiss_ext.InvalidArray) as caught:
                function(*args, **options)
            assert str(caught.value).startswith(f"{name}: in GPU memory; "), where
            checked.add((where.rpartition(".")[2], name))
    assert checked >= {
        ("train", "x"), ("add", "x"), ("add_with_ids", "ids"), ("search", "x"),
        ("search", "D"), ("search", "I"), ("assign", "labels"),
        ("reconstruct", "x"), ("reconstruct_n", "x"), ("reconstruct_batch", "key"),
        ("range_search", "x"), ("remove_ids", "x"), ("update_vectors", "keys"),
        ("compute_residual", "x"), ("compute_residual_n", "keys"),
        ("sa_encode", "x"), ("sa_decode", "codes"), ("apply", "x"),
        ("compute_codes", "x"), ("decode", "codes"), ("knn", "xb"),
        ("pairwise_distances", "xq"), ("kmin", "array"), ("train_encoded", "x"),
        ("explore", "xq"), ("evaluate", "D"),
    }


@pytest.mark.parametrize("make, mend", [
    (lambda f: f.IndexFlatL2(DIMS), "index_cpu_to_gpu"),
    (lambda f: f.IndexBinaryFlat(32), "copy"),
    (lambda f: f.Kmeans(DIMS, 2), "copy"),
])
def test_the_refusal_tells_what_to_do(faiss_ext, gpu_array, make, mend):
    with pytest.raises(faiss_ext.InvalidArray, match=f"^x: in GPU memory; .*{mend}"):
        make(faiss_ext).train(gpu_array(np.zeros((4, DIMS), "float32")))
    with pytest.raises(faiss_ext.InvalidArray, match="knn_gpu"):
        faiss_ext.knn(gpu_array(np.zeros((4, DIMS), "float32")), None, 1)


def test_faiss_own_module_stays_as_it_is(faiss_ext, index, base, queries, gpu_array):
    for name in ("IndexFlatL2", "IndexIVFFlat", "GpuIndexFlatL2", "Kmeans"):
        theirs = getattr(stock, name)
        assert theirs.__module__.startswith("faiss.")
        for method in ("search", "add", "train"):
            function = getattr(theirs, method, None)
            if function:
                assert function.__module__ in (
                    "faiss.class_wrappers", "faiss.extra_wrappers")
    theirs = stock.IndexFlatL2(DIMS)
    assert type(theirs).__module__.startswith("faiss.")
    with pytest.raises(AttributeError):
        theirs.add(base.tolist())
    with pytest.raises(AssertionError) as caught:
        theirs.add(base[:, :3])
    assert caught.type is AssertionError
    assert type(stock.index_factory(8, "Flat")).__module__.startswith("faiss.")
    assert type(stock.clone_index(index)).__module__.startswith("faiss.")


def test_our_classes_and_faiss_own_count_as_each_other(faiss_ext):
    ours, theirs = faiss_ext.IndexFlatL2(8), stock.IndexFlatL2(8)
    for name in ("IndexFlatL2", "IndexFlat", "Index"):
        for module in (faiss_ext, stock):
            assert isinstance(ours, getattr(module, name))
            assert isinstance(theirs, getattr(module, name))
            assert issubclass(faiss_ext.IndexFlatL2, getattr(module, name))
            assert issubclass(stock.IndexFlatL2, getattr(module, name))
    for other in (faiss_ext.IndexFlatIP, faiss_ext.IndexIVF, faiss_ext.GpuIndex):
        assert not isinstance(ours, other) and not isinstance(theirs, other)
        assert not issubclass(faiss_ext.IndexFlatL2, other)

    class Mine(faiss_ext.IndexFlatL2):
        pass

    assert isinstance(Mine(8), Mine) and not isinstance(ours, Mine)
    assert isinstance(Mine(8), stock.IndexFlatL2)

    class Abstract(abc.ABC):
        pass

    class Both(faiss_ext.IndexFlatL2, Abstract):
        pass

    assert isinstance(Both(8), Abstract) and isinstance(Both(8), faiss_ext.IndexFlatL2)
    assert not isinstance(ours, Both)


def test_what_functions_return_is_ours(faiss_ext, index, tmp_path):
    file = str(tmp_path / "index")
    faiss_ext.write_index(index, file)
    quantizer = str(tmp_path / "quantizer")
    faiss_ext.write_ProductQuantizer(faiss_ext.ProductQuantizer(DIMS, 4, 4), quantizer)
    ivf = faiss_ext.index_factory(DIMS, "PCA8,IVF4,Flat")
    for made in (
        faiss_ext.read_ProductQuantizer(quantizer),
        faiss_ext.index_factory(DIMS, "Flat"),
        faiss_ext.read_index(file),
        faiss_ext.clone_index(index),
        faiss_ext.deserialize_index(faiss_ext.serialize_index(index)),
        faiss_ext.downcast_index(ivf.index),
        faiss_ext.extract_index_ivf(ivf),
        faiss_ext.downcast_VectorTransform(ivf.chain.at(0)),
        faiss_ext.index_binary_factory(32, "BFlat"),
    ):
        assert type(made).__module__ == "faiss_ext"
        assert type(made) is getattr(faiss_ext, type(made).__name__)
    assert not faiss_ext.try_extract_index_ivf(index)
