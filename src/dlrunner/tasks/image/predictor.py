"""Predictions of a trained image classifier, and Grad-CAM heat maps that explain them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dlrunner.data.core.input_columns import append_predictions
from dlrunner.data.core.targets import Target, shown
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.images.decoding import Pixels, decode, pixels_of
from dlrunner.data.images.loaders import normalised, view_loader
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.image import ImageDims
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import Predictor, RowField
from dlrunner.ranges import Count
from dlrunner.row_blocks import KeptRows
from dlrunner.system.terminal import visible
from dlrunner.tasks.image.grad_cam import grad_cam
from dlrunner.tasks.image.inputs import Given, Named, encoded, folder_of, named, of_request, read_images

TOP = 5
"""Most likely classes in predictions.csv and in answers to requests."""


class ImagePredictor(Predictor):
    """Classifies images; an ensemble averages the probabilities of its models."""

    example = 'predictor.predict(["a.jpg", "b.jpg"])'
    limits = ("Every image gets one of the classes of the training data, whatever it shows.",)

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.target = Target.from_state(state["target"])

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> ImageDims:
        """The number of classes."""
        return ImageDims(Target.from_state(state["target"]).num_outputs)

    @property
    def output_formula(self) -> str:
        """Of the target."""
        return self.target.formula()

    @property
    def text_columns(self) -> Sequence[str]:
        """Files and names of classes."""
        others = (f"prediction_{rank}" for rank in range(2, TOP + 1))
        return list(dict.fromkeys(["image", *self.target.class_columns, *others]))

    def examples(self, count: int) -> Mapping[str, Example]:
        """Smooth random colours: neighbouring pixels are alike, as in photographs."""
        noise = torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(count)).mul(255)
        return {"images": Example(normalised(noise, self.state["size"]).contiguous(), ("rows", None, None, None))}

    def predict(
        self,
        images: Given | Sequence[Given],
        *,
        column: str | None = None,
        only: list[str] | None = None,
        top: Count = 5,
        submission: bool = False,
    ) -> pd.DataFrame:
        """Return the most likely classes and their probabilities: one row per image, or per class of a single one.

            predictor.predict("a.jpg")
            predictor.predict(["a.jpg", PIL.Image.open("b.png")], top=3)
            predictor.predict("new.csv", column="file", only=["nr"])

        For labels there is one column each. Unreadable files of a folder, a list or a table have no prediction, but a
        reason in the column `problem`.

        Args:
            images: an image, a folder or archive of images, a table or a list (.txt) of paths, or - for one of these on
                standard input; in Python also several images, in files or opened, or a DataFrame.
            column: column of the paths, if it is a table.
            only: columns of the table next to the predictions, instead of all; none: predictions alone.
            top: number of most likely classes.
            submission: Kaggle's format: id and the probability of every class.

        Raises:
            ConfigError: a file does not exist, or an argument is not an image.
            DataError: a file is not an image, or no file of the folder can be read.
        """
        given = read_images(images, column, self.state.get("column"), self.state.get("files"))
        problems, outputs = self._outputs(given.batches(), given.keeps_bad)
        if given.folder and len(problems) == len(given.names):
            raise DataError(f"{given.folder / given.names[0]} {problems[0][1]}")
        if submission:
            answer, own = self._submission(given.names, outputs), ["id"]
        elif given.is_single and only is None and self.target.has_one_class:
            answer, own = self._classes(outputs, top), []
        else:
            inputs = given.columns(only)
            answer = append_predictions(inputs, top_classes(self.target, outputs, top))
            own = list(answer.columns[: inputs.shape[1]])
        answer = with_notes(with_problems(answer, own, problems), given.notes)
        return answer.drop(columns="problem") if submission and problems else answer  # Kaggle's format

    def explain(self, image: Given, *, class_: str | None = None, out: Path | None = None) -> str:
        """Draw a heat map of the regions behind a prediction (Grad-CAM), and return the likeliest classes.

            predictor.explain("a.jpg", out="heat.png")

        Args:
            image: an image file; in Python also a PIL image.
            class_: the class to explain; by default the most likely one.
            out: file of the heat map; by default IMAGE-explained.png in the working directory.

        Raises:
            ConfigError: the file or the class does not exist.
            DataError: the file is not an image, or the heat map cannot be written.
        """
        from dlrunner.reporting.plots.images import explained

        names = [str(each) for each in self.target.classes]
        if folder_of(image):
            raise ConfigError(f"{image} is a folder or archive; give a single image")
        ((name, given),) = named(image)
        if class_ is not None and class_ not in names:
            raise ConfigError(f"class: there is no class {class_}; {did_you_mean(class_, names)}")
        try:
            pixels = self._pixels(given)
        except DataError as error:
            raise DataError(f"{name} {error}") from None
        probs = self.target.probabilities(predict_outputs(self.state, self.target, self.models, pixels[None]))[0]
        answer = int(probs.argmax()) if class_ is None else names.index(class_)
        heat = heat_map(self.models, pixels, self.state["size"], answer)
        file = user_path(out or f"{Path(name).stem}-explained.png")
        best = [(names[code], float(probs[code])) for code in np.argsort(-probs, kind="stable")[:5]]
        try:
            explained(pixels, heat, names[answer], best, file)
        except OSError as error:
            raise DataError(f"out: {file} cannot be written ({error.strerror})") from None
        lines = "\n".join(f"{probability:7.1%}  {name}" for name, probability in best)
        return f"{lines}\nheat map for {names[answer]}: {file}"

    def row_fields(self) -> Sequence[RowField]:
        """Return the image."""
        return [RowField("image", "image", description="a JPEG, PNG or other file of Pillow's formats")]

    def predict_request(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the most likely classes of each image and their probabilities, as of the files of a folder."""
        problems, outputs = self._outputs(of_request(rows["image"].tolist()), keeps_bad=True)
        names = pd.DataFrame({"image": [f"image {number}" for number in range(1, len(rows) + 1)]})
        return with_problems(append_predictions(names, top_classes(self.target, outputs, TOP)), ["image"], problems)

    def _outputs(self, batches: Iterable[Sequence[Named]], keeps_bad: bool) -> tuple[list[tuple[int, str]], Tensor]:
        """Return the rows of images that cannot be read with the reason, and the outputs, 0 for these.

        Raises:
            DataError: one cannot be read, unless these are kept.
        """
        problems: list[tuple[int, str]] = []
        read: list[int] = []
        found, count = KeptRows(), 0
        for batch in batches:
            pixels = []
            for row, (name, image) in enumerate(batch, start=count):
                try:
                    pixels.append(self._pixels(image))
                    read.append(row)
                except DataError as error:
                    if not keeps_bad:
                        raise DataError(f"{visible(name)} {error}") from None
                    problems.append((row, str(error)))
            count += len(batch)
            if pixels:
                found.add(predict_outputs(self.state, self.target, self.models, np.stack(pixels)))
        known = found.joined() if len(found) else torch.zeros(0, *self._output_shape())
        return problems, _in_rows(known, read, count)

    def _output_shape(self) -> tuple[int, ...]:
        """Return the shape of the output of one image."""
        return () if self.target.num_outputs == 1 else (self.target.num_outputs,)

    def _pixels(self, given: Given | bytes) -> Pixels:
        settings = self.state["decoded"], self.state["fit"], self.state.get("white")
        if isinstance(given, Image.Image):
            return pixels_of(given, *settings)
        return decode(encoded(given), *settings)[0]

    def _classes(self, outputs: Tensor, top: int) -> pd.DataFrame:
        """Return the most likely classes of one image, [1, classes], one row each."""
        probs = self.target.probabilities(outputs)[0]
        best = np.argsort(-probs, kind="stable")[:top]
        classes = [str(self.target.classes[code]) for code in best]
        return pd.DataFrame({self.target.names[0]: classes, "probability": shown(probs[best])})

    def _submission(self, names: Sequence[str], outputs: Tensor) -> pd.DataFrame:
        """Return ids and the probability of every class; `raw`: written as they are."""
        ids = pd.DataFrame({"id": [visible(PurePosixPath(name).stem) for name in names]})
        columns = [str(each) for each in self.target.classes]
        answer = pd.concat([ids, pd.DataFrame(self.target.probabilities(outputs), columns=columns)], axis=1)
        answer.attrs["raw"] = True
        return answer


