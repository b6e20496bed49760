"""How the benchmarks spend their time, and what they do not believe."""

from __future__ import annotations

import itertools
import time

import made_up_records  # noqa: F401  (finds benchs/)
import pytest
from measure import timing
from measure.ceilings import Implausible, plausible
from measure.floors import COMPUTE, floors, measured_floor
from measure.plan import EFFORTS, Contest, Plan
from measure.shapes import WHOLE
from measure.timing import Contender, measure

NAMES = [*EFFORTS[2].names, "ours fresh", "stock fresh", "C++ ours GPU", "CuPy"]


def test_a_rate_whose_time_does_not_grow_with_the_work_is_refused():
    plausible("gemm_flops", (1e9, 8e9), (1e-3, 7e-3))
    # A launch that nobody waited for: always the same.
    with pytest.raises(Implausible, match="gemm_flops: 8 times the work took 1.10"):
        plausible("gemm_flops", (1e9, 8e9), (1.0e-4, 1.1e-4))


class Clock:
    """Passes as it is told."""

    now = 0.0

    def perf_counter(self):
        return self.now


def test_a_slow_contender_takes_no_runs_from_a_fast_one(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)

    def lasting(seconds):
        def run():
            clock.now += seconds

        return Contender(str(seconds), run, None, lambda: "ok")

    fast, slow, other = measure(
        [lasting(1e-4), lasting(0.0201), lasting(1e-4)], 0.3)
    assert 0.3 < clock.now < 0.4
    assert len(slow.samples) == 5
    assert len(fast.samples) > 100 and len(other.samples) > 100


def test_one_that_takes_long_runs_twice_and_one_that_fails_not_at_all():
    runs = []

    def fails():
        raise ValueError("no")

    timings = measure(
        [Contender("long", lambda: runs.append(time.sleep(0.6)), None, lambda: "ok"),
         Contender("wrong", lambda: None, None, fails)], 0)
    assert len(timings[0].samples) == 2 and len(runs) == 3
    assert timings[1].error == "ValueError: no"


def test_of_one_that_takes_long_the_checked_run_may_be_the_only_one():
    runs = []
    slow, fast = measure(
        [Contender("slow", lambda: runs.append(time.sleep(0.02)), None, lambda: "ok"),
         Contender("fast", lambda: None, None, lambda: "ok")],
        0, slow_runs=0, slow_s=0.01)
    assert len(runs) == 1 and 0.02 <= slow.samples[0] < 0.2
    assert len(slow.samples) == 1 and len(fast.samples) == 5


def test_outputs_are_spoilt_before_the_run_that_is_checked_and_no_other():
    order = []
    measure([Contender(
        "a", lambda: order.append("run"), lambda: order.append("prepare"),
        lambda: order.append("check") or "ok", lambda: order.append("spoil"))],
        0, least_runs=1)
    assert order == ["prepare", "spoil", "run", "check"] + 2 * ["prepare", "run"]


def test_counts_are_those_that_are_whole_and_known_after_the_check():
    known = {}
    (timing_,) = measure([Contender(
        "a", lambda: None, check=lambda: known.update(right=1) or "ok",
        counts=lambda: dict(known))], 0, least_runs=1)
    assert timing_.counts == {"right": 1}


def cells():
    for (nb, d), n, k in itertools.product(
        WHOLE.databases, WHOLE.queries, WHOLE.neighbours
    ):
        yield {"n": n, "k": k, "nb": nb, "d": d}


def test_every_cell_that_the_bar_names_is_measured_in_a_whole_run():
    assert len(WHOLE.bar_cells) == len(set(WHOLE.bar_cells))
    plan = Plan(270, 72)
    for n, k, nb, d in WHOLE.bar_cells:
        case = {"n": n, "k": k, "nb": nb, "d": d}
        assert case in list(cells())
        effort, _ = plan.effort(case, NAMES, 270, important=True)
        assert {"stock", "ours pooled", COMPUTE} <= set(effort.names or NAMES)


