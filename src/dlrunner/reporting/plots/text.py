"""Pictures of a language model: which words it expects, and from where in a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import heading
from dlrunner.reporting.plots.training import BLUE, GREY, ORANGE, save, styled

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

BANDS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
PLACES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377)


def loss_by_frequency(counts: Integers, losses: Floats, folder: Path) -> Plot:
    """Draw loss_by_frequency.png: the perplexity of words by how often they occur in training.

    Args:
        counts: of the word to be told, among the training words, [words].
        losses: of that word, [words].
        folder: where the picture goes.
    """
    band = np.searchsorted(BANDS, counts, side="right")
    bands = np.unique(band)
    names = [f"{BANDS[b - 1]:,}" if b == 1 else f"{BANDS[b - 1]:,}+" for b in bands]
    perplexities = [float(np.exp(losses[band == b].mean())) for b in bands]
    shares = [float(losses[band == b].sum() / losses.sum()) for b in bands]
    amounts = [float((band == b).mean()) for b in bands]
    with styled():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        heading(figure, "Perplexity and loss by how often a word occurs in training")
        left, right = figure.subplots(1, 2)
        left.bar(names, perplexities, color=BLUE)
        left.set(yscale="log", xlabel="occurrences of the word in training", ylabel="perplexity")
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        place = np.arange(len(bands))
        right.bar(place - 0.2, amounts, 0.4, color=GREY, label="of the words")
        right.bar(place + 0.2, shares, 0.4, color=ORANGE, label="of the loss")
        right.set_xticks(place, names)
        right.set(xlabel="occurrences of the word in training", ylabel="share")
        right.yaxis.set_major_formatter(PercentFormatter(1))
        right.legend()
        for axes in (left, right):
            _slanted(axes)
        return Plot(
            save(figure, folder / "loss_by_frequency.png"),
            "Loss of a word by how often training has seen it (validation)",
            "Bar charts by occurrences of a word in training: perplexity, and share of the words and of the loss.",
        )


def loss_by_place(places: Integers, losses: Floats, folder: Path) -> Plot:
    """Draw loss_by_place.png: the perplexity by how far into its text a word stands.

    Args:
        places: of the word to be told in its text, from 0, [words].
        losses: of that word, [words].
        folder: where the picture goes.
    """
    band = np.searchsorted(PLACES, places + 1, side="right")
    bands = [b for b in np.unique(band) if (band == b).sum() >= 20]
    with styled():
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        heading(figure, "Perplexity by how much of the text is known")
        axes = figure.add_subplot()
        middle = [float(places[band == b].mean()) + 1 for b in bands]
        axes.plot(middle, [float(np.exp(losses[band == b].mean())) for b in bands], "o-", color=BLUE)
        axes.set(xscale="log", xlabel="place of the word in its text", ylabel="perplexity", ylim=(0, None))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return Plot(
            save(figure, folder / "loss_by_place.png"),
            "Loss of a word by how much of its text came before (validation)",
            "Line plot of perplexity by the place of the word in its text.",
        )


def _slanted(axes: Axes) -> None:
    axes.tick_params(axis="x", labelrotation=40)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
