"""What a trained classifier says of pictures, and what it looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dlrunner.data.core.source import ARCHIVES, ArchiveOrFolder
from dlrunner.data.core.targets import Target
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.images.dataset import MOST_NAMED
from dlrunner.data.images.decoding import Pixels, decode, pixels_of
from dlrunner.data.images.files import is_image
from dlrunner.data.images.loaders import ImageLoader, normalised
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.model import Example, Model, forward_pass
from dlrunner.models.image import ImageDims
from dlrunner.predictor import Predictor
from dlrunner.ranges import Count
from dlrunner.system.terminal import visible
from dlrunner.tasks.common.inputs import listed, with_notes
from dlrunner.tasks.common.outputs import probabilities
from dlrunner.tasks.image.grad_cam import grad_cam

BATCH = 64

Given = str | Path | Image.Image


class PicturePredictor(Predictor):
    """Answers about pictures; the probabilities of several models are averaged."""

    example = 'predictor.predict(["a.jpg", "b.jpg"])'
    limits = ("Every picture is taken for one of the classes of the training data, whatever it shows.",)

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.target = Target.from_state(state["target"])

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> ImageDims:
        """The number of classes."""
        return ImageDims(Target.from_state(state["target"]).num_outputs)

    def examples(self, count: int) -> Mapping[str, Example]:
        """Clouds of colour: neighbouring pixels are alike, as in pictures."""
        clouds = torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(count)).mul(255)
        return {"pictures": Example(normalised(clouds, self.state["size"]).contiguous(), ("rows", None, None, None))}

    def predict(self, pictures: Given | Sequence[Given], *, top: Count = 5, submission: bool = False) -> pd.DataFrame:
        """Return the likeliest classes with their probabilities: of one picture a row each, of several a row a picture.

            predictor.predict("a.jpg")
            predictor.predict(["a.jpg", PIL.Image.open("b.png")], top=3)

        Of labels every one has its column. What cannot be read in a folder is left out, and told.

        Args:
            pictures: a picture, or a folder or archive of pictures; in Python several pictures too, in files or opened.
            top: so many of the likeliest classes.
            submission: as Kaggle wants it: id and the probability of every class.

        Raises:
            ConfigError: there is no such file, or it is something else.
            DataError: one of them is no picture, or none of the folder can be read.
        """
        bad: dict[str, str] = {}
        names: list[str] = []
        found: list[Tensor] = []
        folder = _folder(pictures)
        for some in _in_folder(folder) if folder else _in_batches(pictures):
            pixels = []
            for name, picture in some:
                try:
                    pixels.append(self._pixels(picture))
                    names.append(visible(name))  # a table holds no name that is not UTF-8
                except DataError as error:
                    if not folder:
                        raise DataError(f"{visible(name)} {error}") from None
                    bad[name] = str(error)
            if pixels:
                found.append(outputs_of(self.state, self.target, self.models, np.stack(pixels)))
        if folder and not names:
            name, reason = next(iter(bad.items()))
            raise DataError(f"{folder / name} {reason}")
        outputs = torch.cat(found)
        if submission:
            answer = self._submission(names, outputs)
        elif isinstance(pictures, Given) and not folder and self.target.has_one_class:
            answer = self._classes(outputs, top)
        else:
            answer = pd.concat([pd.DataFrame({"picture": names}), top_of(self.target, outputs, top)], axis=1)
        if not bad:
            return answer
        told = "; ".join(f"{name} {reason}" for name, reason in list(bad.items())[:MOST_NAMED])
        return with_notes(answer, [f"{len(bad):,} of {len(bad) + len(names):,} pictures cannot be read: {told}"])

    def explain(self, picture: Given, *, class_: str | None = None, out: Path | None = None) -> str:
        """Draw what an answer about a picture rests on over the picture, and say the answer.

            predictor.explain("a.jpg", out="heat.png")

        Args:
            picture: a picture.
            class_: explain this class; the likeliest one by default.
            out: where the heat map goes; by default PICTURE-explained.png, here.

        Raises:
            ConfigError: there is no such file or class.
            DataError: it is no picture, or the heat map cannot be written.
        """
        from dlrunner.reporting.plots.images import explained

        names = [str(each) for each in self.target.classes]
        if _folder(picture):
            raise ConfigError(f"{picture} is no picture; give one")
        ((name, given),) = next(_in_batches(picture))
        if class_ is not None and class_ not in names:
            raise ConfigError(f"class: there is no class {class_}; {did_you_mean(class_, names)}")
        try:
            pixels = self._pixels(given)
        except DataError as error:
            raise DataError(f"{name} {error}") from None
        chances = probabilities(self.target, outputs_of(self.state, self.target, self.models, pixels[None]))[0]
        answer = int(chances.argmax()) if class_ is None else names.index(class_)
        heat = heat_of(self.models, pixels, self.state["size"], answer)
        file = user_path(out or f"{Path(name).stem}-explained.png")
        best = [(names[code], float(chances[code])) for code in np.argsort(-chances, kind="stable")[:5]]
        try:
            explained(pixels, heat, names[answer], best, file)
        except OSError as error:
            raise DataError(f"out: {file} cannot be written ({error.strerror})") from None
        said = "\n".join(f"{chance:7.1%}  {name}" for name, chance in best)
        return f"{said}\nwhat speaks for {names[answer]}: {file}"

    def _pixels(self, given: Given | bytes) -> Pixels:
        size, fit = self.state["decoded"], self.state["fit"]
        if isinstance(given, Image.Image):
            return pixels_of(given, size, fit)
        return decode(given if isinstance(given, bytes) else user_path(given).read_bytes(), size, fit)[0]

    def _classes(self, outputs: Tensor, top: int) -> pd.DataFrame:
        """Return the likeliest classes of one picture, [1, classes]: a row each."""
        chances = probabilities(self.target, outputs)[0]
        best = np.argsort(-chances, kind="stable")[:top]
        classes = [str(self.target.classes[code]) for code in best]
        return pd.DataFrame({self.target.names[0]: classes, "probability": chances[best].round(4)})

    def _submission(self, names: Sequence[str], outputs: Tensor) -> pd.DataFrame:
        """Return ids and the probability of every class, to be written as it is."""
        ids = pd.DataFrame({"id": [PurePosixPath(name).stem for name in names]})
        columns = [str(each) for each in self.target.classes]
        answer = pd.concat([ids, pd.DataFrame(probabilities(self.target, outputs), columns=columns)], axis=1)
        answer.attrs["raw"] = True
        return answer


def top_of(target: Target, outputs: Tensor, number: int) -> pd.DataFrame:
    """Return the likeliest classes of each row with their probabilities, the likeliest first; labels all."""
    chances = probabilities(target, outputs)
    names = np.array([str(each) for each in target.classes], dtype=object)
    if not target.has_one_class:
        labels = [", ".join(names[row > 0.5]) or "none" for row in chances]
        columns = {f"p({name})": chances[:, code].round(4) for code, name in enumerate(names)}
        return pd.DataFrame({"labels": labels, **columns})
    order = np.argsort(-chances, axis=1, kind="stable")[:, : min(number, len(names))]
    columns = {}
    for place in range(order.shape[1]):
        word = "prediction" if place == 0 else f"prediction_{place + 1}"
        columns[word] = names[order[:, place]]
        columns[f"p_{place + 1}"] = np.take_along_axis(chances, order[:, place : place + 1], 1)[:, 0].round(4)
    return pd.DataFrame(columns)


@torch.inference_mode()
def outputs_of(state: Mapping[str, Any], target: Target, models: Sequence[Model], pixels: Pixels) -> Tensor:
    """Return what the models say about pictures, looked at as often as the run did."""
    device = next(models[0].parameters()).device
    given, none = torch.from_numpy(pixels), torch.zeros(1, device=device)
    augmentation = Augmentation(**state["augmentation"])
    found = []
    for look in range(1 + state["tta"]):
        changed = augmentation if look else None
        # Each picture is changed by itself: its answer does not depend on those beside it.
        loaders = (
            ImageLoader(each[None], none, [torch.zeros(1, dtype=torch.int64)], state["size"], changed, (0, look))
            for each in given
        )
        pictures = torch.cat([batch.inputs[0] for loader in loaders for batch in loader])
        found += [forward_pass(model, pictures).outputs.float().cpu() for model in models]
    return target.average(found) if len(found) > 1 else found[0]


def heat_of(models: Sequence[Model], pixels: Pixels, size: int, answer: int) -> NDArray[np.float32]:
    """Return what an answer about a picture, [height, width, 3], rests on, [height, width], from 0 to 1."""
    return grad_cam(models, normalised(torch.from_numpy(np.array(pixels[None])), size), answer, pixels.shape[0])


def _folder(given: Any) -> Path | None:
    """Return the folder or archive that is given, if it is one."""
    if not isinstance(given, str | Path):
        return None
    path = user_path(given)
    return path if path.is_dir() or (path.is_file() and path.name.lower().endswith(ARCHIVES)) else None


def _in_folder(path: Path) -> Iterator[list[tuple[str, bytes]]]:
    """Yield names and contents of the pictures in a folder or archive, some at a time."""
    place = ArchiveOrFolder(path)
    names = sorted(name for name in place.names() if is_image(name))
    if not names:
        raise DataError(f"{path} holds no pictures")
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        yield list(zip(some, place.contents(some), strict=True))


def _in_batches(given: Given | Sequence[Given]) -> Iterator[list[tuple[str, Given]]]:
    """Yield names and pictures, some at a time, where all files are there."""
    pictures = listed(given, "files or PIL pictures", (str, Path, Image.Image))
    for each in pictures:
        if isinstance(each, str | Path) and not user_path(each).is_file():
            raise ConfigError(f"there is no file {user_path(each)}")
    names = [f"picture {i}" if isinstance(each, Image.Image) else str(each) for i, each in enumerate(pictures, start=1)]
    named = list(zip(names, pictures, strict=True))
    for start in range(0, len(named), BATCH):
        yield named[start : start + BATCH]
