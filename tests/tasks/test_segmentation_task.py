"""Segmentation from the command line: trained, reported, resumed, exported, and used on a folder."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dlrunner
from dlrunner.data.images.loaders import normalised
from dlrunner.data.segmentation.dataset import SegmentationData
from dlrunner.data.segmentation.masks import IGNORED, MaskClasses, resized
from dlrunner.data.segmentation.synthetic import write_synthetic_images
from dlrunner.errors import ConfigError, DataError
from dlrunner.metrics import MeanIoU, PixelAccuracy
from dlrunner.models.unet import SegmentationDims, UNet
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.schedules import Phase, constant
from dlrunner.tasks.segmentation.predictor import SegmentationPredictor, segment
from dlrunner.tasks.segmentation.task import Segmentation
from dlrunner.training.lr_finder import range_test
from tests.conftest import QUICK, Dlrun, start

SYNTHETIC = ("task=segmentation", "data.source=synthetic")
SHORT = (
    *(*SYNTHETIC, "data.size=32", "data.sample=24", "data.sample_valid=10", "epochs=1", "batch_size=6"),
    *("model.backbone=squeezenet1_1", "model.channels=32"),
)


PHASE = Phase(1, constant(1), (0.1,), 0, {})


def summary(run: str = "runs/latest") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "summary.json").read_text())
    return found


def task(**settings: Any) -> Segmentation:
    data = SegmentationData(Path("data"), source="synthetic", size=32, sample=24, sample_valid=10)
    return Segmentation(data, 6, 0, torch.device("cpu"), **settings)


# Trained on all synthetic images up to their best achievable score; images of one's own are learned quickly below.
@pytest.mark.slow
def test_shapes_are_found_almost_as_well_as_their_masks_are_right(dlrun: Dlrun) -> None:
    status, out, err = dlrun(*SYNTHETIC, *QUICK)
    assert status == 0, out + err
    found = summary()
    best = found["data"]["best_achievable"]
    assert best - 0.08 < found["metric"]["value"] <= best + 0.005
    assert 0.91 < found["final"]["valid/pixel_accuracy"] <= 0.955
    assert "best achievable" in out


def test_a_run_leaves_metrics_plots_and_masks(dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun(*SHORT)
    assert status == 0, out + err
    found = summary()
    assert found["metric"]["name"] == "valid/mean_iou"
    assert found["metric"]["higher_is_better"]
    assert found["final"]["valid/pixel_accuracy"] > 0
    assert found["baselines"]["background everywhere"]["valid/pixel_accuracy"] > 0.6
    drawn = {path.name for path in Path("runs/latest/plots").iterdir()}
    assert drawn == {"iou_by_class.svg", "losses.svg", "segmentation.png", "worst_images.png"}
    report = Path("runs/latest/report.html").read_text()
    for caption in (
        "Images, masks and predictions (validation)",
        "Images with the most wrong pixels (validation)",
        "Intersection over union by class (validation)",
    ):
        assert caption in report
    images = pd.read_csv("runs/latest/images.csv")
    assert images["pixel_accuracy"].is_monotonic_increasing
    assert images["pixel_accuracy"].mean() == pytest.approx(found["final"]["valid/pixel_accuracy"], abs=1e-6)
    assert not Path("runs/latest/predictions.csv").exists()

    (here / "some" / "deep").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in (("a.png", (50, 40)), ("deep/b.jpg", (33, 91))):
        pixels = random.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(here / "some" / name)
    (here / "some" / "bad.png").write_bytes(b"no image")
    status, out, err = dlrun("predict", "runs/latest", "some", "--out", "answer.csv")
    assert status == 1, err
    assert "masks written to some-masks: 2" in out + err
    assert "1 of 3 rows cannot be read" in out + err
    answer = pd.read_csv("answer.csv")
    assert list(answer.columns) == ["image", "mask", "background", "disc", "rectangle", "triangle", "problem"]
    assert answer["image"].tolist() == ["a.png", "bad.png", "deep/b.jpg"]
    assert answer["problem"].notna().tolist() == [False, True, False]
    assert answer.iloc[1, 1:6].isna().all()
    answer = answer.drop(index=1).drop(columns="problem").reset_index(drop=True)
    np.testing.assert_allclose(answer.iloc[:, 2:].sum(axis=1), 1, atol=2e-4)
    for row, name in enumerate(("a.png", "deep/b.png")):
        with Image.open(here / "some-masks" / name) as mask:
            assert mask.mode == "P"
            assert mask.size == ((40, 50), (91, 33))[row]
            values = np.asarray(mask)
        assert np.bincount(values.ravel(), minlength=4)[2] / values.size == pytest.approx(
            answer["rectangle"][row], abs=1e-4
        )
    predictor = dlrunner.load("runs/latest")
    again = predictor.predict([here / "some" / "a.png", here / "some" / "deep" / "b.jpg"])
    np.testing.assert_allclose(again.iloc[:, 2:].to_numpy(float), answer.iloc[:, 2:].to_numpy(float))
    status, out, err = dlrun("predict", "runs/latest", "some/a.png", "--masks", "elsewhere")
    assert status == 0, err
    assert (here / "elsewhere" / "a.png").exists()
    assert dlrun("predict", "runs/latest", "nowhere")[0] == 2


def test_an_ensemble_averages_the_scores_of_each_pixel(dlrun: Dlrun) -> None:
    status, out, err = dlrun(*SHORT, "log.plots=false", "log.report=false", "ensemble=2")
    assert status == 0, out + err
    images, found = pd.read_csv("runs/latest/images.csv"), summary()
    assert len(found["members"]["seeds"]) == 2
    assert images["pixel_accuracy"].mean() == pytest.approx(found["final"]["valid/pixel_accuracy"], abs=1e-6)


def test_a_mask_replaces_no_image_and_stays_in_its_folder(here: Path) -> None:
    model = UNet(SegmentationDims(2), Path("data"), backbone="squeezenet1_1", channels=32).eval()
    predictor = SegmentationPredictor(
        {"classes": MaskClasses(["mask", "b"], [0, 1]).state(), "size": [32, 32]}, [model]
    )
    image = Image.fromarray(np.zeros((40, 50, 3), np.uint8))
    for name in ("some/a.png", "some/deep/a.png", "twice/a.png", "twice/a.jpg"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(here / name)
    before = (here / "some" / "a.png").read_bytes()
    for given, message in (
        (here / "some", "would replace an image"),
        ([here / "some" / "a.png"], "would replace an image"),
    ):
        with pytest.raises(DataError, match=message):
            predictor.predict(given, masks=here / "some")
    assert (here / "some" / "a.png").read_bytes() == before
    with pytest.raises(DataError, match=r"would both be a\.png"):
        predictor.predict("twice")
    answer = predictor.predict([here / "some" / "a.png", here / "some" / "deep" / "a.png"], masks=Path("both"))
    assert answer["mask"].tolist() == ["both/a.png", "both/deep/a.png"]
    with zipfile.ZipFile(here / "out.zip", "w") as archive:
        archive.writestr("/a.png", before)
    with pytest.raises(DataError, match="leads out of the folder"):
        predictor.predict("out.zip")
    assert not (here / "out-masks").exists()
    with pytest.raises(ConfigError, match="there is no file"):
        predictor.predict("nowhere.png")
    table = predictor.predict([image.convert("L"), "some/a.png"], masks=Path("masks"))
    assert list(table.columns) == ["image", "mask", "mask_2", "b"]
    assert list(table["mask"]) == ["masks/image 1.png", "masks/a.png"]
    with Image.open("masks/image 1.png") as mask:
        assert mask.size == (50, 40)


def test_a_request_is_answered_with_the_masks_of_its_images(here: Path) -> None:
    model = UNet(SegmentationDims(2), Path("data"), backbone="squeezenet1_1", channels=32).eval()
    predictor = SegmentationPredictor({"classes": MaskClasses(["a", "b"], [0, 1]).state(), "size": [32, 32]}, [model])
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("a.png")
    expected = predictor.predict("a.png", masks=Path("masks"))
    encoded = [base64.b64encode(content).decode() for content in (Path("a.png").read_bytes(), b"no image")]
    answer = predictor.predict_request(pd.DataFrame({"image": [*encoded, "§"]}))
    assert base64.b64decode(answer["mask"][0]) == Path("masks/a.png").read_bytes()
    assert answer["a"].tolist()[0] == expected["a"].tolist()[0]
    assert answer["problem"].notna().tolist() == [False, True, True]


def test_an_exported_run_predicts_the_same_and_has_a_graph(dlrun: Dlrun, here: Path) -> None:
    assert dlrun(*SHORT, *QUICK)[0] == 0
    archive, _ = write_synthetic_images(Path(os.environ["DLRUNNER_CACHE"]) / "synthetic")
    with zipfile.ZipFile(archive) as opened:
        images = [name for name in opened.namelist() if name.startswith("images/")][:8]
        opened.extractall(here / "some", images)
    pytest.importorskip("onnxruntime")
    status, out, err = dlrun("export", "runs/latest", "--onnx")
    assert status == 0, out + err
    assert Path("runs/latest/export/model.onnx").exists()
    answers = []
    for folder in ("runs/latest", "runs/latest/export"):
        status, out, err = dlrun("predict", folder, "some", "--out", "answer.csv", "--masks", "masks")
        assert status == 0, err
        answers.append(Path("answer.csv").read_text())
    assert answers[0] == answers[1]


def test_own_images_that_are_no_squares_are_learned_from_two_folders(dlrun: Dlrun, here: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(12):
        mask = np.zeros((40, 60), np.uint8)
        top, left = random.integers(0, 20), random.integers(0, 30)
        mask[top : top + 18, left : left + 25] = 255
        pixels = np.clip(mask[..., None] * 0.5 + 60 + random.normal(0, 15, (40, 60, 3)), 0, 255).astype(np.uint8)
        for folder, image in (("images", pixels), ("masks", mask)):
            (here / "cells" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(here / "cells" / folder / f"{number}.png")
    words = ("task=segmentation", "data.path=cells", "data.size=[32,48]", "epochs=12", "batch_size=4", *QUICK)
    status, out, err = dlrun(*words, "model.channels=32", "model.backbone=squeezenet1_1", "optim.lr=3e-3")
    assert status == 0, out + err
    assert "masks contain only 0 and 255: two classes" in out
    assert summary()["final"]["valid/mean_iou"] > 0.7
    assert dlrun("predict", "runs/latest", "cells/images")[0] == 0
    with Image.open(here / "images-masks" / "0.png") as written:
        assert written.size == (60, 40)
        assert set(np.unique(np.asarray(written)).tolist()) <= {0, 255}


def test_a_killed_run_goes_on_bit_for_bit(here: Path) -> None:
    words = (*SHORT, *QUICK, "epochs=3", "trainer.checkpoint_minutes=1e-9")
    cache = os.environ["DLRUNNER_CACHE"]
    whole = start(*words, "runs_dir=whole", cwd=here, DLRUNNER_CACHE=cache)
    whole.communicate()
    stopped = start(*words, "runs_dir=stopped", cwd=here, DLRUNNER_CACHE=cache)
    deadline = time.monotonic() + 60
    while not list(here.glob("stopped/segmentation/*/last.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGKILL)
    assert stopped.communicate()
    assert stopped.returncode == -9
    again = start(*words, "runs_dir=stopped", cwd=here, DLRUNNER_CACHE=cache)
    out, _ = again.communicate()
    assert "resuming after epoch" in out
    assert whole.returncode == again.returncode == 0
    one, other = (load_weights_file(Path(folder, "latest", "last.pt"))["model"] for folder in ("whole", "stopped"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)


def test_the_loss_and_the_metrics_do_not_depend_on_the_batches() -> None:
    """Images have different numbers of pixels that count; one has none."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 4, 8, 8, generator=generator)
    targets = torch.randint(0, 4, (6, 8, 8), generator=generator)
    targets[torch.rand(6, 8, 8, generator=generator) < torch.arange(6)[:, None, None] / 5] = IGNORED
    found = task()
    whole = found.loss(outputs, targets)
    parts = [found.loss(o, t) * len(t) for o, t in zip(torch.split(outputs, 4), torch.split(targets, 4), strict=True)]
    torch.testing.assert_close(whole, torch.stack(parts).sum() / 6)
    by_hand = [
        torch.nn.functional.cross_entropy(o[None], t[None], ignore_index=IGNORED)
        for o, t in zip(outputs[:5], targets[:5], strict=True)
    ]
    torch.testing.assert_close(whole, torch.stack(by_hand).sum() / 6)

    for metric in (lambda: MeanIoU(4, IGNORED), lambda: PixelAccuracy(IGNORED)):
        at_once, in_parts = metric(), metric()
        at_once.update(outputs, targets)
        for o, t in zip(torch.split(outputs, 1), torch.split(targets, 1), strict=True):
            in_parts.update(o, t)
        assert at_once.compute() == in_parts.compute()


