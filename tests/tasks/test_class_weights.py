"""Class weights: rare classes count more in training, and are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.data.core.targets import Binary, MultiClass, MultiLabel
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.errors import ConfigError
from dlrunner.tasks.classification import absent_classes, weighted_loss, weights_of
from dlrunner.tasks.tabular.task import Tabular
from tests.conftest import QUICK, Dlrun
from tests.small_runs import PICTURE_NET, PICTURES, SORTING


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    codes = np.array([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=codes)
    np.testing.assert_allclose(weights_of("balanced", MultiClass(["y"], ["a", "b", "c"]), codes), expected, rtol=1e-6)


def test_weights_by_class_have_a_mean_of_1_over_the_rows() -> None:
    codes = np.array([0, 0, 0, 1])
    weights = weights_of({"spam": 5}, Binary(["y"], ["ham", "spam"]), codes)
    np.testing.assert_allclose(weights, [4 / 8, 20 / 8])
    numbers = weights_of({0: 2, True: 3.0}, Binary(["y"], [0, "True"]), codes)
    np.testing.assert_allclose(numbers[1] / numbers[0], 1.5)


def test_weighted_losses_of_two_logits_and_of_one_agree() -> None:
    logits, targets = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    two = torch.stack([torch.zeros(3), logits], dim=1)
    weights = torch.tensor([0.5, 3.0])
    loss = weighted_loss(logits, targets, weights)
    torch.testing.assert_close(loss, weighted_loss(two, targets.long(), weights))
    torch.testing.assert_close(
        3 * loss, 3 * (1 + (-logits[:1]).exp()).log()[0] + 0.5 * (1 + logits[1:].exp()).log().sum()
    )


@pytest.mark.parametrize(
    ("weights", "target", "message"),
    [
        ({"spam": 2}, MultiClass(["y"], ["a", "b"]), "spam is not a class; the classes are a, b"),
        ("balanced", MultiLabel(["y"], ["a", "b"]), "one class per row, not for multilabel"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    weights: str | dict[str, float], target: MultiClass | MultiLabel, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        weights_of(weights, target, np.zeros(3, int))  # type: ignore[arg-type]


@pytest.fixture
def rare(here: Path) -> Path:
    """A class of one row in twelve, which overlaps with the other."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    y = np.where(x + rng.normal(size=600) > 2, "yes", "no")
    pd.DataFrame({"x": x, "y": y, "number": x}).to_csv("rare.csv", index=False)
    return here / "rare.csv"


RUN = ("task=tabular", "data.path=rare.csv", "data.continuous=[x]", "epochs=3", "model=linear", "optim.lr=.1")


@pytest.mark.usefixtures("rare")
def test_more_rows_of_a_rare_class_are_found_with_balanced_weights(dlrun: Dlrun) -> None:
    recalls = []
    for setting in ("null", "balanced", "{yes: 30}"):
        status, _, err = dlrun(*RUN, "data.target=y", f"task.class_weights={setting}", *QUICK)
        assert status == 0, err
        by_class = pd.read_csv("runs/latest/classes.csv")
        recalls.append(float(by_class["recall"][by_class["class"] == "yes"].iloc[0]))
    assert recalls[0] < 0.6 < recalls[1] <= recalls[2]


@pytest.mark.usefixtures("rare")
def test_wrong_class_weights_end_in_a_sentence(dlrun: Dlrun) -> None:
    for target, setting, message in (
        ("y", "{maybe: 2}", "maybe is not a class; the classes are no, yes"),
        ("y", "{yes: -1}", "task.class_weights"),
        ("y", "balance", "task.class_weights"),
        ("number", "balanced", "not for regression"),
    ):
        status, _, err = dlrun(*RUN, f"data.target={target}", f"task.class_weights={setting}", *QUICK)
        assert status == 2, err
        assert message in err
        assert "Traceback" not in err


def test_the_baselines_are_weighted_too(rare: Path) -> None:
    found = []
    settings: tuple[Literal["balanced"] | None, ...] = (None, "balanced")
    for setting in settings:
        data = TabularData(rare.parent, path=str(rare), target="y", continuous=["x"])
        task = Tabular(data, 32, 0, torch.device("cpu"), class_weights=setting, metrics=["f1"])
        found.append(task.baselines()["logistic regression"]["valid/f1"])
    assert found[0] != found[1]


@pytest.mark.parametrize("words", [PICTURES + PICTURE_NET, SORTING], ids=["images", "texts"])
def test_images_and_texts_are_weighted_by_class(words: tuple[str, ...], dlrun: Dlrun) -> None:
    losses = []
    for setting in ("null", "balanced"):
        status, _, err = dlrun(*words, f"task.class_weights={setting}", *QUICK)
        assert status == 0, err
        losses.append(json.loads(Path("runs/latest/metrics.jsonl").read_text().splitlines()[0])["train/loss"])
    assert losses[0] != losses[1]


def test_classes_and_labels_without_training_examples_are_named() -> None:
    many = MultiClass(["y"], [f"c{code}" for code in range(12)])
    assert absent_classes(Binary(["y"], ["no", "yes"]), np.array([0.0, 1.0])) == []
    assert absent_classes(Binary(["y"], [False, True]), np.zeros(3)) == [
        "no training example has the class True: it cannot be learned"
    ]
    assert "c1, c2, c3, c4, c5, c6, c7, c8 and 3 more" in absent_classes(many, np.zeros(2, dtype=int))[0]
    assert "the label b:" in absent_classes(MultiLabel(["y"], ["a", "b"]), np.array([[1, 0], [1, 0]]))[0]
