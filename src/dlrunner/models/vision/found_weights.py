"""Pre-trained weights that are on this machine already: in the data folder, a cache of torch or timm, a package."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlrunner.data.images.loaders import MEAN, STD
from dlrunner.errors import ConfigError, DataError
from dlrunner.models.vision.backbones import TIMM, fits, make_backbone, read_weights

ORDER = (
    *("efficientnet_lite2", "efficientnet_lite1", "efficientnet_lite0"),
    *("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnext50_32x4d", "squeezenet1_1"),
)
"""Backbones in the order of preference on a CPU: accuracy for the time of a pass."""
SUFFIXES = (".pt", ".pth", ".safetensors")
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
NAMES = "|".join(ORDER).replace("_lite", "[-_]lite")
PACKAGED = re.compile(rf"^\"?((?:[^,\"]*/)?(?:{NAMES})[^/,\"]*\.(?:pt|pth|safetensors))\"?,", re.MULTILINE)
"""A line of a package's list of files, of which one is named as torchvision names its weights."""


@dataclass(frozen=True)
class FoundWeights:
    """A file of weights, and the backbone that it fits."""

    path: Path
    backbone: str
    variant: str = "torchvision"


@dataclass(frozen=True)
class _Candidate:
    path: Path
    name: str
    """Of the net, as far as the name of the file or its folder says."""
    is_timm: bool = False


def find_weights(data_dir: Path, backbone: str | None = None) -> FoundWeights | None:
    """Return the best weights that are found, by the names that torchvision gives its files (resnet18-f37072fd.pth).

    A file that does not fit the backbone of its name is passed over. Of timm's cache also the nets are taken that timm
    alone knows, where it is installed.

    Args:
        data_dir: searched with its folder weights/; then the folder of torch.hub's downloads, timm's cache, and the
            files of installed packages.
        backbone: only weights of this one.
    """
    folders = [data_dir, data_dir / "weights", Path(torch.hub.get_dir()) / "checkpoints"]
    candidates = [_Candidate(file, file.name) for folder in folders for file in _files(folder)]
    candidates += [*_timm_files(), *_packaged_files()]
    for name in ORDER if backbone is None else [backbone]:
        for each in candidates:
            if each.name.replace("-lite", "_lite").startswith(name) and (found := recognised(each.path, [name])):
                return found
    of_timm = (each for each in candidates if each.is_timm and backbone in (None, TIMM + each.name))
    best = next(filter(_fits_timm, of_timm), None)
    return None if best is None else FoundWeights(best.path, TIMM + best.name)


def recognised(file: Path, backbones: Sequence[str]) -> FoundWeights | None:
    """Return a file with the first of some backbones, in either variant, that it fits; None: it fits none.

    A damaged file fits none.
    """
    try:
        weights = read_weights(file)
    except (ConfigError, DataError):
        return None
    with torch.device("meta"):
        for backbone in backbones:
            variants: Sequence[Any] = ("torchvision", "gluon") if backbone == "mobilenet_v2" else ("torchvision",)
            for variant in variants:
                if fits(make_backbone(backbone, variant), weights):
                    return FoundWeights(file, backbone, variant)
    return None


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    except OSError:  # no such folder, or not ours to read
        return


def _timm_files() -> Iterator[_Candidate]:
    """Yield what timm has downloaded: models--timm--resnet18.a1_in1k/snapshots/REVISION/model.safetensors."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub").expanduser()
    with contextlib.suppress(OSError):
        for folder in sorted(hub.glob("models--timm--*/snapshots/*")):
            name = folder.parents[1].name.removeprefix("models--timm--").partition(".")[0]
            file = next((folder / each for each in TIMM_FILES if (folder / each).is_file()), None)
            if file is not None and _is_normalised_as_here(folder / "config.json"):
                yield _Candidate(file, name, is_timm=True)


def _is_normalised_as_here(config: Path) -> bool:
    """Return whether a net was trained on images with ImageNet's mean and standard deviation, or does not say."""
    try:
        found = json.loads(config.read_text())
    except (OSError, ValueError):
        return True
    trained = found.get("pretrained_cfg", found) if isinstance(found, dict) else {}
    usual = {"mean": list(MEAN), "std": list(STD)}
    return isinstance(trained, dict) and all(trained.get(name, value) == value for name, value in usual.items())


def packaged_file(name: str) -> Path | None:
    """Return the file of this name that an installed package brings along."""
    return next((each.path for each in _packaged_files() if each.name == name), None)


def _packaged_files() -> Iterator[_Candidate]:
    """Yield weights that installed packages bring along."""
    for folder in sorted({Path(each) for each in sys.path if each.endswith(("site-packages", "dist-packages"))}):
        for record in sorted(folder.glob("*.dist-info/RECORD")):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                for name in PACKAGED.findall(record.read_text("utf-8")):
                    yield _Candidate(folder / name, Path(name).name)


def _fits_timm(candidate: _Candidate) -> bool:
    """Return whether timm is installed and knows the net, which gives maps (transformers give tokens) and fits."""
    try:
        weights = read_weights(candidate.path)
        with torch.device("meta"), torch.inference_mode():
            backbone = make_backbone(TIMM + candidate.name)
            backbone.eval()(torch.zeros(1, 3, 64, 64))
    except (ConfigError, DataError, RuntimeError, AssertionError):  # a net of fixed size may refuse this one
        return False
    return fits(backbone, weights)
