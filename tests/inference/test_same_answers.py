"""The same row has the same prediction, to the last bit, alone and among others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dlrunner import load
from dlrunner.row_blocks import ROWS, in_blocks
from dlrunner.tasks.collab.predictor import RatingPredictor
from dlrunner.tasks.image.predictor import ImagePredictor, predict_outputs
from dlrunner.tasks.text.predictor import classify
from tests.conftest import flats
from tests.small_runs import SmallRuns

TABLES = ("numbers", "numbers by bins", "numbers by linear", "numbers by mlp", "classes", "labels")
RATINGS = ("ratings", "ratings by dot", "ratings by net", "several of ratings", "choices")
NUM_ROWS = 1000


def some_rows(count: int) -> list[range]:
    """Return parts of a table, of which no two begin alike in a block."""
    starts = range(0, count - 7, max(1, (count - 7) // 6))
    return [range(start, start + size) for start, size in zip(starts, (1, 2, 7, 1, 1, 3), strict=False)]


def check(rows: int, predict: Callable[[Sequence[int]], Any]) -> None:
    """Compare the outputs of parts with those of all rows."""
    among_all = np.asarray(predict(range(rows)))
    for part in some_rows(rows):
        np.testing.assert_array_equal(np.asarray(predict(part)), among_all[part.start : part.stop])


def test_a_block_is_filled_up_and_its_filling_left_out() -> None:
    seen: list[int] = []

    def double(values: Tensor) -> Tensor:
        seen.append(len(values))
        return 2 * values

    for count in (0, 1, ROWS, ROWS + 1):
        assert in_blocks(double, torch.arange(count)).tolist() == list(range(0, 2 * count, 2))
    assert set(seen) == {ROWS}


@pytest.mark.parametrize("kind", TABLES)
def test_a_row_of_a_table(runs: SmallRuns, kind: str) -> None:
    predictor, table = load(runs[kind]), flats(NUM_ROWS, seed=1)
    check(NUM_ROWS, lambda rows: predictor.predict(table.iloc[list(rows)]).drop(columns="row", errors="ignore"))


@pytest.mark.parametrize("kind", RATINGS)
def test_a_pair(runs: SmallRuns, kind: str) -> None:
    predictor, generator = load(runs[kind]).predictor, np.random.default_rng(0)
    assert isinstance(predictor, RatingPredictor)
    users, items = generator.integers(0, 600, NUM_ROWS), generator.integers(0, 1500, NUM_ROWS)
    check(NUM_ROWS, lambda rows: predictor.ensemble.pairs(users[list(rows)], items[list(rows)]))


@pytest.mark.parametrize("kind", ["texts", "texts by gru", "texts by qrnn"])
def test_a_text_of_any_length(runs: SmallRuns, kind: str) -> None:
    model, generator = load(runs[kind]).model, np.random.default_rng(0)
    texts = [generator.integers(1, 90, length, dtype=np.int32) for length in generator.integers(0, 150, 100)]
    check(len(texts), lambda rows: classify(model, [texts[row] for row in rows]))


def test_an_image(runs: SmallRuns) -> None:
    predictor = load(runs["pictures"]).predictor
    assert isinstance(predictor, ImagePredictor)
    size, generator = predictor.state["decoded"], np.random.default_rng(0)
    pixels = generator.integers(0, 255, (20, size, size, 3), dtype=np.uint8)
    check(len(pixels), lambda rows: predict_outputs(predictor.state, predictor.target, predictor.models, pixels[rows]))


@pytest.mark.parametrize("kind", ["language", "language with a pointer", "language by qrnn"])
def test_a_text_of_a_language_model(runs: SmallRuns, kind: str) -> None:
    predictor = load(runs[kind])
    texts = [" ".join(predictor.predictor.state["words"][3 : 5 + number]) for number in range(20)]
    check(len(texts), lambda rows: predictor.predict([texts[row] for row in rows])["perplexity"])
