"""Lags and rolling means of the target as columns of a table, and of new rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.periods import counted, period_numbers
from dlrunner.data.core.regression import Regression
from dlrunner.data.core.splitting import TEST, TRAIN, VALID, Parts
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.lags import KnownTargets, LagSettings
from dlrunner.data.tabular.target_features import TargetFeatures
from dlrunner.errors import ConfigError, DataError, did_you_mean


def lag_columns(
    settings: LagSettings,
    frame: pd.DataFrame,
    dates: pd.Series[Any],
    target: Target,
    values: NDArray[Any],
    split: Parts,
) -> TargetFeatures:
    """Return a table that is split in time with the lags and rolling means of its target.

    Args:
        settings: which ones.
        frame: the table.
        dates: of the rows.
        target, values: what is learned; [rows].
        split: the part of each row.

    Raises:
        ConfigError: the target is not a number, a setting does not fit the table, or the split is not one in time.
        DataError: no training row has one of the features.
    """
    if not isinstance(target, Regression):
        raise ConfigError(f"data.lags: are of a numeric target, not {target.kind}")
    for name in settings.group:
        if name not in frame.columns:
            raise ConfigError(f"data.group: there is no column {name!r}; {did_you_mean(name, frame.columns)}")
    taken = [name for name in settings.names if name in frame.columns]
    if taken:
        raise ConfigError(f"data.lags: the table has a column {taken[0]} already")
    periods = period_numbers(dates, settings.period)
    _check_windows(settings, periods, split)
    known = KnownTargets.of_rows(settings, frame, periods, values.astype(np.float64))
    lags = known.columns(frame, periods)
    for name in settings.names:
        if lags[name][split == TRAIN].isna().all():
            first, last = periods[split == TRAIN].min(), periods[split == TRAIN].max()
            covered = counted(int(last - first) + 1, settings.period)
            raise DataError(f"data.lags: no training row has {name}: the training rows cover {covered}")
    notes = [settings.description()]
    if len(known.values) < len(frame):
        notes.append(
            f"{len(frame):,} rows have {len(known.values):,} different {settings.period}s of their group: lags are of "
            "the mean target (data.group names the columns of a group)"
        )
    extended = pd.concat([frame, lags], axis=1)
    columns = [*settings.group, *target.names]
    return TargetFeatures(extended, split, settings.names, "lag of the target", columns, {"lags": known.state()}, notes)


def _check_windows(settings: LagSettings, periods: NDArray[np.int64], split: Parts) -> None:
    """Refuse a split whose validation or test rows would use targets of their own window."""
    valid, newest = periods[split == VALID], periods[split == TRAIN].max()
    if newest >= valid.min():
        raise ConfigError(
            "data.split: with data.lags all training rows must be older than the validation rows: "
            "data.split=rolling or data.split=last_days"
        )
    for part, what in ((VALID, "validation"), (TEST, "test")):
        window = periods[split == part]
        covered = int(window.max() - window.min()) + 1 if len(window) else 0
        if covered > settings.horizon:
            raise ConfigError(
                f"data.horizon: the {what} rows cover {counted(covered, settings.period)}, more than are predicted at "
                f"once, {settings.horizon}"
            )


def add_lags(
    frame: pd.DataFrame, dates: pd.Series[Any], targets: pd.Series[Any] | None, recipe: Mapping[str, Any]
) -> tuple[pd.DataFrame, list[str]]:
    """Return new rows with the lags and rolling means of a run, if it has any, and notes.

    Args:
        frame: the rows.
        dates: of the rows, none missing.
        targets: those that the rows have; they extend the known ones. None: no column of them.
        recipe: of the run.
    """
    if "lags" not in recipe:
        return frame, []
    known = KnownTargets.from_state(recipe["lags"])
    settings = known.settings
    periods, notes = period_numbers(dates, settings.period), []
    if targets is not None and targets.notna().any():
        numbers = pd.to_numeric(targets, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        has_target = np.isfinite(numbers)
        known = known.extended(frame[has_target], periods[has_target], numbers[has_target])
        newest = dates[has_target].max()
        notes.append(f"{has_target.sum():,} row(s) with {settings.target} continue its history (to {newest:%Y-%m-%d})")
    late = int((periods > known.last + settings.horizon).sum())
    if late:
        notes.append(
            f"{late:,} row(s) are more than data.horizon={counted(settings.horizon, settings.period)} after the last "
            f"known {settings.target}: features newer than that are missing"
        )
    unknown = known.unknown_groups(frame)
    if unknown.any():
        notes.append(f"{unknown.sum():,} row(s) are of groups ({', '.join(settings.group)}) without known targets")
    return pd.concat([frame, known.columns(frame, periods)], axis=1), notes
