"""The benchmarks run, check what they time, and keep no figure of a simulator."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

BENCHS = pathlib.Path(__file__).resolve().parents[3] / "benchs"
sys.path.append(str(BENCHS))


def run(folder, *arguments):
    """A process of benchs/run.py; tempfile and all else write below `folder`."""
    return subprocess.run(
        [sys.executable, BENCHS / "run.py", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True,
        # Strict: a race or misuse fails the process.
        env={**os.environ, "TMPDIR": str(folder), "CUDA_SIM_STRICT": "1"},
    )


def test_every_benchmark_runs_and_keeps_nothing(tmp_path):
    before = sorted((BENCHS / "results").iterdir())
    done = run(tmp_path, "--smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["timed"] >= 150 and counts["errors"] == 0
    assert "median" not in done.stdout
    assert not list(tmp_path.iterdir())
    assert sorted((BENCHS / "results").iterdir()) == before


def test_cells_of_the_grid_are_measured_alone(tmp_path):
    done = run(tmp_path, "--smoke", "--only", "grid", "--cells", "7:3:90:8")
    assert done.returncode == 0, done.stdout + done.stderr
    timed = [line for line in done.stdout.splitlines() if "    grid n=" in line]
    assert timed
    assert all("n=7 k=3 nb=90 d=8 " in line for line in timed)


def test_the_rates_of_the_filter_are_counted_and_kept_by_none(tmp_path):
    before = sorted((BENCHS / "results").rglob("*"))
    done = subprocess.run(
        [sys.executable, BENCHS / "filter_rates.py",
         os.environ["FAISS_EXT_BUILD_DIR"], "--smoke"],
        cwd=tmp_path, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({case["data"] for case in cases}) >= 10
    for case in cases:
        # The k nearest pass, and not everything does.
        assert case["window_mean"] >= case["k"], case
        assert case["passed_mean"] < case["nb"] / 2, case
    assert not list(tmp_path.iterdir())
    assert sorted((BENCHS / "results").rglob("*")) == before


@pytest.mark.parametrize("cells", ["7:3:90", "7:3:90:d", "7:3:0:8", ""])
def test_cells_that_are_none_are_refused(tmp_path, cells):
    done = run(tmp_path, "--smoke", "--only", "grid", "--cells", cells)
    assert done.returncode == 2
    assert "n:k:nb:d" in done.stderr


def test_times_on_the_simulator_are_refused(tmp_path):
    done = run(tmp_path, "--out", tmp_path)
    assert done.returncode == 2
    assert "simulated" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def session():
    """A smoke run on the simulator."""
    from measure import native
    from measure.session import Session

    return Session(
        native.Native(native.find(None)), budget_s=60, cell_s=0, smoke=True,
        say=lambda text: None,
    )


@pytest.fixture
def searches(session):
    from measure.searches import Searches, random_vectors

    return Searches(session, random_vectors(100, 8, 1), random_vectors(9, 8, 2), 3)


def outputs():
    return np.empty((9, 3), "float32"), np.empty((9, 3), "int64")


@pytest.mark.parametrize("kind", ["stock", "ours", "C++ stock", "C++ ours"])
def test_an_index_that_answers_wrongly_is_not_timed(session, searches, kind):
    """Its database is another one than the oracle's."""
    from measure.searches import random_vectors

    right = searches.given(kind, kind, searches.queries, outputs)
    searches.base = random_vectors(100, 8, 3)
    searches.forget(kind)
    wrong = searches.given("wrong", kind, searches.queries, outputs)
    session.measure("test", {}, [right, wrong])
    entries = {e["contender"]: e for e in session.record["measurements"]}
    assert entries["wrong"]["error"].startswith("WrongResult")
    assert entries[kind]["runs"] == 2


def test_results_that_never_arrive_are_not_timed(session, searches):
    contender = searches.given("ours", "ours", searches.queries, outputs)
    contender.run = lambda: None
    index = searches.index("ours")
    index.search = lambda *args, **options: None
    session.measure("test", {}, [contender])
    (entry,) = session.record["measurements"]
    assert entry["error"].startswith("WrongResult")


@pytest.fixture
def of_engine(session):
    """What a case of the exact engine's benchmarks says of it."""

    def run(name, **shapes):
        session.shapes = dataclasses.replace(session.shapes, **shapes)
        importlib.import_module(f"cases.{name}").run(session)
        assert not session.errors()
        return [(entry["case"], entry["counts"])
                for entry in session.record["measurements"]
                if entry.get("contender") == "ours, exact"]

    return run


def test_as_many_queries_as_named_are_out_of_range(of_engine):
    found = {
        case["data"]: counts for case, counts in of_engine(
            "engine_worst", engine_worst=(3000, (200,), (10,)))
    }
    assert len(found) == 7
    for share, data in ((2, "1 % out of range"), (20, "10 % out of range"),
                        (200, "all out of range")):
        assert found[data]["last_path_queries"] == share
        assert found[data]["certified_queries"] == 200 - share
    assert found["two kinds by turns"]["last_path_queries"] == 0


def test_the_engine_is_what_searches_and_its_scratch_memory_is_counted(of_engine):
    cases = of_engine("engine")
    assert len(cases) == 10
    for case, counts in cases:
        assert counts["searched_by"] == "the exact engine"
        assert counts["label_agreement"] == 1
        # Room for each result at least, and nothing of what is kept.
        assert counts["scratch_bytes"] >= 8 * case["n"] * case["k"]
        assert counts["scratch_bytes"] < 1 << 26


def test_kernels_that_were_not_asked_for_are_not_timed():
    from cases.engine import _Agreement

    check = _Agreement(9, 1, 1).check(
        lambda rows: pytest.fail("not to be looked at"), None,
        lambda: {"searched_by": "Faiss' kernels"}, "exact", first=True)
    with pytest.raises(AssertionError, match="asked for 'exact'"):
        check()


def test_a_benchmark_that_fails_stops_no_other(session):
    session.fail("grid", MemoryError("too much"))
    assert session.errors() == ["grid  (all): MemoryError: too much"]


def test_cases_without_room_or_time_say_so(session):
    assert "host memory" in session.obstacle(host_bytes=1 << 60, device_bytes=0)
    assert "GPU memory" in session.obstacle(host_bytes=0, device_bytes=1 << 60)
    assert "time budget" in session.obstacle(
        host_bytes=0, device_bytes=0, seconds=1e6)
    assert session.obstacle(host_bytes=1, device_bytes=1) is None
