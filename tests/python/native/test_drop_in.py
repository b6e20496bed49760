"""`import faiss_ext as faiss`: everything of Faiss, our GPU classes in place."""

import inspect
import threading

import faiss as stock
import numpy as np
import pytest

from faiss_ext._index import decisions


def test_replaces_what_takes_arrays_or_returns_indexes_and_nothing_else(faiss_ext):
    different = {
        name: getattr(stock, name)
        for name in dir(stock)
        if not name.startswith("_")
        and getattr(faiss_ext, name) is not getattr(stock, name)
    }
    functions = {n for n, member in different.items() if not inspect.isclass(member)}
    assert functions == {
        name for name in (
            "downcast_index", "get_num_gpus", "index_binary_cpu_to_gpu",
            "index_binary_cpu_to_gpu_multiple", "index_cpu_to_all_gpus",
            "index_cpu_to_gpu", "index_cpu_to_gpu_multiple",
            "index_cpu_to_gpu_multiple_py", "index_cpu_to_gpus_list", "knn_gpu",
            "pairwise_distance_gpu", "write_index", "write_index_binary",
            *decisions.BRUTE_FORCE, *decisions.INDEX_FUNCTIONS, *decisions.FUNCTIONS,
        ) if hasattr(stock, name)
    }
    for name, theirs in different.items():
        if name in functions:
            continue
        ours = getattr(faiss_ext, name)
        assert issubclass(ours, theirs) and ours.__name__ == theirs.__name__
        # The parts of it that are ours, and nothing that Faiss added elsewhere.
        assert theirs.__module__.startswith("faiss.")
    every_index = {
        name for name, member in vars(stock).items()
        if inspect.isclass(member)
        and issubclass(member, (stock.Index, stock.IndexBinary, stock.VectorTransform))
    }
    assert every_index <= different.keys()
    assert not different.keys() & {
        "SearchParameters", "GpuIndexFlatConfig", "DirectMap"}


@pytest.mark.parametrize("name", ["GpuIndexFlatL2", "GpuIndexFlatIP"])
def test_an_index_is_an_instance_of_our_classes_and_of_the_stock_ones(
    faiss_ext, resources, name
):
    index = getattr(faiss_ext, name)(resources, 8)
    for module in (faiss_ext, stock):
        for base in (name, "GpuIndexFlat", "GpuIndex", "Index"):
            assert isinstance(index, getattr(module, base)), (module, base)
    assert isinstance(
        faiss_ext.GpuIndexFlat(resources, 8, faiss_ext.METRIC_L1),
        stock.GpuIndexFlat,
    )


@pytest.mark.parametrize("metric", ["L2", "IP"])
@pytest.mark.parametrize("float16", [False, True])
def test_search_equals_the_cpu_index(
    faiss_ext, resources, vectors, metric, float16
):
    cpu = getattr(stock, f"IndexFlat{metric}")(16)
    config = faiss_ext.GpuIndexFlatConfig()
    config.useFloat16 = float16
    gpu = getattr(faiss_ext, f"GpuIndexFlat{metric}")(resources, 16, config)
    base, queries = vectors(300, 16, 1), vectors(70, 16, 2)
    for index in (cpu, gpu):
        index.add(base)
    assert gpu.ntotal == 300
    np.testing.assert_array_equal(
        gpu.search(queries, 5)[0], cpu.search(queries, 5)[0]
    )
    np.testing.assert_array_equal(gpu.reconstruct(17), base[17])
    np.testing.assert_array_equal(gpu.reconstruct_n(3, 40), base[3:43])
    np.testing.assert_array_equal(gpu.reconstruct_n(), base)
    labels = gpu.assign(queries, 1)
    assert labels.shape == (70, 1)
    np.testing.assert_array_equal(labels, gpu.search(queries, 1)[1])


def test_transfer_stats_tell_what_the_simulator_saw(
    faiss_ext, resources, vectors, simulator
):
    config = faiss_ext.StagedConfig()
    config.search = "faiss"
    config.tune("mappedBytes", 1)  # few results, but copied
    index = faiss_ext.GpuIndexFlatL2(
        resources, 8, faiss_ext.GpuIndexFlatConfig(), config
    )
    index.add(vectors(50, 8, 1))
    queries = vectors(33, 8, 2)
    index.search(queries, 4)
    simulator.reset_counters()
    index.reset_transfer_stats()
    index.search(queries, 4)
    stats = index.transfer_stats()
    assert stats == {
        "copies_to_device": 1,
        "bytes_to_device": 33 * 8 * 4,
        "copies_to_host": 2,
        "bytes_to_host": 33 * 4 * 12,
        "copies_across_devices": 0,
        "bytes_across_devices": 0,
        "host_waits": 1,
        "device_allocations": 0,
        "pinned_allocations": 0,
        "certified_queries": 0,
        "widened_queries": 0,
        "last_path_queries": 0,
        "searched_by": "Faiss' kernels",
    }
    assert simulator.bytes_up() == stats["bytes_to_device"]
    assert simulator.bytes_down() == stats["bytes_to_host"]
    assert simulator.waits() == 1


