"""Plots of segmentation: pictures beside their masks and predictions, and how well each class is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from dlrunner.reporting.plots.tabular import bars, heading
from dlrunner.reporting.plots.training import save, shorten, styled

Pixels = NDArray[np.uint8]
Codes = NDArray[np.integer]
MOST_NAMED = 24
"""Classes that the legend names."""


def compared(
    title: str,
    shown: Sequence[tuple[str, Pixels, Codes, Codes]],
    names: Sequence[str],
    colours: Pixels,
    path: Path,
) -> Path:
    """Draw pictures beside their masks and predictions; what counts nowhere is white in both.

    Args:
        title: of the plot.
        shown: a title, the picture, [height, width, 3], the mask and the prediction, [height, width], of each.
        names: of the classes.
        colours: of the classes, [classes, 3].
        path: of the PNG.
    """
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    height, width = shown[0][1].shape[:2]
    drawn = np.concatenate([colours, np.full((256 - len(colours), 3), 255, np.uint8)])
    with styled():
        side = 1.75
        figure = Figure(figsize=(3 * side * columns, (side * height / width + 0.3) * rows + 1.1), layout="constrained")
        heading(figure, title)
        grid = figure.subplots(rows, 3 * columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, (said, picture, mask, prediction) in enumerate(shown):
            row, column = divmod(place, columns)
            predicted = np.where(mask < len(names), prediction, 255)
            for axes, image, what in zip(
                grid[row, 3 * column : 3 * column + 3],
                (picture, drawn[mask], drawn[predicted]),
                (said, "mask", "prediction"),
                strict=True,
            ):
                axes.imshow(image, interpolation="nearest")
                axes.set_title(shorten(what, 26), fontsize=8, fontweight="normal", parse_math=False)
        patches = [
            Patch(facecolor=to_hex(colour / 255), edgecolor="none", label=shorten(name, 20))
            for name, colour in zip(names[:MOST_NAMED], colours, strict=False)
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), fontsize=8)
        return save(figure, path)


def iou_by_class(ious: Sequence[float], names: Sequence[str], fractions: Sequence[float], folder: Path) -> Path:
    """Draw iou_by_class.png: intersection / union of each class, the best first.

    Args:
        ious: of each class; NaN where it neither occurs nor is predicted.
        names: of the classes.
        fractions: of the pixels that each class has.
        folder: where the plot goes.
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
        heading(figure, f"Mean IoU {np.nanmean(values):.4f}")
        return save(figure, folder / "iou_by_class.png")
