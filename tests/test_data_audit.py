"""What makes a number flattering is planted, and found; where nothing is planted nothing is found."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dlrunner.audit_flags import Flag
from dlrunner.cli.compose import compose
from dlrunner.config.plan import plan
from dlrunner.data.images.dataset import ImageData
from dlrunner.data.ratings.dataset import RatingsData, RatingsTable
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data.texts.dataset import TextData
from dlrunner.data.texts.tokens import Tokens
from dlrunner.data.texts.vocabulary import Vocabulary
from dlrunner.data_audit import Digests, SplitStatistics, findings
from dlrunner.task import Task
from dlrunner.tasks.collab.task import Collab
from dlrunner.tasks.image.task import ImageClassification
from dlrunner.tasks.language.task import LanguageModeling
from dlrunner.tasks.tabular.task import Tabular
from dlrunner.tasks.text.task import TextClassification
from tests.conftest import QUICK, REPOSITORY, Dlrun, ratings_table

CPU = torch.device("cpu")


def digests(*values: int) -> Digests:
    return np.array(values, dtype=np.uint64)


def days(*values: str) -> Any:
    return np.array(values, dtype="datetime64[D]")


def told(evidence: SplitStatistics | None, reported: str = "valid/rmse", chosen_from: int = 1) -> list[str]:
    return [str(finding) for finding in findings(evidence, reported, chosen_from)]


def told_by(task: Task) -> list[str]:
    return told(task.split_statistics())


# What is found in evidence.

CLEAN: dict[str, Any] = {
    "rows": "rows",
    "digests": {"train": digests(1, 2, 3), "valid": digests(4, 5), "test": digests(6)},
    "times": {"train": days("2020-01-01", "2020-01-02", "2020-01-02"), "valid": days("2020-01-02", "2020-01-03")},
    "fitted": {"mean of x": (0.1 + 0.2, 0.3), "levels of c": (["a", "b"], ["a", "b"])},
}


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({}, None),
        (
            {"digests": {"train": digests(1, 2, 3), "valid": digests(3, 3, 4)}},
            "validation-rows-in-training: 2 of 3 validation rows are in training too",
        ),
        (
            {
                "digests": {"train": digests(1, 2, 3), "valid": digests(3, 4)},
                "counts": {"words": np.array([1, 399])},
                "rows": "texts",
            },
            "validation-rows-in-training: 1 of 2 validation texts are in training too, with 0.25% of the words",
        ),
        (
            {"digests": {"train": digests(1), "valid": digests(2), "test": digests(3, 1)}},
            "test-rows-in-training: 1 of 2 test rows are in training too",
        ),
        (
            {"digests": {"train": digests(1), "valid": digests(2), "test": digests(3, 2)}},
            "test-rows-in-validation: 1 of 2 test rows validate too",
        ),
        (
            {"times": {"train": days("2020-01-01", "2020-02-01"), "valid": days("2020-01-02", "2020-01-05")}},
            "future-rows-in-training: 1 of 2 training rows are later than the validation window "
            "(2020-01-02 to 2020-01-05)",
        ),
        (
            {"times": {"train": days("2020-01-01", "2020-01-03"), "valid": days("2020-01-02", "2020-01-05")}},
            "future-rows-in-training: 1 of 2 training rows are later than the earliest validation row "
            "(2020-01-02 to 2020-01-05)",
        ),
        (
            {"fitted": {"mean of x": (0.31, 0.3), "levels of c": (["a", "b"], ["a"]), "median of y": (1.0, 1.0)}},
            "statistics-fitted-on-validation: 2 of 3 statistics are not the training rows' own: "
            "mean of x 0.31, by training alone 0.3; levels of c, 1 of 2 not in training",
        ),
        (
            {"fitted": {"the vocabulary": (["b", "a"], ["a", "b"])}},
            "statistics-fitted-on-validation: 1 of 1 statistics are not the training rows' own: "
            "the vocabulary, in another order or number than by training alone",
        ),
        (
            {"num_of_test": 2},
            "validates-on-test: 2 of 2 validation rows are of the part that is kept for the test: "
            "choose nothing by them",
        ),
    ],
)
def test_what_is_planted_in_evidence_is_found_and_nothing_else(planted: dict[str, Any], said: str | None) -> None:
    assert told(SplitStatistics(**{**CLEAN, **planted})) == ([said] if said else [])


def test_the_best_of_several_epochs_is_flattering_where_its_own_rows_chose_it() -> None:
    said = "best-epoch-on-test: valid/rmse is that of the best of up to 9 epochs, chosen by the same rows"
    assert told(None, "valid/rmse", 9) == told(SplitStatistics(**CLEAN), "valid/rmse", 9) == [said]
    assert not told(None, "valid/rmse", 1)
    assert not told(None, "test/rmse", 9), "the test split took no part in the choice"


def test_the_documentation_tells_what_each_word_means() -> None:
    text = (REPOSITORY / "docs" / "claims.md").read_text()
    assert [flag for flag in typing.get_args(Flag) if f"`{flag}`" not in text] == []


# Tables.


def sales(num_rows: int = 60) -> pd.DataFrame:
    """Days in a row, one sale each; the last third of them validates."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "nr": np.arange(num_rows) + 1000,
            "day": pd.date_range("2020-01-01", periods=num_rows).strftime("%Y-%m-%d"),
            "shop": rng.choice(["a", "b"], num_rows),
            "area": rng.normal(50, 10, num_rows).round(3),
            "part": np.where(np.arange(num_rows) >= 2 * num_rows // 3, "valid", "train"),
            "y": rng.normal(size=num_rows).round(4),
        }
    )


