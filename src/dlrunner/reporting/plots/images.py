"""Plots of images: the most confident mistakes with their Grad-CAM maps, and the explanation of one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import bars, heading
from dlrunner.reporting.plots.training import BLUE, GREY, save, shorten, styled

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]


def sheet(
    pictures: Sequence[Pixels], heats: Sequence[Heat], titles: Sequence[tuple[str, str, float]], path: Path
) -> Plot:
    """Draw images next to the maps that explain their predictions.

    Args:
        pictures: [size, size, 3] each.
        heats: [size, size] each, from 0 to 1.
        titles: truth, answer and its probability.
        path: of the PNG.
    """
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    with styled():
        figure = Figure(figsize=(3.1 * columns, 1.85 * rows + 0.7), layout="constrained")
        heading(figure, "The most confident mistakes, explained by Grad-CAM")
        grid = figure.subplots(rows, 2 * columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, (picture, heat, (truth, said, chance)) in enumerate(zip(pictures, heats, titles, strict=True)):
            row, column = divmod(place, columns)
            left, right = grid[row, 2 * column], grid[row, 2 * column + 1]
            left.imshow(picture)
            _warm(right, picture, heat)
            left.set_title(shorten(truth, 18), fontsize=8, fontweight="normal", parse_math=False)
            right.set_title(
                f"{shorten(said, 15)} {chance:.0%}", fontsize=8, fontweight="normal", color=BLUE, parse_math=False
            )
        figure.text(
            0.995, 0.004, "left: the truth; right, in blue: what it was taken for", ha="right", fontsize=8, color=GREY
        )
        alt = f"{len(pictures)} pairs of images: a validation image, and the Grad-CAM map of its wrong prediction."
        return Plot(save(figure, path), "The surest of the wrong answers (validation)", alt)


def explained(picture: Pixels, heat: Heat, name: str, best: Sequence[tuple[str, float]], path: Path) -> Path:
    """Draw a picture, what speaks for a class, and the likeliest classes.

    Args:
        picture: [size, size, 3].
        heat: [size, size], from 0 to 1.
        name: the class.
        best: the likeliest classes with their probabilities.
        path: of the PNG.
    """
    with styled():
        figure = Figure(figsize=(10.5, 3.7), layout="compressed")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        left.imshow(picture)
        _warm(middle, picture, heat)
        middle.set_title(f"what speaks for {shorten(name, 26)}", fontweight="normal", parse_math=False)
        for axes in (left, middle):
            axes.set_axis_off()
        bars(right, np.array([chance for _, chance in best]), [shorten(each, 24) for each, _ in best],
             [f"{chance:.1%}" for _, chance in best])  # fmt: skip
        right.set_xlabel("probability")
        return save(figure, path)


def _warm(axes: Axes, picture: Pixels, heat: Heat) -> None:
    """Draw the picture in grey, and the heat over it."""
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(heat, cmap="inferno", alpha=0.15 + 0.5 * heat, vmin=0, vmax=1)
