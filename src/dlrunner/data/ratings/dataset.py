"""Ratings tables: MovieLens in all its layouts, and a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from dlrunner.data.core.cache import cache_dir
from dlrunner.data.core.once import read_once
from dlrunner.data.core.row_locations import Part, RowLocations
from dlrunner.data.core.source import ArchiveOrFolder, Release, download
from dlrunner.data.core.splitting import TEST, TRAIN, VALID, Mask, Parts, SplitRows, Splitting, random_parts
from dlrunner.data.ratings.attributes import film_attributes, joined
from dlrunner.data.ratings.cleaning import checked_rows, in_32_bits, latest_rows, rated_from, rows_of
from dlrunner.data.ratings.codes import coded, plain, renumbered
from dlrunner.data.ratings.movielens import UNPUBLISHED, describe_items, find_movielens, read_movielens, recognised
from dlrunner.data.ratings.releases import RELEASES
from dlrunner.data.ratings.side_table import SideTable, read_side_table, side_table_file
from dlrunner.data.ratings.synthetic import write_synthetic_movielens
from dlrunner.data.ratings.user_table import USUAL_NAMES, UserTable, read_user_table
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Decimal, Reading, Thousands
from dlrunner.errors import ConfigError, DataError
from dlrunner.ranges import Fraction, Natural, Seed, Text
from dlrunner.task import Data, DataIdentity

ReleaseName = Literal[
    "auto", "ml-latest-small-2016-10", "ml-latest-small-2018-09", "ml-100k", "ml-1m", "ml-10m", "ml-32m"
]
SplitName = Literal["random", "folds", "inner", "time", "column", "u1", "u2", "u3", "u4", "u5", "ua", "ub"]

DEFAULT = next(each for each in RELEASES if each.name == "ml-latest-small-2018-09")
"""The release that is downloaded."""


@dataclass(frozen=True)
class RatingsTable(SplitRows):
    """Ratings with contiguous codes for users and items: first the training rows, then those of the other parts.

    The rows of a part are so a slice, which needs no copy, however many they are.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    ratings: NDArray[np.float32]
    times: NDArray[np.int32] | NDArray[np.float64] | None
    """Seconds since 1970."""
    split: Parts
    """TRAIN, VALID, TEST or UNUSED, ascending, [rows]."""
    user_ids: list[int | str]
    """The user of each code."""
    item_ids: list[int | str]
    titles: list[str]
    """The name of each item: its title, or its id."""
    genres: list[str] = field(default_factory=list)
    item_genres: NDArray[np.float32] | None = None
    """One row per item, one column per genre, 1 where it belongs."""
    user_attributes: NDArray[np.float32] | None = None
    """What is known of users besides their ratings, [users, attributes]."""
    item_attributes: NDArray[np.float32] | None = None
    notes: list[str] = field(default_factory=list)
    of_test: NDArray[np.bool_] | None = None
    """Rows of the publisher's test set, [rows]."""
    columns: dict[str, str] = field(default_factory=dict)
    """The name of the column of each role in a user's table."""
    schema: list[dict[str, Any]] = field(default_factory=list)
    """How these columns are read (`Schema.state`)."""
    described: list[dict[str, Any]] = field(default_factory=list)
    """All columns of a user's table: how they were read and are used."""

    def __post_init__(self) -> None:
        """Check the order of the rows."""
        assert (self.split[1:] >= self.split[:-1]).all(), "rows are in the order of their parts"

    def part(self, part: int) -> slice:
        """Return the rows of a part."""
        first, last = np.searchsorted(self.split, np.array([part, part + 1], self.split.dtype))  # else all are copied
        return slice(int(first), int(last))

    def with_split(self, split: Parts) -> RatingsTable:
        """Return the rows with other parts, in their order."""
        order = np.argsort(split, kind="stable")
        return replace(
            self,
            users=self.users[order],
            items=self.items[order],
            ratings=self.ratings[order],
            times=None if self.times is None else self.times[order],
            of_test=None if self.of_test is None else self.of_test[order],
            split=split[order],
        )