def test_faiss_errors_are_runtime_errors_with_faiss_text(
    faiss_ext, resources, vectors
):
    index = faiss_ext.GpuIndexFlatL2(resources, 8)
    index.add(vectors(50, 8, 1))
    with pytest.raises(RuntimeError, match="min/max-K selection up to"):
        index.search(vectors(3, 8, 2), 100000)
    with pytest.raises(RuntimeError, match="Invalid number of dimensions"):
        faiss_ext.GpuIndexFlatL2(resources, 0)
    with pytest.raises(RuntimeError, match="out of bounds"):
        index.reconstruct(50)
    with pytest.raises(RuntimeError, match="selected ids"):
        index.search(
            vectors(3, 8, 2),
            4,
            params=faiss_ext.SearchParameters(
                sel=faiss_ext.IDSelectorRange(0, 10)
            ),
        )


def test_cuda_errors_are_runtime_errors_and_pass(
    faiss_ext, resources, vectors, simulator
):
    index = faiss_ext.GpuIndexFlatL2(resources, 8)
    index.add(vectors(50, 8, 1))
    queries = vectors(9, 8, 2)
    expected = index.search(queries, 4)
    # (What is no lack of memory: that is tried again.)
    simulator.fail_call("cudaMemcpyAsync", 1, 1)
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue"):
        index.search(queries, 4)
    np.testing.assert_array_equal(index.search(queries, 4)[1], expected[1])


def test_a_search_releases_the_interpreter_lock(
    faiss_ext, resources, vectors, simulator
):
    index = faiss_ext.GpuIndexFlatL2(resources, 8)
    index.add(vectors(50, 8, 1))
    queries = vectors(9, 8, 2)
    expected = index.search(queries, 4)
    stream = index.default_stream_c()
    simulator.hold(stream)
    results = []
    caller = threading.Thread(
        target=lambda: results.append(index.search(queries, 4))
    )
    waited = simulator.waits()
    caller.start()
    # This loop runs only if the waiting search does not hold the lock.
    while simulator.waits() == waited:
        assert caller.is_alive()
    assert not results
    simulator.release(stream)
    caller.join()
    np.testing.assert_array_equal(results[0][1], expected[1])


def test_threads_share_an_index(faiss_ext, resources, vectors):
    index = faiss_ext.GpuIndexFlatL2(resources, 8)
    index.add(vectors(200, 8, 1))
    cpu = stock.IndexFlatL2(8)
    cpu.add(vectors(200, 8, 1))
    wrong = []

    def work(seed):
        queries = vectors(30, 8, seed)
        for _ in range(5):
            if not np.array_equal(
                index.search(queries, 3)[0], cpu.search(queries, 3)[0]
            ):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_index_cpu_to_gpu_gives_our_class_and_index_gpu_to_cpu_takes_it(
    faiss_ext, resources, vectors
):
    base = vectors(60, 8, 1)
    cpu = faiss_ext.IndexFlatIP(8)
    cpu.add(base)
    gpu = faiss_ext.index_cpu_to_gpu(resources, 0, cpu)
    assert type(gpu) is faiss_ext.GpuIndexFlat
    assert gpu.metric_type == faiss_ext.METRIC_INNER_PRODUCT
    gpu.transfer_stats()
    back = faiss_ext.index_gpu_to_cpu(gpu)
    np.testing.assert_array_equal(back.reconstruct_n(0, 60), base)
    del gpu
    assert type(
        faiss_ext.downcast_index(
            faiss_ext.index_cpu_to_gpu(resources, 0, back)
        )
    ) is faiss_ext.GpuIndexFlat


def test_other_indexes_are_cloned_by_faiss_with_our_flat_ones_inside(
    faiss_ext, resources, vectors
):
    base = vectors(60, 8, 1)
    cpu = faiss_ext.IndexPreTransform(
        faiss_ext.RandomRotationMatrix(8, 8), faiss_ext.IndexFlatL2(8)
    )
    cpu.train(base)
    cpu.add(base)
    gpu = faiss_ext.index_cpu_to_gpu(resources, 0, cpu)
    assert isinstance(gpu, faiss_ext.IndexPreTransform)
    assert type(faiss_ext.downcast_index(gpu.index)) is faiss_ext.GpuIndexFlat
    np.testing.assert_allclose(
        gpu.search(base[:5], 3)[0], cpu.search(base[:5], 3)[0],
        rtol=1e-5, atol=1e-4,
    )


