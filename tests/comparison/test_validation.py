"""Runs that validated on different rows, data or targets are never ranked together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlrunner.comparison.collect import gather, read_row
from dlrunner.comparison.groups import Comparison, compare
from dlrunner.data_audit import rows_digest
from tests.conftest import QUICK, Dlrun, ratings_table
from tests.fake_runs import write_run


def run(here: Path, value: float, settings: Mapping[str, Any], validation: str | None, sha256: str = "a" * 64) -> None:
    """Write a run with the digest of its validation rows, or without: of an older version."""
    data = {"name": "my.csv", "release": "own", "sha256": sha256, "validation": validation}
    name = f"{len(list((here / 'runs').glob('*'))):03}"
    write_run(here / "runs" / name, value, settings, data={k: v for k, v in data.items() if v})


def compared(**options: Any) -> Comparison:
    return compare(gather(["runs/*"])[0], **options)


def sets(found: Comparison) -> list[int]:
    return [group.validation_set for group in found.groups]


def test_runs_with_other_validation_rows_are_not_ranked_and_it_is_said_which_setting_differs(here: Path) -> None:
    run(here, 0.9, {"data.split_seed": 1}, "one")
    run(here, 0.8, {"data.split_seed": 2}, "two")
    found = compared()
    assert (sets(found), found.is_ranked, found.verdict) == ([0, 1], False, None)
    assert found.groups[0].estimate.mean == 0.9  # the second is not better: it is not comparable
    assert found.notes == (
        "these runs validated on 2 different sets of rows, each ranked by itself: they differ in "
        "data.split_seed (1: 1, 2: 1)",
    )


def test_each_set_is_ranked_alone(here: Path) -> None:
    for split_seed, values in ((1, (0.9, 0.7)), (2, (0.6, 0.8))):
        for optim, value in zip(("sgd", "adam"), values, strict=True):
            run(here, value, {"data.split_seed": split_seed, "optim": optim}, f"digest {split_seed}")
    found = compared()
    assert [(each.validation_set, each.estimate.mean) for each in found.groups] == [
        (0, 0.7),
        (0, 0.9),
        (1, 0.6),
        (1, 0.8),
    ]


def test_other_inputs_of_the_same_rows_are_ranked(here: Path) -> None:
    run(here, 0.9, {"data.categorical": ["a"]}, "one")
    run(here, 0.8, {"data.categorical": ["a", "b"]}, "one")
    found = compared()
    assert (sets(found), found.is_ranked, found.notes) == ([0, 0], True, ())


def test_older_runs_are_compared_by_their_settings_of_the_data_and_its_digest(here: Path) -> None:
    run(here, 0.9, {"optim": "sgd"}, None)
    run(here, 0.8, {"optim": "adam"}, None)
    assert compared().is_ranked
    run(here, 0.7, {"optim": "adamw", "data.categorical": ["a"]}, None)
    assert sets(compared()) == [0, 0, 1]
    run(here, 0.6, {"optim": "adam"}, "one")  # a new run with the settings of the first two
    assert compared().num_validation_sets == 2


def test_the_same_settings_on_another_file_are_another_set(here: Path) -> None:
    run(here, 0.9, {"seed": 0}, None)
    run(here, 0.8, {"seed": 1}, None, sha256="b" * 64)
    found = compared()
    assert [len(group.rows) for group in found.groups] == [1, 1]
    assert "data (my.csv own aaaaaaaa: 1, my.csv own bbbbbbbb: 1)" in found.notes[0]


def test_the_same_settings_with_other_targets_are_another_set(here: Path) -> None:
    run(here, 0.9, {"seed": 0}, "one")
    run(here, 0.8, {"seed": 1}, "two")
    found = compared()
    assert [len(group.rows) for group in found.groups] == [1, 1]
    assert "rows or targets, with the same settings of data" in found.notes[0]


def test_folds_are_one_set_whose_parts_are_compared_in_pairs(here: Path) -> None:
    for fold in (0, 1, 2):
        for optim, lead in (("sgd", 0.0), ("adam", 0.1)):
            run(here, 0.9 + fold / 7 - lead - fold / 900, {"data.fold": fold, "optim": optim}, f"fold {fold}")
        run(here, 0.7, {"data.fold": fold, "optim": "adamw", "data.categorical": ["a"]}, f"fold {fold}")
        run(here, 0.1, {"data.fold": fold, "optim": "sgd", "data.split_seed": 5}, f"other fold {fold}")
    found = compared()
    assert [(each.validation_set, each.estimate.n) for each in found.groups] == [(0, 3)] * 3 + [(1, 3)]


def test_an_average_over_several_splits_pairs_them(here: Path) -> None:
    for split_seed in (1, 2, 3):
        for optim, value in (("sgd", 0.9), ("adam", 0.8)):
            settings = {"data.split_seed": split_seed, "optim": optim}
            run(here, value + split_seed / 3 + split_seed**2 * value / 900, settings, f"digest {split_seed}")
    found = compared(by=["optim"])
    assert found.is_ranked
    assert found.verdict is not None
    assert (found.verdict.method, found.verdict.n, found.verdict.is_significant) == ("pairs", 3, True)


def test_a_digest_is_of_rows_and_targets_in_any_order() -> None:
    rows = pd.DataFrame({"row": [3, 1, 2], "target": [0.5, 0.25, 1.0]})
    digest = rows_digest(rows, "price")
    assert rows_digest(rows.iloc[::-1], "price") == digest
    others = [
        rows_digest(rows, "rent"),
        rows_digest(rows.assign(row=[3, 1, 4]), "price"),
        rows_digest(rows.assign(target=[0.5, 0.25, np.nextafter(1, 2)]), "price"),
        rows_digest(rows.head(2), "price"),
    ]
    assert len({digest, *others}) == 5


TABLE = ("task=tabular", "data.path=my.csv", "data.target=price", "task.baseline=false")
TEXT = (
    "task=text",
    "model=text_classifier",
    "data.path=texts.csv",
    "data.text=text",
    "data.target=label",
    "data.tokenizer=whitespace",
    "task.baseline=false",
)
SMALL = ("model.embedding=4", "model.hidden=4", "model.layers=1", "batch_size=4")
LANGUAGE = ("task=lm", "data.path=texts.csv", "data.text=text", "data.tokenizer=whitespace", "data.valid=0.3")


@pytest.mark.parametrize(
    ("words", "same", "other"),
    [
        ((*TABLE, "data.continuous=[b]"), "data.categorical=[a]", "data.split_seed=7"),
        (("task=collab", "data.path=ratings.csv"), "model=net", "data.valid=0.3"),
        ((*TEXT, *SMALL), "data.lower=false", "data.split_seed=7"),
        ((*LANGUAGE, *SMALL, "data.min_freq=1"), "model.hidden=5", "data.min_freq=3"),
    ],
    ids=["table", "ratings", "texts", "language"],
)
def test_a_run_records_its_validation_rows_and_targets_whatever_the_inputs(
    words: tuple[str, ...], same: str, other: str, dlrun: Dlrun, here: Path
) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("xyz"), 60), "b": rng.normal(size=60), "price": rng.normal(size=60)})
    frame.to_csv("my.csv", index=False)
    ratings_table().to_csv("ratings.csv", index=False)
    texts = [" ".join(rng.choice(["Good", "bad", "film", "plot", f"word{i % 20}"], 6)) for i in range(60)]
    pd.DataFrame({"text": texts, "label": rng.choice(["yes", "no"], 60)}).to_csv("texts.csv", index=False)
    found = []
    for more in ((), (same,), (other,)):
        status, out, err = dlrun(*words, *more, "epochs=1", *QUICK)
        assert status == 0, out + err
        found.append(read_row(Path("runs/latest")).validation)
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 16
