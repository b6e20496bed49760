"""The progress of a step where there is no terminal."""

from __future__ import annotations

import pytest

from faiss_ext.cli import progress as module
from faiss_ext.cli.progress import progress
from faiss_ext.cli.report import Stopwatch, _size


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_short_step_prints_nothing(clock, capsys):
    with progress("searching", 10, "queries") as advance:
        for _ in range(10):
            clock[0] += 0.9
            advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_long_step_prints_a_line_every_ten_seconds(clock, capsys):
    with progress("searching", 100, "queries") as advance:
        for _ in range(100):
            clock[0] += 0.5
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"searching: {done} of 100 queries, 2 a second, {left} s left"
        for done, left in [(20, 40), (40, 30), (60, 20), (80, 10), (100, 0)]
    ]


def test_a_step_that_comes_nowhere_does_not_divide_by_zero(clock, capsys):
    with progress("adding", 5, "vectors") as advance:
        clock[0] += 60
        advance(0)
    assert "0 of 5 vectors, 0 a second, inf s" in capsys.readouterr().err


def test_a_stopwatch_adds_up_what_it_takes_to_get_items(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        "faiss_ext.cli.report.time.perf_counter", lambda: now[0]
    )

    def items():
        for item in "ab":
            now[0] += 2
            yield item
        now[0] += 1

    watch = Stopwatch("writing", "reading")
    for _ in watch.each("reading", items()):
        with watch("writing"):
            now[0] += 10
    assert list(watch.seconds.items()) == [("writing", 20), ("reading", 5)]
    assert watch.total() == 25


@pytest.mark.parametrize(
    "nbytes, text",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (5_600_000_000, "5.6 GB"),
        (7_000_000_000_000, "7 TB"),
    ],
)
def test_bytes_are_told_in_three_digits(nbytes, text):
    assert _size(nbytes) == text
