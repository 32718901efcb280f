"""Plots of regression: predictions, residuals, intervals between quantiles, partial dependence on columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import LIGHT, Floats, density, heading, interval_of_fraction, placeholder
from dlrunner.reporting.plots.number_format import (
    TICK_STEPS,
    amount_tick,
    format_amount,
    number_tick,
    set_amount_ticks,
)
from dlrunner.reporting.plots.training import (
    BLUE,
    GREY,
    INK,
    RED,
    conditional_means,
    save,
    shorten,
    styled,
)

MOST_DOTS = 150
"""Rows whose intervals are drawn."""
MOST_QUANTILES = 500
"""Points of a quantile-quantile plot."""


@dataclass(frozen=True)
class Dependence:
    """How the mean prediction depends on one column."""

    column: str
    values: Sequence[float] | Sequence[str]
    """Numbers in ascending order, or categories."""
    means: NDArray[np.float64]
    """[values, curves]"""
    deciles: Sequence[float] = ()
    """Of the numbers among the rows."""


def predictions(truth: Floats, predicted: Floats, folder: Path, *, name: str, log: bool = False) -> Plot:
    """Draw predictions.svg: validation rows by prediction and truth, and their errors next to it.

    Args:
        truth: [rows], in the target's own unit.
        predicted: [rows], likewise.
        folder: where the plot is written.
        name: of the target.
        log: logarithmic axes and relative errors; rows whose truth or prediction is not positive are not drawn.
    """
    y, x = (np.asarray(each, dtype=np.float64).reshape(-1) for each in (truth, predicted))
    known = np.isfinite(x) & np.isfinite(y)
    notes = [f"{known.sum():,} {'row' if known.sum() == 1 else 'rows'}"]
    if not known.all():
        notes.append(f"{np.sum(~known):,} more without a finite value")
    x, y = x[known], y[known]
    if len(x):
        notes.append(f"RMSE {format_amount(float(np.sqrt(np.mean((x - y) ** 2))))}")
        if (y > 0).all():
            notes.append(f"RMSPE {format_amount(float(np.sqrt(np.mean((x / y - 1) ** 2))))}")
    if log and (drawable := (x > 0) & (y > 0)).sum() < len(x):
        notes.append(f"{np.sum(~drawable):,} not positive, not drawn")
        x, y = x[drawable], y[drawable]
    with styled():
        figure = Figure(figsize=(10.4, 5.6), layout="constrained")
        heading(figure, f"{shorten(name, 40)}: validation rows and their predictions")
        axes, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.85, 1)})
        if not len(x):
            placeholder(axes, "no row to draw")
            right.set_axis_off()
            return Plot(
                save(figure, folder / "predictions.svg"),
                "Predictions on the validation rows",
                f"Scatter plot of {len(truth):,} validation rows, prediction by truth, and a histogram of the errors.",
            )
        low, high = _limits(np.concatenate([x, y]), log)
        ends = np.log10([low, high]) if log else np.array([low, high])
        size = int(np.clip(np.sqrt(len(x)), 14, 45))
        drawn = density(axes, x, y, size=size, extent=(*ends, *ends), scale="log" if log else "linear")
        bar = figure.colorbar(drawn, ax=axes, label="rows in a cell", format=FuncFormatter(number_tick), aspect=40)
        bar.ax.tick_params(labelsize=8)
        bar.minorticks_off()
        axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle="--", label="truth = prediction")
        axes.plot(*conditional_means(x, y), "o-", color=RED, linewidth=1.5, label="mean truth at that prediction")
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="prediction", ylabel="truth", box_aspect=1)
        for axis in (axes.xaxis, axes.yaxis):
            set_amount_ticks(axis, low, high, log)
        frame = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
        axes.text(0.025, 0.975, "\n".join(notes), va="top", transform=axes.transAxes, linespacing=1.4, bbox=frame)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, borderaxespad=0.2)
        _errors(right, x / y - 1 if log else x - y, log, float(np.abs(y).max()))
        return Plot(
            save(figure, folder / "predictions.svg"),
            "Predictions on the validation rows",
            f"Scatter plot of {len(truth):,} validation rows, prediction by truth, and a histogram of the errors.",
        )


def residuals(truth: Floats, predicted: Floats, folder: Path, *, name: str) -> Plot:
    """Draw residuals.svg: truth minus prediction by prediction, and its quantiles against those of a normal one.

    Args:
        truth: [rows], in the target's own unit.
        predicted: [rows], likewise; rows without finite values are left out.
        folder: of the PNG.
        name: of the target.
    """
    known = np.isfinite(truth) & np.isfinite(predicted)
    x, errors = np.asarray(predicted, np.float64)[known], np.asarray(truth - predicted, np.float64)[known]
    with styled():
        figure = Figure(figsize=(10.4, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        if len(x):
            std = format_amount(float(errors.std()), 3)
            heading(
                figure, f"{shorten(name, 40)}: residuals (mean {format_amount(float(errors.mean()), 3)}, std {std})"
            )
            _residuals_by_prediction(left, x, errors)
            _against_normal(right, errors)
            bar = figure.colorbar(
                left.collections[0], ax=left, label="rows in a cell", format=FuncFormatter(number_tick), aspect=40
            )
            bar.ax.tick_params(labelsize=8)
            bar.minorticks_off()
        else:
            heading(figure, f"{shorten(name, 40)}: residuals")
            for axes in (left, right):
                placeholder(axes, "no row to draw")
        return Plot(
            save(figure, folder / "residuals.svg"),
            "Residuals by prediction, and against a normal distribution (validation)",
            f"Density plot of the residuals of {len(x):,} rows by prediction, and their normal quantile-quantile plot.",
        )


def intervals(truth: Floats, quantiles: Floats, levels: Sequence[float], folder: Path, *, name: str) -> Plot:
    """Draw intervals.svg: the fraction of truths below each quantile, and the intervals of some rows.

    Args:
        truth: [rows], in the target's own unit.
        quantiles: [rows, levels], ascending.
        levels: of the quantiles.
        folder: of the PNG.
        name: of the target.
    """
    y, q = np.asarray(truth, np.float64), np.asarray(quantiles, np.float64)
    below = (y[:, None] <= q).mean(axis=0) if len(y) else np.full(len(levels), np.nan)
    within = float(np.mean((q[:, 0] <= y) & (y <= q[:, -1]))) if len(y) else float("nan")
    nominal = levels[-1] - levels[0]
    covered = f"; {within:.1%} of the rows are within the {nominal:.0%} interval" if len(levels) > 1 else ""
    with styled():
        figure = Figure(figsize=(10.8, 4.6), layout="constrained")
        heading(figure, f"{shorten(name, 30)}: quantiles of {len(y):,} validation rows{covered}")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
        left.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
        left.vlines(levels, *interval_of_fraction(below, max(1, len(y))), color=BLUE, linewidth=1.2)
        left.plot(levels, below, "o", color=BLUE)
        for level, fraction in zip(levels, below, strict=True):
            left.annotate(f"{fraction:.1%}", (level, fraction), (7, -9), textcoords="offset points", **LIGHT)
        left.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel="quantile", ylabel="rows with a truth below it")
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        _intervals_of_rows(right, y, q, levels)
        return Plot(
            save(figure, folder / "intervals.svg"),
            "Predicted quantiles: how many rows are below each, and the intervals of some rows (validation)",
            f"Dot plot of the fraction of rows below each of {len(levels)} quantiles{covered}; intervals of some rows.",
        )


def partial_dependence(
    found: Sequence[Dependence], folder: Path, *, what: str, curves: Sequence[str] = (), rows: int = 0
) -> Plot:
    """Draw partial_dependence.svg: the mean prediction where one column has the same value in all rows.

    Source: Friedman, Greedy function approximation, 2001, https://doi.org/10.1214/aos/1013203451.

    Args:
        found: at most six columns are drawn.
        folder: of the PNG.
        what: is predicted.
        curves: names of the curves, if there are several.
        rows: number of rows in each mean.
    """
    found = found[:6]
    across, down = min(3, max(1, len(found))), -(-max(1, len(found)) // 3)
    with styled():
        figure = Figure(figsize=(3.7 * across + 0.6, 2.9 * down + 0.8), layout="constrained")
        heading(figure, f"{shorten(what, 40)} by one column, the others as they are")
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        for axes, each in zip(grid.flat, found, strict=False):
            _dependence(axes, each)
        if not found:
            placeholder(grid[0, 0], "no column to draw")
        for axes in grid[:, 0]:
            axes.set_ylabel(f"mean {shorten(what, 22)}", parse_math=False, fontsize=9)
        if curves and found:
            lines = grid[0, 0].lines[: len(curves)]
            legend = figure.legend(lines, [shorten(each, 24) for each in curves], loc="outside lower left", ncols=4)
            for text in legend.get_texts():
                text.set_parse_math(False)
        return Plot(
            save(figure, folder / "partial_dependence.svg"),
            f"Partial dependence on the most important columns (mean over {rows:,} validation rows; ticks: deciles)",
            f"Line plots of the mean prediction by {', '.join(each.column for each in found) or 'no column'}.",
        )


def _errors(axes: Axes, errors: NDArray[np.float64], is_relative: bool, largest: float) -> None:
    """Draw the distribution of errors, with their median; what lies beyond the axis is in the outermost bars."""
    reach = 1.5 * float(np.quantile(np.abs(errors), 0.99))
    reach = min(reach, 1.0) if is_relative else reach
    reach = max(reach, 1e-3 if is_relative else 1e-6 * largest) or 1.0
    bins = int(np.clip(np.sqrt(len(errors)), 5, 20)) * 2 + 1  # odd: one in the middle
    axes.hist(np.clip(errors, -reach, reach), bins=bins, range=(-reach, reach), color=BLUE)
    median = float(np.median(errors))
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.axvline(float(np.clip(median, -reach, reach)), color=RED, linestyle="--", linewidth=1.3)
    written = f"{median:+.2%}".replace("-", "−") if is_relative else f"{'+' * (median > 0)}{format_amount(median, 3)}"
    axes.set_title(f"{'Relative error' if is_relative else 'Error'}, median {written}", fontweight="normal")
    more = "\n(the outermost bars: and beyond)" if np.abs(errors).max() > reach else ""
    axes.set_xlabel(("prediction / truth − 1" if is_relative else "prediction − truth") + more)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
    axes.xaxis.set_major_formatter(PercentFormatter(1) if is_relative else FuncFormatter(amount_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(amount_tick))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=(1, 2, 5, 10)))
    axes.set_ylabel("rows")


def _limits(values: NDArray[np.float64], is_log: bool) -> tuple[float, float]:
    """Return the limits of both axes: all but the most extreme values, with a margin."""
    low, high = (float(v) for v in np.quantile(np.log(values) if is_log else values, [0.0005, 0.9995]))
    margin = 0.04 * (high - low)
    if margin <= 1e-9 * max(abs(low), abs(high), 1e-30):
        margin = 0.5 if is_log else 0.5 * abs(low) or 1.0
    return (float(np.exp(low - margin)), float(np.exp(high + margin))) if is_log else (low - margin, high + margin)


def _residuals_by_prediction(axes: Axes, x: NDArray[np.float64], errors: NDArray[np.float64]) -> None:
    low, high = np.quantile(x, [0.001, 0.999])
    reach = 1.2 * float(np.quantile(np.abs(errors), 0.995)) or 1.0
    margin = 0.04 * (high - low) or 0.5 * abs(low) or 1.0
    ends = (low - margin, high + margin, -reach, reach)
    size = int(np.clip(np.sqrt(len(x)), 14, 40))
    density(axes, x, errors, size=size, extent=ends)
    axes.axhline(0, color=INK, linewidth=1, linestyle="--")
    axes.plot(*conditional_means(x, errors), "o-", color=RED, linewidth=1.5, label="mean at that prediction")
    axes.set(xlim=ends[:2], ylim=ends[2:], xlabel="prediction", ylabel="truth − prediction")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), borderaxespad=0.2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
        axis.set_major_formatter(FuncFormatter(amount_tick))


def _against_normal(axes: Axes, errors: NDArray[np.float64]) -> None:
    """Draw a normal quantile-quantile plot."""
    from scipy.special import ndtri

    number = min(len(errors), MOST_QUANTILES)
    levels = (np.arange(number) + 0.5) / number
    expected = ndtri(levels)
    axes.plot(expected, np.quantile(errors, levels), "o", color=BLUE, markersize=3)
    ends = np.array([expected[0], expected[-1]])
    axes.plot(ends, errors.mean() + ends * errors.std(), color=INK, linewidth=1, linestyle="--", label="normal")
    axes.set(xlabel="quantile of a normal distribution", ylabel="quantile of the residuals")
    axes.legend(loc="upper left")
    axes.yaxis.set_major_formatter(FuncFormatter(amount_tick))


def _intervals_of_rows(axes: Axes, y: NDArray[np.float64], q: NDArray[np.float64], levels: Sequence[float]) -> None:
    """Draw the intervals of rows in the order of their middle quantile, with the truth."""
    if not len(y):
        placeholder(axes, "no row to draw")
        return
    middle = int(np.abs(np.asarray(levels) - 0.5).argmin())
    order = np.argsort(q[:, middle], kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_DOTS)).round().astype(int))]
    places, inside = np.arange(len(shown)), (q[shown, 0] <= y[shown]) & (y[shown] <= q[shown, -1])
    axes.vlines(places, q[shown, 0], q[shown, -1], color="#c3dcec", linewidth=max(1.5, 250 / len(shown)))
    axes.plot(places, q[shown, middle], color=BLUE, linewidth=1.3, label=f"quantile {levels[middle]:g}")
    axes.plot(places[inside], y[shown][inside], "o", color=INK, markersize=3, label="truth within the interval")
    axes.plot(places[~inside], y[shown][~inside], "D", color=RED, markersize=3.5, label="truth outside")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, borderaxespad=0.2, fontsize=8)
    axes.set_xlabel(f"{len(shown):,} of {len(y):,} rows, in the order of the quantile {levels[middle]:g}")
    axes.yaxis.set_major_formatter(FuncFormatter(amount_tick))
    axes.tick_params(labelbottom=False, length=0)


def _dependence(axes: Axes, found: Dependence) -> None:
    axes.set_title(shorten(found.column, 28), parse_math=False, fontsize=10)
    if found.values and isinstance(found.values[0], str):
        names = [shorten(str(each), 14) for each in found.values]
        axes.plot(range(len(names)), found.means, "o", markersize=5)
        axes.margins(x=0.12)
        axes.set_xticks(range(len(names)), names, parse_math=False, rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", labelsize=8)
    else:
        axes.plot(found.values, found.means, linewidth=1.8)
        axes.plot(found.deciles, np.zeros(len(found.deciles)), "|", color=GREY, transform=axes.get_xaxis_transform())
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=TICK_STEPS))
        axes.xaxis.set_major_formatter(FuncFormatter(amount_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(amount_tick))
