"""Elements that several plots share: the heading, bars, and a text where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from dlrunner.reporting.plots.number_format import TICK_STEPS, amount_tick
from dlrunner.reporting.plots.training import BLUE, BLUES, GREY, INK, shorten

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

Z = 1.96
"""Of a 95 % interval."""
LIGHT: dict[str, Any] = {"fontsize": 8, "color": GREY}
"""Of what is said in passing."""
MOST_VECTORS = 500
"""More cells or points are one image inside the SVG: each is some 100 bytes of it."""


def heading(figure: Figure, text: str) -> None:
    """Write the title of a figure."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)


def placeholder(axes: Axes, text: str) -> None:
    """Write, in place of a plot, why there is nothing to draw."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes)


def interval_of_fraction(fractions: Floats, counts: Integers | int) -> tuple[Floats, Floats]:
    """Return the ends of the 95 % intervals of observed fractions, which have a width at 0 and 1 too.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    >>> low, high = interval_of_fraction(np.array([0.0, 0.5]), 20)
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.299], [0.161, 0.701])

    Args:
        fractions: observed.
        counts: of rows, above 0.
    """
    centre = (fractions + Z**2 / (2 * counts)) / (1 + Z**2 / counts)
    half = Z / (1 + Z**2 / counts) * np.sqrt(fractions * (1 - fractions) / counts + Z**2 / (4 * counts**2))
    return (centre - half).clip(0, 1), (centre + half).clip(0, 1)


def density(
    axes: Axes,
    x: Floats,
    y: Floats,
    *,
    size: int | tuple[int, int],
    extent: tuple[float, float, float, float],
    scale: Literal["linear", "log"] = "linear",
) -> PolyCollection:
    """Draw how many rows are in each hexagonal cell.

    Args:
        axes: where it is drawn.
        x: [rows].
        y: [rows].
        size: number of cells along the axes.
        extent: limits of x and y; of logarithmic axes their exponents.
        scale: of both axes.
    """
    cells = axes.hexbin(
        x, y, gridsize=size, extent=extent, mincnt=1, xscale=scale, yscale=scale, cmap=BLUES, linewidths=0.2
    )
    counts = np.asarray(cells.get_array())
    cells.set_norm(LogNorm(1, max(10.0, counts.max(initial=0))))
    if len(counts) > MOST_VECTORS:
        cells.set(rasterized=True, antialiased=False, linewidth=0)  # few colours: a fifth of the bytes
    return cells


def points(axes: Axes, x: Floats, y: Floats, *, size: float, alpha: float) -> PathCollection:
    """Draw points without outlines."""
    drawn = axes.scatter(x, y, s=size, color=BLUE, alpha=alpha, linewidths=0)
    drawn.set_rasterized(len(x) > MOST_VECTORS)
    return drawn


def below(axes: Axes, name: str, width: int) -> None:
    """Write the file name under an image; the end of a long one, where names differ."""
    shown = name if len(name) <= width else f"…{name[1 - width :]}"
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top", "parse_math": False}
    axes.text(0.5, -0.02, shorten(shown, width), fontsize=6.5, color=GREY, **place)


def bars(
    axes: Axes,
    values: NDArray[np.float64],
    names: Sequence[str],
    notes: Sequence[str] = (),
    deviations: NDArray[np.float64] | None = None,
) -> None:
    """Draw horizontal bars from the top down, perhaps with whiskers and with a light note at the end of each."""
    rows, lengths = np.arange(len(values)), np.nan_to_num(values)
    whiskers = np.zeros(len(values)) if deviations is None else deviations
    axes.barh(rows, lengths, height=0.72, color=BLUE)
    if deviations is not None:
        axes.errorbar(lengths, rows, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    for row, end, note in zip(rows, np.maximum(lengths + whiskers, 0), notes, strict=False):
        axes.annotate(note, (end, row), (4, 0), textcoords="offset points", va="center", **LIGHT)
    axes.set_yticks(rows, names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.margins(x=0.12)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(amount_tick))
