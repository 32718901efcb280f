"""Plots of segmentation: images with their masks and predictions, and the IoU of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import bars, below, heading
from dlrunner.reporting.plots.training import save, shorten, styled

Pixels = NDArray[np.uint8]
Codes = NDArray[np.integer]
MOST_NAMED = 24
"""Most classes in the legend."""


def with_masks(
    title: str,
    shown: Sequence[tuple[str, str, Pixels, Codes, Codes]],
    names: Sequence[str],
    colours: Pixels,
    path: Path,
) -> Plot:
    """Draw images next to their masks and predictions; ignored pixels are white in both.

    Args:
        title: of the plot, and its caption.
        shown: a title, the file name, the image, [height, width, 3], mask and prediction, [height, width], of each.
        names: of the classes.
        colours: of the classes, [classes, 3].
        path: of the PNG.
    """
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    height, width = shown[0][2].shape[:2]
    drawn = np.concatenate([colours, np.full((256 - len(colours), 3), 255, np.uint8)])
    with styled():
        side = 1.75
        figure = Figure(figsize=(3 * side * columns, (side * height / width + 0.42) * rows + 1.1), layout="constrained")
        heading(figure, title)
        grid = figure.subplots(rows, 3 * columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for index, (label, name, image, mask, prediction) in enumerate(shown):
            row, column = divmod(index, columns)
            below(grid[row, 3 * column], name, 30)
            predicted = np.where(mask < len(names), prediction, 255)
            for axes, pixels, what in zip(
                grid[row, 3 * column : 3 * column + 3],
                (image, drawn[mask], drawn[predicted]),
                (label, "mask", "prediction"),
                strict=True,
            ):
                axes.imshow(pixels, interpolation="nearest")
                axes.set_title(shorten(what, 26), fontsize=8, fontweight="normal", parse_math=False)
        patches = [
            Patch(facecolor=to_hex(colour / 255), edgecolor="none", label=shorten(name, 20))
            for name, colour in zip(names[:MOST_NAMED], colours, strict=False)
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), fontsize=8)
        alt = (
            f"{len(shown)} validation images with their masks and predicted masks; the colour of a pixel is its class: "
            f"{_enumerated(names)}."
        )
        return Plot(save(figure, path), title, alt)


def iou_by_class(ious: Sequence[float], names: Sequence[str], fractions: Sequence[float], folder: Path) -> Plot:
    """Draw iou_by_class.svg: intersection / union of each class, the best first.

    Args:
        ious: of each class; NaN where it neither occurs nor is predicted.
        names: of the classes.
        fractions: of the pixels that each class has.
        folder: of the PNG.
    """
    values = np.asarray(ious, dtype=np.float64)
    order = [int(code) for code in np.argsort(-np.nan_to_num(values, nan=-1), kind="stable")]
    notes = [
        "does not occur" if np.isnan(values[code]) else f"{values[code]:.3f}, {fractions[code]:.1%} of the pixels"
        for code in order
    ]
    with styled():
        figure = Figure(figsize=(8, 1.2 + 0.3 * len(order)), layout="constrained")
        axes = figure.add_subplot()
        bars(axes, values[order], [shorten(names[code], 24) for code in order], notes)
        axes.set(xlim=(0, 1.3), xlabel="intersection / union")
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        mean = f"Mean IoU {np.nanmean(values):.4f}"
        heading(figure, mean)
        best, worst = names[order[0]], names[[code for code in order if not np.isnan(values[code])][-1]]
        alt = f"Bars of intersection over union for {len(names)} classes; best: {best}, worst: {worst}. {mean}."
        path = save(figure, folder / "iou_by_class.svg")
        return Plot(path, "Intersection over union by class (validation)", alt)


def _enumerated(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
