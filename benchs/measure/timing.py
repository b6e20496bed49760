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
    timed. The first run is not timed either: `spoil`, after `prepare`, fills the
    outputs with what is no result; `check` looks at what is in them then, raises
    WrongResult, and says how it has looked. `release` comes after each run, and its check, so that
    no contender keeps memory while others run.
    """

    name: str
    run: Callable[[], float | None]
    prepare: Callable[[], object] | None = None
    check: Callable[[], str] | None = None
    spoil: Callable[[], object] | None = None
    #: What the first run has moved and waited for, if that can be told.
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


def timed_run(contender: Contender, *, first: bool = False) -> float:
    """One run, prepared before the clock starts."""
    if contender.prepare:
        contender.prepare()
    if first and contender.spoil:
        contender.spoil()
    begin = time.perf_counter()
    own = contender.run()
    elapsed = time.perf_counter() - begin
    return elapsed if own is None else own


#: Seconds. A run that takes longer needs no further one to warm up, and two
#: timed ones do: what disturbs it is small beside it.
SLOW_S = 0.5


def measure(
    contenders: Sequence[Contender],
    budget_s: float,
    *,
    least_runs: int = 5,
    slow_runs: int = 2,
    slow_s: float = SLOW_S,
    most_runs: int = 5000,
    seed: int = 0,
) -> list[Timing]:
    """Time contenders in turns, in another order each round.

    Each runs once first, untimed, and its results are checked; a second run
    warms up. Then all share the budget (seconds) equally, by what their runs
    take with all that belongs to them: a slow one has few runs and takes none
    from the others. Each has at least `least_runs`, or `slow_runs` where one
    takes longer than `slow_s`, and at most `most_runs`. With `slow_runs` 0 the
    run that is checked counts, and such a one needs no other. One that raises is
    left out from there on, and says why.
    """
    turns = [_Turn(contender) for contender in contenders]
    for turn in turns:
        turn.check()
        slow = turn.last_s > slow_s
        turn.least = slow_runs if slow else least_runs
        if not slow:
            turn.attempt(lambda: timed_run(turn.contender))
        elif not slow_runs:
            turn.keep()
    share = budget_s / max(len(turns), 1)
    shuffle = random.Random(seed).shuffle
    gc.collect()
    gc.disable()
    try:
        while open_ := [turn for turn in turns if turn.open(share, most_runs)]:
            shuffle(open_)
            behind = min(turn.spent_s for turn in open_)
            for turn in open_:
                # Half a run ahead of the others waits for them.
                if turn.spent_s - behind <= turn.last_s / 2:
                    turn.run()
    finally:
        gc.enable()
    return [turn.timing for turn in turns]


class _Turn:
    """A contender, and what it has taken so far."""

    def __init__(self, contender):
        self.contender = contender
        self.timing = Timing(contender.name)
        self.least = 1
        self.spent_s = self.last_s = 0.0

    def open(self, share, most):
        """Whether another run is due."""
        runs = len(self.timing.samples)
        return self.timing.error is None and runs < most and (
            runs < self.least or self.spent_s < share
        )

    def attempt(self, action):
        begin = time.perf_counter()
        try:
            return action()
        except Exception as error:  # a peer may fail in any way
            self.timing.error = f"{type(error).__name__}: {error}"[:300]
            return None
        finally:
            if self.contender.release:
                self.contender.release()
            self.last_s = time.perf_counter() - begin

    def check(self):
        """An untimed run, and a look at its results."""

        def run():
            elapsed = timed_run(self.contender, first=True)
            if self.contender.check:
                self.timing.checked = self.contender.check()
            # Behind the check, since what kernels count is whole once they end.
            if self.contender.counts:
                self.timing.counts = self.contender.counts()
            return elapsed

        # Not what the check took.
        self.last_s = self.attempt(run) or 0.0

    def keep(self):
        """The checked run counts."""
        self.spent_s = self.last_s
        self.timing.samples.append(self.last_s)

    def run(self):
        sample = self.attempt(lambda: timed_run(self.contender))
        self.spent_s += self.last_s
        if sample is not None:
            self.timing.samples.append(sample)
