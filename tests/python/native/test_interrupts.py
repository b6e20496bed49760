"""Ctrl-C and other signals in the midst of a call: what the handler raised is
what the caller gets, soon, and the index answers afterwards."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time

import numpy as np
import pytest
from common_search import DIMS, K, N


class Stopped(Exception):
    """Raised by a handler: no KeyboardInterrupt, and no error of Faiss."""


@pytest.fixture
def staged(faiss_ext):
    """A config of which every call is a long one."""
    config = faiss_ext.StagedConfig()
    config.tune("secondsAhead", 1e-12)
    return config


@pytest.fixture
def index(faiss_ext, resources, staged, vectors):
    index = faiss_ext.GpuIndexFlatL2(
        resources, DIMS, faiss_ext.GpuIndexFlatConfig(), staged)
    index.add(vectors(200, DIMS, 1))
    # The exact engine tests the GPU once.
    index.search(vectors(1, DIMS, 2), K)
    return index


@pytest.fixture
def expected(faiss_ext, vectors):
    flat = faiss_ext.IndexFlatL2(DIMS)
    flat.add(vectors(200, DIMS, 1))
    return flat.search(vectors(N, DIMS, 2), K)


@contextlib.contextmanager
def handling(handler, number=signal.SIGINT):
    former = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, former)


@contextlib.contextmanager
def signalled(simulator, stream, exception=KeyboardInterrupt):
    """The GPU stands still while the block waits for it, and a signal comes:
    its handler lets the GPU go on, and raises. Without it the block would not
    end."""
    simulator.synchronize()
    simulator.reset_counters()
    simulator.hold(stream)
    handled = []

    def stop(number, frame):
        handled.append(number)
        simulator.release(stream)
        raise exception

    def send():
        while not simulator.searches():
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)

    with handling(stop):
        thread = threading.Thread(target=send)
        thread.start()
        try:
            with pytest.raises(exception) as raised:
                yield
        finally:
            simulator.release(stream)
            thread.join()
    assert handled and raised.value.__context__ is None
    assert simulator.pending() == 0


def check(index, x, expected):
    for found, wanted in zip(index.search(x, K), expected):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, Stopped])
@pytest.mark.parametrize("way", ["packed", "outputs", "converted", "labels"])
def test_a_signal_ends_a_search(
    simulator, index, vectors, expected, way, exception
):
    x = vectors(N, DIMS, 2)
    D, labels = np.empty((N, K), np.float32), np.empty((N, K), np.int64)
    ways = {
        "packed": lambda: index.search(x, K),
        "outputs": lambda: index.search(x, K, D=D, I=labels),
        # By Faiss' own Python code.
        "converted": lambda: index.search(x[:, ::-1][:, ::-1], K),
        "labels": lambda: index.assign(x, K),
    }
    with signalled(simulator, index.default_stream_c(), exception):
        ways[way]()
    check(index, x, expected)


def test_a_signal_ends_a_search_of_tiles_at_once(
    faiss_ext, simulator, resources, staged, vectors
):
    staged.tune("tileRows", 4)
    index = faiss_ext.GpuIndexFlatL2(
        resources, DIMS, faiss_ext.GpuIndexFlatConfig(), staged)
    index.add(vectors(200, DIMS, 1))
    x = vectors(N, DIMS, 2)
    with signalled(simulator, index.default_stream_c()):
        index.search(x, K)
    # Of ten tiles; one, if the signal comes before the next is enqueued.
    assert simulator.searches() in (1, 2)


def test_a_signal_ends_the_wait_for_another_threads_search(
    simulator, index, vectors, expected
):
    x = vectors(N, DIMS, 2)
    stream = index.default_stream_c()
    found = []
    simulator.reset_counters()
    simulator.hold(stream)
    other = threading.Thread(target=lambda: found.append(index.search(x, K)))
    other.start()
    while not simulator.searches():
        time.sleep(0.001)
    # The signal comes whether the search has begun or not.
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.05, signal.raise_signal, (signal.SIGINT,)).start()
        index.search(x, K)
    assert not found
    simulator.release(stream)
    other.join()
    for one, wanted in zip(found[0], expected):
        np.testing.assert_array_equal(one, wanted)
    check(index, x, expected)


@pytest.mark.parametrize("what", ["search", "knn_gpu"])
def test_a_search_in_a_handler_is_refused(
    faiss_ext, resources, simulator, index, vectors, expected, what
):
    x = vectors(N, DIMS, 2)
    stream = index.default_stream_c()
    refused = []

    def search_again(number, frame):
        simulator.release(stream)
        with pytest.raises(RuntimeError, match="from inside a call") as error:
            if what == "search":
                index.search(x, K)
            else:
                faiss_ext.knn_gpu(resources, x, x, K)
        refused.append(str(error.value))

    simulator.reset_counters()
    simulator.hold(stream)

    def send():
        while not simulator.searches():
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=send)
    with handling(search_again):
        thread.start()
        found = index.search(x, K)
        thread.join()
    assert len(refused) == 1
    for one, wanted in zip(found, expected):
        np.testing.assert_array_equal(one, wanted)


def test_the_collector_rests_while_a_handler_runs(
    faiss_ext, simulator, index, vectors, expected
):
    # What it destroys may need the lock of other resources. Also after a time
    # limit of newer Faiss', whose end puts the callback back.
    if hasattr(faiss_ext, "TimeoutGuard"):
        with faiss_ext.TimeoutGuard(1000):
            pass
    x = vectors(N, DIMS, 2)
    stream = index.default_stream_c()
    collecting = []

    def look(number, frame):
        collecting.append(gc.isenabled())
        simulator.release(stream)

    def send():
        while not simulator.searches():
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)

    simulator.reset_counters()
    simulator.hold(stream)
    thread = threading.Thread(target=send)
    with handling(look):
        thread.start()
        check(index, x, expected)
        thread.join()
    assert collecting == [False]
    assert gc.isenabled()


def test_a_signal_during_a_search_of_replicas_is_raised(
    faiss_ext, simulator, vectors, expected
):
    # Faiss searches them in threads of its own, and waits for these.
    simulator.library.cuda_sim_set_device_count(2)
    flat = faiss_ext.IndexFlatL2(DIMS)
    flat.add(vectors(200, DIMS, 1))
    index = faiss_ext.index_cpu_to_all_gpus(flat, ngpu=2)
    x = vectors(N, DIMS, 2)
    simulator.reset_counters()
    thread = threading.Thread(
        target=lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        for _ in range(1000):
            index.search(x, K)
            time.sleep(0.001)
    thread.join()
    check(index, x, expected)


def test_ctrl_c_ends_knn_in_the_midst_of_a_search(
    faiss_ext, simulator, staged, vectors, cli, monkeypatch
):
    np.save("b.npy", vectors(200, DIMS, 1))
    held = []

    def run_on_when_interrupted():
        stream = held[0]
        while not simulator.searches():
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)
        # Nothing but the end of an interrupted call waits for a stream.
        while not simulator.calls("cudaStreamSynchronize"):
            time.sleep(0.001)
        simulator.release(stream)

    class Watched(faiss_ext.GpuIndexFlat):
        def __init__(self, *arguments):
            super().__init__(*arguments, staged)

        def search(self, x, k):
            if len(x):
                simulator.synchronize()
                simulator.reset_counters()
                held.append(self.default_stream_c())
                simulator.hold(held[0])
                thread.start()
            return super().search(x, k)

    thread = threading.Thread(target=run_on_when_interrupted)
    monkeypatch.setattr(faiss_ext, "GpuIndexFlat", Watched)
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", K),
        *("--out", "r.npz", "--device", 0))
    thread.join()
    assert outcome.status == 130, outcome
    assert outcome.err.endswith("error: stopped by SIGINT\n")
    assert "Traceback" not in outcome.err
    assert os.listdir() == ["b.npy"]