class RatingsData(Data):
    """A ratings table: MovieLens, or a user's own table.

    Args:
        data_dir: where published archives are searched for.
        path: a table (CSV, TSV, Parquet, JSON, Excel or SQLite, compressed or not; a glob or folder of part files;
            - is standard input), or a MovieLens folder or archive; without it the releases of MovieLens are searched
            for in `data_dir`.
        query: SQL that selects from files, instead of a path.
        items, users: tables of their attributes, one row each; any columns.
        user, item, rating, timestamp: names of the columns; the usual names are detected.
        implicit: a row says that a user chose an item: a column of ratings is read only where `rating` names it.
        min_rating: pairs whose rating, the latest one, is lower are left out; with `implicit` rows with a lower one.
        source: `real` fails where there is no data, `synthetic` generates it, `auto` uses what is available, else
            downloads, else generates.
        release: which MovieLens.
        split: `random`; `folds`; `time` (the latest ratings validate); `column`; `u1` … `u5`, `ua`, `ub` (MovieLens
            100K's own); `inner` (the training rows of `random`, split again: for model selection without the reported
            rows).
        valid: fraction of the rows used for validation.
        test: fraction of the rows that are evaluated once, after training: the latest with `time`.
        split_seed: of numpy's RandomState, whose permutation's first rows validate.
        valid_column: the column that marks the rows that validate.
        folds, fold: number of folds, and which one validates, from 0.
        schema: a file of `dlrun data describe --save` that says how each column is read.
        date_format: of the times, in the codes of `strptime`; by default the one that fits all rows.
        decimal, thousands: the signs in numbers; by default those that fit all rows.
        separator, encoding: of a text file.
        skip_bad: leave out rows whose values are missing or cannot be read, and report their number.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        query: Text | None = None,
        items: Text | None = None,
        users: Text | None = None,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        timestamp: str | None = None,
        implicit: bool = False,
        min_rating: float | None = None,
        source: Literal["auto", "real", "synthetic"] = "auto",
        release: ReleaseName = "auto",
        split: SplitName = "random",
        valid: Fraction = 0.2,
        test: Fraction | None = None,
        split_seed: Seed = 42,
        valid_column: Text | None = None,
        folds: Annotated[int, Field(ge=2)] = 5,
        fold: Natural = 0,
        schema: Text | None = None,
        date_format: Text | None = None,
        decimal: Decimal | None = None,
        thousands: Thousands | None = None,
        separator: Text | None = None,
        encoding: Text | None = None,
        skip_bad: bool = False,
    ) -> None:
        reading = Reading(schema, date_format, decimal, thousands, separator, encoding, skip_bad)
        ids = [name for name in (user, item, *USUAL_NAMES["user"], *USUAL_NAMES["item"]) if name is not None]
        self.data_dir, self.file = data_dir, TableFile(path, query, reading, ids=ids) if path or query else None
        self.items, self.users = side_table_file(items, "items"), side_table_file(users, "users")
        self.columns = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
        self.implicit, self.min_rating = implicit, min_rating
        self.source, self.release_name = source, release
        self.splitting = Splitting(
            split, valid, split_seed, valid_column=valid_column, folds=folds, fold=fold, test=test
        )
        self.splitting.check()
        self._notes: list[str] = []

    @cached_property
    def _found(self) -> tuple[Release | None, ArchiveOrFolder, float | None]:
        """The release (None for a user's table), its location, and its best achievable score (synthetic data only)."""
        if self.file is not None:
            return self._own(self.file)
        if self.source == "synthetic":
            return self._synthetic()
        found = find_movielens(self.data_dir, self.release_name)
        if found:
            return *found, None
        if self.source == "auto" and self.release_name == "auto":
            try:
                return DEFAULT, download(DEFAULT, self.data_dir), None
            except DataError as error:
                self._notes.append(f"no MovieLens in {self.data_dir}, and {error}")
                return self._synthetic()
        release = next((each for each in RELEASES if each.name == self.release_name), DEFAULT)
        if release.url:
            raise DataError(
                f"{release.title} is not in {self.data_dir}: get it with `dlrun data get {release.name}`, or put "
                f"the archive there (or set DLRUNNER_DATA)"
            )
        raise DataError(
            f"{release.title} is not in {self.data_dir}: put {release.archives[0]}.zip there, or set DLRUNNER_DATA "
            f"(its ratings.csv has the sha256 {release.sha256_of_layout}); GroupLens no longer serves it"
        )

    def _own(self, file: TableFile) -> tuple[Release | None, ArchiveOrFolder, None]:
        """Return the layout of MovieLens that data.path names, or None: it is a table."""
        path = file.place
        if file.query is None and path.exists() and (found := recognised(path)) is not None:
            return *found, None
        return None, ArchiveOrFolder(path), None

    def _synthetic(self) -> tuple[Release, ArchiveOrFolder, float]:
        folder, best = write_synthetic_movielens(cache_dir() / "synthetic")
        release = replace(
            DEFAULT, name="synthetic", title="generated ratings in MovieLens' format", terms="generated", url=None
        )
        return release, ArchiveOrFolder(folder), best

    def identity(self) -> DataIdentity:
        """Find the data and return its identity."""
        identity = self._identity_of_ratings()
        digests = [each.identity().sha256 for each in (self.items, self.users) if each is not None]
        if not digests:
            return identity
        joined = "\n".join([identity.sha256, identity.digest, *digests])
        return replace(identity, digest=hashlib.sha256(joined.encode()).hexdigest())

    def _identity_of_ratings(self) -> DataIdentity:
        release, place, best = self._found
        if release is None:
            assert self.file is not None
            return self.file.identity()
        return DataIdentity(
            name="MovieLens layout" if release.name == UNPUBLISHED else "MovieLens",
            release=release.name,
            source="synthetic" if best is not None else "real",
            sha256=place.sha256(release.layouts[0]),
            path=str(place.path),
            digest=place.digest([*release.layouts, f"{self.splitting.split}.base", f"{self.splitting.split}.test"]),
            terms=release.terms,
            best_achievable=best,
        )

    @read_once
    def read(self) -> RatingsTable:
        """Read the table and split it.

        Raises:
            DataError: the table is empty, damaged, or has an invalid rating; the message names row and value.
        """
        given, notes = self._usable(self._given())
        frame, films, table = given.frame, given.films, given.table
        frame["user"], user_ids = coded(frame["user"])
        frame["item"], item_ids = coded(frame["item"])
        latest, repeated = latest_rows(frame, are_choices=self.implicit)
        given = given if latest.all() else given.only(latest)
        if not self.implicit:
            given, low = self._high_enough(given)
            repeated += low
        if given.valid is None:
            frame, split, of_test = self._split(given.frame, given.rows)
        else:
            frame, of_test = given.frame, given.valid
            split = np.where(given.valid, VALID, TRAIN).astype(np.int8)
        place = given.rows.place
        del given  # where each row stands is not needed any more, and takes 8 bytes
        users, used_users = renumbered(frame.pop("user").to_numpy())
        items, used_items = renumbered(frame.pop("item").to_numpy())
        user_ids, item_ids = user_ids[used_users], item_ids[used_items]
        if len(user_ids) < 2 or len(item_ids) < 2:
            what = "user" if len(user_ids) < 2 else "item"
            raise DataError(f"{place}: all {len(users)} ratings have the same {what}; two or more are needed")
        titles, genres, item_genres = describe_items(item_ids, films)
        of_films = [] if item_genres is None else [film_attributes(titles, item_genres)]
        names = table.columns if table else {}
        item_side = self._side("item", names, item_ids)
        user_side = self._side("user", names, user_ids)
        side_notes = [note for side in (item_side, user_side) if side for note in side.notes]
        order = np.argsort(split, kind="stable")
        users = users[order]
        items = items[order]
        return RatingsTable(
            users=users,
            items=items,
            ratings=frame.pop("rating").to_numpy()[order],
            times=frame.pop("timestamp").to_numpy()[order] if "timestamp" in frame else None,
            split=split[order],
            user_ids=[plain(each) for each in user_ids],
            item_ids=[plain(each) for each in item_ids],
            titles=item_side.titles if item_side and item_side.titles else titles,
            genres=genres,
            item_genres=item_genres,
            user_attributes=joined([user_side.values] if user_side else []),
            item_attributes=joined([*of_films, *([item_side.values] if item_side else [])]),
            notes=[*notes, *repeated, *side_notes],
            of_test=None if of_test is None else of_test[order],
            columns=dict(table.columns) if table else {},
            schema=table.schema.state() if table else [],
            described=table.described if table else [],
        )

    @property
    def _needs_times(self) -> bool:
        return self.columns["timestamp"] is not None or self.splitting.split == "time"

    def _given(self) -> _Given:
        """Return all ratings, as they are in the file."""
        release, place, _ = self._found
        notes = list(self._notes)
        if release is None:
            assert self.file is not None
            if self.min_rating is not None and self.implicit and self.columns["rating"] is None:
                raise ConfigError("data.rating: is missing: data.min_rating needs the name of the column of ratings")
            has_ratings = not self.implicit
            table = read_user_table(self.file, self.columns, self._needs_times, self._marks, has_ratings=has_ratings)
            given = _Given(table.frame, table.rows, [*notes, *table.notes], table=table)
        else:
            frame, films, valid = read_movielens(place, release, self.splitting.split)
            rows = RowLocations(place.path, [Part(place.path, 2 if release.layouts[0].endswith(".csv") else 1)])
            given = _Given(frame, rows, notes, valid, films)
        if given.valid is None and self.splitting.split.startswith("u"):
            raise ConfigError(
                f"data.split: {self.splitting.split} is one of MovieLens 100K's own splits; this is {place.path}"
            )
        if self._marks is not None and given.table is None:
            raise ConfigError(f"data.split: column needs a table of your own; this is {place.path}")
        return given

    def _usable(self, given: _Given) -> tuple[_Given, list[str]]:
        """Return the ratings as numbers, without those that are left out, and notes."""
        skip_bad = self.file is not None and self.file.reading.skip_bad
        frame, kept, skipped = checked_rows(
            given.frame, given.rows, skip_bad=skip_bad, needs_times=self._needs_times, may_be_equal=self.implicit
        )
        valid = None if given.valid is None else given.valid[kept]
        found, notes = replace(given, frame=frame, rows=given.rows.only(kept), valid=valid), list(given.notes)
        if self.implicit:  # a choice is one, whatever came after it
            found, low = self._high_enough(found)
            notes += low
        return replace(found, frame=in_32_bits(found.frame)), [*notes, *skipped]

    def _high_enough(self, given: _Given) -> tuple[_Given, list[str]]:
        """Return the rows with a rating from `min_rating` on, and notes."""
        if self.min_rating is None:
            return given, []
        enough, notes = rated_from(given.frame["rating"].to_numpy(), self.min_rating, given.rows)
        return given.only(enough), notes

    def _side(self, role: Literal["user", "item"], names: Mapping[str, str], ids: pd.Index[Any]) -> SideTable | None:
        file = self.items if role == "item" else self.users
        encoding = None if self.file is None else self.file.reading.encoding
        wanted = [plain(each) for each in ids]
        return None if file is None else read_side_table(file, role, names.get(role), wanted, encoding)

    @property
    def _marks(self) -> str | None:
        """The column that marks the rows that validate."""
        return self.splitting.valid_column if self.splitting.split == "column" else None

    def _split(self, frame: pd.DataFrame, place: RowLocations) -> tuple[pd.DataFrame, Parts, Mask | None]:
        """Return the rows, the part of each, and which the column calls test rows.

        `inner` leaves out the rows that are reported.
        """
        splitting, test = self.splitting, self.splitting.test or 0.0
        if splitting.split in ("column", "folds"):
            marked = pd.DataFrame({self._marks: frame["split"]}) if self._marks else frame
            return frame, splitting.assign(marked, None, place), splitting.of_test(marked) if self._marks else None
        if splitting.split == "time":
            if "timestamp" not in frame:
                raise ConfigError(f"data.split: time needs a column of times in {place}; set data.timestamp=NAME")
            order = np.argsort(frame["timestamp"].to_numpy(), kind="stable")
            num_valid, num_test = int(splitting.valid * len(frame)), int(test * len(frame))
            split = np.full(len(frame), TRAIN, dtype=np.int8)
            split[order[len(frame) - num_valid - num_test :]] = VALID
            split[order[len(frame) - num_test :]] = TEST
        else:
            split = random_parts(len(frame), splitting.valid, test, splitting.split_seed)
            if splitting.split == "inner":
                frame = rows_of(frame, split == TRAIN)
                split = random_parts(len(frame), splitting.valid, 0.0, splitting.split_seed + 1)
        wanted = {VALID: "validation", TRAIN: "training", **({TEST: "test"} if splitting.test else {})}
        for part, what in wanted.items():
            if not (split == part).any():
                settings = f"data.valid={splitting.valid:g}" + (f" data.test={test:g}" if test else "")
                raise DataError(
                    f"{place}: {len(frame)} ratings and {settings} leave no {what} rows; use more ratings, or other "
                    "fractions"
                )
        return frame, split, None


@dataclass(frozen=True)
class _Given:
    """Ratings while they are read: user, item, rating and, if there are times, timestamp."""

    frame: pd.DataFrame
    rows: RowLocations
    """Where they stand."""
    notes: Sequence[str]
    valid: Mask | None = None
    """Which rows the release's own split validates on."""
    films: pd.DataFrame | None = None
    """Titles and genres, of MovieLens."""
    table: UserTable | None = None

    def only(self, kept: Mask) -> _Given:
        """Return some of the rows; the frame of all is used up."""
        valid = None if self.valid is None else self.valid[kept]
        return replace(self, frame=rows_of(self.frame, kept), rows=self.rows.only(kept), valid=valid)
