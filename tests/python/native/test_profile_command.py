"""`python -m faiss_ext profile` on the simulated GPU, whose times mean nothing;
what is counted and compared does."""

from __future__ import annotations

import importlib
import json
import os
import shlex

import numpy as np
import pytest

SMALL = ("--nb", "500", "--d", "16", "--repetitions", "4")


@pytest.fixture
def document(cli):
    """The document of a run."""

    def run(*args):
        outcome = cli("profile", *SMALL, *args, "--json", "p.json")
        assert outcome.status == 0, outcome.err
        with open("p.json") as file:
            return outcome, json.load(file)

    return run


def test_the_examples_of_the_help_run(cli):
    text = cli("profile", "--help").out.partition("Examples:\n")[2]
    examples = text.replace("\\\n", " ").strip().splitlines()
    assert len(examples) == 2
    for example in examples:
        outcome = cli(*shlex.split(example)[3:])
        assert outcome.status == 0, outcome.err
    assert {"times.json", "trace.json"} <= {*os.listdir()}


def test_it_times_every_combination_as_often_as_asked_for(document):
    outcome, found = document("--n", "1,40", "--k", "5,10")
    assert [(c["n"], c["k"]) for c in found["cases"]] == [
        (1, 5), (1, 10), (40, 5), (40, 10)
    ]
    for case in found["cases"]:
        assert [v["name"] for v in case["variants"]] == [
            "stock", "new", "given", "pooled", "device"
        ]
        assert {len(v["seconds"]) for v in case["variants"]} == {4}
        assert {len(p) for p in case["profiles"].values()} == {4}
    assert "n 40, k 10, nb 500, d 16, l2, float32: 4 searches" in outcome.out
    assert "simulated device 0" in outcome.out


def test_the_parts_add_up(document):
    _, found = document("--n", "4000", "--k", "5")
    (case,) = found["cases"]
    seconds = {v["name"]: v["seconds"] for v in case["variants"]}
    assert sum(case["stock"].values()) == pytest.approx(
        np.median(seconds["stock"])
    )
    for profile in case["profiles"]["given"]:
        assert sum(profile["caller"].values()) == pytest.approx(
            profile["seconds"]
        )
        assert profile["moved"]["upload"] == 4000 * 16 * 4
        assert profile["moved"]["copy-back"] == 4000 * 5 * 12
        assert profile["moved"]["host copy"] == 4000 * 5 * 12
    assert case["profiles"]["pooled"][0]["moved"]["host copy"] == 0


def test_the_spans_of_the_median_search_are_kept(document):
    _, found = document("--n", "40", "--k", "5")
    for profiles in found["cases"][0]["profiles"].values():
        (kept,) = [p for p in profiles if p["spans"]]
        assert kept["seconds"] == sorted(p["seconds"] for p in profiles)[1]


def test_it_tells_the_stages_of_the_exact_engine(document):
    outcome, found = document("--n", "40", "--k", "5")
    for profiles in found["cases"][0]["profiles"].values():
        for profile in profiles:
            assert [stage["name"] for stage in profile["compute_stages"]] == [
                "scan cut", "scan", "scan results"
            ]
            assert profile["paths"] == {
                "certified": 40, "widened": 0, "last path": 0
            }
            assert profile["floor"] > 0
            assert bool(profile["compute_spans"]) == bool(profile["spans"])
    assert "        scan results (" in outcome.out
    assert "    40 queries by a scan of 500 vectors" in outcome.out
    assert "queries: 40 certified, 0 widened, 0 last path" in outcome.out


def test_it_tells_the_machine_and_the_link(document):
    _, found = document("--n", "1", "--k", "1")
    assert found["environment"]["gpu"] == "simulated device 0"
    assert found["environment"]["cuda"].count(".") == 1
    # The simulator's link has 25 GB/s.
    assert found["link"]["to_host"] == pytest.approx(25e9, rel=0.01)
    assert found["link"]["to_device"] == pytest.approx(25e9, rel=0.01)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_metrics_and_storages(document, metric, storage):
    _, found = document(
        "--n", "3", "--k", "2", "--metric", metric, "--storage", storage
    )
    assert found["cases"][0]["metric"] == metric
    assert found["cases"][0]["storage"] == storage


