"""The audit finds injected leaks of a split, and nothing in a clean one."""

from __future__ import annotations

import json
import re
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
from dlrunner.data_audit import Digests, SplitStatistics, audit
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


def findings(statistics: SplitStatistics | None, reported: str = "valid/rmse", num_epochs: int = 1) -> list[str]:
    return [f"{found.flag}: {found.message}" for found in audit(statistics, reported, num_epochs)]


def findings_of(task: Task) -> list[str]:
    return findings(task.split_statistics())


# Statistics.

CLEAN: dict[str, Any] = {
    "rows": "rows",
    "digests": {"train": digests(1, 2, 3), "valid": digests(4, 5), "test": digests(6)},
    "times": {"train": days("2020-01-01", "2020-01-02", "2020-01-02"), "valid": days("2020-01-02", "2020-01-03")},
    "fitted": {"mean of x": (0.1 + 0.2, 0.3), "categories of c": (["a", "b"], ["a", "b"])},
}


@pytest.mark.parametrize(
    ("injected", "expected"),
    [
        ({}, []),
        (
            {"digests": {"train": digests(1, 2, 3), "valid": digests(3, 3, 4)}},
            ["validation-rows-in-training: 2 of 3 validation rows"],
        ),
        (
            {
                "digests": {"train": digests(1, 2, 3), "valid": digests(3, 4)},
                "counts": {"words": np.array([1, 399])},
                "rows": "texts",
            },
            ["validation-rows-in-training: 1 of 2 validation texts", "0.25% of the words"],
        ),
        (
            {"digests": {"train": digests(1), "valid": digests(2), "test": digests(3, 1)}},
            ["test-rows-in-training: 1 of 2 test rows"],
        ),
        (
            {"digests": {"train": digests(1), "valid": digests(2), "test": digests(3, 2)}},
            ["test-rows-in-validation: 1 of 2 test rows"],
        ),
        (
            {"times": {"train": days("2020-01-01", "2020-02-01"), "valid": days("2020-01-02", "2020-01-05")}},
            ["future-rows-in-training: 1 of 2 training rows", "validation window (2020-01-02 to 2020-01-05)"],
        ),
        (
            {"times": {"train": days("2020-01-01", "2020-01-03"), "valid": days("2020-01-02", "2020-01-05")}},
            ["future-rows-in-training: 1 of 2 training rows", "first validation row (2020-01-02 to 2020-01-05)"],
        ),
        (
            {"fitted": {"mean of x": (0.31, 0.3), "categories of c": (["a", "b"], ["a"]), "median of y": (1.0, 1.0)}},
            [
                "statistics-fitted-on-validation: 2 of 3 statistics",
                "mean of x is 0.31, of the training set 0.3",
                "categories of c: 1 of 2 not in the training set",
            ],
        ),
        (
            {"fitted": {"the vocabulary": (["b", "a"], ["a", "b"])}},
            ["statistics-fitted-on-validation: 1 of 1 statistics", "the vocabulary: order"],
        ),
        (
            {"num_test_rows": 2},
            ["validates-on-test: 2 of 2 validation rows"],
        ),
    ],
)
def test_an_injected_leak_is_found_and_nothing_else(injected: dict[str, Any], expected: list[str]) -> None:
    found = findings(SplitStatistics(**{**CLEAN, **injected}))
    assert len(found) == bool(expected)
    for words in expected:
        assert words in found[0]


def test_selecting_the_best_epoch_is_reported_if_the_metric_is_of_the_same_rows() -> None:
    (found,) = findings(None, "valid/rmse", 9)
    assert found.startswith("best-epoch-on-test: valid/rmse is the best of up to 9 epochs")
    assert findings(SplitStatistics(**CLEAN), "valid/rmse", 9) == [found]
    assert not audit(None, "valid/rmse", 1)
    assert not audit(None, "test/rmse", 9), "the test set is not used for the selection"


def test_a_finding_says_what_to_do() -> None:
    times = {"train": days("2020-01-01", "2020-02-01"), "valid": days("2020-01-02", "2020-01-05")}
    (found,) = audit(SplitStatistics(**{**CLEAN, "times": times, "time_split": "last_days"}), "valid/rmse")
    assert str(found).endswith("use data.split=last_days for a forecast [future-rows-in-training]")


