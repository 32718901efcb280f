"""The guide docs/adding-a-task.md works: its two files, copied into a folder, are a task that does all it says."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dlrunner
from dlrunner.models.vision.backbones import make_backbone
from tests.conftest import REPOSITORY, Dlrun

SHORT = ("task=blobs", "task.num_images=20", "epochs=1")


@pytest.fixture(autouse=True)
def guide(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copy what the guide shows, as its reader would."""
    text = (REPOSITORY / "docs" / "adding-a-task.md").read_text()
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (module,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (here / "conf" / "task").mkdir(parents=True)
    (here / "conf" / "task" / "blobs.yaml").write_text(yaml)
    (here / "blobs.py").write_text(module)
    monkeypatch.syspath_prepend(str(here))
    yield
    sys.modules.pop("blobs", None)


def test_it_learns_reports_and_draws(dlrun: Dlrun) -> None:
    status, out, err = dlrun("task=blobs")
    assert status == 0, out + err
    summary = json.loads(Path("runs/latest/summary.json").read_text())
    assert summary["metric"]["name"] == "valid/mean_iou"
    assert summary["metric"]["higher_is_better"]
    beaten = summary["baselines"]["background everywhere"]
    assert beaten["valid/pixel_accuracy"] + 0.02 < summary["final"]["valid/pixel_accuracy"] <= 0.96
    assert summary["metric"]["value"] > beaten["valid/mean_iou"] + 0.15
    assert Path("runs/latest/plots/image_mask_prediction.png").exists()
    assert "image_mask_prediction" in Path("runs/latest/report.html").read_text()
    assert "already finished" in dlrun("task=blobs")[1]


def test_a_trained_run_predicts_the_masks_of_a_folder(dlrun: Dlrun, here: Path) -> None:
    assert dlrun(*SHORT)[0] == 0
    (here / "some").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(here / "some" / "a.png")
    status, _, err = dlrun("predict", "runs/latest", "some")
    assert status == 2
    assert "--plugins blobs" in err
    status, _, err = dlrun("predict", "runs/latest", "some", "--plugins", "blobs", "--out", "answer.csv")
    assert status == 0, err
    answer = pd.read_csv("answer.csv")
    assert list(answer.columns) == ["image", "background", "disc", "square"]
    with Image.open(here / "masks" / "a.png") as mask:
        assert mask.size == (56, 40)
    again = dlrunner.load("runs/latest", plugins=["blobs"]).predict("some")
    pd.testing.assert_frame_equal(again, answer)


def test_the_encoder_may_be_pre_trained_and_frozen(dlrun: Dlrun, here: Path) -> None:
    torch.save(make_backbone("squeezenet1_1").state_dict(), here / "w.pt")
    phases = "phases=[{epochs: 1, freeze_to: -1}, {epochs: 1}]"
    status, out, err = dlrun(*SHORT[:2], "model.weights=w.pt", phases, "epochs=null")
    assert status == 0, out + err
    assert "randomly initialised" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task.wrong=2",), "task.wrong: must be less than 1"),
        (("task.num_image=9",), "did you mean num_images?"),
        (("model.width=9",), "unknown setting of blobs.SmallUNet"),
    ],
)
def test_its_settings_are_checked_like_those_of_the_package(dlrun: Dlrun, words: tuple[str, ...], message: str) -> None:
    status, _, err = dlrun(*SHORT, *words)
    assert status == 2
    assert message in err
