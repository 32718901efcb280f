"""A user's table: which columns are inputs, what the target is, which rows validate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from dlrunner.data.core.columns import (
    Roles,
    assign,
    date_column,
    part_prefixes,
)
from dlrunner.data.core.once import read_once
from dlrunner.data.core.periods import period_of
from dlrunner.data.core.regression import Transform
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.splitting import TRAIN, Parts, Split, Splitting, between, check_days
from dlrunner.data.core.target_columns import read_target
from dlrunner.data.core.targets import Kind, Target
from dlrunner.data.tables.description import describe_columns
from dlrunner.data.tables.schema import Column, Schema
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Decimal, Reading, Table, Thousands
from dlrunner.data.tabular.history_columns import day_numbers, history_settings, with_history
from dlrunner.data.tabular.history_settings import HistorySettings
from dlrunner.data.tabular.lag_columns import lag_columns
from dlrunner.data.tabular.lags import LagSettings
from dlrunner.data.tabular.new_rows import all_date_parts, row_names
from dlrunner.data.tabular.notes import fold_notes, input_notes, target_notes
from dlrunner.data.tabular.table import TableSource, TabularTable
from dlrunner.data.tabular.target_features import TargetFeatures
from dlrunner.data.tabular.trend import clip_parts, training_ranges, trends_of_forecast
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.ranges import Count, Natural, Positive, Seed, Text
from dlrunner.task import DataIdentity

Names = list[Text]
Counts = Annotated[list[Count], Field(min_length=1)]
DateRange = Annotated[list[Text], Field(min_length=2, max_length=2)]


class TabularData(TableSource):
    """A user's own table.

    Args:
        data_dir: not used: the table is where `path` says.
        path: CSV, TSV, Parquet, JSON, Excel or SQLite, compressed or not; a glob or folder of part files; - is standard
            input.
        query: SQL that selects from files, instead of a path.
        target: the column to predict; several columns of 0 and 1 are labels.
        categorical, continuous: the inputs, of which a column may be both; without both lists they are inferred, and
            reported with the reason.
        dates: columns that become their parts (year, month, week, …); inferred like the others.
        id: the column that names the rows in predictions.
        kind: of the target.
        target_separator: the target is text that lists labels, separated by this.
        target_transform: what a model learns of numbers: `standard` (mean 0, deviation 1; the default), `log`, `log1p`
            (of 1 + target: counts and sales with zeros), `none`.
        split: which rows are for validation: `random`, `stratified` (the same fraction of each class), `folds`,
            `dates`, `last_rows`, `last_days`, `column`, or `rolling` (one of the last windows of `horizon` periods,
            trained on what is before it).
        valid: fraction of the rows; for `last_rows` and `last_days` also their number.
        split_seed: of numpy's RandomState that permutes the rows.
        date: the column that `dates`, `last_days` and `leave_out` look at; for `rolling` and lags by default the only
            column of dates.
        valid_from, valid_to: the days that validate, both included.
        valid_column: the column that marks the rows that validate.
        folds, fold: number of folds and the one that validates; of `rolling`, 0 is the oldest window.
        test: rows that are evaluated once, after training: as `valid`.
        test_from: the first day of the test rows, with `dates`.
        leave_out: rows from one day to another are not used at all.
        sample: this many random rows are used; by default all.
        schema: a file of `dlrun data describe --save` that says how each column is read.
        date_format: of the columns of dates, in the codes of `strptime`; by default the one that fits all rows.
        decimal, thousands: the signs in numbers; by default those that fit all rows.
        separator, encoding: of a text file.
        skip_bad: leave out rows whose values cannot be read, and report their number.
        history: features of earlier and later targets of the same group of rows (see `data.tabular.history`).
        horizon: days that are predicted at once; weeks or months, where the table has a row for each.
        lags, rolling_means: inputs made of the target that many days ago, and of its mean over that many days, none of
            them newer than the horizon (see `data.tabular.lags`).
        group: columns that identify the rows of one series, such as a store.
    """

    input_settings = frozenset({"categorical", "continuous", "target_transform"})

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        query: Text | None = None,
        target: Text | Annotated[Names, Field(min_length=1)] | None = None,
        categorical: Names | None = None,
        continuous: Names | None = None,
        dates: Names | None = None,
        id: Text | None = None,
        kind: Literal["auto"] | Kind = "auto",
        target_separator: Text | None = None,
        target_transform: Literal["auto"] | Transform = "auto",
        split: Split = "random",
        valid: Positive | Count = 0.2,
        split_seed: Seed = 42,
        date: Text | None = None,
        valid_from: Text | None = None,
        valid_to: Text | None = None,
        valid_column: Text | None = None,
        folds: Annotated[int, Field(ge=2)] = 5,
        fold: Natural = 0,
        test: Positive | Count | None = None,
        test_from: Text | None = None,
        leave_out: DateRange | None = None,
        sample: Count | None = None,
        schema: Text | None = None,
        date_format: Text | None = None,
        decimal: Decimal | None = None,
        thousands: Thousands | None = None,
        separator: Text | None = None,
        encoding: Text | None = None,
        skip_bad: bool = False,
        history: HistorySettings | None = None,
        horizon: Count | None = None,
        lags: Counts | None = None,
        rolling_means: Counts | None = None,
        group: Names | None = None,
    ) -> None:
        reading = Reading(schema, date_format, decimal, thousands, separator, encoding, skip_bad)
        example = "dlrun task=tabular data.path=my.csv data.target=y"
        self.file = TableFile(path, query, reading, example, ids=[id] if id else [])
        if target is None:
            raise ConfigError(
                f"data.target: is missing: which column is the target? dlrun data describe {self.file.place} lists them"
            )
        self.path, self.target = self.file.place, target
        self.categorical, self.continuous, self.dates, self.id = categorical, continuous, dates, id
        self.kind, self.target_separator, self.target_transform = kind, target_separator, target_transform
        self.splitting = Splitting(
            *(split, valid, split_seed, date, valid_from, valid_to, valid_column, folds, fold, test, test_from, horizon)
        )
        self.splitting.check()
        if leave_out:
            check_days(leave_out[0], leave_out[1], "data.leave_out")
        self.leave_out, self.sample, self.history_settings = leave_out, sample, history_settings(history)
        self.lags, self.rolling_means, self.group = lags or [], rolling_means or [], group or []
        self._check_lags()
        self._recipe: dict[str, Any] = {}
        if leave_out and not date:
            raise ConfigError("data.date: is missing: data.leave_out needs it")
        if history and not date:
            raise ConfigError("data.date: is missing: data.history needs it")
        targets = target if isinstance(target, list) else [target]
        for name in targets:
            if name in (categorical or []) or name in (continuous or []):
                raise ConfigError(f"data.target: {name} cannot be an input too")
            if self.history_settings is not None and name in self.history_settings.columns:
                raise ConfigError(f"data.history: {name} is the target, which new rows do not have")

    @property
    def has_lags(self) -> bool:
        """Whether lags or rolling means of the target are inputs."""
        return bool(self.lags or self.rolling_means)

    def _check_lags(self) -> None:
        if self.has_lags and self.splitting.horizon is None:
            raise ConfigError("data.horizon: is missing: how many days are predicted at once? (data.horizon=28)")
        if self.has_lags and not isinstance(self.target, str):
            raise ConfigError("data.lags: are of one numeric target")
        if self.has_lags and self.sample is not None:
            raise ConfigError("data.sample: cannot be used with data.lags, which need all rows")
        if self.group and not self.has_lags:
            raise ConfigError("data.group: is for data.lags and data.rolling_means")
        if self.target in self.group:
            raise ConfigError(f"data.group: {self.target} is the target, which new rows do not have")
        if self.splitting.horizon is not None and not self.has_lags and self.splitting.split != "rolling":
            raise ConfigError("data.horizon: is for data.split=rolling, data.lags and data.rolling_means")

    def identity(self) -> DataIdentity:
        """The table as it is now."""
        return self.file.identity()

    @read_once
    def read(self) -> TabularTable:
        """Read the table, find out what its columns are, and split it.

        Raises:
            DataError: it is damaged, or holds what cannot be used; row and value are named.
            ConfigError: a setting names what is not there.
        """
        table, splitting = self._checked_table()
        frame, place = table.frame, table.rows
        target, values = read_target(frame, self.target, self.kind, self.target_separator, self.target_transform, place)
        kept = self._kept(frame, place)
        unused = [f"{kept.sum():,} of {len(kept):,} rows are used (data.sample, data.leave_out)"]
        if not kept.all():
            frame, values, place = frame[kept].reset_index(drop=True), values[kept], place.only(kept)
        strata = values if target.has_one_class else None
        split, of_test = splitting.assign(frame, strata, place), splitting.of_test(frame)
        num_train = int((split == TRAIN).sum())
        dates, prefixes = self._dates(frame)
        days = self._days(frame, splitting.date, dates, place)
        ranges = training_ranges(frame, dates, np.asarray(split == TRAIN))
        parts, clipped = clip_parts(all_date_parts(frame, prefixes), prefixes, ranges)
        frame = pd.concat([frame, parts], axis=1)
        reserved = [*target.names, *dates, *(n for n in (splitting.date, splitting.valid_column) if n)]
        roles = assign(
            frame,
            place,
            categorical=self.categorical,
            continuous=self.continuous,
            parts=list(parts.columns),
            reserved=reserved,
            id=self._id(frame),
            train=np.asarray(split == TRAIN),
        )
        notes = [*table.notes, *clipped, *input_notes(frame, roles, num_train), *(unused if not kept.all() else [])]
        inputs, base, history = {*dates, *roles.categorical, *roles.continuous}, None, list[str]()
        recipe: dict[str, Any] = {"dates": prefixes, "ranges": ranges}
        for made in self._target_features(frame, days, target, values, split):
            frame, split, base = made.frame, made.split, made.base
            roles.continuous += made.names
            history += made.names if "history" in made.recipe else []
            roles.reasons |= dict.fromkeys(made.names, made.what)
            notes += made.notes
            inputs |= {*made.columns, str(splitting.date)}
            recipe |= {**made.recipe, "date": str(splitting.date)}
        # A text that is named as a number is one in new rows too: another one is a bad row, not a bad file.
        numbers = {each.name for each in table.schema.columns if each.type == "text"} & set(roles.continuous)
        columns = [Column(each.name, "number") if each.name in numbers else each for each in table.schema.columns]
        used = tuple(each for each in columns if each.name in inputs)
        self._recipe = {"schema": Schema(used).state(), **recipe}
        return TabularTable(
            frame=frame,
            roles=roles,
            target=target,
            values=values,
            split=split,
            dates=days,
            series=self.group,
            ids=frame[names] if (names := [roles.id] if roles.id else row_names(recipe)) else None,
            rows=place,
            notes=[*notes, *target_notes(target, values), *fold_notes(splitting, days, split)],
            marked_by=splitting.valid_column,
            columns=describe_columns(table.schema, self._uses(target, roles, dates, splitting)),
            of_test=of_test,
            base=base,
            history=history,
            trends=trends_of_forecast(prefixes, days, split),
        )

    def _checked_table(self) -> tuple[Table, Splitting]:
        """Return the table without its bad rows, if they are left out, and how it is split."""
        named = [*(self.dates or []), *([self.splitting.date] if self.splitting.date else [])]
        targets, skip_bad = self.target if isinstance(self.target, list) else [self.target], self.file.reading.skip_bad
        table = self.file.read([self.id] if self.id else [], named, self._not_categories(named))
        splitting = self._with_date(table)
        table = table.checked(self._used(table, splitting), skip_bad)
        if self.target_separator is None:  # else an empty text is one without labels
            table = table.with_values(targets, skip_bad)
        return table, splitting

    def recipe(self) -> dict[str, Any]:
        """Which columns of new rows are dates, and how all of them are read."""
        return self._recipe

    def _with_date(self, table: Table) -> Splitting:
        """Return how rows are split: a forecast without `data.date` takes the only column of dates.

        Raises:
            ConfigError: there is none, or another one.
        """
        splitting = self.splitting
        if splitting.date is not None or not (self.has_lags or splitting.split == "rolling"):
            return splitting
        targets = self.target if isinstance(self.target, list) else [self.target]
        found = [str(name) for name in table.frame if pd.api.types.is_datetime64_any_dtype(table.frame[name])]
        names = [name for name in (self.dates or found) if name not in targets]
        if len(names) != 1:
            problem = f"is one of {', '.join(names)}" if names else f"is missing: {table.place} has no column of dates"
            raise ConfigError(f"data.date: {problem}; which one says when a row was? (data.date=day)")
        return replace(splitting, date=names[0])

    def _target_features(
        self,
        frame: pd.DataFrame,
        days: pd.Series[Any] | None,
        target: Target,
        values: NDArray[Any],
        split: Parts,
    ) -> Iterator[TargetFeatures]:
        """Yield the table with lags of its target, then with its history too, as far as they were requested."""
        if self.has_lags and days is not None:
            settings = self._lag_settings(target, days)
            made = lag_columns(settings, frame, days, target, values, split)
            frame, split = made.frame, made.split
            yield made
        if self.history_settings is not None and days is not None:
            yield with_history(self.history_settings, frame, day_numbers(days), target, values, split)

    def _lag_settings(self, target: Target, days: pd.Series[Any]) -> LagSettings:
        scale = getattr(target, "transform", "none")
        scale = scale if scale in ("log", "log1p") else "none"
        horizon = int(self.splitting.horizon or 0)
        return LagSettings(target.names[0], horizon, period_of(days), self.lags, self.rolling_means, self.group, scale)

    def _uses(self, target: Target, roles: Roles, dates: Sequence[str], splitting: Splitting) -> dict[str, str]:
        """Return what each column of the file is used as."""
        uses = {name: use for name, use in roles.uses().items() if name not in roles.parts}
        uses |= dict.fromkeys(dates, "date: its parts are inputs")
        if splitting.date:
            uses[splitting.date] = uses.get(splitting.date, "split")
        if splitting.valid_column:
            uses[splitting.valid_column] = "split"
        if roles.id:
            uses[roles.id] = "id of the rows"
        return uses | dict.fromkeys(target.names, f"target: {target.kind}")

    def _not_categories(self, dates: Sequence[str]) -> set[str]:
        """Return the columns that are more than categories of single rows: targets, ids, dates, series, numbers."""
        targets = self.target if isinstance(self.target, list) else [self.target]
        of_history = self.history_settings.columns if self.history_settings is not None else []
        named = [self.id, self.splitting.valid_column]
        return {*targets, *dates, *self.group, *of_history, *(self.continuous or []), *(each for each in named if each)}

    def _used(self, table: Table, splitting: Splitting) -> set[str]:
        """Return the columns that are inputs, targets, or say how rows are split."""
        targets = self.target if isinstance(self.target, list) else [self.target]
        chosen = {*targets, *(self.dates or []), splitting.date, splitting.valid_column, *self.group}
        if self.history_settings is not None:
            chosen |= set(self.history_settings.columns) & set(table.schema.names)  # others are parts of dates
        if self.categorical is None and self.continuous is None:
            chosen |= set(table.schema.names)
        return {name for name in (*chosen, *(self.categorical or []), *(self.continuous or [])) if name}

    def _kept(self, frame: pd.DataFrame, place: RowLocations) -> NDArray[np.bool_]:
        kept = np.ones(len(frame), dtype=bool)
        if self.leave_out and self.splitting.date:
            column = self.splitting.column(frame, "date", place)
            kept &= ~between(date_column(column, self.splitting.date, place), *self.leave_out)
        return kept & sampled(kept, self.sample, self.splitting.split_seed, str(self.path))

    def _dates(self, frame: pd.DataFrame) -> tuple[list[str], dict[str, str]]:
        """Return the columns of dates, and what the names of their parts begin with."""
        names = self.dates
        if names is None:
            inferred = self.categorical is None and self.continuous is None
            targets = self.target if isinstance(self.target, list) else [self.target]
            found = [name for name in frame.columns if pd.api.types.is_datetime64_any_dtype(frame[name])]
            names = [name for name in found if name not in targets and name != self.splitting.valid_column]
            names = names if inferred else []
        for name in names:
            if name not in frame.columns:
                raise ConfigError(
                    f"data.dates: {self.path} has no column {name!r}; {did_you_mean(name, list(frame.columns))}"
                )
        return names, part_prefixes(names, frame.columns)

    def _days(
        self, frame: pd.DataFrame, name: str | None, dates: Sequence[str], place: RowLocations
    ) -> pd.Series[Any] | None:
        """Return the day of each row: of the column that splits, or of the only column of dates if it is complete."""
        if name is None and len(dates) == 1 and not frame[dates[0]].isna().any():
            name = dates[0]
        return date_column(frame[name], name, place) if name is not None else None

    def _id(self, frame: pd.DataFrame) -> str | None:
        if self.id is not None and self.id not in frame.columns:
            raise ConfigError(f"data.id: {self.path} has no column {self.id!r}")
        return self.id


def sampled(kept: NDArray[np.bool_], sample: int | None, seed: int, place: str) -> NDArray[np.bool_]:
    """Mark a random sample of the kept rows, the same for the same seed.

    Raises:
        DataError: there are fewer rows than that.
    """
    if sample is None:
        return kept
    candidates = np.flatnonzero(kept)
    if sample > len(candidates):
        raise DataError(f"{place}: data.sample={sample:,} is more than the number of rows, {len(candidates):,}")
    chosen = np.zeros(len(kept), dtype=bool)
    chosen[candidates[np.random.RandomState(seed).permutation(len(candidates))[:sample]]] = True
    return chosen