SPLIT_BY_COLUMN: dict[str, Any] = {"split": "column", "valid_column": "part", "dates": []}


def table_task(table: pd.DataFrame, kind: type[Tabular] = Tabular, **settings: Any) -> Tabular:
    table.to_csv("sales.csv", index=False)
    data = TabularData(Path(), target="y", **{"path": "sales.csv", **SPLIT_BY_COLUMN, **settings})
    return kind(data, 8, 0, CPU)


@pytest.mark.parametrize("roles", [{}, {"categorical": ["shop"], "continuous": ["area"]}, {"id": "nr"}])
def test_a_row_of_a_table_that_stands_in_both_parts_is_found_whatever_its_number(roles: dict[str, Any]) -> None:
    table = sales()
    assert told_by(table_task(table, **roles)) == []
    twice = table.head(3).assign(nr=[1060, 1061, 1062], part="valid")
    found = told_by(table_task(pd.concat([table, twice]), **roles))
    assert found == ["validation-rows-in-training: 3 of 23 validation rows are in training too"]
    other_target = told_by(table_task(pd.concat([table, twice.assign(y=7.5)]), **roles))
    assert other_target == []


def test_later_rows_in_training_are_found_in_a_table_with_days() -> None:
    by_day: dict[str, Any] = {"date": "day", "dates": ["day"]}
    assert told_by(table_task(sales(), split="last_days", valid=20, valid_column=None, **by_day)) == []
    middle: dict[str, Any] = {
        "split": "dates",
        "valid_from": "2020-01-11",
        "valid_to": "2020-01-20",
        "valid_column": None,
    }
    found = told_by(table_task(sales(), **middle, **by_day))
    assert found == [
        "future-rows-in-training: 40 of 50 training rows are later than the validation window "
        "(2020-01-11 to 2020-01-20)"
    ]
    shuffled = told_by(table_task(sales(), split="random", valid_column=None, **by_day))
    assert shuffled[0].startswith("future-rows-in-training: ")
    assert "later than the earliest validation row" in shuffled[0]


class FittedOnAllRows(Tabular):
    @property
    def preparation(self) -> TabularPreprocessor:
        roles = self.table.roles
        return TabularPreprocessor.fit(self.table.frame, roles.categorical, roles.continuous)


