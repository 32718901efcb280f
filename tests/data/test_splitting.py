"""One dataclass says how validation rows are chosen, whatever the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.splitting import TRAIN, VALID, Splitting, split_by_parts
from dlrunner.data.dogbreeds.dataset import DogBreedsData
from dlrunner.data.images.dataset import ImageData
from dlrunner.data.imdb.dataset import ImdbData
from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.data.rossmann.dataset import RossmannData
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.texts.dataset import TextData

HERE = Path("data")


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
    assert sum(marks[0]) == 10


def test_auto_takes_the_parts_that_folders_tell_and_another_split_does_not() -> None:
    parts, frame = ["train", "valid", "train", "train"], pd.DataFrame({"x": range(4)})
    told, _ = split_by_parts(parts, Splitting("auto"), frame, None, HERE)
    assert told.tolist() == [TRAIN, VALID, TRAIN, TRAIN]
    chosen, _ = split_by_parts(parts, Splitting("last_rows", 1), frame, None, HERE)
    assert chosen.tolist() == [TRAIN, TRAIN, TRAIN, VALID]
