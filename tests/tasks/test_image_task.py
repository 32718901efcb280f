"""Image classification from the command line: training, resuming, prediction and explanation."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dlrunner
from dlrunner.data.core.batching import generator_of
from dlrunner.data.dogbreeds.dataset import DogBreedsData
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.images.loaders import ImageLoader
from dlrunner.models.image import ImageClassifier, ImageDims
from dlrunner.models.vision.backbones import make_backbone
from dlrunner.models.vision.fold_batch_norm import fold_batch_norm
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.schedules import Phase, constant
from dlrunner.task import Loader, Split
from dlrunner.tasks.image.grad_cam import grad_cam
from dlrunner.tasks.image.task import ImageClassification
from dlrunner.training import Trainer
from tests.conftest import QUICK, Dlrun, start

SYNTHETIC = ("task=dogbreeds", "data.source=synthetic", "data.size=32")
SHORT = (
    *SYNTHETIC,
    "data.sample=96",
    "data.sample_valid=32",
    "epochs=1",
    "batch_size=32",
    "model.backbone=squeezenet1_1",
)
ONCE = "freeze_to: -1, task: {precompute: true, augment: false}"
PHASE = Phase(1, constant(1), (1.0,))
CPU = torch.device("cpu")
FROZEN = ("freeze_to=-1", "task.augment=false", "task.precompute=true")


def summary(run: str = "runs/latest") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "summary.json").read_text())
    return found


def history(run: str = "runs/latest") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def own_cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache: no features from other tests."""
    monkeypatch.setenv("DLRUNNER_CACHE", str(here / "cache"))


def small_net(**settings: Any) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(ImageDims(8), Path("data"), **{"backbone": "resnet18", **settings})


# Trained on all synthetic images up to their best achievable score; quick tests learn labels and features.
@pytest.mark.slow
def test_synthetic_shapes_are_classified_close_to_the_best_achievable_accuracy(dlrun: Dlrun) -> None:
    words = ("epochs=8", "batch_size=16", "optim.lr=2e-3", "model.xtra_fc=[]", "model.dropout=0")
    plain = ("task.rotate=0", "task.zoom=1", "task.brightness=0", "task.contrast=0")
    status, out, err = dlrun(*SYNTHETIC, *words, *plain, *QUICK)
    assert status == 0, out + err
    found = summary()
    best = found["data"]["best_achievable"]
    assert best - 0.12 < found["metric"]["value"] <= best + 0.02
    assert "best achievable" in out
    assert "the backbone's weights are random" in out


