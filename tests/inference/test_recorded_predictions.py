"""The table of predictions.csv in Python has the names that were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dlrunner
from tests.conftest import QUICK, Dlrun

CLASSES = ["010", "NA", "None"]


def write_table(rows: int = 60) -> None:
    """Write a table whose ids and classes look like numbers and missing values."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({"nr": [f"{row:03}" for row in range(rows)], "kind": (CLASSES * rows)[:rows]})
    table["area"] = random.integers(10, 99, rows)
    table["words"] = [f"some text {area}" for area in table["area"]]
    table.to_csv("t.csv", index=False)


@pytest.mark.parametrize(
    "words",
    [
        ("task=tabular", "data.id=nr", "data.continuous=[area]", "data.categorical=[]", "model=linear"),
        ("task=text", "data.text=words", "data.min_freq=1"),
    ],
)
def test_recorded_predictions_keep_ids_and_names_of_classes(words: tuple[str, ...], here: Path, dlrun: Dlrun) -> None:
    write_table()
    status, out, err = dlrun(*words, "data.path=t.csv", "data.target=kind", "data.valid=0.3", "epochs=1", *QUICK)
    assert status == 0, out + err
    found = dlrunner.load("runs/latest").predictions
    assert set(found["kind"]) == set(CLASSES)
    assert set(found["prediction"]) <= set(CLASSES)
    assert found["p(NA)"].dtype == np.float64
    if "nr" in found:
        assert all(len(each) == 3 for each in found["nr"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("prediction", ("task=tabular", "data.id=nr", "data.continuous=[area]", "data.categorical=[]", "model=linear")),
        ("row", ("task=text", "data.text=words", "data.min_freq=1")),
    ],
)
def test_a_target_may_have_the_name_of_another_column(
    name: str, words: tuple[str, ...], here: Path, dlrun: Dlrun
) -> None:
    write_table()
    pd.read_csv("t.csv", dtype=str, keep_default_na=False).rename(columns={"kind": name}).to_csv("t.csv", index=False)
    status, out, err = dlrun(*words, "data.path=t.csv", f"data.target={name}", "data.valid=0.3", "epochs=1", *QUICK)
    assert status == 0, out + err
    found = dlrunner.load("runs/latest").predictions
    answers = "prediction_2" if name == "prediction" else "prediction"
    truth = "row_2" if name == "row" else name
    assert set(found[truth]) == set(CLASSES)
    assert set(found[answers]) <= set(CLASSES)


def test_recorded_classes_of_images_keep_their_names_at_every_rank(here: Path, dlrun: Dlrun) -> None:
    for code, name in enumerate(CLASSES):
        Path("pics", name).mkdir(parents=True)
        for row in range(6):
            Image.new("RGB", (32, 32), (90 * code, 20 * row, 0)).save(Path("pics", name, f"{row}.png"))
    words = ("task=image", "data.path=pics", "data.size=32", "model.backbone=squeezenet1_1", "model.weights=none")
    status, out, err = dlrun(*words, "data.valid=0.5", "epochs=1", "task.baseline=false", *QUICK)
    assert status == 0, out + err
    found = dlrunner.load("runs/latest").predictions
    assert set(found["folder"]) <= set(CLASSES)
    for column in ("prediction", "prediction_2", "prediction_3"):
        assert set(found[column]) <= set(CLASSES)
    assert found["p_2"].dtype == np.float64


def test_recorded_predictions_with_tta_are_those_of_predict(here: Path, dlrun: Dlrun) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        Path("pics", name).mkdir(parents=True)
        for row in range(8):
            Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(Path("pics", name, f"{row}.png"))
    words = ("task=image", "data.path=pics", "data.size=32", "model.backbone=squeezenet1_1", "model.weights=none")
    views = ("task.tta=2", "task.rotate=45", "task.brightness=0.9", "task.contrast=0.9", "task.baseline=false")
    lessons = ("data.valid=0.5", "epochs=3", "batch_size=4", "optim.lr=1e-3")
    status, out, err = dlrun(*words, *views, *lessons, *QUICK)
    assert status == 0, out + err
    run = dlrunner.load("runs/latest")
    recorded = run.predictions
    files = [Path("pics", name) for name in recorded["image"]]
    predicted = run.predict(files, top=2)
    assert predicted["prediction"].tolist() == recorded["prediction"].tolist()
    assert np.abs(predicted["p_1"] - recorded["p_1"]).max() <= 1e-4
    assert recorded["p_1"].std() > 1e-3
