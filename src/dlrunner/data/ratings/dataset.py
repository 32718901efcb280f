"""Ratings tables: MovieLens in all its layouts, and a user's own."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.source import ArchiveOrFolder, Release, cache_dir, download, find, place_of, sha256_of
from dlrunner.data.core.splitting import Splitting, random_rows
from dlrunner.data.core.tables import format_of, read_table
from dlrunner.data.ratings.releases import RELEASES
from dlrunner.data.ratings.synthetic import write_synthetic_movielens
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path
from dlrunner.ranges import Fraction, Seed, Text
from dlrunner.task import Data, DataIdentity

ReleaseName = Literal["auto", "ml-latest-small-2016-10", "ml-latest-small-2018-09", "ml-100k", "ml-1m"]

USUAL_NAMES = {
    "user": ("userId", "user_id", "user", "userid", "UserID", "uid"),
    "item": ("movieId", "itemId", "item_id", "item", "movie_id", "itemid", "MovieID", "iid", "product_id"),
    "rating": ("rating", "Rating", "ratings", "score", "stars"),
    "timestamp": ("timestamp", "Timestamp", "time", "date"),
}


@dataclass(frozen=True)
class RatingsTable:
    """Ratings with contiguous codes for users and items, and the rows that validate."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float32]
    times: NDArray[np.float64] | None
    valid: NDArray[np.bool_]
    user_ids: list[int | str]
    """The user of each code."""
    item_ids: list[int | str]
    titles: list[str]
    """The name of each item: its title, or its id."""
    genres: list[str] = field(default_factory=list)
    item_genres: NDArray[np.float32] | None = None
    """One row per item, one column per genre, 1 where it belongs."""
    notes: list[str] = field(default_factory=list)
    of_test: NDArray[np.bool_] | None = None
    """Rows of the publisher's test set, [rows]."""


