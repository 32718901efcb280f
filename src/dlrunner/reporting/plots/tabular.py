"""Plots of a run on a table: what it predicts, where it errs, which columns matter, what embeddings learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import LIGHT, Floats, Integers, bars, heading, placeholder
from dlrunner.reporting.plots.elements import points as draw_points
from dlrunner.reporting.plots.labels import place_labels
from dlrunner.reporting.plots.number_format import (
    format_amount,
    format_change,
    format_column,
)
from dlrunner.reporting.plots.training import (
    GREY,
    INK,
    PALE,
    principal_components,
    save,
    shorten,
    styled,
)

MOST_CATEGORIES = 31
"""With more categories than this only the worst are shown; the days of a month are all shown."""
MOST_NAMED, FEWER_NAMED = 60, 40
"""With more categories than the first, an embedding's points are not joined, and only the second number are named."""


def error_by(
    groups: Sequence[tuple[str, Sequence[str], Floats, Integers]],
    folder: Path,
    *,
    metric: str,
    overall: float,
    fewest: int = 0,
) -> Plot:
    """Draw error_by.svg: the error by the categories of up to four columns, and the number of rows of each.

    Args:
        groups: for each column its name, its categories, and their errors and numbers of rows, [categories] each.
        folder: where the plot is written.
        metric: name of the error; larger is worse.
        overall: the error of all rows.
        fewest: categories of fewer rows are left out, and counted, where two others are left.
    """
    chosen, rare = [], []
    for name, categories, errors, counts in groups[:4]:
        kept = np.flatnonzero(counts >= fewest)
        kept = kept if len(kept) > 1 else np.arange(len(counts))
        chosen.append((name, [categories[i] for i in kept.tolist()], _gaps(errors)[kept], counts[kept]))
        rare.append(len(counts) - len(kept))
    shown = [
        np.argsort(-np.nan_to_num(e, nan=-np.inf), kind="stable")[:15]
        if len(e) > MOST_CATEGORIES
        else np.arange(len(e))
        for _, _, e, _ in chosen
    ]
    lengths = [0.25 * (max(len(places), 1) + 0.2) for places in shown]  # inches
    heights = [each + 0.75 for each in lengths]
    stacks: list[list[int]] = [[], []]
    for index in range(len(chosen)):  # into the shorter of two stacks
        stacks[sum(heights[i] for i in stacks[1]) < sum(heights[i] for i in stacks[0])].append(index)
    stacks = [stack for stack in stacks if stack] or [[]]
    tall = max(1.7, *(sum(heights[i] for i in stack) for stack in stacks))
    finite = np.concatenate([e[places] for (_, _, e, _), places in zip(chosen, shown, strict=True)] + [[overall]])
    finite = finite[np.isfinite(finite)]
    ends = 1.25 * min(finite.min(initial=0), 0), 1.25 * max(finite.max(initial=0), 0)
    with styled():
        figure = Figure(figsize=(11 if len(stacks) > 1 else 8, tall + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.14))
        average = f" (dashed: {format_amount(overall)} over all rows)" if np.isfinite(overall) else ""
        heading(figure, f"{shorten(metric, 30)} by category{average}")
        grid = figure.add_gridspec(1, len(stacks))
        for column, stack in enumerate(stacks):
            filler = tall - sum(heights[i] for i in stack)
            ratios = [lengths[i] for i in stack] + [filler] * (filler > 0.05)
            inner = grid[0, column].subgridspec(max(len(ratios), 1), 1, height_ratios=ratios or None)
            for row, index in enumerate(stack):
                axes = figure.add_subplot(inner[row])
                _errors_by_category(axes, *chosen[index], shown[index])
                if np.isfinite(overall):
                    axes.axvline(overall, color=INK, linewidth=1, linestyle="--")
                if ends[1] > ends[0]:
                    axes.set_xlim(ends)
                left_out = f" ({rare[index]} of fewer than {fewest} rows left out)" if rare[index] else ""
                axes.set_xlabel(f"{shorten(metric, 30)}{left_out}", parse_math=False, fontsize=9)
        if not chosen:
            placeholder(figure.add_subplot(), "no column to draw")
        return Plot(
            save(figure, folder / "error_by.svg"),
            "The metric by the categories of some columns",
            f"Bar charts of {metric} by the categories of {_listed(groups)}; over all rows it is {overall:.4g}.",
        )


def _errors_by_category(
    axes: Axes, name: str, categories: Sequence[str], errors: NDArray[np.float64], counts: Integers, places: Integers
) -> None:
    """Draw a bar for each of some categories of a column, with its number of rows.

    Args:
        axes: to draw on.
        name: of the column.
        categories, errors, counts: all of them, with their errors and numbers of rows, [categories].
        places: of the categories to draw.
    """
    bars(axes, errors[places], [shorten(categories[i], 20) for i in places])
    for bar, i in enumerate(places):
        note = f"{counts[i]:,}" if np.isfinite(errors[i]) else f"no value, {counts[i]:,}"
        axes.text(1, bar, note, transform=axes.get_yaxis_transform(), ha="right", va="center", **LIGHT)
    which = f": {len(places)} worst of {len(errors):,}" if len(places) < len(errors) else ""
    axes.set_title(f"{shorten(name, 20 if which else 30)}{which}", parse_math=False, x=0)
    axes.set_title("rows", loc="right", fontweight="normal", **LIGHT)


