"""New rows, read and prepared as the training rows were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.core.columns import PARTS, date_parts, part_prefixes
from dlrunner.data.tables.reading import BadRow
from dlrunner.data.tables.schema import Schema
from dlrunner.data.tables.table import Table, read_frame
from dlrunner.data.tabular.history_columns import (
    add_history,
    day_numbers,
    history_columns,
    is_history,
    without_history,
)
from dlrunner.data.tabular.lag_columns import add_lags
from dlrunner.data.tabular.lags import LagSettings
from dlrunner.data.tabular.trend import clip_parts

NO_HISTORY = "no training row is before it: it has no history"


def rows_to_predict(table: pd.DataFrame, recipe: Mapping[str, Any], names: Sequence[str], place: Path) -> Table:
    """Return new rows as the training rows were read, with the parts of their dates.

    Args:
        table: strings as a file has them, or values.
        recipe: of the training table.
        names: the columns that the model was trained on; parts of dates among them.
        place: for messages.
    """
    prefixes = date_prefixes(recipe)
    dates, wanted = needed_columns(recipe, names)
    target = name if (name := lag_target(recipe)) and name in table.columns else None
    schema = Schema.from_state(recipe["schema"]) if "schema" in recipe else None
    read = read_frame(table, schema, [*wanted, *([target] if target else [])], place, dates=dates)
    parts = all_date_parts(read.frame, prefixes).drop(columns=wanted, errors="ignore")
    built, notes = clip_parts(parts, prefixes, recipe.get("ranges", {}))
    frame, bad = pd.concat([read.frame[wanted], built], axis=1), [each for each in read.bad if each.column != target]
    if "date" not in recipe:
        return replace(read, frame=frame, bad=bad, notes=tuple(notes))
    days = pd.to_datetime(frame[recipe["date"]])
    missing = days.isna().to_numpy()
    reason = f"{recipe['date']} is missing"
    known = {each.row for each in bad}
    bad += [BadRow(int(row), recipe["date"], reason) for row in np.flatnonzero(missing) if row not in known]
    days = days.fillna(days.max() if not missing.all() else pd.Timestamp(0))
    if "history" in recipe:
        numbers = day_numbers(days)
        early = np.flatnonzero(without_history(numbers, recipe) & ~missing)
        bad += [BadRow(int(row), recipe["date"], NO_HISTORY) for row in early]
        frame = add_history(frame, numbers, recipe)
    frame, more = add_lags(frame, days, read.frame[target].mask(missing) if target else None, recipe)
    return replace(read, frame=frame, bad=bad, notes=(*notes, *more))


def date_prefixes(recipe: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the prefixes of the parts of each date."""
    dates: Any = recipe["dates"]
    return dates if isinstance(dates, dict) else part_prefixes(dates, ())


def part_names(recipe: Mapping[str, Any]) -> set[str]:
    """Return the columns of the parts of all dates.

    A column of the training table is none of them: a run that is older than a part may have one of its name.
    """
    columns = {each["name"] for each in recipe["schema"]} if "schema" in recipe else set()
    return {f"{prefix}{part}" for prefix in date_prefixes(recipe).values() for part in PARTS} - columns


def needed_columns(recipe: Mapping[str, Any], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the dates, and all columns, that new rows must have.

    Args:
        recipe: of the training table.
        names: the columns that the model was trained on; parts of dates among them.
    """
    lags = LagSettings(**recipe["lags"]["settings"]) if "lags" in recipe else None
    made, needed = (set(lags.names), lags.group) if lags else (set(), [])
    parts = part_names(recipe)
    names = [name for name in names if not is_history(name, recipe) and name not in made]
    names += [*history_columns(recipe), *needed]
    dates = list(dict.fromkeys([*date_prefixes(recipe), *([recipe["date"]] if "date" in recipe else [])]))
    return dates, list(dict.fromkeys([*dates, *(name for name in names if name not in parts)]))


def lag_target(recipe: Mapping[str, Any]) -> str | None:
    """Return the column whose values in new rows, where they are known, are lags of later rows; None without lags."""
    return LagSettings(**recipe["lags"]["settings"]).target if "lags" in recipe else None


def row_names(recipe: Mapping[str, Any]) -> list[str]:
    """Return the columns that say which row a prediction is of: date and group of a forecast; none: its number."""
    return [recipe["date"], *recipe["lags"]["settings"]["group"]] if "lags" in recipe else []


def all_date_parts(frame: pd.DataFrame, prefixes: Mapping[str, str]) -> pd.DataFrame:
    """Return the parts of all dates of a table."""
    parts = [date_parts(frame[name], prefix) for name, prefix in prefixes.items()]
    return pd.concat(parts, axis=1) if parts else pd.DataFrame(index=frame.index)
