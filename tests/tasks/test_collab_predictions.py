"""Predictions from a user's own ratings: ids and numbers are read as those of training, bad rows have a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dlrunner
from dlrunner.errors import DataError
from dlrunner.inference.models import load_models
from dlrunner.runs.reader import FinishedRun
from dlrunner.tasks.collab.predictor import Codes, RatingPredictor
from tests.conftest import QUICK, Dlrun

USERS = ["7", "007", "NA", "None", "null", "1e01", "10", "guest", "9007199254740993", "12"]
ITEMS = ["1.1", "1.10", "0108775015", "108775015", "5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table with names and numbers of another country."""
    from dlrunner.cli import main

    folder = tmp_path_factory.mktemp("own")
    lines = []
    for u, user in enumerate(USERS):
        for i, item in enumerate(ITEMS):
            stars = f"{(3 * u + i) % 9 / 2 + 1:.1f}".replace(".", ",")
            lines.append(f"{user};{item};{stars}")
    (folder / "shop.csv").write_text("\n".join(["customer;product;stars", *lines]) + "\n")
    names = ("data.user=customer", "data.item=product", "data.rating=stars")
    words = ("task=collab", f"data.path={folder}/shop.csv", *names, "epochs=2", "batch_size=8", f"runs_dir={folder}")
    assert main([*words, *QUICK]) == 0
    return (folder / "latest").resolve()


@pytest.fixture(scope="module")
def predictor(trained: Path) -> RatingPredictor:
    _, state, models = load_models(FinishedRun.read(trained))
    return RatingPredictor(state, models)


def expected(predictor: RatingPredictor, pairs: list[tuple[str, str]]) -> list[float]:
    """Predict by the places of the ids in the training table."""
    users = np.array([USERS.index(user) for user, _ in pairs])
    items = np.array([ITEMS.index(item) for _, item in pairs])
    return [round(float(each), 4) for each in predictor.ensemble.pairs(users, items)]


def test_the_command_line_finds_every_id_as_it_is_written(
    trained: Path, predictor: RatingPredictor, dlrun: Dlrun, here: Path
) -> None:
    pairs = [(user, item) for user in USERS for item in ITEMS]
    Path("pairs.csv").write_text("product;customer\n" + "".join(f"{item};{user}\n" for user, item in pairs))
    status, _, err = dlrun("predict", str(trained), "pairs.csv", "--out", "answer.csv")
    assert (status, err[:4], err.count("\n")) == (0, "run ", 1)
    answer = pd.read_csv("answer.csv", dtype=str, keep_default_na=False)
    assert list(answer["customer"]) == [user for user, _ in pairs]
    assert list(answer["product"]) == [item for _, item in pairs]
    assert answer["prediction"].astype(float).tolist() == pytest.approx(expected(predictor, pairs), abs=1e-4)
    assert set(answer["note"]) == {""}


@pytest.mark.parametrize("kind", [int, np.int64, float, np.float32, str, object])
def test_an_id_is_found_in_every_type_that_python_gives_it(kind: Any, predictor: RatingPredictor) -> None:
    values: list[Any] = [7, "10", 12] if kind is object else [kind(7), kind(10), kind(12)]
    table = pd.DataFrame({"user": values, "item": ["1.1", "5", "1.10"]})
    answer = predictor.predict(table)
    assert answer["prediction"].tolist() == pytest.approx(
        expected(predictor, [("7", "1.1"), ("10", "5"), ("12", "1.10")]), abs=1e-4
    )
    assert set(answer["note"]) == {""}
    of_training = {name: each for name, each in predictor.state.items() if not name.startswith("held_out")}
    older = RatingPredictor(of_training, predictor.ensemble.trained)  # it would recommend validation rows
    pd.testing.assert_frame_equal(older.recommend(values[0]), older.recommend("7"))


def test_what_a_user_rated_is_not_recommended_even_if_it_validates(predictor: RatingPredictor) -> None:
    held_out = predictor.state["held_out_users"]
    assert len(held_out) == 10, "a fifth of 50 ratings"
    assert all(predictor.recommend(user).empty for user in USERS), "all have rated everything"