def largest_errors(table: pd.DataFrame, folder: Path) -> Plot:
    """Draw largest_errors.svg: the rows that are predicted worst, as a table.

    Args:
        table: up to 15 rows, in the order to show; the last columns are `truth`, `prediction` and `error`. Of more
            than 10 columns the first 7 and the last 3 are shown.
        folder: where the plot is written.
    """
    number = table.shape[1]
    kept = list(range(number)) if number <= 10 else [*range(7), *range(number - 3, number)]
    columns = [format_column(table.iloc[:15, i], is_amount=i >= number - 3) for i in kept]
    which = "" if len(kept) == number else f" ({number} columns in all)"
    title = f"The validation rows with the largest errors{which}"
    with styled():
        figure = Figure(figsize=(6, 2))
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        gap, line, dpi = 0.28, 0.27, figure.dpi  # inches
        for cut in (30, 22, 16, 11, 8):
            figure.texts.clear()
            texts = [
                [
                    figure.text(0, 0, shorten(cell, cut) or "–", fontsize=9.5, parse_math=False, weight=weight)
                    for cell, weight in zip([str(table.columns[i]), *cells], ["bold"] + ["normal"] * 15, strict=False)
                ]
                for i, (cells, _) in zip(kept, columns, strict=True)
            ]
            widths = [max(text.get_window_extent(renderer).width / dpi for text in column) for column in texts]
            if sum(widths) + gap * len(widths) < 14:
                break
        heading = figure.text(0, 0, title, fontsize=11, weight="bold")
        across = max(sum(widths) + gap * (len(widths) - 1), heading.get_window_extent(renderer).width / dpi)
        gap = (across - sum(widths)) / max(len(widths) - 1, 1)
        down = max(2.0, 0.9 + line * (min(len(table), 15) + 1))
        figure.set_size_inches(across + 0.5, down)
        inches = figure.dpi_scale_trans
        heading.set(transform=inches, position=(0.25, down - 0.35))
        left = 0.25
        for column, width, (_, is_right) in zip(texts, widths, columns, strict=True):
            for row, text in enumerate(column):
                at = left + width if is_right else left
                text.set(transform=inches, position=(at, down - 0.78 - line * row), ha="right" if is_right else "left")
            left += width + gap
        for row in range(min(len(table), 15) + 1):
            height = down - 0.78 - line * row - 0.09
            colour, thick = (GREY, 0.9) if row == 0 else (PALE, 0.7)
            ends = [0.25, 0.25 + across]
            figure.add_artist(Line2D(ends, [height] * 2, transform=inches, color=colour, linewidth=thick))
        if not len(table) or not kept:
            figure.text(0.25, down - 1.3, "no row to draw", color=GREY, transform=inches)
        return Plot(
            save(figure, folder / "largest_errors.svg"),
            "The validation rows with the largest errors (more of them in largest_errors.csv)",
            f"Table of the {len(table)} validation rows with the largest errors.",
        )


def importance(
    names: Sequence[str],
    rises: Floats,
    deviations: Floats,
    folder: Path,
    *,
    metric: str,
    rows: tuple[int, int] | None = None,
    base: str | None = None,
) -> Plot:
    """Draw importance.svg: permutation importance (Breiman, 2001), at most the 30 most important columns.

    Args:
        names: of the columns.
        rises: [columns], how much worse the metric gets when the column is shuffled; positive is worse.
        deviations: [columns], standard deviations of the rises over the shuffles.
        folder: where the plot is written.
        metric: its name.
        rows: in how many of how many validation rows it was shuffled.
        base: the column to which the outputs are added.
    """
    caption = "Permutation importance: how much the metric gets worse when a column is shuffled"
    if base is not None:
        caption += f"; outputs are added to {base}, which stays in place while another column is shuffled"
    worse, std = _gaps(rises), np.nan_to_num(_gaps(deviations))
    order = np.argsort(-np.nan_to_num(worse, nan=-np.inf), kind="stable")[:30]
    with styled():
        figure = Figure(figsize=(9, 1.7 + 0.26 * max(len(order), 3)), layout="constrained")
        axes = figure.add_subplot()
        which = f" (the {len(order)} that matter most of {len(names):,})" if len(order) < len(names) else ""
        heading(figure, f"How much worse it predicts when one column is shuffled{which}")
        if not len(order):
            placeholder(axes, "no column to draw")
            return Plot(
                save(figure, folder / "importance.svg"),
                caption,
                "An empty bar chart: there is no column to shuffle.",
            )
        notes = [format_change(worse[i]) if np.isfinite(worse[i]) else "no value" for i in order]
        labels = [f"{shorten(names[i], 40)}{' (base of outputs)' * (names[i] == base)}" for i in order]
        bars(axes, worse[order], labels, notes, std[order])
        part = f" in {rows[0]:,} of {rows[1]:,} rows" if rows and rows[0] < rows[1] else ""
        whiskers = "whiskers: standard deviation over the shuffles"
        axes.set_xlabel(f"{shorten(metric, 20)}: how much worse{part} ({whiskers})", parse_math=False)
        return Plot(
            save(figure, folder / "importance.svg"),
            caption,
            f"Bar chart of how much worse {metric} gets: most by {', '.join(names[i] for i in order[:3])}.",
        )


