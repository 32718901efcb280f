"""Image classification: one class or several labels per image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dlrunner.data.core.batching import rows_in_batches, shuffled_batches
from dlrunner.data.core.cache import cache_dir
from dlrunner.data.core.splitting import (
    PART_CODES,
    TEST,
    TRAIN,
    UNUSED,
    VALID,
    split_sizes,
)
from dlrunner.data.core.targets import Target
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.images.dataset import ImageSource, ImageTable
from dlrunner.data.images.loaders import MEAN, STD, FeatureLoader, ImageLoader, pixels_on_device, view_loader
from dlrunner.data.images.split_statistics import split_statistics
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.model import Model
from dlrunner.models.image import ImageClassifier, ImageDims, pretrained
from dlrunner.models.vision.backbones import MOST_STATISTICS_GAP, statistics_gap
from dlrunner.plot import Plot
from dlrunner.prediction_table import with_distinct_names
from dlrunner.ranges import Count, Natural, NonNegative
from dlrunner.schedules import Phase
from dlrunner.system.precision import autocast_dtype, without_autocast
from dlrunner.task import Loader, Split
from dlrunner.tasks.classification import Classification, ClassWeights, absent_classes, class_plots
from dlrunner.tasks.image.defaults import recommended_for
from dlrunner.tasks.image.features import FeaturePass, Features, by_image
from dlrunner.tasks.image.predictor import TOP, ImagePredictor, heat_map, top_classes

ONCE = "features are computed once per image, so augmentation is impossible"
NUM_CHECKED = 64
"""Images on which the backbone's batch norm statistics are checked."""
MOST_IMAGES = 4_000
"""Of more images a CPU does not compute features for a baseline alone."""