def test_a_cell_that_would_eat_the_others_time_says_so():
    plan = Plan(270, 72)
    case = {"n": 1_000_000, "k": 1000, "nb": 1_000_000, "d": 512}
    effort, why = plan.effort(case, NAMES, 270)
    assert effort is None and why.startswith("time budget: a search takes about 4")


def test_an_estimate_follows_what_was_measured():
    plan = Plan(270, 72)
    before = plan.compute_s(100_000, 100, 1_000_000, 128)
    case = {"n": 10_000, "k": 100, "nb": 1_000_000, "d": 128}
    twice = 2 * plan.compute_s(*case.values())
    plan.learn(case, {COMPUTE: {"median_s": twice}})
    after = plan.compute_s(100_000, 100, 1_000_000, 128)
    assert after == pytest.approx(2 * before)
    # Of another database nothing is known.
    assert plan.compute_s(1, 1, 10_000, 128) == Plan(1, 1).compute_s(1, 1, 10_000, 128)


def test_floors_are_of_computation_with_its_traffic_or_of_the_link():
    rates = {"gemm_flops": 1e12, "device_memory_bytes_s": 1e12,
             "link_to_host_bytes_s": 1e9, "link_to_device_bytes_s": 1e9,
             "copy_call_s": 1e-5}
    size = {"n": 10, "k": 1, "nb": 1000, "d": 100}
    on_gpu = floors(rates, **size, queries_on_host=False, results_on_host=False)
    assert on_gpu == {"compute": pytest.approx(2e6 / 1e12 + 480_000 / 1e12)}
    bounds = floors(rates, **size, queries_on_host=True, results_on_host=True)
    # 120 bytes take no longer than any copy does.
    assert bounds["copy_back"] == 1e-5 and bounds["upload"] == 4e-6
    assert measured_floor(bounds, 3e-5) == 3e-5
    assert measured_floor(bounds, None) is None


CONTEST = ("ours", "stock", "torch", "compiles", "slow")


def contest(seconds, compiling, cells=None):
    """Who took part in a made-up run of the engine's table, by case, and how long
    it took."""
    cells = cells or WHOLE.engine_cells()
    contest, now, took_part = Contest(
        CONTEST, cells, WHOLE.engine_bar_cells()), 0.0, {}
    speeds = dict(zip(CONTEST, (0.1, 1, 2, 0.5, 6)))
    for case in cells:
        n, k, nb, d = case
        names, _ = contest.entered(case, seconds - now)
        took_part[case] = names
        medians = {}
        for name in names or ():
            run = speeds[name] * n * nb * (d / 128) * 1e-11 * (1 + k / 500)
            if name == "compiles":
                contest.began(name, compiling + run)
                now += compiling + run
            now += run if run > Contest.SLOW_S else max(7 * run, 2 * run + 0.05)
            medians[name] = {"median_s": run}
        contest.learn(case, medians)
    return took_part, now


@pytest.mark.parametrize("compiling", [0.1, 3])
def test_in_any_time_ours_and_stock_take_part_everywhere(compiling):
    for seconds in (150, 240):
        took_part, now = contest(seconds, compiling)
        assert now < seconds
        assert all(names[:2] == ["ours", "stock"] for names in took_part.values())
        # What is left out is left out where it takes longest, or matters least.
        bar = [case for case in WHOLE.engine_bar_cells() if case[0] < 10_000]
        assert all("torch" in took_part[case] for case in bar)


def test_everybody_takes_part_where_there_is_time():
    took_part, _ = contest(5000, 1)
    assert all(names == list(CONTEST) for names in took_part.values())


def test_a_case_without_time_for_ours_and_stock_says_so():
    case = (100_000, 1000, 1_000_000, 128)
    names, why = Contest(CONTEST, [case]).entered(case, 3)
    assert names is None and why.startswith("time budget: at least 4.5 s")
