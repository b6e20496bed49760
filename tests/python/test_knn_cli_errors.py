"""`python -m faiss_ext knn`: what it refuses, and how."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import types

import faiss
import numpy as np
import pytest

import faiss_ext
from faiss_ext.cli.files import result_files
from faiss_ext.cli.commands import knn
from faiss_ext.cli.files.result_files import write_vecs


@pytest.fixture(autouse=True)
def files(in_own_folder, rng):
    """b.npy, 20 vectors, and q.npy, 5, of 4 dimensions; wide.npy of 6."""
    np.save("b.npy", rng.standard_normal((20, 4)).astype(np.float32))
    np.save("q.npy", rng.standard_normal((5, 4)).astype(np.float32))
    np.save("wide.npy", rng.standard_normal((5, 6)).astype(np.float32))


@pytest.fixture
def knn_refused(refused):
    """Run knn on b.npy and q.npy unless told otherwise; it has to fail."""

    def run(*more, base="b.npy", query="q.npy", k=3, out="r.npz"):
        return refused(
            *("knn", "--base", base, "--query", query, "-k", k),
            *("--out", out, *more),
        )

    return run


def test_the_job_that_the_tests_here_spoil_is_fine(cli):
    outcome = cli(
        "knn", "--base", "b.npy", "--query", "q.npy", "-k", 3, "--out", "r.npz"
    )
    assert outcome.status == 0


@pytest.mark.parametrize("which", ["base", "query"])
def test_a_missing_file(knn_refused, which):
    assert knn_refused(**{which: "no.npy"}) == (
        "error: no.npy: No such file or directory"
    )


@pytest.mark.parametrize("which", ["base", "query"])
def test_a_broken_file(knn_refused, which):
    with open("x.fvecs", "wb") as file:
        file.write(struct.pack("<i", 4) + bytes(15))
    assert "x.fvecs is truncated" in knn_refused(**{which: "x.fvecs"})


@pytest.mark.parametrize("which", ["base", "query"])
def test_a_row_of_another_dimension(knn_refused, which):
    write_vecs("x.fvecs", np.zeros((9, 4)))
    with open("x.fvecs", "r+b") as file:
        file.seek(6 * 20)
        file.write(struct.pack("<i", 3))
    text = knn_refused(**{which: "x.fvecs"})
    assert "x.fvecs has 3 dimensions in row 6, expected 4" in text


def test_a_file_of_another_kind(knn_refused):
    os.rename("b.npy", "b.txt")
    assert "suffix '.txt', expected one of" in knn_refused(base="b.txt")


def test_doubles(knn_refused):
    np.save("x.npy", np.zeros((3, 4)))
    assert "x.npy holds float64" in knn_refused(query="x.npy")


def test_different_dimensions(knn_refused):
    text = knn_refused(query="wide.npy")
    assert "b.npy has 4 dimensions and wide.npy has 6" in text


def test_an_empty_base(knn_refused):
    np.save("x.npy", np.zeros((0, 4), np.float32))
    assert "x.npy holds no vectors" in knn_refused(base="x.npy")


@pytest.mark.parametrize("chunk", [[], ["--chunk", 2]])
@pytest.mark.parametrize("which", ["base", "query", "both"])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_a_nan_is_told_with_its_row(knn_refused, which, chunk, dtype):
    x = np.ones((40, 4), dtype)
    x[5] = np.inf
    x[17, 2] = x[30, 0] = np.nan
    np.save("x.npy", x)
    names = ["base", "query"] if which == "both" else [which]
    text = knn_refused(*chunk, **dict.fromkeys(names, "x.npy"))
    assert "x.npy has a NaN in row 17" in text and "--nan" in text


def test_a_nan_in_a_later_chunk_of_the_base(knn_refused, monkeypatch):
    monkeypatch.setattr(knn, "_CPU_BASE_BYTES", 8 * 16)
    x = np.ones((40, 4), "f4")
    x[17, 2] = np.nan
    np.save("x.npy", x)
    assert "NaN in row 17" in knn_refused("--device", "cpu", base="x.npy")


def test_a_nan_in_the_queries_is_told_before_the_base_is_added(
    knn_refused, monkeypatch
):
    def add(*_: object) -> None:
        raise AssertionError("the base was added")

    monkeypatch.setattr(faiss_ext.IndexFlat, "add", add)
    np.save("x.npy", np.full((2, 4), np.nan, "f4"))
    assert "x.npy has a NaN in row 0" in knn_refused(
        "--device", "cpu", query="x.npy"
    )


@pytest.mark.parametrize("k", ["0", "-3", "2.5", "many", ""])
def test_a_k_that_is_no_count(knn_refused, k):
    text = knn_refused(k=k)
    assert "-k: expected a whole number of at least 1" in text


@pytest.mark.parametrize("chunk", ["0", "-1", "x"])
def test_a_chunk_that_is_no_count(knn_refused, chunk):
    assert "--chunk: expected a whole" in knn_refused("--chunk", chunk)


def test_a_k_beyond_the_vectors(knn_refused):
    text = knn_refused(k=21)
    assert "-k 21 is more than the 20 vectors in b.npy" in text and "--pad" in text
    text = knn_refused("--exclude-self", query="b.npy", k=20)
    assert "-k 20 is more than the 19 others in b.npy" in text


def test_roots_of_inner_products(knn_refused):
    text = knn_refused("--euclidean", "--metric", "ip")
    assert "--euclidean is for --metric l2, found --metric ip" in text


def test_a_number_beyond_float32(knn_refused):
    np.save("x.npy", np.full((3, 4), 1e39))
    assert "row 0 that is beyond float32" in knn_refused("--cast", base="x.npy")


@pytest.mark.parametrize("name, kind", [
    ("folder", "a folder"), ("pipe", "a pipe (FIFO)"),
    ("/dev/stdin", "standard input"), ("-", "standard input")])
@pytest.mark.parametrize("which", ["base", "query"])
def test_an_input_that_is_no_file(knn_refused, which, name, kind):
    os.mkdir("folder")
    os.mkfifo("pipe")
    assert f"error: {name} is {kind}, expected" in knn_refused(**{which: name})


@pytest.mark.parametrize("name, kind", [
    ("folder", "a folder"), ("/dev/stdout", "standard output"),
    ("-", "standard output")])
def test_an_output_that_is_no_file(knn_refused, name, kind):
    os.mkdir("folder")
    assert f"error: the output {name} is {kind}, expected" in knn_refused(out=name)


def test_exclude_self_of_two_files(knn_refused):
    text = knn_refused("--exclude-self")
    assert "same file, found b.npy and q.npy" in text


def test_an_unknown_metric(knn_refused):
    assert "invalid choice: 'cosin'" in knn_refused("--metric", "cosin")


@pytest.mark.parametrize("device", ["gpu", "-1", "0.5", ""])
def test_an_unknown_device(knn_refused, device):
    text = knn_refused(f"--device={device}")
    assert "expected auto, cpu or the number of a GPU" in text


def test_a_gpu_that_is_not_there(knn_refused, monkeypatch):
    monkeypatch.setattr("faiss_ext.cli.flat_index.gpu_count", lambda: (0, "none"))
    text = knn_refused("--device", 0)
    assert text == "error: GPU 0 cannot be used: none"


@pytest.mark.parametrize("missing", ["--base", "--query", "-k", "--out"])
def test_a_missing_argument(refused, missing):
    given = {"--base": "b.npy", "--query": "q.npy", "-k": 3, "--out": "r.npz"}
    del given[missing]
    flat = [item for pair in given.items() for item in pair]
    text = refused("knn", *flat)
    assert text.endswith("--help)") and missing in text


def test_no_command(refused):
    assert "COMMAND" in refused()


def test_an_unknown_command(refused):
    assert "invalid choice: 'find'" in refused("find")


def test_a_missing_output_folder(knn_refused):
    assert "there is no folder" in knn_refused(out="no/r.npz")


def test_an_output_of_another_kind(knn_refused):
    assert "'.csv', expected one of .npz, .ivecs" in knn_refused(out="r.csv")


@pytest.mark.parametrize("which", ["base", "query"])
def test_distances_that_would_replace_an_input(knn_refused, which):
    x = np.zeros((5, 4))
    write_vecs("x.fvecs", x)
    write_vecs("x.ivecs", x)
    text = knn_refused(**{which: "x.fvecs"}, out="x.ivecs")
    assert "the output x.fvecs would replace the input x.fvecs" in text


def test_an_output_folder_is_checked_before_the_search(
    knn_refused, monkeypatch
):
    def add(*_: object) -> None:
        raise AssertionError("the base was added")

    monkeypatch.setattr(faiss_ext.IndexFlat, "add", add)
    text = knn_refused("--device", "cpu", out="/proc/r.npz")
    assert "cannot write /proc/r.npz" in text


def test_too_little_space(knn_refused, monkeypatch):
    usage = types.SimpleNamespace(total=10, free=10)
    monkeypatch.setattr(result_files.shutil, "disk_usage", lambda _: usage)
    assert "the result takes 180 bytes" in knn_refused()


@pytest.mark.parametrize("out", ["r.npz", "r.ivecs"])
def test_a_disk_that_fills_up(cli_process, out):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    before = sorted(os.listdir())
    outcome = cli_process(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 20),
        *("--out", out),
        preexec_fn=limit,
    )
    assert outcome.status == 2
    full = {"r.npz": "r.npz", "r.ivecs": "r.fvecs"}[out]
    assert outcome.err.splitlines()[1:] == [
        f"error: cannot write {full}: File too large"
    ]
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_report_that_cannot_be_printed(cli_process, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        outcome = cli_process(
            *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 2),
            *("--out", "r.npz"),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert outcome.status == 2
    assert outcome.err.splitlines()[1:] == ["error: No space left on device"]


@pytest.mark.parametrize("function", ["add", "search"])
@pytest.mark.parametrize(
    "error, shown",
    [
        (MemoryError("std::bad_alloc"), "there is not enough memory"),
        (
            RuntimeError(
                "Error in void faiss::f() at /x/f.cpp:7: Error: 'a > b' "
                "failed: it is too\nlarge"
            ),
            "it is too large",
        ),
        (RuntimeError("something"), "something"),
    ],
)
def test_an_error_of_faiss_is_one_line(
    knn_refused, monkeypatch, function, error, shown
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(faiss.IndexFlat, function, fail)
    text = knn_refused("--device", "cpu")
    assert text.endswith(": " + shown)
    cause = {
        "add": "cannot hold 20 vectors of 4 dimensions",
        "search": "the search failed",
    }
    assert text.startswith(f"error: {cause[function]}: ")


def test_a_base_larger_than_memory(cli_process):
    with open("x.fbin", "wb") as file:  # 16 GiB, all of it a hole
        file.write(struct.pack("<II", 2**20, 2**12))
        file.truncate(8 + 2**34)
    before = sorted(os.listdir())
    outcome = cli_process(
        *("knn", "--base", "x.fbin", "--query", "x.fbin", "-k", 1),
        *("--out", "r.npz", "--device", "cpu"),
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_AS, (2**33, 2**33)
        ),
    )
    assert outcome.status == 2
    assert outcome.err.splitlines()[1:] == [
        "error: cannot hold 1048576 vectors of 4096 dimensions: there is not "
        "enough memory"
    ]
    assert sorted(os.listdir()) == before
