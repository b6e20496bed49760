"""Pinned results: views on a bounded pool, lent again."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest


@pytest.fixture
def index(faiss_ext, resources, vectors):
    config = faiss_ext.StagedConfig()
    config.tune("mappedBytes", 1)  # few results, but copied
    index = faiss_ext.GpuIndexFlatL2(
        resources, 8, faiss_ext.GpuIndexFlatConfig(), config
    )
    index.add(vectors(200, 8, 1))
    return index


def test_results_are_written_by_the_gpu_where_they_are_read(
    faiss_ext, index, vectors, simulator
):
    queries = vectors(33, 8, 2)
    index.search(queries, 4)
    simulator.reset_counters()
    D, I = index.search(queries, 4)
    assert simulator.counter("copies_d2h_pinned") == 2
    assert simulator.counter("bytes_d2h_pinned") == 33 * 4 * 12
    assert simulator.waits() == 1
    assert D.base is not None and D.flags.writeable and D.flags.c_contiguous
    given = index.search(
        queries, 4, D=np.empty((33, 4), "float32"), I=np.empty((33, 4), "int64")
    )
    np.testing.assert_array_equal(D, given[0])
    np.testing.assert_array_equal(I, given[1])


def test_in_steady_state_nothing_is_allocated_or_pinned(
    faiss_ext, index, vectors, simulator
):
    queries = vectors(33, 8, 2)
    for _ in range(2):
        D, I = index.search(queries, 4)
    before = faiss_ext.pinned_pool_stats()["allocations"]
    simulator.reset_counters()
    addresses = set()
    for _ in range(20):
        D, I = index.search(queries, 4)
        addresses.add(I.ctypes.data)
    assert faiss_ext.pinned_pool_stats()["allocations"] == before
    assert simulator.counter("allocs_pinned") == 0
    assert simulator.counter("allocs_device") == 0
    # The results of one call die when the next ones take their names.
    assert len(addresses) == 2


def test_a_block_returns_when_the_last_view_dies(faiss_ext, index, vectors):
    D, I = index.search(vectors(33, 8, 2), 4)
    address = I.ctypes.data
    row = I[5]
    expected = row.copy()
    del D, I
    other = index.search(vectors(33, 8, 3), 4)
    assert other[1].ctypes.data != address
    np.testing.assert_array_equal(row, expected)
    del row
    gc.collect()
    again = index.search(vectors(33, 8, 4), 4)
    assert again[1].ctypes.data == address


def test_a_block_may_die_in_another_thread(faiss_ext, index, vectors):
    results = [index.search(vectors(33, 8, 2), 4)]
    thread = threading.Thread(target=results.clear)
    thread.start()
    thread.join()
    index.search(vectors(33, 8, 2), 4)


def test_results_keep_their_values_while_others_search(index, vectors):
    kept = [index.search(vectors(20, 8, seed), 3) for seed in range(30)]
    for seed, (D, I) in enumerate(kept):
        again = index.search(vectors(20, 8, seed), 3)
        np.testing.assert_array_equal(I, again[1])
        np.testing.assert_array_equal(D, again[0])


def test_pinned_empty_gives_pinned_arrays(faiss_ext, index, vectors, simulator):
    x = faiss_ext.pinned_empty((33, 8))
    assert x.dtype == np.float32 and x.shape == (33, 8)
    x[:] = vectors(33, 8, 2)
    D = faiss_ext.pinned_empty((33, 4), "float32")
    I = faiss_ext.pinned_empty((33, 4), np.int64)
    index.search(x, 4, D=D, I=I)
    simulator.reset_counters()
    index.search(x, 4, D=D, I=I)
    assert simulator.counter("bytes_h2d_pinned") == 33 * 8 * 4
    assert simulator.counter("copies_d2h_pinned") == 2
    assert faiss_ext.pinned_empty(5, "int32").shape == (5,)
    assert faiss_ext.pinned_empty((0, 4)).shape == (0, 4)
    with pytest.raises(ValueError, match="Python objects"):
        faiss_ext.pinned_empty(3, object)


def test_trim_unpins_what_no_array_uses(faiss_ext, simulator):
    kept = faiss_ext.pinned_empty(1 << 16, "uint8")
    del kept
    assert faiss_ext.pinned_pool_stats()["pinned_bytes"] >= 1 << 16
    held = faiss_ext.pinned_empty(1 << 12, "uint8")
    faiss_ext.trim()
    assert faiss_ext.pinned_pool_stats()["pinned_bytes"] >= held.nbytes
    del held
    faiss_ext.trim()
    assert faiss_ext.pinned_pool_stats()["pinned_bytes"] == 0


BOUNDED = """
import numpy as np, faiss_ext as faiss
assert faiss.pinned_pool_stats()["bound"] == 8192
index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), 8)
x = np.arange(1600, dtype="float32").reshape(200, 8)
index.add(x)
small = index.search(x[:50], 2)      # 1200 bytes: pinned
large = index.search(x, 100)         # 240000 bytes: beyond the bound
assert (large[1][:50, 0] == small[1][:, 0]).all()
assert faiss.pinned_pool_stats()["pinned_bytes"] <= 8192
a = faiss.pinned_empty(4096, "uint8")
try:
    faiss.pinned_empty(4096, "uint8")
except MemoryError as error:
    print(error)
"""


def test_beyond_the_bound_results_lie_in_ordinary_memory(monkeypatch):
    monkeypatch.setenv("FAISS_EXT_PINNED_BYTES", "8192")
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "FAISS_EXT_PINNED_BYTES" in done.stdout


def test_a_bound_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("FAISS_EXT_PINNED_BYTES", "lots")
    done = subprocess.run(
        [sys.executable, "-c",
         "import faiss_ext as f\ntry: f.trim()\nexcept ValueError as e: print(e)"],
        capture_output=True, text=True,
    )
    assert "'lots'; a number of bytes" in done.stdout, done.stderr


def test_blocks_alive_at_exit_do_no_harm():
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys, faiss_ext as f\n"
         "class K: pass\n"
         "sys.modules['kept'] = k = K(); k.me = k\n"
         "k.a = f.pinned_empty(100)\n"],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape, error, text", [
    ((-1, 3), ValueError, "negative"),
    ((-1, -3), ValueError, "negative"),
    (2**70, MemoryError, "bound"),
    (3.5, TypeError, "shape: 3.5"),
    ((2, "3"), TypeError, r"shape: \(2, '3'\)"),
])
def test_shapes_that_are_none_are_refused(faiss_ext, shape, error, text):
    before = faiss_ext.pinned_pool_stats()["pinned_bytes"]
    with pytest.raises(error, match=text):
        faiss_ext.pinned_empty(shape)
    assert faiss_ext.pinned_pool_stats()["pinned_bytes"] == before


def test_where_nothing_can_be_pinned_results_lie_in_ordinary_memory(
    faiss_ext, index, vectors, simulator
):
    queries = vectors(33, 8, 2)
    expected = index.search(queries, 4)
    faiss_ext.trim()
    simulator.fail_call("libfaiss_ext/cudaHostRegister", 1, 2)
    # More than any block that is idle.
    found = index.search(np.tile(queries, (100, 1)), 40)
    np.testing.assert_array_equal(found[1][:33, :4], expected[1])
    np.testing.assert_array_equal(found[0][:33, :4], expected[0])