def _in_rows(outputs: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Return outputs in their rows of a table; those of the others are 0."""
    found = outputs.new_zeros((count, *outputs.shape[1:]))
    found[torch.tensor(rows, dtype=torch.int64)] = outputs
    return found


def top_classes(target: Target, outputs: Tensor, number: int) -> pd.DataFrame:
    """Return the most likely classes of each row with their probabilities, in descending order; all labels."""
    probs = target.probabilities(outputs)
    names = np.array([str(each) for each in target.classes], dtype=object)
    if not target.has_one_class:
        labels = [", ".join(names[row > 0.5]) or "none" for row in probs]
        columns = {f"p({name})": shown(probs[:, code]) for code, name in enumerate(names)}
        return pd.DataFrame({"labels": labels, **columns})
    order = np.argsort(-probs, axis=1, kind="stable")[:, : min(number, len(names))]
    columns = {}
    for rank in range(order.shape[1]):
        word = "prediction" if rank == 0 else f"prediction_{rank + 1}"
        columns[word] = names[order[:, rank]]
        columns[f"p_{rank + 1}"] = shown(np.take_along_axis(probs, order[:, rank : rank + 1], 1)[:, 0])
    return pd.DataFrame(columns)


@torch.inference_mode()
def predict_outputs(state: Mapping[str, Any], target: Target, models: Sequence[Model], pixels: Pixels) -> Tensor:
    """Return the averaged outputs of the models on images, with the number of TTA views of the run.

    Each image is classified by itself: its prediction does not depend on the others, and on a CPU a batch
    is no faster.
    """
    device = next(models[0].parameters()).device
    none, first = torch.zeros(1, device=device), [torch.zeros(1, dtype=torch.int64)]
    augmentation = Augmentation(**state["augmentation"])
    outputs = KeptRows()
    for each in torch.from_numpy(pixels):
        found = []
        for view in range(1 + state["tta"]):
            for batch in view_loader(each[None].clone(), none, first, state["size"], augmentation, view):
                found += [forward_pass(model, *batch.inputs).outputs.float().cpu() for model in models]
        outputs.add(target.average(found) if len(found) > 1 else found[0])
    return outputs.joined()


def heat_map(models: Sequence[Model], pixels: Pixels, size: int, answer: int) -> NDArray[np.float32]:
    """Return the Grad-CAM heat map of an image, [height, width, 3], as [height, width] from 0 to 1."""
    return grad_cam(models, normalised(torch.from_numpy(np.array(pixels[None])), size), answer, pixels.shape[0])
