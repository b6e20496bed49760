"""What is the same with the native part and without it: the names, the arrays
that indexes on the CPU take, the errors, the examples of the README.

Run with both (tests/run_tests.py, suites `python` and `pure`).
"""

from __future__ import annotations

import ast
import inspect
import os
import pathlib
import pickle
import re
import subprocess
import sys
import types

import faiss
import numpy as np
import pytest
from docstrings import check_examples, public_methods

import faiss_ext
from faiss_ext._index import decisions, staged

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: What the stubs name.
NAMES = sorted(
    name
    for node in ast.parse((ROOT / "faiss_ext/_with_native.pyi").read_text()).body
    for name in (
        [alias.asname for alias in node.names] if isinstance(node, ast.ImportFrom)
        else [getattr(node, "name", None)]
    )
    if name and not name.startswith("_")
)
CLASSES = [name for name in NAMES if inspect.isclass(getattr(faiss_ext, name, None))]
FUNCTIONS = [name for name in NAMES if name not in CLASSES]
#: Classes that they define, and the names of the bases.
BASES = {
    node.name: [base.attr if isinstance(base, ast.Attribute) else base.id
                for base in node.bases]
    for file in ("_with_native", "_native/swigfaiss_ext")
    for node in ast.parse((ROOT / f"faiss_ext/{file}.pyi").read_text()).body
    if isinstance(node, ast.ClassDef) and node.name in NAMES
}
#: What Faiss for the CPU lacks, beside what the stubs name.
GPU_NAMES = [
    "StandardGpuResources", "GpuClonerOptions", "GpuMultipleClonerOptions",
    "GpuIndexFlatConfig", "GpuIndexIVFFlatConfig", "GpuResourcesVector",
    "GpuIndexBinaryFlat", "index_gpu_to_cpu", "bfKnn", "GpuParameterSpace",
    "GpuIcmEncoderFactory", "ToGpuCloner", "ToGpuClonerMultiple",
    "GpuProgressiveDimIndexFactory", "gpu_sync_all_devices",
]
#: What works on every machine.
HARMLESS = {"InvalidArray", "InvalidDevice", "SearchProfile", "StageSpan",
            "ComputeSpan", "ComputeStage", "Index",
            "pinned_pool_stats", "trim", "GpuUnavailable", "get_num_gpus", "downcast_index",
            "write_index", "write_index_binary", "normalize_L2"}
without_native = pytest.mark.skipif(
    faiss_ext.has_native, reason="the native part is in use")
N, DIMS, K = 20, 8, 3


def python_code(holder):
    """The names of Python code that Faiss has in its module or in a class."""
    return {
        name for name, member in vars(holder).items()
        if inspect.isfunction(member)
        and re.match(r"faiss(\.(?!swigfaiss|contrib)|$)", member.__module__)
    }


def undecided(stock, ours):
    """Methods and functions that are Python code of Faiss, and that nobody has
    decided about."""
    found = {
        f"{name}.{method}" for name, the_class in vars(stock).items()
        if inspect.isclass(the_class)
        for method in python_code(the_class) - decisions.FAISS_OWN
        if not decisions.arrays_of(the_class, method)
    }
    return sorted(found | {
        name for name in python_code(stock)
        if getattr(ours, name) is getattr(stock, name)
        and not name.startswith("_") and name not in decisions.FAISS_OWN
    })


def test_every_method_of_faiss_is_decided():
    assert undecided(faiss, faiss_ext) == []


def test_a_method_that_nobody_decided_about_is_noticed():
    stock = types.ModuleType("faiss")

    class Index:
        def search(self, x, k): ...
        def search_by_magic(self, x): ...
        def reset(self): ...

    for member in vars(Index).values():
        if inspect.isfunction(member):
            member.__module__ = "faiss.class_wrappers"
    stock.Index = Index
    stock.news = lambda x: x
    stock.news.__module__ = "faiss.extra_wrappers"
    assert undecided(stock, stock) == ["Index.search_by_magic", "news"]


