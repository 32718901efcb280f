"""MovieLens: which release a file is, by its content, and its titles."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlrunner.data.ratings import movielens
from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.data.ratings.releases import RELEASES
from dlrunner.errors import ConfigError, DataError
from tests.conftest import in_file_order, ratings_table

NOWHERE = Path("nowhere")

MOVIELENS_100K = {
    "u.data": "1\t10\t3\t100\n2\t20\t5\t200\n1\t20\t1\t300\n2\t10\t4\t400\n3\t10\t2\t500\n",
    "u.item": "10|Café (1995)|x||u|"
    + "|".join("0100000000000000000")
    + "\n20|Two (1996)|x||u|"
    + "|".join("0110000000000000000")
    + "\n",
    "u1.base": "1\t10\t3\t100\n2\t20\t5\t200\n1\t20\t1\t300\n",
    "u1.test": "2\t10\t4\t400\n3\t10\t2\t500\n",
}


def test_movielens_100k_is_recognised_with_its_own_splits(here: Path) -> None:
    (here / "ml-100k").mkdir()
    for name, text in MOVIELENS_100K.items():
        (here / "ml-100k" / name).write_text(text, encoding="latin-1")
    data = RatingsData(NOWHERE, path="ml-100k", split="u1")
    assert (data.identity().name, data.identity().release) == ("MovieLens layout", "not a published release")
    table = data.read()
    assert list(table.valid) == [False, False, False, True, True]
    assert table.titles == ["Café (1995)", "Two (1996)"]
    assert table.genres == ["Action", "Adventure"]
    assert table.item_genres is not None
    assert table.item_genres.tolist() == [[1, 0], [1, 1]]
    ratings_table().to_csv("r.csv", index=False)
    with pytest.raises(ConfigError, match="u1 is one of MovieLens 100K's own splits"):
        RatingsData(NOWHERE, path="r.csv", split="u1").read()


def test_movielens_1m_is_recognised_in_a_zip(here: Path) -> None:
    with zipfile.ZipFile("ml-1m.zip", "w") as archive:
        archive.writestr(
            "ml-1m/ratings.dat", "1::10::3::100\n2::20::5::200\n1::20::1::300\n2::10::4::400\n3::10::2::500\n"
        )
        archive.writestr(
            "ml-1m/movies.dat", "10::Café (1995)::Action|Comedy\n20::Two (1996)::Drama\n".encode("latin-1")
        )
    data = RatingsData(NOWHERE, path="ml-1m.zip")
    assert data.identity().release == "not a published release"
    table = data.read()
    assert table.titles[0] == "Café (1995)"
    assert len(table.ratings) == 5


def test_the_archive_and_its_unpacked_folder_are_the_same_data(here: Path) -> None:
    with zipfile.ZipFile("ml-100k.zip", "w") as archive:
        for name, text in MOVIELENS_100K.items():
            archive.writestr(f"ml-100k/{name}", text.encode("latin-1"))
    zipped = RatingsData(NOWHERE, path="ml-100k.zip").identity()
    with zipfile.ZipFile("ml-100k.zip") as archive:
        archive.extractall()
    assert RatingsData(NOWHERE, path="ml-100k").identity().sha256 == zipped.sha256


@pytest.mark.data
def test_the_real_releases_are_told_apart(real_data: Path) -> None:
    for name, rows, items in (("ml-latest-small-2016-10", 100_004, 9066), ("ml-latest-small-2018-09", 100_836, 9724)):
        data = RatingsData(real_data, release=name)  # type: ignore[arg-type]
        assert data.identity().release == name
        assert data.identity().source == "real"
        table = data.read()
        assert (len(table.ratings), len(table.item_ids)) == (rows, items)
        assert RatingsData(NOWHERE, path=str(real_data / f"{name}.zip")).identity().release == name
    assert RatingsData(real_data).identity().release == "ml-latest-small-2016-10"


RATINGS_10M = "1::10::4.5::100\n2::20::5::200\n1::20::0.5::300\n2::10::4::400\n3::10::2.5::500\n"
MOVIES_10M = "10::Amélie (2001)::Comedy\n20::Two (1996)::Drama\n"
RATINGS_32M = "userId,movieId,rating,timestamp\n1,10,4.5,100\n2,20,5.0,200\n1,20,0.5,300\n2,10,4.0,400\n3,10,2.5,500\n"
MOVIES_32M = "movieId,title,genres\n10,Amélie (2001),Comedy\n20,None,(no genres listed)\n"


def write_10m(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "ml-10m.zip", "w") as archive:
        archive.writestr("ml-10M100K/ratings.dat", RATINGS_10M)
        archive.writestr("ml-10M100K/movies.dat", MOVIES_10M)
    return folder / "ml-10m.zip"


def publish(monkeypatch: pytest.MonkeyPatch, name: str, **hashes: Any) -> None:
    """Let these be the hashes of a published release."""
    changed = tuple(replace(each, **hashes) if each.name == name else each for each in RELEASES)
    monkeypatch.setattr(movielens, "RELEASES", changed)


def test_movielens_10m_has_half_stars_and_titles_in_utf_8(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_10m(here)
    table = RatingsData(NOWHERE, path=str(archive)).read()
    assert in_file_order(table.ratings).tolist() == [4.5, 5, 0.5, 4, 2.5]
    assert table.titles == ["Amélie (2001)", "Two (1996)"]
    assert RatingsData(NOWHERE, path=str(archive)).identity().release == "not a published release"
    publish(monkeypatch, "ml-10m", sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    assert RatingsData(NOWHERE, path=str(archive)).identity().release == "ml-10m"
    assert RatingsData(here, release="ml-10m", source="real").identity().release == "ml-10m"


def test_movielens_32m_is_known_by_its_ratings_and_not_by_its_columns(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "ml-32m").mkdir()
    (here / "ml-32m" / "ratings.csv").write_text(RATINGS_32M)
    (here / "ml-32m" / "movies.csv").write_text(MOVIES_32M)
    data = RatingsData(NOWHERE, path="ml-32m")
    assert (data.identity().name, data.identity().release) == ("MovieLens layout", "not a published release")
    assert data.read().titles == ["Amélie (2001)", "None"]
    publish(monkeypatch, "ml-32m", sha256_of_layout=hashlib.sha256(RATINGS_32M.encode()).hexdigest())
    data = RatingsData(NOWHERE, path="ml-32m")
    assert (data.identity().name, data.identity().release) == ("MovieLens", "ml-32m")
    assert RatingsData(here).identity().release == "ml-32m"


def test_a_release_asked_by_name_must_be_the_published_file(here: Path) -> None:
    write_10m(here)
    with pytest.raises(DataError, match=r"ml-10m.zip is not MovieLens 10M: its ratings.dat has the sha256"):
        RatingsData(here, release="ml-10m").identity()
    assert RatingsData(here).identity().release == "not a published release"


def test_the_ids_of_a_table_in_the_layout_of_movielens_keep_their_characters(here: Path) -> None:
    (here / "mine").mkdir()
    rows = ["007,0108775015,4,1", "7,108775015,3,2", "NA,1e01,2,3", "None,10,1,4", "007,10,5,5"]
    (here / "mine" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(rows) + "\n")
    (here / "mine" / "movies.csv").write_text(
        "movieId,title,genres\n108775015,Plain,Drama\n0108775015,0108,Comedy\n1e01,1e01,Drama\n10,10,Drama\n"
    )
    table = RatingsData(NOWHERE, path="mine").read()
    assert table.user_ids == ["007", "7", "NA", "None"]
    assert table.item_ids == ["0108775015", "108775015", "1e01", "10"]
    assert table.titles == ["0108", "Plain", "1e01", "10"]


def test_several_ratings_csv_in_a_folder_are_parts_of_one_table(here: Path) -> None:
    lines = RATINGS_32M.splitlines(keepends=True)
    for number, rows in enumerate((lines[1:3], lines[3:])):
        (here / "months" / str(number)).mkdir(parents=True)
        (here / "months" / str(number) / "ratings.csv").write_text(lines[0] + "".join(rows))
    table = RatingsData(NOWHERE, path="months").read()
    assert in_file_order(table.ratings).tolist() == [4.5, 5, 0.5, 4, 2.5]
    assert RatingsData(NOWHERE, path="months").identity().release == "own"
