"""The benchmarks' clock, oracle, floors and record."""

from __future__ import annotations

import copy
import json

import made_up_records as made_up
import numpy as np
import pytest
from measure import record
from measure.floors import copy_to_compute, floor, floors
from measure.oracle import Oracle, WrongResult, same_bytes
from measure.timing import QUANTILES, Contender, measure, quantile

# Timing


def test_contenders_run_in_turns_after_their_results_were_checked():
    log = []

    def contender(name):
        return Contender(
            name,
            lambda: log.append(f"run {name}"),
            lambda: log.append(f"prepare {name}"),
            lambda: log.append(f"check {name}") or "looked",
            release=lambda: log.append(f"release {name}"),
        )

    def once(name):
        return [f"prepare {name}", f"run {name}", f"release {name}"]

    timings = measure([contender("a"), contender("b")], 0, least_runs=3)
    first = []
    for name in "ab":
        checked = once(name)
        checked.insert(2, f"check {name}")
        first += checked + once(name)
    assert log[:14] == first
    rounds = [log[i : i + 6] for i in range(14, len(log), 6)]
    assert len(rounds) == 3
    for events in rounds:
        assert events in (once("a") + once("b"), once("b") + once("a"))
    for timing in timings:
        assert timing.checked == "looked" and len(timing.samples) == 3


def test_preparing_is_not_timed_and_own_seconds_count():
    import time

    slow_start = Contender("slow start", lambda: None, lambda: time.sleep(0.02))
    own = Contender("own", lambda: 42.0)
    first, second = measure([slow_start, own], 0, least_runs=2)
    assert max(first.samples) < 0.02
    assert second.samples == [42.0, 42.0]


def test_one_that_fails_says_why_and_stops_nobody():
    def fail():
        raise RuntimeError("no such kernel")

    def wrong():
        raise WrongResult("off by one")

    released = []
    broken, wrong, sound = measure(
        [Contender("broken", fail, release=lambda: released.append("broken")),
         Contender("wrong", lambda: None, None, wrong),
         Contender("sound", lambda: None)],
        0, least_runs=2,
    )
    assert broken.error == "RuntimeError: no such kernel"
    assert wrong.error == "WrongResult: off by one"
    assert not broken.samples and not wrong.samples
    assert released == ["broken"]
    assert len(sound.samples) == 2
    assert wrong.summary() == {"contender": "wrong", "error": wrong.error}


def test_runs_end_with_the_budget_or_the_bound():
    counted = Contender("c", lambda: 1.0)
    assert len(measure([counted], 60, most_runs=7)[0].samples) == 7
    assert len(measure([counted], 0, least_runs=4)[0].samples) == 4


@pytest.mark.parametrize(("share", "expected"), [
    (0, 1), (0.5, 3), (1, 5), (0.25, 2), (0.99, 4.96),
])
def test_quantiles_lie_between_samples(share, expected):
    assert quantile([1, 2, 3, 4, 5], share) == pytest.approx(expected)
    assert quantile([7], share) == 7


# The oracle


@pytest.fixture
def search(rng):
    base = rng.standard_normal((200, 8), "float32")
    queries = rng.standard_normal((10, 8), "float32")
    exact = np.square(queries[:, None].astype("float64") - base[None]).sum(2)
    I = np.argsort(exact, axis=1)[:, :5]
    D = np.take_along_axis(exact, I, axis=1).astype("float32")
    return Oracle(base, queries, [0, 4, 9], 5), D, I


def test_right_results_pass(search):
    oracle, D, I = search
    assert oracle.check(D, I).startswith("3 of 10 queries")
    assert oracle.check(D[:5, :2], I[:5, :2]).startswith("2 of 5 queries")


@pytest.mark.parametrize("spoil", [
    lambda D, I: D.__setitem__((4, 2), D[4, 2] + 0.01),
    lambda D, I: I.__setitem__((4, 2), (I[4, 2] + 1) % 200),
    lambda D, I: I.__setitem__((9, 1), I[9, 0]),
    lambda D, I: I.__setitem__((0, 4), 200),
    lambda D, I: I.__setitem__((3, 0), -1),
    lambda D, I: D.__setitem__((7, 3), np.nan),
    lambda D, I: (D.__setitem__(0, D[0, ::-1].copy()),
                  I.__setitem__(0, I[0, ::-1].copy())),
], ids=["distance", "label", "twice", "range", "unsampled label",
        "unsampled distance", "order"])