def test_what_is_decided_is_done():
    for name, arrays in decisions.FUNCTIONS.items():
        assert not arrays.gpu or hasattr(faiss_ext, arrays.gpu)
        assert not hasattr(faiss, name) or (
            getattr(faiss, name) is not getattr(faiss_ext, name))
    for name in python_code(faiss.Index) & decisions.METHODS.keys():
        assert vars(faiss_ext.Index)[name] is not vars(faiss.Index)[name]
    assert not (decisions.METHODS | decisions.FUNCTIONS).keys() & decisions.FAISS_OWN


@pytest.mark.parametrize("name", [
    "SearchProfile", "StageSpan", "ComputeSpan", "ComputeStage", "get_num_gpus",
    "write_index", "write_index_binary",
])
def test_examples_in_docstrings_run_everywhere(name):
    documented = getattr(faiss_ext, name)
    check_examples(name, documented)
    for method in public_methods(documented) if inspect.isclass(documented) else ():
        check_examples(*method)


@pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS, *GPU_NAMES])
def test_every_name_is_there(name):
    assert hasattr(faiss_ext, name) and name in dir(faiss_ext)
    assert name in faiss_ext.__all__


@pytest.mark.parametrize("name", BASES)
def test_classes_are_of_the_kind_that_the_stubs_say(name):
    for base in BASES[name]:
        # With a GPU Faiss and without our native part Faiss' classes are its own.
        wanted = getattr(faiss_ext, base, None)
        if wanted is not None and not (name == "PooledGpuResources"
                                       and not faiss_ext.has_native):
            assert issubclass(getattr(faiss_ext, name), wanted)


def test_errors_are_of_the_kinds_that_programs_catch():
    for error, kinds in {
        "InvalidArray": (ValueError, TypeError, AssertionError),
        "InvalidDevice": (ValueError, RuntimeError),
        "GpuUnavailable": (RuntimeError, AttributeError),
    }.items():
        assert all(issubclass(getattr(faiss_ext, error), kind) for kind in kinds)


def test_every_class_of_ours_is_made_as_faiss_own():
    with_cpp_of_ours = {"IndexShards", *(c.__name__ for c in staged.CLASSES)}
    for name in vars(faiss).keys() - with_cpp_of_ours:
        stock, ours = getattr(faiss, name), getattr(faiss_ext, name)
        if inspect.isclass(stock) and ours is not stock:
            assert inspect.unwrap(ours.__init__) is inspect.unwrap(stock.__init__), name


@without_native
@pytest.mark.parametrize(
    "name", sorted({*CLASSES, *FUNCTIONS, *GPU_NAMES} - HARMLESS))
def test_what_needs_a_gpu_says_so_when_it_is_used(name):
    if hasattr(faiss, "GpuIndexFlat") and hasattr(faiss, name):
        pytest.skip("Faiss' own")
    needs_gpu = getattr(faiss_ext, name)
    # AttributeError: what programs expect that try whether Faiss has a GPU.
    for error in (RuntimeError, AttributeError):
        with pytest.raises(error) as caught:
            needs_gpu(faiss_ext.IndexFlatL2(DIMS), k=1)
    said = str(caught.value)
    assert said.startswith(f"{name}: ") and faiss_ext.native_problem in said
    assert "install" in said and "first" in said and "\n" not in said
    assert faiss_ext.native_problem in needs_gpu.__doc__
    if isinstance(needs_gpu, type):
        class Mine(needs_gpu):
            def __init__(self):
                pass

        with pytest.raises(RuntimeError, match=f"^{name}: "):
            Mine()