class ImageClassification(Classification):
    """Augmented image batches, or precomputed features of a frozen backbone; monitors accuracy, or F1 for labels.

    Args:
        data: images with their classes.
        batch_size: training images per batch.
        seed: of the shuffling and the augmentation.
        device: where batches are augmented.
        phases: of the training, for a note on images that one of them enlarges.
        metrics: the first one is monitored; by default those of the target's kind.
        class_weights: `balanced`, or weights by class, of the images in the loss, of all splits.
        size: image side in pixels in training and evaluation; by default data.size.
        augment: augment training images at random.
        flip, rotate, zoom, brightness, contrast: strength of the augmentation (see `Augmentation`).
        tta: test-time augmentation: number of augmented views that are averaged with the plain one after training.
        precompute: compute the features of the frozen backbone once and cache them.
            A phase may have its own size, augment and precompute; `auto` is decided by `recommended`.
        baseline: compare with class frequencies, and a logistic regression on features of the frozen backbone.
        valid_batch_size: images per batch in evaluation and feature extraction; by default what is fast on the device.
    """

    fixed_shapes = True
    phase_settings = ("size", "augment", "precompute")
    auto_settings = (
        *("batch_size", "epochs", "freeze_to", "model.backbone", "model.variant", "model.weights"),
        *("task.augment", "task.precompute"),
    )
    predictor = ImagePredictor
    # experiment=dogbreeds (a head on a frozen net), 5 seeds: .7958 ± .0059, float32 .7991 ± .0065; published .79.
    good_in_bf16 = True

    def __init__(
        self,
        data: ImageSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        phases: Sequence[Phase],
        *,
        metrics: list[str] | None = None,
        class_weights: ClassWeights | None = None,
        size: Annotated[int, Field(ge=32, le=1024)] | None = None,
        augment: bool | Literal["auto"] = True,
        flip: bool = True,
        rotate: NonNegative = 10.0,
        zoom: Annotated[float, Field(ge=1, le=4)] = 1.1,
        brightness: Annotated[float, Field(ge=0, le=1)] = 0.1,
        contrast: Annotated[float, Field(ge=0, le=1)] = 0.1,
        tta: Natural = 0,
        precompute: bool | Literal["auto"] = False,
        baseline: bool = True,
        valid_batch_size: Count | None = None,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device, self.phases = data, batch_size, seed, device, phases
        self.metric_names, self.class_weights, self.tta = metrics, class_weights, tta
        self.settings: Mapping[str, Any] = {"size": size, "augment": augment, "precompute": precompute}
        self.augmentation = Augmentation(flip, rotate, zoom, brightness, contrast)
        # On a CPU the feature maps of 8 images fit in its caches: MobileNetV2 extracts features at 191 images/s in
        # batches of 8, at 78 images/s in batches of 64.
        self._eval_batch_size = valid_batch_size or (8 if device.type == "cpu" else 256)
        self.baseline = baseline
        self._features: Tensor | None = None
        self._untrained: FeaturePass | None = None

    @classmethod
    def check(cls, settings: Mapping[str, Any], phases: Sequence[Phase]) -> None:
        """Refuse `precompute` together with augmentation or a trained backbone."""
        first_size, fresh = None, True
        for index, phase in enumerate(phases):
            place = f"phases[{index}]" if len(phases) > 1 or phase.task else "the run"
            now = {**settings, **phase.task}
            is_frozen = phase.freeze_to in (-1, len(ImageClassifier.group_names) - 1)
            if now["precompute"]:
                if now["augment"]:
                    raise ConfigError(f"task.precompute: {ONCE}: add task.augment=false")
                if not is_frozen:
                    raise ConfigError(
                        f"task.precompute: the backbone must be frozen, but {place} has freeze_to={phase.freeze_to}: "
                        "add freeze_to=-1"
                    )
                if not fresh or (index and now["size"] != first_size):
                    raise ConfigError(
                        f"task.precompute: {place} must come first, and all phases with precompute must have one size"
                    )
            fresh, first_size = fresh and now["precompute"], now["size"]
        if settings["tta"] and {**settings, **phases[-1].task}["precompute"]:
            raise ConfigError(f"task.precompute: {ONCE}: add task.tta=0")

    def recommended(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Choose weights that are on this machine, and features of the frozen backbone instead of training it.

        On a CPU one pass of a pre-trained net takes less time than an epoch of training, and is better on few images.
        Where images are seen more than once, batch size and epochs follow from their number.
        """
        asked = {name for name, value in settings.items() if value == "auto"}
        found = None
        if "model.backbone" in settings:
            variant, weights = (settings.get(f"model.{name}") for name in ("variant", "weights"))
            found = pretrained(settings["model.backbone"], variant or "torchvision", weights, self.data.data_dir)
        is_frozen = found is not None and settings.get("freeze_to") in ("auto", -1)
        once = is_frozen and settings["task.augment"] in ("auto", False) and not self.tta
        sizes = {"batch_size": 64, "epochs": 20}
        if not once and not {"batch_size", "epochs"}.isdisjoint(asked):
            sizes = recommended_for(len(self.data.read().rows(TRAIN)))
        return {
            **sizes,
            "freeze_to": -1 if is_frozen else 0,
            "model.backbone": found.backbone if found else "resnet18",
            "model.variant": found.variant if found else "torchvision",
            "model.weights": str(found.path) if found else None,
            "task.augment": not once,
            "task.precompute": once,
        }

    @cached_property
    def table(self) -> ImageTable:
        """The decoded images, read once."""
        table = self.data.read()
        if min(self.batch_size, len(table.rows(TRAIN))) < 2:
            raise ConfigError("batch_size: the head's batch norm needs at least two training images per batch")
        self.check_target(table.target, "images")
        return table

    @property
    def target(self) -> Target:
        """The target of the images."""
        return self.table.target

    @property
    def dims(self) -> ImageDims:
        """The number of classes."""
        return ImageDims(self.target.num_outputs)

    def train_values(self) -> NDArray[Any]:
        """Return the classes or labels of the training images."""
        return self.table.values[self.table.rows(TRAIN)]

    def valid_values(self) -> NDArray[Any]:
        """Return the classes or labels of the validation images."""
        return self.table.values[self.table.rows(VALID)]

    def settings_in(self, phase: Phase) -> Mapping[str, Any]:
        """Return size (side in pixels), augment and precompute of a phase."""
        found = {**self.settings, **phase.task}
        return {**found, "size": found["size"] or self.table.size}

    def has_test(self) -> bool:
        """Return whether there are test images."""
        return bool((self.table.split == TEST).any())

    def num_tta_views(self) -> int:
        """The plain image and `tta` augmented ones."""
        return 1 + self.tta

    @cached_property
    def _pixels(self) -> Tensor:
        """All pixels, [images, size, size, 3]."""
        return pixels_on_device(self.table.pixels, self.device)

    @cached_property
    def _targets(self) -> Tensor:
        return self.target.encode(self.table.values).to(self.device)

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Images or precomputed features; the training split in the order given by (seed, epoch)."""
        rows = self.table.rows(PART_CODES[split])
        if split == "train":
            batches = shuffled_batches(rows, self.batch_size, self.seed, epoch)
        else:
            batches = rows_in_batches(rows, self._eval_batch_size)
        settings = self.settings_in(phase)
        if settings["precompute"] and self._features is not None:
            return FeatureLoader(self._features, self._targets, batches, start)
        augmentation = self.augmentation if split == "train" and settings["augment"] else None
        key = (self.seed, epoch, PART_CODES[split])
        return ImageLoader(self._pixels, self._targets, batches, settings["size"], augmentation, key, start)

    def tta_batches(self, split: Split, view: int, phase: Phase) -> Loader:
        """Augmented images of one view."""
        batches = rows_in_batches(self.table.rows(PART_CODES[split]), self._eval_batch_size)
        size = self.settings_in(phase)["size"]
        return view_loader(self._pixels, self._targets, batches, size, self.augmentation, view)

    def setup(self, model: Model, phase: Phase, log: Callable[[str], None]) -> Sequence[str]:
        """Compute the features of the frozen backbone or load them from the cache; check its batch norm statistics."""
        settings = self.settings_in(phase)
        size = settings["size"]
        if not isinstance(model, ImageClassifier):
            if settings["precompute"]:
                raise ConfigError("task.precompute: needs a model with a frozen backbone: model=image_classifier")
            return []
        if not settings["precompute"]:
            if self.baseline and model.weights is not None:
                with without_autocast(self.device):  # as when they are computed, after training
                    self._untrained = self._feature_pass(model, size, log)
            return self._check_statistics(model, size)
        self._untrained = features = self._feature_pass(model, size, log)
        found, notes = features.kept(), list[str]()
        if found is None:
            notes += self._check_statistics(model, size)
            found, more = features.run()
            notes += more
        self._features = by_image(found, self._used, len(self.table.names)).to(self.device)
        return notes

    def _check_statistics(self, model: ImageClassifier, size: int) -> list[str]:
        """Compare the batch norm statistics of some images with the stored ones; return a warning when they differ."""
        if model.weights is None:
            return []
        rows = torch.from_numpy(self.table.rows(TRAIN)[:NUM_CHECKED])
        (batch,) = ImageLoader(self._pixels, self._targets, [rows], size)
        gap = statistics_gap(model.backbone, *batch.inputs)
        if gap is None or gap <= MOST_STATISTICS_GAP:
            return []
        return [
            f"the weights do not seem to fit the network or the images: batch norm inputs are {gap:.1f} standard "
            f"deviations away from the stored means (usual: up to {MOST_STATISTICS_GAP}); check model.variant"
        ]

    @cached_property
    def _used(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.table.split != UNUSED)

    def _feature_pass(self, model: ImageClassifier, size: int, log: Callable[[str], None]) -> FeaturePass:
        """Return the pass of the backbone, as it is now, over all images in use."""
        used, batch_size = self._used, self._eval_batch_size
        recipe = [self.table.key, hashlib.sha256(used.tobytes()).hexdigest(), size, model.backbone_digest()]
        recipe += [str(autocast_dtype(self.device)), self.device.type, torch.__version__]
        path = cache_dir() / "features" / f"{hashlib.sha256(repr(recipe).encode()).hexdigest()[:32]}.features"
        batches = rows_in_batches(used, batch_size)

        def loader(start: int) -> Loader:
            return ImageLoader(self._pixels, self._targets, batches, size, start=start)

        return FeaturePass(path, len(used), batch_size, loader, model.frozen_features(), log)

    def baseline_key(self) -> str:
        """The backbone's features."""
        return self._untrained.path.name if self._untrained else ""

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Class frequencies, and a logistic regression on the backbone's features before training, else on pixels."""
        if not self.baseline:
            return {}
        from dlrunner.tasks.image.baselines import FEATURES, PIXELS, image_baselines, small_images

        splits: Sequence[Split] = ("train", "valid", "test") if self.has_test() else ("train", "valid")
        rows = {split: self.table.rows(PART_CODES[split]) for split in splits}
        encoded, features = self._targets.cpu(), self._untrained_features()
        targets = {split: encoded[torch.from_numpy(each)] for split, each in rows.items()}

        def inputs(split: Split) -> Features:
            if features is None:
                return small_images(self.table.pixels, rows[split])
            return np.asarray(features[torch.from_numpy(rows[split])].numpy())

        name = PIXELS if features is None else FEATURES
        return image_baselines(self.target, targets, inputs, name, self.metrics, self._weights)

    def _untrained_features(self) -> Tensor | None:
        """Return features of the pre-trained backbone for each image; None without one, or if that took minutes."""
        if self._features is not None:
            return self._features.cpu()
        features = self._untrained
        if features is None or (self.device.type == "cpu" and features.num_images > MOST_IMAGES):
            return None
        found = features.kept()
        if found is None:
            with torch.inference_mode():
                found, _ = features.run()
        return by_image(found, self._used, len(self.table.names))

    def purpose(self) -> str:
        """Classify the images."""
        return "Classify the images"

    def sizes(self) -> Mapping[str, int]:
        """Images per split, and classes."""
        return {**split_sizes(self.table.split), "classes": len(self.target.classes)}

    def notes(self) -> Sequence[str]:
        """Notes on reading the images, and on sizes above that of the decoded ones."""
        size = max(self.settings_in(phase)["size"] for phase in self.phases)
        notes = [*self.table.notes, *absent_classes(self.target, self.train_values())]
        if size > self.table.size:
            notes.append(f"images of {self.table.size} pixels (data.size) are upsampled to {size}")
        return notes

    def split_statistics(self) -> SplitStatistics:
        """Digests of the pixels; nothing is fitted before training."""
        return split_statistics(self.table, self.table.values, "target ", *map(str, self.table.target.classes))

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """Names of the validation images with true and predicted classes."""
        rows, target = self.table.rows(VALID), self.target
        names = pd.DataFrame({"image": [self.table.names[row] for row in rows]})
        predicted = top_classes(target, outputs, TOP) if target.has_one_class else target.answers(outputs, "prediction")
        return with_distinct_names(pd.concat([names, target.truth(self.table.values[rows]), predicted], axis=1))

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Confusion matrix, calibration, curves, and the most confident mistakes with Grad-CAM heat maps."""
        from dlrunner.reporting.plots.images import sheet

        rows, values = self.table.rows(VALID), self.table.values
        probs, names = self.target.probabilities(outputs), [str(each) for each in self.target.classes]
        drawn = class_plots(self.target, values[rows], outputs, folder)
        if not self.target.has_one_class:
            return drawn
        truth = values[rows].astype(np.int64)
        predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
        order = np.argsort(-confidence, kind="stable")
        wrong = order[predicted[order] != truth[order]][:12]
        if len(wrong) and all(isinstance(model, ImageClassifier) for model in models):
            pixels_of, size = [self.table.pixels[rows[index]] for index in wrong], self.settings_in(phase)["size"]
            maps = [
                heat_map(models, pixels, size, int(predicted[index]))
                for pixels, index in zip(pixels_of, wrong, strict=True)
            ]
            files = [str(self.table.names[row]) for row in rows]
            titles = [(files[i], names[truth[i]], names[predicted[i]], float(confidence[i])) for i in wrong]
            drawn.append(sheet(pixels_of, maps, titles, folder / "confident_mistakes.png"))
        return drawn

    def state(self, phase: Phase) -> dict[str, Any]:
        """The classes, and how images are decoded, augmented and standardised."""
        return {
            "target": self.target.state(), "size": self.settings_in(phase)["size"],
            "decoded": self.table.size, "fit": self.table.fit, "tta": self.tta, "augmentation": vars(self.augmentation),
            "column": self.table.column, "white": self.table.white, "files": dict(self.data.file_settings()),
            "mean": list(MEAN), "std": list(STD),
        }  # fmt: skip
