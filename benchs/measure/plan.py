"""What a case of searches will take, and how much of it fits into the budget.

The rates are those of one H200 with 16 cores, Faiss 1.7.3 (first run of these
benchmarks, 2026-11-20). They only decide what is run; a case's computation is
estimated from a measured one of the same database as soon as there is one.
"""

from __future__ import annotations

import dataclasses
import math

from . import peers
from .floors import BYTES_PER_RESULT, COMPUTE

#: Seconds of computation for a query and a stored vector: by nb up to 10,000 or
#: more, and k up to 100 or more; with d = 128.
_PAIR_S = {(True, True): 26e-12, (True, False): 58e-12,
           (False, True): 11e-12, (False, False): 22e-12}
#: Seconds of any search: launches, and a pass over each stored vector.
_CALL_S, _PASS_S = 2e-4, 4e-9

#: Bytes of results a second, by the words in a contender's name. Pages that are
#: new to the process cost the most: those that NumPy makes for stock Faiss too.
_RATES = (("GPU queries", 50e9), ("GPU", None), ("pinned", 50e9),
          ("ours pooled", 10e9), ("ours fresh", 8e9), ("ours", 15e9),
          ("touched", 5e9), ("stock", 1e9))


@dataclasses.dataclass(frozen=True)
class Effort:
    """How a case is measured: by whom, and how often at least.

    `names` None: by all contenders, but those in `without`. `parts`: how much of
    the budget it may take at most, in equal parts for each case.
    """

    what: str
    names: tuple | None
    least_runs: int
    parts: float
    without: tuple = ()

    def takes(self, name) -> bool:
        return name not in self.without and (
            self.names is None or name in self.names)


#: The first that fits is taken.
EFFORTS = (
    Effort("all contenders", None, 5, 1.5),
    Effort("all contenders but CuPy", None, 5, 1.5, ("CuPy",)),
    Effort("what the tables and the bar need", (
        "stock", "stock again", "stock touched", COMPUTE, "ours pooled",
        "ours touched", "ours GPU", "ours GPU queries, pinned", "torch",
    ), 2, 4.5),
    Effort("stock Faiss and ours, no output arrays given", (
        "stock", COMPUTE, "ours pooled"), 1, 9),
    Effort("stock Faiss and ours alone", ("stock", "ours pooled"), 1, 9),
)


def _guess(n, k, nb, d):
    """Seconds of a search by Faiss' kernels."""
    pair = _PAIR_S[nb <= 10_000, k <= 100]
    # A part of it grows with d: at d = 512 the product takes as long as all of
    # the rest.
    return _CALL_S + nb * _PASS_S + n * nb * pair * (0.7 + 0.3 * d / 128)


class Plan:
    """Of one benchmark; learns from what it has measured."""

    def __init__(self, budget_s, cases):
        """`cases`: how many there are."""
        self._part_s = budget_s / max(cases, 1)
        self._measured = {}

    def compute_s(self, n, k, nb, d) -> float:
        """Estimate of the computation of a search."""
        guess = _guess(n, k, nb, d)
        near = [
            (abs(other_n - n) + abs(other_k - k), seconds,
             _guess(other_n, other_k, nb, d))
            for (other_n, other_k, *database), seconds in self._measured.items()
            if database == [nb, d]
        ]
        if near:
            _, seconds, guessed = min(near)
            return guess * seconds / guessed
        return guess

    def learn(self, case, entries):
        """Note what the computation of a case took."""
        median = entries.get(COMPUTE, {}).get("median_s")
        if median:
            self._measured[case["n"], case["k"], case["nb"], case["d"]] = median

    def run_s(self, name, n, k, nb, d) -> float:
        """Estimate of one run of a contender."""
        compute = self.compute_s(n, k, nb, d)
        if name == "CuPy":
            # It sorts with argpartition: measured at 1 to 64 queries.
            return compute + n * (5e-5 + nb * 1.3e-10)
        if name in peers.NAMES:
            return compute
        rate = next((rate for word, rate in _RATES if word in name), None)
        return compute + (BYTES_PER_RESULT * n * k / rate if rate else 0)

    def effort(self, case, names, left_s, *, important=False):
        """(Effort, None), or (None, why not).

        `names`: of all contenders. `important`: may take twice as long as others.
        """
        n, k, nb, d = (case[name] for name in ("n", "k", "nb", "d"))
        needed = allowed = 0.0
        for effort in EFFORTS:
            runs = [
                # One to check, one to warm up.
                seconds * (1 + effort.least_runs + (seconds < 0.5))
                for name in names if effort.takes(name)
                for seconds in [self.run_s(name, n, k, nb, d)]
            ]
            # The arrays, and the look at each contender's results.
            needed = sum(runs) + BYTES_PER_RESULT * n * k * (
                2 + 0.3 * len(runs)) / 1e9
            parts = effort.parts * (2 if important else 1)
            allowed = min(self._part_s * parts, left_s)
            if needed <= allowed:
                return effort, None
        return None, (
            f"time budget: a search takes about "
            f"{self.compute_s(n, k, nb, d):.2g} s, so the case at least "
            f"{needed:.0f} s; it may take {max(allowed, 0):.0f} s"
        )


