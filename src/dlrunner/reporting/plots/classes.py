"""Pictures of what classes and labels were taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import LIGHT, bars, heading, placeholder
from dlrunner.reporting.plots.tabular import Floats, Integers
from dlrunner.reporting.plots.training import BLUE, INK, ORANGE, PALE_BLUES, save, shorten, styled

MOST_CELLS = 20
"""With more classes than this the confused pairs are listed instead of a matrix."""


def classes(truth: Integers, probabilities: Floats, names: Sequence[str], folder: Path) -> Plot:
    """Draw confusion.png: which classes are taken for which; for two classes also how far to trust probabilities.

    Args:
        truth: codes [rows]; rows whose code is no class are left out.
        probabilities: [rows, classes]; rows with a value that is not finite are left out.
        names: of the classes.
        folder: where the picture goes.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    number = p.shape[1]
    known = np.isfinite(p).all(axis=1) & (y >= 0) & (y < number)
    p, y = p[known], y[known].astype(np.int64)
    guess = p.argmax(axis=1) if len(p) else y
    said = f"{np.mean(guess == y):.1%} of {len(y):,} validation rows are right" if len(y) else "Classes"
    with styled():
        if not len(y) or number > MOST_CELLS:
            figure = Figure(figsize=(9, 6.4 if len(y) else 3), layout="constrained")
            _confused_pairs(figure.add_subplot(), y, guess, names)
        else:
            side = max(3.0, (0.75 if number <= 6 else 0.48) * number)
            figure = Figure(figsize=(max(side + 2.4, 10.2 * (number == 2)), side + 1.6), layout="constrained")
            axes = figure.subplots(1, 2 if number == 2 else 1, squeeze=False)[0]
            counts = np.bincount(y * number + guess, minlength=number**2).reshape(number, number)
            _confusion(axes[0], counts, [shorten(names[code], 18) for code in range(number)])
            if number == 2:
                _reliability(axes[1], y, p[:, 1], shorten(names[1], 24))
        heading(figure, said)
        return Plot(
            save(figure, folder / "confusion.png"),
            "Classes and what they were taken for (validation)",
            f"Confusion matrix or most confused pairs of {number} classes; {said}.",
        )


def calibration(truth: Integers, probabilities: Floats, folder: Path) -> Plot:
    """Draw calibration.png: how often the likeliest class is right, by its probability, in ten bins.

    Args:
        truth: codes [rows].
        probabilities: [rows, classes].
        folder: where the picture goes.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    sure, right = p.max(axis=1), (p.argmax(axis=1) == np.asarray(truth)).astype(np.float64)
    bins = np.clip((sure * 10).astype(np.int64), 0, 9)
    counts = np.bincount(bins, minlength=10)
    filled = counts > 0
    mean = np.bincount(bins, sure, minlength=10)[filled] / counts[filled]
    share = np.bincount(bins, right, minlength=10)[filled] / counts[filled]
    error = float(np.abs(mean - share) @ counts[filled] / counts.sum())
    with styled():
        figure = Figure(figsize=(5.4, 5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
        axes.plot(mean, share, color=BLUE, linewidth=1)
        axes.scatter(mean, share, s=15 + 260 * counts[filled] / counts.max(), color=BLUE, alpha=0.75, linewidths=0)
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), box_aspect=1)
        axes.set(
            xlabel="probability of the likeliest class\n(the larger the dot, the more rows)",
            ylabel="share that is right",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        heading(figure, f"How far to trust the probabilities: off by {error:.1%} in the mean")
        return Plot(
            save(figure, folder / "calibration.png"),
            "How often the answer is right, by how sure it is (validation)",
            "Reliability diagram: accuracy by the probability of the answer, in ten bins, with how many rows each has.",
        )


def labels(truth: Integers, probabilities: Floats, names: Sequence[str], folder: Path) -> Plot:
    """Draw labels.png: precision and recall of the most frequent labels, at a probability of 0.5.

    Args:
        truth: 0 or 1 [rows, labels].
        probabilities: [rows, labels]; values that are not finite count in nothing.
        names: of the labels.
        folder: where the picture goes.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    is_true, is_said = (np.asarray(truth) > 0) & np.isfinite(p), np.isfinite(p) & (p >= 0.5)
    frequent = np.argsort(-is_true.sum(axis=0), kind="stable")[:30]
    is_true, is_said = is_true[:, frequent], is_said[:, frequent]
    num_true, num_said, num_both = (each.sum(axis=0) for each in (is_true, is_said, is_true & is_said))
    with np.errstate(invalid="ignore"):
        precision, recall = num_both / num_said, num_both / num_true
    rows = np.arange(len(frequent))
    with styled():
        figure = Figure(figsize=(9, 1.9 + 0.27 * max(len(rows), 3)), layout="constrained")
        axes = figure.add_subplot()
        which = f", the {len(rows)} most frequent of {len(names):,} labels" if len(names) > len(rows) else ""
        heading(figure, f"Precision and recall at a probability of 0.5{which}")
        if not len(rows):
            placeholder(axes, "no label to draw")
            return Plot(
                save(figure, folder / "labels.png"),
                "Precision and recall of each label (validation)",
                "Bar charts of precision and recall by label, the most frequent labels first.",
            )
        axes.hlines(rows, np.fmin(precision, recall), np.fmax(precision, recall), color="#c4c4c4", linewidth=2.5)
        axes.plot(precision, rows, "o", color=BLUE, markersize=9, label="precision: of rows given it, how many have it")
        axes.plot(recall, rows, "D", color=ORANGE, markersize=5, label="recall: of rows that have it, how many get it")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, borderaxespad=0.2)
        written = [f"{shorten(names[i], 32)}  ({n:,})" for i, n in zip(frequent, num_true, strict=True)]
        axes.set_yticks(rows, written, parse_math=False)
        for row in rows[(num_said == 0) | (num_true == 0)]:
            text = "in no row" if num_true[row] == 0 else "predicted for no row"
            axes.annotate(text, (0, row), (9, 0), textcoords="offset points", va="center", **LIGHT)
        axes.set(
            xlim=(-0.02, 1.02), ylim=(len(rows) - 0.4, -0.6), xlabel="share (in brackets: rows that have the label)"
        )
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return Plot(
            save(figure, folder / "labels.png"),
            "Precision and recall of each label (validation)",
            "Bar charts of precision and recall by label, the most frequent labels first.",
        )