def test_the_baseline_is_what_its_metrics_say() -> None:
    found = task()
    metrics = found.metrics()
    for batch in found.batches("valid", 0, PHASE):
        everywhere = torch.zeros(len(batch.targets), 4, *batch.targets.shape[1:])
        everywhere[:, 0] = 1
        for metric in metrics.values():
            metric.update(everywhere, batch.targets)
    (baseline,) = found.baselines().values()
    assert baseline == {f"valid/{name}": pytest.approx(metric.compute()) for name, metric in metrics.items()}


def test_phases_may_begin_with_smaller_images() -> None:
    found = task(augment=False)
    (first, *_) = found.batches("valid", 0, PHASE)
    assert first.targets.shape[1:] == (32, 32)
    data = SegmentationData(Path("data"), source="synthetic", sample=24, sample_valid=10)
    larger = Segmentation(data, 6, 0, torch.device("cpu"))
    smaller = Phase(1, constant(1), (0.1,), 0, {"scale": 0.5})
    (first, *_) = larger.batches("train", 0, smaller)
    assert first.inputs[0].shape[2:] == first.targets.shape[1:] == (32, 32)
    assert larger.state(smaller)["size"] == [32, 32]
    assert larger.state(PHASE)["size"] == [64, 64]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("epochs=null", "phases=[{epochs: 1, task: {size: 64}}]"), "phases[0].task.size: is not a setting of a phase"),
        (
            ("epochs=null", "phases=[{epochs: 1, task: {scale: 2}}]"),
            "phases[0].task.scale: must be less than or equal to 1, not 2",
        ),
        (
            ("epochs=null", "phases=[{epochs: 1, task: {augment: 1}}]"),
            "phases[0].task.augment: must be a boolean, not 1",
        ),
        (("batch_size=1",), "batch norm needs two training images"),
        (("data.path=x",), "synthetic data has no path"),
        (("optim.lr=[1e-3,1e-2]",), "2 rates for 3 layer group(s) (lower encoder, upper encoder, decoder)"),
    ],
)
def test_what_does_not_fit_is_refused(dlrun: Dlrun, words: tuple[str, ...], message: str) -> None:
    status, out, err = dlrun(*(word for word in SHORT if word.split("=")[0] != words[0].split("=")[0]), *QUICK, *words)
    assert status == 2, out + err
    assert message in err