NOT_FOR_NONE = {
    "IndexIDMap: argument 1": lambda f: f.IndexIDMap(None),
    "IndexPreTransform: argument 1": lambda f: f.IndexPreTransform(
        None, f.IndexFlatL2(DIMS)),
    "IndexIVFFlat: argument 1": lambda f: f.IndexIVFFlat(None, DIMS, 2),
    "IndexBinaryIDMap: argument 1": lambda f: f.IndexBinaryIDMap(None),
    "IndexReplicas.add_replica": lambda f: f.IndexReplicas(DIMS).add_replica(None),
    "IndexReplicas.addIndex": lambda f: f.IndexReplicas(DIMS).addIndex(None),
    "IndexShards.add_shard": lambda f: f.IndexShards(DIMS).add_shard(None),
    "IndexPreTransform.prepend_transform": lambda f: f.IndexPreTransform(
        f.IndexFlatL2(DIMS)).prepend_transform(None),
    "IndexBinaryReplicas.add_replica": lambda f: f.IndexBinaryReplicas(
        DIMS).add_replica(None),
    "index": lambda f: f.clone_index(None),
    "idx": lambda f: f.write_index(None, "file"),
}


@pytest.mark.parametrize("said", NOT_FOR_NONE)
def test_none_is_no_pointer(said):
    with pytest.raises(TypeError, match=f"^{said}[: ].*None"):
        NOT_FOR_NONE[said](faiss_ext)
    assert not os.path.exists("file")


def test_a_view_of_an_index_takes_every_array(base):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(base)
    view = faiss_ext.downcast_index(faiss_ext.IndexPreTransform(index).index)
    assert type(view) is type(index) or isinstance(view, faiss_ext.IndexFlat)
    assert (view.search(base.tolist(), 1)[1][:, 0] == range(50)).all()
    with pytest.raises(faiss_ext.InvalidArray, match="^x: complex"):
        view.search(base + 1j, 1)


def test_nothing_on_the_cpu_is_of_a_gpu_class():
    for index in (faiss_ext.IndexFlatL2(DIMS), faiss.IndexFlatL2(DIMS)):
        for name in CLASSES:
            if name.startswith("Gpu"):
                assert not isinstance(index, getattr(faiss_ext, name))
    assert not isinstance(np.zeros(3), faiss_ext.DeviceArray)


def test_an_unknown_name_is_missing_in_faiss_ext():
    with pytest.raises(
        AttributeError, match="^module 'faiss_ext' has no attribute 'IndexFlatL3'"
    ) as caught:
        faiss_ext.IndexFlatL3
    assert caught.value.name == "IndexFlatL3" and caught.value.obj is faiss_ext
    assert not hasattr(faiss_ext, "IndexFlatL3")
    with pytest.raises(ImportError, match="IndexFlatL3.*faiss_ext"):
        exec("from faiss_ext import IndexFlatL3")


def test_a_star_takes_the_names_and_no_modules_of_the_package():
    taken: dict[str, object] = {}
    exec("from faiss_ext import *", taken)
    modules = {
        name for name, item in taken.items()
        if inspect.ismodule(item) and item.__name__.startswith("faiss_ext")
    }
    assert not modules
    stock: dict[str, object] = {}
    exec("from faiss import *", stock)
    stock.pop("contrib", None)
    assert {*stock} | {*CLASSES, *FUNCTIONS} <= {*taken} & {*dir(faiss_ext)}
    assert all(taken[name] is getattr(faiss_ext, name) for name in faiss_ext.__all__)
    assert len(faiss_ext.__all__) == len({*faiss_ext.__all__})


def test_functions_that_need_no_gpu_answer():
    assert faiss_ext.get_num_gpus() >= 0
    faiss_ext.trim()
    assert faiss_ext.pinned_pool_stats().keys() == {
        "bound", "pinned_bytes", "allocations"}


class HostTensor:
    """An array of some library in host memory, which offers DLPack alone."""

    def __init__(self, values):
        self.values = values

    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **options):
        assert "stream" not in options
        return self.values.__dlpack__(**options)


class OldTensor(HostTensor):
    """One whose exporter knows nothing of versions."""

    def __dlpack__(self):
        # As it would be for NumPy: unversioned, of memory that may be written.
        return self.values.__dlpack__()


def of_interface(values):
    return type("A", (), {"__array_interface__": values.__array_interface__,
                          "keep": values})()


