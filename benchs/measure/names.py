"""Contenders that a benchmark of the exact engine times and the report looks for."""

from __future__ import annotations

STOCK = "stock"
OURS = "ours, exact"
#: Calls in a row, and one wait: closer to what the GPU takes.
IN_A_ROW = "ours, exact, in a row"

#: After vectors were added, and with nothing changed.
FIRST_SEARCH, NEXT_SEARCH = "first search", "next search"
