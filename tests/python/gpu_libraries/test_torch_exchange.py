"""PyTorch's tensors in a search: by DLPack's table of C functions, and by its
methods, as where PyTorch is too old to offer the table."""

import libraries
import numpy as np
import pytest
from small_search import K, QUERIES

TABLE = "__dlpack_c_exchange_api__"


@pytest.fixture(scope="session")
def library(faiss_ext):
    try:
        return libraries.load("torch")
    except libraries.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def tensors():
    """PyTorch's class of tensors, which offers the table."""
    import torch

    if TABLE not in vars(torch.Tensor):
        pytest.skip("this PyTorch offers no table (2.10 is the first)")
    return torch.Tensor


@pytest.fixture(params=["table", "methods"])
def way(request, tensors, monkeypatch):
    import torch

    if request.param == "methods":
        # A stand-in's class of tensors in host memory is another one.
        for offering in {tensors, type(torch.from_numpy(np.zeros(1, "float32")))}:
            monkeypatch.delattr(offering, TABLE)


@pytest.fixture
def x(library, queries):
    return library.to_gpu(queries)


@pytest.fixture
def outputs(library):
    return {
        "D": library.to_gpu(np.full((QUERIES, K), np.nan, "float32")),
        "I": library.to_gpu(np.full((QUERIES, K), -7, "int64")),
    }


def test_a_search_asks_the_table_alone(
    library, tensors, index, x, outputs, queries, expect_neighbours, monkeypatch
):
    def fail(self, *args, **options):
        raise AssertionError("asked for DLPack by a method")

    # The first one learns how the library makes results.
    index.search(x, K)
    monkeypatch.setattr(tensors, "__dlpack__", fail)
    monkeypatch.setattr(tensors, "__dlpack_device__", fail)
    for given in ({}, outputs):
        D, I = index.search(x, K, **given)
        expect_neighbours(library.to_host(D), library.to_host(I), queries)


def test_a_search_stands_in_the_order_of_the_current_stream(
    library, way, index, x, outputs, queries, expect_neighbours
):
    wrong = library.to_gpu(np.zeros_like(queries))
    y = library.to_gpu(np.zeros_like(queries))
    copies = {name: library.to_gpu(np.zeros_like(library.to_host(output)))
              for name, output in outputs.items()}
    with library.stream():
        for _ in range(100):
            library.overwrite(y, wrong)
        library.overwrite(y, x)
        index.search(y, K, **outputs)
        library.overwrite(y, wrong)
        for name, output in outputs.items():
            library.overwrite(copies[name], output)
        found = [library.to_host(copies[name]) for name in "DI"]
    expect_neighbours(*found, queries)


def test_queries_may_be_dropped_at_once(
    library, way, index, x, queries, expect_neighbours
):
    with library.stream():
        y = library.to_gpu(np.zeros_like(queries))
        for _ in range(100):
            library.overwrite(y, x)
        D, I = index.search(y, K)
        del y
        # PyTorch's allocator gives the memory of y to the next one that asks.
        others = [library.to_gpu(np.zeros_like(queries)) for _ in range(4)]
        found = library.to_host(D), library.to_host(I)
    expect_neighbours(*found, queries)
    del others


def test_tensors_that_record_gradients_are_refused(faiss_ext, way, index, x):
    with pytest.raises(
        faiss_ext.InvalidArray,
        match="^x: its __dlpack__ raised BufferError: .*require gradient",
    ):
        index.search(x.requires_grad_(), K)


def test_negated_views_are_refused(faiss_ext, way, index, x, outputs):
    import torch

    with pytest.raises(faiss_ext.InvalidArray, match=r"^x: .*is_neg\(\)"):
        index.search(torch._neg_view(x), K)
    outputs["D"] = torch._neg_view(outputs["D"])
    with pytest.raises(faiss_ext.InvalidArray, match=r"^D: .*is_neg\(\)"):
        index.search(x, K, **outputs)


def test_derived_tensors_are_searched_too(
    library, tensors, index, x, queries, expect_neighbours
):
    if not hasattr(x, "as_subclass"):
        pytest.skip("a stand-in")
    derived = x.as_subclass(type("Derived", (tensors,), {}))
    D, I = np.empty((QUERIES, K), "float32"), np.empty((QUERIES, K), "int64")
    index.search(derived, K, D=D, I=I)
    expect_neighbours(D, I, queries)


@pytest.fixture(params=["pageable", "pinned"])
def on_host(request, library):
    """Makes tensors in host memory of NumPy arrays."""
    import torch

    def make(values):
        tensor = torch.from_numpy(np.array(values))
        return tensor.pin_memory() if request.param == "pinned" else tensor

    return make


def test_tensors_in_host_memory_are_host_arrays(
    way, index, queries, on_host, expect_neighbours
):
    D = on_host(np.full((QUERIES, K), np.nan, "float32"))
    I = on_host(np.full((QUERIES, K), -7, "int64"))
    found = index.search(on_host(queries), K, D=D, I=I)
    assert found[0] is D and found[1] is I
    expect_neighbours(D.numpy(), I.numpy(), queries)
    D, I = index.search(on_host(queries), K)
    assert type(D) is type(I) is np.ndarray
    expect_neighbours(D, I, queries)


def test_tensors_in_host_memory_beside_those_on_the_gpu(
    library, way, index, x, outputs, queries, on_host, expect_neighbours
):
    D = on_host(np.full((QUERIES, K), np.nan, "float32"))
    I = on_host(np.full((QUERIES, K), -7, "int64"))
    index.search(x, K, D=D, I=I)
    expect_neighbours(D.numpy(), I.numpy(), queries)
    # The tensor is dropped at once.
    index.search(on_host(queries), K, **outputs)
    expect_neighbours(
        library.to_host(outputs["D"]), library.to_host(outputs["I"]), queries
    )
