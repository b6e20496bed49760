"""Results many times the size of a tile: the shapes of the grid with the most
results for the least computation, so that copy-back is what takes the time."""

from __future__ import annotations

from . import grid

NAME = "large_results"


def run(session):
    """The cells, smallest first."""
    nb, d = session.shapes.large_database
    grid.measure_cells(
        session, NAME, [(n, k, nb, d) for n, k in session.shapes.large_cells])
