"""Tables of items and of users: their columns become attributes, in the order of the ratings' ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.ratings.dataset import RatingsData, RatingsTable
from dlrunner.errors import DataError
from tests.conftest import QUICK, Dlrun, ratings_table

ITEMS = """item,title,kind,price,since,code
0,Zero,a|b,1.5,2020-01-01,x0
1,One,b,2.5,2020-02-01,x1
2,Two,a,,2020-03-01,x2
3,Three,a|c,4.5,2020-04-01,x3
99,Unrated,b,9.5,2021-01-01,x99
"""


@pytest.fixture(autouse=True)
def tables(here: Path) -> None:
    """Ratings of items 0 to 4, and tables of both."""
    rows = [(u, i, (u + i) % 5 + 1) for u in range(6) for i in (3, 0, 1, 4, 2)]
    pd.DataFrame(rows, columns=["user", "item", "rating"]).to_csv("r.csv", index=False)
    Path("items.csv").write_text(ITEMS)
    Path("users.csv").write_text("id;town\n" + "".join(f"{u};{'Bonn' if u % 2 else 'Rom'}\n" for u in range(6)))


def read(**settings: Any) -> RatingsTable:
    return RatingsData(Path("nowhere"), path="r.csv", **settings).read()


def test_columns_are_categories_and_numbers_by_the_ids_of_the_ratings() -> None:
    table = read(items="items.csv")
    assert table.item_ids == ["3", "0", "1", "4", "2"]
    assert table.titles == ["Three", "Zero", "One", "4", "Two"]
    assert table.item_attributes is not None
    kinds = table.item_attributes[:, :2]  # a and b; c is of one item
    np.testing.assert_allclose(kinds, [[1, 0], [0.5**0.5, 0.5**0.5], [0, 1], [0, 0], [1, 0]], atol=1e-6)
    price = table.item_attributes[:, 2:11]  # nine quantiles
    np.testing.assert_allclose(price.sum(axis=1), [1, 1, 1, 0, 0], atol=1e-6)
    assert not table.item_attributes[3].any()  # has no row
    notes = " ".join(table.notes)
    assert "kind (2 categories), price (numbers), since (dates) as attributes of items" in notes
    assert "none has two items): code" in notes
    assert "no row for 1 of 5 items" in notes
    assert table.user_attributes is None


def test_users_have_a_table_too_and_its_ids_may_be_called_id() -> None:
    table = read(users="users.csv")
    assert table.user_attributes is not None
    np.testing.assert_array_equal(table.user_attributes.sum(axis=1), 1)
    same = table.user_attributes @ table.user_attributes.T
    np.testing.assert_array_equal(same[0], [1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("code,kind\n1,a\n", "has no column of ids (item, movieId"),
        ("item,kind\n77,a\n78,b\n", "none of the 2 ids in item occurs among the ratings, such as '3'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(content: str, message: str) -> None:
    Path("other.csv").write_text(content)
    with pytest.raises(DataError) as error:
        read(items="other.csv")
    assert message in str(error.value)


def test_titles_are_what_is_written() -> None:
    Path("items.csv").write_text("item,name,year\n" + "".join(f"{i},{i:03},{2000 + i}\n" for i in range(5)))
    assert read(items="items.csv").titles == ["003", "000", "001", "004", "002"]
    Path("items.csv").write_text("item,title,year\n" + "".join(f"{i},2019-01-0{i + 1},1\n" for i in range(5)))
    assert read(items="items.csv").titles[0] == "2019-01-04"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_side_table_may_have_the_encoding_of_the_ratings_or_be_utf_8(encoding: str) -> None:
    Path("items.csv").write_text("item,name\n" + "".join(f"{i},Käse {i}\n" for i in range(5)), encoding=encoding)
    assert read(items="items.csv", encoding="cp1252").titles[0] == "Käse 3"
    if encoding == "cp1252":
        with pytest.raises(DataError, match="save it as UTF-8, or train with"):
            read(items="items.csv")


def test_values_of_a_side_table_that_cannot_be_read_are_counted() -> None:
    rows = [f"{i},{i + 0.5}\n" for i in range(300)]
    Path("items.csv").write_text("item,price\n" + "".join([*rows, "300,free\n", "301,none yet\n"]))
    notes = " ".join(read(items="items.csv").notes)
    assert "row 302: price is 'free'" in notes
    assert "2 such value(s) of price count as missing" in notes


def test_a_column_of_many_texts_takes_little_memory_and_is_left_out() -> None:
    rows = [(u, i, (u * i) % 5 + 1) for u in range(3) for i in range(3000)]
    pd.DataFrame(rows, columns=["user", "item", "rating"]).to_csv("r.csv", index=False)
    pd.DataFrame({"item": range(3000), "text": [f"t{i}" for i in range(3000)], "half": ["p", "q"] * 1500}).to_csv(
        "items.csv", index=False
    )
    table = read(items="items.csv")
    assert table.item_attributes is not None
    assert table.item_attributes.shape == (3000, 2)


def test_attributes_tell_of_items_without_ratings_and_a_changed_table_is_changed_data(dlrun: Dlrun, here: Path) -> None:
    """Each item has one rating or none in training; what counts is its kind."""
    random = np.random.RandomState(0)
    kind = random.randint(2, size=400)
    table = pd.DataFrame({"user": random.randint(20, size=400), "item": range(400), "rating": 2 + 2 * kind})
    table.to_csv("r.csv", index=False)
    pd.DataFrame({"item": range(400), "kind": np.where(kind, "good", "bad")}).to_csv("items.csv", index=False)
    words = ("task=collab", "data.path=r.csv", *QUICK)
    values = []
    for more in ((), ("data.items=items.csv",)):
        status, _, err = dlrun(*words, *more)
        assert status == 0, err
        values.append(json.loads((here / "runs" / "latest" / "summary.json").read_text())["metric"]["value"])
    assert values[1] < 0.7 * values[0]
    assert "already finished" in dlrun(*words, "data.items=items.csv")[1]
    (here / "items.csv").write_text((here / "items.csv").read_text().replace("good", "fine"))
    assert "the data changed" in dlrun(*words, "data.items=items.csv")[1]


def test_a_side_table_must_be_there(dlrun: Dlrun) -> None:
    ratings_table().to_csv("my.csv", index=False)
    status, _, err = dlrun("task=collab", "data.path=my.csv", "data.items=none.csv")
    assert status == 2
    assert "data.items: there is no file" in err
