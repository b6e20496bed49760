"""Where `python -m faiss_ext knn` searches, with GPUs that are made up."""

from __future__ import annotations

import re
import subprocess
import sys
import types

import faiss
import numpy as np
import pytest

import faiss_ext
from faiss_ext import _gpus
from faiss_ext.cli import flat_index
from faiss_ext.cli.commands import knn

LIMIT = 8


class StockIndex(faiss.IndexFlat):
    """What Faiss' own GPU index is to the command."""

    made = []
    # Faiss lets no attribute be set that the class does not have.
    device = adds = None

    def __init__(self, resources, d, metric, config):
        if config.device == 3:
            raise RuntimeError("Error: 'e' failed: CUDA error 2 out of memory")
        super().__init__(d, metric)
        self.device = config.device
        self.adds = []
        StockIndex.made.append(self)

    def add(self, x):
        self.adds.append(len(x))
        super().add(x)

    def search(self, x, k):
        if k > LIMIT:
            raise RuntimeError(
                "Error in void faiss::gpu::validateKSelect(int) at x.cu:28: "
                f"Error: 'k > 0' failed: GPU index only supports up to {LIMIT}"
            )
        return super().search(x, k)


class NativeIndex(StockIndex):
    """What the project's own index is to the command."""

    def transfer_stats(self):
        return {"bytes_to_device": 1234, "bytes_to_host": 5_600_000_000}


@pytest.fixture
def gpus(monkeypatch):
    """Four GPUs; their index is StockIndex."""
    StockIndex.made.clear()
    for name, item in {
        "StandardGpuResources": object,
        "GpuIndexFlatConfig": types.SimpleNamespace,
        "GpuIndexFlat": StockIndex,
    }.items():
        monkeypatch.setattr(faiss_ext, name, item, raising=False)
    monkeypatch.setattr(flat_index, "gpu_count", lambda: (4, "4 GPUs found"))


@pytest.fixture
def run(cli, in_own_folder, rng):
    np.save("b.npy", rng.standard_normal((30, 4)).astype(np.float32))

    def run(*more, k=2):
        return cli(
            *("knn", "--base", "b.npy", "--query", "b.npy", "-k", k),
            *("--out", "r.npz", *more),
        )

    return run


def test_auto_takes_the_first_gpu_and_says_why(gpus, run):
    outcome = run()
    assert outcome.status == 0
    assert "searching on the GPU 0 (4 GPUs found)" in outcome.err
    assert [index.device for index in StockIndex.made] == [0]
    assert StockIndex.made[0].ntotal == 30


def test_a_gpu_is_taken_by_its_number(gpus, run):
    assert "GPU 2 (as asked for)" in run("--device", 2).out
    assert [index.device for index in StockIndex.made] == [2]


def test_the_cpu_can_be_asked_for_beside_gpus(gpus, run):
    assert "CPU" in run("--device", "cpu").out
    assert StockIndex.made == []


def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_why(
    gpus, run, monkeypatch
):
    monkeypatch.setattr(flat_index, "gpu_count", lambda: (0, "there is no GPU"))
    outcome = run()
    assert outcome.status == 0
    assert re.search(
        r"searching on the CPU.* \(there is no GPU\)", outcome.err
    )
    assert StockIndex.made == []


def test_auto_takes_the_cpu_for_a_k_that_the_gpu_refuses(gpus, run):
    outcome = run(k=LIMIT + 1)
    assert outcome.status == 0
    assert f"cannot return {LIMIT + 1} results" in outcome.err
    with np.load("r.npz") as arrays:
        assert arrays["labels"].shape == (30, LIMIT + 1)


def test_the_own_neighbour_counts_against_the_limit_of_k(gpus, run):
    assert "GPU 0" in run(k=LIMIT).out
    assert "GPU 0" in run("--exclude-self", k=LIMIT - 1).out
    assert "CPU" in run("--exclude-self", k=LIMIT).out


def test_a_k_that_the_gpu_asked_for_refuses_is_an_error(gpus, run):
    outcome = run("--device", 1, k=LIMIT + 1)
    assert outcome.status == 2
    assert outcome.err == (
        f"error: GPU 1 cannot return {LIMIT + 1} results a query: GPU index "
        f"only supports up to {LIMIT}\n"
    )
    assert [index.adds for index in StockIndex.made] == [[]]


def test_a_gpu_beyond_the_last_is_an_error(gpus, run):
    outcome = run("--device", 4)
    assert outcome.status == 2
    assert outcome.err == (
        "error: GPU 4 cannot be used: 4 GPUs found, numbered from 0\n"
    )


def test_a_gpu_that_cannot_be_used_is_an_error(gpus, run):
    outcome = run("--device", 3)
    assert outcome.status == 2
    assert outcome.err == (
        "error: GPU 3 cannot be used: CUDA error 2 out of memory\n"
    )


def test_a_gpu_gets_the_base_in_large_chunks(gpus, run, monkeypatch):
    monkeypatch.setattr(knn, "_CPU_BASE_BYTES", 16)
    monkeypatch.setattr(knn, "_GPU_BASE_BYTES", 20 * 16)
    assert run().status == 0
    assert StockIndex.made[0].adds == [20, 10]


def test_transfers_are_reported_where_they_are_counted(gpus, run, monkeypatch):
    assert "transfers  not counted by Faiss' own index" in run().out
    monkeypatch.setattr(faiss_ext, "GpuIndexFlat", NativeIndex)
    assert "transfers  1.23 kB to the device and 5.6 GB back, " in run().out


def test_a_faiss_without_gpu_support_has_none(monkeypatch):
    monkeypatch.setattr(_gpus, "faiss", types.SimpleNamespace())
    assert _gpus.gpu_count() == (
        0,
        "this Faiss is built for the CPU only",
    )


@pytest.fixture
def gpu_build(monkeypatch):
    """A Faiss with GPU support, which counts two GPUs."""
    fake = types.SimpleNamespace(StandardGpuResources=object)
    monkeypatch.setattr(_gpus, "faiss", fake)

    def counts(number):
        monkeypatch.setattr(_gpus, "_stock_get_num_gpus", number)

    counts(lambda: 2)
    return counts


def test_with_a_driver_faiss_counts(gpu_build, monkeypatch):
    monkeypatch.setattr(_gpus, "_driver_works", lambda: True)
    assert _gpus.gpu_count() == (2, "2 GPUs found")
    gpu_build(lambda: 1)
    assert _gpus.gpu_count() == (1, "1 GPU found")
    gpu_build(lambda: 0)
    assert _gpus.gpu_count() == (0, "there is no GPU")


def test_without_a_driver_another_process_counts(gpu_build, monkeypatch):
    def abort() -> int:
        raise AssertionError("this would have ended the process")

    gpu_build(abort)
    monkeypatch.setattr(_gpus, "_driver_works", lambda: False)
    run = subprocess.run
    scripts = iter(["print(1)", "import os; os.abort()"])
    monkeypatch.setattr(
        _gpus.subprocess,
        "run",
        lambda command, **options: run(
            [sys.executable, "-c", next(scripts)], **options
        ),
    )
    assert _gpus.gpu_count() == (1, "1 GPU found")
    assert _gpus.gpu_count() == (
        0,
        "the CUDA runtime finds no working driver",
    )


def test_the_other_process_asks_this_faiss():
    assert _gpus._count_elsewhere() == faiss.get_num_gpus()
