"""One dataclass says how validation rows are chosen, whatever the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.splitting import TEST, TRAIN, VALID, Splitting, split_by_parts
from dlrunner.data.dogbreeds.dataset import DogBreedsData
from dlrunner.data.images.dataset import ImageData
from dlrunner.data.imdb.dataset import ImdbData
from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.data.rossmann.dataset import RossmannData
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.texts.dataset import TextData
from dlrunner.errors import ConfigError, DataError

HERE = RowLocations(Path("data"))


@pytest.mark.parametrize(
    ("source", "others"),
    [
        (RatingsData, {}),
        (RossmannData, {}),
        (ImdbData, {}),
        (DogBreedsData, {}),
        (TabularData, {"path": "a.csv", "target": "y"}),
        (TextData, {"path": "a.csv"}),
        (ImageData, {"path": "a"}),
    ],
)
def test_every_source_takes_the_same_settings_of_its_split(source: Any, others: dict[str, Any]) -> None:
    found = source(HERE, split="random", valid=0.25, split_seed=7, **others).splitting
    assert isinstance(found, Splitting)
    assert (found.split, found.valid, found.split_seed) == ("random", 0.25, 7)


def test_auto_and_inner_choose_as_random_does_where_the_data_tells_nothing() -> None:
    frame, marks = pd.DataFrame({"x": np.arange(50)}), []
    for split in ("random", "auto", "inner"):
        marks.append(Splitting(split, 0.2, 3).assign(frame, None, HERE).tolist())
    assert marks[0] == marks[1] == marks[2]
    assert marks[0].count(VALID) == 10


def test_auto_takes_the_parts_that_folders_tell_and_another_split_does_not() -> None:
    parts, frame = ["train", "valid", "train", "train"], pd.DataFrame({"x": range(4)})
    told, _ = split_by_parts(parts, Splitting("auto"), frame, None, HERE)
    assert told.tolist() == [TRAIN, VALID, TRAIN, TRAIN]
    chosen, _ = split_by_parts(parts, Splitting("last_rows", 1), frame, None, HERE)
    assert chosen.tolist() == [TRAIN, TRAIN, TRAIN, VALID]


DAYS = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=50), "x": range(50)})


@pytest.mark.parametrize(
    ("settings", "test"),
    [
        ({"split": "random", "valid": 0.2, "test": 0.1}, 5),
        ({"split": "stratified", "valid": 0.2, "test": 0.08}, 4),
        ({"split": "last_rows", "valid": 0.2, "test": 5}, 5),
        ({"split": "last_days", "valid": 10, "test": 0.1, "date": "day"}, 5),
    ],
)
def test_test_rows_leave_the_others_apart(settings: dict[str, Any], test: int) -> None:
    strata = np.array([0, 1] * 25) if settings["split"] == "stratified" else None
    parts = Splitting(**settings).assign(DAYS, strata, HERE)
    assert [int((parts == part).sum()) for part in (TRAIN, VALID, TEST)] == [50 - 10 - test, 10, test]


@pytest.mark.parametrize("split", ["random", "stratified"])
def test_test_rows_are_taken_from_the_training_rows(split: str) -> None:
    strata = np.array([0, 1] * 25) if split == "stratified" else None
    without = Splitting(split, 0.2).assign(DAYS, strata, HERE)
    with_test = Splitting(split, 0.2, test=0.1).assign(DAYS, strata, HERE)
    assert ((without == VALID) == (with_test == VALID)).all()


def test_the_last_days_are_the_test_and_those_before_validate() -> None:
    parts = Splitting("last_days", 10, date="day", test=5).assign(DAYS, None, HERE)
    assert parts.tolist() == [TRAIN] * 35 + [VALID] * 10 + [TEST] * 5
    settings: dict[str, Any] = {
        "date": "day",
        "valid_from": "2020-02-01",
        "valid_to": "2020-02-10",
        "test_from": "2020-02-11",
    }
    parts = Splitting("dates", **settings).assign(DAYS, None, HERE)
    assert parts.tolist() == [TRAIN] * 31 + [VALID] * 10 + [TEST] * 9


def test_no_fold_has_a_test_row() -> None:
    folds = [Splitting("folds", folds=4, fold=fold, test=0.2).assign(DAYS, None, HERE) for fold in range(4)]
    tests = {tuple(np.flatnonzero(parts == TEST)) for parts in folds}
    assert len(tests) == 1
    validating = np.concatenate([np.flatnonzero(parts == VALID) for parts in folds])
    assert sorted([*validating, *next(iter(tests))]) == list(range(50))


def test_a_column_marks_test_rows_and_alone_they_validate() -> None:
    frame = pd.DataFrame({"part": ["train", "valid", "test", "train"]})
    splitting = Splitting("column", valid_column="part")
    assert splitting.assign(frame, None, HERE).tolist() == [TRAIN, VALID, TEST, TRAIN]
    alone = pd.DataFrame({"part": ["train", "test", "test", "train"]})
    assert splitting.assign(alone, None, HERE).tolist() == [TRAIN, VALID, VALID, TRAIN]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "dates", "date": "day", "valid_from": "2020-01-05", "test": 0.1}, "data.test_from"),
        ({"split": "column", "valid_column": "part", "test": 0.1}, "marks them with the word test"),
        ({"split": "inner", "test": 0.1}, "model selection"),
        ({"split": "u1", "test": 0.1}, "split of the publisher"),
        ({"split": "random", "test": 3.0}, "a fraction between 0 and 1"),
        ({"split": "last_rows", "test": 1.5}, "a fraction or an integer"),
        ({"split": "random", "valid": 0.6, "test": 0.4}, "no training rows"),
        ({"split": "random", "test_from": "2020-01-05"}, "is for data.split=dates"),
        ({"split": "dates", "date": "day", "valid_from": "2020-01-05", "test_from": "2020-01-09"}, "valid_to"),
    ],
)
def test_test_rows_that_cannot_be_chosen_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Splitting(**settings).check()


def test_a_test_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="leaves no rows of 50 for the test"):
        Splitting("random", 0.2, test=0.001).assign(DAYS, None, HERE)


def test_folders_that_have_a_test_or_parts_refuse_a_fraction() -> None:
    frame = pd.DataFrame({"x": range(4)})
    with pytest.raises(ConfigError, match="has test examples of its own"):
        split_by_parts(["train", "train", "train", "test"], Splitting("random", test=0.1), frame, None, HERE)
    with pytest.raises(ConfigError, match="add a folder test"):
        split_by_parts(["train", "train", "train", "valid"], Splitting("auto", test=0.1), frame, None, HERE)
