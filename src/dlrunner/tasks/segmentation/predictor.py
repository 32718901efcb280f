"""The masks that a trained model predicts, and the fractions of their classes."""

from __future__ import annotations

import base64
import io
import os
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

from dlrunner.data.core.input_columns import append_predictions
from dlrunner.data.images.decoding import decode_whole, whole_of
from dlrunner.data.images.loaders import normalised
from dlrunner.data.segmentation.masks import MaskClasses, resized
from dlrunner.data.tables.files import STANDARD_INPUT
from dlrunner.errors import DataError
from dlrunner.files.paths import user_path
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.unet import SegmentationDims
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import Predictor, RowField
from dlrunner.system.terminal import visible
from dlrunner.tasks.image.inputs import Given, InputImages, encoded, of_request, read_images


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

    def predict(
        self,
        images: Given | Sequence[Given],
        *,
        column: str | None = None,
        only: list[str] | None = None,
        masks: Path | None = None,
    ) -> pd.DataFrame:
        """Write a mask for each image, and return the file and the fraction of the pixels of each class.

            predictor.predict("photos", masks="masks")
            predictor.predict(["a.jpg", PIL.Image.open("b.png")])
            predictor.predict("new.csv", column="file", only=["nr"])

        A mask is a palette PNG of the image's own size, with the values of the training masks. Images of a folder, a
        list or a table that cannot be read have no mask, but a reason in the column `problem`.

        Args:
            images: an image, a folder or archive of images, a table or a list (.txt) of paths, or - for one of these on
                standard input; in Python also several images, in files or opened, or a DataFrame.
            column: column of the paths, if it is a table.
            only: columns of the table next to the predictions, instead of all; none: predictions alone.
            masks: the folder for the masks; by default NAME-masks in the working directory, of several images masks.

        Raises:
            ConfigError: there is no such file, or it is something else.
            DataError: one of them is not an image, none of the folder can be read, or the masks cannot be written.
        """
        given = read_images(images, column, self.state.get("column"), self.state.get("files"))
        problems: list[tuple[int, str]] = []
        rows: list[tuple[str, NDArray[np.float64]]] = []
        written = user_path(masks) if masks is not None else _default_folder(images)
        targets = _targets(written, given)
        for batch in given.batches():
            for name, content in batch:
                try:
                    image = _whole(content, self.state)
                except DataError as error:
                    if not given.keeps_bad:
                        raise DataError(f"{visible(name)} {error}") from None
                    problems.append((len(rows), str(error)))
                    rows.append(("", np.zeros(len(self.classes.names))))
                    continue
                codes = segment(self.state, self.models, image)
                self._write(codes, targets[name])
                rows.append((visible(str(targets[name])), self._fractions(codes)))
        if given.folder and len(problems) == len(rows):
            first = f"{visible(given.names[0])} {problems[0][1]}"
            raise DataError(f"{given.folder}: none of the {len(rows):,} images can be read: {first}")
        notes = [f"masks written to {visible(str(written))}: {len(rows) - len(problems):,}", *given.notes]
        inputs = given.columns(only)
        answer = append_predictions(inputs, self._table(rows))
        return with_notes(with_problems(answer, list(answer.columns[: inputs.shape[1]]), problems), notes)

    def row_fields(self) -> Sequence[RowField]:
        """Return the image."""
        return [RowField("image", "image", description="a JPEG, PNG or other file of Pillow's formats")]

    def predict_request(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the mask of each image, a base64-encoded PNG, and the fraction of the pixels of each class."""
        problems: list[tuple[int, str]] = []
        answers: list[tuple[str, NDArray[np.float64]]] = []
        names: list[str] = []
        for chunk in of_request(rows["image"].tolist()):
            for name, content in chunk:
                names.append(name)
                try:
                    codes = segment(self.state, self.models, _whole(content, self.state))
                except DataError as error:
                    problems.append((len(answers), str(error)))
                    answers.append(("", np.zeros(len(self.classes.names))))
                    continue
                mask = io.BytesIO()
                self.classes.image(codes).save(mask, "PNG")
                answers.append((base64.b64encode(mask.getvalue()).decode(), self._fractions(codes)))
        return with_problems(
            append_predictions(pd.DataFrame({"image": names}), self._table(answers)), ["image"], problems
        )

    def _fractions(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the fraction of an image's pixels that each class has, [classes]."""
        return np.bincount(codes.ravel(), minlength=len(self.classes.names)) / codes.size

    def _write(self, codes: NDArray[np.uint8], file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.classes.image(codes).save(file, "PNG")
        except OSError as error:
            raise DataError(f"masks: {file} cannot be written ({error.strerror})") from None

    def _table(self, rows: Sequence[tuple[str, NDArray[np.float64]]]) -> pd.DataFrame:
        fractions = pd.DataFrame(np.round([fractions for _, fractions in rows], 4), columns=self.classes.names)
        return pd.concat([pd.Series([mask for mask, _ in rows], name="mask"), fractions], axis=1)


def _default_folder(images: Any) -> Path:
    if isinstance(images, str | Path) and str(images) != STANDARD_INPUT:
        return Path(f"{user_path(images).resolve().stem}-masks")
    return Path("masks")


def _targets(written: Path, given: InputImages) -> dict[str, Path]:
    """Return the files of the masks by the names of the images, all different and below the folder for the masks.

    Raises:
        DataError: two masks would have one name, a name leads out of the folder, or a mask would replace an image.
    """
    found: dict[str, Path] = {}
    names: dict[Path, str] = {}
    files = {file.resolve() for file in given.sources if file}
    for name, path in _paths(given).items():
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{given.folder}: the path of {visible(name)} leads out of the folder for the masks")
        target = written / path.with_suffix(".png")
        if names.setdefault(target, name) != name:
            one, other = visible(names[target]), visible(name)
            raise DataError(f"the masks of {one} and {other} would both be {target.name}; rename one of the images")
        if target.resolve() in files:
            raise DataError(f"masks: the mask of {visible(name)} would replace an image; choose another folder")
        found[name] = target
    return found


def _paths(given: InputImages) -> dict[str, PurePosixPath]:
    """Return the paths below a folder that images have, by their names; those of a list that are missing have none.

    Files of a list or a table have their names or, where these are not different, their paths below the folder that all
    are in.
    """
    if given.folder:
        return {name: PurePosixPath(name) for name in given.names}
    images = {name: image for batch in given.batches() for name, image in batch if not isinstance(image, bytes)}
    on_disk = {name: user_path(image) for name, image in images.items() if isinstance(image, str | Path)}
    files = {name: Path(os.path.normpath(file.absolute())) for name, file in on_disk.items()}
    paths = {name: Path(file.name) for name, file in files.items()}
    if len({path.stem for path in paths.values()}) < len(set(files.values())):
        common = os.path.commonpath([file.parent for file in files.values()])
        paths = {name: file.relative_to(common) for name, file in files.items()}
    return {name: PurePosixPath(paths.get(name, f"{name}.png")) for name in images}


def _whole(given: Given | bytes, state: Mapping[str, Any]) -> Image.Image:
    """Return an image in its own size, upright and in three colours.

    Raises:
        DataError: it is not an image.
    """
    if isinstance(given, Image.Image):
        return whole_of(given, state.get("white"))
    return decode_whole(encoded(given), state.get("white"))[0]


@torch.inference_mode()
def segment(state: Mapping[str, Any], models: Sequence[Model], image: Image.Image) -> NDArray[np.uint8]:
    """Return the class of each pixel of an image, [height, width] of the image.

    It is scaled as in training, to data.size and then to the fraction of the last phase. The class scores are scaled
    back one class after the other, since those of a large image with many classes would not fit into memory.
    """
    device = next(models[0].parameters()).device
    height, width = state["size"]
    decoded = resized(image, state.get("decoded", (height, width)))
    pixels = normalised(torch.from_numpy(decoded)[None].to(device), (height, width))
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
