"""Features of a frozen backbone: an interrupted pass is continued; the regression on them is the baseline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dlrunner.data.core.targets import Binary, MultiClass
from dlrunner.task import Batch, Split
from dlrunner.tasks.class_baselines import ClassBaselines
from dlrunner.tasks.image import baselines, features
from dlrunner.tasks.image.features import FeaturePass
from tests.conftest import QUICK, Dlrun
from tests.models.test_found_weights import hub, images, save  # noqa: F401

WORDS = ("task=image", "data.path=images", "data.size=32", "epochs=1", "batch_size=8", *QUICK)


@dataclass
class Loader:
    """23 images in batches of 2, whose features are their numbers; which batches are read is recorded."""

    start: int
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[Batch]:
        for index in range(self.start, 12):
            self.read.append(index)
            rows = torch.arange(2 * index, min(2 * index + 2, 23))
            yield Batch((rows[:, None].float(),), rows)


class StoppedError(Exception):
    """In place of a signal."""


class Pass:
    """A pass that can be stopped, and what it reads and says."""

    def __init__(self, path: Path) -> None:
        self.path, self.said, self.loaders = path, list[str](), list[Loader]()

    def run(self, stop_at: int | None = None) -> tuple[Any, list[str]]:
        def load(start: int) -> Loader:
            self.loaders.append(Loader(start))
            return self.loaders[-1]

        def compute(rows: Tensor) -> Tensor:
            if stop_at is not None and rows[0, 0] >= 2 * stop_at:
                raise StoppedError
            return rows * 10

        return FeaturePass(self.path, 23, 2, load, compute, self.said.append).run()


@pytest.fixture
def found(here: Path, monkeypatch: pytest.MonkeyPatch) -> Pass:
    """A pass whose parts are of three batches."""
    monkeypatch.setattr(features, "PART", 3)
    return Pass(here / "x.features")


def test_an_interrupted_pass_is_continued(found: Pass) -> None:
    with pytest.raises(StoppedError):
        found.run(stop_at=8)
    computed, notes = found.run()
    assert found.loaders[1].read == [6, 7, 8, 9, 10, 11]
    assert "12 of 23 images are computed already" in found.said[0]
    assert not notes
    np.testing.assert_array_equal(computed[:, 0], np.arange(23) * 10)
    assert [path.name for path in found.path.parent.glob("x.*")] == ["x.features"]


def test_a_damaged_part_is_computed_again_with_all_that_follow(found: Pass, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoppedError):
        found.run(stop_at=11)
    _, second, _ = sorted(found.path.with_suffix(".parts").iterdir())
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    computed, _ = found.run()
    assert found.loaders[1].read[0] == 3
    np.testing.assert_array_equal(computed[:, 0], np.arange(23) * 10)
    assert "is damaged" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_only_time(found: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "write_sealed", full)
    computed, notes = found.run()
    assert len(computed) == 23
    assert len(notes) == 1
    assert "No space left" in notes[0]


def baselines_of(here: Path) -> dict[str, dict[str, float]]:
    summary = json.loads((here / "runs" / "latest" / "summary.json").read_text())
    found: dict[str, dict[str, float]] = summary["baselines"]
    return found


@pytest.mark.usefixtures("images", "hub")
@pytest.mark.parametrize("words", [(), ("freeze_to=0",), ("data.test=0.2",), ("ensemble=2",)])
def test_images_have_a_regression_on_the_features_of_the_backbone_for_comparison(
    words: tuple[str, ...], dlrun: Dlrun, here: Path
) -> None:
    save("squeezenet1_1", here / "data" / "weights" / "squeezenet1_1.pt")
    status, out, err = dlrun(*WORDS, *words)
    assert status == 0, out + err
    constant, regression = baselines_of(here).values()
    assert list(baselines_of(here))[1] == baselines.FEATURES
    assert regression["valid/accuracy"] == 1
    assert constant["valid/accuracy"] < 1
    assert ("test/accuracy" in regression) == bool(words and "test" in words[0])


@pytest.mark.usefixtures("images", "hub")
def test_without_weights_the_regression_is_on_pixels(dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun(*WORDS, "model.backbone=squeezenet1_1")
    assert status == 0, out + err
    assert baselines_of(here)[baselines.PIXELS]["valid/accuracy"] == 1
    assert dlrun(*WORDS, "model.backbone=squeezenet1_1", "task.baseline=false")[0] == 0
    assert "baselines" not in json.loads((here / "runs" / "latest" / "summary.json").read_text())


def test_many_rows_columns_and_classes_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    target = MultiClass(["kind"], ["a", "b", "c"])
    rng = np.random.default_rng(0)
    given: dict[Split, Any] = {"train": rng.normal(3, 9, (5_000, 4)), "valid": rng.normal(3, 9, (10, 4))}
    inputs, rows = baselines._standardised(given.__getitem__, target)
    assert len(rows) == 5_000
    np.testing.assert_allclose(inputs("train").mean(axis=0), 0, atol=1e-6)
    monkeypatch.setattr(baselines, "MOST_PRODUCTS", 4 * 3 * 2_000)
    assert len(baselines._standardised(given.__getitem__, target)[1]) == 2_000


def test_the_regression_weights_the_classes_as_the_loss_does() -> None:
    rng = np.random.default_rng(0)
    truth = torch.from_numpy((rng.random(400) < 0.1).astype(np.float32))
    inputs = truth.numpy()[:, None] + rng.normal(0, 1, (400, 1))
    target = Binary(["kind"], ["a", "b"])
    targets: dict[Split, Tensor] = {"train": truth, "valid": truth}
    predicted = []
    for weights in (None, torch.tensor([1.0, 9.0])):
        simple = ClassBaselines(target, targets, target.metrics, weights)
        predicted.append(float((simple.logistic(lambda split: inputs, np.arange(400))("valid") > 0).float().mean()))
    assert predicted[0] < 0.1 < 0.2 < predicted[1]