def test_clones_leave_swigs_type_table_alone(faiss_ext, resources, vectors):
    # SWIG's modules share one table of types and count who needs it; a proxy
    # that gives back a reference it never took pulls the table from under all.
    import sys

    (table,) = (
        module.type_pointer_capsule
        for name, module in sys.modules.items()
        if name.startswith("swig_runtime_data") and "." not in name
    )
    cpu = faiss_ext.IndexFlatL2(8)
    cpu.add(vectors(60, 8, 1))
    before = sys.getrefcount(table)
    for _ in range(3):
        faiss_ext.index_cpu_to_gpus_list(cpu, gpus=[0, 0])
        faiss_ext.index_cpu_to_gpu(resources, 0, cpu)
    assert sys.getrefcount(table) == before


def test_a_clone_frees_its_gpu_memory_when_it_dies(
    faiss_ext, resources, vectors, simulator
):
    cpu = faiss_ext.IndexFlatL2(8)
    cpu.add(vectors(60, 8, 1))
    for make in (
        lambda: faiss_ext.index_cpu_to_gpu(resources, 0, cpu),
        lambda: faiss_ext.index_cpu_to_gpus_list(cpu, gpus=[0, 0]),
    ):
        before = simulator.counter("live_device")
        clone = make()
        assert simulator.counter("live_device") > before
        del clone
        assert simulator.counter("live_device") == before


def test_copy_from_and_copy_to(faiss_ext, resources, vectors):
    base = vectors(60, 8, 1)
    cpu = faiss_ext.IndexFlatL2(8)
    cpu.add(base)
    for gpu in (
        faiss_ext.GpuIndexFlatL2(resources, cpu),
        faiss_ext.GpuIndexFlatL2(resources, 8),
    ):
        gpu.copyFrom(cpu)
        back = faiss_ext.IndexFlatL2(8)
        gpu.copyTo(back)
        np.testing.assert_array_equal(back.reconstruct_n(0, 60), base)


class BinaryCloner:
    """In the place of Faiss' functions for binary indexes, which Faiss 1.7.3
    lacks."""

    def __init__(self, faiss_ext):
        self.faiss_ext, self.calls = faiss_ext, []

    def __call__(self, *args):
        self.calls.append(args)
        return self.faiss_ext.IndexBinaryFlat(16)


def test_binary_indexes_go_to_faiss_own_functions(
    faiss_ext, resources, monkeypatch
):
    from faiss_ext._index import cloning

    one, several = BinaryCloner(faiss_ext), BinaryCloner(faiss_ext)
    monkeypatch.setattr(cloning, "_stock_binary_cloners", {
        "index_binary_cpu_to_gpu": one, "index_binary_cpu_to_gpu_multiple": several})
    cpu = faiss_ext.IndexBinaryFlat(16)
    options = faiss_ext.GpuMultipleClonerOptions()
    made = [
        faiss_ext.index_cpu_to_gpu(resources, 0, cpu),
        faiss_ext.index_cpu_to_all_gpus(cpu, options, ngpu=1),
        faiss_ext.index_cpu_to_gpus_list(cpu, options, gpus=[0, 0]),
        faiss_ext.index_cpu_to_gpu_multiple_py([resources], cpu, options),
    ]
    assert all(type(index) is faiss_ext.IndexBinaryFlat for index in made)
    assert one.calls == [(resources, 0, cpu, None)]
    assert [
        (args[0].size(), args[1].size(), args[2:]) for args in several.calls
    ] == [(n, n, (cpu, options)) for n in (1, 2, 1)]
    with pytest.raises(faiss_ext.InvalidDevice):
        faiss_ext.index_cpu_to_gpu(resources, 99, cpu)
    with pytest.raises(faiss_ext.InvalidDevice):
        faiss_ext.index_cpu_to_all_gpus(cpu, ngpu=0)


def test_binary_indexes_where_faiss_lacks_the_functions(
    faiss_ext, resources, monkeypatch
):
    from faiss_ext._index import cloning

    monkeypatch.setattr(cloning, "_stock_binary_cloners", {
        "index_binary_cpu_to_gpu": None, "index_binary_cpu_to_gpu_multiple": None})
    for make in (
        lambda index: faiss_ext.index_cpu_to_gpu(resources, 0, index),
        lambda index: faiss_ext.index_cpu_to_all_gpus(index, ngpu=1),
    ):
        with pytest.raises(
            TypeError, match="^index: IndexBinaryFlat; .*GpuIndexBinaryFlat"
        ):
            make(faiss_ext.IndexBinaryFlat(16))
