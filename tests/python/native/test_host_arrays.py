"""Whatever a user may give for an array in host memory: taken for the numbers that
it holds, or refused by name with a fix that works; alike on the CPU, on the GPU
and on Faiss' own GPU indexes."""

from __future__ import annotations

import datetime
import decimal

import faiss as stock
import numpy as np
import pytest
from dlpack_capsules import CPU, Loan

from faiss_ext._index import classes as index_classes

DIMS, NB, K = 8, 30, 3
VECTORS = np.random.default_rng(5).integers(-9, 9, (NB, DIMS)).astype("float32")


def column(rows):
    """As a table's column of vectors becomes an array."""
    made = np.empty(len(rows), object)
    made[:] = rows
    return made


class Converts:
    """A column of another library, which only converts itself."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


class Sparse:
    """A sparse matrix as SciPy's: it has a shape and is no array."""

    shape = VECTORS.shape

    def toarray(self):
        return VECTORS


class BFloats:
    """Half the bytes of float32, as PyTorch has it: NumPy cannot read it."""

    def __init__(self, values):
        self.bits = (values.view("uint32") >> 16).astype("uint16")
        self.loans = []

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no such type")

    def __dlpack_device__(self):
        return (CPU, 0)

    def __dlpack__(self, **options):
        self.loans.append(Loan(
            self.bits.ctypes.data, self.bits.shape, device=(CPU, 0),
            dtype=(4, 16, 1)))
        return self.loans[-1].capsule()


@pytest.fixture
def indexes(faiss_ext, resources):
    """One of ours, of the CPU, and of Faiss' own on a GPU."""
    made = {
        "gpu": faiss_ext.GpuIndexFlatL2(resources, DIMS),
        "cpu": faiss_ext.IndexFlatL2(DIMS),
        "stock": index_classes.class_of(stock.GpuIndexFlatL2)(resources, DIMS),
    }
    for index in made.values():
        index.add(VECTORS)
    return made


@pytest.fixture
def searches(faiss_ext, resources, indexes):
    """Every way to search: what its argument is called, and itself."""
    ways = {}
    for name, index in indexes.items():
        ways[f"{name}.search"] = "x", lambda x, index=index: index.search(x, K)
        ways[f"{name}.assign"] = "x", lambda x, index=index: (
            None, index.assign(x, K))
        ways[f"{name}.search_and_reconstruct"] = (
            "x", lambda x, index=index: index.search_and_reconstruct(x, K)[:2])
    ways["knn_gpu"] = "xq", lambda x: faiss_ext.knn_gpu(resources, x, VECTORS, K)
    ways["knn"] = "xq", lambda x: faiss_ext.knn(x, VECTORS, K)
    ways["pairwise_distance_gpu"] = "xq", lambda x: (
        np.sort(faiss_ext.pairwise_distance_gpu(resources, x, VECTORS))[:, :K],
        None)
    return ways