class RatingsData(Data):
    """A ratings table: MovieLens, or a user's own table.

    Args:
        data_dir: where published archives are searched for.
        path: a table (CSV, TSV, parquet; .gz and .zip too), or a MovieLens folder or archive; without it the
            releases of MovieLens are searched for in `data_dir`.
        user, item, rating, timestamp: names of the columns; the usual names are detected.
        source: `real` fails where there is no data, `synthetic` generates it, `auto` uses what is available, else
            downloads, else generates.
        release: which MovieLens.
        split: `random`; `time` (the latest ratings validate); `u1` … `u5`, `ua`, `ub` (MovieLens 100K's own);
            `inner` (the training rows of `random`, split again: for model selection without the reported rows).
        valid: fraction of the rows used for validation.
        split_seed: of numpy's RandomState, whose permutation's first rows validate.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        timestamp: str | None = None,
        source: Literal["auto", "real", "synthetic"] = "auto",
        release: ReleaseName = "auto",
        split: Literal["random", "inner", "time", "u1", "u2", "u3", "u4", "u5", "ua", "ub"] = "random",
        valid: Fraction = 0.2,
        split_seed: Seed = 42,
    ) -> None:
        self.data_dir, self.path = data_dir, user_path(path) if path else None
        self.columns = {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
        self.source, self.release_name = source, release
        self.splitting = Splitting(split, valid, split_seed)
        self._notes: list[str] = []

    @cached_property
    def _found(self) -> tuple[Release | None, ArchiveOrFolder, float | None]:
        """The release (None for a user's table), its location, and its best achievable score (synthetic data only)."""
        if self.path is not None:
            return self._own()
        if self.source == "synthetic":
            return self._synthetic()
        releases = [r for r in RELEASES if self.release_name in ("auto", r.name)]
        found = find(self.data_dir, releases)
        if found:
            return *found, None
        if self.source == "auto" and self.release_name == "auto":
            try:
                return RELEASES[1], download(RELEASES[1], self.data_dir), None
            except DataError as error:
                self._notes.append(f"no MovieLens in {self.data_dir}, and {error}")
                return self._synthetic()
        release = releases[0]
        if self.release_name == "auto" or release.url:
            release = RELEASES[1] if self.release_name == "auto" else release
            raise DataError(
                f"{release.title} is not in {self.data_dir}: get it with `dlrun data get {release.name}`, or put "
                f"the archive there (or set DLRUNNER_DATA)"
            )
        raise DataError(
            f"{release.title} is not in {self.data_dir}: put {release.archives[0]}.zip there, or set DLRUNNER_DATA "
            f"(its ratings.csv has the sha256 {release.sha256_of_layout}); GroupLens no longer serves it"
        )

    def _own(self) -> tuple[Release | None, ArchiveOrFolder, None]:
        assert self.path is not None
        if not self.path.exists():
            raise ConfigError(f"data.path: there is no file {self.path}")
        if self.path.is_dir() or self.path.suffix == ".zip":
            for release in RELEASES:
                place = place_of(self.path, release.layouts[0])
                wanted = release.sha256_of_layout
                if place and (wanted is None or place.sha256(release.layouts[0]) == wanted):
                    return release, place, None
            if self.path.is_dir():
                raise ConfigError(
                    f"data.path: {self.path} is a folder without a known layout (ratings.csv, u.data or "
                    "ratings.dat of MovieLens); give the path of the table"
                )
        format_of(self.path)  # refused before a run folder is made
        return None, ArchiveOrFolder(self.path), None

    def _synthetic(self) -> tuple[Release, ArchiveOrFolder, float]:
        folder, best = write_synthetic_movielens(cache_dir() / "synthetic")
        release = replace(
            RELEASES[1], name="synthetic", title="generated ratings in MovieLens' format", terms="generated", url=None
        )
        return release, ArchiveOrFolder(folder), best

    def identity(self) -> DataIdentity:
        """Find the data and return its identity."""
        release, place, best = self._found
        if release is None:
            return DataIdentity(place.path.name, "own", "real", sha256_of(place.path), str(place.path))
        return DataIdentity(
            name="MovieLens",
            release=release.name,
            source="synthetic" if best is not None else "real",
            sha256=place.sha256(release.layouts[0]),
            path=str(place.path),
            digest=place.digest([*release.layouts, f"{self.splitting.split}.base", f"{self.splitting.split}.test"]),
            terms=release.terms,
            best_achievable=best,
        )

    def read(self) -> RatingsTable:
        """Read the table and split it.

        Raises:
            DataError: the table is empty, damaged, or has an invalid rating; the message names row and value.
        """
        release, place, _ = self._found
        names = None
        valid: NDArray[np.bool_] | None = None
        if release is None:
            frame = read_table(place.path, only_empty_is_missing=True)
            frame, row_of = self._own_columns(frame, place.path)
        else:
            frame, names, valid = _read_movielens(place, release, self.splitting.split)
            row_of = 2 if release.layouts[0].endswith(".csv") else 1
        notes = list(self._notes)
        _check_ratings(frame, place.path, row_of)
        if valid is None and self.splitting.split.startswith("u"):
            raise ConfigError(
                f"data.split: {self.splitting.split} is one of MovieLens 100K's own splits; this is {place.path}"
            )
        twice = frame.duplicated(["user", "item"], keep="last")
        if twice.any():
            notes.append(f"{int(twice.sum()):,} (user, item) pairs are rated more than once; the last rating is kept")
            keep = ~twice.to_numpy()
            frame, valid = frame[keep].reset_index(drop=True), valid[keep] if valid is not None else None
        if valid is None:
            frame, valid = self._split(frame, place.path)
        users, user_ids = pd.factorize(frame["user"])
        items, item_ids = pd.factorize(frame["item"])
        if len(user_ids) < 2 or len(item_ids) < 2:
            what = "user" if len(user_ids) < 2 else "item"
            raise DataError(f"{place.path}: all {len(frame)} ratings have the same {what}; two or more are needed")
        titles, genres, item_genres = _describe(item_ids, names)
        return RatingsTable(
            users=users.astype(np.int64),
            items=items.astype(np.int64),
            ratings=frame["rating"].to_numpy(np.float32),
            times=frame["timestamp"].to_numpy(np.float64) if "timestamp" in frame else None,
            valid=valid,
            user_ids=[_plain(i) for i in user_ids],
            item_ids=[_plain(i) for i in item_ids],
            titles=titles,
            genres=genres,
            item_genres=item_genres,
            notes=notes,
            of_test=valid if self.splitting.split.startswith("u") else None,
        )

    def _own_columns(self, frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, int]:
        """Find the four columns in a user's table, by the names given or the usual ones."""
        found = {}
        for role, given in self.columns.items():
            if given is not None and given not in frame.columns:
                columns = ", ".join(map(str, frame.columns))
                raise DataError(f"{path} has no column {given!r} (data.{role}); its columns are: {columns}")
            name = given or next((usual for usual in USUAL_NAMES[role] if usual in frame.columns), None)
            if name is None and role != "timestamp":
                raise DataError(
                    f"{path}: which column is the {role}? set data.{role}=NAME; "
                    f"its columns are: {', '.join(map(str, frame.columns))}"
                )
            if name is not None:
                found[role] = name
        if len(set(found.values())) < len(found):
            roles = ", ".join(f"{role} {name}" for role, name in found.items())
            raise DataError(f"{path}: one column cannot have two roles ({roles}); set data.user=NAME and so on")
        chosen = pd.DataFrame({role: frame[name] for role, name in found.items()})
        if "timestamp" in chosen:
            times = _seconds(chosen["timestamp"])
            bad = ~np.isfinite(times)
            if bad.any() and self.columns["timestamp"]:
                row = int(bad.argmax())
                raise DataError(f"{path}, row {row + 2}: {chosen['timestamp'].iloc[row]!r} is not a time")
            if bad.any():  # the column was detected, not requested
                self._notes.append(f"the column {found['timestamp']} is ignored: some of its values are not times")
                chosen = chosen.drop(columns="timestamp")
            else:
                chosen["timestamp"] = times
        return chosen, 2

    def _split(self, frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
        """Mark the rows that validate; `inner` leaves out the rows that are reported."""
        if self.splitting.split == "time":
            if "timestamp" not in frame:
                raise ConfigError(f"data.split: time needs a column of times in {path}; set data.timestamp=NAME")
            num_valid = int(self.splitting.valid * len(frame))
            order = np.argsort(frame["timestamp"].to_numpy(), kind="stable")
            valid = np.zeros(len(frame), dtype=bool)
            valid[order[len(frame) - num_valid :]] = True
        else:
            valid = random_rows(len(frame), self.splitting.valid, self.splitting.split_seed)
            if self.splitting.split == "inner":
                frame = frame[~valid].reset_index(drop=True)
                valid = random_rows(len(frame), self.splitting.valid, self.splitting.split_seed + 1)
        if not valid.any() or valid.all():
            raise DataError(
                f"{path}: {len(frame)} ratings and data.valid={self.splitting.valid:g} leave no "
                f"{'validation' if not valid.any() else 'training'} rows; use more ratings, or another data.valid"
            )
        return frame, valid


def _seconds(column: pd.Series[Any]) -> NDArray[np.float64]:
    """Return times as seconds since 1970; NaN where there is none."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    times = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
    seconds = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return np.asarray(seconds.to_numpy(np.float64, na_value=np.nan), dtype=np.float64)


def _check_ratings(frame: pd.DataFrame, path: Path, first_row: int) -> None:
    """Refuse values that are not ratings, naming the row of the file, and convert the others to numbers."""
    if frame.empty:
        raise DataError(f"{path} holds no ratings")
    for role in ("user", "item"):
        missing = frame[role].isna().to_numpy()
        if missing.any():
            raise DataError(f"{path}, row {int(missing.argmax()) + first_row}: the {role} is missing")
    if pd.api.types.is_bool_dtype(frame["rating"]):
        frame["rating"] = frame["rating"].astype("int8")
    numbers = pd.to_numeric(frame["rating"], errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers) | (np.abs(numbers) > 1e6)
    if bad.any():
        row = int(bad.argmax())
        value = frame["rating"].iloc[row]
        problem = "the rating is missing" if pd.isna(value) else f"{value} is not a valid rating"
        raise DataError(f"{path}, row {row + first_row}: {problem}; {int(bad.sum())} such row(s) in all")
    if numbers.min() == numbers.max():
        raise DataError(f"{path}: all {len(frame)} ratings are {numbers[0]:g}; there is nothing to learn")
    frame["rating"] = numbers


def _read_movielens(
    place: ArchiveOrFolder, release: Release, split: str
) -> tuple[pd.DataFrame, pd.DataFrame | None, NDArray[np.bool_] | None]:
    """Read one of the three layouts: ratings, the films with their genres, and the release's own split."""
    columns = ["user", "item", "rating", "timestamp"]
    valid = None
    if release.layouts[0] == "ratings.csv":
        ratings = pd.read_csv(io.BytesIO(place.read("ratings.csv")))
        if list(ratings.columns) != ["userId", "movieId", "rating", "timestamp"]:
            raise DataError(f"{place.path}: ratings.csv has the columns {', '.join(map(str, ratings.columns))}")
        ratings.columns = pd.Index(columns)
        films = None
        if place.has("movies.csv"):
            films = pd.read_csv(io.BytesIO(place.read("movies.csv")))
            films.columns = pd.Index(["item", "title", "genres"])
    elif release.layouts[0] == "u.data":
        if split.startswith("u"):
            parts = [_tabs(place.read(f"{split}.{part}"), columns) for part in ("base", "test")]
            ratings = pd.concat(parts, ignore_index=True)
            valid = np.arange(len(ratings)) >= len(parts[0])
        else:
            ratings = _tabs(place.read("u.data"), columns)
        films = _films_100k(place) if place.has("u.item") else None
    else:
        ratings = _tabs(place.read("ratings.dat").replace(b"::", b"\t"), columns)
        films = None
        if place.has("movies.dat"):
            text = place.read("movies.dat").decode("latin-1").replace("::", "\t")
            films = pd.read_csv(io.StringIO(text), sep="\t", names=["item", "title", "genres"], quoting=3)
    return ratings, films, valid


def _tabs(content: bytes, names: list[str]) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), sep="\t", names=names)


