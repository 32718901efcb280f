"""Plots of a comparison: curves by epoch, intervals of the groups, and the importance of settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from dlrunner.comparison.collect import shown
from dlrunner.comparison.groups import REPEATS, Comparison, Group
from dlrunner.comparison.importance import Importance, ValueGroup
from dlrunner.errors import ConfigError
from dlrunner.reporting.plots import training as plots
from dlrunner.reporting.plots.number_format import number_tick, short_number
from dlrunner.reporting.plots.training import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, SKY
from dlrunner.reporting.terminal.progress import number

COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, INK, "#8a6d3b")
"""Of the best groups, in their order; further groups are grey."""
LIGHT_GREY = "#c4c4c4"
MOST_BARS = 12
MOST_INTERVALS = 30
MOST_LETTERS = 46
MOST_POINTS = 40
"""With more runs of one value they are drawn fainter."""


def curves(comparison: Comparison, path: Path) -> int:
    """Draw the metric by epoch, a colour per group: a thin line for each run, a thick one for their mean.

    With more than eight groups the best eight are coloured, and the others are grey.

    Args:
        comparison: runs with one metric that is recorded by epoch.
        path: of the plot; its suffix is the format.

    Returns the number of runs without a history, which are not drawn.

    Raises:
        ConfigError: the metric is not recorded by epoch, or the runs have different ones.
    """
    name = comparison.metric
    if name is None:
        raise ConfigError("--curves: these runs have different metrics; --metric NAME compares all by one")
    found = [(group, [_curve(row.history, name) for row in group.rows]) for group in comparison.groups]
    drawn = [(group, lines) for group, lines in found if any(len(epochs) for epochs, _ in lines)]
    if not drawn:
        raise ConfigError(f"--curves: {name} is not recorded by epoch in any of these runs")
    with plots.styled():
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for _, lines in reversed(drawn[len(COLOURS) :]):
            for epochs, values in lines:
                _draw(axes, epochs, values, LIGHT_GREY, linewidth=0.7, alpha=0.7 if len(drawn) < 60 else 0.4)
        for (group, lines), colour in reversed(list(zip(drawn, COLOURS, strict=False))):
            _draw_group(axes, group, lines, colour)
        handles, labels = axes.get_legend_handles_labels()
        num_grey = len(drawn) - len(COLOURS)
        which = "best" if comparison.num_validation_sets == 1 else "first"
        best = f": the {which} {len(COLOURS)} of {len(drawn)} groups" if num_grey > 0 else ""
        axes.set_title(f"{name} by epoch{best}", parse_math=False)
        if num_grey > 0:
            (grey,) = axes.plot([], [], color=LIGHT_GREY, linewidth=1.5)
            handles, labels = [grey, *handles], [f"the other {num_grey} groups", *labels]
        legend = figure.legend(handles[::-1], labels[::-1], loc="outside right upper", title=_legend_title(comparison))
        legend.set_alignment("left")
        for text in legend.get_texts():
            text.set_parse_math(False)
        _frame(axes, [line for _, lines in drawn[: len(COLOURS)] for line in lines], drawn)
        plots.save(figure, path)
    return len(comparison.rows) - sum(len(epochs) > 0 for _, lines in drawn for epochs, _ in lines)


def intervals(comparison: Comparison, path: Path) -> int:
    """Draw the mean of each group with its 95 % interval, best first, over the results of its runs.

    Groups of different validation sets are separated by a line.

    Args:
        comparison: runs with one metric.
        path: of the plot; its suffix is the format.

    Returns the number of groups that are not drawn: beyond the first 30.

    Raises:
        ConfigError: the runs have different metrics.
    """
    name = comparison.metric
    if name is None:
        raise ConfigError("--intervals: these runs have different metrics; --metric NAME compares all by one")
    drawn = comparison.groups[:MOST_INTERVALS]
    with plots.styled():
        figure = Figure(figsize=(9, 1.4 + 0.32 * max(4, len(drawn))), layout="constrained")
        axes = figure.add_subplot()
        for place, group in enumerate(drawn):
            found, values = group.estimate, list(group.values.values())
            is_first = place == 0 or group.validation_set != drawn[place - 1].validation_set
            colour = GREEN if is_first else BLUE
            axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
            error = found.high - found.mean if math.isfinite(found.high) else 0.0
            axes.errorbar(found.mean, place, xerr=error, color=colour, marker="D", markersize=6, capsize=4)
            if is_first and place:
                axes.axhline(place - 0.5, color=GREY, linewidth=0.8)
        axes.set_yticks(range(len(drawn)), [_short_label(group) for group in drawn], parse_math=False)
        axes.set_ylim(max(len(drawn), 4) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        direction = "higher" if drawn[0].higher_is_better else "lower"
        axes.set_xlabel(f"{name} ({direction} is better)", parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        over = f", over {' and '.join(comparison.averaged)}" if comparison.averaged else ""
        axes.set_title(plots.shorten(f"Mean and 95 % interval{over}", 80), parse_math=False)
        plots.save(figure, path)
    return len(comparison.groups) - len(drawn)


def importance(found: Importance, path: Path) -> None:
    """Draw the importance of the settings, and the runs by the values of the most important one with its best region.

    Args:
        found: the importance, and the values of the most important setting.
        path: of the plot; its suffix is the format.
    """
    with plots.styled():
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
        _draw_importance(left, found)
        _draw_values(right, found)
        plots.save(figure, path)


def _curve(history: Sequence[Mapping[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the epochs and the values that are known, both of the same length."""
    known = [(row["epoch"], row[name]) for row in history if isinstance(row.get(name), int | float)]
    points = np.array([pair for pair in known if math.isfinite(pair[1])], dtype=np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _draw_group(
    axes: Axes, group: Group, lines: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], colour: str
) -> None:
    known = [dict(zip(*line, strict=True)) for line in lines]
    for epochs, values in lines if sum(map(bool, known)) > 1 else ():
        _draw(axes, epochs, values, colour, linewidth=0.8, alpha=0.4)
    # The mean is drawn only where all runs have a value: it would jump where some end.
    common = sorted(set.intersection(*(set(line) for line in known if line)))
    means = [group.average([line.get(epoch) for line in known]) for epoch in common]
    label = f"{_short_label(group)}: {number(group.estimate.mean)}"
    _draw(axes, np.array(common), np.array(means), colour, linewidth=2.2, label=label)