KINDS = {
    "numpy": lambda x: x,
    "float64": lambda x: x.astype("float64"),
    "integers": lambda x: np.round(x).astype("int32"),
    "float16": lambda x: x.astype("float16"),
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(map(tuple, x.tolist())),
    "memoryview": memoryview,
    "column-major": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "dlpack": HostTensor,
    "old dlpack": OldTensor,
    "interface": of_interface,
    "convertible": lambda x: type("A", (), {
        "__array__": lambda self, dtype=None, copy=None: x})(),
}


@pytest.fixture
def base(rng):
    return np.round(rng.standard_normal((50, DIMS)) * 9).astype("float32")


@pytest.mark.parametrize("factory, kind", [
    *(("Flat", kind) for kind in KINDS), ("IDMap,Flat", "dlpack"),
    ("IVF2,Flat", "list"),
])
def test_every_kind_of_host_array_is_taken(base, factory, kind):
    make = KINDS[kind]
    found, wanted = (m.index_factory(DIMS, factory) for m in (faiss_ext, faiss))
    found.train(make(base))
    wanted.train(base)
    if factory == "Flat":
        found.add(make(base))
        wanted.add(base)
    else:
        found.add_with_ids(make(base), np.arange(50) + 7)
        wanted.add_with_ids(base, np.arange(50) + 7)
    for a, b in zip(found.search(make(base[:N]), K), wanted.search(base[:N], K)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["numpy", "memoryview", "dlpack", "old dlpack"])
def test_outputs_are_filled_in_place(base, kind):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(base)
    values = np.zeros((N, K), "float32"), np.zeros((N, K), "int64")
    D, I = map(KINDS[kind], values)
    found = index.search(base[:N], K, D=D, I=I)
    assert found[0] is D and found[1] is I
    expected = index.search(base[:N], K)
    for a, b in zip(values, expected):
        np.testing.assert_array_equal(a, b)
    values = np.zeros((N, K), "int64"), np.zeros(DIMS, "float32")
    labels, row = map(KINDS[kind], values)
    assert index.assign(base[:N], K, labels) is labels
    assert index.reconstruct(5, row) is row
    np.testing.assert_array_equal(values[0], expected[1])
    np.testing.assert_array_equal(values[1], base[5])


def read_only(values):
    values.flags.writeable = False
    return values


class OnGpu:
    """As it says."""

    __cuda_array_interface__ = {
        "version": 2, "shape": (N, DIMS), "typestr": "<f4", "data": (64, False)}


class Raising:
    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **options):
        raise BufferError("is lent already")


class Negated(HostTensor):
    def is_neg(self):
        return True


@pytest.mark.parametrize("make, said", [
    (lambda x: x[0], r"^x: shape \(8,\).*one vector.*x\[None, :\]"),
    (lambda x: HostTensor(x[0]), r"^x: shape \(8,\).*one vector.*from_dlpack\(x\)"),
    (lambda x: x[:, :3], r"^x: shape \(50, 3\); needed \(n, 8\)"),
    (lambda x: np.ma.masked_less(x, 0), r"^x: masked values.*x\.filled"),
    (lambda x: OnGpu(), "^x: in GPU memory; IndexFlatL2.search takes host memory: "
     "give a copy there"),
    (lambda x: Raising(), "^x: its __dlpack__ raised BufferError: is lent already"),
    (lambda x: Negated(x), r"^x: its numbers lie .* opposite sign.*resolve_neg"),
])
def test_what_cannot_be_searched_for_is_refused_in_the_same_words(base, make, said):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(base)
    for error in (faiss_ext.InvalidArray, ValueError, TypeError, AssertionError):
        with pytest.raises(error, match=said):
            index.search(make(base), K)