def test_a_run_writes_predictions_and_plots_and_can_be_used(dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun(*SHORT)
    assert status == 0, out + err
    found = pd.read_csv("runs/latest/predictions.csv")
    assert list(found.columns[:4]) == ["image", "breed", "prediction", "p_1"]
    assert len(found) == 32
    assert (found["p_1"] >= found["p_2"]).all()
    right = (found["breed"] == found["prediction"]).mean()
    assert right == pytest.approx(summary()["final"]["valid/accuracy"])
    drawn = {path.name for path in Path("runs/latest/plots").iterdir()}
    of_classes = {"calibration.svg", "classes.svg", "confusion.svg", "curves.svg"}
    assert drawn == {*of_classes, "confident_mistakes.png", "losses.svg"}

    with zipfile.ZipFile(DogBreedsData(here, source="synthetic")._found[1].path) as archive:
        archive.extractall(here / "pets")
    image = next(iter(sorted((here / "pets" / "train").iterdir())))
    status, out, err = dlrun("predict", "runs/latest", str(image))
    assert status == 0, err
    assert len(re.findall(r"^\s*(?:blue|red)-\w+ +0\.\d+", out, re.MULTILINE)) == 5
    (here / "some").mkdir()
    for path in sorted((here / "pets" / "train").iterdir())[:5]:
        (here / "some" / path.name).write_bytes(path.read_bytes())
    (here / "some" / "bad.jpg").write_bytes(b"not an image")
    status, out, err = dlrun("predict", "runs/latest", "some", "--out", "answer.csv")
    assert status == 1, err
    assert "1 of 6 rows cannot be read" in out + err
    answer = pd.read_csv("answer.csv")
    assert answer["image"].tolist() == sorted(path.name for path in (here / "some").iterdir())
    assert answer.loc[answer["problem"].notna(), "image"].tolist() == ["bad.jpg"]
    assert answer.loc[answer["prediction"].isna(), "image"].tolist() == ["bad.jpg"]
    assert "is not an image" in answer.set_index("image")["problem"]["bad.jpg"]
    whole = dlrunner.load("runs/latest").predict("some")
    assert whole.attrs["num_bad"] == 1
    status, out, err = dlrun("predict", "runs/latest", "some", "--submission", "--out", "submission.csv")
    assert status == 1, err
    table = pd.read_csv("submission.csv", dtype={"id": str})
    assert table.columns[0] == "id"
    assert table["id"].tolist() == [Path(name).stem for name in answer["image"]]
    good = table["id"] != "bad"
    np.testing.assert_allclose(table[good].iloc[:, 1:].sum(axis=1), 1, atol=1e-4)
    assert table[~good].iloc[:, 1:].isna().all(axis=None)
    assert table[good].iloc[0, 1:].astype(float).idxmax() == answer[good]["prediction"].iloc[0]

    status, out, err = dlrun("explain", "runs/latest", str(image))
    assert status == 0, err
    (drawing,) = here.glob("*-explained.png")
    assert str(drawing.name) in out
    with Image.open(drawing) as opened:
        assert min(opened.size) > 300
    status, out, err = dlrun("explain", "runs/latest", str(image), "--class", "red-disk")
    assert status == 2
    assert "there is no class red-disk; did you mean red-disc" in err
    status, out, err = dlrun("explain", "runs/latest", "some/bad.jpg")
    assert status != 0
    assert "bad.jpg is no" in err
    status, out, err = dlrun("generate", "runs/latest", "a dog")
    assert status == 2
    assert "has no method generate; it has predict, explain" in err


@pytest.mark.usefixtures("own_cache")
def test_precomputed_features_train_the_same_head_as_the_frozen_backbone(dlrun: Dlrun) -> None:
    words = (*SHORT, "epochs=2", *QUICK)
    status, out, err = dlrun(*words, *FROZEN)
    assert status == 0, out + err
    assert "features of 128 of 128 images" in out
    precomputed = history()
    status, out, err = dlrun(*words, "freeze_to=-1", "task.augment=false")
    assert status == 0, out + err
    for one, other in zip(precomputed, history(), strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-3)
        assert one["valid/loss"] == pytest.approx(other["valid/loss"], rel=1e-3)


@pytest.mark.usefixtures("own_cache")
def test_features_are_cached_for_the_next_run_per_backbone(dlrun: Dlrun) -> None:
    assert "features of" in dlrun(*SHORT, *QUICK, *FROZEN, "task.valid_batch_size=50", "seed=3")[1]
    # The head's weights and the order differ with the seed, and so does a backbone that starts at random.
    assert "features of" not in dlrun(*SHORT, *QUICK, *FROZEN, "seed=3", "epochs=2")[1]
    assert "features of" in dlrun(*SHORT, *QUICK, *FROZEN, "seed=4")[1]
    assert "features of" in dlrun(*SHORT, *QUICK, *FROZEN, "seed=3", "model.pool=concat")[1]


@pytest.mark.usefixtures("own_cache")
def test_an_ensemble_shares_its_features_and_averages_its_predictions(dlrun: Dlrun, here: Path) -> None:
    torch.save(make_backbone("squeezenet1_1").state_dict(), here / "w.pth")
    status, out, err = dlrun(*SHORT, *QUICK, *FROZEN, "ensemble=2", "model.weights=w.pth")
    assert status == 0, out + err
    assert out.count("features of 128 of 128 images") == 1
    predictions = pd.read_csv("runs/latest/predictions.csv")
    assert (predictions["breed"] == predictions["prediction"]).mean() == pytest.approx(
        summary()["final"]["valid/accuracy"]
    )
    assert dlrun("predict", "runs/latest", str(red_image(here)))[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("task.precompute=true", "freeze_to=-1"), "augmentation is impossible: add task.augment=false"),
        (("task.precompute=true", "task.augment=false", "freeze_to=-1", "task.tta=2"), "add task.tta=0"),
        (("task.precompute=true", "task.augment=false"), "has freeze_to=0: add freeze_to=-1"),
        (
            ("epochs=null", "phases=[{epochs: 1, task: {sizes: 64}}]"),
            "phases[0].task.sizes: is not a setting of a phase; did you mean size?",
        ),
        (
            ("epochs=null", "phases=[{epochs: 1, task: {augment: 2}}]"),
            "phases[0].task.augment: must be a boolean",
        ),
        (
            ("epochs=null", "task.augment=false", f"phases=[{{epochs: 1}}, {{epochs: 1, {ONCE}}}]"),
            "phases[1] must come first",
        ),
        (
            ("epochs=null", "phases=[{epochs: 1, task: {size: 8}}]"),
            "phases[0].task.size: must be greater than or equal to 32, not 8",
        ),
        (("model.backbone=resnet19",), "resnet19 is not a backbone; did you mean resnet18"),
        (("model.dropout=[0.1]",), "model.dropout: 1 dropouts for 2 layers of the head"),
        (("model.weights=nowhere.pth",), "there is no file nowhere.pth, neither here nor in data"),
        (("freeze_to=3",), "freeze_to: 3 of a model with 3 layer group(s)"),
        (("optim.lr=[1e-3,1e-2]",), "2 rates for 3 layer group(s) (lower backbone, upper backbone, head)"),
        (("task.metrics=[rmse]",), "task.metrics: rmse"),
        (("model.variant=tensorflow",), "model.variant: must be 'torchvision' or 'gluon'"),
    ],
)
def test_invalid_settings_are_refused(dlrun: Dlrun, words: tuple[str, ...], message: str) -> None:
    status, out, err = dlrun(*SYNTHETIC, "data.sample=64", "data.sample_valid=32", *QUICK, *words)
    assert status in (1, 2), out
    assert message in err


