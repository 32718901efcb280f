"""Rossmann Store Sales with the external tables: the publisher's eight tables joined to one, cached."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from dlrunner.data.core.cache import cache_dir, write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.data.core.columns import Roles, date_column
from dlrunner.data.core.once import read_once
from dlrunner.data.core.regression import Regression
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.source import ArchiveOrFolder, Release, find, given_place
from dlrunner.data.core.splitting import Split, Splitting, between, check_days
from dlrunner.data.rossmann.features import (
    CATEGORICAL,
    CONTINUOUS,
    NEAR_HOLIDAY,
    OPEN_DAYS,
    ROW_COLUMNS,
    STORE_COLUMNS,
    VERSION,
    WEATHER,
    Surroundings,
    day_numbers,
    features,
)
from dlrunner.data.rossmann.releases import FILES, RELEASES, TABLES
from dlrunner.data.rossmann.store_calendar import EVENTS, FLAGS, Calendar
from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann
from dlrunner.data.tabular.dataset import DateRange, sampled
from dlrunner.data.tabular.history_columns import history_settings, with_history
from dlrunner.data.tabular.history_settings import HistorySettings
from dlrunner.data.tabular.table import TableSource, TabularTable
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Positive, Seed, Text
from dlrunner.task import DataIdentity

READ = FILES[:-1]
"""Without the sample submission, whose content is in test.csv."""


class RossmannData(TableSource):
    """Days with sales of each store: 22 categorical and 16 continuous columns, and log(Sales).

    Args:
        data_dir: where rossmann.tgz, or its folder, is searched for.
        path: the archive or the folder itself.
        source: `real` fails without the data, `synthetic` generates it, `auto` uses the real data if available, else
            generates: it is not downloaded, since its terms have to be accepted at Kaggle.
        split: `dates`, `last_days`, `random` or `folds` (see `TabularData`).
        valid: fraction of the rows, or number of days.
        split_seed: seed of the permutation for `random`, `folds` and `sample`.
        valid_from, valid_to: first and last validation day for `dates`.
        folds, fold: number of folds and the validation fold.
        test: rows that are evaluated once, after training: as `valid`.
        test_from: the first day of the test rows, with `dates`.
        leave_out: days that are not used, such as the reported ones during model selection.
        sample: number of random rows; by default all.
        lesson: the columns with the lesson's errors, and statistics of all rows (docs/tabular.md lists them).
        history: features of each store's earlier and later sales (see `data.tabular.history`).
        exclude: columns that are no inputs.
        open_days: further columns of the days around closings, promotions and holidays, `OPEN_DAYS` and `NEAR_HOLIDAY`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        source: Literal["auto", "real", "synthetic"] = "auto",
        split: Split = "dates",
        valid: Positive | Count = 0.2,
        split_seed: Seed = 42,
        valid_from: Text | None = None,
        valid_to: Text | None = None,
        folds: Count = 5,
        fold: int = 0,
        test: Positive | Count | None = None,
        test_from: Text | None = None,
        leave_out: DateRange | None = None,
        sample: Count | None = None,
        lesson: bool = False,
        open_days: bool = False,
        history: HistorySettings | None = None,
        exclude: list[Text] = [],  # noqa: B006
    ) -> None:
        self.data_dir, self.path, self.source = data_dir, user_path(path) if path else None, source
        self.splitting = Splitting(
            *(split, valid, split_seed, "Date", valid_from, valid_to, None, folds, fold, test, test_from)
        )
        if split in ("stratified", "rolling", "column"):
            raise ConfigError(
                f"data.split: {split} is not available for Rossmann; use dates, last_days, random or folds"
            )
        self.splitting.check()
        if leave_out:
            check_days(leave_out[0], leave_out[1], "data.leave_out")
        self.leave_out, self.sample = leave_out, sample
        self.lesson, self.open_days = lesson, open_days
        self.history_settings = history_settings(history)
        self.columns = [*CATEGORICAL, *CONTINUOUS, *([*OPEN_DAYS, NEAR_HOLIDAY] if open_days else [])]
        for name in exclude:
            if name not in self.columns:
                raise ConfigError(f"data.exclude: there is no column {name}; {did_you_mean(name, self.columns)}")
        self.columns = [name for name in self.columns if name not in exclude]
        self._history: dict[str, Any] = {}
        self._notes: list[str] = []

    @cached_property
    def _found(self) -> tuple[Release, ArchiveOrFolder, float | None]:
        """The release, its location, and its best achievable score (synthetic data only)."""
        release = RELEASES[0]
        if self.path is not None:
            location = given_place(self.path, "train.csv", f"Rossmann's eight tables are {', '.join(FILES)}")
            known = location.sha256("train.csv") == release.sha256_of_layout
            return release if known else replace(release, name="own", sha256_of_layout=None), location, None
        if self.source != "synthetic":
            found = find(self.data_dir, RELEASES)
            if found:
                return *found, None
            if self.source == "real":
                raise DataError(
                    f"{release.title} is not in {self.data_dir}: put rossmann.tgz there, or set DLRUNNER_DATA; "
                    f"download it from {release.home} ({release.terms})"
                )
            self._notes.append(f"no Rossmann tables in {self.data_dir}; download them from {release.home}")
        folder, best = write_synthetic_rossmann(cache_dir() / "synthetic")
        return (
            replace(release, name="synthetic", title="generated stores", terms="generated"),
            ArchiveOrFolder(folder),
            best,
        )

    def identity(self) -> DataIdentity:
        """Find the tables and return their identity.

        Raises:
            DataError: one of the eight is missing.
        """
        release, location, best = self._found
        missing = [name for name in READ if not location.has(name)]
        if missing:
            raise DataError(
                f"{location.path} is missing {', '.join(missing)}; Rossmann's eight tables are {', '.join(FILES)}"
            )
        return DataIdentity(
            name="Rossmann",
            release=release.name,
            source="synthetic" if best is not None else "real",
            sha256=location.sha256("train.csv"),
            path=str(location.path),
            digest=location.digest(READ),
            terms=release.terms,
            best_achievable=best,
        )

    @read_once
    def read(self) -> TabularTable:
        """Return the rows with sales, in the publisher's order, and their split.

        Raises:
            DataError: a table is damaged, or a store in train.csv is not in store.csv.
        """
        identity = self.identity()
        frame = self._cached(identity.digest)
        dates = frame["Date"]
        kept = np.ones(len(frame), dtype=bool)
        if self.leave_out:
            kept &= ~between(dates, *self.leave_out)
        kept = kept & sampled(kept, self.sample, self.splitting.split_seed, identity.path)
        notes = list(self._notes)
        if not kept.all():
            notes.append(f"{int(kept.sum()):,} of {len(kept):,} rows are used (data.sample, data.leave_out)")
            frame = frame[kept].reset_index(drop=True)
        rows = RowLocations(Path(identity.path)).only(kept)
        split = self.splitting.assign(frame, None, rows)
        categorical = [name for name in self.columns if name in (*CATEGORICAL, NEAR_HOLIDAY)]
        continuous = [name for name in self.columns if name not in categorical]
        target, values = Regression(["Sales"], transform="log"), frame["Sales"].to_numpy(np.float64)
        base, history = None, list[str]()
        if self.history_settings:
            added = with_history(self.history_settings, frame, day_numbers(frame["Date"]), target, values, split)
            frame, split, self._history = added.frame, added.split, added.recipe
            continuous, base, history = [*continuous, *added.names], added.base, added.names
            notes += added.notes
        return TabularTable(
            frame=frame,
            roles=Roles(categorical, continuous),
            target=target,
            values=values,
            split=split,
            base=base,
            history=history,
            dates=frame["Date"],
            ids=frame[["Store", "Date"]],
            rows=rows,
            notes=notes,
            fits_on_all=self.lesson,
        )

    def recipe(self) -> dict[str, Any]:
        """Return stores, weather, trends, calendar and history, from which the features of new rows are computed."""
        chosen = {"lesson": self.lesson, "open_days": self.open_days}
        return {**surroundings_state(self.surroundings), **chosen, **self._history}

    @cached_property
    def surroundings(self) -> Surroundings:
        """Stores, weather, trends, and the calendar of train.csv and test.csv together."""
        return _read(self._found[1])[1]

    def _cached(self, digest: str) -> pd.DataFrame:
        """Return the feature table, from the cache if it has that of these tables."""
        key = hashlib.sha256(f"{digest} {VERSION} {self.lesson} {self.open_days}".encode()).hexdigest()[:32]
        file = cache_dir() / "tables" / f"rossmann-{key}.table"
        if (content := read_sealed(file)) is not None:
            return pd.read_feather(io.BytesIO(content))
        frame = self._build()
        try:
            buffer = io.BytesIO()
            frame.to_feather(buffer, compression="uncompressed")
            write_sealed(file, buffer.getbuffer())
        except OSError as error:
            self._notes.append(f"the feature table could not be cached in {file.parent}: {error.strerror}")
        return frame

    def _build(self) -> pd.DataFrame:
        train, self.__dict__["surroundings"] = _read(self._found[1])
        sold = train["Sales"].to_numpy() > 0
        rows = train[sold].reset_index(drop=True)
        if rows.empty:
            raise DataError(f"{self._found[1].path}: no row of train.csv has Sales above 0")
        frame = features(rows, self.surroundings, lesson=self.lesson, open_days=self.open_days)
        return frame.assign(Date=rows["Date"], Sales=rows["Sales"])