def test_time_that_is_over_ends_a_case_after_three_repetitions(document):
    _, found = document("--n", "3", "--k", "2", "--seconds", "1e-9")
    assert len(found["cases"][0]["variants"][0]["seconds"]) == 3


def test_it_writes_trace_and_picture(cli):
    pytest.importorskip("matplotlib")
    outcome = cli(
        "profile", *SMALL, "--n", "4000", "--k", "5", "--trace", "t.json",
        "--picture", "p.png",
    )
    assert outcome.status == 0, outcome.err
    with open("t.json") as file:
        events = json.load(file)["traceEvents"]
    assert {e["cat"] for e in events if e["ph"] == "X"} == {
        "host read", "upload", "compute", "copy-back", "wait", "host copy",
        "compute stage",
    }
    with open("p.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_it_times_nothing_that_gives_other_results(cli, faiss_ext, monkeypatch):
    search = faiss_ext.GpuIndexFlat.search

    def wrong(self, *args, **options):
        distances, labels = search(self, *args, **options)
        if isinstance(labels, np.ndarray):
            labels[-1] = labels[-1][::-1].copy()
        return distances, labels

    monkeypatch.setattr(faiss_ext.GpuIndexFlat, "search", wrong)
    outcome = cli(
        "profile", *SMALL, "--n", "10", "--k", "5", "--json", "p.json"
    )
    assert outcome.status == 2
    assert "8.00% of the labels are not those of stock Faiss" in outcome.err
    assert "nothing was timed" in outcome.err
    assert os.listdir() == []


@pytest.fixture
def profile_pairs(cli, faiss_ext, monkeypatch):
    """Profiles searches among vectors each of which is there twice, with what
    `change` makes of their labels."""
    measure = importlib.import_module("faiss_ext.profiling.measure")
    search, made = faiss_ext.GpuIndexFlat.search, measure._random
    monkeypatch.setattr(
        measure, "_random",
        lambda n, d, seed: np.repeat(made(n // 2, d, seed), 2, axis=0))

    def profile(change):
        def changed(self, *args, **options):
            distances, labels = search(self, *args, **options)
            if isinstance(labels, np.ndarray):
                change(labels)
            return distances, labels

        monkeypatch.setattr(faiss_ext.GpuIndexFlat, "search", changed)
        return cli("profile", *SMALL, "--n", "10", "--k", "4")

    return profile


def test_neighbours_as_near_may_change_places(profile_pairs):
    def swap(labels):
        labels[:] = labels.reshape(len(labels), -1, 2)[:, :, ::-1].reshape(
            labels.shape)

    outcome = profile_pairs(swap)
    assert outcome.status == 0, outcome.err


def test_a_neighbour_that_comes_twice_is_another_result(profile_pairs):
    def repeat(labels):
        labels[:, 1::2] = labels[:, ::2]

    outcome = profile_pairs(repeat)
    assert outcome.status == 2
    assert "50.00% of the labels are not those of stock Faiss" in outcome.err


def test_what_faiss_refuses_is_one_line(cli):
    outcome = cli("profile", *SMALL, "--n", "1", "--k", "5000")
    assert outcome.status == 2
    assert "k 5000" in outcome.err and outcome.err.count("\n") == 1


def test_a_gpu_that_is_not_there(cli):
    outcome = cli("profile", *SMALL, "--device", "7")
    assert outcome.status == 2
    assert "GPU 7 cannot be used: 1 GPU found" in outcome.err


def test_a_link_that_cannot_be_measured_leaves_no_floors(document, simulator):
    simulator.fail_call("libfaiss_ext/cudaEventElapsedTime", 1, 2)
    outcome, found = document("--n", "3", "--k", "2")
    assert found["link"] is None
    assert "copies between pinned memory and the GPU: not measured" in outcome.out
