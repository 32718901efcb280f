"""Plots of images: the most confident mistakes with their Grad-CAM maps, and the explanation of one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import bars, below, heading
from dlrunner.reporting.plots.training import BLUE, GREY, save, shorten, styled

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]


def sheet(
    images: Sequence[Pixels], heats: Sequence[Heat], titles: Sequence[tuple[str, str, str, float]], path: Path
) -> Plot:
    """Draw images next to the maps that explain their predictions.

    Args:
        images: [size, size, 3] each.
        heats: [size, size] each, from 0 to 1.
        titles: the file name, the true class, the predicted class and its probability.
        path: of the PNG.
    """
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    with styled():
        figure = Figure(figsize=(3.1 * columns, 1.97 * rows + 0.7), layout="constrained")
        heading(figure, "The most confident mistakes, explained by Grad-CAM")
        grid = figure.subplots(rows, 2 * columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for index, (image, heat, (name, truth, predicted, probability)) in enumerate(
            zip(images, heats, titles, strict=True)
        ):
            row, column = divmod(index, columns)
            left, right = grid[row, 2 * column], grid[row, 2 * column + 1]
            left.imshow(image)
            _draw_heat(right, image, heat)
            below(left, name, 24)
            left.set_title(shorten(truth, 18), fontsize=8, fontweight="normal", parse_math=False)
            title = f"{shorten(predicted, 15)} {probability:.0%}"
            right.set_title(title, fontsize=8, fontweight="normal", color=BLUE, parse_math=False)
        figure.text(
            0.995, 0.004, "left: the true class; right, in blue: the predicted one", ha="right", fontsize=8, color=GREY
        )
        alt = f"{len(images)} pairs of images: a validation image, and the Grad-CAM map of its wrong prediction."
        return Plot(save(figure, path), "The most confident mistakes (validation)", alt)


def explained(image: Pixels, heat: Heat, name: str, best: Sequence[tuple[str, float]], path: Path) -> Path:
    """Draw an image, its Grad-CAM map for a class, and the most likely classes.

    Args:
        image: [size, size, 3].
        heat: [size, size], from 0 to 1.
        name: the class.
        best: the most likely classes with their probabilities.
        path: of the PNG.
    """
    with styled():
        figure = Figure(figsize=(10.5, 3.7), layout="compressed")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        left.imshow(image)
        _draw_heat(middle, image, heat)
        middle.set_title(f"Grad-CAM for {shorten(name, 26)}", fontweight="normal", parse_math=False)
        for axes in (left, middle):
            axes.set_axis_off()
        bars(right, np.array([probability for _, probability in best]), [shorten(each, 24) for each, _ in best],
             [f"{probability:.1%}" for _, probability in best])  # fmt: skip
        right.set_xlabel("probability")
        return save(figure, path)


def _draw_heat(axes: Axes, image: Pixels, heat: Heat) -> None:
    """Draw the image in grey with the heat map over it."""
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    axes.imshow(heat, cmap="inferno", alpha=0.15 + 0.5 * heat, vmin=0, vmax=1)