def test_the_documentation_explains_each_flag() -> None:
    text = (REPOSITORY / "docs" / "claims.md").read_text()
    assert [flag for flag in typing.get_args(Flag) if f"`{flag}`" not in text] == []


# Tables.


def sales(num_rows: int = 60) -> pd.DataFrame:
    """Return consecutive days with one sale each; the last third is for validation."""
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
def test_a_duplicate_row_of_a_table_is_found_whatever_its_id(roles: dict[str, Any]) -> None:
    table = sales()
    assert findings_of(table_task(table, **roles)) == []
    twice = table.head(3).assign(nr=[1060, 1061, 1062], part="valid")
    (found,) = findings_of(table_task(pd.concat([table, twice]), **roles))
    assert found.startswith("validation-rows-in-training: 3 of 23 validation rows")
    other_target = findings_of(table_task(pd.concat([table, twice.assign(y=7.5)]), **roles))
    assert other_target == []


def test_newer_training_rows_are_found_in_a_table_with_dates() -> None:
    by_day: dict[str, Any] = {"date": "day", "dates": ["day"]}
    assert findings_of(table_task(sales(), split="last_days", valid=20, valid_column=None, **by_day)) == []
    middle: dict[str, Any] = {
        "split": "dates",
        "valid_from": "2020-01-11",
        "valid_to": "2020-01-20",
        "valid_column": None,
    }
    (found,) = findings_of(table_task(sales(), **middle, **by_day))
    assert found.startswith("future-rows-in-training: 40 of 50 training rows")
    assert "validation window (2020-01-11 to 2020-01-20)" in found
    shuffled = findings_of(table_task(sales(), split="random", valid_column=None, **by_day))
    assert shuffled[0].startswith("future-rows-in-training: ")
    assert "newer than the first validation row" in shuffled[0]


class FittedOnAllRows(Tabular):
    @property
    def preparation(self) -> TabularPreprocessor:
        roles = self.table.roles
        return TabularPreprocessor.fit(self.table.frame, roles.categorical, roles.continuous)


def test_statistics_fitted_on_all_rows_are_found() -> None:
    table = sales()
    table.loc[59, "shop"] = "only here"
    assert findings_of(table_task(table)) == []
    (found,) = findings_of(table_task(table, FittedOnAllRows))
    assert found.startswith("statistics-fitted-on-validation: 4 of ")
    assert re.search("of shop: 1 of 3 not in the training set", found)
    assert "median of area" in found


def test_columns_of_unhashable_values_are_ignored() -> None:
    tags: Any = [["a", "b"]] * 60
    sales().assign(tags=tags).to_parquet("sales.parquet")
    roles: dict[str, Any] = {"path": "sales.parquet", "categorical": ["shop"], "continuous": ["area"]}
    assert findings_of(table_task(sales(), **roles)) == []


def test_a_split_column_that_names_validation_rows_test_is_reported() -> None:
    (found,) = findings_of(table_task(sales().replace({"part": {"valid": "test"}})))
    assert found.startswith("validates-on-test: 20 of 20 validation rows")


# Ratings.


READ = RatingsData.read