def _short_label(group: Group) -> str:
    """Write a group's settings so that they fit next to the curves: without section names if they are long."""
    if len(group.label) <= MOST_LETTERS:
        return group.label
    words = {name: shown(value, group.cuts) for name, value in group.settings.items()}
    short = [f"{name.rpartition('.')[2]}={word}" if "." in name else word for name, word in words.items()]
    return plots.shorten(" ".join(short), MOST_LETTERS)


def _draw(axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], colour: str, **style: Any) -> None:
    is_marked = len(epochs) == 1 or (style["linewidth"] > 2 and len(epochs) <= plots.MOST_MARKERS)
    axes.plot(epochs, values, color=colour, marker="o" if is_marked else None, markersize=3.5, **style)


def _legend_title(comparison: Comparison) -> str:
    most = max(len(group.rows) for group in comparison.groups)
    return f"mean of up to {most} runs" if most > 1 else ""


def _frame(axes: Axes, best: Sequence[Any], drawn: Sequence[tuple[Group, Sequence[Any]]]) -> None:
    """Show all of the best curves and most of the others: one diverged run must not flatten the plot."""
    values = np.concatenate([v for _, v in best])
    everything = np.concatenate([v for _, lines in drawn for _, v in lines])
    higher = drawn[0][0].higher_is_better
    low, high = values.min(), values.max()
    if higher:
        low = min(low, np.quantile(everything, 0.1)) if len(drawn) > len(COLOURS) else low
    else:
        high = max(high, np.quantile(everything, 0.9)) if len(drawn) > len(COLOURS) else high
    if low > 0 and high > 20 * low:
        plots.log_axis(axes, "y")
        axes.set_ylim(low / 1.1, high * 1.1)
    elif high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    axes.set_xlabel("epoch")


def _draw_importance(axes: Axes, found: Importance) -> None:
    fractions = dict(list(found.fractions.items())[:MOST_BARS])
    colours = [GREY if name in REPEATS else BLUE if name == found.setting else SKY for name in fractions]
    positions = np.arange(len(fractions))[::-1]
    axes.barh(positions, list(fractions.values()), color=colours, height=0.7)
    for position, fraction in zip(positions, fractions.values(), strict=True):
        axes.text(fraction, position, f" {fraction:.0%}", va="center", fontsize=9)
    names = [f"{name} (noise)" if name in REPEATS else name for name in fractions]
    axes.set_yticks(positions, [plots.shorten(name, 28) for name in names], parse_math=False)
    axes.set_ylim(min(-0.5, len(fractions) - 5.5), len(fractions) - 0.5)
    axes.set_xlim(0, max(1e-3, max(fractions.values())) * 1.18)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"fraction of the variance of {found.metric}", parse_math=False)
    axes.set_title(f"Importance (R² {found.r2:.2f}, {found.num_rows} runs)")


def _draw_values(axes: Axes, found: Importance) -> None:
    groups = found.groups
    is_number = not math.isnan(groups[0].low)
    is_log = is_number and groups[0].low > 0 and groups[-1].high > 10 * groups[0].low
    positions = [_position(group, is_log) for group in groups] if is_number else list(map(float, range(len(groups))))
    rng = np.random.default_rng(0)
    for group, position in zip(groups, positions, strict=True):
        colour = GREEN if group.is_best else GREY
        across = group.settings if is_number else position + rng.uniform(-0.12, 0.12, len(group.values))
        alpha = 0.55 if len(group.values) <= MOST_POINTS else 0.25
        axes.plot(across, group.values, "o", color=colour, alpha=alpha, markersize=3.5, markeredgewidth=0)
        error = 0.0 if math.isnan(group.error) else group.error
        axes.errorbar(position, group.mean, error, color=colour, marker="D", markersize=6, capsize=4, linewidth=1.8)
        if is_number and group.is_best and group.high > group.low:
            axes.axvspan(group.low, group.high, color=GREEN, alpha=0.1, linewidth=0)
    if is_number:
        axes.plot(positions, [group.mean for group in groups], color=GREY, linewidth=0.9, zorder=1)
    if is_log:
        plots.log_axis(axes, "x")
    if is_number and all(group.low == group.high for group in groups):
        axes.set_xticks(positions, [short_number(position) for position in positions])
    elif is_number and not is_log:
        axes.xaxis.set_major_formatter(FuncFormatter(number_tick))
    elif not is_number:
        axes.set_xticks(positions, [plots.shorten(group.label, 18) for group in groups], parse_math=False)
        if len(groups) > 5:
            axes.tick_params(axis="x", labelrotation=35)
    axes.set_xlabel(found.setting, parse_math=False)
    axes.set_ylabel(found.metric, parse_math=False)
    axes.set_title(plots.shorten(f"Best (green): {found.best_region}", 52), parse_math=False)


def _position(group: ValueGroup, is_log: bool) -> float:
    return math.sqrt(group.low * group.high) if is_log else (group.low + group.high) / 2