def embeddings(tables: Sequence[tuple[str, Sequence[str], Floats]], folder: Path) -> Plot:
    """Draw embeddings.svg: the categories of up to four columns on the first two principal components of their vectors.

    Args:
        tables: for each column its name, its categories and their vectors [categories, size]; for vectors of one
            number the order of the categories replaces the second component. Whole numbers are joined in their order.
        folder: where the plot is written.
    """
    tables = tables[:4]
    down, across = (2, 2) if len(tables) == 4 else (1, max(len(tables), 1))
    with styled():
        figure = Figure(figsize=((7.5, 11.5, 15.5)[across - 1], 5.4 * down + 0.5))
        heading(figure, "Embeddings: categories that are close are treated alike")
        named = []
        for place, (name, categories, vectors) in enumerate(tables):
            axes = figure.add_subplot(down, across, place + 1)
            finite = np.flatnonzero(np.isfinite(vectors).all(axis=1))
            if not len(finite) or not vectors.shape[1]:
                axes.set_title(shorten(name, 40), parse_math=False)
                placeholder(axes, "no category to draw")
                continue
            categories = [categories[i] for i in finite.tolist()]
            points = _plane(axes, categories, np.asarray(vectors)[finite])
            picked = _spread(points, FEWER_NAMED) if len(points) > MOST_NAMED else np.arange(len(points))
            which = f": {len(picked)} of {len(points):,} named" if len(picked) < len(points) else ""
            axes.set_title(f"{shorten(name, 24 if which else 40)}{which}", parse_math=False)
            named.append((axes, points[picked], [shorten(categories[i], 22) for i in picked.tolist()]))
        if not tables:
            placeholder(figure.add_subplot(), "no embedding to draw")
        ConstrainedLayoutEngine().execute(figure)  # once, and draws nothing; label positions depend on the points
        for axes, points, words in named:
            place_labels(figure, axes, points, words, np.full(len(points), 30.0))
        return Plot(
            save(figure, folder / "embeddings.svg"),
            "Embeddings of the categories on two principal components",
            f"Scatter plots of the categories of {_listed(tables)}: two principal components of their embeddings.",
        )


def _listed(columns: Sequence[tuple[Any, ...]]) -> str:
    """Name the columns that are drawn, each the first of its tuple."""
    return ", ".join(str(column[0]) for column in columns[:4]) or "no column"


def _plane(axes: Axes, categories: Sequence[str], vectors: Floats) -> NDArray[np.float64]:
    """Draw categories on two components, joined in their order where they are whole numbers; return the points."""
    scores, shares = principal_components(vectors, 2)
    in_order = np.arange(1.0, len(categories) + 1)
    points = np.stack([scores[:, 0], scores[:, 1] if scores.shape[1] > 1 else in_order], axis=1)
    if 2 < len(categories) <= MOST_NAMED and all(
        re.fullmatch(r"[+-]?\d{1,15}(\.0*)?", str(each)) for each in categories
    ):
        order = np.argsort([float(each) for each in categories], kind="stable")
        axes.plot(*points[order].T, color=GREY, alpha=0.35, linewidth=0.9, zorder=1)
    size, alpha = (30, 0.75) if len(points) <= MOST_NAMED else (15, 0.4)
    draw_points(axes, *points.T, size=size, alpha=alpha)
    axes.margins(0.14, 0.08)
    axes.set_xlabel(f"component 1 ({shares[0]:.0%} of the variance)")
    if len(shares) > 1:
        axes.set_ylabel(f"component 2 ({shares[1]:.0%} of the variance)")
    else:
        axes.set_ylabel("place in the order of the categories")
        axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    return points


def _spread(points: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Return the places of a number of points that lie far from each other, the outermost first.

    >>> _spread(np.array([[0.0, 0.0], [0.1, 0.0], [9.0, 0.0], [5.0, 0.0]]), 3).tolist()
    [2, 0, 3]
    """
    distances = np.sum((points - points.mean(axis=0)) ** 2, axis=1)
    picked: list[int] = []
    for _ in range(number):
        picked.append(int(distances.argmax()))
        new = np.sum((points - points[picked[-1]]) ** 2, axis=1)
        distances = new if len(picked) == 1 else np.minimum(distances, new)
    return np.array(picked)


def _gaps(values: Floats) -> NDArray[np.float64]:
    """Return values in double precision; infinite ones are NaN."""
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    return np.where(np.isfinite(numbers), numbers, np.nan)