def ratings_task(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Collab:
    ratings_table().assign(timestamp=np.arange(1500) * 86400.0).to_csv("r.csv", index=False)
    table = READ(RatingsData(Path(), path="r.csv", split="time"))
    changed = RatingsTable(**{**vars(table), **changes})
    monkeypatch.setattr(RatingsData, "read", lambda self: changed)
    return Collab(RatingsData(Path()), 64, 0, CPU)


def test_a_duplicate_pair_of_user_and_item_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    task = ratings_task(monkeypatch)
    assert findings_of(task) == []
    users, items = task.table.users.copy(), task.table.items.copy()
    users[-2:], items[-2:] = users[:2], items[:2]
    (found,) = findings_of(ratings_task(monkeypatch, users=users, items=items))
    assert found.startswith("validation-rows-in-training: 2 of 300 validation ratings")


def test_a_random_split_of_ratings_and_a_publishers_test_set_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    days, valid = np.arange(1500), np.arange(1500) >= 1200
    times = 86400 * np.concatenate([days[days % 5 != 1], days[days % 5 == 1]])
    changes = {"split": valid.astype(np.int8), "times": times, "of_test": valid}
    future, on_test = findings_of(ratings_task(monkeypatch, **changes))
    assert future.startswith("future-rows-in-training: 1,199 of 1,200 training ratings")
    assert "3 newer than the last (1970-01-02 to 1974-02-05)" in future
    assert on_test.startswith("validates-on-test: 300 of 300 validation ratings")
    assert findings_of(ratings_task(monkeypatch, split=valid.astype(np.int8), times=None)) == []


# Texts.


def texts(num_rows: int = 40) -> pd.DataFrame:
    """Return a table whose last quarter is for validation; each text has a unique word."""
    rows = np.arange(num_rows)
    words = [" ".join(["the film was", "good" if row % 2 else "bad", f"w{row}"]) for row in rows]
    part = np.where(rows >= 3 * num_rows // 4, "valid", "train")
    return pd.DataFrame({"text": words, "kind": np.where(rows % 2, "good", "bad"), "part": part})


def text_task(table: pd.DataFrame, **settings: Any) -> TextClassification:
    table.to_csv("t.csv", index=False)
    given = {"text": "text", "target": "kind", "split": "column", "valid_column": "part", "tokenizer": "whitespace"}
    return TextClassification(TextData(Path(), path="t.csv", labels=True, **{**given, **settings}), 4, 0, CPU)


def test_a_duplicate_text_is_found() -> None:
    assert findings_of(text_task(texts())) == [], "texts that differ only in out-of-vocabulary words are different"
    twice = texts().head(2).assign(part="valid", text=lambda table: table["text"].str.upper())
    (found,) = findings_of(text_task(pd.concat([texts(), twice])))
    assert found.startswith("validation-rows-in-training: 2 of 12 validation texts")
    (found,) = findings_of(text_task(texts().replace({"part": {"valid": "test"}})))
    assert found.startswith("validates-on-test: 10 of 10 validation texts")


def test_a_vocabulary_built_from_all_texts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.concat([texts(), pd.DataFrame({"text": ["new new", "x"], "kind": "bad", "part": "valid"})])
    assert findings_of(text_task(table)) == []
    of = Vocabulary.of

    def of_all(tokens: Tokens, documents: Any, *rest: Any, **named: Any) -> Vocabulary:
        return of(tokens, np.ones_like(documents), *rest, **named)

    monkeypatch.setattr(Vocabulary, "of", of_all)
    (found,) = findings_of(text_task(table))
    assert found.startswith("statistics-fitted-on-validation: 1 of 1 statistics")
    assert "the vocabulary: 1 of 6 not in the training set" in found


def test_duplicate_texts_of_a_language_model_are_counted_in_words_and_empty_lines_are_ignored(here: Path) -> None:
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

    assert findings_of(task()) == []
    (here / "valid.txt").write_text("\n".join(["", *lines[40:], lines[0], "", ""]))
    (found,) = findings_of(task())
    assert found.startswith("validation-rows-in-training: 1 of 21 validation texts")
    assert "4.76% of the words" in found


def test_a_test_folder_used_for_validation_and_duplicates_in_it_are_found(here: Path) -> None:
    for row, text in enumerate(texts(24)["text"]):
        for part in ("train", "valid", "test"):
            file = here / "reviews" / part / ("pos" if row % 2 else "neg") / f"{row}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text} {part}")

    def task() -> TextClassification:
        return TextClassification(TextData(Path(), path="reviews", labels=True, tokenizer="whitespace"), 4, 0, CPU)

    assert findings_of(task()) == []
    for file in (here / "reviews" / "test").rglob("*3.txt"):  # 3, 13, 23
        file.write_text((here / "reviews" / "valid" / file.parent.name / file.name).read_text())
    (here / "reviews" / "test" / "neg" / "0.txt").write_text((here / "reviews" / "train" / "neg" / "0.txt").read_text())
    in_training, in_validation = findings_of(task())
    assert in_training.startswith("test-rows-in-training: 1 of 24 test texts")
    assert in_validation.startswith("test-rows-in-validation: 3 of 24 test texts")
    (here / "reviews" / "valid").rename(here / "kept")
    assert [each for each in findings_of(task()) if each.startswith("validates-on-test: 24 of 24 validation texts")]


# Images.


def test_a_duplicate_image_is_found(here: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("valid", 3)):
        for kind in ("cat", "dog"):
            (here / "pets" / part / kind).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(here / "pets" / part / kind / f"{number}.png")

    def task() -> ImageClassification:
        return ImageClassification(ImageData(Path(), path="pets", size=32), 4, 0, CPU, [])

    assert findings_of(task()) == []
    copied = here / "pets" / "valid" / "dog" / "0.png"
    copied.write_bytes((here / "pets" / "train" / "cat" / "5.png").read_bytes())
    (found,) = findings_of(task())
    assert found.startswith("validation-rows-in-training: 1 of 6 validation")
    assert findings_of(task()) == [found], "from the cache"
    (here / "pets" / "valid").rename(here / "pets" / "test")
    assert [each.partition(":")[0] for each in findings_of(task())] == [
        "validation-rows-in-training",
        "validates-on-test",
    ]


# Runs.


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


def test_a_run_warns_once_at_the_end_and_its_claim_lists_undeclared_findings(dlrun: Dlrun, here: Path) -> None:
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
    log = Path("runs/latest/run.log").read_text()
    shown = dlrun("show", "runs/latest")[1]
    for flag, message in found.items():
        assert out.count(f"[{flag}]") == out.count(f"warning: {message}; ") == 1
        assert log.index(f"WARNING {message}; ") < log.index("last row")
        assert f"warning: {message}; " in shown
        assert f"<b>{flag}</b>: {message}" in html
    assert out.index("warning: ") > out.index("valid/rmse"), "after training"
    assert "validates-on-test, validation-rows-in-training (not declared by the claim)" in out
    assert "validation-rows-in-training (not declared by the claim)" in html
    # The claim of a finished run is checked again, with the stored findings.
    (here / "conf" / "experiment" / "own.yaml").write_text(CLAIM.replace("averaged-over-batches", "best-epoch-on-test"))
    assert "already finished" in dlrun("experiment=own", "trainer.early_stopping=2", "log.plots=false")[1]
    assert summary()["claim"]["undeclared"] == ["validation-rows-in-training"]


def test_a_clean_run_has_no_warnings(dlrun: Dlrun, ratings_csv: Path) -> None:
    status, out, err = dlrun("task=collab", "data.path=my.csv", "epochs=1", *QUICK)
    assert status == 0, out + err
    assert summary()["audit"] == []
    assert "warning" not in out


# The published data.


def flags_of(*words: str) -> tuple[dict[str, str], set[str]]:
    """Return the findings of a configuration's data, and the flags that its claim declares."""
    checked = plan(compose(list(words)))
    found = audit(checked.build_task(checked.build_data(), 0).split_statistics(), "valid/loss")
    claim = checked.settings.claim
    return {each.flag: each.message for each in found}, set(claim.flags if claim else ())


# A million rows of sales are read; the same findings in few rows are tested above.
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
def test_published_experiments_declare_their_findings() -> None:
    found, declared = flags_of("experiment=rossmann")
    assert list(found) == ["future-rows-in-training", "statistics-fitted-on-validation"]
    assert found["future-rows-in-training"].startswith("277,141 of 805,939 training rows")
    assert "validation window (2014-08-01 to 2014-09-17)" in found["future-rows-in-training"]
    assert found.keys() <= declared
    assert flags_of("experiment=rossmann-honest") == ({}, set())
    for name in ("rossmann-best", "rossmann-sample", "rossmann-sample-long", "movielens-single", "movielens-net"):
        found, declared = flags_of(f"experiment={name}")
        assert list(found) == ["future-rows-in-training"], name
        assert found.keys() <= declared, name
    assert flags_of("task=movielens", "data.source=real", "data.split=time")[0] == {}


# All 50,000 reviews are tokenized; duplicates among a few texts are found in the tests above.
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
def test_duplicates_in_published_reviews_are_found() -> None:
    found, declared = flags_of("experiment=imdb-sentiment-lesson")
    assert found["validation-rows-in-training"].startswith("123 of 25,000 validation texts")
    assert set(found) <= declared
    for name in ("imdb-lm", "imdb-lm-lesson", "imdb-sentiment"):
        found, declared = flags_of(f"experiment={name}")
        assert set(found) == declared, name
