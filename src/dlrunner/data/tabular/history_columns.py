"""The features of a history as columns of a table, and of new rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID, Parts
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.history import BASE, History, Ints
from dlrunner.data.tabular.history_settings import HistorySettings
from dlrunner.data.tabular.preprocessing import HISTORY
from dlrunner.data.tabular.target_features import TargetFeatures
from dlrunner.errors import ConfigError


def day_numbers(dates: pd.Series[Any]) -> Ints:
    """Return days since 1970-01-01."""
    return np.asarray(dates.to_numpy("datetime64[D]").astype(np.int64))


def history_settings(settings: Any) -> HistorySettings | None:
    """Return the settings of a configuration."""
    return None if settings is None else HistorySettings.model_validate(settings)


def with_history(
    settings: HistorySettings,
    frame: pd.DataFrame,
    days: Ints,
    target: Target,
    values: NDArray[Any],
    split: Parts,
) -> TargetFeatures:
    """Return a table with the features of its history, of which one block begins with the first validation day.

    Raises:
        ConfigError: the target is not a number, or the warmup leaves no training rows.
    """
    if target.kind != "regression":
        raise ConfigError(f"data.history: is for a numeric target, not {target.kind}")
    if own := [str(name) for name in frame if str(name).startswith(HISTORY)]:
        raise ConfigError(f"data.history: its features are called {HISTORY}…; rename the column {own[0]}")
    train = np.asarray(split == TRAIN)
    early = train & (days < days[train].min() + settings.warmup)
    if early.sum() == train.sum():
        raise ConfigError(f"data.history.warmup: {settings.warmup} days leave no training rows")
    transformed = target.fit(values[train & ~early]).encode(values).numpy()  # in the units of the model's target
    history = History.fit(settings, frame, days, transformed, train, int(days[split == VALID].min()))
    columns = history.columns(frame, days)
    names = [str(name) for name in columns if name != BASE]
    split = np.where(early, UNUSED, split).astype(np.int8)
    notes = []
    if not settings.past and days[split == VALID].min() > days[train].max():
        notes.append("validation rows are newer than all training rows: data.history.past=true suits a forecast")
    empty = history.is_empty(days)
    if empty[split == TRAIN].any() or empty[split == VALID].any():
        counts = f"{empty[split == TRAIN].sum():,} training and {empty[split == VALID].sum():,} validation row(s)"
        notes.append(
            f"{counts} have no history, since no training row is before their block: data.history.warmup leaves such "
            "training rows out, data.split=last_days such validation rows"
        )
    base = BASE if settings.base else None
    extended = pd.concat([frame, columns], axis=1)
    recipe = {"history": history.state()}
    return TargetFeatures(extended, split, names, "history of the target", settings.columns, recipe, notes, base)


def is_history(name: str, recipe: Mapping[str, Any]) -> bool:
    """Return whether a column of a run's inputs is a feature of the history."""
    return "history" in recipe and name.startswith(HISTORY)


def history_columns(recipe: Mapping[str, Any]) -> list[str]:
    """Return the columns of new rows that the features of a run depend on."""
    return HistorySettings(**recipe["history"]["settings"]).columns if "history" in recipe else []


def without_history(days: Ints, recipe: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return which days of new rows lie before all that a run's history may use."""
    return History.from_state(recipe["history"]).is_empty(days)


def add_history(frame: pd.DataFrame, days: Ints, recipe: Mapping[str, Any]) -> pd.DataFrame:
    """Return new rows with the features of a run's history, if it has one."""
    if "history" not in recipe:
        return frame
    return pd.concat([frame, History.from_state(recipe["history"]).columns(frame, days)], axis=1)
