"""Plots of very many rows: their files stay small, since what is dense in them is an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlrunner.plot import Plot
from dlrunner.reporting.plots import class_curves, classes, collab, regression, tabular

ROWS = 100_000
MOST_BYTES = 300_000
RNG = np.random.default_rng(0)
TRUTH = np.exp(RNG.normal(10, 1, ROWS))
PREDICTED = TRUTH * np.exp(RNG.normal(0, 0.4, ROWS))
RATINGS = RNG.uniform(0, 5, (2, ROWS)).astype(np.float32)
PROBABILITIES = RNG.dirichlet(np.ones(6), ROWS)
CLASSES = RNG.integers(0, 6, ROWS)
NAMES = [f"class {code}" for code in range(6)]

DRAW: dict[str, Callable[[Path], Plot]] = {
    "predictions": lambda folder: regression.predictions(TRUTH, PREDICTED, folder, name="price", log=True),
    "residuals": lambda folder: regression.residuals(TRUTH, PREDICTED, folder, name="price"),
    "intervals": lambda folder: regression.intervals(
        TRUTH, PREDICTED[:, None] * np.array([0.5, 1, 2]), [0.1, 0.5, 0.9], folder, name="price"
    ),
    "ratings": lambda folder: collab.predictions(RATINGS[0], RATINGS[1], folder),
    "classes": lambda folder: classes.classes(CLASSES, PROBABILITIES, NAMES, folder),
    "curves": lambda folder: class_curves.curves(np.eye(6)[CLASSES] > 0, PROBABILITIES, NAMES, folder),
    "embeddings": lambda folder: tabular.embeddings(
        [("user", list(map(str, range(ROWS))), RNG.normal(size=(ROWS, 3)))], folder
    ),
}


@pytest.mark.parametrize("name", DRAW)
def test_a_plot_of_100_000_rows_is_a_small_file_with_real_text(name: str, tmp_path: Path) -> None:
    svg = DRAW[name](tmp_path).path.read_text()
    assert len(svg) < MOST_BYTES
    assert svg.count("<text") > 10
    assert svg.count("<use ") < 1_000, "each cell or point would be an element"


def test_a_plot_of_few_rows_has_no_image(tmp_path: Path) -> None:
    svg = regression.predictions(TRUTH[:200], PREDICTED[:200], tmp_path, name="price", log=True).path.read_text()
    assert svg.count("<image") == 1, "only the colour bar"