def test_other_tasks_have_no_settings_that_change_by_phase(dlrun: Dlrun) -> None:
    status, _, err = dlrun("task=collab", "epochs=null", "phases=[{epochs: 1, task: {size: 64}}]")
    assert status == 2
    assert "phases[0].task: " in err
    assert "has no settings that change from phase to phase" in err


@pytest.mark.parametrize("words", [SHORT, ("task=segmentation", "data.path=empty")])
def test_weights_of_another_architecture_are_refused_with_its_name_before_data_is_read(
    words: tuple[str, ...], dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(make_backbone("resnet34").state_dict(), here / "w.pth")
    (here / "empty").mkdir()
    monkeypatch.setattr(DogBreedsData, "identity", None)
    for verb in ((), ("lr-find",)):
        status, _, err = dlrun(*verb, *words, *QUICK, "model.backbone=squeezenet1_1", "model.weights=w.pth")
        assert status == 2
        assert "w.pth does not fit squeezenet1_1" in err
        assert "the file matches resnet34" in err
    (here / "w.pth").write_bytes(b"nothing")
    status, _, err = dlrun(*words, *QUICK, "model.weights=w.pth")
    assert status == 1
    assert "w.pth holds more than weights: it is damaged" in err
    assert not (here / "runs").exists()


def test_a_run_on_other_weights_of_the_same_name_is_another_run(dlrun: Dlrun, here: Path) -> None:
    words = (*SHORT, *QUICK, "model.weights=w.pth")
    torch.save(make_backbone("squeezenet1_1").state_dict(), here / "w.pth")
    assert dlrun(*words)[0] == 0
    assert "already finished" in dlrun(*words)[1]
    torch.save(make_backbone("squeezenet1_1").state_dict(), here / "w.pth")
    out = dlrun(*words)[1]
    assert "training again in a new folder" in out
    (here / "w.pth").unlink()
    status, out, err = dlrun("predict", "runs/latest", str(red_image(here)))
    assert status == 0, "a trained run needs the file no longer: " + err


def red_image(here: Path) -> Path:
    Image.new("RGB", (60, 50), (200, 30, 30)).save(here / "red.png")
    return here / "red.png"


def test_each_phase_can_set_its_own_image_size(here: Path) -> None:
    task = ImageClassification(DogBreedsData(here, source="synthetic", size=32), 16, 0, CPU, [PHASE])
    larger = replace(PHASE, task={"size": 40})
    assert next(iter(task.batches("train", 0, PHASE))).inputs[0].shape == (16, 3, 32, 32)
    assert next(iter(task.batches("train", 0, larger))).inputs[0].shape == (16, 3, 40, 40)
    assert next(iter(task.batches("valid", 0, larger))).inputs[0].shape[2:] == (40, 40)
    assert next(iter(task.tta_batches("valid", 1, larger))).inputs[0].shape[2:] == (40, 40)
    assert (task.state(PHASE)["size"], task.state(larger)["size"]) == (32, 40)
    assert next(iter(task.batches("train", 0, PHASE))).inputs[0].shape[2:] == (32, 32)
    assert not [note for note in task.notes() if "upsampled" in note]
    task.phases = [larger, PHASE]
    assert "images of 32 pixels (data.size) are upsampled to 40" in task.notes()


@pytest.mark.usefixtures("own_cache")
def test_a_head_is_trained_on_cached_features_and_then_with_the_backbone_on_augmented_images(dlrun: Dlrun) -> None:
    phases = f"phases=[{{epochs: 2, {ONCE}}}, {{epochs: 1, freeze_to: 1, task: {{size: 48}}}}]"
    status, out, err = dlrun(*SHORT, *QUICK, "epochs=null", "task.tta=1", phases)
    assert status == 0, out + err
    rows, kept = history(), dlrun(*SHORT, *QUICK, *FROZEN, "epochs=2")
    assert kept[0] == 0
    assert "features of" not in kept[1], "they were computed by the run before"
    assert [row["train/loss"] for row in rows[:2]] == [row["train/loss"] for row in history()]
    assert len(rows) == 3
    assert rows[2]["train/loss"] > rows[1]["train/loss"], "augmented images of another size are harder"


def test_training_images_differ_from_epoch_to_epoch_and_validation_images_never(here: Path) -> None:
    task = ImageClassification(DogBreedsData(here, source="synthetic", size=32), 640, 0, CPU, [PHASE], tta=1)

    def all_of(split: Any, epoch: int) -> torch.Tensor:
        return torch.cat([batch.inputs[0] for batch in task.batches(split, epoch, PHASE)])

    first, again, later = all_of("train", 0), all_of("train", 0), all_of("train", 1)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first.sort(0).values - later.sort(0).values).abs().mean() > 0.01
    plain = all_of("valid", 0)
    torch.testing.assert_close(plain, all_of("valid", 1), rtol=0, atol=0)
    view, other = (torch.cat([b.inputs[0] for b in task.tta_batches("valid", number, PHASE)]) for number in (1, 2))
    assert (view - other).abs().mean() > 0.05
    assert (plain - view).abs().mean() > 0.05
    assert task.num_tta_views() == 2


