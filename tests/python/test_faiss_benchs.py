"""How tests/faiss_benchs.py judges a pair of runs, and the data it gives."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import faiss
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import faiss_benchs  # noqa: E402

SCRIPT = faiss_benchs.Script("a.py", (), r"(?m)^recall 1\.0 in #ms$")
STOCK = faiss_benchs.Outcome(
    "begin\nrecall 1.0 in 0.351 ms\n", 1, "RuntimeError: no kernel"
)


def test_times_may_differ():
    ours = STOCK._replace(output=STOCK.output.replace("0.351", "1.2e-05"))
    assert faiss_benchs.differences(SCRIPT, STOCK, ours) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"output": "begin\nrecall 0.9 in 0.351 ms\n"}, "differ from line 2"),
        ({"output": "begin\n"}, "with faiss_ext it ends too early"),
        ({"output": STOCK.output + "more\n"}, "differ from line 3"),
        ({"status": 0}, "ends with status 1 with stock Faiss and 0"),
    ],
)
def test_all_else_may_not(change, found):
    problems = faiss_benchs.differences(SCRIPT, STOCK, STOCK._replace(**change))
    assert any(found in problem for problem in problems)


def test_two_that_fail_alike_before_the_comparison_are_no_success():
    early = faiss_benchs.Outcome("begin\n", 1, "ImportError")
    assert len(faiss_benchs.differences(SCRIPT, early, early)) == 2


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("k=8 0.571 ms, R@1 1.0000", "k=8 #ms, R@1 1.0000"),
        ("Iteration 3 (0.01 s, search 0.01 s): x", "Iteration 3 (#s, search #s): x"),
        ("total runtime: 12.1 s", "total runtime: #s"),
        ("12 sheep, 3.5 msec of 7 samples", "12 sheep, 3.5 msec of 7 samples"),
    ],
)
def test_only_times_are_masked(line, masked):
    assert faiss_benchs.without_times(line) == masked


def read(path, dtype):
    """As Faiss' loader does."""
    values = np.fromfile(path, dtype="int32")
    return values.reshape(-1, values[0] + 1)[:, 1:].copy().view(dtype)


def write(folder, *more):
    return subprocess.run(
        [
            sys.executable, ROOT / "benchs/synthetic_sift.py", folder,
            "--base", "500", "--query", "7", "--learn", "30", *more,
        ],
        capture_output=True, text=True,
    )


def test_synthetic_sift_has_the_layout_and_the_ground_truth(tmp_path):
    assert write(tmp_path / "sift1M").returncode == 0
    folder = tmp_path / "sift1M"
    base = read(folder / "sift_base.fvecs", "float32")
    query = read(folder / "sift_query.fvecs", "float32")
    assert base.shape == (500, 128) and query.shape == (7, 128)
    assert read(folder / "sift_learn.fvecs", "float32").shape == (30, 128)
    assert (base == np.rint(base)).all()
    assert base.min() >= 0 and base.max() <= 218
    truth = read(folder / "sift_groundtruth.ivecs", "int32")
    index = faiss.IndexFlatL2(128)
    index.add(base)
    np.testing.assert_array_equal(truth, index.search(query, 100)[1])


def test_synthetic_sift_is_the_same_each_time(tmp_path):
    for name in "ab":
        write(tmp_path / name, "--d", "16")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_synthetic_sift_of_too_few_vectors(tmp_path):
    done = write(tmp_path, "--base", "99")
    assert done.returncode == 2
    assert re.search("--base must be 100 or more", done.stderr)
