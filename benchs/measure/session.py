"""A run of benchmarks: its machine, its clock, its record."""

from __future__ import annotations

import math
import time

from . import memory
from .ceilings import ceilings
from .environment import environment
from .floors import ON_GPU, floor, measured_floor
from .record import SCHEMA
from .shapes import SMOKE, WHOLE
from .timing import measure


class Session:
    """What the files of cases/ are given.

    `smoke` asks for the smallest cases that still take every path. `budget_s` is
    for everything; a case that begins after its end is skipped, and says so.
    `cells`: those of the grid and of engine (n, k, nb, d) to measure, if not all.
    `without`: contenders that engine leaves out.
    """

    def __init__(self, native, *, budget_s, cell_s, smoke=False, cells=(),
                 without=(), say=print, save=lambda record: None):
        self.native = native
        self.smoke = smoke
        self.shapes = SMOKE if smoke else WHOLE
        self.cells = list(cells)
        self.without = frozenset(without)
        self.cell_s = cell_s
        self.say = say
        self._save = save
        self.budget_s = budget_s
        self._end = self._bench_end = time.monotonic() + budget_s
        self._cells = 1
        self.ceilings = {}
        self.record = {
            "schema": SCHEMA,
            "made_up": False,
            "smoke": smoke,
            "environment": environment(native),
            "ceilings": self.ceilings,
            "measurements": [],
        }
        self.ceilings.update(ceilings(
            native, smoke=smoke,
            failed=lambda error: self.fail("ceilings", error),
        ))

    def begin(self, share):
        """A benchmark begins, which may use this share of the budget left."""
        left = self._end - time.monotonic()
        self._bench_end = time.monotonic() + left * share
        self._cells = 1

    def expect(self, cells):
        """How many cases the benchmark has; each gets its part of the time, or
        several parts (the `weight` of `measure`)."""
        self._cells = cells

    def left_s(self) -> float:
        """Of the budget of this benchmark."""
        return self._bench_end - time.monotonic()

    def fail(self, bench, error):
        """Say in the record that a benchmark ended early."""
        self.say(f"    {bench}: ERROR {error}")
        self.record["measurements"].append({
            "bench": bench, "case": {}, "contender": "(all)",
            "error": f"{type(error).__name__}: {error}"[:300],
        })
        self._save(self.record)

    def skip(self, bench, case, reason):
        """Say in the record why a case was not run."""
        self.say(f"    {bench} {_text(case)}: skipped, {reason}")
        self.record["measurements"].append(
            {"bench": bench, "case": case, "skipped": reason}
        )
        self._cells -= 1
        self._save(self.record)

    def leave_out(self, bench, case, contender, reason):
        """Say in the record why a contender was not timed in a case."""
        self.record["measurements"].append({
            "bench": bench, "case": case, "contender": contender,
            "skipped": reason,
        })

    def obstacle(self, *, host_bytes, device_bytes, seconds=0.0) -> str | None:
        """Why a case cannot be run: too little memory or time, or None."""
        if self.left_s() < max(seconds, 0.0) or self.left_s() <= 0:
            return (
                f"time budget: {max(self.left_s(), 0):.0f} s are left, at least "
                f"{seconds:.0f} s needed"
            )
        # A margin for what the libraries allocate besides.
        available = memory.host_available() * 0.8
        if host_bytes > available:
            return f"host memory: {_gib(host_bytes)} needed, {_gib(available)} there"
        free = self.native.device_memory()[0] * 0.9
        if device_bytes > free:
            return f"GPU memory: {_gib(device_bytes)} needed, {_gib(free)} free"
        return None

    def measure(self, bench, case, contenders, bounds=None, *, weight=1,
                most_s=math.inf, bounded=True, compute_s=None, **options):
        """Time the contenders of one case and note what they took.

        `bounds`: of each contender's name, its floors in seconds. `most_s`: of the
        budget, as far as the least runs need no more; if not `bounded`, it is the
        case's whole share of the time that is left, less a fifth for the runs
        that are not timed. `compute_s`:
        what the computation takes, measured; by default the least median of
        the contenders ON_GPU, if one is there. Returns the entries of the record by
        contender.
        """
        share = max(self.left_s(), 0) * weight / max(self._cells, weight)
        budget = (min(self.cell_s * weight, most_s, share) if bounded
                  else 0.8 * share)
        self._cells -= weight
        if self.smoke:
            options.update(least_runs=2, slow_runs=2, most_runs=2)
        timings = measure(contenders, budget, **options)
        entries = {
            timing.contender: {"bench": bench, "case": case, **timing.summary()}
            for timing in timings
        }
        compute_s = compute_s or min(
            (entries[name]["median_s"] for name in ON_GPU
             if "median_s" in entries.get(name, {})), default=None)
        for timing in timings:
            entry = entries[timing.contender]
            if timing.error is None:
                entry["floors_s"] = bounds(timing.contender) if bounds else {}
                for name, least in (
                    ("", floor(entry["floors_s"])),
                    ("measured_", measured_floor(entry["floors_s"], compute_s)
                     if bounds else None),
                ):
                    entry[f"{name}floor_s"] = least
                    entry[f"{name}gap"] = (
                        entry["median_s"] / least if least else None
                    )
                # Times of a smoke run mean nothing, and are not shown.
                self.say(
                    f"    {bench} {_text(case)} {timing.contender}: "
                    f"{timing.checked}" if self.smoke
                    else _line(bench, case, entry)
                )
            else:
                self.say(f"    {bench} {_text(case)} {timing.contender}: "
                         f"ERROR {timing.error}")
            self.record["measurements"].append(entry)
        self._save(self.record)
        return entries

    def errors(self) -> list[str]:
        """What failed, one line each."""
        return [
            f"{entry['bench']} {_text(entry['case'])} {entry['contender']}: "
            f"{entry['error']}"
            for entry in self.record["measurements"] if "error" in entry
        ]


def _line(bench, case, entry):
    text = (
        f"    {bench} {_text(case)} {entry['contender']}: median "
        f"{entry['median_s'] * 1e3:.3f} ms, p99 {entry['p99_s'] * 1e3:.3f} ms, "
        f"{entry['runs']} runs"
    )
    if entry["gap"]:
        text += f", floor {entry['floor_s'] * 1e3:.3f} ms, gap {entry['gap']:.2f}"
    if entry["measured_gap"]:
        text += f", over compute and link {entry['measured_gap']:.2f}"
    return text


def _text(case):
    return " ".join(f"{key}={value}" for key, value in case.items())


def _gib(nbytes):
    return f"{nbytes / 2**30:.1f} GiB"
