"""ROC and precision-recall curves of classes and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from dlrunner.classification_metrics import average_precision, counts_by_threshold, roc_auc
from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import Floats, heading, placeholder
from dlrunner.reporting.plots.training import INK, save, shorten, styled

MOST_CURVES = 6
"""Of more classes those with the lowest ROC AUC are drawn."""
MOST_POINTS = 2000
"""Of a curve: with more thresholds every n-th is drawn."""


def curves(truth: NDArray[np.bool_], probabilities: Floats, names: Sequence[str], folder: Path) -> Plot:
    """Draw curves.svg: the ROC curve and the precision-recall curve of each class against all others.

    Args:
        truth: which rows have the class or label, [rows, classes].
        probabilities: [rows, classes]; rows with a value that is not finite are left out.
        names: of the classes; of two classes the second one is drawn, as the positive one.
        folder: of the PNG.
    """
    known = np.isfinite(probabilities).all(axis=1)
    truth, p = truth[known], np.asarray(probabilities, dtype=np.float64)[known]
    both = np.asarray(truth.any(axis=0) & ~truth.all(axis=0))
    is_pair = len(names) == 2 and bool((truth.sum(axis=1) == 1).all())
    candidates = [1] if is_pair else range(len(names))
    areas = {int(i): roc_auc(truth[:, i], p[:, i]) for i in candidates if both[i]}
    drawn = sorted(sorted(areas, key=lambda i: areas[i])[:MOST_CURVES])
    with styled():
        figure = Figure(figsize=(10.4, 5.6 + 0.19 * len(drawn)), layout="constrained")
        axes = figure.subplots(1, 2)
        _heading(figure, names, areas, drawn, is_pair)
        for each, title in zip(axes, ("ROC curve", "Precision-recall curve"), strict=True):
            each.set_title(title + ("s" if len(drawn) > 1 else ""), fontweight="normal")
        for i in drawn:
            _curves_of(axes[0], axes[1], truth[:, i], p[:, i], shorten(names[i], 24), areas[i])
        if drawn:
            axes[0].plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="at random")
            if len(drawn) == 1:
                axes[1].axhline(truth[:, drawn[0]].mean(), color=INK, linewidth=1, linestyle="--")
            _finish(axes[0], "false positives, of the rows of other classes", "true positives (recall)")
            _finish(axes[1], "recall", "precision")
            legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", fontsize=9, ncols=1)
            for text in legend.get_texts():
                text.set_parse_math(False)
        else:
            for each in axes:
                placeholder(each, "no class with rows both in it and outside it")
        listed = ", ".join(f"{names[i]} {areas[i]:.4f}" for i in drawn) or "none"
        return Plot(
            save(figure, folder / "curves.svg"),
            "ROC and precision-recall curves (validation)",
            f"Line plots: true by false positives, and precision by recall; ROC AUC: {listed}.",
        )


def _heading(
    figure: Figure, names: Sequence[str], areas: dict[int, float], drawn: Sequence[int], is_pair: bool
) -> None:
    if not drawn:
        heading(figure, "ROC and precision-recall curves")
        return
    if is_pair:
        heading(figure, f"ROC AUC {areas[1]:.4f}, {shorten(names[1], 30)} against {shorten(names[0], 30)}")
        return
    which = f"; the {len(drawn)} lowest of {len(areas):,}" if len(drawn) < len(areas) else ""
    heading(figure, f"ROC AUC {np.mean(list(areas.values())):.4f}, mean of each class against all others{which}")


def _curves_of(
    left: Axes, right: Axes, positive: NDArray[np.bool_], p: NDArray[np.float64], name: str, area: float
) -> None:
    """Draw both curves of a class."""
    true, false = counts_by_threshold(positive, p)
    shown = np.unique(np.linspace(0, len(true) - 1, MOST_POINTS).round().astype(int))
    label = f"{name}: ROC AUC {area:.4f}, average precision {average_precision(positive, p):.4f}"
    (line,) = left.plot(false[shown] / false[-1], true[shown] / true[-1], label=label)
    precision = true[1:] / (true[1:] + false[1:])
    shown = np.unique(np.linspace(0, len(precision) - 1, MOST_POINTS).round().astype(int))
    recall = np.append(0, true[1:][shown] / true[-1])
    right.step(recall, np.append(precision[:1], precision[shown]), where="pre", color=line.get_color())


def _finish(axes: Axes, across: str, up: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=across, ylabel=up, box_aspect=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