def _films_100k(place: ArchiveOrFolder) -> pd.DataFrame:
    genres = [
        *("unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama"),
        *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
    ]
    text = place.read("u.item").decode("latin-1")
    films = pd.read_csv(io.StringIO(text), sep="|", names=["item", "title", "date", "video", "url", *genres], quoting=3)
    flags = films[genres].to_numpy()
    films["genres"] = ["|".join(g for g, flag in zip(genres, row, strict=True) if flag) for row in flags]
    return films[["item", "title", "genres"]]


def _describe(item_ids: Any, films: pd.DataFrame | None) -> tuple[list[str], list[str], NDArray[np.float32] | None]:
    """Return the titles, the genres there are, and which item belongs to which."""
    if films is None:
        return [str(i) for i in item_ids], [], None
    films = films.drop_duplicates("item").set_index("item").reindex(item_ids)
    titles = [str(i) if pd.isna(t) else str(t) for i, t in zip(item_ids, films["title"], strict=True)]
    flags = films["genres"].fillna("").str.get_dummies(sep="|")
    flags = flags.drop(columns="(no genres listed)", errors="ignore")
    return titles, [str(c) for c in flags.columns], flags.to_numpy(np.float32)


def _plain(value: Any) -> int | str:
    """Ids are stored as whole numbers or text."""
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return str(value)
