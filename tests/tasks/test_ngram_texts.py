"""Text classification by the default, linear model from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dlrunner.runs.checkpoints import load_weights_file, weights_digest
from tests.conftest import QUICK, Dlrun

ROWS = [("it was a great film", "good"), ("it was an awful film", "bad"), ("some story", "other")] * 30
WORDS = ("task=text", "data.path=r.csv", "data.text=review", "data.target=opinion")


@pytest.fixture
def reviews(here: Path) -> None:
    pd.DataFrame(ROWS, columns=["review", "opinion"]).to_csv("r.csv", index=False)


@pytest.mark.usefixtures("reviews")
def test_texts_are_classified_by_a_linear_model_and_predictions_are_explained(dlrun: Dlrun) -> None:
    status, out, err = dlrun(*WORDS, "log.report=false")
    assert status == 0, out + err
    found = json.loads(Path("runs/latest/summary.json").read_text())
    assert found["auto"] == {"batch_size": 16, "epochs": 20}
    assert found["final"]["valid/accuracy"] == 1
    status, out, err = dlrun("predict", "runs/latest", "it was great", "--words")
    assert status == 0, out + err
    assert "good" in out
    assert "great +" in out


def test_the_important_words_of_each_label_are_listed(dlrun: Dlrun, here: Path) -> None:
    rows = [("great film", 1, 1), ("awful film", 0, 1), ("great story", 1, 0), ("awful story", 0, 0)] * 20
    pd.DataFrame(rows, columns=["review", "good", "film"]).to_csv("r.csv", index=False)
    words = ("task=text", "data.path=r.csv", "data.text=review", "data.target=[good,film]", *QUICK)
    assert dlrun(*words)[0] == 0
    status, out, err = dlrun("predict", "runs/latest", "great film", "--words")
    assert status == 0, out + err
    assert "great film, label good: great +" in out
    assert "great film, label film: film +" in out
    out = dlrun("predict", "runs/latest", "awful story", "--words")[1]
    assert out.count("awful story, label ") == 1, "of the most likely label"


@pytest.mark.usefixtures("reviews")
def test_a_resumed_run_equals_an_unbroken_one(dlrun: Dlrun) -> None:
    words = (*WORDS, "schedule=constant", "task.baseline=false", *QUICK)
    assert dlrun(*words, "epochs=3", "runs_dir=unbroken")[0] == 0
    assert dlrun(*words, "epochs=2", "runs_dir=resumed")[0] == 0
    status, out, err = dlrun(*words, "epochs=3", "runs_dir=resumed")
    assert status == 0, out + err
    digests = {weights_digest(load_weights_file(Path(f"{f}/latest/last.pt"))["model"]) for f in ("unbroken", "resumed")}
    assert len(digests) == 1


@pytest.mark.usefixtures("reviews")
def test_an_encoder_needs_the_model_that_has_one(dlrun: Dlrun) -> None:
    status, out, err = dlrun(*WORDS, "model.encoder=runs/latest")
    assert status == 2, out
    assert "model.encoder is a setting of model=text_classifier: add that" in err


@pytest.mark.usefixtures("reviews")
def test_a_setting_of_another_model_of_the_task_is_named_with_it(dlrun: Dlrun) -> None:
    status, _, err = dlrun(*WORDS, "model.hidden=3")
    assert status == 2
    assert "model.hidden is a setting of model=text_classifier: add that" in err
    status, _, err = dlrun(*WORDS, "model.factors=3")  # of the models of ratings
    assert status == 2
    assert "unknown setting" in err


@pytest.mark.usefixtures("reviews")
def test_one_text_in_a_batch_is_enough_for_a_model_without_batch_norm(dlrun: Dlrun) -> None:
    status, _, err = dlrun(*WORDS, "batch_size=1", "epochs=1", *QUICK)
    assert status == 0, err
