"""A user's own ratings: ids as they are written, numbers and times in any format, bad rows named or counted."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pytest

from dlrunner.data.core.splitting import VALID
from dlrunner.data.ratings.dataset import RatingsData, RatingsTable
from dlrunner.data.tables.files import open_table
from dlrunner.errors import ConfigError, DataError
from tests.conftest import in_file_order

NOWHERE = Path("nowhere")


def read(path: str = "r.csv", **settings: Any) -> RatingsTable:
    return RatingsData(NOWHERE, path=path, **settings).read()


def write(rows: list[tuple[Any, ...]], header: str = "user,item,rating", path: str = "r.csv") -> None:
    lines = [header, *(("," if "," in header else ";").join(map(str, row)) for row in rows)]
    Path(path).write_text("\n".join(lines) + "\n")


GOOD: list[tuple[Any, ...]] = [(f"u{u}", f"i{i}", (u + i) % 5 + 1) for u in range(4) for i in range(5)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("0108775015", "108775015"),
        ("1e01", "10"),
        ("1.1", "1.10"),
        ("007", "7"),
        ("NA", "None"),
        ("null", "nan"),
        ("9007199254740993", "9007199254740992"),
        ("A", "a"),
        ("7", "7.0"),
        ("true", "True"),
        ("1_000", "1000"),
        ("inf", "1e400"),
        ("+5", "5"),
        ("2020-01-01", "2020-1-1"),
    ],
)
@pytest.mark.parametrize("role", ["user", "item"])
def test_two_ids_that_are_written_differently_are_two(role: str, first: str, second: str, here: Path) -> None:
    ids = [first, second, "3", "4"]
    rows = [(ids[n % 4], f"x{n // 4}", n % 5) for n in range(20)]
    write(rows if role == "user" else [(other, each, rating) for each, other, rating in rows])
    table = read()
    assert (table.user_ids if role == "user" else table.item_ids) == ids
    if role == "item":
        assert table.titles == ids


def test_a_guest_among_numbers_makes_one_more_user(here: Path) -> None:
    number = np.arange(300_000)
    frame = pd.DataFrame({"user": (number % 1500 + 1).astype(str), "item": number // 1500, "rating": number % 5})
    frame.loc[len(frame) - 1, "user"] = "guest"
    frame.to_csv("r.csv", index=False)
    table = read()
    assert table.user_ids == [*map(str, range(1, 1501)), "guest"]
    assert in_file_order(table.users)[:2999].tolist() == [*range(1500), *range(1499)]


def test_an_id_is_the_same_from_parquet_and_csv(here: Path) -> None:
    frame = pd.DataFrame({"user": [1.0, 2.0, 3.0] * 5, "item": [2**53 + 1, 2**53, 5, 6, 7] * 3, "rating": range(15)})
    frame.to_parquet("r.parquet")
    frame.astype({"user": int}).to_csv("r.csv", index=False)
    from_parquet, from_csv = read("r.parquet"), read()
    assert from_parquet.user_ids == from_csv.user_ids == ["1", "2", "3"]
    assert from_parquet.item_ids == from_csv.item_ids == ["9007199254740993", "9007199254740992", "5", "6", "7"]


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (["4,5", "3,0", "2,5", "1"], {}),
        (["4.5", "3.0", "2.5", "1"], {}),
        (["4,5 €", "3,0 €", "2,5 €", "1 €"], {}),
        (["4.500", "3.000", "2.500", "1.000"], {"decimal": "."}),
        (["4,500", "3,000", "2,500", "1"], {"decimal": ","}),
    ],
)
def test_ratings_are_numbers_in_the_format_of_the_file(texts: list[str], settings: dict[str, str], here: Path) -> None:
    write([(f"u{n % 5}", f"i{n // 5}", texts[n % 4]) for n in range(20)], "user;item;rating")
    assert in_file_order(read(**settings).ratings)[:4].tolist() == [4.5, 3.0, 2.5, 1.0]


def test_a_rating_that_may_be_a_thousand_is_refused_with_the_setting(here: Path) -> None:
    write([(f"u{n % 5}", f"i{n // 5}", ["1.234", "812"][n % 2]) for n in range(20)])
    with pytest.raises(ConfigError, match=r"rating could be read in two ways: 1\.234 may be .*data\.decimal"):
        read()
    assert in_file_order(read(decimal=".").ratings)[0] == np.float32(1.234)
    assert in_file_order(read(decimal=",", thousands=".").ratings)[0] == 1234


START = datetime(2019, 12, 20, 8, 30, tzinfo=UTC)
TIMES = [START + timedelta(hours=int(each)) for each in np.random.default_rng(3).permutation(200) * 7]
FORMATS: dict[str, Callable[[datetime], str]] = {
    "seconds": lambda t: f"{t.timestamp():.0f}",
    "seconds with a fraction": lambda t: f"{t.timestamp():.1f}",
    "milliseconds": lambda t: f"{t.timestamp() * 1000:.0f}",
    "microseconds": lambda t: f"{t.timestamp() * 1e6:.0f}",
    "ISO 8601": lambda t: t.strftime("%Y-%m-%dT%H:%M:%S"),
    "with an offset": lambda t: t.strftime("%Y-%m-%d %H:%M:%S+00:00"),
    "day first": lambda t: t.strftime("%d/%m/%Y %H:%M"),
    "month first": lambda t: t.strftime("%m/%d/%Y %I:%M %p"),
    "dots": lambda t: t.strftime("%d.%m.%Y %H:%M"),
    "names of months": lambda t: t.strftime("%d-%b-%Y %H:%M"),
    "mail": lambda t: t.strftime('"%a, %d %b %Y %H:%M:%S +0000"'),
    "digits": lambda t: t.strftime("%Y%m%d%H%M%S"),
    "Excel's days": lambda t: repr((t - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(days=1)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_split_by_time_is_the_same_in_every_format(name: str, here: Path) -> None:
    rows = [(f"u{n % 20}", f"i{n // 20}", n % 5, FORMATS[name](time)) for n, time in enumerate(TIMES)]
    write(rows, "user,item,rating,timestamp")
    table = read(split="time")
    latest = sorted(range(200), key=lambda n: TIMES[n])[160:]
    others = [n for n in range(200) if n not in latest]
    assert table.times is not None
    assert table.times.tolist() == [TIMES[n].timestamp() for n in (*others, *sorted(latest))]
    unit = name.partition(" ")[0] if name.endswith(("seconds", "fraction")) else "dates"
    (note,) = (note for note in table.notes if "is read as" in note)
    assert f"is read as {unit}" in note
    assert note.endswith(": 2019-12-20 to 2020-02-16")


def test_dates_that_fit_two_formats_are_refused_with_the_setting(here: Path) -> None:
    days = ["01/02/2020", "03/01/2020", "02/03/2020", "05/04/2020"]
    write([(f"u{n % 5}", f"i{n // 5}", n % 3, days[n % 4]) for n in range(20)], "user,item,rating,timestamp")
    with pytest.raises(ConfigError, match=r"timestamp could be read in two ways: .*data\.date_format='%d/%m/%Y'"):
        read()
    for form, day in (("%d/%m/%Y", datetime(2020, 2, 1, tzinfo=UTC)), ("%m/%d/%Y", datetime(2020, 1, 2, tzinfo=UTC))):
        assert in_file_order(read(date_format=form).times)[0] == day.timestamp()


def test_seconds_and_milliseconds_in_one_column_are_refused(here: Path) -> None:
    times = [1_577_836_800, 1_577_836_800_000]
    write([(f"u{n % 5}", f"i{n // 5}", n % 3, times[n % 2]) for n in range(20)], "user,item,rating,timestamp")
    with pytest.raises(DataError, match="timestamp holds 10 times in seconds, such as 1577836800"):
        read(split="time")
    frame = pd.DataFrame(GOOD, columns=["user", "item", "rating"])
    frame.assign(timestamp=1e30).to_parquet("r.parquet")
    with pytest.raises(DataError, match=r"timestamp holds 1e\+30, which is not a time"):
        read("r.parquet", split="time")
    assert read("r.parquet").times is None


@pytest.mark.parametrize("bad", [20231301, 99991231, 0])
def test_a_number_that_is_no_date_does_not_make_seconds_of_the_other_times(bad: int, here: Path) -> None:
    days = [20230101 + n for n in range(19)]
    write([(*each, day) for each, day in zip(GOOD, [*days, bad], strict=True)], "user,item,rating,timestamp")
    with pytest.raises(DataError, match=rf"row 21: timestamp is {bad}, which is not a date of the form %Y%m%d"):
        read(split="time")
    assert read().times is None


def test_days_written_as_one_number_are_dates(here: Path) -> None:
    days = ["20200131", "20191231", "20200229"]
    write([(f"u{n % 5}", f"i{n // 5}", n % 4, days[n % 3]) for n in range(20)], "user,item,rating,timestamp")
    assert in_file_order(read().times)[:2].tolist() == [
        datetime(2020, 1, 31, tzinfo=UTC).timestamp(),
        datetime(2019, 12, 31, tzinfo=UTC).timestamp(),
    ]


AGAIN: list[tuple[Any, ...]] = [("u1", "i1", 5, 300), ("u1", "i1", 1, 100), ("u1", "i1", 3, 200)]


def test_of_a_pair_rated_several_times_the_latest_counts(here: Path) -> None:
    rows = [(*each, 50) for each in GOOD if each[:2] != ("u1", "i1")]
    write([*rows[:9], *AGAIN, *rows[9:]], "user,item,rating,timestamp")
    table = read()
    assert len(table.ratings) == 20
    pair = (table.users == table.user_ids.index("u1")) & (table.items == table.item_ids.index("i1"))
    assert table.ratings[pair].tolist() == [5]
    assert any("2 row(s) repeat a user and an item: the latest rating counts" in n for n in table.notes)
    write([*rows[:9], *AGAIN, *rows[9:]], "user,item,rating,nothing")
    assert in_file_order(read().ratings)[9] == 3
    assert any("the last rating counts" in note for note in read().notes)


def test_a_pair_is_left_out_if_its_latest_rating_is_low_but_a_choice_stays_one(here: Path) -> None:
    rows = [(*each, 50) for each in GOOD if each[:2] != ("u1", "i1")]
    write([*rows, ("u1", "i1", 5, 100), ("u1", "i1", -1, 200)], "user,item,rating,timestamp")
    for implicit, expected in ((False, False), (True, True)):
        table = read(min_rating=0, implicit=implicit, rating="rating")
        pair = (table.users == table.user_ids.index("u1")) & (table.items == table.item_ids.index("i1"))
        assert pair.any() == expected
    assert "1 of 20 rows are left out: they lie below data.min_rating" in read(min_rating=0).notes


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("", "i1", 3), "row 12: the user is missing"),
        (("u1", "  ", 3), "row 12: the item is missing"),
        (("u9", "i1", ""), "row 12: the rating is missing"),
        (("u9", "i1", "NA"), "row 12: the rating is missing"),
        (("u9", "i1", "great"), "row 12: rating is 'great', which is not a number"),
        (("u9", "i1", "inf"), "row 12: rating is 'inf', which is not a finite number"),
        (("u9", "i1", "1e39"), r"row 12: 1e\+39 is not a valid rating \(a number from -1,000,000 to 1,000,000\)"),
    ],
)
def test_a_bad_row_is_named_or_left_out_and_counted(row: tuple[Any, ...], reason: str, here: Path) -> None:
    write([*GOOD[:10], row, *GOOD[10:], row])
    with pytest.raises(DataError, match=rf"{reason}; 2 such row"):
        read()
    table = read(skip_bad=True)
    assert in_file_order(table.ratings).tolist() == [rating for _, _, rating in GOOD]
    (note,) = table.notes
    assert note.startswith("2 of 22 rows are left out (data.skip_bad): r.csv, row 12: ")


def test_a_bad_time_is_named_or_its_row_left_out(here: Path) -> None:
    rows = [(*each, f"2020-01-{n + 1:02d}") for n, each in enumerate(GOOD)]
    rows[4] = (*GOOD[4], "soon")
    write(rows, "user,item,rating,when")
    with pytest.raises(DataError, match="row 6: when is 'soon', which is not a date"):
        read(timestamp="when")
    table = read(timestamp="when", skip_bad=True, split="time")
    assert table.ratings.tolist() == [rating for n, (_, _, rating) in enumerate(GOOD) if n != 4]
    assert table.part(VALID) == slice(16, 19)


def test_times_in_several_formats_are_ignored_unless_they_are_needed(here: Path) -> None:
    rows = [(*each, f"2020-01-{n + 1:02d}" if n % 2 else "soon") for n, each in enumerate(GOOD)]
    write(rows, "user,item,rating,date")
    table = read()
    assert table.times is None
    assert table.notes == ["the column date is ignored: some of its values are not times (row 2: 'soon')"]
    with pytest.raises(DataError, match="row 2: date is 'soon', which is not a date, ISO 8601; 10 such row"):
        read(split="time")
    assert len(read(split="time", skip_bad=True).ratings) == 10
    write([(*each, "12:30") for each in GOOD], "user,item,rating,date")
    assert read().times is None  # a time of day alone is no time


def test_a_total_below_the_ratings_is_no_rating(here: Path) -> None:
    rows = [(user, item, rating, f"2024-01-{n + 1:02d}") for n, (user, item, rating) in enumerate(GOOD)]
    write([*rows, ("Total", "", sum(rating for _, _, rating in GOOD), "")], "user,item,rating,timestamp")
    table = read(split="time")
    assert len(table.valid) == len(GOOD)
    assert any("the last row is left out: it sums up the others (user is Total)" in note for note in table.notes)


def test_a_query_a_folder_of_parts_a_glob_and_standard_input_are_the_same_table(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(GOOD)
    whole = read()
    Path("parts").mkdir()
    write(GOOD[:7], path="parts/a.csv")
    write(GOOD[7:], path="parts/b.csv")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("r.csv").read_bytes())))
    queried = RatingsData(NOWHERE, query="select who as user, item, rating from 'q.csv' where rating < 9")
    write([*GOOD, ("u9", "i9", 9)], "who,item,rating", "q.csv")
    for data in (*(RatingsData(NOWHERE, path=each) for each in ("parts", "parts/*.csv", "-")), queried):
        assert len(data.identity().sha256) == 64
        table = data.read()
        assert (table.user_ids, table.item_ids) == (whole.user_ids, whole.item_ids)
        assert table.ratings.tolist() == whole.ratings.tolist()
        assert table.split.tolist() == whole.split.tolist()


def test_messages_on_a_table_of_standard_input_name_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"user,item,rating\n")))
    with pytest.raises(DataError, match=r"^standard input "):
        RatingsData(NOWHERE, path="-").read()


def test_a_schema_says_how_columns_are_read_and_ids_stay_text(here: Path) -> None:
    rows = [(f"{n % 4:03d}", f"i{n // 4}", f"{n % 5},5", f"0{n % 9 + 1}/02/2020") for n in range(20)]
    write(rows, "user;item;rating;timestamp")
    columns = (
        "{name: user, type: integer}, {name: item, type: text}, {name: rating, type: number, decimal: ','}, "
        "{name: timestamp, type: date, format: '%d/%m/%Y'}"
    )
    Path("schema.yaml").write_text(f"columns: [{columns}]\n")
    table = read(schema="schema.yaml")
    assert table.user_ids == ["000", "001", "002", "003"]
    assert in_file_order(table.ratings)[:3].tolist() == [0.5, 1.5, 2.5]
    assert in_file_order(table.times)[0] == datetime(2020, 2, 1, tzinfo=UTC).timestamp()
    Path("schema.yaml").write_text("columns: [{name: user, type: text}]\n")
    with pytest.raises(ConfigError, match=r"schema\.yaml has no column item"):
        read(schema="schema.yaml")


def test_ids_of_a_query_keep_their_characters() -> None:
    rows = [(f"u{user}", item, rating) for user, rating in ((1, 2), (2, 4), (3, 5)) for item in ("1.10", "1.1", "2.5")]
    write(rows)
    for query in ("select * from 'r.csv'", "select user, item, rating from 'r.csv' where rating > 1"):
        assert set(RatingsData(NOWHERE, query=query).read().item_ids) == {"1.10", "1.1", "2.5"}


def test_path_and_query_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"data\.query: data\.path names the table already"):
        RatingsData(NOWHERE, path="r.csv", query="select 1")


MEASURED = """
import resource, time
from pathlib import Path
from dlrunner.data.ratings.dataset import RatingsData
start = time.perf_counter()
table = RatingsData(Path("nowhere"), path="r.csv", split="time").read()
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
print(len(table.ratings), len(table.user_ids), len(table.item_ids), float(table.ratings.sum(dtype="float64")))
"""


@pytest.mark.slow
def test_five_million_ratings_are_read_within_two_minutes_and_6_gib(here: Path) -> None:
    rng, count = np.random.default_rng(0), 5_000_000
    users, items = rng.integers(0, 200_000, count), rng.integers(0, 30_000, count)
    ratings, times = rng.integers(1, 11, count) / 2, rng.permutation(count) + 10**9
    columns = {"user": users, "item": items, "rating": ratings, "timestamp": times}
    pyarrow.csv.write_csv(pyarrow.table(columns), "r.csv")
    words = [sys.executable, "-c", MEASURED]
    measured, found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    seconds, gib = map(float, measured.split())
    assert seconds < 120
    assert gib < 6
    order = np.argsort(times)
    latest = dict(zip((users * 30_000 + items)[order].tolist(), ratings[order].tolist(), strict=True))
    assert found.split() == [str(len(latest)), "200000", "30000", str(sum(latest.values()))]


def test_a_table_that_is_read_in_pieces_is_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write([*GOOD, ("u1", "i1", 2), ("ü", "007", 4), ("u0", "7", 1)])
    whole = read()
    monkeypatch.setattr("dlrunner.data.tables.raw.PIECE", 3)
    monkeypatch.setenv("DLRUNNER_CACHE", "other")
    in_pieces = read()
    assert (in_pieces.user_ids, in_pieces.item_ids) == (whole.user_ids, whole.item_ids)
    for name in ("users", "items", "ratings", "split"):
        np.testing.assert_array_equal(getattr(in_pieces, name), getattr(whole, name), strict=True)
    assert in_pieces.user_ids == ["u0", "u1", "u2", "u3", "ü"]
    assert in_pieces.notes == whole.notes


def test_a_table_of_ratings_takes_17_bytes_per_row(here: Path) -> None:
    write([(*row, 10**9 + number) for number, row in enumerate(GOOD)], "user,item,rating,timestamp")
    table = read()
    arrays = (table.users, table.items, table.ratings, table.times, table.split)
    assert sum(each.nbytes for each in arrays if each is not None) == 17 * len(GOOD)


def test_a_damaged_row_is_named_where_a_table_is_read_in_pieces(here: Path) -> None:
    Path("r.csv").write_text("a,b\n" + "1,2\n" * 10_000 + "1,2,3\n")
    with open_table("r.csv") as raw, pytest.raises(DataError, match=r"r\.csv, row 10002 has more fields"):
        list(raw.pieces(raw.column("a")))


@pytest.mark.parametrize("other", ["", "soon"])
def test_no_row_is_left_out_for_a_time_that_nothing_needs(other: str, here: Path) -> None:
    write([(*row, "2024-01-01" if n % 3 == 0 else other) for n, row in enumerate(GOOD)], "user,item,rating,date")
    table = read(skip_bad=True)
    assert len(table.ratings) == len(GOOD)
    assert table.times is None
    assert [note for note in table.notes if note.startswith("the column date is ignored")]
    assert not [note for note in table.notes if "left out" in note]
    assert len(read(skip_bad=True, timestamp="date").ratings) == 7