def test_the_last_batch_is_never_a_single_image(here: Path) -> None:
    data = DogBreedsData(here, source="synthetic", size=32, sample=65)
    task = ImageClassification(data, 32, 0, CPU, [PHASE])
    assert [len(batch.targets) for batch in task.batches("train", 0, PHASE)] == [32, 33]


@pytest.mark.usefixtures("own_cache")
def test_mixed_precision_learns_and_weights_none_start_at_random(dlrun: Dlrun) -> None:
    status, out, err = dlrun(*SHORT, *QUICK, "precision=bf16", "model.weights=none", "epochs=3")
    assert status == 0, out + err
    assert "the backbone's weights are random" in out
    assert history()[-1]["train/loss"] < history()[0]["train/loss"]
    assert "features of" in dlrun(*SHORT, *QUICK, *FROZEN, "precision=bf16")[1]
    assert "features of" in dlrun(*SHORT, *QUICK, *FROZEN)[1], "features in another precision are others"


def test_tta_views_are_averaged_and_reported(dlrun: Dlrun) -> None:
    status, out, err = dlrun(*SHORT, *QUICK, "task.tta=3")
    assert status == 0, out + err
    found = summary()
    assert found["tta"]["num_views"] == 4
    single, shown = history()[-1], found["final"]
    assert found["tta"]["single_view"] == single["valid/accuracy"]
    views = found["tta"]["single_view_metrics"]
    assert {"valid/accuracy", "valid/log_loss"} <= views.keys()
    assert views == {name: single[name] for name in views}
    line = ", ".join(f"{name} {shown[name]:.4f} (single view: {single[name]:.4f})" for name in views)
    assert f"with TTA (4 views): {line}" in out
    assert found["final"]["valid/loss"] != history()[-1]["valid/loss"]
    predictions = pd.read_csv("runs/latest/predictions.csv")
    assert (predictions["breed"] == predictions["prediction"]).mean() == pytest.approx(found["final"]["valid/accuracy"])


