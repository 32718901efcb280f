"""MovieLens in its layouts: which release a folder or archive is, and its ratings, titles and genres."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.cache import sha256_of
from dlrunner.data.core.source import ARCHIVES, ArchiveOrFolder, Release, place_of
from dlrunner.data.ratings.releases import RELEASES
from dlrunner.errors import DataError

UNPUBLISHED = "not a published release"
"""The release of files in a layout of MovieLens that are not those of the publisher."""
COLUMNS = ["userId", "movieId", "rating", "timestamp"]
"""Of ratings.csv."""
ROLES = ["user", "item", "rating", "timestamp"]
GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
"""Of MovieLens 100K."""


def find_movielens(data_dir: Path, name: str) -> tuple[Release, ArchiveOrFolder] | None:
    """Search the data folder for a release; with `auto` for any, published ones first.

    Raises:
        DataError: an archive is damaged, or is not the release that its name says.
    """
    others = []
    for release in RELEASES:
        if name in ("auto", release.name):
            for path in _candidates(data_dir, release):
                place = place_of(path, release.layouts[0])
                if place is not None and is_published(place, release):
                    return release, place
                if place is not None and _has_layout(place, release):
                    others.append((release, place))
    if not others:
        return None
    release, place = others[0]
    if name == "auto":
        return unpublished(release), place
    if _is_of_another(place):
        return None
    raise DataError(
        f"{place.path} is not {release.title}: its {release.layouts[0]} has the sha256 "
        f"{place.sha256(release.layouts[0])}; data.path={place.path} reads it as a table in the layout of MovieLens"
    )


def recognised(path: Path) -> tuple[Release, ArchiveOrFolder] | None:
    """Return the release that a folder or zip archive is, UNPUBLISHED where it only has its layout; None: neither.

    Raises:
        DataError: the archive is damaged.
    """
    if not path.is_dir() and path.suffix.lower() != ".zip":
        return None
    found = [(release, place) for release in RELEASES if (place := place_of(path, release.layouts[0])) is not None]
    published = next(((release, place) for release, place in found if is_published(place, release)), None)
    if published is not None:
        return published
    if path.is_dir() and len([*path.glob("ratings.csv"), *path.glob("*/ratings.csv")]) > 1:  # parts of one table
        found = [(release, place) for release, place in found if release.layouts[0] != "ratings.csv"]
    return next(((unpublished(release), place) for release, place in found if _has_layout(place, release)), None)


def is_published(place: ArchiveOrFolder, release: Release) -> bool:
    """Return whether files are those of the publisher: the archive, or the ratings in it, by their sha256."""
    if place.is_archive and release.sha256 is not None and sha256_of(place.path) == release.sha256:
        return True
    wanted = release.sha256_of_layout
    return wanted is not None and place.sha256(release.layouts[0]) == wanted


def unpublished(release: Release) -> Release:
    """Return the description of files in the layout of a release that are not those of the publisher."""
    return replace(release, name=UNPUBLISHED, title=f"MovieLens layout, {UNPUBLISHED}", terms="", url=None, sha256=None)


def _candidates(data_dir: Path, release: Release) -> Iterator[Path]:
    for name in release.archives:
        for path in (*(data_dir / f"{name}{suffix}" for suffix in ARCHIVES), data_dir / name):
            if path.exists():
                yield path


def _is_of_another(place: ArchiveOrFolder) -> bool:
    return any(is_published(place, release) for release in RELEASES if place.has(release.layouts[0]))


def _has_layout(place: ArchiveOrFolder, release: Release) -> bool:
    """Return whether files have the layout of a release: ratings.csv may be any table, so its columns count too."""
    if release.layouts[0] != "ratings.csv":
        return True
    if not all(place.has(name) for name in release.layouts):
        return False
    header = place.read("ratings.csv")[:200].split(b"\n")[0].decode("utf-8-sig", errors="replace")
    return header.strip().split(",") == COLUMNS


def read_movielens(
    place: ArchiveOrFolder, release: Release, split: str
) -> tuple[pd.DataFrame, pd.DataFrame | None, NDArray[np.bool_] | None]:
    """Return the ratings, the films with their genres, and which rows the release's own split validates on.

    Ids are integers; where the files are not the publisher's, text: they keep every character.
    """
    own_ids = release.name == UNPUBLISHED
    try:
        ratings, films, valid = _read(place, release, split, own_ids)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{place.path} cannot be read: {str(error).splitlines()[0]}") from None
    ratings.columns = pd.Index(ROLES)
    return ratings, films, valid


def _read(
    place: ArchiveOrFolder, release: Release, split: str, own_ids: bool
) -> tuple[pd.DataFrame, pd.DataFrame | None, NDArray[np.bool_] | None]:
    valid, films = None, None
    if release.layouts[0] == "ratings.csv":
        ratings = _table(place.read("ratings.csv"), ",", COLUMNS, own_ids, header=0)
        if place.has("movies.csv"):
            films = _films(place.read("movies.csv"), ",", ["item", "title", "genres"], own_ids, header=0)
    elif release.layouts[0] == "u.data":
        if split.startswith("u"):
            parts = [_table(place.read(f"{split}.{part}"), "\t", ROLES, own_ids) for part in ("base", "test")]
            ratings = pd.concat(parts, ignore_index=True)
            valid = np.arange(len(ratings)) >= len(parts[0])
        else:
            ratings = _table(place.read("u.data"), "\t", ROLES, own_ids)
        if place.has("u.item"):
            names = ["item", "title", "date", "video", "url", *GENRES]
            films = _films(place.read("u.item"), "|", names, own_ids, quoting=3)
            flags = films[GENRES].to_numpy()
            films["genres"] = ["|".join(g for g, flag in zip(GENRES, row, strict=True) if flag) for row in flags]
    else:
        ratings = _table(place.read("ratings.dat").replace(b"::", b"\t"), "\t", ROLES, own_ids)
        if place.has("movies.dat"):
            content = place.read("movies.dat").replace(b"::", b"\t")
            films = _films(content, "\t", ["item", "title", "genres"], own_ids, quoting=3)
    return ratings, films, valid


def _table(
    content: bytes, separator: str, names: Sequence[str], own_ids: bool, header: int | None = None
) -> pd.DataFrame:
    types: Any = dict.fromkeys(names[:2], str) if own_ids else None
    table: pd.DataFrame = pd.read_csv(
        io.BytesIO(content), sep=separator, names=list(names), header=header, dtype=types, keep_default_na=False,
        na_values=[""],
    )  # fmt: skip
    return table


def _films(
    content: bytes,
    separator: str,
    names: Sequence[str],
    own_ids: bool,
    header: int | None = None,
    quoting: Literal[0, 3] = 0,
) -> pd.DataFrame:
    """Return item, title and genres; the titles of older releases are in Latin-1, of the others in UTF-8."""
    types: Any = {"title": str} | ({"item": str} if own_ids else {})
    films: pd.DataFrame = pd.read_csv(
        io.StringIO(_decoded(content)), sep=separator, names=list(names), header=header, quoting=quoting, dtype=types,
        keep_default_na=False, na_values=[""],
    )  # fmt: skip
    return films


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def describe_items(
    item_ids: pd.Index[Any], films: pd.DataFrame | None
) -> tuple[list[str], list[str], NDArray[np.float32] | None]:
    """Return the titles, the genres there are, and which item belongs to which."""
    if films is None:
        return [str(each) for each in item_ids], [], None
    films = films.drop_duplicates("item").set_index("item").reindex(item_ids)
    titles = [str(i) if pd.isna(t) else str(t) for i, t in zip(item_ids, films["title"], strict=True)]
    flags = films["genres"].fillna("").astype("str").str.get_dummies(sep="|")
    flags = flags.drop(columns="(no genres listed)", errors="ignore")
    return titles, [str(c) for c in flags.columns], flags.to_numpy(np.float32)
