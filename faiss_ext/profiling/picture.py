"""The document of a profile as a picture: where the time goes, and how the
tiles of one search lie beside each other. Needs Matplotlib."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np

from ..errors import UserError
from .cases import Case
from .search_profile import CALLER_PARTS
from .table import LABELS, seconds_of
from .trace import lanes_of, middle

__all__ = ["check_picture", "draw"]

_STAGE_COLOURS = {
    "host read": "#9c755f",
    "upload": "#4e79a7",
    "compute": "#59a14f",
    "copy-back": "#e15759",
    "host copy": "#f28e2b",
    "wait": "#e3e6ea",
}
_REST = {"enqueue": "#7b8794", "wait, nothing runs": "#c6ccd3"}

#: The parts of the bars, and their stage's colour.
_PARTS = {
    part: _REST.get(part) or _STAGE_COLOURS[part.removeprefix("wait for ")]
    for part in CALLER_PARTS
}
# Waiting for a copy and doing it are told apart by hatching.
_HATCHED = ("host read", "host copy")
_STOCK = {
    "upload": "wait for upload",
    "compute": "wait for compute",
    "copy-back": "wait for copy-back",
}


def check_picture(path: str) -> None:
    """Raise UserError unless a picture can be drawn under this name."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise UserError(
            "--picture needs Matplotlib, and there is none (pip install "
            "matplotlib)"
        ) from None
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if _format(path) not in known:
        raise UserError(
            f"the picture {path} has the suffix '{os.path.splitext(path)[1]}', "
            f"expected one of {', '.join('.' + name for name in known)}"
        )


def draw(document: dict[str, Any], path: str, file: BinaryIO) -> None:
    """Write the picture in the format that `path` names."""
    from matplotlib.figure import Figure

    cases = document["cases"]
    heights = [0.8 + 0.8 * len(cases), 2.5]
    figure = Figure(figsize=(11, sum(heights) + 1), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=heights)
    about = document["environment"]
    figure.suptitle(
        f"{about['gpu']}, Faiss {about['faiss']}, faiss_ext "
        f"{about['faiss_ext']}, {about['date']}",
        fontsize=9,
    )
    _draw_bars(above, cases)
    most_tiles = max(
        cases, key=lambda case: middle(case["profiles"]["given"])["tiles"]
    )
    _draw_lanes(below, most_tiles)
    figure.savefig(file, format=_format(path), dpi=150)


def _format(path: str) -> str:
    return os.path.splitext(path)[1].removeprefix(".").lower()


def _draw_bars(axes: Any, cases: list[dict[str, Any]]) -> None:
    """The caller's time, one bar for each variant of each case, in units of
    that of stock Faiss: so cases of very different times stand side by side."""
    names, rows, totals, units = [], [], [], []
    for case in cases:
        shape = f"n {case['n']}, k {case['k']}, nb {case['nb']}, d {case['d']}"
        of_stock = float(np.median(seconds_of(case, "stock")))
        stock = dict.fromkeys(_PARTS, 0.0)
        for stage, part in _STOCK.items():
            # A difference of medians may be negative, within the noise.
            stock[part] = max(0.0, case["stock"][stage])
        for name in ("stock", "given", "pooled"):
            names.append(f"{shape}: {LABELS[name]}")
            units.append(of_stock)
            if name == "stock":
                rows.append(stock)
                totals.append(of_stock)
            else:
                profile = middle(case["profiles"][name])
                rows.append(profile["caller"])
                totals.append(profile["seconds"])
    left = np.zeros(len(rows))
    for part, colour in _PARTS.items():
        widths = np.array([row[part] for row in rows]) / units
        if widths.any():
            axes.barh(
                names, widths, left=left, label=part, color=colour,
                hatch="//" if part in _HATCHED else None, edgecolor="white",
                linewidth=0.4,
            )
        left += widths
    for bar, total in enumerate(totals):
        axes.text(
            left[bar], bar, f" {total * 1e3:.4g} ms", va="center", fontsize=7
        )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * left.max())
    axes.set_xlabel("time over that of stock Faiss, which is split by difference")
    axes.set_title("Where the caller's time goes", loc="left")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    axes.tick_params(labelsize=7)


def _draw_lanes(axes: Any, case: dict[str, Any]) -> None:
    """The tiles of one search, by lane."""
    profile = middle(case["profiles"]["given"])
    lanes = lanes_of(profile)
    for span in profile["spans"]:
        begin = span["begin"] * 1e3
        width = (span["end"] - span["begin"]) * 1e3
        lane = lanes.index(span["lane"])
        axes.barh(
            lane, width, left=begin, height=0.8, edgecolor="white",
            linewidth=0.5, color=_STAGE_COLOURS[span["stage"]],
        )
        # As many numbers as there is room for.
        if span["tile"] >= 0 and width > profile["seconds"] * 1e3 / 60:
            axes.text(
                begin + width / 2, lane, str(span["tile"]), ha="center",
                va="center", fontsize=6, color="white",
            )
    axes.set_yticks(range(len(lanes)), lanes, fontsize=7)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.tick_params(labelsize=7)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds since the call")
    shape = Case(**{name: case[name] for name in Case._fields})
    tiles = profile["tiles"]
    axes.set_title(
        f"{LABELS['given']}: {tiles} tile{'s' if tiles > 1 else ''} of {shape}",
        loc="left",
    )
    axes.legend(
        handles=_legend(), fontsize=7, loc="upper left", bbox_to_anchor=(1, 1)
    )


def _legend() -> list[Any]:
    from matplotlib.patches import Patch

    return [
        Patch(color=colour, label=stage)
        for stage, colour in _STAGE_COLOURS.items()
    ]
