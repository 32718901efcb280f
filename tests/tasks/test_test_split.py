"""Rows that are evaluated once, after training: `data.test` for every task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import QUICK, Dlrun, flats, ratings_table

SMALL_TEXTS = ("model.embedding=8", "model.hidden=8", "model.layers=1", "epochs=1", "batch_size=16", "data.min_freq=1")
TASKS = {
    "ratings": ("task=collab", "data.path=ratings.csv", "epochs=1", "batch_size=256"),
    "ratings by time": ("task=collab", "data.path=ratings.csv", "epochs=1", "batch_size=256", "data.split=time"),
    "table": ("task=tabular", "data.path=flats.csv", "data.target=price", "epochs=1"),
    "sales": (
        "task=rossmann",
        "data.source=synthetic",
        "data.sample=800",
        "epochs=1",
        "data.split=random",
        "data.valid=0.2",
    ),
    "texts": (
        "task=text",
        "model=text_classifier",
        "data.path=texts.csv",
        "data.target=kind",
        "task.baseline=false",
        *SMALL_TEXTS,
    ),
    "language": (
        "task=lm",
        "data.path=texts.csv",
        "task.ngram=0",
        "task.bptt=10",
        "task.valid_batch_size=4",
        *SMALL_TEXTS,
    ),
    "images": ("task=image", "data.path=images", "data.size=32", "model.backbone=squeezenet1_1", "epochs=1"),
    "masks": (
        "task=segmentation",
        "data.source=synthetic",
        "data.sample=8",
        "data.sample_valid=4",
        "data.sample_test=4",
    ),
}


@pytest.fixture(autouse=True)
def data(here: Path) -> None:
    """Small data of every kind."""
    rng = np.random.default_rng(0)
    ratings_table().assign(timestamp=range(1500)).to_csv(here / "ratings.csv", index=False)
    flats(100).to_csv(here / "flats.csv", index=False)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 20, 12)) for _ in range(80)]
    pd.DataFrame({"text": texts, "kind": ["a", "b"] * 40}).to_csv(here / "texts.csv", index=False)
    for name in ("cat", "dog"):
        (here / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "images" / name / f"{index}.png")


@pytest.mark.parametrize("task", TASKS)
def test_test_rows_are_evaluated_once_after_training(task: str, dlrun: Dlrun, here: Path) -> None:
    words = (*TASKS[task], "epochs=1") if task == "masks" else TASKS[task]
    status, out, err = dlrun(*words, "data.test=0.25", *QUICK)
    assert status == 0, err
    summary = json.loads((here / "runs" / "latest" / "summary.json").read_text())
    assert any(count for name, count in summary["data"]["rows"].items() if name.startswith("test"))
    name = summary["metric"]["name"].replace("valid/", "test/")
    assert name in summary["final"]
    assert out.count("test set (evaluated once)") == 1


def test_weights_of_the_best_epoch_are_told_and_without_a_test_the_choice_is_too(dlrun: Dlrun, here: Path) -> None:
    words = (*TASKS["table"], "epochs=3", "trainer.keep=best", *QUICK)
    assert dlrun(*words)[0] == 0
    summary = json.loads((here / "runs" / "latest" / "summary.json").read_text())
    assert summary["weights"] == {"checkpoint": "best.pt", "epoch": summary["best"]["epoch"]}
    (finding,) = [each for each in summary["audit"] if each["flag"] == "best-epoch-on-test"]
    assert "data.test" in finding["advice"]
    assert dlrun(*words, "data.test=0.2")[0] == 0
    summary = json.loads((here / "runs" / "latest" / "summary.json").read_text())
    assert "best-epoch-on-test" not in [each["flag"] for each in summary["audit"]]
