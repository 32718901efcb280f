"""Labels of points, placed where they overlap least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dlrunner.reporting.plots.training import GREY


def place_labels(
    figure: Figure, axes: Axes, points: NDArray[np.float64], labels: Sequence[str], sizes: NDArray[np.float64]
) -> None:
    """Write a label where it overlaps least, the first points first; a thin line joins it to a far point."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # nothing drawn from here on moves the points
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    dots = axes.transData.transform(points)
    scale = figure.dpi / 72
    radii = np.sqrt(sizes) / 2 * scale
    frame = axes.get_window_extent(renderer)
    taken = np.concatenate([dots - radii[:, None], dots + radii[:, None]], axis=1)  # left, bottom, right, top
    angles = np.deg2rad([0, 180, 90, 270, 30, 150, 210, 330, 60, 120, 240, 300])
    for index, label in enumerate(labels):
        text = axes.text(0, 0, label, fontsize=8, va="bottom", ha="left", parse_math=False, zorder=3)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3})
        size = text.get_window_extent(renderer)
        half = np.array([size.width, size.height]) / 2 + scale
        boxes = []
        for gap in (1, 7, 14, 22, 32, 44, 58, 74, 92):
            away = radii[index] + gap * scale
            centres = dots[index] + np.stack(
                [np.cos(angles) * (away + half[0]), np.sin(angles) * (away + half[1])], axis=1
            )
            boxes.append(np.concatenate([centres - half, centres + half], axis=1))
        tried = np.concatenate(boxes)
        overlap = _overlaps(tried, taken).sum(axis=1)
        beyond = np.concatenate([frame.min - tried[:, :2], tried[:, 2:] - frame.max], axis=1)
        outside = np.maximum(0, beyond).sum(axis=1)
        best = int((overlap + 100 * outside).argmin())
        box = tried[best]
        taken = np.concatenate([taken, box[None]])
        text.set_position(tuple(axes.transData.inverted().transform(box[:2] + scale)))
        if best >= len(angles):
            nearest = np.clip(dots[index], box[:2], box[2:])
            ends = axes.transData.inverted().transform([dots[index], nearest])
            axes.plot(*ends.T, color=GREY, linewidth=0.5, zorder=1)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area of overlap of each box with each of the others, [boxes, others]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    overlaps: NDArray[np.float64] = np.maximum(0, high - low)
    return overlaps[..., 0] * overlaps[..., 1]
