"""A target is read from the columns of a table: its kind, its values, and why it cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.target_columns import read_target
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.texts.dataset import TextData
from dlrunner.errors import ConfigError, DataError


def read(
    frame: pd.DataFrame, target: str | list[str] = "y", kind: Any = "auto", separator: str | None = None
) -> tuple[Target, Any]:
    return read_target(frame, target, kind, separator, "auto", RowLocations(Path("own.csv")))


def column(*values: Any) -> pd.DataFrame:
    return pd.DataFrame({"y": list(values)})


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ((1.5, 2, 3), "regression", []),
        ((3, 4, 5), "regression", []),
        ((0, 1, 1), "binary", [0, 1]),
        ((True, False, True), "binary", ["False", "True"]),
        (("yes", "no", "yes"), "binary", ["no", "yes"]),
        (("c", "a", "b"), "multiclass", ["a", "b", "c"]),
    ],
)
def test_the_kind_is_inferred_from_the_values(values: Any, kind: str, classes: list[Any]) -> None:
    target, found = read(column(*values))
    assert (target.kind, target.classes) == (kind, classes)
    assert (np.array(classes)[found] if classes else found).tolist() == [
        str(value) if isinstance(value, bool) else value for value in values
    ]


def test_labels_are_columns_of_their_own_or_separated_in_one() -> None:
    frame = pd.DataFrame({"old": [1, 0], "big": [1.0, 1.0], "tags": ["old big", "big"]})
    target, values = read(frame, ["old", "big"])
    assert (target.classes, values.tolist()) == (["old", "big"], [[1, 1], [0, 1]])
    target, values = read(frame, "tags", separator=" ")
    assert (target.classes, values.tolist()) == (["big", "old"], [[1, 1], [1, 0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "z"}, "own.csv has no column 'z'"),
        ({"target": ["y", "old"], "kind": "binary"}, "several targets are labels, not binary"),
        ({"kind": "multilabel"}, "multilabel needs"),
        ({"kind": "binary"}, "y has 3"),
    ],
)
def test_a_target_that_does_not_fit_the_request_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(column("a", "b", "c").assign(old=0), **settings)


@pytest.mark.parametrize(
    ("frame", "settings", "message"),
    [
        (column(1.5, None, 2.5), {}, "row 3: the target y is missing"),
        (column(7.5, 7.5), {}, "7.5 in every row"),
        (column("a", "a"), {}, "a in every row"),
        (column(*map(str, range(1001))), {"kind": "multiclass"}, "1,001 classes in 1,001 rows; is it a quantity"),
        (column(*map("m{}".format, range(30))), {}, "another class in each of 30 rows; is it an id"),
        (column("a", "a"), {"separator": ";"}, r"gives 1 label\(s\)"),
        (column(0, 2).assign(old=1), {"target": ["y", "old"]}, "row 3: the label y is 2, not 0 or 1"),
    ],
)
def test_values_that_cannot_be_learned_are_refused(frame: pd.DataFrame, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(frame, **settings)


def test_a_row_without_labels_adds_no_label() -> None:
    target, values = read(pd.DataFrame({"y": ["old;big", None, "big;", ""]}), separator=";")
    assert (target.classes, values.tolist()) == (["big", "old"], [[1, 1], [0, 0], [1, 0], [0, 0]])


@pytest.mark.parametrize("kind", ["table", "texts"])
def test_a_row_without_labels_is_none_without_a_target(kind: str, here: Path) -> None:
    labels = ["old;big", "", "big", "old"] * 25
    pd.DataFrame({"y": labels, "x": np.arange(100) * 0.5, "text": [f"word {n}" for n in range(100)]}).to_csv("t.csv")
    settings: dict[str, Any] = {"path": "t.csv", "target": "y", "target_separator": ";", "skip_bad": True}
    source = TabularData(here, **settings) if kind == "table" else TextData(here, **settings)
    table = source.read()
    assert len(table.split) == 100
    assert not [note for note in table.notes if "left out" in note]
