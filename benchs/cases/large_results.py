"""Results many times the size of a tile: the shapes of the grid with the most
results for the least computation, so that copy-back is what takes the time."""

from __future__ import annotations

from . import grid

NAME = "large_results"

#: (nb, d), and cells (n, k) of 0.1 to 2.4 GB of results; a tile is 16 MiB.
DATABASE = (10_000, 64)
CELLS = ((100_000, 100), (100_000, 1000), (200_000, 1000))


def run(session):
    """The cells, smallest first."""
    if session.smoke:
        grid.measure_cells(session, NAME, 60, 8, [(2000, 50)], seed=10)
    else:
        grid.measure_cells(session, NAME, *DATABASE, CELLS, seed=10)