def test_a_classifier_of_images_does_not_fit(dlrun: Dlrun) -> None:
    status, _, err = dlrun(*SYNTHETIC, "model=image_classifier")
    assert status == 2
    assert "it takes ImageDims, the task provides SegmentationDims" in err


def test_a_rate_is_suggested(dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.execution.auto_settings.range_test", partial(range_test, num_steps=40))
    status, out, err = dlrun("lr-find", *SHORT)
    assert status == 0, out + err
    assert "40 steps, " in out or " steps, stopped when the loss diverged" in out


@pytest.mark.parametrize("decoded", [(32, 48), (64, 96)])
def test_a_large_image_is_scaled_back_class_by_class_as_all_at_once(decoded: tuple[int, int]) -> None:
    """It is scaled down as the training images were: to data.size, then by task.scale."""
    torch.manual_seed(0)
    model = UNet(SegmentationDims(3), Path("data"), backbone="squeezenet1_1", channels=32).eval()
    state = {"classes": MaskClasses(["a", "b", "c"], [0, 1, 2]).state(), "size": [32, 48], "decoded": decoded}
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).resize((75, 41))
    codes = segment(state, [model], image)
    assert codes.shape == (41, 75)
    with torch.inference_mode():
        scores = model(normalised(torch.from_numpy(resized(image, decoded))[None], (32, 48)))
        whole = torch.nn.functional.interpolate(scores, (41, 75), mode="bilinear", align_corners=False)
    np.testing.assert_array_equal(codes, whole.argmax(dim=1)[0].numpy())
