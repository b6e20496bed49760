"""Results many times the size of a tile: the shapes of the grid with the most
results for the least computation, so that copy-back is what takes the time."""

from __future__ import annotations

from measure.shapes import LARGE_CELLS, LARGE_DATABASE

from . import grid

NAME = "large_results"


def run(session):
    """The cells, smallest first."""
    session.expect(1 if session.smoke else len(LARGE_CELLS))
    if session.smoke:
        grid.measure_cells(session, NAME, 60, 8, [(2000, 50)], seed=10)
    else:
        grid.measure_cells(session, NAME, *LARGE_DATABASE, LARGE_CELLS, seed=10)