def test_statistics_of_all_rows_are_found() -> None:
    table = sales()
    table.loc[59, "shop"] = "only here"
    assert told_by(table_task(table)) == []
    (found,) = told_by(table_task(table, FittedOnAllRows))
    assert found.startswith("statistics-fitted-on-validation: 4 of ")
    assert "levels of shop, 1 of 3 not in training" in found
    assert "median of area" in found


def test_columns_without_a_hash_are_no_obstacle() -> None:
    tags: Any = [["a", "b"]] * 60
    sales().assign(tags=tags).to_parquet("sales.parquet")
    roles: dict[str, Any] = {"path": "sales.parquet", "categorical": ["shop"], "continuous": ["area"]}
    assert told_by(table_task(sales(), **roles)) == []


def test_a_column_that_calls_validation_rows_test_is_believed() -> None:
    assert told_by(table_task(sales().replace({"part": {"valid": "test"}}))) == [
        "validates-on-test: 20 of 20 validation rows are of the part that is kept for the test: choose nothing by them"
    ]


# Ratings.


READ = RatingsData.read


def ratings_task(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Collab:
    ratings_table().assign(timestamp=np.arange(1500) * 86400.0).to_csv("r.csv", index=False)
    table = READ(RatingsData(Path(), path="r.csv", split="time"))
    planted = RatingsTable(**{**vars(table), **changes})
    monkeypatch.setattr(RatingsData, "read", lambda self: planted)
    return Collab(RatingsData(Path()), 64, 0, CPU)


def test_a_pair_that_is_rated_in_both_parts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    task = ratings_task(monkeypatch)
    assert told_by(task) == []
    users, items = task.table.users.copy(), task.table.items.copy()
    users[-2:], items[-2:] = users[:2], items[:2]
    assert told_by(ratings_task(monkeypatch, users=users, items=items)) == [
        "validation-rows-in-training: 2 of 300 validation ratings are in training too"
    ]


def test_ratings_split_at_random_are_no_forecast_and_a_publishers_test_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    valid = np.arange(1500) % 5 == 1
    found = told_by(ratings_task(monkeypatch, valid=valid, of_test=valid))
    assert found == [
        "future-rows-in-training: 1,199 of 1,200 training ratings are later than the earliest validation row, "
        "3 later than the latest (1970-01-02 to 1974-02-05)",
        "validates-on-test: 300 of 300 validation ratings are of the part that is kept for the test: "
        "choose nothing by them",
    ]
    assert told_by(ratings_task(monkeypatch, valid=valid, times=None)) == []


# Texts.


def texts(num_rows: int = 40) -> pd.DataFrame:
    """The last quarter validates; each text has a word of its own, which no other knows."""
    rows = np.arange(num_rows)
    words = [" ".join(["the film was", "good" if row % 2 else "bad", f"w{row}"]) for row in rows]
    part = np.where(rows >= 3 * num_rows // 4, "valid", "train")
    return pd.DataFrame({"text": words, "kind": np.where(rows % 2, "good", "bad"), "part": part})


def text_task(table: pd.DataFrame, **settings: Any) -> TextClassification:
    table.to_csv("t.csv", index=False)
    given = {"text": "text", "target": "kind", "split": "column", "valid_column": "part", "tokenizer": "whitespace"}
    return TextClassification(TextData(Path(), path="t.csv", labels=True, **{**given, **settings}), 4, 0, CPU)


def test_a_text_that_stands_in_both_parts_is_found() -> None:
    assert told_by(text_task(texts())) == [], "words that are not known tell texts apart all the same"
    twice = texts().head(2).assign(part="valid", text=lambda table: table["text"].str.upper())
    assert told_by(text_task(pd.concat([texts(), twice]))) == [
        "validation-rows-in-training: 2 of 12 validation texts are in training too"
    ]
    (found,) = told_by(text_task(texts().replace({"part": {"valid": "test"}})))
    assert found.startswith("validates-on-test: 10 of 10 validation texts")


def test_a_vocabulary_of_all_texts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.concat([texts(), pd.DataFrame({"text": ["new new", "x"], "kind": "bad", "part": "valid"})])
    assert told_by(text_task(table)) == []
    of = Vocabulary.of

    def of_all(tokens: Tokens, documents: Any, *rest: Any, **named: Any) -> Vocabulary:
        return of(tokens, np.ones_like(documents), *rest, **named)

    monkeypatch.setattr(Vocabulary, "of", of_all)
    assert told_by(text_task(table)) == [
        "statistics-fitted-on-validation: 1 of 1 statistics are not the training texts' own: "
        "the vocabulary, 1 of 6 not in training"
    ]


def test_a_language_model_is_told_texts_by_their_words_and_empty_lines_are_none(here: Path) -> None:
    lines = [f"this is line number {number} of them" for number in range(60)]
    for name, chosen in (("train", lines[:40]), ("valid", [*lines[40:], "", ""])):
        (here / f"{name}.txt").write_text("\n".join(["", *chosen]) + "\n")
    settings: dict[str, Any] = {
        "path": "train.txt",
        "valid_path": "valid.txt",
        "min_freq": 1,
        "tokenizer": "whitespace",
    }

    def task() -> LanguageModeling:
        return LanguageModeling(TextData(Path(), **settings), 2, 0, CPU, bptt=5, valid_batch_size=2)

    assert told_by(task()) == []
    (here / "valid.txt").write_text("\n".join(["", *lines[40:], lines[0], "", ""]))
    assert told_by(task()) == [
        "validation-rows-in-training: 1 of 21 validation texts are in training too, with 4.76% of the words"
    ]


def test_a_folder_named_test_that_validates_is_found_and_one_that_is_copied_too(here: Path) -> None:
    for row, text in enumerate(texts(24)["text"]):
        for part in ("train", "valid", "test"):
            place = here / "reviews" / part / ("pos" if row % 2 else "neg") / f"{row}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{text} {part}")

    def task() -> TextClassification:
        return TextClassification(TextData(Path(), path="reviews", labels=True, tokenizer="whitespace"), 4, 0, CPU)

    assert told_by(task()) == []
    for file in (here / "reviews" / "test").rglob("*3.txt"):  # 3, 13, 23
        file.write_text((here / "reviews" / "valid" / file.parent.name / file.name).read_text())
    (here / "reviews" / "test" / "neg" / "0.txt").write_text((here / "reviews" / "train" / "neg" / "0.txt").read_text())
    assert told_by(task()) == [
        "test-rows-in-training: 1 of 24 test texts are in training too",
        "test-rows-in-validation: 3 of 24 test texts validate too",
    ]
    (here / "reviews" / "valid").rename(here / "kept")
    assert [each for each in told_by(task()) if each.startswith("validates-on-test: 24 of 24 validation texts")]


# Pictures.


def test_a_picture_that_stands_in_both_parts_is_found(here: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("valid", 3)):
        for kind in ("cat", "dog"):
            (here / "pets" / part / kind).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(here / "pets" / part / kind / f"{number}.png")

    def task() -> ImageClassification:
        return ImageClassification(ImageData(Path(), path="pets", size=32), 4, 0, CPU)

    assert told_by(task()) == []
    copied = here / "pets" / "valid" / "dog" / "0.png"
    copied.write_bytes((here / "pets" / "train" / "cat" / "5.png").read_bytes())
    said = ["validation-rows-in-training: 1 of 6 validation pictures are in training too"]
    assert told_by(task()) == said
    assert told_by(task()) == said, "from the cache"
    (here / "pets" / "valid").rename(here / "pets" / "test")
    assert [each.partition(":")[0] for each in told_by(task())] == ["validation-rows-in-training", "validates-on-test"]


# What a run makes of it.


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs/latest/summary.json").read_text())
    return found


CLAIM = """\
# @package _global_
# dlrun experiment=own
defaults:
  - override /task: tabular
epochs: 3
data: {path: sales.csv, target: y, split: column, valid_column: part, dates: []}
claim: {metric: valid/rmse, value: 9, source: a test, flags: [averaged-over-batches, validates-on-test]}
"""


def test_a_run_says_what_flatters_it_and_its_claim_what_it_does_not_declare(dlrun: Dlrun, here: Path) -> None:
    table = sales().replace({"part": {"valid": "test"}})
    pd.concat([table, table.head(1).assign(part="test")]).to_csv("sales.csv", index=False)
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "own.yaml").write_text(CLAIM)
    status, out, err = dlrun("experiment=own", "trainer.early_stopping=2", "log.plots=false")
    assert status == 0, out + err
    found = {each["flag"]: each["message"] for each in summary()["audit"]}
    assert list(found) == ["validation-rows-in-training", "validates-on-test", "best-epoch-on-test"]
    claim = summary()["claim"]
    assert claim["flags"][0] == "averaged-over-batches"
    assert set(claim["flags"]) == {"averaged-over-batches", *found}
    assert claim["undeclared"] == ["validation-rows-in-training", "best-epoch-on-test"]
    html = Path("runs/latest/report.html").read_text()
    for flag, said in found.items():
        assert f"mind: {flag}: {said}" in out
        assert f"mind     {flag}\n" in out, "told once"
        assert f"mind     {flag}: {said}" in dlrun("show", "runs/latest")[1]
        assert f"<b>{flag}</b>: {said}" in html
    assert "validates-on-test, validation-rows-in-training (not declared by the claim)" in out
    assert "validation-rows-in-training (not declared by the claim)" in html
    # A finished run is judged again by its claim, with what was found in it.
    (here / "conf" / "experiment" / "own.yaml").write_text(CLAIM.replace("averaged-over-batches", "best-epoch-on-test"))
    assert "done already" in dlrun("experiment=own", "trainer.early_stopping=2", "log.plots=false")[1]
    assert summary()["claim"]["undeclared"] == ["validation-rows-in-training"]