def _confusion(axes: Axes, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draw a confusion matrix [truth, predicted], coloured by the share of the true class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=PALE_BLUES, vmin=0, vmax=1, interpolation="nearest")
    is_roomy = len(names) <= 6
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:,}" + (f"\n{shares[row, column]:.1%}" if is_roomy and counts[row].any() else "")
        size, colour = (10 if is_roomy else 8), (INK if count else "#a8a8a8")
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour).set_in_layout(False)
    axes.set_xticks(range(len(names)), names, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    if max(map(len, names)) * len(names) > 24:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set(xlabel="prediction", ylabel="truth")
    axes.set_title("Rows by class" + (", and share of the true class" if is_roomy else ""), fontweight="normal")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _confused_pairs(axes: Axes, truth: NDArray[np.int64], guess: NDArray[np.int64], names: Sequence[str]) -> None:
    """Draw the most confused pairs of classes as bars, and what share of the true class they are."""
    if not len(truth):
        placeholder(axes, "no row to draw")
        return
    wrong = truth != guess
    pairs, counts = np.unique(np.stack([truth[wrong], guess[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:20]
    if not len(order):
        placeholder(axes, "no row is taken for another class")
        return
    written = [f"{shorten(names[a], 24)} taken for {shorten(names[b], 24)}" for a, b in pairs[order].tolist()]
    notes = [f"{counts[i] / np.sum(truth == pairs[i, 0]):.1%} of its rows" for i in order]
    bars(axes, counts[order].astype(np.float64), written, notes)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
    axes.set_title(f"The most confused pairs of {len(names):,} classes", fontweight="normal", x=0)
    axes.set_xlabel("rows")


def _reliability(axes: Axes, truth: NDArray[np.int64], p: NDArray[np.float64], name: str) -> None:
    """Draw the observed share of the second class by its probability, in ten bins, and tell the ROC AUC."""
    from scipy.stats import rankdata

    bins = np.clip((p * 10).astype(np.int64), 0, 9)
    counts, positive = np.bincount(bins, minlength=10), int(truth.sum())
    filled = counts > 0
    mean = np.bincount(bins, p, minlength=10)[filled] / counts[filled]
    share = np.bincount(bins, truth, minlength=10)[filled] / counts[filled]
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
    axes.plot(mean, share, color=BLUE, linewidth=1)
    axes.scatter(mean, share, s=15 + 260 * counts[filled] / counts.max(), color=BLUE, alpha=0.75, linewidths=0)
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), box_aspect=1)
    axes.set_xlabel(f"predicted probability of {name}\n(the larger the dot, the more rows)", parse_math=False)
    axes.set_ylabel(f"observed share of {name}", parse_math=False)
    title = "Reliability of the probabilities"
    if 0 < positive < len(truth):
        above = float(np.sum(rankdata(p)[truth == 1])) - positive * (positive + 1) / 2
        title += f"; ROC AUC {above / (positive * (len(truth) - positive)):.4f}"
    axes.set_title(title, fontweight="normal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
