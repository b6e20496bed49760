"""`python -m faiss_ext knn`: its results."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import faiss_ext
from conftest import package_environment
from faiss_ext.cli.commands import knn
from faiss_ext.cli.files.result_files import ResultFile, write_vecs


def load(path: str = "r.npz") -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        return arrays["distances"], arrays["labels"]


def oracle(
    base: np.ndarray, query: np.ndarray, metric: str, own: bool = True
) -> np.ndarray:
    """All distances in float64, [queries, base], the nearest smallest;
    without `own`, the diagonal is infinitely far."""
    base, query = base.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        base, query = (
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
            for x in (base, query)
        )
    if metric != "l2":
        score = -query @ base.T
    else:
        score = ((query[:, None] - base[None]) ** 2).sum(axis=2)
    if not own:
        np.fill_diagonal(score, np.inf)
    return score


def check(score: np.ndarray, k: int, metric: str) -> None:
    """Compare r.npz with the oracle, in a way that allows any order of
    neighbours of equal distance."""
    distances, labels = load()
    assert distances.shape == labels.shape == (len(score), k)
    assert all(len(set(row)) == k for row in labels.tolist())
    sign = 1 if metric == "l2" else -1
    nearest = np.sort(score, axis=1)[:, :k]
    of_labels = np.take_along_axis(score, labels, axis=1)
    np.testing.assert_allclose(of_labels, nearest, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sign * distances, nearest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("chunk", [None, 1, 7, 30, 31, 1000])
def test_results_are_those_of_brute_force(cli, rng, metric, chunk):
    base = rng.standard_normal((200, 12)).astype(np.float32)
    query = rng.standard_normal((31, 12)).astype(np.float32)
    write_vecs("b.fvecs", base)
    np.save("q.npy", query)
    more = [] if chunk is None else ["--chunk", chunk]
    outcome = cli(
        *("knn", "--base", "b.fvecs", "--query", "q.npy", "-k", 6),
        *("--out", "r.npz", "--metric", metric, "--device", "cpu", *more),
    )
    assert outcome.status == 0
    check(oracle(base, query, metric), 6, metric)
    assert sorted(os.listdir()) == ["b.fvecs", "q.npy", "r.npz"]


def test_similarities_of_vectors_of_any_length(cli):
    np.save("b.npy", np.array([[1e30, 0], [0, 0], [-1e-40, 0]], "float32"))
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 3),
        *("--out", "r.npz", "--metric", "cosine", "--device", "cpu"),
    )
    assert outcome.status == 0 and "cosine similarity" in outcome.out
    distances, labels = load()
    assert distances.tolist() == [[1, 0, -1], [0, 0, 0], [1, 0, -1]]
    assert labels[[0, 2]].tolist() == [[0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize("rows", [1, 3, 199, 200, 201])
def test_the_base_may_come_in_any_chunks(cli, rng, monkeypatch, rows):
    monkeypatch.setattr(knn, "_CPU_BASE_BYTES", rows * 4 * 12)
    base = rng.standard_normal((200, 12)).astype(np.float32)
    np.save("b.npy", base)
    np.save("q.npy", base[:9])
    cli(
        *("knn", "--base", "b.npy", "--query", "q.npy", "-k", 4),
        *("--out", "r.npz", "--device", "cpu"),
    )
    check(oracle(base, base[:9], "l2"), 4, "l2")


def test_bytes_are_searched_as_their_numbers(cli, rng):
    base = rng.integers(0, 256, (90, 5)).astype(np.uint8)
    with open("b.u8bin", "wb") as file:
        file.write(struct.pack("<II", 90, 5) + base.tobytes())
    np.save("q.npy", base[:20].astype(np.float16))
    cli(
        "knn",
        "--base",
        "b.u8bin",
        "--query",
        "q.npy",
        "-k",
        3,
        "--out",
        "r.npz",
    )
    check(oracle(base, base[:20], "l2"), 3, "l2")


def test_ivecs_and_fvecs_hold_what_npz_holds(cli, rng):
    np.save("b.npy", rng.standard_normal((50, 4)).astype(np.float32))
    job = ["knn", "--base", "b.npy", "--query", "b.npy", "-k", 3, "--out"]
    assert cli(*job, "r.npz").status == 0
    assert cli(*job, "r.ivecs", "--chunk", 20).status == 0
    distances, labels = load()
    heads_and_labels = np.fromfile("r.ivecs", "<i4").reshape(50, 4)
    np.testing.assert_array_equal(heads_and_labels[:, 0], 3)
    np.testing.assert_array_equal(heads_and_labels[:, 1:], labels)
    beside = np.fromfile("r.fvecs", "<f4").reshape(50, 4)[:, 1:]
    np.testing.assert_allclose(beside, distances, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("chunk", [None, 13])
def test_a_vector_is_not_its_own_neighbour(cli, rng, metric, chunk):
    base = rng.standard_normal((60, 8)).astype(np.float32)
    np.save("b.npy", base)
    more = [] if chunk is None else ["--chunk", chunk]
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 5),
        *("--out", "r.npz", "--exclude-self", "--metric", metric, *more),
    )
    assert outcome.status == 0
    assert not (load()[1] == np.arange(60)[:, None]).any()
    check(oracle(base, base, metric, own=False), 5, metric)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_vector_among_its_duplicates_is_not_its_own_neighbour(cli, metric):
    base = np.repeat(np.eye(4, dtype=np.float32), 25, axis=0)
    np.save("b.npy", base)
    cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 3),
        *("--out", "r.npz", "--exclude-self", "--metric", metric),
    )
    assert not (load()[1] == np.arange(100)[:, None]).any()
    check(oracle(base, base, metric, own=False), 3, metric)


def test_without_exclude_self_a_vector_is_its_own_neighbour(cli, rng):
    np.save("b.npy", rng.standard_normal((40, 8)).astype(np.float32))
    cli(
        "knn", "--base", "b.npy", "--query", "b.npy", "-k", 1, "--out", "r.npz"
    )
    np.testing.assert_array_equal(load()[1][:, 0], np.arange(40))


def test_a_link_to_the_base_is_the_same_file(cli, rng):
    np.save("b.npy", rng.standard_normal((40, 8)).astype(np.float32))
    os.symlink("b.npy", "q.npy")
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "q.npy", "-k", 2),
        *("--out", "r.npz", "--exclude-self"),
    )
    assert outcome.status == 0
    assert not (load()[1] == np.arange(40)[:, None]).any()


@given(
    st.integers(1, 8).flatmap(
        lambda width: st.lists(
            st.permutations(range(-1, width + 1)).map(lambda p: p[:width]),
            min_size=1,
            max_size=12,
        )
    )
)
def test_taking_out_the_own_label_is_what_a_loop_would_do(rows):
    labels = np.array(rows, dtype=np.int64)
    distances = np.arange(labels.size, dtype=np.float32).reshape(labels.shape)
    own = np.arange(len(rows)) % (labels.shape[1] + 1)
    got = knn._without(own, distances, labels)
    for i, row in enumerate(rows):
        kept = [j for j, label in enumerate(row) if label != own[i]]
        kept = kept[: len(row) - 1]
        assert got[1][i].tolist() == [row[j] for j in kept]
        assert got[0][i].tolist() == distances[i, kept].tolist()


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_more_neighbours_than_vectors_get_the_label_minus_one_where_asked_for(
    cli, rng, exclude, metric
):
    base = rng.standard_normal((6, 3)).astype(np.float32)
    np.save("b.npy", base)
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 8, "--pad"),
        *("--out", "r.npz", "--metric", metric, *["--exclude-self"] * exclude),
    )
    assert outcome.status == 0
    real = 6 - exclude
    distances, labels = load()
    assert (labels[:, real:] == -1).all() and (labels[:, :real] >= 0).all()
    for i, row in enumerate(labels[:, :real]):
        assert sorted(row) == [j for j in range(6) if j != i or not exclude]
    sign = 1 if metric == "l2" else -1
    assert (distances[:, real:] == sign * np.finfo("float32").max).all()


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_other_numbers_are_cast_where_asked_for(cli, rng, dtype):
    base = (rng.standard_normal((40, 6)) * 9).astype(dtype)
    np.save("b.npy", base)
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 3, "--cast"),
        *("--out", "r.npz", "--device", "cpu"),
    )
    assert outcome.status == 0, outcome.err
    check(oracle(base, base, "l2"), 3, "l2")


def test_euclidean_distances_are_roots(cli, rng):
    base = rng.standard_normal((30, 4)).astype(np.float32)
    base[7] = base[3]
    np.save("b.npy", base)
    job = ["knn", "--base", "b.npy", "--query", "b.npy", "-k", 31, "--pad",
           "--out", "r.npz"]
    assert cli(*job).status == 0
    squares, labels = load()
    outcome = cli(*job, "--euclidean")
    assert outcome.status == 0
    assert outcome.out.splitlines()[0].endswith("k = 31, Euclidean distance")
    roots, same = load()
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_array_equal(
        roots[:, :30], np.sqrt(np.maximum(squares[:, :30], 0)))
    assert (roots[:, 30] == np.finfo("float32").max).all()


def test_a_distance_that_is_rounded_below_nothing_has_a_root():
    with np.errstate(invalid="raise"):
        roots = knn._roots(
            np.array([[-1e-7, 4.0]], "float32"), np.array([[0, 1]]))
    assert roots.tolist() == [[0, 2]] and roots.dtype == np.float32


def test_exactly_as_many_neighbours_as_vectors_need_no_padding(cli, rng):
    np.save("b.npy", rng.standard_normal((6, 3)).astype(np.float32))
    job = ["knn", "--base", "b.npy", "--query", "b.npy", "--out", "r.npz"]
    assert cli(*job, "-k", 6).status == 0
    assert cli(*job, "-k", 5, "--exclude-self").status == 0
    assert (load()[1] >= 0).all()


@pytest.mark.parametrize("out", ["r.npz", "r.ivecs"])
def test_no_queries_make_an_empty_result(cli, rng, out):
    np.save("b.npy", rng.standard_normal((6, 3)).astype(np.float32))
    np.save("q.npy", np.zeros((0, 3), np.float32))
    outcome = cli(
        "knn", "--base", "b.npy", "--query", "q.npy", "-k", 2, "--out", out
    )
    assert outcome.status == 0 and outcome.out.startswith("0 queries, 6 vec")
    if out == "r.npz":
        assert load()[0].shape == load()[1].shape == (0, 2)
    else:
        assert os.path.getsize(out) == os.path.getsize("r.fvecs") == 0


def test_infinity_is_taken(cli):
    np.save("b.npy", np.array([[0, 1], [np.inf, 1], [2, 2]], np.float32))
    np.save("q.npy", np.array([[0, 0]], np.float32))
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "q.npy", "-k", 2),
        *("--out", "r.npz", "--device", "cpu"),
    )
    assert outcome.status == 0
    np.testing.assert_array_equal(load()[1], [[0, 2]])


def test_infinities_of_both_signs_are_no_nan(cli):
    np.save("b.npy", np.array([[np.inf, -np.inf], [0, 1]], np.float32))
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 1),
        *("--out", "r.npz", "--device", "cpu"),
    )
    assert outcome.status == 0


def test_nan_that_is_allowed_neighbours_nothing(cli, rng):
    base = rng.standard_normal((30, 4)).astype(np.float32)
    query = base[:5].copy()
    base[3, 1] = query[2, 0] = np.nan
    np.save("b.npy", base)
    np.save("q.npy", query)
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "q.npy", "-k", 4),
        *("--out", "r.npz", "--nan", "allow", "--device", "cpu"),
    )
    assert outcome.status == 0
    labels = load()[1]
    assert (labels[2] == -1).all() and not (labels == 3).any()
    assert (np.delete(labels, 2, axis=0) >= 0).all()


def test_the_report_tells_what_was_done(cli, rng):
    np.save("b.npy", rng.standard_normal((30, 4)).astype(np.float32))
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 4),
        *("--out", "r.ivecs", "--device", "cpu"),
    )
    lines = outcome.out.splitlines()
    assert lines[0] == (
        "30 queries, 30 vectors of 4 dimensions, k = 4, squared L2 distance"
    )
    report = dict(line.strip().split(maxsplit=1) for line in lines[1:])
    assert report["device"].startswith("CPU, ")
    assert report["device"].endswith("(as asked for)")
    assert report["Faiss"] == (
        f"{faiss.__version__}, faiss_ext {faiss_ext.__version__}"
    )
    for part in ("preparing", "reading", "adding", "writing"):
        assert re.fullmatch(r"\d+\.\d{3} s", report[part])
    assert re.fullmatch(
        r"\d+\.\d{3} s, \d+ queries a second", report["searching"]
    )
    assert report["transfers"].startswith("none")
    assert report["result"] == "r.fvecs and r.ivecs"


def test_away_from_a_terminal_a_short_job_prints_two_lines_at_most(
    cli_process, rng
):
    np.save("b.npy", rng.standard_normal((30, 4)).astype(np.float32))
    outcome = cli_process(
        "knn", "--base", "b.npy", "--query", "b.npy", "-k", 4, "--out", "r.npz"
    )
    assert outcome.status == 0
    assert re.fullmatch(r"searching on the .*\n", outcome.err)


@pytest.mark.parametrize("columns, rows", [
    (0, 24), (1, 24), (100, 24), (100, 0), (100, 1), (100, 2), (0, 0)])
def test_on_a_terminal_a_bar_shows_rate_and_time_left(
    cli_process, rng, monkeypatch, columns, rows
):
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    np.save("b.npy", rng.standard_normal((300, 4)).astype(np.float32))
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", rows, columns, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    shown = bytearray()

    def collect() -> None:
        try:
            while part := os.read(ours, 4096):
                shown.extend(part)
        except OSError:  # how the end of a terminal is told
            pass

    reader = threading.Thread(target=collect)
    reader.start()
    outcome = cli_process(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 4),
        *("--out", "r.npz", "--chunk", 30),
        stdout=-1,
        stderr=theirs,
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert outcome.status == 0 and outcome.out.startswith("300 queries")
    assert b"adding: 100%" in shown
    assert re.search(
        rb"searching:  50%.* 150/300 \[.*<.*, .*queries/s\]", bytes(shown)
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("out", ["r.npz", "r.ivecs"])
def test_a_signal_while_writing_ends_the_job_with_nothing_left(
    cli, rng, monkeypatch, number, out
):
    np.save("b.npy", rng.standard_normal((30, 4)).astype(np.float32))
    write = ResultFile.write

    def interrupted(self: ResultFile, *results: np.ndarray) -> None:
        write(self, *results)
        assert len(os.listdir()) > 1
        signal.raise_signal(number)

    monkeypatch.setattr(ResultFile, "write", interrupted)
    handler = signal.getsignal(number)
    outcome = cli(
        "knn", "--base", "b.npy", "--query", "b.npy", "-k", 4, "--out", out
    )
    assert outcome.status == 128 + number
    assert outcome.err.endswith(f"error: stopped by {number.name}\n")
    assert os.listdir() == ["b.npy"]
    assert signal.getsignal(number) is handler


def test_a_signal_during_the_search_ends_the_job_soon(cli, rng, monkeypatch):
    # Minutes of work in one call of Faiss, which is stopped within it.
    monkeypatch.setattr(knn, "_CPU_PRODUCTS", 10**15)
    np.save("b.npy", rng.standard_normal((150_000, 64)).astype(np.float32))
    entered = threading.Event()
    flat = faiss_ext.IndexFlat

    class Watched(flat):
        def search(self, x: np.ndarray, k: int) -> object:
            threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,)).start()
            entered.set()
            return super().search(x, k)

    monkeypatch.setattr(faiss_ext, "IndexFlat", Watched)
    outcome = cli(
        *("knn", "--base", "b.npy", "--query", "b.npy", "-k", 4),
        *("--out", "r.npz", "--device", "cpu"),
    )
    assert entered.is_set()
    assert outcome.status == 130, outcome
    assert outcome.err.endswith("error: stopped by SIGINT\n")
    assert os.listdir() == ["b.npy"]


def test_names_that_are_no_text_are_taken(cli_process):
    name = os.fsdecode(b"\xff.npy")
    np.save(name, np.zeros((3, 4), np.float32))
    outcome = cli_process(
        *("knn", "--base", name, "--query", name, "-k", 1),
        *("--out", os.fsdecode(b"\xff.npz")),
    )
    assert outcome.status == 0, outcome.err
    assert sorted(os.listdir(b".")) == [b"\xff.npy", b"\xff.npz"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_is_no_traceback(rng, unbuffered):
    np.save("b.npy", rng.standard_normal((30, 4)).astype(np.float32))
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "faiss_ext", "knn", "--base", "b.npy"),
            *("--query", "b.npy", "-k", "2", "--out", "r.npz"),
        ],
        env=package_environment(PYTHONUNBUFFERED=unbuffered),
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    assert done.returncode == 128 + signal.SIGPIPE
    assert len(done.stderr.splitlines()) == 1
    assert load()[1].shape == (30, 2)