def _read(location: ArchiveOrFolder) -> tuple[pd.DataFrame, Surroundings]:
    """Return train.csv, and the external tables with the calendar of train.csv and test.csv."""
    content = location.read_all(READ)
    tables = {name: _table(location, f"{name}.csv", content.pop(f"{name}.csv")) for name in TABLES[:-1]}
    train, test = tables["train"], tables["test"]
    for name, wanted in (("train", ("Sales", *ROW_COLUMNS)), ("test", ROW_COLUMNS), ("store", STORE_COLUMNS)):
        missing = [column for column in wanted if column not in tables[name]]
        if missing:
            raise DataError(f"{location.path}: {name}.csv has no column {', '.join(missing)}")
    for name in ("train", "test", "weather"):
        tables[name]["Date"] = date_column(tables[name]["Date"], "Date", RowLocations(location.path / f"{name}.csv"))
    stores = tables["store"][list(STORE_COLUMNS)].merge(tables["store_states"], on="Store", how="left")
    if stores["State"].isna().any():
        store = stores["Store"][stores["State"].isna()].iloc[0]
        raise DataError(f"{location.path}: store_states.csv has no state for store {store}")
    names = tables["state_names"].set_index("StateName")["State"]
    weather = tables["weather"].assign(State=tables["weather"]["file"].map(names))
    trend = tables["googletrend"]
    # Rossmann_DE_SN is a state's file, Rossmann_DE Germany's; NI is HB,NI (Bremen lies within Lower Saxony).
    trend = pd.DataFrame(
        {
            "State": trend["file"].str.rsplit("_", n=1).str[1].replace({"NI": "HB,NI"}),
            "Date": pd.to_datetime(trend["week"].str[:10]),
            "trend": trend["trend"],
        }
    )
    known = Surroundings(stores, weather[["State", "Date", *WEATHER, "Events"]], trend)
    return train, known.with_rows(train).with_rows(test)