class Contest:
    """Of one benchmark whose contenders differ by more than its cases: who takes
    part in which. Learns from what it has measured.

    The first contenders take part everywhere. Of the time that is left each
    other one, in turn, may take half, and is left out of cases that are not
    important first, and of those that would take it longest.
    """

    #: Of a contender: runs that are not timed and timed ones, at least; a part
    #: of the time that a case has for more; and what a look at results takes.
    _RUNS, _MORE_S, _LOOK_S = 7, 0.05, 0.03
    #: Of a database: to make it, to look for what is right, and to copy it to
    #: the GPU for each contender.
    _BYTE_S = 3e-9
    #: Which part of the time is given away beforehand.
    _SURE = 0.85
    #: One run is enough where it takes longer.
    SLOW_S = 0.25

    def __init__(self, names, cases, important=(), always=2):
        """`names`: of contenders, the first `always` of which are never left
        out. `cases`: (n, k, nb, d) in the order in which they will come."""
        self._names, self._always = list(names), always
        self._important = frozenset(important)
        self._left = list(cases)
        self._medians, self._first_s = {}, {}
        self._made = set()

    def run_s(self, name, n, k, nb, d) -> float:
        """Estimate of one run of a contender, from the case most like it."""
        case = n, k, nb, d
        by_k = self._medians.get(name)
        if not by_k:
            return _guess(*case)
        # What more queries or vectors take is known better than what more
        # neighbours do.
        known = by_k[min(by_k, key=lambda other: abs(math.log(k / other)))]
        near = min(known, key=lambda other: (
            other[2:] != (nb, d), abs(math.log(n / other[0]))))
        return known[near] * _guess(*case) / _guess(*near)

    def needed_s(self, name, case) -> float:
        """Of a case, for a contender."""
        run = self.run_s(name, *case)
        first = self._first_s.get(name)
        return (0 if first is None else first + run) + self._LOOK_S + (
            run if run > self.SLOW_S
            else max(self._RUNS * run, 2 * run + self._MORE_S))

    def entered(self, case, left_s):
        """Names of those that take part, and of each other one, why not; None
        and why, if there is no time for the case. To be asked once for each."""
        place = self._left.index(case)
        later = {other[2:] for other in self._left} - self._made
        left_s -= sum(4 * nb * d * self._BYTE_S for nb, d in later)
        # What is important, and then what is short, comes first.
        needs = {
            name: [(other not in self._important, self.needed_s(name, other))
                   for other in self._left]
            for name in self._names
        }
        self._left.pop(place)
        entered, out, spent = [], {}, 0.0
        # Some of it for what estimates miss.
        free = self._SURE * left_s
        for i, name in enumerate(self._names):
            mine = sorted(needs[name])
            if i >= self._always:
                mine = _fitting(mine, free / 2)
            if mine and needs[name][place] <= mine[-1]:
                entered.append(name)
                spent += needs[name][place][1]
            else:
                out[name] = (
                    f"time budget: a search takes about "
                    f"{self.run_s(name, *case):.2g} s")
            free -= sum(seconds for _, seconds in mine)
        if spent > left_s:
            out |= dict.fromkeys(entered[self._always :], "time budget")
            entered = entered[: self._always]
            spent = sum(needs[name][place][1] for name in entered)
        if spent > left_s:
            return None, (f"time budget: at least {spent:.1f} s needed, "
                          f"{max(left_s, 0):.1f} s are left")
        self._made.add(case[2:])
        return entered, out

    def began(self, name, seconds):
        """What a contender's first run of a case took, which is not timed: some
        compile kernels then."""
        self._first_s[name] = seconds

    def learn(self, case, entries):
        """Note what a case's runs took."""
        for name, entry in entries.items():
            if "median_s" in entry:
                by_k = self._medians.setdefault(name, {})
                by_k.setdefault(case[1], {})[case] = entry["median_s"]
                if name in self._first_s:
                    self._first_s[name] = max(
                        self._first_s[name] - entry["median_s"], 0.0)


def _fitting(needs, budget_s):
    """The first of (anything, seconds) that fit together."""
    fitting = []
    for need in needs:
        budget_s -= need[1]
        if budget_s < 0:
            break
        fitting.append(need)
    return fitting
