"""How contenders are timed: in turns, with a budget, one sample for each call."""

from __future__ import annotations

import dataclasses
import gc
import math
import random
import time
from collections.abc import Callable, Sequence

#: The shares of the samples that a record keeps, for the plots of latencies.
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclasses.dataclass
class Contender:
    """One way of getting the results.

    `run` does it and returns when the results are there: the seconds it took, if
    it has timed itself, or None. `prepare` comes before each run and is not
    timed. `check` looks at the results of the last run, raises WrongResult, and
    says how it has looked. `release` comes after each run, and its check, so that
    no contender keeps memory while others run.
    """

    name: str
    run: Callable[[], float | None]
    prepare: Callable[[], object] | None = None
    check: Callable[[], str] | None = None
    #: What a run moves and waits for, if it can tell.
    counts: Callable[[], dict] | None = None
    release: Callable[[], object] | None = None


@dataclasses.dataclass
class Timing:
    """What became of one contender."""

    contender: str
    checked: str = ""
    samples: list[float] = dataclasses.field(default_factory=list)
    counts: dict | None = None
    error: str | None = None

    def summary(self) -> dict:
        """The part of a record that tells the times."""
        if self.error is not None:
            return {"contender": self.contender, "error": self.error}
        ordered = sorted(self.samples)
        summary = {
            "contender": self.contender,
            "checked": self.checked,
            "runs": len(ordered),
            "median_s": quantile(ordered, 0.5),
            "p99_s": quantile(ordered, 0.99),
            "quantiles_s": [quantile(ordered, share) for share in QUANTILES],
        }
        if self.counts is not None:
            summary["counts"] = self.counts
        return summary


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of sorted samples, by linear interpolation."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def timed_run(contender: Contender) -> float:
    """One run, prepared before the clock starts."""
    if contender.prepare:
        contender.prepare()
    begin = time.perf_counter()
    own = contender.run()
    elapsed = time.perf_counter() - begin
    return elapsed if own is None else own


def measure(
    contenders: Sequence[Contender],
    budget_s: float,
    *,
    least_runs: int = 5,
    most_runs: int = 2000,
    seed: int = 0,
) -> list[Timing]:
    """Time contenders in turns, in another order each round.

    Each runs once first, untimed, and its results are checked; the second run
    warms up. Then rounds follow until the budget (of all of it, in seconds) is
    spent, at least `least_runs` and at most `most_runs`. One that raises is left
    out from there on, and says why.
    """
    end = time.perf_counter() + budget_s
    timings = [Timing(contender.name) for contender in contenders]

    def attempt(contender, timing, action):
        try:
            return action()
        except Exception as error:  # a peer may fail in any way
            timing.error = f"{type(error).__name__}: {error}"[:300]
            return None
        finally:
            if contender.release:
                contender.release()

    def check(contender, timing):
        timed_run(contender)
        if contender.check:
            timing.checked = contender.check()
        if contender.counts:
            timing.counts = contender.counts()

    for contender, timing in zip(contenders, timings):
        attempt(contender, timing, lambda: check(contender, timing))
        if timing.error is None:
            attempt(contender, timing, lambda: timed_run(contender))
    order = list(zip(contenders, timings))
    shuffle = random.Random(seed).shuffle
    gc.collect()
    gc.disable()
    try:
        for done in range(most_runs):
            if done >= least_runs and time.perf_counter() >= end:
                break
            shuffle(order)
            for contender, timing in order:
                if timing.error is None:
                    sample = attempt(
                        contender, timing, lambda: timed_run(contender)
                    )
                    if sample is not None:
                        timing.samples.append(sample)
    finally:
        gc.enable()
    return timings
