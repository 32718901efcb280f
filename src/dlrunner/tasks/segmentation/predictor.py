"""What is asked of a trained model of segmentation: the masks of pictures, and the fractions of their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dlrunner.data.images.dataset import MOST_NAMED
from dlrunner.data.images.decoding import decode_whole
from dlrunner.data.images.loaders import normalised
from dlrunner.data.segmentation.masks import MaskClasses, resized
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path
from dlrunner.model import Model
from dlrunner.system.terminal import visible
from dlrunner.tasks.common.inputs import listed
from dlrunner.tasks.image.predictor import pictures_at

Given = str | Path | Image.Image


class SegmentationAnswers:
    """Answers about pictures.

    Args:
        state: what the task stored.
        models: trained models; one, for the task keeps no outputs that could be averaged.
    """

    example = 'predictor.predict(["a.jpg", "b.jpg"])'
    limits = ("Every pixel is taken for one of the classes of the training data, whatever it shows.",)

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state, self.models = state, models

    def predict(self, pictures: Given | Sequence[Given]) -> pd.DataFrame:
        """Return the fraction of each picture's pixels that each class has.

        Raises:
            ConfigError: there is no such file, or it is something else.
            DataError: one of them is no picture.
        """
        asked = listed(pictures, "files or PIL pictures", (str, Path, Image.Image))
        rows = []
        for number, given in enumerate(asked, start=1):
            name = f"picture {number}" if isinstance(given, Image.Image) else visible(str(given))
            codes = segment(self.state, self.models, _picture(given, name))
            rows.append((name, fractions(self.state, codes)))
        return _table(self.state, rows)

    def masks(self, pictures: Given | Sequence[Given]) -> list[NDArray[np.uint8]]:
        """Return the mask of each picture, [height, width] of the picture, with the values of the training masks."""
        asked = listed(pictures, "files or PIL pictures", (str, Path, Image.Image))
        values = np.array(MaskClasses.from_state(self.state["classes"]).values, dtype=np.uint8)
        found = (_picture(given, f"picture {number}") for number, given in enumerate(asked, start=1))
        return [values[segment(self.state, self.models, picture)] for picture in found]


def predict(
    state: Mapping[str, Any], models: Sequence[Model], path: str | Path, *, masks: str | Path | None = None
) -> pd.DataFrame:
    """Write a mask for each picture of a file, folder or archive, and return the fractions of the classes.

    Args:
        state, models: of the run.
        path: what cannot be read of a folder is left out and told.
        masks: the folder for the masks, palette PNGs with the values of the training masks; by default NAME-masks in
            the working directory.

    Raises:
        ConfigError: there is no such file.
        DataError: it is no picture, none of the folder can be read, or the masks cannot be written.
    """
    place, names = pictures_at(user_path(path))
    folder = user_path(masks) if masks is not None else Path(f"{user_path(path).resolve().stem}-masks")
    classes = MaskClasses.from_state(state["classes"])
    bad: dict[str, str] = {}
    rows: list[tuple[str, NDArray[np.float64]]] = []
    targets = {name: folder / PurePosixPath(name).with_suffix(".png") for name in names}
    if len(set(targets.values())) < len(names):
        raise DataError(f"{place.path}: two pictures differ in their suffix alone; their masks would have one name")
    for name, content in zip(names, place.contents(names), strict=True):
        try:
            picture = decode_whole(content)[0]
        except DataError as error:
            bad[name] = str(error)
            continue
        codes = segment(state, models, picture)
        try:
            targets[name].parent.mkdir(parents=True, exist_ok=True)
            classes.image(codes).save(targets[name], "PNG")
        except OSError as error:
            raise DataError(f"--masks: {targets[name]} cannot be written ({error.strerror})") from None
        rows.append((visible(name), fractions(state, codes)))
    if not rows:
        name, reason = next(iter(bad.items()))
        raise DataError(f"{place.path / name} {reason}")
    answer = _table(state, rows)
    notes = [f"{len(rows):,} masks: {folder}"]
    if bad:
        named = "; ".join(f"{name} {reason}" for name, reason in list(bad.items())[:MOST_NAMED])
        notes.append(f"{len(bad):,} of {len(names):,} pictures cannot be read: {named}")
    answer.attrs["note"] = "\n".join(notes)
    return answer


@torch.inference_mode()
def segment(state: Mapping[str, Any], models: Sequence[Model], picture: Image.Image) -> NDArray[np.uint8]:
    """Return the class of each pixel of a picture, [height, width] of the picture.

    It is scaled as in training; the class scores are scaled back, one class after the other, for a large picture with
    many classes would not fit into memory.
    """
    device = next(models[0].parameters()).device
    height, width = state["size"]
    pixels = torch.from_numpy(resized(picture.convert("RGB"), (height, width)))[None].to(device)
    scores = torch.stack([model(normalised(pixels, (height, width))).float()[0] for model in models]).mean(dim=0)
    best = torch.full((picture.height, picture.width), -torch.inf, device=device)
    codes = torch.zeros(best.shape, dtype=torch.uint8, device=device)
    for code, plane in enumerate(scores):
        whole = _scaled_back(plane, picture.height, picture.width)
        codes = torch.where(whole > best, code, codes)
        best = torch.maximum(whole, best)
    found: NDArray[np.uint8] = codes.cpu().numpy()
    return found


def _scaled_back(plane: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(plane[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]


def fractions(state: Mapping[str, Any], codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the fraction of a picture's pixels that each class has, [classes]."""
    return np.bincount(codes.ravel(), minlength=len(state["classes"]["names"])) / codes.size


def _table(state: Mapping[str, Any], rows: Sequence[tuple[str, NDArray[np.float64]]]) -> pd.DataFrame:
    """Return a row for each picture: its name, and the fractions."""
    names = [str(name) for name in state["classes"]["names"]]
    table = pd.DataFrame(np.round([shares for _, shares in rows], 4), columns=names)
    table.insert(0, "picture", [name for name, _ in rows], allow_duplicates=True)
    return table


def _picture(given: Given, name: str) -> Image.Image:
    if isinstance(given, Image.Image):
        return given
    path = user_path(given)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        return decode_whole(path.read_bytes())[0]
    except DataError as error:
        raise DataError(f"{name} {error}") from None