def test_other_spellings_are_unknown_ids(predictor: RatingPredictor) -> None:
    table = pd.DataFrame({"user": ["07", "na", "7.0"], "item": ["1.1", "1.100", "0005"]})
    unknown = "unknown user and item: mean rating"
    assert list(predictor.predict(table)["note"]) == ["unknown user: bias only", unknown, unknown]


def test_the_ids_of_old_and_published_data_are_numbers() -> None:
    codes = Codes([31, 1029, 7])
    for value in (1029, "1029", 1029.0, np.int32(1029), "1029.0", " 1029", "01029"):
        assert codes.get(value, -1) == 1
    assert codes.get("guest", -1) == codes.get(10290, -1) == -1


def test_a_file_with_whole_numbers_as_7_0_knows_the_user_7() -> None:
    codes = Codes(["7.0", "8.0"])
    assert [codes.get(each, -1) for each in (7, 8.0, "7.0", "7")] == [0, 1, 0, -1]


def test_a_row_without_an_id_has_a_reason_and_the_others_a_prediction(
    trained: Path, predictor: RatingPredictor, dlrun: Dlrun, here: Path
) -> None:
    Path("pairs.csv").write_text("user,item,note\n007,1.1,a\n,1.1,b\nNA,  ,c\nguest,5,d\n , ,e\n")
    status, out, _ = dlrun("predict", str(trained), "pairs.csv", "--out", "answer.csv")
    assert status == 1
    assert "3 of 5 rows cannot be read" in out
    answer = pd.read_csv("answer.csv", dtype=str, keep_default_na=False)
    known = expected(predictor, [("007", "1.1"), ("guest", "5")])
    assert answer["prediction"].tolist() == [str(known[0]), "", "", str(known[1]), ""]
    reasons = ["", "the user is missing", "the item is missing", "", "the user is missing; the item is missing"]
    assert list(answer["problem"]) == reasons
    assert list(answer["note"]) == ["a", "b", "c", "d", "e"]  # the table's own column
    result = predictor.predict(pd.DataFrame({"user": ["7", None, np.nan], "item": ["5", "5", "5"]}))
    assert result.attrs["num_bad"] == 2
    assert result["prediction"].isna().tolist() == [False, True, True]


def test_new_ratings_are_read_as_those_of_training(trained: Path, dlrun: Dlrun, here: Path) -> None:
    """The names and decimal commas of the training table, or the usual names and any format."""
    Path("shop.csv").write_text("product;stars\n0108775015;4,5\n1.10;1,0\n")
    Path("usual.csv").write_text("item,rating\n0108775015,4.5\n1.10,1.0\n")
    answers = []
    for name in ("shop.csv", "usual.csv"):
        status, _, err = dlrun("recommend", str(trained), "--ratings", name, "--out", f"best-{name}")
        assert (status, err[:4], err.count("\n")) == (0, "run ", 1)
        answers.append(Path(f"best-{name}").read_text())
    assert answers[0] == answers[1]
    best = pd.read_csv("best-shop.csv", dtype=str)
    assert set(best["item"]) == set(best["title"]) == {"1.1", "108775015", "5"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.1;good", "row 3: stars is 'good', which is not a number, decimal comma"),
        ("1.1;", "row 3: the rating is missing"),
        ("1.1;inf", "row 3: stars is 'inf', which is not a finite number"),
        ("1.1;9,0", "row 3: rating 9 is outside the range of this run, 1 to 5"),
    ],
)
def test_a_new_rating_that_cannot_be_read_is_named_and_the_others_are_used(
    text: str, message: str, trained: Path, dlrun: Dlrun, here: Path
) -> None:
    Path("mine.csv").write_text(f"product;stars\n5;4,5\n{text}\n1.10;1,0\n")
    Path("good.csv").write_text("product;stars\n5;4,5\n1.10;1,0\n")
    status, out, _ = dlrun("recommend", str(trained), "--ratings", "mine.csv", "--out", "mine-best.csv")
    assert status == 1
    assert message in " ".join(out.split())
    assert "1 of 3 rows are left out" in " ".join(out.split())
    assert dlrun("recommend", str(trained), "--ratings", "good.csv", "--out", "good-best.csv")[0] == 0
    best, of_good = pd.read_csv("mine-best.csv", dtype=str), pd.read_csv("good-best.csv", dtype=str)
    pd.testing.assert_frame_equal(best, of_good)
    Path("bad.csv").write_text(f"product;stars\n{text}\n")
    status, _, err = dlrun("recommend", str(trained), "--ratings", "bad.csv")
    assert status == 1
    assert "no other row is left" in err


