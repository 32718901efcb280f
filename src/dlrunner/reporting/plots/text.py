"""Plots of a language model: perplexity by frequency and by position of the word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import Floats, Integers, heading
from dlrunner.reporting.plots.training import BLUE, GREY, ORANGE, save, styled

BANDS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
POSITIONS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377)


def loss_by_frequency(counts: Integers, losses: Floats, folder: Path) -> Plot:
    """Draw loss_by_frequency.svg: the perplexity of words by how often they occur in training.

    Args:
        counts: occurrences of each target word in the training texts, [words].
        losses: of each target word, [words].
        folder: of the PNG.
    """
    band = np.searchsorted(BANDS, counts, side="right")
    bands = np.unique(band)
    names = [f"{BANDS[b - 1]:,}" if b == 1 else f"{BANDS[b - 1]:,}+" for b in bands]
    perplexities = [float(np.exp(losses[band == b].mean())) for b in bands]
    loss_fractions = [float(losses[band == b].sum() / losses.sum()) for b in bands]
    word_fractions = [float((band == b).mean()) for b in bands]
    with styled():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        heading(figure, "Perplexity and loss by how often a word occurs in training")
        left, right = figure.subplots(1, 2)
        left.bar(names, perplexities, color=BLUE)
        left.set(yscale="log", xlabel="occurrences of the word in training", ylabel="perplexity")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        at = np.arange(len(bands))
        right.bar(at - 0.2, word_fractions, 0.4, color=GREY, label="of the words")
        right.bar(at + 0.2, loss_fractions, 0.4, color=ORANGE, label="of the loss")
        right.set_xticks(at, names)
        right.set(xlabel="occurrences of the word in training", ylabel="fraction")
        right.yaxis.set_major_formatter(PercentFormatter(1))
        right.legend()
        for axes in (left, right):
            _slanted(axes)
        return Plot(
            save(figure, folder / "loss_by_frequency.svg"),
            "Loss of a word by its frequency in the training texts (validation)",
            "Bar charts by occurrences of a word in training: perplexity, and fraction of the words and of the loss.",
        )


def loss_by_place(positions: Integers, losses: Floats, folder: Path) -> Plot:
    """Draw loss_by_position.svg: the perplexity by the position of a word in its text.

    Args:
        positions: of each target word in its text, from 0, [words].
        losses: of each target word, [words].
        folder: of the PNG.
    """
    band = np.searchsorted(POSITIONS, positions + 1, side="right")
    bands = [b for b in np.unique(band) if (band == b).sum() >= 20]
    with styled():
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        heading(figure, "Perplexity by position in the text")
        axes = figure.add_subplot()
        middle = [float(positions[band == b].mean()) + 1 for b in bands]
        axes.plot(middle, [float(np.exp(losses[band == b].mean())) for b in bands], "o-", color=BLUE)
        axes.set(xscale="log", xlabel="position of the word in its text", ylabel="perplexity", ylim=(0, None))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return Plot(
            save(figure, folder / "loss_by_position.svg"),
            "Loss of a word by its position in the text (validation)",
            "Line plot of perplexity by the position of the word in its text.",
        )


def _slanted(axes: Axes) -> None:
    axes.tick_params(axis="x", labelrotation=40)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
