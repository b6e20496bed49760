"""A picture of queries beside their nearest neighbours."""

from __future__ import annotations

import os
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch

_INK = "#1f2933"
_GREY = "#7b8794"
_PAPER = "#f7f8fa"
_GREEN = "#2e9e5b"
_RED = "#d64545"
_ROWS = 5


def draw(
    path: str | os.PathLike[str],
    title: str,
    subtitle: str,
    queries: Sequence[tuple[np.ndarray, int]],
    neighbours: Sequence[Sequence[tuple[np.ndarray, int, float]]],
) -> None:
    """Write the picture as a PNG file.

    Parameters
    ----------
    path : path-like
        The file.
    title, subtitle : str
        What stands above.
    queries : sequence of (image, digit)
        Ten; each image of shape [64], 0 to 16.
    neighbours : sequence of sequences of (image, digit, distance)
        For each query as many, the nearest first.
    """
    k = len(neighbours[0])
    # Two blocks side by side; in each a query, a gap and its neighbours.
    block = [1.16, 0.34, *[1.0] * k]
    widths = [*block, 0.75, *block]
    figure = plt.figure(figsize=(14, 9.6), facecolor=_PAPER)
    grid = figure.add_gridspec(
        _ROWS, len(widths), width_ratios=widths,
        left=0.036, right=0.964, top=0.865, bottom=0.095,
        wspace=0.3, hspace=0.56,
    )  # fmt: skip
    figure.text(
        0.031, 0.938, title, size=24, weight="bold", color=_INK, va="center"
    )
    figure.text(0.031, 0.9, subtitle, size=13, color=_GREY, va="center")
    for number, ((image, digit), found) in enumerate(zip(queries, neighbours)):
        column, row = divmod(number, _ROWS)
        first = column * (len(block) + 1)
        axes = figure.add_subplot(grid[row, first])
        _tile(axes, image, _INK, f"query: {digit}", _INK)
        arrow = figure.add_subplot(grid[row, first + 1])
        arrow.axis("off")
        arrow.annotate(
            "", (0.95, 0.5), (0.05, 0.5), xycoords="axes fraction",
            arrowprops={"arrowstyle": "-|>", "color": _GREY, "lw": 1.6},
        )  # fmt: skip
        for rank, (image, found_digit, distance) in enumerate(found):
            colour = _GREEN if found_digit == digit else _RED
            axes = figure.add_subplot(grid[row, first + 2 + rank])
            _tile(axes, image, colour, str(found_digit), colour, distance)
    figure.legend(
        handles=[
            Patch(color=_GREEN, label="the same digit"),
            Patch(color=_RED, label="another digit"),
        ],
        loc="lower left", bbox_to_anchor=(0.024, 0.014), ncols=2,
        frameon=False, fontsize=12, labelcolor=_INK, handlelength=1.2,
    )  # fmt: skip
    figure.text(
        0.969, 0.037, "below each neighbour: its digit and its L2 distance",
        size=12, color=_GREY, ha="right", va="center",
    )  # fmt: skip
    figure.savefig(path, dpi=120, facecolor=_PAPER)
    plt.close(figure)


def _tile(
    axes: Axes,
    image: np.ndarray,
    frame: str,
    label: str,
    colour: str,
    distance: float | None = None,
) -> None:
    """An image in a rounded frame, with a line of text below."""
    axes.imshow(
        image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16,
        interpolation="bicubic", zorder=1,
    )  # fmt: skip
    axes.axis("off")
    axes.add_patch(
        FancyBboxPatch(
            (-0.5, -0.5), 8, 8, boxstyle="round,pad=0.6,rounding_size=0.9",
            facecolor="white", edgecolor=frame, linewidth=2.6,
            clip_on=False, zorder=0,
        )
    )  # fmt: skip
    middle = 3.5
    if distance is None:
        axes.text(
            middle, 9.75, label, size=12.5, weight="bold", color=colour,
            ha="center", va="center",
        )  # fmt: skip
        return
    axes.text(
        middle - 0.5, 9.75, label, size=12.5, weight="bold", color=colour,
        ha="right", va="center",
    )  # fmt: skip
    axes.text(
        middle, 9.78, f"{distance:.1f}", size=10.5, color=_GREY,
        ha="left", va="center",
    )  # fmt: skip