def test_of_an_item_that_a_new_user_rated_twice_the_last_rating_counts(predictor: RatingPredictor) -> None:
    twice = predictor.recommend(ratings=pd.DataFrame({"item": ["5", "1.10", "5"], "rating": [1.0, 1.0, 4.5]}))
    once = predictor.recommend(ratings=pd.DataFrame({"item": ["1.10", "5"], "rating": [1.0, 4.5]}))
    pd.testing.assert_frame_equal(twice, once)
    assert "1 row(s) repeat an item" in twice.attrs["note"]


@pytest.mark.parametrize("value", [0.1, 0.7, 0.9])
def test_the_highest_and_the_lowest_rating_of_training_are_in_its_range(value: float, dlrun: Dlrun, here: Path) -> None:
    lines = [f"{user},{item},0.{(user + item) % 9 + 1}" for user in range(12) for item in range(12)]
    Path("r.csv").write_text("\n".join(["user,item,rating", *lines]) + "\n")
    assert dlrun("task=collab", "data.path=r.csv", "epochs=1", "batch_size=16", *QUICK)[0] == 0
    Path("mine.csv").write_text(f"item,rating\n3,{value}\n")
    status, out, err = dlrun("recommend", "runs/latest", "--ratings", "mine.csv")
    assert status == 0, out + err


def test_new_ratings_need_a_column_of_ratings(trained: Path, dlrun: Dlrun, here: Path) -> None:
    Path("mine.csv").write_text("item,value\n5,4.5\n")
    status, _, err = dlrun("recommend", str(trained), "--ratings", "mine.csv")
    assert status == 1
    assert "no column for the rating (stars, rating" in err


def test_an_item_without_training_ratings_is_similar_to_none(predictor: RatingPredictor) -> None:
    rated = predictor.state["rated_items"] != ITEMS.index("5")
    pairs = {name: predictor.state[name][rated] for name in ("rated_users", "rated_items", "ratings")}
    without = RatingPredictor({**predictor.state, **pairs}, predictor.ensemble.trained)
    assert set(without.similar("1.1")["item"]) == set(ITEMS) - {"1.1", "5"}


def test_similar_items_are_found_by_an_id_as_written(predictor: RatingPredictor) -> None:
    one, ten = predictor.similar("1.1"), predictor.similar("1.10")
    assert "most similar to 1.1 " in one.attrs["note"]
    assert "most similar to 1.10 " in ten.attrs["note"]
    assert "1.10" in set(one["item"])


def test_ratings_in_a_frame_may_be_numbers(predictor: RatingPredictor) -> None:
    as_text = predictor.recommend(ratings=pd.DataFrame({"product": ["5", "1.1"], "stars": ["4,5", "2"]}))
    as_numbers = predictor.recommend(ratings=pd.DataFrame({"item": [5, 1.1], "rating": [4.5, 2]}))
    pd.testing.assert_frame_equal(as_text, as_numbers)
    with pytest.raises(DataError, match="row 2: the rating is missing"):
        predictor.recommend(ratings=pd.DataFrame({"item": [5], "rating": [np.nan]}))


def test_the_predictions_of_a_run_have_the_ids_of_its_table(trained: Path) -> None:
    stored = dlrunner.load(trained).predictions
    assert len(stored) == 10
    assert set(stored["user"]) <= set(USERS)
    assert set(stored["item"]) == set(stored["title"]) <= set(ITEMS)
    assert stored["prediction"].dtype == np.float64
