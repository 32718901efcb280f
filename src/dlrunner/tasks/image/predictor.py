"""What is asked of a trained classifier of pictures: `dlrun predict RUN FILE|FOLDER`, `dlrun explain RUN IMAGE`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
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
from dlrunner.data.images.decoding import Fit, Pixels, decode, pixels_of
from dlrunner.data.images.files import is_picture
from dlrunner.data.images.loaders import ImageLoader, normalised
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.model import Model, forward_pass
from dlrunner.system.terminal import visible
from dlrunner.tasks.common.inputs import check_top, listed
from dlrunner.tasks.common.outputs import probabilities
from dlrunner.tasks.image.grad_cam import grad_cam

BATCH = 64

Given = str | Path | Image.Image


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


class PictureAnswers:
    """Answers about pictures.

    Args:
        state: what the task stored.
        models: trained classifiers; the probabilities of several are averaged.
    """

    example = 'predictor.predict(["a.jpg", "b.jpg"])'
    limits = ("Every picture is taken for one of the classes of the training data, whatever it shows.",)

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state, self.models, self.target = state, models, Target.from_state(state["target"])

    def predict(self, pictures: Given | Sequence[Given], *, top: int = 5) -> pd.DataFrame:
        """Return the likeliest classes of each picture with their probabilities; of labels, each by itself.

        Args:
            pictures: files, or pictures that Pillow has opened; one or several.
            top: so many classes.

        Raises:
            ConfigError: there is no such file, or it is something else.
            DataError: one of them is no picture.
        """
        check_top(top)
        asked = listed(pictures, "files or PIL pictures", (str, Path, Image.Image))
        names = [
            visible(str(each)) if isinstance(each, str | Path) else f"picture {i}" for i, each in enumerate(asked, 1)
        ]
        found = []
        for start in range(0, len(asked), BATCH):
            pixels = []
            for name, each in zip(names[start : start + BATCH], asked[start : start + BATCH], strict=True):
                try:
                    pixels.append(self._pixels(each))
                except DataError as error:
                    raise DataError(f"{name} {error}") from None
            found.append(outputs_of(self.state, self.target, self.models, np.stack(pixels)))
        return pd.concat([pd.DataFrame({"picture": names}), top_of(self.target, torch.cat(found), top)], axis=1)

    def _pixels(self, given: Given) -> Pixels:
        if isinstance(given, Image.Image):
            return pixels_of(given, self.state["decoded"], self.state["fit"])
        path = user_path(given)
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
        return _decoded(path.read_bytes(), self.state)


def recognise(state: Mapping[str, Any], models: Sequence[Model], arguments: argparse.Namespace) -> pd.DataFrame:
    """Answer about a picture, a folder or an archive, of which what cannot be read is left out and told.

    Raises:
        ConfigError: there is no such file.
        DataError: it is no picture, or none of the folder can be read.
    """
    target = Target.from_state(state["target"])
    check_top(arguments.top)
    if arguments.submission and arguments.out is None:
        raise ConfigError(f"--submission: {len(target.classes):,} columns fit no terminal; add --out submission.csv")
    place, names = _asked(user_path(arguments.path))
    bad: dict[str, str] = {}
    read: list[str] = []
    found: list[Tensor] = []
    for start in range(0, len(names), BATCH):
        chunk, pixels = names[start : start + BATCH], []
        for name, content in zip(chunk, place.contents(chunk), strict=True):
            try:
                pixels.append(_decoded(content, state))
                read.append(visible(name))  # a table holds no name that is not UTF-8
            except DataError as error:
                bad[name] = str(error)
        if pixels:
            found.append(outputs_of(state, target, models, np.stack(pixels)))
    if bad and not read:
        name, reason = next(iter(bad.items()))
        raise DataError(f"{place.path / name} {reason}")
    outputs = torch.cat(found)
    if arguments.submission:
        chances = probabilities(target, outputs)
        ids = pd.DataFrame({"id": [PurePosixPath(name).stem for name in read]})
        answer = pd.concat([ids, pd.DataFrame(chances, columns=[str(each) for each in target.classes])], axis=1)
    elif len(names) == 1 and target.has_one_class:
        chances = probabilities(target, outputs)[0]
        best = np.argsort(-chances, kind="stable")[: arguments.top]
        classes = [str(target.classes[code]) for code in best]
        answer = pd.DataFrame({target.names[0]: classes, "probability": chances[best].round(4)})
    else:
        answer = pd.concat([pd.DataFrame({"picture": read}), top_of(target, outputs, arguments.top)], axis=1)
    if bad:
        named = "; ".join(f"{name} {reason}" for name, reason in list(bad.items())[:MOST_NAMED])
        answer.attrs["note"] = f"{len(bad):,} of {len(names):,} pictures cannot be read: {named}"
    return answer


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


def explain(state: Mapping[str, Any], models: Sequence[Model], arguments: argparse.Namespace) -> str:
    """Draw what the answer about a picture rests on, and say the answer.

    Raises:
        ConfigError: there is no such file or class.
        DataError: it is no picture.
    """
    from dlrunner.reporting.plots.images import explained

    target = Target.from_state(state["target"])
    names = [str(each) for each in target.classes]
    place, found = _asked(user_path(arguments.path))
    if len(found) != 1:
        raise ConfigError(f"{arguments.path} holds {len(found):,} pictures; give one")
    if arguments.name is not None and arguments.name not in names:
        raise ConfigError(f"--class: there is no class {arguments.name}; {did_you_mean(arguments.name, names)}")
    try:
        pixels = _decoded(next(iter(place.contents(found))), state)
    except DataError as error:
        raise DataError(f"{arguments.path} {error}") from None
    chances = probabilities(target, outputs_of(state, target, models, pixels[None]))[0]
    answer = int(chances.argmax()) if arguments.name is None else names.index(arguments.name)
    heat = heat_of(models, pixels, state["size"], answer)
    out = user_path(arguments.out) if arguments.out else Path(f"{user_path(arguments.path).stem}-explained.png")
    best = [(names[code], float(chances[code])) for code in np.argsort(-chances, kind="stable")[:5]]
    try:
        explained(pixels, heat, names[answer], best, out)
    except OSError as error:
        raise DataError(f"--out: {out} cannot be written ({error.strerror})") from None
    said = "\n".join(f"{chance:7.1%}  {name}" for name, chance in best)
    return f"{said}\nwhat speaks for {names[answer]}: {out}"


def heat_of(models: Sequence[Model], pixels: Pixels, size: int, answer: int) -> NDArray[np.float32]:
    """Return what an answer about a picture, [height, width, 3], rests on, [height, width], from 0 to 1."""
    return grad_cam(models, normalised(torch.from_numpy(np.array(pixels[None])), size), answer, pixels.shape[0])


def _decoded(content: bytes, state: Mapping[str, Any]) -> Pixels:
    fit: Fit = state["fit"]
    return decode(content, state["decoded"], fit)[0]


def _asked(path: Path) -> tuple[ArchiveOrFolder, list[str]]:
    """Return where the pictures are, and their names: of one file, or of all pictures in a folder or archive."""
    if not path.exists():
        raise ConfigError(f"there is no file or folder {path}")
    if path.is_file() and not path.name.lower().endswith(ARCHIVES):
        return ArchiveOrFolder(path.parent), [path.name]
    place = ArchiveOrFolder(path)
    names = sorted(name for name in place.names() if is_picture(name))
    if not names:
        raise DataError(f"{path} holds no pictures")
    return place, names
