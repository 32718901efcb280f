"""Semantic segmentation: a class for each pixel of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dlrunner.data.core.batching import rows_in_batches, shuffled_batches
from dlrunner.data.core.splitting import PART_CODES, TEST, TRAIN, VALID, split_sizes
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.images.loaders import MEAN, STD, pixels_on_device
from dlrunner.data.images.split_statistics import split_statistics
from dlrunner.data.segmentation.dataset import SegmentationData, SegmentationTable
from dlrunner.data.segmentation.loaders import SegmentationLoader
from dlrunner.data.segmentation.masks import IGNORED, colours
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.metrics import MeanIoU, Metric, PixelAccuracy
from dlrunner.model import AveragedOutputs, Model
from dlrunner.models.unet import SegmentationDims
from dlrunner.plot import Plot
from dlrunner.predictor import Predictor
from dlrunner.ranges import Count, NonNegative
from dlrunner.schedules import Phase
from dlrunner.task import Loader, Split, Task
from dlrunner.tasks.segmentation.predictor import SegmentationPredictor

NUM_SHOWN = 8
"""Images in a plot."""


class Segmentation(Task):
    """Images in augmented batches, their masks moved with them; monitored by mean IoU.

    The loss is the mean over images of the mean cross entropy of their pixels, without ignored ones: it is the same
    however the images are divided into batches.

    Args:
        data: the images with their masks.
        batch_size: training images in a batch.
        seed: of the order of the images and of their augmentation.
        device: where the batches are made.
        scale: the size of images and masks as a fraction of data.size, in training and evaluation.
        augment: training images are changed at random. A phase may have its own scale and augment.
        flip, rotate, zoom, brightness, contrast: how far (see `Augmentation`); the last two leave masks alone.
        valid_batch_size: images in a batch in evaluation; by default what is fast on the device.
    """

    keeps_outputs = False
    fixed_shapes = True
    phase_settings = ("scale", "augment")
    predictor: ClassVar[type[Predictor] | None] = SegmentationPredictor

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
        self.settings: Mapping[str, Any] = {"scale": scale, "augment": augment}
        self.augmentation = Augmentation(flip, rotate, zoom, brightness, contrast)
        self._scored: tuple[Model, pd.DataFrame, list[float]] | None = None
        self._valid_batch_size = valid_batch_size or (8 if device.type == "cpu" else 64)

    @cached_property
    def table(self) -> SegmentationTable:
        """The images, read once."""
        table = self.data.read()
        if min(self.batch_size, len(table.rows(TRAIN))) < 2:
            raise ConfigError("batch_size: batch norm needs two training images in a batch, or more")
        return table

    @property
    def dims(self) -> SegmentationDims:
        """The number of classes."""
        return SegmentationDims(len(self.table.classes.names))

    def settings_in(self, phase: Phase) -> Mapping[str, Any]:
        """Return scale and augment in a phase."""
        return {**self.settings, **phase.task}

    def size_in(self, phase: Phase) -> tuple[int, int]:
        """Return height and width of the batches in a phase."""
        scale = self.settings_in(phase)["scale"]
        height, width = (max(32, round(side * scale)) for side in self.table.size)
        return height, width

    def has_test(self) -> bool:
        """Tell whether there are test images."""
        return bool((self.table.split == TEST).any())

    @cached_property
    def _pixels(self) -> Tensor:
        """Pixels and masks, [images, height, width, 4]."""
        return pixels_on_device(self.table.pixels, self.device)

    @cached_property
    def _codes(self) -> Tensor:
        return torch.from_numpy(self.table.classes.codes()).to(self.device)

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Images and the classes of their pixels, in the order of (seed, epoch)."""
        rows = self.table.rows(PART_CODES[split])
        if split == "train":
            batches = shuffled_batches(rows, self.batch_size, self.seed, epoch)
        else:
            batches = rows_in_batches(rows, self._valid_batch_size)
        augmentation = self.augmentation if split == "train" and self.settings_in(phase)["augment"] else None
        key, size = (self.seed, epoch), self.size_in(phase)
        return SegmentationLoader(self._pixels, self._codes, batches, size, augmentation, key, start)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over images of the mean cross entropy of their pixels; an image whose pixels are all ignored has 0."""
        losses = F.cross_entropy(outputs.float(), targets, ignore_index=IGNORED, reduction="none")
        counted = (targets != IGNORED).sum(dim=(1, 2)).clamp(min=1)
        return (losses.sum(dim=(1, 2)) / counted).mean()

    def purpose(self) -> str:
        """Segment the images."""
        return "Segment the images"

    def metrics(self) -> Mapping[str, Metric]:
        """Mean IoU and pixel accuracy."""
        return {
            "mean_iou": MeanIoU(self.dims.num_classes, IGNORED),
            "pixel_accuracy": PixelAccuracy(IGNORED),
        }

    def sizes(self) -> Mapping[str, int]:
        """Images of each split, and classes."""
        return {**split_sizes(self.table.split), "classes": self.dims.num_classes}

    def notes(self) -> Sequence[str]:
        """How images and masks were read."""
        return self.table.notes

    def split_statistics(self) -> SplitStatistics:
        """The images by their pixels; nothing is fitted on them before training."""
        return split_statistics(self.table, self.table.counts, "pixels of ", *self.table.classes.names)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """The majority class of the training pixels for every pixel."""
        train, valid = (self.table.counts[self.table.rows(part)].sum(axis=0) for part in (TRAIN, VALID))
        code = int(train.argmax())
        fraction = float(valid[code] / valid.sum())
        known = int((valid > 0).sum() + (valid[code] == 0))
        name = self.table.classes.names[code]
        return {f"{name} everywhere": {"valid/mean_iou": fraction / known, "valid/pixel_accuracy": fraction}}

    def artifacts(self, models: Sequence[Model], phase: Phase) -> Mapping[str, bytes]:
        """Return images.csv: the pixel accuracy of each validation image, the lowest first."""
        table = self._scores(models, phase)[0].drop(columns="row").round(6)
        return {"images.csv": table.to_csv(index=False).encode(errors="backslashreplace")}

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Some validation images with masks and predictions, the worst ones, and the IoU of each class."""
        from dlrunner.reporting.plots import segmentation as plots

        (scores, ious), names, drawn = self._scores(models, phase), self.table.classes.names, []
        some = scores.sort_values("row").iloc[:: -(-len(scores) // NUM_SHOWN)]
        for title, chosen, name in (
            ("Images, masks and predictions (validation)", some, "segmentation"),
            ("Images with the most wrong pixels (validation)", scores.head(NUM_SHOWN), "worst_images"),
        ):
            rows = chosen["row"].to_numpy(copy=True)
            predicted = self._predicted(models, rows, phase)
            shown = [
                (_label(fraction), str(self.table.names[row]), self.table.pixels[row, ..., :3], mask, codes)
                for row, fraction, (mask, codes) in zip(rows, chosen["pixel_accuracy"], predicted, strict=True)
            ]
            drawn.append(plots.with_masks(title, shown, names, colours(len(names)), folder / f"{name}.png"))
        counts = self.table.counts[self.table.rows(VALID)].sum(axis=0)
        return [*drawn, plots.iou_by_class(ious, names, (counts / counts.sum()).tolist(), folder)]

    def _scores(self, models: Sequence[Model], phase: Phase) -> tuple[pd.DataFrame, list[float]]:
        """Return a row for each validation image, the lowest accuracy first, and the IoU of each class."""
        if self._scored is None or self._scored[0] is not models[0]:
            rows, scores = self.table.rows(VALID), []
            confusion = MeanIoU(self.dims.num_classes, IGNORED)
            for row, (mask, codes) in zip(rows, self._predicted(models, rows, phase), strict=True):
                confusion.count(torch.from_numpy(codes), torch.from_numpy(mask))
                correct = (codes == mask)[mask != IGNORED]
                scores.append((int(row), self.table.names[row], float(correct.mean()) if len(correct) else np.nan))
            table = pd.DataFrame(scores, columns=["row", "image", "pixel_accuracy"])
            self._scored = models[0], table.sort_values("pixel_accuracy", kind="stable"), confusion.by_class()
        return self._scored[1:]

    @torch.inference_mode()
    def _predicted(
        self, models: Sequence[Model], rows: NDArray[np.int64], phase: Phase
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield mask and prediction of images, [height, width] each."""
        model = AveragedOutputs(models, self.average).eval()
        batches = rows_in_batches(rows, self._valid_batch_size)
        for batch in SegmentationLoader(self._pixels, self._codes, batches, self.size_in(phase)):
            codes = model(*batch.inputs).outputs.argmax(dim=1)
            yield from zip(batch.targets.cpu().numpy(), codes.cpu().numpy(), strict=True)

    def state(self, phase: Phase) -> dict[str, Any]:
        """The classes, how images are scaled, and the column of a table with their paths."""
        size, table = list(self.size_in(phase)), self.table
        return {
            "classes": table.classes.state(), "size": size, "decoded": list(table.size), "column": table.column,
            "white": table.white, "files": dict(self.data.file_settings()), "mean": list(MEAN), "std": list(STD),
        }  # fmt: skip


def _label(accuracy: float) -> str:
    return "all pixels ignored" if np.isnan(accuracy) else f"{accuracy:.1%} correct"