NUMBERS = {
    "float64": lambda x: x.astype("float64"),
    "long double": lambda x: x.astype("longdouble"),
    "half": lambda x: x.astype("float16"),
    "integers": lambda x: x.astype("int64"),
    "big-endian": lambda x: x.astype(">f4"),
    "column-major": np.asfortranarray,
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "every second": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "a field": lambda x: np.rec.fromarrays(
        [np.zeros(len(x), "u1"), x], [("flag", "u1"), ("v", "f4", DIMS)])["v"],
    "lists": lambda x: x.tolist(),
    "Python's numbers": lambda x: x.astype(object),
    "decimals": lambda x: [[decimal.Decimal(int(v)) for v in row] for row in x],
    "bfloat16": BFloats,
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_taken_for_what_they_are(searches, kind):
    x = VECTORS[:20] if kind != "half" else VECTORS[:20] / 2
    every = np.square(x[:, None] - VECTORS[None]).sum(-1)
    best = np.sort(every, axis=1)[:, :K]
    for way, (_, search) in searches.items():
        D, I = search(NUMBERS[kind](x))
        if I is not None:
            np.testing.assert_array_equal(
                np.take_along_axis(every, I, 1), best, err_msg=way)
        if D is not None:
            np.testing.assert_array_equal(D, best, err_msg=way)


#: What it is, what the refusal says, and, where that names one, the fix.
REFUSED = {
    "a column": (column(list(VECTORS)), "column of 30 vectors",
                 lambda x: np.stack(x)),
    "a column of lists": (column(VECTORS.tolist()), "column of 30 vectors",
                          lambda x: np.stack(x)),
    "another library's column": (
        Converts(column(list(VECTORS))), r"np\.stack\(np\.asarray\(",
        lambda x: np.stack(np.asarray(x))),
    "a ragged column": (column([VECTORS[0], VECTORS[1, :4]]),
                        "different lengths, 4 to 8", None),
    "a column with a gap": (column([VECTORS[0], None]), r"NoneType at \[1\]", None),
    "text": (np.array([["1"] * DIMS]), "text", lambda x: x.astype("float32")),
    "text of Python": (column(["title", "other"]), r"text .*'title' at \[0\]", None),
    "bytes": (np.array([[b"1"] * DIMS]), "text", lambda x: x.astype("float32")),
    "None inside": ([[1.0] * (DIMS - 1) + [None]], r"None at \[0, 7\]", None),
    "dates": (np.zeros((2, DIMS), "M8[s]"), "dates", lambda x: x.astype("int64")),
    "dates of Python": ([[datetime.date(2020, 1, 1)] * DIMS], "date at", None),
    "complex": (VECTORS.astype("complex64"), "complex", lambda x: x.real),
    "a table": (np.zeros(2, [("a", "i4"), ("v", "f4", DIMS)]), r"fields a, v.*\['v'\]",
                lambda x: x["v"]),
    "a table of columns": (
        np.zeros(2, [(f"c{i}", "f4") for i in range(DIMS)]), "fields c0, c1",
        lambda x: np.array(x.tolist(), "float32")),
    "sparse": (Sparse(), r"sparse.*toarray", lambda x: x.toarray()),
    "None": (None, "None is nothing", None),
    "an object": (object(), "object is nothing", None),
    "a word": ("text", "text .*numbers are needed", None),
    "a dictionary": ({"a": 1}, "dict is nothing", None),
    "rows of different lengths": ([[1.0] * DIMS, [2.0]], "list is no array", None),
    "one number": (3.0, r"shape \(\)", None),
    "one vector": (VECTORS[0], r"x?q?\[None, :\]", lambda x: x[None, :]),
    "one vector in a list": (VECTORS[0].tolist(), r"np\.asarray\(xq?\)\[None, :\]",
                             lambda x: np.asarray(x)[None, :]),
    "batches": (VECTORS.reshape(2, 15, DIMS), r"xq?\.reshape\(-1, 8\)",
                lambda x: x.reshape(-1, 8)),
    "too few dimensions": (VECTORS[:, :3], r"shape \(30, [38]\)", None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_are_no_vectors_is_refused_with_a_fix_that_works(
    faiss_ext, searches, indexes, what
):
    x, text, fix = REFUSED[what]
    for way, (name, search) in searches.items():
        with pytest.raises(faiss_ext.InvalidArray, match=text) as caught:
            search(x)
        # Of two that differ, the second is named.
        named = "xb" if what == "too few dimensions" and name == "xq" else name
        assert str(caught.value).startswith(f"{named}: "), way
        if fix:
            search(fix(x))
    for index in indexes.values():
        with pytest.raises(faiss_ext.InvalidArray, match=text):
            index.add(x)
        with pytest.raises(faiss_ext.InvalidArray, match=text):
            index.train(x)
        assert index.ntotal == NB


@pytest.mark.parametrize("none", [
    [], (), np.empty(0), np.empty((0, DIMS)), np.empty((0, DIMS), object),
], ids=repr)
def test_a_batch_of_none_is_answered_with_none(
    faiss_ext, resources, searches, indexes, none
):
    for way, (_, search) in searches.items():
        for found in search(none):
            assert found is None or found.shape == (0, K), way
    for index in indexes.values():
        index.add(none)
        index.train(none)
        assert index.ntotal == NB
    ids = faiss_ext.IndexIDMap(faiss_ext.IndexFlatL2(DIMS))
    ids.add_with_ids(none, [])
    assert faiss_ext.knn_gpu(resources, none, none, K)[0].shape == (0, K)
    assert faiss_ext.pairwise_distance_gpu(resources, VECTORS, none).shape == (NB, 0)


@pytest.mark.parametrize("value, text", [
    ("5", r"'5' is of type str.*int\(k\)"), (5.0, r"5\.0 is of type float.*int\(k\)"),
    (None, "NoneType"), (float("nan"), "nan is of type float; an int is needed$"),
    (10**30, "the most"), (2**63, "the most"), (-1, "-1; 1 or more"), (0, "0; 1 or more"),
    ([3], "list"), (np.float32(2), r"int\(k\)"),
])
def test_k_that_is_no_count_is_refused_by_name(
    faiss_ext, resources, indexes, value, text
):
    calls = [
        lambda: faiss_ext.knn_gpu(resources, VECTORS, VECTORS, value),
        lambda: faiss_ext.knn(VECTORS, VECTORS, value),
    ]
    for index in indexes.values():
        calls += [
            lambda index=index: index.search(VECTORS, value),
            lambda index=index: index.search(VECTORS, k=value),
            lambda index=index: index.assign(VECTORS, value),
            lambda index=index: index.search_and_reconstruct(VECTORS, value),
        ]
    for call in calls:
        with pytest.raises(faiss_ext.InvalidArray, match=f"^k: .*{text}"):
            call()


def test_integers_of_numpy_are_counts(indexes):
    for index in indexes.values():
        for k in (np.int64(2), np.uint8(2), np.array(2)):
            assert index.search(VECTORS, k)[1].shape == (NB, 2)
        np.testing.assert_array_equal(index.reconstruct(np.int32(4)), VECTORS[4])


@pytest.mark.parametrize("key", ["5", 5.0, None, float("nan"), 10**30])
def test_keys_that_are_no_numbers_are_refused_by_name(faiss_ext, indexes, key):
    for index in indexes.values():
        for call in (
            lambda: index.reconstruct(key), lambda: index.reconstruct(key=key),
            lambda: index.compute_residual(VECTORS[0], None, key),
        ):
            with pytest.raises(faiss_ext.InvalidArray, match="^key: "):
                call()
        with pytest.raises(faiss_ext.InvalidArray, match="^n0: "):
            index.reconstruct_n(key, 1)


def test_keys_beyond_what_is_stored_are_refused(indexes):
    # Faiss' flat indexes read whatever they point at.
    for index in indexes.values():
        for key in (-1, NB, 2**40):
            with pytest.raises((ValueError, RuntimeError), match="key|bounds"):
                index.reconstruct(key)
        with pytest.raises((ValueError, RuntimeError), match="key"):
            index.reconstruct_batch([0, NB])


@pytest.mark.parametrize("ids, text", [
    ([1.5] * NB, "1.5 is no int64"), ([float("nan")] * NB, "nan is no int64"),
    (["a"] * NB, "text"), ([None] * NB, "None at"), (None, "None is nothing"),
    (np.arange(NB - 1), r"shape \(29,\); needed \(30,\)"),
    (np.arange(NB)[None], "shape"), (np.full(NB, 2**63, "u8"), "is no int64"),
    (np.zeros(NB, "M8[s]"), "dates"),
])
def test_ids_keep_their_values_or_are_refused(faiss_ext, indexes, ids, text):
    index = faiss_ext.IndexIDMap(faiss_ext.IndexFlatL2(DIMS))
    for target in (index, indexes["gpu"], indexes["stock"]):
        with pytest.raises(faiss_ext.InvalidArray, match=f"^ids: .*{text}"):
            target.add_with_ids(VECTORS, ids)
    assert index.ntotal == 0
    index.add_with_ids(VECTORS, np.arange(NB, dtype="float64"))
    index.add_with_ids(VECTORS, np.arange(NB, dtype=">i4") + 100)
    assert set(index.search(VECTORS, 2)[1].ravel()) >= {0, 100}
    if ids is not None and np.ndim(ids) == 1 and len(ids) == NB:
        for other in (i for i in indexes.values()):
            with pytest.raises(faiss_ext.InvalidArray, match="^key: "):
                other.reconstruct_batch(ids)


@pytest.mark.parametrize("make, text", [
    (lambda: np.empty((NB, K), "float64"), "dtype float64.*float32"),
    (lambda: np.empty((NB, K), "complex64"), "dtype complex64"),
    (lambda: np.empty((NB, K), ">f4"), "dtype >f4"),
    (lambda: np.empty((NB, K + 1), "float32"), r"shape \(30, 4\); .*\(30, 3\)"),
    (lambda: np.empty(K, "float32"), r"shape \(3,\)"),
    (lambda: np.empty((K, NB), "float32").T, "C-contiguous"),
    (lambda: [[0.0] * K] * NB, "list"), (lambda: "out", "str"), (lambda: 5, "int"),
])
def test_outputs_of_other_kinds_are_refused_with_the_right_one(
    faiss_ext, resources, indexes, make, text
):
    calls = [lambda D: faiss_ext.knn_gpu(resources, VECTORS, VECTORS, K, D=D)]
    calls += [lambda D, i=i: i.search(VECTORS, K, D=D) for i in indexes.values()]
    for call in calls:
        with pytest.raises(faiss_ext.InvalidArray, match=f"^D: .*{text}") as caught:
            call(make())
        told = str(caught.value).partition("such as ")[2]
        if told:
            call(eval(told, {"np": np}))
    for index in indexes.values():
        with pytest.raises(faiss_ext.InvalidArray, match="^I: dtype uint64"):
            index.search(VECTORS, K, I=np.empty((NB, K), "uint64"))
        with pytest.raises(faiss_ext.InvalidArray, match="^labels: shape"):
            index.assign(VECTORS, K, np.empty((NB, 1), "int64"))
        with pytest.raises(faiss_ext.InvalidArray, match=r"^x: shape \(3,\)"):
            index.reconstruct(0, np.empty(3, "float32"))
        with pytest.raises(faiss_ext.InvalidArray, match=r"^x: shape \(3, 8\).*\(2, 8\)"):
            index.reconstruct_batch([0, 1], np.empty((3, DIMS), "float32"))
