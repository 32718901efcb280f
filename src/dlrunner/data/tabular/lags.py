"""Lags and rolling means of the target as inputs of a forecast, made without the future.

A forecast is made once for the next `horizon` periods, so that the row of period t may use targets of t - horizon and
earlier only: nothing newer is known of the last row. For a group g (a store), y its mean target in a period:

    lag k      y(g, t - k'), k' the smallest multiple of k that is at least the horizon: with a horizon of 31 days the
               lag of 7 days is that of 35, the same weekday
    mean w     mean of the known y(g, s), t - horizon - w < s <= t - horizon

A feature without a known target is missing. Training and validation rows, and new ones, have the same features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dlrunner.data.core.columns import category_values
from dlrunner.data.core.periods import Period, counted
from dlrunner.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_CELLS = 50_000_000
"""Groups times periods: such a table takes 400 MB."""
SEPARATOR = "\x1f"
"""Between the columns of a group's key."""


@dataclass(frozen=True)
class LagSettings:
    """Which lags and rolling means of the target a table gets. Names as in the `data` section."""

    target: str
    horizon: int
    """Periods that are predicted at once."""
    period: Period
    lags: list[int] = field(default_factory=list)
    rolling_means: list[int] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    """Columns that identify a group; none: all rows are one."""
    scale: str = "none"
    """`log` or `log1p`, as the target is learned."""

    @property
    def used_lags(self) -> dict[int, int]:
        """By each lag the one that is known at the time of the forecast: its smallest multiple from the horizon on.

        >>> LagSettings("sold", 31, "day", [7, 28, 365]).used_lags
        {7: 35, 28: 56, 365: 365}
        """
        return {lag: -(-self.horizon // lag) * lag for lag in self.lags}

    @property
    def names(self) -> list[str]:
        """The columns of the features."""
        lags = dict.fromkeys(self.used_lags.values())
        means = dict.fromkeys(self.rolling_means)
        return [*(f"{self.target}_lag_{lag}" for lag in lags), *(f"{self.target}_mean_{width}" for width in means)]

    def description(self) -> str:
        """Return how the features were made, for a note."""
        moved = [f"{lag} as {used}" for lag, used in self.used_lags.items() if lag != used]
        shifted = f"; lags shorter than that are the next multiple: {', '.join(moved)}" if moved else ""
        by = f" by {', '.join(self.group)}" if self.group else ""
        return (
            f"lags of {self.target}{by} are at least data.horizon={counted(self.horizon, self.period)} old, since "
            f"nothing newer is known when a forecast is made{shifted}"
        )


@dataclass(frozen=True)
class KnownTargets:
    """The mean target of each group and period that has one, from which the features of any rows are computed."""

    settings: LagSettings
    keys: list[str]
    """Of the groups."""
    groups: Ints
    """Number of the group, [known targets]."""
    periods: Ints
    values: Floats

    @classmethod
    def of_rows(cls, settings: LagSettings, frame: pd.DataFrame, periods: Ints, values: Floats) -> KnownTargets:
        """Return the known targets of a table; rows without a target are left out.

        Raises:
            ConfigError: there are too many groups and periods.
        """
        rows = pd.DataFrame({"key": group_keys(frame, settings.group), "period": periods, "value": values}).dropna()
        means = rows.groupby(["key", "period"], sort=True)["value"].mean()
        return cls._of_means(settings, means)

    @classmethod
    def _of_means(cls, settings: LagSettings, means: pd.Series[Any]) -> KnownTargets:
        codes, keys = pd.factorize(means.index.get_level_values("key"))
        periods = means.index.get_level_values("period").to_numpy(np.int64)
        size = len(keys) * (int(periods.max() - periods.min()) + 1) if len(periods) else 0
        if size > MOST_CELLS:
            raise ConfigError(f"data.group: groups times periods are {size:,}, more than {MOST_CELLS:,}")
        return cls(settings, keys.tolist(), codes.astype(np.int64), periods, means.to_numpy(np.float64))

    @property
    def last(self) -> int:
        """The last period with a known target."""
        return int(self.periods.max())

    def extended(self, frame: pd.DataFrame, periods: Ints, values: Floats) -> KnownTargets:
        """Return these and further known targets; a further one replaces that of the same group and period."""
        further = KnownTargets.of_rows(self.settings, frame, periods, values)
        return self._of_means(self.settings, further._means().combine_first(self._means()).sort_index())

    def _means(self) -> pd.Series[Any]:
        keys = np.asarray(self.keys, dtype=object)[self.groups]
        return pd.Series(self.values, pd.MultiIndex.from_arrays([keys, self.periods], names=["key", "period"]))

    def _numbers(self, frame: pd.DataFrame) -> Ints:
        """Return the number of each row's group, -1 for one without known targets, [rows]."""
        keys = pd.Index(group_keys(frame, self.settings.group))
        return np.asarray(pd.Index(self.keys).get_indexer(keys), dtype=np.int64)

    def unknown_groups(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which rows are of a group without known targets, [rows]."""
        return np.asarray(self._numbers(frame) < 0)

    def columns(self, frame: pd.DataFrame, periods: Ints) -> pd.DataFrame:
        """Return the features of rows by name, in the scale in which the target is learned; unknown ones are NaN."""
        first, settings = int(self.periods.min()), self.settings
        num_periods = self.last - first + 1
        table = np.full((len(self.keys) + 1, num_periods), np.nan)  # the last row is that of all other groups
        table[self.groups, self.periods - first] = self.values
        groups = self._numbers(frame)
        at = periods - first
        features = [_at(table, groups, at - lag) for lag in dict.fromkeys(settings.used_lags.values())]
        means = dict.fromkeys(settings.rolling_means)
        if means:
            before = np.zeros((2, len(table), num_periods + 1))
            np.cumsum(np.nan_to_num(table), axis=1, out=before[0, :, 1:])
            np.cumsum(np.isfinite(table), axis=1, out=before[1, :, 1:])
            end = np.clip(at - settings.horizon + 1, 0, num_periods)
            for width in means:
                start = np.clip(at - settings.horizon + 1 - width, 0, num_periods)
                total, count = before[:, groups, end] - before[:, groups, start]
                features.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
        scaled = {name: _scaled(values, settings.scale) for name, values in zip(settings.names, features, strict=True)}
        return pd.DataFrame(scaled, index=frame.index)

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values, for a checkpoint: 16 bytes for each group and period."""
        return {
            "settings": asdict(self.settings),
            "keys": self.keys,
            "groups": torch.from_numpy(self.groups.astype(np.int32)),
            "periods": torch.from_numpy(self.periods.astype(np.int32)),
            "values": torch.from_numpy(self.values.copy()),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> KnownTargets:
        """Return what `state` was made from."""
        groups, periods = (state[name].numpy().astype(np.int64) for name in ("groups", "periods"))
        return cls(LagSettings(**state["settings"]), state["keys"], groups, periods, state["values"].numpy())


def group_keys(frame: pd.DataFrame, group: Sequence[str]) -> NDArray[Any]:
    """Return the key of each row's group, the same however the columns were read; rows without one are a group too."""
    columns = [_as_strings(category_values(frame[name])) for name in group]
    keys = np.full(len(frame), "", dtype=object)
    for number, column in enumerate(columns):
        keys = column if number == 0 else keys + SEPARATOR + column
    return keys


def _as_strings(values: pd.Series[Any]) -> NDArray[Any]:
    """Return the values of a column as strings: 1.0 is 1, whether or not another row has 1.5."""
    strings = values.astype(str)
    if pd.api.types.is_float_dtype(values):
        strings = strings.str.removesuffix(".0")
    return strings.where(values.notna(), "").to_numpy(object)


def _at(table: Floats, groups: Ints, at: Ints) -> Floats:
    """Return the values of groups in periods, NaN outside the table."""
    inside = (at >= 0) & (at < table.shape[1])
    return np.where(inside, table[groups, np.where(inside, at, 0)], np.nan)


def _scaled(values: Floats, scale: str) -> Floats:
    if scale == "log":
        return np.log(values, out=np.full(len(values), np.nan), where=values > 0)
    return np.log1p(values, out=np.full(len(values), np.nan), where=values > -1) if scale == "log1p" else values
