"""Ratings tables of all kinds, and what is said of those that are none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.core.splitting import TEST, TRAIN, VALID, random_rows
from dlrunner.data.ratings.dataset import RatingsData, RatingsTable
from dlrunner.data.ratings.synthetic import write_synthetic_movielens
from dlrunner.errors import ConfigError, DataError
from tests.conftest import QUICK, Dlrun, in_file_order, ratings_table

NOWHERE = Path("nowhere")


def read(path: Path | str, **settings: object) -> RatingsTable:
    return RatingsData(NOWHERE, path=str(path), **settings).read()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.csv.gz", "r.csv.zip", "r.parquet", "semicolon.csv"])
def test_a_table_is_read_whatever_its_format(name: str, here: Path) -> None:
    table = ratings_table()
    if name.endswith("parquet"):
        table.to_parquet(name)
    else:
        table.to_csv(name, index=False, sep="\t" if ".tsv" in name else ";" if "semi" in name else ",")
    found = RatingsData(NOWHERE, path=name).read()
    assert len(found.ratings) == 1500
    assert (len(found.user_ids), len(found.item_ids)) == (40, 60)
    rebuilt = pd.DataFrame(
        {
            "user": np.array(found.user_ids)[in_file_order(found.users)],
            "item": np.array(found.item_ids)[in_file_order(found.items)],
            "rating": in_file_order(found.ratings).astype(float),
        }
    )
    pd.testing.assert_frame_equal(rebuilt, table.astype({"user": str}), check_dtype=False)
    assert {type(each) for each in (*found.user_ids, *found.item_ids)} == {str}


def test_columns_can_be_named_and_usual_names_are_found(here: Path) -> None:
    ratings_table().rename(columns={"user": "who", "item": "movieId", "rating": "stars"}).to_csv("r.csv", index=False)
    assert len(RatingsData(NOWHERE, path="r.csv", user="who").read().user_ids) == 40
    with pytest.raises(DataError, match=r"which column is the user\? .* its columns are: who, movieId, stars"):
        read("r.csv")


def test_the_validation_rows_are_those_of_the_lesson() -> None:
    np.random.seed(42)
    expected = np.random.permutation(100_004)[:20_000]
    assert set(np.flatnonzero(random_rows(100_004, 0.2, 42))) == set(expected)


def test_the_inner_split_never_touches_the_rows_that_are_reported(here: Path) -> None:
    table = ratings_table()
    table.to_csv("r.csv", index=False)
    reported = table[random_rows(len(table), 0.2, 42)]
    inner = RatingsData(NOWHERE, path="r.csv", split="inner").read()
    used = set(zip(np.array(inner.user_ids)[inner.users], np.array(inner.item_ids)[inner.items], strict=True))
    assert used
    assert not used & set(zip(reported["user"].astype(str), reported["item"], strict=True))
    assert len(inner.ratings) == 1200
    assert inner.valid.sum() == 240


def test_each_rating_validates_in_one_fold(here: Path) -> None:
    ratings_table().to_csv("r.csv", index=False)
    folds = [read("r.csv", split="folds", folds=4, fold=fold, test=0.1) for fold in range(4)]
    assert all(len(table.ratings) == 1500 for table in folds)
    parts = [pd.Series(table.split, [table.users, table.items]).sort_index() for table in folds]
    validates = np.sum([part == VALID for part in parts], axis=0)
    tested = np.all([part == TEST for part in parts], axis=0)
    assert tested.sum() == 150
    assert (validates == ~tested).all()


def test_a_column_says_which_ratings_validate_and_which_are_tested(dlrun: Dlrun, here: Path) -> None:
    table = ratings_table()
    table["part"] = ["train", "valid", "train", "test", "train"] * 300
    table.to_csv("r.csv", index=False)
    found = read("r.csv", split="column", valid_column="part")
    assert [int((found.split == part).sum()) for part in (TRAIN, VALID, TEST)] == [900, 300, 300]
    np.testing.assert_array_equal(found.ratings[found.part(VALID)], table["rating"][table["part"] == "valid"])
    words = ("task=collab", "data.path=r.csv", "data.split=column", "data.valid_column=part", "epochs=1", *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, err
    assert "900 train, 300 valid, 300 test" in out
    assert "test set (evaluated once)" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.split=column",), "data.valid_column: is missing"),
        (("data.split=column", "data.valid_column=ratin"), "has no column 'ratin'; did you mean rating?"),
        (("data.split=folds", "data.fold=5"), "data.fold: must lie between 0 and 4"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(
    words: tuple[str, ...], message: str, dlrun: Dlrun, ratings_csv: Path
) -> None:
    status, _, err = dlrun("task=collab", "data.path=my.csv", *words)
    assert status == 2
    assert message in err


def test_ratings_called_test_validate_where_no_others_do_and_the_audit_knows(here: Path) -> None:
    table = ratings_table().assign(is_test=["", "test", "", ""] * 375)
    table.to_csv("r.csv", index=False)
    found = read("r.csv", split="column", valid_column="is_test")
    assert found.of_test is not None
    assert (int(found.valid.sum()), int((found.of_test & found.valid).sum())) == (375, 375)


def test_a_column_needs_a_table_of_ones_own(here: Path) -> None:
    with pytest.raises(ConfigError, match="column needs a table of your own"):
        RatingsData(Path("data"), source="synthetic", split="column", valid_column="part").read()


def test_the_time_split_validates_on_the_latest_ratings(here: Path) -> None:
    table = ratings_table()
    table["timestamp"] = np.random.default_rng(0).permutation(len(table))
    table.to_csv("r.csv", index=False)
    found = RatingsData(NOWHERE, path="r.csv", split="time").read()
    assert found.times is not None
    assert found.times[found.valid].min() > found.times[~found.valid].max()
    assert found.valid.sum() == 300


def write(text: str) -> str:
    Path("bad.csv").write_text(text)
    return "bad.csv"


HEADER = "user,item,rating\n"
GOOD = "".join(f"{u},{i},{(u + i) % 5 + 1}\n" for u in range(4) for i in range(5))
BAD = {
    "empty file": ("", "bad.csv is empty"),
    "header only": (HEADER, "has a header but no rows"),
    "missing column": (
        "user,thing,rating\n1,2,3\n",
        "which column is the item? set data.item=NAME; its columns are: user, thing, rating",
    ),
    "no number": (HEADER + GOOD + "9,9,great\n", "row 22: rating is 'great', which is not a number"),
    "missing rating": (HEADER + GOOD + "9,9,\n", "row 22: the rating is missing; 1 such row(s)"),
    "infinite": (HEADER + GOOD + "9,9,inf\n", "row 22: "),
    "missing user": (HEADER + GOOD + ",9,3\n", "row 22: the user is missing"),
    "one user": (HEADER + "".join(f"1,{i},{i % 5}\n" for i in range(20)), "all 20 ratings have the same user"),
    "one item": (HEADER + "".join(f"{i},1,{i % 5}\n" for i in range(20)), "all 20 ratings have the same item"),
    "no validation rows": (
        HEADER + "1,1,3\n1,2,4\n2,1,5\n2,2,1\n",
        "4 ratings and data.valid=0.2 leave no validation rows",
    ),
    "constant": (HEADER + "".join(f"{i % 4},{i},3\n" for i in range(20)), "all 20 ratings are 3"),
    "more fields than names": (
        HEADER + "".join(f"{i},{i % 3},{i % 4},{i % 5}\n" for i in range(20)),
        "row 2 has more fields, the header 3",
    ),
    "absurd rating": (
        HEADER + GOOD + "9,9,1e39\n",
        "row 22: 1e+39 is not a valid rating (a number from -1,000,000 to 1,000,000)",
    ),
    "ragged": (HEADER + GOOD + "1,2,3,4,5\n", "row 22 has more fields, the header 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_ends_with_a_plain_sentence(case: str, dlrun: Dlrun) -> None:
    text, expected = BAD[case]
    status, _, err = dlrun("task=collab", f"data.path={write(text)}", *QUICK)
    assert status == 1
    assert expected in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_a_column_named_wrongly_is_answered_with_those_that_exist(dlrun: Dlrun, ratings_csv: Path) -> None:
    status, _, err = dlrun("task=collab", "data.path=my.csv", "data.user=usr", *QUICK)
    assert status == 2
    assert "data.user: my.csv has no column 'usr'; its columns are: user, item, rating" in err


def test_a_missing_file_and_a_folder_are_wrong_requests(dlrun: Dlrun, here: Path) -> None:
    status, _, err = dlrun("task=collab", "data.path=none.csv")
    assert (status, err) == (2, "dlrun: data.path: there is no file none.csv\n")
    (here / "folder").mkdir()
    status, _, err = dlrun("task=collab", "data.path=folder")
    assert status == 2
    assert "folder is a folder without tables" in err
    (here / "my.doc").write_text("x")
    status, _, err = dlrun("task=collab", "data.path=my.doc")
    assert status == 2
    assert not (here / "runs").exists()
    assert "the name of a table ends in .csv" in err


def test_text_in_another_encoding_is_told(here: Path) -> None:
    Path("latin.csv").write_bytes("user,item,rating\nJosé,1,3\n".encode("latin-1"))
    with pytest.raises(DataError, match="not text in UTF-8"):
        read("latin.csv")


def test_pairs_rated_twice_keep_the_last_rating_and_it_is_told(here: Path, dlrun: Dlrun) -> None:
    table = ratings_table()
    again = table.head(3).assign(rating=0.5)
    pd.concat([table, again]).to_csv("r.csv", index=False)
    found = RatingsData(NOWHERE, path="r.csv").read()
    assert len(found.ratings) == 1500
    assert any("3 row(s) repeat a user and an item: the last rating counts" in note for note in found.notes)
    assert list(in_file_order(found.ratings)[-3:]) == [0.5] * 3
    assert "3 row(s) repeat a user and an item" in dlrun("task=collab", "data.path=r.csv", "epochs=1", *QUICK)[1]


def test_a_truncated_archive_is_told(here: Path) -> None:
    place, _ = write_synthetic_movielens(here, 50, 80, 1000)
    with zipfile.ZipFile("ml-latest-small.zip", "w") as archive:
        archive.write(place / "ratings.csv", "ml-latest-small/ratings.csv")
    content = Path("ml-latest-small.zip").read_bytes()
    Path("ml-latest-small.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"ml-latest-small.zip is damaged or not an archive .* download it again"):
        RatingsData(Path(), source="real").identity()


def test_real_data_that_is_not_there_fails_with_where_to_get_it(dlrun: Dlrun) -> None:
    status, _, err = dlrun("task=collab", "data.source=real")
    assert status == 1
    assert "dlrun data get ml-latest-small-2018-09" in err
    status, _, err = dlrun("experiment=movielens-dot")
    assert status == 1
    assert "821795331fd974bb" in err
    assert "DLRUNNER_DATA" in err


def test_without_data_and_network_a_run_uses_synthetic_data_with_a_warning(dlrun: Dlrun, here: Path) -> None:
    import json

    status, out, _ = dlrun("task=collab", "data.source=synthetic", "epochs=1", "log.plots=false")
    assert "requested by data.source=synthetic" in out.splitlines()[0]
    assert "the published data" not in out
    status, out, _ = dlrun("task=collab", "epochs=1", "log.plots=false")
    assert status == 0
    assert "synthetic data" in out.splitlines()[0]
    assert "the published data was not found" in out.splitlines()[0]
    data = json.loads((here / "runs" / "latest" / "summary.json").read_text())["data"]
    assert (data["source"], data["release"]) == ("synthetic", "synthetic")
    assert "synthetic" in (here / "runs" / "latest" / "report.html").read_text().lower()


def test_the_stand_in_is_the_same_everywhere_and_its_floor_is_right(here: Path) -> None:
    first, floor = write_synthetic_movielens(here / "a", 200, 300, 8000)
    second, _ = write_synthetic_movielens(here / "b", 200, 300, 8000)
    assert (first / "ratings.csv").read_bytes() == (second / "ratings.csv").read_bytes()
    assert 0.5 < floor < 0.8
    ratings = pd.read_csv(first / "ratings.csv")
    assert ratings["rating"].std() > floor + 0.2
    assert not ratings.duplicated(["userId", "movieId"]).any()


def test_one_column_cannot_have_two_roles(dlrun: Dlrun, ratings_csv: Path) -> None:
    status, _, err = dlrun("task=collab", "data.path=my.csv", "data.user=item", *QUICK)
    assert status == 1
    assert "one column cannot have two roles" in err


def test_invalid_times_are_ignored_unless_the_column_was_requested(here: Path) -> None:
    table = ratings_table()
    table["timestamp"] = ["soon", *["2015-03-01 10:00"] * (len(table) - 1)]
    table.to_csv("r.csv", index=False)
    found = RatingsData(NOWHERE, path="r.csv").read()
    assert found.times is None
    assert any("the column timestamp is ignored" in note for note in found.notes)
    with pytest.raises(DataError, match="row 2: timestamp is 'soon', which is not a date"):
        read("r.csv", timestamp="timestamp")


def test_times_as_text_are_seconds_since_1970(here: Path) -> None:
    table = ratings_table()
    table["timestamp"] = ["1970-01-02", *["1970-01-01 00:01"] * (len(table) - 1)]
    table.to_csv("r.csv", index=False)
    times = RatingsData(NOWHERE, path="r.csv").read().times
    assert times is not None
    assert list(times[:2]) == [86400.0, 60.0]


def test_a_user_may_be_called_na(here: Path) -> None:
    table = ratings_table().astype({"user": object})
    table.loc[table["user"] == 1, "user"] = "NA"
    table.to_csv("r.csv", index=False)
    assert "NA" in RatingsData(NOWHERE, path="r.csv").read().user_ids


def test_a_damaged_stand_in_is_made_again_and_an_unwritable_cache_is_told(here: Path) -> None:
    place, floor = write_synthetic_movielens(here, 50, 80, 1000)
    whole = (place / "ratings.csv").read_bytes()
    (place / "ratings.csv").write_bytes(whole[: len(whole) // 2])
    assert write_synthetic_movielens(here, 50, 80, 1000) == (place, floor)
    assert (place / "ratings.csv").read_bytes() == whole
    with pytest.raises(DataError, match="cannot be written to the cache"):
        write_synthetic_movielens(Path("/dev/null/x"), 50, 80, 1000)


def test_a_changed_film_file_is_changed_data(dlrun: Dlrun, here: Path) -> None:
    place, _ = write_synthetic_movielens(here, 50, 80, 1000)
    place.rename(here / "ml")
    words = ("task=collab", "data.path=ml", "epochs=1", "model=net", "model.genre_factors=2", *QUICK)
    assert dlrun(*words)[0] == 0
    films = (here / "ml" / "movies.csv").read_text()
    (here / "ml" / "movies.csv").write_text(films.replace("Comedy", "Drama"))
    assert "the data changed since" in dlrun(*words)[1]


def test_a_file_whose_time_was_set_back_is_read_again(dlrun: Dlrun, ratings_csv: Path) -> None:
    import os

    words = ("task=collab", "data.path=my.csv", "epochs=1", *QUICK)
    dlrun(*words)
    before = ratings_csv.stat()
    text = ratings_csv.read_text()
    ratings_csv.write_text(text.replace("i1,", "i2,", 1) if "i1," in text else text)
    os.utime(ratings_csv, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ratings_csv.stat().st_size == before.st_size
    assert "the data changed since" in dlrun(*words)[1]
