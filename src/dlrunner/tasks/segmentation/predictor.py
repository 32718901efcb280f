"""The masks that a trained model predicts, and the fractions of their classes."""

from __future__ import annotations

import base64
import io
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

from dlrunner.data.images.decoding import decode_whole, whole_of
from dlrunner.data.images.listing import FoundImages
from dlrunner.data.images.loaders import normalised
from dlrunner.data.segmentation.masks import MaskClasses, resized
from dlrunner.errors import DataError
from dlrunner.files.paths import user_path
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.unet import SegmentationDims
from dlrunner.prediction_table import with_distinct_names, with_notes, with_problems
from dlrunner.predictor import Predictor, RowField
from dlrunner.system.terminal import visible
from dlrunner.tasks.image.inputs import Given, folder_of, images_in, in_batches, in_folder, named, of_request


class SegmentationPredictor(Predictor):
    """Predicts a mask for each image."""

    example = 'predictor.predict(["a.jpg", "b.jpg"], masks="masks")'
    limits = ("Every pixel is assigned to one of the classes of the training data, whatever it shows.",)

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.classes = MaskClasses.from_state(state["classes"])

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> SegmentationDims:
        """The number of classes."""
        return SegmentationDims(len(state["classes"]["names"]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """Clouds of colour: neighbouring pixels are alike, as in photographs."""
        clouds = torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(count)).mul(255)
        height, width = self.state["size"]
        return {"images": Example(normalised(clouds, (height, width)).contiguous(), ("rows", None, None, None))}

    def predict(self, images: Given | Sequence[Given], *, masks: Path | None = None) -> pd.DataFrame:
        """Write a mask for each image, and return the file and the fraction of the pixels of each class.

            predictor.predict("photos", masks="masks")
            predictor.predict(["a.jpg", PIL.Image.open("b.png")])

        A mask is a palette PNG of the image's own size, with the values of the training masks. Images of a folder that
        cannot be read have no mask, but a reason in the column `problem`.

        Args:
            images: an image, or a folder or archive of images; in Python several images too, in files or opened.
            masks: the folder for the masks; by default NAME-masks in the working directory, of several images masks.

        Raises:
            ConfigError: there is no such file, or it is something else.
            DataError: one of them is not an image, none of the folder can be read, or the masks cannot be written.
        """
        problems: list[tuple[int, str]] = []
        rows: list[tuple[str, str, NDArray[np.float64]]] = []
        folder = folder_of(images)
        listed = images_in(folder) if folder else FoundImages([])
        written = user_path(masks) if masks is not None else _default_folder(images)
        targets = _targets(written, images, folder, listed.names)
        for some in in_folder(folder, listed.names) if folder else in_batches(images):
            for name, given in some:
                try:
                    image = _whole(given)
                except DataError as error:
                    if not folder:
                        raise DataError(f"{visible(name)} {error}") from None
                    problems.append((len(rows), str(error)))
                    rows.append((visible(name), "", np.zeros(len(self.classes.names))))
                    continue
                codes = segment(self.state, self.models, image)
                self._write(codes, targets[name])
                rows.append((visible(name), visible(str(targets[name])), self._fractions(codes)))
        if len(problems) == len(rows):
            raise DataError(f"{folder}: none of the {len(rows):,} images can be read: {rows[0][0]} {problems[0][1]}")
        notes = [f"masks written to {visible(str(written))}: {len(rows) - len(problems):,}", *listed.notes]
        return with_notes(with_problems(self._table(rows), ["image"], problems), notes)

    def row_fields(self) -> Sequence[RowField]:
        """Return the image."""
        return [RowField("image", "image", description="a JPEG, PNG or other file of Pillow's formats")]

    def predict_request(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the mask of each image, a base64-encoded PNG, and the fraction of the pixels of each class."""
        problems: list[tuple[int, str]] = []
        answers: list[tuple[str, str, NDArray[np.float64]]] = []
        for chunk in of_request(rows["image"].tolist()):
            for name, content in chunk:
                try:
                    codes = segment(self.state, self.models, _whole(content))
                except DataError as error:
                    problems.append((len(answers), str(error)))
                    answers.append((name, "", np.zeros(len(self.classes.names))))
                    continue
                mask = io.BytesIO()
                self.classes.image(codes).save(mask, "PNG")
                answers.append((name, base64.b64encode(mask.getvalue()).decode(), self._fractions(codes)))
        return with_problems(self._table(answers), ["image"], problems)

    def _fractions(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the fraction of an image's pixels that each class has, [classes]."""
        return np.bincount(codes.ravel(), minlength=len(self.classes.names)) / codes.size

    def _write(self, codes: NDArray[np.uint8], file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.classes.image(codes).save(file, "PNG")
        except OSError as error:
            raise DataError(f"masks: {file} cannot be written ({error.strerror})") from None

    def _table(self, rows: Sequence[tuple[str, str, NDArray[np.float64]]]) -> pd.DataFrame:
        fractions = np.round([fractions for _, _, fractions in rows], 4)
        files = pd.DataFrame([(name, mask) for name, mask, _ in rows], columns=["image", "mask"])
        return with_distinct_names(pd.concat([files, pd.DataFrame(fractions, columns=self.classes.names)], axis=1))


def _default_folder(images: Given | Sequence[Given]) -> Path:
    if isinstance(images, str | Path):
        return Path(f"{user_path(images).resolve().stem}-masks")
    return Path("masks")


def _targets(
    written: Path, images: Given | Sequence[Given], folder: Path | None, names_in_folder: Sequence[str]
) -> dict[str, Path]:
    """Return the files of the masks by the names of the images, all different and below the folder for the masks.

    Raises:
        DataError: two masks would have one name, a name leads out of the folder, or a mask would replace an image.
    """
    sources: list[tuple[str, Path | None, PurePosixPath]] = []
    if folder:
        for name in names_in_folder:
            sources.append((name, folder / name if folder.is_dir() else None, PurePosixPath(name)))
    else:
        for name, given in named(images):
            file = None if isinstance(given, Image.Image) else user_path(given)
            sources.append((name, file, PurePosixPath(file.name if file else f"{name}.png")))
    found: dict[str, Path] = {}
    names: dict[Path, str] = {}
    files = {file.resolve() for _, file, _ in sources if file}
    for name, _, path in sources:
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{folder}: the path of {visible(name)} leads out of the folder for the masks")
        target = written / path.with_suffix(".png")
        if names.setdefault(target, name) != name:
            one, other = visible(names[target]), visible(name)
            raise DataError(f"the masks of {one} and {other} would both be {target.name}; rename one of the images")
        if target.resolve() in files:
            raise DataError(f"masks: the mask of {visible(name)} would replace an image; choose another folder")
        found[name] = target
    return found


def _whole(given: Given | bytes) -> Image.Image:
    """Return an image in its own size, upright and in three colours.

    Raises:
        DataError: it is not an image.
    """
    if isinstance(given, Image.Image):
        return whole_of(given)
    return decode_whole(given if isinstance(given, bytes) else user_path(given).read_bytes())[0]


@torch.inference_mode()
def segment(state: Mapping[str, Any], models: Sequence[Model], image: Image.Image) -> NDArray[np.uint8]:
    """Return the class of each pixel of an image, [height, width] of the image.

    It is scaled as in training; the class scores are scaled back one class after the other, since those of a large
    image with many classes would not fit into memory.
    """
    device = next(models[0].parameters()).device
    height, width = state["size"]
    pixels = normalised(torch.from_numpy(resized(image, (height, width)))[None].to(device), (height, width))
    scores = torch.stack([forward_pass(model, pixels).outputs.float()[0] for model in models]).mean(dim=0)
    best = torch.full((image.height, image.width), -torch.inf, device=device)
    codes = torch.zeros(best.shape, dtype=torch.uint8, device=device)
    for code, plane in enumerate(scores):
        scaled = _scaled_back(plane, image.height, image.width)
        codes = torch.where(scaled > best, code, codes)
        best = torch.maximum(scaled, best)
    found: NDArray[np.uint8] = codes.cpu().numpy()
    return found


def _scaled_back(plane: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(plane[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
