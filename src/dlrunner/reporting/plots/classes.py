"""Plots of classification: confusion matrix, calibration, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import LIGHT, Floats, Integers, bars, heading, interval_of_fraction, placeholder
from dlrunner.reporting.plots.training import BLUE, INK, ORANGE, PALE_BLUES, save, shorten, styled

MOST_CELLS = 20
"""With more classes than this the confused pairs are listed instead of a matrix."""
MOST_NAMES = 30
"""Classes or labels whose precision and recall are drawn."""


def classes(truth: Integers, probabilities: Floats, names: Sequence[str], folder: Path) -> Plot:
    """Draw confusion.svg: the confusion matrix or the most confused pairs; for two classes also the reliability.

    Args:
        truth: codes [rows]; rows with an invalid code are left out.
        probabilities: [rows, classes]; rows with a value that is not finite are left out.
        names: of the classes.
        folder: of the PNG.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    number = p.shape[1]
    known = np.isfinite(p).all(axis=1) & (y >= 0) & (y < number)
    p, y = p[known], y[known].astype(np.int64)
    predicted = p.argmax(axis=1) if len(p) else y
    accuracy = f"{np.mean(predicted == y):.1%} of {len(y):,} validation rows are correct" if len(y) else "Classes"
    with styled():
        if not len(y) or number > MOST_CELLS:
            figure = Figure(figsize=(9, 6.4 if len(y) else 3), layout="constrained")
            _confused_pairs(figure.add_subplot(), y, predicted, names)
        else:
            side = max(3.0, (0.75 if number <= 6 else 0.48) * number)
            is_pair = number == 2
            figure = Figure(figsize=(max(side + 2.4, 10.2 * is_pair), side + 1.6 + is_pair), layout="constrained")
            grid = figure.add_gridspec(2, 1 + is_pair, height_ratios=(4, 1))
            counts = np.bincount(y * number + predicted, minlength=number**2).reshape(number, number)
            _confusion(figure.add_subplot(grid[:, 0]), counts, [shorten(names[code], 18) for code in range(number)])
            if is_pair:
                above = figure.add_subplot(grid[0, 1])
                below = figure.add_subplot(grid[1, 1], sharex=above)
                _reliability(above, below, y, p[:, 1], shorten(names[1], 24))
        heading(figure, accuracy)
        return Plot(
            save(figure, folder / "confusion.svg"),
            "Classes and their predictions (validation)",
            f"Confusion matrix or most confused pairs of {number} classes; {accuracy}.",
        )


def calibration(truth: Integers, probabilities: Floats, folder: Path) -> Plot:
    """Draw calibration.svg: accuracy by the probability of the predicted class, in ten bins.

    Args:
        truth: codes [rows].
        probabilities: [rows, classes].
        folder: of the PNG.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, correct = p.max(axis=1), (p.argmax(axis=1) == np.asarray(truth)).astype(np.float64)
    bins = np.clip((confidence * 10).astype(np.int64), 0, 9)
    counts = np.bincount(bins, minlength=10)
    filled = counts > 0
    mean = np.bincount(bins, confidence, minlength=10)[filled] / counts[filled]
    accuracy = np.bincount(bins, correct, minlength=10)[filled] / counts[filled]
    error = float(np.abs(mean - accuracy) @ counts[filled] / counts.sum())
    with styled():
        figure = Figure(figsize=(5.4, 6.2), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        _draw_reliability(axes, below, mean, accuracy, counts)
        below.set_xlabel("probability of the predicted class")
        axes.set_ylabel("accuracy")
        heading(figure, f"Expected calibration error {error:.1%}")
        return Plot(
            save(figure, folder / "calibration.svg"),
            "Calibration: accuracy by predicted probability, and rows (validation)",
            "Reliability diagram: accuracy by the probability of the predicted class, in ten bins, and their rows.",
        )


def labels(truth: Integers, probabilities: Floats, names: Sequence[str], folder: Path) -> Plot:
    """Draw labels.svg: precision and recall of the most frequent labels, at a probability of 0.5.

    Args:
        truth: 0 or 1 [rows, labels].
        probabilities: [rows, labels]; values that are not finite are ignored.
        names: of the labels.
        folder: of the PNG.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    is_true, is_predicted = (np.asarray(truth) > 0) & np.isfinite(p), np.isfinite(p) & (p >= 0.5)
    frequent = np.argsort(-is_true.sum(axis=0), kind="stable")[:MOST_NAMES]
    which = f", the {len(frequent)} most frequent of {len(names):,} labels" if len(names) > len(frequent) else ""
    with styled():
        figure = _precision_and_recall(is_true[:, frequent], is_predicted[:, frequent], [names[i] for i in frequent])
        heading(figure, f"Precision and recall at a probability of 0.5{which}")
        return Plot(
            save(figure, folder / "labels.svg"),
            "Precision and recall of each label (validation)",
            "Dot plot of precision and recall by label, the most frequent labels first.",
        )


def by_class(truth: Integers, probabilities: Floats, names: Sequence[str], folder: Path) -> Plot:
    """Draw classes.svg: precision and recall of each class; of many classes those with the lowest F1.

    Args:
        truth: codes [rows]; rows with an invalid code are left out.
        probabilities: [rows, classes].
        names: of the classes.
        folder: of the PNG.
    """
    codes = np.arange(len(names))
    is_true = np.asarray(truth).astype(np.int64)[:, None] == codes
    is_predicted = np.asarray(probabilities).argmax(axis=1)[:, None] == codes
    both, either = (is_true & is_predicted).sum(axis=0), is_true.sum(axis=0) + is_predicted.sum(axis=0)
    f1 = np.where(either > 0, 2 * both / np.maximum(either, 1), np.inf)
    worst = np.argsort(f1, kind="stable")[:MOST_NAMES]
    chosen = worst if len(names) > MOST_NAMES else codes
    which = f", the {len(chosen)} with the lowest F1 of {len(names):,} classes" if len(chosen) < len(names) else ""
    with styled():
        figure = _precision_and_recall(is_true[:, chosen], is_predicted[:, chosen], [names[i] for i in chosen])
        heading(figure, f"Precision and recall by class{which}")
        return Plot(
            save(figure, folder / "classes.svg"),
            "Precision and recall of each class (validation; all in classes.csv)",
            f"Dot plot of precision and recall of {len(chosen)} classes{which}.",
        )