@pytest.mark.parametrize("make, said", [
    (lambda: np.zeros((N, K), "int32"), "^I: dtype int32.*int64"),
    (lambda: HostTensor(np.zeros((N, K), "int32")), "^I: dtype int32.*int64"),
    (lambda: np.zeros((K, N), "int64").T, "^I: .*C-contiguous"),
    (lambda: np.zeros((N, K), "int64").tolist(), "^I: list"),
    (lambda: read_only(np.zeros((N, K), "int64")), "^I: read-only"),
    (lambda: np.broadcast_to(np.int64(0), (N, K)), "^I: read-only"),
    (lambda: np.zeros((N, K + 1), "int64"), r"^I: shape \(20, 4\); .*\(20, 3\)"),
])
def test_what_cannot_take_results_is_refused_in_the_same_words(base, make, said):
    index = faiss_ext.IndexFlatL2(DIMS)
    with pytest.raises(faiss_ext.InvalidArray, match=said):
        index.search(base[:N], K, I=make())


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy lends no such array")
def test_a_capsule_that_says_it_is_read_only_is_no_output(base):
    output = HostTensor(read_only(np.zeros((N, K), "int64")))
    with pytest.raises(faiss_ext.InvalidArray, match="^I: read-only"):
        faiss_ext.IndexFlatL2(DIMS).search(base[:N], K, I=output)
    assert not output.values.any()


def replicas(f, inner):
    index = f.IndexReplicas(DIMS)
    index.add_replica(inner)
    return index


def shards(f, inner):
    index = f.IndexShards(DIMS, False, True)
    index.add_shard(inner)
    return index


def transformed(f, inner):
    transform = f.CenteringTransform(DIMS)
    transform.train(np.zeros((1, DIMS), "float32"))
    return f.IndexPreTransform(transform, inner)


HOLDERS = {
    "replicas": replicas, "shards": shards, "transform": transformed,
    "refine": lambda f, inner: f.IndexRefineFlat(inner),
    "map": lambda f, inner: f.IndexIDMap(inner),
    "map of replicas": lambda f, inner: f.IndexIDMap(replicas(f, inner)),
}


@pytest.mark.parametrize("kind", [k for k in HOLDERS if "map" not in k])
def test_what_was_added_to_an_index_within_is_found(base, kind):
    if kind == "refine":
        pytest.skip("the vectors to refine with are its own")
    inner = faiss_ext.IndexFlatL2(DIMS)
    index = HOLDERS[kind](faiss_ext, inner)
    inner.add(base)
    assert (index.search(base, 1)[1][:, 0] == range(50)).all()


@pytest.mark.parametrize("kind", HOLDERS)
def test_what_holds_empty_indexes_finds_none(base, kind):
    inner = faiss_ext.IndexFlatL2(DIMS)
    index = HOLDERS[kind](faiss_ext, inner)
    if kind == "refine":
        index.k_factor = 4
    # Of twenty queries or more Faiss 1.7.3 leaves what a flat index finds as it is.
    D, I = index.search(base, K)
    assert (D == np.finfo("float32").max).all() and (I == -1).all()
    assert (index.assign(base, K) == -1).all()


def test_replaced_lists_are_searched_though_nothing_is_counted(base):
    full, index = (faiss_ext.index_factory(DIMS, "IVF2,Flat") for _ in range(2))
    for each in (full, index):
        each.train(base)
        each.nprobe = 2
    full.add(base)
    index.replace_invlists(full.invlists)
    assert index.ntotal == 0
    assert (index.search(base, 1)[1][:, 0] == range(50)).all()


@pytest.mark.skipif(
    "params" not in inspect.signature(faiss.IndexFlat.search).parameters,
    reason="this Faiss has no parameters of searches")
@pytest.mark.parametrize("kind", ["flat", "map"])
def test_parameters_are_judged_where_nothing_is_stored(base, kind):
    inner = faiss_ext.IndexFlatL2(DIMS)
    index = inner if kind == "flat" else faiss_ext.IndexIDMap(inner)
    for x in (base, base[:3], base.tolist()):
        with pytest.raises(TypeError):
            index.search(x, K, params=5)


def test_true_is_no_number(base):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(base)
    for name, call in (("k", index.search), ("k", index.assign)):
        with pytest.raises(faiss_ext.InvalidArray, match=f"^{name}: True is of type"):
            call(base, True)
    with pytest.raises(faiss_ext.InvalidArray, match="^key: True is of type"):
        index.reconstruct(True)