@pytest.mark.parametrize(("words", "passes"), [((), 2), (("task.tta=2",), 4), (("trainer.early_stopping=1",), 2)])
def test_validation_images_are_not_evaluated_twice_at_the_end(
    words: tuple[str, ...], passes: int, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass per epoch, whose last outputs are reused; each TTA view is one more pass."""
    made = []
    batches, tta_batches = ImageClassification.batches, ImageClassification.tta_batches

    def counted(task: ImageClassification, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        if split == "valid":
            made.append(0)
        return batches(task, split, epoch, phase, start)

    def counted_views(task: ImageClassification, split: Split, view: int, phase: Phase) -> Loader:
        made.append(view)
        return tta_batches(task, split, view, phase)

    monkeypatch.setattr(ImageClassification, "batches", counted)
    monkeypatch.setattr(ImageClassification, "tta_batches", counted_views)
    status, out, err = dlrun(*SHORT, *QUICK, *words, "epochs=2")
    assert status == 0, out + err
    assert len(made) == passes
    predictions = pd.read_csv("runs/latest/predictions.csv")
    assert (predictions["breed"] == predictions["prediction"]).mean() == pytest.approx(
        summary()["final"]["valid/accuracy"]
    )


def test_a_loader_that_starts_within_an_epoch_draws_and_reads_nothing_for_earlier_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[int, ...]] = []

    def recorded(*key: int) -> torch.Generator:
        drawn.append(key)
        return generator_of(*key)

    monkeypatch.setattr("dlrunner.data.images.loaders.generator_of", recorded)
    pixels = torch.zeros(40, 32, 32, 3, dtype=torch.uint8)
    rows = list(torch.split(torch.arange(40), 4))
    loader = ImageLoader(pixels, torch.arange(40), rows, 32, Augmentation(), (7, 0), start=8)
    assert [batch.targets.tolist() for batch in loader] == [[32, 33, 34, 35], [36, 37, 38, 39]]
    assert len(loader) == 10
    assert drawn == [(7, 0, 8), (7, 0, 9)]


def test_a_prediction_does_not_depend_on_the_other_images_of_the_batch(dlrun: Dlrun, here: Path) -> None:
    assert dlrun(*SHORT, *QUICK, "task.tta=2")[0] == 0
    random = np.random.default_rng(0)
    (here / "few").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(here / "few" / f"{name}.png")
    assert dlrun("predict", "runs/latest", "few", "--out", "all.csv")[0] == 0
    assert dlrun("predict", "runs/latest", "few/c.png", "--out", "one.csv")[0] == 0
    together, alone = pd.read_csv("all.csv").iloc[2], pd.read_csv("one.csv").iloc[0]
    assert (together["prediction"], together["p_1"]) == (alone["breed"], alone["probability"])
    assert dlrun("predict", "runs/latest", "few", "--top", "0")[0] == 2


def test_early_stopping_keeps_the_image_size_of_the_best_phase(dlrun: Dlrun) -> None:
    phases = "phases=[{epochs: 1, lr: 1.0e-3}, {epochs: 2, lr: 10.0, task: {size: 64}}]"
    status, out, err = dlrun(*SHORT, *QUICK, "epochs=null", "trainer.early_stopping=1", "trainer.clip=1", phases)
    assert status == 0, out + err
    best = max(history(), key=lambda row: row["valid/accuracy"])
    size = load_weights_file(Path("runs/latest/task.pt"))["task"]["size"]
    assert size == (32 if best["epoch"] == 1 else 64)
    predictions = pd.read_csv("runs/latest/predictions.csv")
    right = (predictions["breed"] == predictions["prediction"]).mean()
    assert right == pytest.approx(summary()["final"]["valid/accuracy"])


@pytest.mark.slow  # trains whole backbones
def test_a_frozen_backbone_keeps_its_batch_norm_and_all_else(dlrun: Dlrun, here: Path) -> None:
    torch.save(make_backbone("resnet18").state_dict(), here / "w.pth")
    words = (*SHORT, *QUICK, "model.backbone=resnet18", "model.weights=w.pth", "freeze_to=-1")
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    before, after = (
        torch.load(here / "w.pth", weights_only=True),
        load_weights_file(Path("runs/latest/last.pt"))["model"],
    )
    for name, value in before.items():
        torch.testing.assert_close(after[f"backbone.{name}"], value, rtol=0, atol=0)
    status, out, err = dlrun(*words, "freeze_to=1")
    assert status == 0, out + err
    after = load_weights_file(Path("runs/latest/last.pt"))["model"]
    moved = {name for name, value in before.items() if not torch.equal(after[f"backbone.{name}"], value)}
    assert moved
    assert not any(name.startswith(("conv1", "bn1", "layer1")) for name in moved)
    assert any(name.startswith("layer4") and "running_mean" in name for name in moved)


def test_batch_norm_that_is_frozen_keeps_its_statistics_while_its_weights_train(dlrun: Dlrun) -> None:
    words = (*SHORT, *QUICK, "model.backbone=resnet18", "model.freeze_norm=true")
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    after = load_weights_file(Path("runs/latest/last.pt"))["model"]
    means = [value for name, value in after.items() if name.startswith("backbone") and "running_mean" in name]
    scales = [value for name, value in after.items() if name.startswith("backbone") and name.endswith("bn1.weight")]
    assert means
    assert all(float(value.abs().max()) == 0 for value in means)
    assert all(float((value - 1).abs().max()) > 0 for value in scales)
    assert float(after["head.0.running_mean"].abs().max()) > 0


def test_a_killed_run_resumes_bit_for_bit(here: Path, dlrun: Dlrun) -> None:
    words = (*SHORT, *QUICK, "data.sample=48", "epochs=2", "batch_size=8", "trainer.checkpoint_minutes=1e-9")
    unbroken = start(*words, "runs_dir=unbroken", cwd=here, DLRUNNER_CACHE=os.environ["DLRUNNER_CACHE"])
    unbroken.communicate()
    stopped = start(*words, "runs_dir=stopped", cwd=here, DLRUNNER_CACHE=os.environ["DLRUNNER_CACHE"])
    deadline = time.monotonic() + 60
    while not list(here.glob("stopped/dogbreeds/*/last.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGKILL)
    assert stopped.communicate()
    assert stopped.returncode == -9
    again = start(*words, "runs_dir=stopped", cwd=here, DLRUNNER_CACHE=os.environ["DLRUNNER_CACHE"])
    again.communicate()
    assert unbroken.returncode == again.returncode == 0
    one, other = (load_weights_file(Path(folder, "latest", "last.pt"))["model"] for folder in ("unbroken", "stopped"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0)


def test_training_on_growing_images_resumes_bit_for_bit_at_every_change_of_size(
    dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps per size; the stops come with the last step of a size, and with the first of the next one."""
    phases = "phases=[{epochs: 1}, {epochs: 1, task: {size: 48}}, {epochs: 1, task: {size: 64}}]"
    words = (*SHORT, *QUICK, "epochs=null", phases, "data.sample=16", "batch_size=8", "task.tta=1")
    status, out, err = dlrun(*words, "runs_dir=unbroken")
    assert status == 0, err
    assert "images of 32 pixels (data.size) are upsampled to 64" in out + err
    sides, step = list[int](), Trainer.train_step

    def stopping(*given: Any, **others: Any) -> Any:
        found = step(*given, **others)
        sides.append(given[4].inputs[0].shape[2])
        if len(sides) in (2, 3, 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(Trainer, "train_step", stopping)
    assert [dlrun(*words)[0] for _ in range(4)] == [143, 143, 143, 0]
    assert sides == [32, 32, 48, 48, 64, 64]
    states = [load_weights_file(Path(folder, "latest", "last.pt"))["model"] for folder in ("unbroken", "runs")]
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    one, other = summary("unbroken/latest"), summary()
    assert (other["final"], other["tta"]) == (one["final"], one["tta"])


def test_labels_are_learned_and_predicted(dlrun: Dlrun, here: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    (here / "pics").mkdir()
    for number in range(60):
        red, bright = random.integers(0, 2, 2)
        colour = np.array([200 if red else 40, 40, 40 if red else 200]) // (1 if bright else 3)
        pixels = np.clip(colour + random.normal(0, 5, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(here / "pics" / f"{number}.png")
        rows.append({"file": f"pics/{number}.png", "red": red, "bright": bright})
    pd.DataFrame(rows).to_csv(here / "pics.csv", index=False)
    words = (
        "task=image",
        "data.path=pics.csv",
        "data.target=[red,bright]",
        "data.size=32",
        "epochs=12",
        "batch_size=16",
    )
    status, out, err = dlrun(*words, "model.backbone=squeezenet1_1", "optim.lr=1e-3")
    assert status == 0, out + err
    assert summary()["metric"]["name"] == "valid/f1"
    assert summary()["metric"]["value"] > 0.8
    assert Path("runs/latest/plots/labels.svg").exists()
    status, out, err = dlrun("predict", "runs/latest", "pics/0.png")
    assert status == 0, err
    assert "p(red)" in out


def test_a_fused_net_is_the_same_function() -> None:
    for name in ("resnet18", "mobilenet_v2", "squeezenet1_1"):
        net = make_backbone(name)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        quick = fold_batch_norm(net)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules()), name
        images = torch.randn(2, 3, 48, 48)
        with torch.no_grad():
            expected = net.eval()(images)
            torch.testing.assert_close(quick(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_head_has_the_requested_layers() -> None:
    kinds = [type(each).__name__ for each in small_net(xtra_fc=[32, 16], dropout=[0.25, 0, 0.5]).head]
    expected = ["BatchNorm1d", "Dropout", "Linear", "ReLU", "BatchNorm1d", "Linear", "ReLU", "BatchNorm1d", "Dropout"]
    assert kinds == [*expected, "Linear"]
    assert [type(each).__name__ for each in small_net(xtra_fc=[], dropout=0.0, head_norm=False).head] == ["Linear"]


def test_grad_cam_highlights_the_feature_of_the_class() -> None:
    net = small_net(xtra_fc=[], dropout=0.0, head_norm=False).eval()

    class Corner(torch.nn.Module):
        num_features = 512

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = torch.zeros(len(images), 512, 4, 4)
            maps[:, 3, 0, 0] = 5.0  # evidence for class 1, in the upper left
            maps[:, 7, 3, 3] = 5.0  # evidence against it
            return maps

    net.backbone = Corner()  # type: ignore[assignment]
    with torch.no_grad():
        layer = net.head[0]
        assert isinstance(layer, torch.nn.Linear)
        layer.weight.zero_()
        layer.weight[1, 3], layer.weight[1, 7] = 1.0, -1.0
    heat = grad_cam([net], torch.zeros(1, 3, 32, 32), 1, 32)
    assert heat.shape == (32, 32)
    assert heat[:8, :8].mean() > 0.5
    assert heat[16:, 16:].max() < 1e-6


# Real images of 120 breeds; test_backbones.py tells ten of them apart, and a frozen backbone is trained on above.
@pytest.mark.data
@pytest.mark.slow
def test_a_few_real_dog_breeds_are_learned_on_a_frozen_backbone(real_data: Path, dlrun: Dlrun) -> None:
    if not (real_data / "weights" / "mobilenet_v2_features.pt").exists():
        pytest.skip("needs weights/mobilenet_v2_features.pt in DLRUNNER_DATA")
    words = ("data.sample=1500", "data.sample_valid=300", "data.size=96", "claim=null", "epochs=6")
    status, out, err = dlrun("experiment=dogbreeds", *words, *QUICK)
    assert status == 0, out + err
    assert "are part of ImageNet" in out
    assert summary()["metric"]["value"] > 0.3, "by guessing one in 120 is right"
    status, _, err = dlrun("experiment=dogbreeds", *words, *QUICK, "model.variant=torchvision")
    assert status == 2
    assert "the file matches mobilenet_v2 with gluon's variant" in err
