"""Pictures in, a class for each pixel out."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dlrunner.data.core.batching import batch_sizes, epoch_order
from dlrunner.data.core.splitting import TEST, TRAIN, VALID
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.images.loaders import normalised
from dlrunner.data.segmentation.dataset import SegmentationData, SegmentationTable
from dlrunner.data.segmentation.loaders import SegmentationLoader
from dlrunner.data.segmentation.masks import IGNORED, colours
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.metrics import MeanIoU, Metric, PixelAccuracy
from dlrunner.model import Example, Model
from dlrunner.models.unet import SegmentationDims
from dlrunner.ranges import Count, NonNegative
from dlrunner.schedules import Phase
from dlrunner.task import Loader, Split, Task
from dlrunner.tasks.segmentation import predictor as segmentation_predictor

PARTS: dict[Split, int] = {"train": TRAIN, "valid": VALID, "test": TEST}
PHASE_SETTINGS: Mapping[str, type | tuple[type, ...]] = {"scale": (int, float), "augment": bool}
NUM_SHOWN = 8
"""Pictures in a plot."""


class Segmentation(Task):
    """Pictures in augmented batches, their masks moved with them; judged by mean IoU.

    The loss is the mean over pictures of the mean cross entropy of their pixels, those that count nowhere left out: it
    is the same however the pictures are divided into batches.

    Args:
        data: the pictures with their masks.
        batch_size: training pictures in a batch.
        seed: of the order of the pictures and of their augmentation.
        device: where the batches are made.
        scale: pictures and masks are made smaller by this factor of data.size, in training and evaluation.
        augment: training pictures are changed at random. A phase may have its own scale and augment.
        flip, rotate, zoom, brightness, contrast: how far (see `Augmentation`); the last two leave masks alone.
        valid_batch_size: pictures at once where nothing is trained; by default what is fast on the device.
    """

    keeps_outputs = False
    fixed_shapes = True

    def __init__(
        self,
        data: SegmentationData,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        scale: Annotated[float, Field(gt=0, le=1)] = 1.0,
        augment: bool = True,
        flip: bool = True,
        rotate: NonNegative = 10.0,
        zoom: Annotated[float, Field(ge=1, le=4)] = 1.1,
        brightness: Annotated[float, Field(ge=0, le=1)] = 0.1,
        contrast: Annotated[float, Field(ge=0, le=1)] = 0.1,
        valid_batch_size: Count | None = None,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.usual = {"scale": scale, "augment": augment}
        self.now = dict(self.usual)
        self.augmentation = Augmentation(flip, rotate, zoom, brightness, contrast)
        self._known: tuple[Model, pd.DataFrame, list[float]] | None = None
        self._few = valid_batch_size or (8 if device.type == "cpu" else 64)

    @classmethod
    def check(cls, settings: Mapping[str, Any], phases: Sequence[Phase]) -> None:
        """Refuse settings of phases that do not exist."""
        for index, phase in enumerate(phases):
            for name, value in phase.task.items():
                place = f"phases[{index}].task.{name}"
                if name not in PHASE_SETTINGS:
                    raise ConfigError(f"{place}: is unknown; a phase may have {', '.join(PHASE_SETTINGS)}")
                fits = isinstance(value, PHASE_SETTINGS[name])
                if name == "scale" and (isinstance(value, bool) or not (fits and 0 < value <= 1)):
                    raise ConfigError(f"{place}: must be a number above 0, up to 1, not {value!r}")
                if not fits:
                    raise ConfigError(f"{place}: must be true or false, not {value!r}")

    @cached_property
    def table(self) -> SegmentationTable:
        """The pictures, read once."""
        table = self.data.read()
        if min(self.batch_size, len(table.rows(TRAIN))) < 2:
            raise ConfigError("batch_size: batch norm needs two training pictures in a batch, or more")
        return table

    @property
    def dims(self) -> SegmentationDims:
        """The number of classes."""
        return SegmentationDims(len(self.table.classes.names))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, now."""
        height, width = (max(32, round(side * self.now["scale"])) for side in self.table.size)
        return height, width

    def enter(self, phase: Phase) -> None:
        """Take on the phase's settings."""
        self.now = {**self.usual, **phase.task}

    def has_test(self) -> bool:
        """Tell whether some pictures are kept for the end."""
        return bool((self.table.split == TEST).any())

    @cached_property
    def _pixels(self) -> Tensor:
        """Pixels and masks, [pictures, height, width, 4], on the device where they take less than a third of it."""
        pixels = torch.from_numpy(self.table.pixels)
        if self.device.type == "cuda" and 3 * pixels.nbytes < torch.cuda.mem_get_info(self.device)[0]:
            return pixels.to(self.device)
        return pixels

    @cached_property
    def _codes(self) -> Tensor:
        return torch.from_numpy(self.table.classes.codes()).to(self.device)

    def batches(self, split: Split, epoch: int, start: int = 0) -> Loader:
        """Pictures and the classes of their pixels, in the order of (seed, epoch)."""
        rows = torch.from_numpy(self.table.rows(PARTS[split]))
        if split == "train":
            order = epoch_order(len(rows), self.seed, epoch)
            batches = list(torch.split(rows[order], batch_sizes(len(rows), self.batch_size)))
        else:
            batches = list(torch.split(rows, self._few))
        augmentation = self.augmentation if split == "train" and self.now["augment"] else None
        return SegmentationLoader(
            self._pixels, self._codes, batches, self.size, augmentation, (self.seed, epoch), start
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over pictures of the mean cross entropy of their pixels; a picture without any that count has 0."""
        losses = F.cross_entropy(outputs.float(), targets, ignore_index=IGNORED, reduction="none")
        counted = (targets != IGNORED).sum(dim=(1, 2)).clamp(min=1)
        return (losses.sum(dim=(1, 2)) / counted).mean()

    def metrics(self) -> Mapping[str, Metric]:
        """Mean IoU and pixel accuracy."""
        return {
            "mean_iou": MeanIoU(self.dims.num_classes, IGNORED),
            "pixel_accuracy": PixelAccuracy(IGNORED),
        }

    def sizes(self) -> Mapping[str, int]:
        """Pictures of each split, and classes."""
        found: dict[str, int] = {split: len(self.table.rows(part)) for split, part in PARTS.items()}
        return {**{split: count for split, count in found.items() if count}, "classes": self.dims.num_classes}

    def notes(self) -> Sequence[str]:
        """How pictures and masks were read."""
        return self.table.notes

    def split_statistics(self) -> SplitStatistics:
        """The pictures by their pixels; nothing is fitted on them before training."""
        table = self.table
        digests = {split: table.digests(part) for split, part in PARTS.items()}
        valid = table.split == VALID
        return SplitStatistics(
            "pictures",
            {split: found for split, found in digests.items() if split != "test" or len(found)},
            num_test_rows=int((table.of_test & valid).sum()),
        )

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """The class that most training pixels have, for every pixel."""
        train, valid = (self.table.counts[self.table.rows(part)].sum(axis=0) for part in (TRAIN, VALID))
        code = int(train.argmax())
        share = float(valid[code] / valid.sum())
        known = int((valid > 0).sum() + (valid[code] == 0))
        name = self.table.classes.names[code]
        return {f"{name} everywhere": {"valid/mean_iou": share / known, "valid/pixel_accuracy": share}}

    def artifacts(self, models: Sequence[Model]) -> Mapping[str, bytes]:
        """Return pictures.csv: how well each validation picture was done, the worst first."""
        table = self._judged(models)[0].drop(columns="row").round(6)
        return {"pictures.csv": table.to_csv(index=False).encode(errors="backslashreplace")}

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path) -> Sequence[Path]:
        """Some validation pictures with masks and predictions, the worst ones, and how well each class is found."""
        from dlrunner.reporting.plots import segmentation as plots

        (scores, ious), names, drawn = self._judged(models), self.table.classes.names, []
        some = scores.sort_values("row").iloc[:: -(-len(scores) // NUM_SHOWN)]
        for title, chosen, name in (
            ("Validation pictures", some, "segmentation"),
            ("The validation pictures with most wrong pixels", scores.head(NUM_SHOWN), "worst_pictures"),
        ):
            rows = chosen["row"].to_numpy(copy=True)
            shown = [
                (f"{share:.1%} right", self.table.pixels[row, ..., :3], mask, codes)
                for row, share, (mask, codes) in zip(
                    rows, chosen["pixel_accuracy"], self._predicted(models, rows), strict=True
                )
            ]
            drawn.append(plots.compared(title, shown, names, colours(len(names)), folder / f"{name}.png"))
        counts = self.table.counts[self.table.rows(VALID)].sum(axis=0)
        return [*drawn, plots.iou_by_class(ious, names, (counts / counts.sum()).tolist(), folder)]

    def _judged(self, models: Sequence[Model]) -> tuple[pd.DataFrame, list[float]]:
        """Return a row for each validation picture, the one with most wrong pixels first, and the IoU of each class."""
        if self._known is None or self._known[0] is not models[0]:
            rows, scores = self.table.rows(VALID), []
            confusion = MeanIoU(self.dims.num_classes, IGNORED)
            for row, (mask, codes) in zip(rows, self._predicted(models, rows), strict=True):
                confusion.count(torch.from_numpy(codes), torch.from_numpy(mask))
                right = (codes == mask)[mask != IGNORED]
                scores.append((int(row), self.table.names[row], float(right.mean()) if len(right) else np.nan))
            table = pd.DataFrame(scores, columns=["row", "picture", "pixel_accuracy"])
            self._known = models[0], table.sort_values("pixel_accuracy", kind="stable"), confusion.by_class()
        return self._known[1:]

    @torch.inference_mode()
    def _predicted(
        self, models: Sequence[Model], rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield mask and prediction of pictures, [height, width] each."""
        model = models[0].eval()
        batches = list(torch.split(torch.from_numpy(rows), self._few))
        for batch in SegmentationLoader(self._pixels, self._codes, batches, self.size):
            codes = model(*batch.inputs).argmax(dim=1)
            yield from zip(batch.targets.cpu().numpy(), codes.cpu().numpy(), strict=True)

    def state(self) -> dict[str, Any]:
        """The classes, and the size that pictures are scaled to."""
        return {"classes": self.table.classes.state(), "size": list(self.size)}

    @classmethod
    def dims_of(cls, state: Mapping[str, Any]) -> SegmentationDims:
        """Return `dims` from a stored state."""
        return SegmentationDims(len(state["classes"]["names"]))

    @classmethod
    def add_predict_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """What can be asked of a run."""
        parser.add_argument("path", metavar="FILE|FOLDER", help="a picture, or a folder or archive of pictures")
        parser.add_argument("--masks", metavar="FOLDER", help="where the masks go (NAME-masks, here)")

    @classmethod
    def predict(
        cls, state: Mapping[str, Any], models: Sequence[Model], arguments: argparse.Namespace
    ) -> pd.DataFrame | None:
        """Write the masks of pictures, and answer with the fractions of their classes."""
        return segmentation_predictor.predict(state, models, arguments.path, masks=arguments.masks)

    @classmethod
    def answers(cls, state: Mapping[str, Any], models: Sequence[Model]) -> segmentation_predictor.SegmentationAnswers:
        """Answer with the fractions of the classes, or with masks."""
        return segmentation_predictor.SegmentationAnswers(state, models)

    @classmethod
    def examples(cls, state: Mapping[str, Any], count: int) -> Mapping[str, Example]:
        """Clouds of colour: neighbouring pixels are alike, as in pictures."""
        clouds = torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(count)).mul(255)
        height, width = state["size"]
        return {"pictures": Example(normalised(clouds, (height, width)).contiguous(), ("rows", None, None, None))}
