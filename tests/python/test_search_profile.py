"""How the time of a search is put down to its parts."""

import pytest

from faiss_ext.profiling.search_profile import (
    CALLER_PARTS,
    STAGES,
    ComputeStage,
    SearchProfile,
    StageSpan,
)

CALLER = "calling thread"
UP, COMPUTE, DOWN = "upload stream", "default stream", "copy stream"


def profile(seconds, *spans):
    return SearchProfile(
        [
            StageSpan(stage, lane, tile, nbytes, begin, end)
            for stage, lane, tile, nbytes, begin, end in spans
        ],
        seconds, 0.0, 1,
    )


def parts(profile):
    """What is not nothing."""
    found = {part: t for part, t in profile.caller().items() if t}
    assert sum(found.values()) == pytest.approx(profile.seconds)
    return pytest.approx(found)


ONE_TILE = profile(
    20,
    ("host read", CALLER, 0, 40, 1, 2),
    ("upload", COMPUTE, 0, 40, 3, 5),
    ("wait", CALLER, -1, 0, 4, 16),
    ("compute", COMPUTE, 0, 0, 6, 12),
    ("copy-back", COMPUTE, 0, 60, 12, 15),
    ("host copy", CALLER, 0, 60, 16, 19),
)


def test_waiting_for_kernels_is_not_copying():
    assert parts(ONE_TILE) == {
        # Until the wait begins, and after the last copy.
        "enqueue": 1 + 2 + 1,
        "host read": 1,
        "wait for upload": 1,
        # Between upload and kernels, and between the last byte and the wake-up.
        "wait, nothing runs": 1 + 1,
        "wait for compute": 6,
        "wait for copy-back": 3,
        "host copy": 3,
    }


def test_busy_and_moved_leave_the_wait_out():
    assert ONE_TILE.busy() == {
        "host read": 1, "upload": 2, "compute": 6, "copy-back": 3, "host copy": 3
    }
    assert ONE_TILE.moved() == {
        "host read": 40, "upload": 40, "compute": 0, "copy-back": 60,
        "host copy": 60,
    }


def test_copies_behind_kernels_cost_the_caller_nothing():
    tiles = profile(
        12,
        ("wait", CALLER, -1, 0, 0, 12),
        ("compute", COMPUTE, 0, 0, 0, 5),
        ("upload", UP, 1, 10, 1, 4),
        ("compute", COMPUTE, 1, 0, 5, 9),
        ("copy-back", DOWN, 0, 10, 5, 7),
        ("host copy", DOWN, 0, 10, 7, 10),
        ("copy-back", DOWN, 1, 10, 10, 11),
        ("host copy", DOWN, 1, 10, 11, 12),
    )
    assert parts(tiles) == {
        "wait for compute": 9, "wait for host copy": 2, "wait for copy-back": 1
    }
    assert tiles.busy()["host copy"] == 4


def test_what_is_computed_side_by_side_is_busy_once():
    parts_of_one = profile(
        9,
        ("compute", "compute stream 1", 0, 0, 1, 4),
        ("compute", "compute stream 2", 0, 0, 2, 3),
        ("compute", "compute stream 3", 0, 0, 3, 6),
        ("compute", "compute stream 1", 1, 0, 7, 9),
    )
    assert parts_of_one.busy()["compute"] == (6 - 1) + (9 - 7)


def test_what_lies_outside_the_call_does_not_count():
    # The clocks of host and GPU are only so close.
    late = profile(
        4,
        ("wait", CALLER, -1, 0, 0, 4),
        ("upload", COMPUTE, 0, 1, -2, 1),
        ("compute", COMPUTE, 0, 0, 1, 6),
    )
    assert parts(late) == {"wait for upload": 1, "wait for compute": 3}


def test_spans_that_touch_and_empty_ones_are_counted_once():
    touching = profile(
        3,
        ("wait", CALLER, -1, 0, 0, 3),
        ("compute", COMPUTE, 0, 0, 0, 1),
        ("compute", COMPUTE, 1, 0, 1, 2),
        ("compute", COMPUTE, 2, 0, 2, 2),
    )
    assert parts(touching) == {"wait for compute": 2, "wait, nothing runs": 1}


def test_the_roofline_is_the_floor_over_the_time_in_compute():
    of = SearchProfile(ONE_TILE.spans, 20, 0.0, 1, floor=1.5)
    assert of.roofline == 0.25
    assert ONE_TILE.roofline is None
    assert SearchProfile([], 20, 0.0, 1, floor=1.5).roofline is None
    assert ComputeStage("filter 1", 2, 4.0, 1.0).roofline == 0.25
    assert ComputeStage("select 1", 2, 4.0, None).roofline is None
    assert ComputeStage("last path", 1, 0.0, 0.0).roofline is None


def test_an_empty_profile_is_all_zero():
    assert set(profile(0.0).caller()) == set(CALLER_PARTS)
    assert not any(profile(0.0).caller().values())
    assert list(profile(0.0).busy()) == list(STAGES)


def test_shows_its_figures():
    assert repr(ONE_TILE).startswith("SearchProfile(2e+04 ms, tiles: 1; ")
    assert "compute 6e+03 ms" in repr(ONE_TILE)


def test_what_took_no_time_is_not_shown():
    assert repr(SearchProfile([], 0.0, 0.0, 0)) == "SearchProfile(0 ms, tiles: 0)"