@pytest.mark.parametrize("given", [None, "a", True, 1j, [1]])
def test_a_radius_is_a_number(base, given):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(base)
    with pytest.raises(faiss_ext.InvalidArray, match="^thresh: .* is of type "):
        index.range_search(base, given)
    for radius in (1, 1.0, np.float32(1), np.int32(1)):
        assert index.range_search(base, radius)[0][-1] >= 50


def test_what_binary_indexes_take(base):
    index = faiss_ext.IndexBinaryFlat(8 * DIMS)
    for call in (index.add, index.train, lambda x: index.search(x, 1)):
        for x in (base, base.tolist(), base.astype("int64")):
            with pytest.raises(
                faiss_ext.InvalidArray, match="^x: dtype .*; uint8 is needed"
            ):
                call(x)
    bits = np.packbits(np.repeat(base > 0, 8, axis=1), axis=1)
    index.add(bits)
    assert index.range_search(bits, 1)[0][-1] >= 50
    with pytest.raises(faiss_ext.InvalidArray, match="^thresh: 1.5 is of type float"):
        index.range_search(bits, 1.5)


def test_indexes_survive_a_pickle(base):
    index = faiss_ext.IndexFlatL2(DIMS)
    index.add(base)
    again = pickle.loads(pickle.dumps(index))
    assert type(again) is faiss_ext.IndexFlatL2
    np.testing.assert_array_equal(again.search(base, K)[1], index.search(base, K)[1])


def test_what_functions_return_takes_every_array(base):
    index = faiss_ext.clone_index(faiss_ext.index_factory(DIMS, "Flat"))
    assert type(index) is faiss_ext.IndexFlatL2 or type(index) is faiss_ext.IndexFlat
    index.add(base.tolist())
    assert faiss_ext.knn(HostTensor(base), base.tolist(), 1)[1].ravel().tolist() == list(
        range(50))


def readme_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(readme_blocks())))
def test_examples_of_the_readme_run_here(number):
    program = readme_blocks()[number]
    where = os.path.dirname(os.path.dirname(faiss_ext.__file__))
    # Last, in case that is where all packages are.
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), where]))
    done = subprocess.run(
        [sys.executable, "-c", program],
        # The simulated runtime, where it is, then has nothing to report.
        env={**os.environ, "PYTHONPATH": path, "CUDA_SIM_STRICT": "1"},
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    if "transfer_stats" in program and faiss_ext.has_native and faiss_ext.get_num_gpus():
        assert "bytes_to_host" in done.stdout


GPU_FAISS = """
import sys, types, warnings
import faiss
# As a Faiss that is built for the GPU.
for name, base in (("GpuIndex", "Index"), ("GpuIndexFlat", "GpuIndex"),
                   ("StandardGpuResources", "")):
    if not hasattr(faiss, name):
        made = type(name, (getattr(faiss, base, object),), {})
        setattr(faiss, name, made)
sys.path.insert(0, sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import faiss_ext
    import faiss_ext._interop.take
    from faiss_ext import GpuIndexFlat
    import importlib
    importlib.import_module("faiss_ext")
said = [str(w.message) for w in caught if "faiss_ext" in str(w.message)]
assert len(said) == 1 and said[0].startswith("faiss_ext accelerates nothing: "), said
assert "without its native part" in said[0]
assert not faiss_ext.has_native
assert GpuIndexFlat is faiss.GpuIndexFlat
assert faiss_ext.StandardGpuResources is faiss.StandardGpuResources
index = faiss_ext.IndexFlatL2(2)
index.add([[0, 1]])
try:
    faiss_ext.pinned_empty(3)
except RuntimeError as error:
    assert "pinned_empty: " in str(error) and "has_native" in str(error)
else:
    raise AssertionError
"""


def test_a_gpu_faiss_beside_the_package_without_its_native_part_is_told_once():
    done = subprocess.run(
        [sys.executable, "-c", GPU_FAISS, ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