def _table(location: ArchiveOrFolder, name: str, content: bytes) -> pd.DataFrame:
    try:
        if name == "train.csv":  # a million rows: pyarrow takes half the time
            return pd.read_csv(io.BytesIO(content), engine="pyarrow", na_values=["", "NA"])
        return pd.read_csv(io.BytesIO(content))
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{location.path}: {name} cannot be read as a table: {str(error).splitlines()[0]}") from None


def surroundings_state(known: Surroundings) -> dict[str, Any]:
    """Return tensors and plain values, for a checkpoint: a megabyte."""
    calendar = known.calendar
    assert calendar is not None
    return {
        "stores": _frame_state(known.stores),
        "weather": _frame_state(known.weather),
        "trend": _frame_state(known.trend),
        "first_day": calendar.first_day,
        "unknown_is_0": calendar.unknown_is_0,
        "shape": list(calendar.events.shape),
        "events": torch.from_numpy(np.packbits(calendar.events)),
    }


def surroundings_from(state: Mapping[str, Any]) -> Surroundings:
    """Return the tables of a state written by `surroundings_state`."""
    count = int(np.prod(state["shape"]))
    events = np.unpackbits(state["events"].numpy(), count=count).reshape(state["shape"]).astype(bool)
    if len(events) == len(EVENTS):  # the state of an older version, which used no open days
        events = np.concatenate([events, np.zeros((len(FLAGS) - len(EVENTS), *events.shape[1:]), dtype=bool)])
    stores, weather, trend = (_frame_from(state[name]) for name in ("stores", "weather", "trend"))
    calendar = Calendar(state["first_day"], events, unknown_is_0=state.get("unknown_is_0", True))
    return Surroundings(stores, weather, trend, calendar)


def _frame_state(frame: pd.DataFrame) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        if pd.api.types.is_datetime64_any_dtype(column):
            columns[f"{name}:date"] = torch.from_numpy(column.to_numpy("datetime64[D]").astype(np.int64))
        elif pd.api.types.is_numeric_dtype(column):
            columns[str(name)] = torch.from_numpy(column.to_numpy().copy())
        else:
            columns[str(name)] = [None if pd.isna(value) else str(value) for value in column]
    return columns


def _frame_from(state: Mapping[str, Any]) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for name, values in state.items():
        array = values.numpy() if isinstance(values, torch.Tensor) else values
        if name.endswith(":date"):
            columns[name.removesuffix(":date")] = pd.to_datetime(np.asarray(array).astype("datetime64[D]"))
        else:
            columns[name] = array
    return pd.DataFrame(columns)