def _precision_and_recall(is_true: NDArray[np.bool_], is_predicted: NDArray[np.bool_], names: Sequence[str]) -> Figure:
    """Draw precision and recall by name, with the number of rows of each."""
    num_true, num_predicted, num_both = (each.sum(axis=0) for each in (is_true, is_predicted, is_true & is_predicted))
    with np.errstate(invalid="ignore"):
        precision, recall = num_both / num_predicted, num_both / num_true
    rows = np.arange(len(names))
    figure = Figure(figsize=(9, 1.9 + 0.27 * max(len(rows), 3)), layout="constrained")
    axes = figure.add_subplot()
    if not len(rows):
        placeholder(axes, "no label to draw")
        return figure
    axes.hlines(rows, np.fmin(precision, recall), np.fmax(precision, recall), color="#c4c4c4", linewidth=2.5)
    axes.plot(precision, rows, "o", color=BLUE, markersize=9, label="precision: predicted rows that are right")
    axes.plot(recall, rows, "D", color=ORANGE, markersize=5, label="recall: its rows that are predicted")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, borderaxespad=0.2)
    written = [f"{shorten(name, 32)}  ({n:,})" for name, n in zip(names, num_true, strict=True)]
    axes.set_yticks(rows, written, parse_math=False)
    for row in rows[(num_predicted == 0) | (num_true == 0)]:
        text = "in no row" if num_true[row] == 0 else "predicted for no row"
        axes.annotate(text, (0, row), (9, 0), textcoords="offset points", va="center", **LIGHT)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.4, -0.6), xlabel="fraction (in brackets: its rows)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def _confusion(axes: Axes, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draw a confusion matrix [truth, predicted], coloured by the fraction of the true class."""
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(fractions, cmap=PALE_BLUES, vmin=0, vmax=1, interpolation="nearest")
    is_roomy = len(names) <= 6
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:,}" + (f"\n{fractions[row, column]:.1%}" if is_roomy and counts[row].any() else "")
        size, colour = (10 if is_roomy else 8), (INK if count else "#a8a8a8")
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour).set_in_layout(False)
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    if max(map(len, names)) * len(names) > 24:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set(xlabel="prediction", ylabel="truth")
    axes.set_title("Rows by class" + (", and fraction of the true class" if is_roomy else ""), fontweight="normal")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _confused_pairs(axes: Axes, truth: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draw the most confused pairs of classes as bars, with their fraction of the true class."""
    if not len(truth):
        placeholder(axes, "no row to draw")
        return
    wrong = truth != predicted
    pairs, counts = np.unique(np.stack([truth[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:20]
    if not len(order):
        placeholder(axes, "all rows are predicted correctly")
        return
    written = [f"{shorten(names[a], 24)} predicted as {shorten(names[b], 24)}" for a, b in pairs[order].tolist()]
    notes = [f"{counts[i] / np.sum(truth == pairs[i, 0]):.1%} of its rows" for i in order]
    bars(axes, counts[order].astype(np.float64), written, notes)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
    axes.set_title(f"The most confused pairs of {len(names):,} classes", fontweight="normal", x=0)
    axes.set_xlabel("rows")


def _reliability(axes: Axes, below: Axes, truth: NDArray[np.int64], p: NDArray[np.float64], name: str) -> None:
    """Draw the observed fraction of the second class by its predicted probability, in ten bins, with their rows."""
    bins = np.clip((p * 10).astype(np.int64), 0, 9)
    counts = np.bincount(bins, minlength=10)
    filled = counts > 0
    mean = np.bincount(bins, p, minlength=10)[filled] / counts[filled]
    observed = np.bincount(bins, truth, minlength=10)[filled] / counts[filled]
    _draw_reliability(axes, below, mean, observed, counts)
    below.set_xlabel(f"predicted probability of {name}", parse_math=False)
    axes.set_ylabel(f"observed fraction of {name}", parse_math=False)
    axes.set_title("Reliability of the probabilities", fontweight="normal")


def _draw_reliability(
    axes: Axes, below: Axes, mean: NDArray[np.float64], observed: NDArray[np.float64], counts: NDArray[np.int64]
) -> None:
    """Draw observed fractions by mean probability, with a 95 % interval, and below them the rows of all ten bins."""
    low, high = interval_of_fraction(observed, counts[counts > 0])
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
    axes.vlines(mean, low, high, color=BLUE, linewidth=1.2)
    axes.plot(mean, observed, "o-", color=BLUE, linewidth=1, markersize=6)
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(labelbottom=False)
    places = np.arange(10) / 10 + 0.05
    below.bar(places, counts, width=0.09, color=BLUE)
    for place, count in zip(places, counts, strict=True):
        if count:
            below.annotate(
                f"{count:,}", (place, count), (0, 1), textcoords="offset points", ha="center", va="bottom", fontsize=7
            )
    below.set(ylabel="rows", ylim=(0, 1.25 * counts.max()), xlim=(-0.04, 1.04))
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    below.xaxis.set_major_formatter(PercentFormatter(1))
