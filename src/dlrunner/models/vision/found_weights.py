"""Pre-trained weights that are on this machine already: in the data folder, or in torch's cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlrunner.errors import ConfigError, DataError
from dlrunner.models.vision.backbones import fits, make_backbone, read_weights

ORDER = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnext50_32x4d", "squeezenet1_1")
"""Backbones in the order of preference on a CPU: accuracy for the time of a pass."""
SUFFIXES = (".pt", ".pth", ".safetensors")


@dataclass(frozen=True)
class FoundWeights:
    """A file of weights, and the backbone that it fits."""

    path: Path
    backbone: str
    variant: str = "torchvision"


def find_weights(data_dir: Path) -> FoundWeights | None:
    """Return the best weights that are found, by the names that torchvision gives its files (resnet18-f37072fd.pth).

    A file that does not fit the backbone of its name is passed over.

    Args:
        data_dir: searched with its folder weights/; then the folder of torch.hub's downloads.
    """
    folders = [data_dir, data_dir / "weights", Path(torch.hub.get_dir()) / "checkpoints"]
    files = [file for folder in folders for file in _files(folder)]
    for backbone in ORDER:
        for file in files:
            if file.name.startswith(backbone) and (variant := _fitting_variant(file, backbone)):
                return FoundWeights(file, backbone, variant)
    return None


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    except OSError:  # no such folder, or not ours to read
        return


def _fitting_variant(file: Path, backbone: str) -> str | None:
    try:
        weights = read_weights(file)
    except (ConfigError, DataError):
        return None
    variants: Sequence[Any] = ("torchvision", "gluon") if backbone == "mobilenet_v2" else ("torchvision",)
    with torch.device("meta"):
        return next((each for each in variants if fits(make_backbone(backbone, each), weights)), None)
