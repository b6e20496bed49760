"""The pictures of RESULTS.md, as SVG."""

from __future__ import annotations

import math
import pathlib

from measure.floors import COMPUTE
from measure.shapes import WHOLE
from measure.timing import QUANTILES

from . import engine
from .data import Results, few_queries


def draw(results: Results, folder: pathlib.Path) -> list[tuple[str, str]]:
    """Draw what was measured; returns (file name, caption) of each picture."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({
        "svg.hashsalt": "faiss_ext", "svg.fonttype": "none", "font.size": 9,
    })
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    made = []
    for name, caption, plot in (
        ("engine.svg",
         "Times the speed of the fastest of all others that the exact engine has, all "
         "arrays on the GPU (log scale of colours; grey: not measured)", _engine),
        ("speed_up.svg",
         "Times stock Faiss' speed, no output arrays given (log scale of colours; "
         "grey: not measured)", _speed_up),
        ("copy_back_share.svg",
         "Share of a search that is there because its results come to the host: "
         "above stock Faiss into touched memory, against stock Faiss in C++ with all "
         "arrays on the GPU; below ours into pinned memory, against ours with the "
         "results on the GPU (grey: not measured)", _copy_back_share),
        ("latency.svg",
         "Distribution of the latency of one query, k = 100", _latency),
    ):
        figure = plot(results)
        if figure is not None:
            if any(content["made_up"] for content in results.records):
                figure.suptitle("MADE UP FOR A TEST")
            figure.savefig(
                folder / name, metadata={"Date": None}, bbox_inches="tight"
            )
            made.append((name, caption))
    return made


def _heat_maps(values, norm, colours, show, ticks,
               databases=WHOLE.databases, numbers=WHOLE.queries):
    """A row of maps for each (label, function of a case), one a database, n, of
    these `numbers`, against k; None if there is nothing on them."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(values), len(databases),
        figsize=(10 / 3 * max(len(databases), 3), 3.2 * len(values)),
        layout="constrained", sharey=True, squeeze=False,
    )
    images = [
        _heat_map(axis, value, nb, d, numbers, norm, colours, show)
        for line, (_, value) in zip(axes, values)
        for axis, (nb, d) in zip(line, databases)
    ]
    image = next(filter(None, images), None)
    if image is None:
        plt.close(figure)
        return None
    for line, (label, _) in zip(axes, values):
        line[0].set_ylabel(f"{label}\nqueries n" if label else "queries n")
    for axis in axes[-1]:
        axis.set_xlabel("k")
    bar = figure.colorbar(image, ax=axes, ticks=ticks)
    bar.ax.minorticks_off()
    bar.ax.set_yticklabels([f"{tick:g}" for tick in ticks])
    return figure


def _heat_map(axis, value, nb, d, rows, norm, colours, show):
    """One of them; its image, or None if nothing is on it."""
    import numpy as np

    columns = WHOLE.neighbours
    grid = np.full((len(rows), len(columns)), np.nan)
    for i, n in enumerate(rows):
        for j, k in enumerate(columns):
            found = value({"n": n, "k": k, "nb": nb, "d": d})
            if found is not None:
                grid[i, j] = found
                axis.text(j, i, show(found), ha="center", va="center",
                          bbox={"boxstyle": "round,pad=0.15", "lw": 0,
                                "fc": "white", "alpha": 0.7})
    axis.set_facecolor("0.85")
    axis.set_title(f"nb = {nb:,}, d = {d}")
    image = None
    if not np.isnan(grid).all():
        image = axis.imshow(grid, norm=norm, cmap=colours, aspect="auto",
                            origin="lower")
    axis.set_xlim(-0.5, len(columns) - 0.5)
    axis.set_ylim(-0.5, len(rows) - 0.5)
    axis.set_xticks(range(len(columns)), [f"{k:,}" for k in columns])
    axis.set_yticks(range(len(rows)), [f"{n:,}" for n in rows])
    return image


def _speed_up(results):
    import matplotlib.colors as colors

    return _heat_maps(
        [("", lambda case: results.ratio("grid", case, "stock", "ours pooled"))],
        colors.LogNorm(1 / 8, 8),
        "RdBu",
        lambda ratio: f"{ratio:.2f}",
        (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8),
    )


def _engine(results):
    import matplotlib.colors as colors

    best = {
        tuple(sorted(cell.case.items())): cell.best[0]
        for cell in engine.cells(results) if cell.best
    }
    numbers = {n for n, *_ in WHOLE.engine_cells()}
    return _heat_maps(
        [("", lambda case: best.get(tuple(sorted(case.items()))))],
        colors.LogNorm(1 / 16, 16),
        "RdBu",
        lambda ratio: f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
        (1 / 16, 1 / 4, 1, 4, 16),
        WHOLE.engine_databases,
        sorted(numbers),
    )


def _copy_back_share(results):
    import matplotlib.colors as colors

    def share(without, within):
        def value(case):
            part = results.shares("grid", case, without, within)
            return None if part is None else 1 - part

        return value

    return _heat_maps(
        [("stock Faiss", share(COMPUTE, "stock touched")),
         ("ours", share("ours GPU", "ours GPU queries, pinned"))],
        colors.Normalize(0, 1), "Blues",
        lambda value: f"{round(100 * value)} %",
        (0, 0.25, 0.5, 0.75, 1),
    )


def _style(name):
    """Ours are solid lines, stock Faiss' dashed, other libraries' dotted."""
    return "-" if "ours" in name else "--" if "stock" in name else ":"


def _latency(results):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(WHOLE.small_databases), figsize=(10, 3.4), layout="constrained"
    )
    names = []
    # Without the slowest of all calls, which would take up the axis.
    shares = [share for share in QUANTILES if share < 1]
    for axis, (nb, d) in zip(axes, WHOLE.small_databases):
        case = few_queries(1, nb, d, "latency")
        for name in results.contenders("small_batches", case):
            if name.endswith("again"):
                continue
            if name not in names:
                names.append(name)
            found = results.get("small_batches", case, name).entry["quantiles_s"]
            axis.plot(
                [1e6 * value for value in found[: len(shares)]], shares, label=name,
                linestyle=_style(name), color=f"C{names.index(name) % 10}",
                marker="o", markersize=2.5,
            )
        axis.set_title(f"one query, nb = {nb:,}, d = {d}")
        axis.set_xlabel("microseconds")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(
            lambda value, _: f"{value:g}"
            if value / 10 ** math.floor(math.log10(value)) in (2, 5) else ""
        )
        axis.grid(alpha=0.3, which="both")
    if not names:
        plt.close(figure)
        return None
    axes[0].set_ylabel("share of calls that take no longer")
    handles = {
        line.get_label(): line for axis in axes for line in axis.lines
    }
    figure.legend(handles.values(), handles, loc="outside right upper", fontsize=8)
    return figure