def test_wrong_results_are_found(search, spoil):
    oracle, D, I = search
    spoil(D, I)
    with pytest.raises(WrongResult):
        oracle.check(D, I)


def test_bytes_that_differ_are_found():
    assert same_bytes(np.arange(3), np.arange(3)) == "all 24 bytes"
    with pytest.raises(WrongResult):
        same_bytes(np.array([0, 1, 3]), np.arange(3))


# Floors


def test_floors_are_counts_over_measured_rates():
    rates = {"gemm_flops": 2e12, "device_memory_bytes_s": 4e9,
             "link_to_host_bytes_s": 12e9, "link_to_device_bytes_s": 8e9}
    bounds = floors(rates, n=1000, k=100, nb=10_000, d=50, queries_on_host=True,
                    results_on_host=True)
    assert bounds == {"compute": 5e-4, "database": 5e-4, "copy_back": 1e-4,
                      "upload": 2.5e-5}
    assert floor(bounds) == 5e-4
    assert copy_to_compute(rates, k=100, nb=10_000, d=50) == pytest.approx(
        bounds["copy_back"] / bounds["compute"])


def test_floors_leave_out_what_does_not_cross_the_link_or_was_not_measured():
    bounds = floors({}, n=1, k=1, nb=1, d=1, queries_on_host=False,
                    results_on_host=False)
    assert bounds == {"compute": None, "database": None}
    assert floor(bounds) is None
    assert copy_to_compute({}, k=1, nb=1, d=1) is None


# The record


def test_a_record_is_written_whole_and_read_back(tmp_path):
    content = made_up.record([*made_up.small_batches(), {
        "bench": "grid", "case": {"n": 1}, "skipped": "time budget: over"}])
    path = tmp_path / "new" / "run.json"
    record.write(content, path)
    assert record.read(path) == json.loads(json.dumps(content))
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def _spoiled(change):
    content = copy.deepcopy(made_up.record(list(made_up.small_batches())[:1]))
    change(content)
    return content


@pytest.mark.parametrize("change", [
    lambda c: c.pop("environment"),
    lambda c: c.update(schema=2),
    lambda c: c.update(made_up=0),
    lambda c: c["environment"].pop("commit"),
    lambda c: c["ceilings"].update(gemm_flops=-1),
    lambda c: c["measurements"][0].pop("median_s"),
    lambda c: c["measurements"][0].update(median_s=float("nan")),
    lambda c: c["measurements"][0].update(p99_s=None),
    lambda c: c["measurements"][0].update(runs=0),
    lambda c: c["measurements"][0].update(checked=""),
    lambda c: c["measurements"][0]["quantiles_s"].pop(),
    lambda c: c["measurements"][0]["quantiles_s"].reverse(),
    lambda c: c["measurements"][0].update(case={"n": None}),
    lambda c: c["measurements"].append({"bench": "grid", "case": {}}),
    lambda c: c["measurements"].append({"case": {}, "skipped": "why"}),
    lambda c: c["measurements"].append(
        {"bench": "grid", "case": {}, "contender": "x", "error": 7}),
])
def test_a_broken_record_is_refused(change):
    with pytest.raises(record.InvalidRecord):
        record.validate(_spoiled(change))


def test_an_unreadable_record_is_named(tmp_path):
    path = tmp_path / "half.json"
    path.write_text('{"schema": 1')
    with pytest.raises(record.InvalidRecord, match=r"half\.json"):
        record.read(path)


def test_summaries_hold_the_quantiles_of_the_samples():
    timing = measure([Contender("c", lambda: 1.0, None, lambda: "x")], 0)[0]
    summary = timing.summary()
    assert summary["quantiles_s"] == [1.0] * len(QUANTILES)
    assert (summary["runs"], summary["median_s"], summary["p99_s"]) == (5, 1, 1)