def test_a_clean_run_has_nothing_to_mind(dlrun: Dlrun, ratings_csv: Path) -> None:
    status, out, err = dlrun("task=collab", "data.path=my.csv", "epochs=1", *QUICK)
    assert status == 0, out + err
    assert summary()["audit"] == []
    assert "mind" not in out


# The published data.


def flags_of(*words: str) -> tuple[dict[str, str], set[str]]:
    """Return what is found in the data of a request, and what its claim declares."""
    asked = plan(compose(list(words)))
    found = findings(asked.build_task(asked.build_data(), 0).split_statistics(), "valid/loss")
    return {each.flag: each.message for each in found}, set(asked.settings.claim.flags if asked.settings.claim else ())


@pytest.mark.data
@pytest.mark.usefixtures("real_data")
def test_published_recipes_declare_what_is_found_in_them() -> None:
    found, declared = flags_of("experiment=rossmann")
    assert found == {
        "future-rows-in-training": "277,141 of 805,939 training rows are later than the validation window "
        "(2014-08-01 to 2014-09-17)"
    }
    assert found.keys() <= declared
    assert flags_of("experiment=rossmann-honest") == ({}, set())
    for name in ("rossmann-best", "rossmann-sample", "rossmann-sample-long", "movielens-single", "movielens-net"):
        found, declared = flags_of(f"experiment={name}")
        assert list(found) == ["future-rows-in-training"], name
        assert found.keys() <= declared, name
    assert flags_of("task=movielens", "data.source=real", "data.split=time")[0] == {}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
def test_published_reviews_that_occur_twice_are_found() -> None:
    found, declared = flags_of("experiment=imdb-sentiment-lesson")
    assert found["validation-rows-in-training"] == "123 of 25,000 validation texts are in training too"
    assert set(found) <= declared
    for name in ("imdb-lm", "imdb-lm-lesson", "imdb-sentiment"):
        found, declared = flags_of(f"experiment={name}")
        assert set(found) == declared, name
