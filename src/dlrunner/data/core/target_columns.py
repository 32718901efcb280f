"""Reading a target from the column, or columns, of a table."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.columns import MAX_CATEGORIES, category_values, quoted
from dlrunner.data.core.regression import Regression, Transform
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.targets import Binary, Kind, MultiClass, MultiLabel, Target
from dlrunner.errors import ConfigError, DataError, did_you_mean


def read_target(
    frame: pd.DataFrame,
    target: str | list[str],
    kind: Literal["auto"] | Kind,
    separator: str | None,
    transform: Literal["auto"] | Transform,
    place: RowLocations,
) -> tuple[Target, NDArray[Any]]:
    """Return the target, without statistics, and its values: float64, class codes, or 0/1 by label.

    Raises:
        ConfigError: the column does not exist, or cannot be of that kind.
        DataError: values are missing, not finite, not numbers, or have no logarithm.
    """
    names = target if isinstance(target, list) else [target]
    for name in names:
        if name not in frame.columns:
            raise ConfigError(f"data.target: {place} has no column {name!r}; {did_you_mean(name, frame.columns)}")
        missing = frame[name].isna().to_numpy()
        if missing.any() and separator is None:
            raise DataError(
                f"{place.at(int(missing.argmax()))}: the target {name} is missing; "
                f"{int(missing.sum()):,} such row(s) in all (data.skip_bad=true leaves them out)"
            )
    if len(names) > 1 or separator is not None:
        if kind not in ("auto", "multilabel"):
            raise ConfigError(f"data.kind: several targets are labels, not {kind}")
        return _labels(frame, names, separator, place)
    column = frame[names[0]]
    found = _guess_kind(column) if kind == "auto" else kind
    if found != "regression" and transform not in ("auto", "none"):
        raise ConfigError(
            f"data.target_transform: {transform} is for numbers; {names[0]} is read as {found} "
            "(data.kind=regression overrides this)"
        )
    if found == "regression":
        return _numbers(column, names[0], "standard" if transform == "auto" else transform, place)
    if found == "multilabel":
        raise ConfigError("data.kind: multilabel needs data.target=[a,b,c] or data.target_separator")
    return _classes(column, names[0], found, place)


def _guess_kind(column: pd.Series[Any]) -> Kind:
    """Text, booleans, and 0 and 1 are classes; other numbers are a regression target."""
    categories = column.nunique()
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "binary" if set(column.unique().tolist()) <= {0, 1} else "regression"
    return "binary" if categories <= 2 else "multiclass"


def _numbers(
    column: pd.Series[Any], name: str, transform: Transform, place: RowLocations
) -> tuple[Target, NDArray[np.float64]]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{place.at(row)}: the target {name} is {quoted(column.iloc[row])}, which is not a finite number; "
            f"{int(bad.sum()):,} such row(s) in all (data.kind=multiclass reads texts as classes)"
        )
    if transform == "log1p" and (numbers < 0).any():
        row = int((numbers < 0).argmax())
        raise DataError(
            f"{place.at(row)}: the target {name} is {numbers[row]:g}; data.target_transform=log1p is for counts "
            "and other numbers from 0 on"
        )
    if transform == "log" and (numbers <= 0).any():
        row = int((numbers <= 0).argmax())
        raise DataError(
            f"{place.at(row)}: the target {name} is {numbers[row]:g}, which has no logarithm; "
            f"{int((numbers <= 0).sum()):,} such row(s) in all (remove them, or set "
            "data.target_transform=log1p, for zeros, or standard)"
        )
    if numbers.min() == numbers.max():
        raise DataError(f"{place}: the target {name} is {numbers[0]:g} in every row; there is nothing to learn")
    return Regression([name], transform=transform), numbers


def _classes(column: pd.Series[Any], name: str, kind: Kind, place: RowLocations) -> tuple[Target, NDArray[np.int64]]:
    values = category_values(column)
    categories = sorted(pd.unique(values).tolist(), key=lambda value: (isinstance(value, str), value))
    if len(categories) < 2:
        raise DataError(f"{place}: the target {name} is {categories[0]} in every row; there is nothing to learn")
    if kind == "binary" and len(categories) != 2:
        raise ConfigError(f"data.kind: binary needs two classes; {name} has {len(categories)}")
    if len(categories) > 1000:
        raise DataError(
            f"{place}: the target {name} has {len(categories):,} classes in {len(column):,} rows; "
            "is it a quantity (data.kind=regression), or an id?"
        )
    if len(categories) == len(column) > MAX_CATEGORIES:
        raise DataError(
            f"{place}: the target {name} has another class in each of {len(column):,} rows; is it an id? "
            "data.target names the column of classes"
        )
    codes = pd.Index(categories).get_indexer(values)
    return (Binary if kind == "binary" else MultiClass)([name], categories), np.asarray(codes, dtype=np.int64)


def _labels(
    frame: pd.DataFrame, names: list[str], separator: str | None, place: RowLocations
) -> tuple[Target, NDArray[np.float32]]:
    if separator is not None:
        listed = [split_labels(text, separator) for text in frame[names[0]].fillna("").astype(str)]
        labels = sorted({label for each in listed for label in each})
        if len(labels) < 2:
            raise DataError(f"{place}: {names[0]} split at {separator!r} gives {len(labels)} label(s)")
        codes = {label: code for code, label in enumerate(labels)}
        values = np.zeros((len(listed), len(labels)), np.float32)
        for row, each in enumerate(listed):
            values[row, [codes[label] for label in each]] = 1
        return MultiLabel(names, labels, separator), values
    for name in names:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = ~np.isin(numbers, [0, 1])
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"{place.at(row)}: the label {name} is {quoted(frame[name].iloc[row])}, not 0 or 1")
    return MultiLabel(names, list(names)), frame[names].to_numpy(np.float32)


def split_labels(text: str, separator: str) -> list[str]:
    """Return the labels that a text lists, without blanks at their ends; an empty one is none.

    >>> split_labels("a; b;", ";"), split_labels("", ";"), split_labels(" a  b ", " ")
    (['a', 'b'], [], ['a', 'b'])
    """
    return [label for each in text.split(separator) if (label := each.strip())]
