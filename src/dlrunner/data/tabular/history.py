"""Features from the history of the target: the level of a group, its latest residuals, what a day has in common.

Days are cut into blocks, and the features of a row come from the training rows outside its block, with `past` from
those before it: no row sees its own target, and training rows see gaps of the same kind as validation rows.
For a group g (a store), a cell c within it (a weekday with promotion) and a day t, y the transformed target:

    level     P(g, c) = m(g) + (sum of y - m(g) over g's rows in c + 6 · its mean over the peers' rows in c) / (n + 6),
              m(g) the mean of the group
    effect    E(t) = sum of (y - P) of the day / (n + 20) over all groups, and the same of what remains in each region
    residual  r = y - P - E; its weighted means sum(w r) / (sum(w) + k), with the days d from t to the residual's:
        recent_20, recent_60   w = exp(-d / 20), exp(-d / 60)               k = 2
        year_1, year_2         w = exp(-(d - 364)² / 98), 728 for year_2    k = 8
        weekday                w = exp(-d / 200) on the same weekday        k = 4
        before, after          w = 1 in the 28 days around the block        k = 1; before_rows, after_rows: how many
        residual_by_C          w = 1 where column C has the same category   k = 8
    spread    standard deviation of r in the group
    day_effect_364 …           E of the day 364 and 728 days before and after, and whether there is one
    day_effect_before          mean of E in the 28 days before the block
    day_effect_by_C            mean of E over all rows with the same category of column C, and half a day's rows of 0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dlrunner.data.tabular.history_settings import HistorySettings
from dlrunner.data.tabular.preprocessing import HISTORY, TabularPreprocessor
from dlrunner.errors import ConfigError, did_you_mean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CELL_SHRINKAGE, DAY_SHRINKAGE, SPREAD_SHRINKAGE, EFFECT_SHRINKAGE = 6, 20, 20, 8
AROUND = 28
YEARS = (-728, -364, 364, 728)
"""Days to the same weekday of other years."""
MOST_CELLS = 50_000_000
"""Groups times days: each such table takes 400 MB."""
NEGLIGIBLE = 1e-6
"""Weights below this one are 0."""
BASE = "history_base"
"""level + recent_20, which a model's output is added to."""


@dataclass(frozen=True)
class Combinations:
    """The combinations of categories in the training rows, numbered; the last number is that of all others."""

    categories: dict[str, list[Any]]
    known: list[int]

    @classmethod
    def fit(cls, frame: pd.DataFrame, columns: list[str]) -> Combinations:
        """Learn from the training rows."""
        categories = TabularPreprocessor.fit(frame, columns, []).categories
        return cls(categories, np.unique(_mixed(frame, categories)).tolist())

    def codes(self, frame: pd.DataFrame) -> Ints:
        """Return the number of each row's combination, [rows]."""
        codes = pd.Index(self.known).get_indexer(pd.Index(_mixed(frame, self.categories)))
        return np.where(codes < 0, len(self.known), codes).astype(np.int64)


def _mixed(frame: pd.DataFrame, categories: Mapping[str, list[Any]]) -> Ints:
    codes = TabularPreprocessor(dict(categories), {}, {}, {}, []).codes(frame)
    mixed = np.zeros(len(frame), dtype=np.int64)
    for place, known in enumerate(categories.values()):
        mixed = mixed * (len(known) + 1) + codes[:, place]
    return mixed


@dataclass(frozen=True)
class HistoryRows:
    """Codes of group and cell, and the day since 1970-01-01, each [rows]."""

    groups: Ints
    cells: Ints
    days: Ints
    effects: Ints
    """Codes of the columns with effects, [columns, rows]."""

    def __getitem__(self, chosen: NDArray[Any]) -> HistoryRows:
        return HistoryRows(self.groups[chosen], self.cells[chosen], self.days[chosen], self.effects[:, chosen])


@dataclass(frozen=True)
class History:
    """The training rows, from which the features of any rows are computed."""

    settings: HistorySettings
    groups: Combinations
    cells: Combinations
    effects: list[Combinations]
    """The categories of each column with effects."""
    peers: Ints
    """Of each group, [groups + 1]; the last one is that of groups without history."""
    regions: Ints
    rows: HistoryRows
    values: Floats
    """Transformed targets, [rows]."""
    anchor: int
    """The first day of a block."""

    @classmethod
    def fit(
        cls,
        settings: HistorySettings,
        frame: pd.DataFrame,
        days: Ints,
        values: Floats,
        train: NDArray[np.bool_],
        anchor: int,
    ) -> History:
        """Learn from the training rows.

        Args:
            settings: which columns make a group and a cell.
            frame: the table.
            days: since 1970-01-01, [rows].
            values: transformed targets, [rows].
            train: which rows are for training, [rows].
            anchor: the first day of a block, such as the first validation day.

        Raises:
            ConfigError: the table has no such column, or too many groups and days.
        """
        for name in settings.columns:
            if name not in frame.columns:
                raise ConfigError(f"data.history: there is no column {name!r}; {did_you_mean(name, frame.columns)}")
        known = frame[train]
        groups, cells = Combinations.fit(known, settings.by), Combinations.fit(known, settings.within)
        effects = [Combinations.fit(known, [name]) for name in settings.effects]
        rows = HistoryRows(groups.codes(known), cells.codes(known), days[train], _effect_codes(effects, known))
        size = (len(groups.known) + 1) * (int(rows.days.max() - rows.days.min()) + 1)
        if size > MOST_CELLS:
            raise ConfigError(f"data.history.by: groups times days are {size:,}, more than {MOST_CELLS:,}")
        peers, regions = (
            _of_groups(known, name, rows.groups, len(groups.known)) for name in (settings.peers, settings.region)
        )
        return cls(settings, groups, cells, effects, peers, regions, rows, values[train].astype(np.float64), anchor)

    def columns(self, frame: pd.DataFrame, days: Ints) -> pd.DataFrame:
        """Return the features of rows, and with `base` the column BASE, by name."""
        codes = self.groups.codes(frame), self.cells.codes(frame), days, _effect_codes(self.effects, frame)
        found = self.features(HistoryRows(*codes))
        columns = {f"{HISTORY}{name}": values for name, values in found.items()}
        if self.settings.base:
            columns[BASE] = found["level"] + found["recent_20"]
        return pd.DataFrame(columns, index=frame.index)

    def features(self, rows: HistoryRows) -> dict[str, NDArray[np.float32]]:
        """Return the features of rows by name, each [rows]."""
        starts = self.block_starts(rows.days)
        found: dict[str, NDArray[np.float32]] = {}
        order = np.argsort(starts, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(starts[order])) + 1):
            if len(part):
                start = int(starts[part[0]])
                chosen = self.rows.days < start
                if not self.settings.past:
                    chosen |= self.rows.days >= start + self.settings.block
                for name, values in _Block(self, start, chosen).features(rows[part]).items():
                    found.setdefault(name, np.zeros(len(starts), dtype=np.float32))[part] = values
        return found

    def is_empty(self, days: Ints) -> NDArray[np.bool_]:
        """Return which days have no training row that their features may use."""
        first, last = int(self.rows.days.min()), int(self.rows.days.max())
        starts = self.block_starts(days)
        empty = first >= starts
        return empty if self.settings.past else empty & (last < starts + self.settings.block)

    def block_starts(self, days: Ints) -> Ints:
        """Return the first day of each day's block; blocks start anew on the day after the last training day."""
        last = int(self.rows.days.max())
        anchor = np.where(days > last, last + 1, self.anchor)
        return np.asarray(anchor + (days - anchor) // self.settings.block * self.settings.block)

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values, for a checkpoint: 16 bytes for a training row."""
        arrays = {
            "groups": self.rows.groups.astype(np.int32),
            "cells": self.rows.cells.astype(np.int32),
            "days": self.rows.days.astype(np.int32),
            "values": self.values.astype(np.float32),
            "effect_codes": self.rows.effects.astype(np.int32),
            "peers": self.peers,
            "regions": self.regions,
        }
        return {
            "settings": self.settings.model_dump(),
            "by": [self.groups.categories, self.groups.known],
            "within": [self.cells.categories, self.cells.known],
            "effects": [[each.categories, each.known] for each in self.effects],
            "anchor": self.anchor,
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> History:
        """Return what `state` was made from, but for the rounding of values."""
        groups, cells, days = (state[name].numpy().astype(np.int64) for name in ("groups", "cells", "days"))
        effects = np.zeros((0, len(days)), dtype=np.int64)
        if "effect_codes" in state:  # older runs have none
            effects = state["effect_codes"].numpy().astype(np.int64)
        return cls(
            HistorySettings(**state["settings"]),
            Combinations(*state["by"]),
            Combinations(*state["within"]),
            [Combinations(*each) for each in state.get("effects", [])],
            state["peers"].numpy(),
            state["regions"].numpy(),
            HistoryRows(groups, cells, days, effects),
            state["values"].numpy().astype(np.float64),
            state["anchor"],
        )


def _effect_codes(effects: list[Combinations], frame: pd.DataFrame) -> Ints:
    """Return the codes of the columns with effects, [columns, rows]."""
    return np.array([each.codes(frame) for each in effects], dtype=np.int64).reshape(len(effects), len(frame))


def _of_groups(frame: pd.DataFrame, column: str | None, groups: Ints, num_groups: int) -> Ints:
    """Return the code of each group's category in a column; groups without history have one of their own."""
    found = np.zeros(num_groups + 1, dtype=np.int64)
    if column is not None:
        codes, _ = pd.factorize(frame[column].astype(str))
        found[groups] = codes
        found[-1] = codes.max() + 1
    return found


class _Block:
    """What the rows outside a block say.

    Args:
        known: the history.
        start: the first day of the block.
        chosen: which of its rows are used.
    """

    def __init__(self, known: History, start: int, chosen: NDArray[np.bool_]) -> None:
        self.known, self.start = known, start
        self.first, num_days = int(known.rows.days.min()), int(known.rows.days.max() - known.rows.days.min()) + 1
        self.num_groups, self.num_days = len(known.groups.known) + 1, num_days
        self.rows, self.values = rows, values = known.rows[chosen], known.values[chosen]
        self.level = self._levels(rows, values)
        shape = (self.num_groups, num_days)
        at = rows.groups * num_days + rows.days - self.first
        self.counts = _sums(at, np.ones(len(at)), shape)
        self.sums = _sums(at, values - self.level[rows.groups, rows.cells], shape)
        """Of the residuals, [groups, days]."""
        regions = known.regions
        in_day = self.counts.sum(axis=0)
        overall = self.sums.sum(axis=0) / (in_day + DAY_SHRINKAGE)
        member = np.zeros((int(regions.max()) + 1, self.num_groups))
        member[regions, np.arange(self.num_groups)] = 1
        rest = member @ (self.sums - self.counts * overall)
        self.effect = overall + rest / (member @ self.counts + DAY_SHRINKAGE)
        """Of the day, [regions, days]."""
        self.is_known = in_day > 0
        self.sums -= self.counts * self.effect[regions]

    @cached_property
    def effect_of_row(self) -> Floats:
        """The effect of the day of each row that is used."""
        return np.asarray(self.effect[self.known.regions[self.rows.groups], self.rows.days - self.first])

    @cached_property
    def residual_of_row(self) -> Floats:
        """The residual of each row that is used."""
        return self.values - self.level[self.rows.groups, self.rows.cells] - self.effect_of_row

    def _levels(self, rows: HistoryRows, values: Floats) -> Floats:
        """Return P, [groups, cells]."""
        known = self.known
        mean = float(values.mean()) if len(values) else 0.0
        num_cells = len(known.cells.known) + 1
        count = np.bincount(rows.groups, minlength=self.num_groups)
        of_group = mean + np.bincount(rows.groups, values - mean, self.num_groups) / (count + 1)
        deviations, ones = values - of_group[rows.groups], np.ones(len(values))
        shape = (int(known.peers.max()) + 1, num_cells)
        at = known.peers[rows.groups] * num_cells + rows.cells
        of_peers = (_sums(at, deviations, shape) / (_sums(at, ones, shape) + 1))[known.peers]
        shape, at = (self.num_groups, num_cells), rows.groups * num_cells + rows.cells
        total = _sums(at, deviations, shape) + CELL_SHRINKAGE * of_peers
        return np.asarray(of_group[:, None] + total / (_sums(at, ones, shape) + CELL_SHRINKAGE))

    def features(self, rows: HistoryRows) -> dict[str, NDArray[Any]]:
        """Return the features of rows in the block by name, each [rows]."""
        found: dict[str, NDArray[Any]] = {"level": self.level[rows.groups, rows.cells]}
        counts, sums = self.counts.astype(np.float32), self.sums.astype(np.float32)
        days, place = np.unique(rows.days, return_inverse=True)
        gap = np.abs(np.arange(self.num_days)[:, None] + self.first - days).astype(np.float32)
        for name, (kernel, shrinkage) in _kernels(gap).items():
            found[name] = ((sums @ kernel) / (counts @ kernel + shrinkage))[rows.groups, place]
        end = self.start + self.known.settings.block
        found |= self._around("before", self.start - AROUND, self.start, rows)
        before = self._days(self.start - AROUND, self.start)
        effect = self.effect[:, before].sum(axis=1) / max(1, before.stop - before.start)
        found["day_effect_before"] = effect[self.known.regions[rows.groups]]
        if not self.known.settings.past:
            found |= self._around("after", end, end + AROUND, rows)
        for column, name in enumerate(self.known.settings.effects):
            found |= self._by_category(name, self.rows.effects[column], rows.groups, rows.effects[column])
        squares = (self.sums**2 / np.maximum(self.counts, 1)).sum(axis=1)
        total = self.counts.sum(axis=1)
        usual = squares.sum() / max(1.0, total.sum())
        found["spread"] = np.sqrt((squares + SPREAD_SHRINKAGE * usual) / (total + SPREAD_SHRINKAGE))[rows.groups]
        for offset in YEARS[: 2 if self.known.settings.past else None]:
            day = rows.days + offset - self.first
            inside = (day >= 0) & (day < self.num_days)
            day = np.where(inside, day, 0)
            known = inside & self.is_known[day]
            name = f"day_effect_{'minus' if offset < 0 else 'plus'}_{abs(offset)}"
            found[name] = np.where(known, self.effect[self.known.regions[rows.groups], day], 0)
            found[f"{name}_known"] = known
        return found

    def _around(self, name: str, first: int, end: int, rows: HistoryRows) -> dict[str, NDArray[Any]]:
        """Return the mean residual of some days, and their number of rows."""
        days = self._days(first, end)
        count = self.counts[:, days].sum(axis=1)
        mean = self.sums[:, days].sum(axis=1) / (count + 1)
        return {name: mean[rows.groups], f"{name}_rows": count[rows.groups]}

    def _by_category(self, name: str, codes: Ints, groups: Ints, wanted: Ints) -> dict[str, NDArray[Any]]:
        """Return the mean effect of days and the mean residual of a group's rows with the category of each row.

        Args:
            name: of the column.
            codes: its categories in the history.
            groups: of the rows.
            wanted: their categories.
        """
        num_codes = 1 + max(int(codes.max(initial=0)), int(wanted.max(initial=0)))
        count = np.bincount(codes, minlength=num_codes)
        half_a_day = len(codes) / max(1, 2 * int(self.is_known.sum()))
        of_days = np.bincount(codes, self.effect_of_row, num_codes) / np.maximum(count + half_a_day, 1)
        at, shape = self.rows.groups * num_codes + codes, (self.num_groups, num_codes)
        total = _sums(at, self.residual_of_row, shape)
        of_groups = total / (_sums(at, np.ones(len(at)), shape) + EFFECT_SHRINKAGE)
        return {f"day_effect_by_{name}": of_days[wanted], f"residual_by_{name}": of_groups[groups, wanted]}

    def _days(self, first: int, end: int) -> slice:
        first, end = (min(max(day - self.first, 0), self.num_days) for day in (first, end))
        return slice(first, end)


def _sums(at: Ints, values: Floats, shape: tuple[int, int]) -> Floats:
    """Return the sums of values by their place in a table."""
    return np.bincount(at, values, shape[0] * shape[1]).astype(np.float64).reshape(shape)


def _kernels(gap: NDArray[np.float32]) -> dict[str, tuple[NDArray[np.float32], int]]:
    """Return the weights of days, [days, days of the block], and their shrinkage."""
    kernels = {
        "recent_20": (np.exp(-gap / 20), 2),
        "recent_60": (np.exp(-gap / 60), 2),
        "year_1": (np.exp(-((gap - 364) ** 2) / 98), 8),
        "year_2": (np.exp(-((gap - 728) ** 2) / 98), 8),
        "weekday": (np.exp(-gap / 200) * (gap % 7 == 0), 4),
    }
    return {
        name: (np.where(kernel < NEGLIGIBLE, 0, kernel), shrinkage) for name, (kernel, shrinkage) in kernels.items()
    }
