"""Pictures in, a class or labels out."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dlrunner.data.core.batching import batch_sizes, epoch_order
from dlrunner.data.core.checked import read_sealed
from dlrunner.data.core.source import cache_dir, write_sealed
from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID
from dlrunner.data.core.targets import Target
from dlrunner.data.images.augmentation import Augmentation
from dlrunner.data.images.dataset import ImageSource, ImageTable
from dlrunner.data.images.loaders import FeatureLoader, ImageLoader
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.model import Model
from dlrunner.models.image import ImageClassifier, ImageDims
from dlrunner.models.vision.backbones import MOST_STATISTICS_GAP, statistics_gap
from dlrunner.plot import Plot
from dlrunner.ranges import Count, Natural, NonNegative
from dlrunner.schedules import Phase
from dlrunner.system.precision import autocast_dtype
from dlrunner.task import Loader, Split
from dlrunner.tasks.common.audit import by_part, count_of_test
from dlrunner.tasks.common.classification import Classification
from dlrunner.tasks.common.outputs import probabilities
from dlrunner.tasks.image import predictor as recognising

PARTS: dict[Split, int] = {"train": TRAIN, "valid": VALID, "test": TEST}
PHASE_SETTINGS: Mapping[str, type] = {"size": int, "augment": bool, "precompute": bool}
ONCE = "what the backbone makes of a picture is computed once, so that pictures cannot be changed at random"
NUM_DOUBTED = 64
"""Pictures that tell whether weights fit."""


class ImageClassification(Classification):
    """Pictures in augmented batches, or what a frozen backbone makes of them; judged by accuracy, or F1 for labels.

    Args:
        data: the pictures with their classes.
        batch_size: training pictures in a batch.
        seed: of the order of the pictures and of their augmentation.
        device: where the batches are made.
        metrics: the first one judges; by default those of the target's kind.
        size: pixels of a side in training and evaluation; by default data.size.
        augment: training pictures are changed at random.
        flip, rotate, zoom, brightness, contrast: how far (see `Augmentation`).
        tta: in the end each picture is also looked at in so many augmented versions, and the answers are averaged.
        precompute: what the frozen backbone makes of each picture is computed once and kept in the cache.
            A phase may have its own size, augment and precompute.
        valid_batch_size: pictures at once where nothing is trained; by default what is fast on the device.
    """

    fixed_shapes = True
    predictor = recognising.PicturePredictor

    def __init__(
        self,
        data: ImageSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        metrics: list[str] | None = None,
        size: Annotated[int, Field(ge=32, le=1024)] | None = None,
        augment: bool = True,
        flip: bool = True,
        rotate: NonNegative = 10.0,
        zoom: Annotated[float, Field(ge=1, le=4)] = 1.1,
        brightness: Annotated[float, Field(ge=0, le=1)] = 0.1,
        contrast: Annotated[float, Field(ge=0, le=1)] = 0.1,
        tta: Natural = 0,
        precompute: bool = False,
        valid_batch_size: Count | None = None,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.metric_names, self.tta = metrics, tta
        self.settings: Mapping[str, Any] = {"size": size, "augment": augment, "precompute": precompute}
        self.augmentation = Augmentation(flip, rotate, zoom, brightness, contrast)
        # On a CPU the maps of eight pictures stay in its caches: MobileNetV2 makes features of 191 pictures a second
        # in batches of 8, of 78 in batches of 64.
        self._few = valid_batch_size or (8 if device.type == "cpu" else 256)
        self._features: Tensor | None = None

    @classmethod
    def check(cls, settings: Mapping[str, Any], phases: Sequence[Phase]) -> None:
        """Refuse settings of phases that do not exist, and computing once what changes from epoch to epoch."""
        first_size, fresh = None, True
        for index, phase in enumerate(phases):
            place = f"phases[{index}]" if len(phases) > 1 or phase.task else "the run"
            for name, value in phase.task.items():
                if name not in PHASE_SETTINGS:
                    raise ConfigError(f"{place}.task.{name}: is unknown; a phase may have {', '.join(PHASE_SETTINGS)}")
                is_one = isinstance(value, PHASE_SETTINGS[name])
                if not is_one or (name == "size" and not 32 <= int(value) <= 1024):
                    wanted = "a number from 32 to 1024" if name == "size" else "true or false"
                    raise ConfigError(f"{place}.task.{name}: must be {wanted}, not {value!r}")
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
                    raise ConfigError(f"task.precompute: {place} must come first, and all such phases have one size")
            fresh, first_size = fresh and now["precompute"], now["size"]
        if settings["tta"] and {**settings, **phases[-1].task}["precompute"]:
            raise ConfigError(f"task.precompute: {ONCE}: add task.tta=0")

    @cached_property
    def table(self) -> ImageTable:
        """The pictures, read once."""
        table = self.data.read()
        if min(self.batch_size, len(table.rows(TRAIN))) < 2:
            raise ConfigError("batch_size: the head's batch norm needs two training pictures in a batch, or more")
        self.check_metrics(table.target, "pictures")
        return table

    @property
    def target(self) -> Target:
        """The classes."""
        return self.table.target

    @property
    def dims(self) -> ImageDims:
        """The number of classes."""
        return ImageDims(self.target.num_outputs)

    def settings_in(self, phase: Phase) -> Mapping[str, Any]:
        """Return size (pixels of a side), augment and precompute in a phase."""
        found = {**self.settings, **phase.task}
        return {**found, "size": found["size"] or self.table.size}

    def has_test(self) -> bool:
        """Tell whether some pictures are kept for the end."""
        return bool((self.table.split == TEST).any())

    def num_tta_views(self) -> int:
        """The picture as it is, and so many augmented versions."""
        return 1 + self.tta

    @cached_property
    def _pixels(self) -> Tensor:
        """All pixels, [pictures, size, size, 3], on the device where they take less than a third of its memory."""
        pixels = torch.from_numpy(self.table.pixels)
        if self.device.type == "cuda" and 3 * pixels.nbytes < torch.cuda.mem_get_info(self.device)[0]:
            return pixels.to(self.device)
        return pixels

    @cached_property
    def _targets(self) -> Tensor:
        return self.target.encode(self.table.values).to(self.device)

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Pictures, or features, of the training split in the order of (seed, epoch)."""
        rows = torch.from_numpy(self.table.rows(PARTS[split]))
        if split == "train":
            order = epoch_order(len(rows), self.seed, epoch)
            batches = list(torch.split(rows[order], batch_sizes(len(rows), self.batch_size)))
        else:
            batches = list(torch.split(rows, self._few))
        settings = self.settings_in(phase)
        if settings["precompute"] and self._features is not None:
            return FeatureLoader(self._features, self._targets, batches, start)
        augmentation = self.augmentation if split == "train" and settings["augment"] else None
        key = (self.seed, epoch, PARTS[split])
        return ImageLoader(self._pixels, self._targets, batches, settings["size"], augmentation, key, start)

    def tta_batches(self, split: Split, view: int, phase: Phase) -> Loader:
        """Pictures that are changed at random."""
        batches = list(torch.split(torch.from_numpy(self.table.rows(PARTS[split])), self._few))
        size, key = self.settings_in(phase)["size"], (self.seed, view, PARTS[split])
        return ImageLoader(self._pixels, self._targets, batches, size, self.augmentation, key)

    def setup(self, model: Model, phase: Phase, tell: Callable[[str], None]) -> Sequence[str]:
        """Compute what the frozen backbone makes of all pictures, or take it from the cache; doubt its weights."""
        settings = self.settings_in(phase)
        size = settings["size"]
        if not isinstance(model, ImageClassifier):
            if settings["precompute"]:
                raise ConfigError("task.precompute: needs a model with a frozen backbone: model=image_classifier")
            return []
        if not settings["precompute"]:
            return self._doubts(model, size)
        used = np.flatnonzero(self.table.split != UNUSED)
        recipe = [self.table.key, hashlib.sha256(used.tobytes()).hexdigest(), size, model.backbone_digest()]
        recipe += [str(autocast_dtype(self.device)), self.device.type, torch.__version__]
        path = cache_dir() / "features" / f"{hashlib.sha256(repr(recipe).encode()).hexdigest()[:32]}.features"
        found = _kept(path, len(used))
        notes = [] if found is not None else self._doubts(model, size)
        if found is None:
            found = self._computed(model, torch.from_numpy(used), size, tell)
            buffer = io.BytesIO()
            np.save(buffer, found)
            try:
                write_sealed(path, buffer.getbuffer())
            except OSError as error:  # a cache that cannot be written is only slower
                notes.append(f"the features are not kept, {path.parent} cannot be written ({error.strerror})")
        features = np.zeros((len(self.table.names), found.shape[1]), np.float32)
        features[used] = found
        self._features = torch.from_numpy(features).to(self.device)
        return notes

    def _doubts(self, model: ImageClassifier, size: int) -> list[str]:
        """Compare what the backbone sees of some pictures with what it saw when its weights were trained."""
        if model.weights is None:
            return []
        rows = torch.from_numpy(self.table.rows(TRAIN)[:NUM_DOUBTED])
        (batch,) = ImageLoader(self._pixels, self._targets, [rows], size)
        gap = statistics_gap(model.backbone, *batch.inputs)
        if gap is None or gap <= MOST_STATISTICS_GAP:
            return []
        return [
            f"the weights do not seem to fit the net, or the pictures: its layers see means {gap:.1f} deviations "
            f"away from those in training (up to {MOST_STATISTICS_GAP} is usual); is it wired as its weights were?"
        ]

    def _computed(
        self, model: ImageClassifier, rows: Tensor, size: int, tell: Callable[[str], None]
    ) -> NDArray[np.float32]:
        """Return what the frozen backbone makes of some pictures, [pictures, features]."""
        features, found = model.frozen_features(), []
        started = told = time.perf_counter()
        loader = ImageLoader(self._pixels, self._targets, list(torch.split(rows, self._few)), size)
        for index, batch in enumerate(loader, start=1):
            found.append(features(*batch.inputs).float().cpu())
            now = time.perf_counter()
            if now - told > 10 or index == len(loader):
                done, told = min(index * self._few, len(rows)), now
                tell(f"features of {done:,} of {len(rows):,} pictures, {done / (now - started):.0f} a second")
        values: NDArray[np.float32] = torch.cat(found).numpy()
        return values

    def sizes(self) -> Mapping[str, int]:
        """Pictures of each split, and classes."""
        found: dict[str, int] = {split: len(self.table.rows(part)) for split, part in PARTS.items()}
        return {**{split: count for split, count in found.items() if count}, "classes": len(self.target.classes)}

    def notes(self) -> Sequence[str]:
        """How the pictures were read."""
        size = self.settings["size"]
        if size and size > self.table.size:
            return [*self.table.notes, f"pictures of {self.table.size} pixels are enlarged to {size}"]
        return self.table.notes

    def split_statistics(self) -> SplitStatistics:
        """The pictures by their pixels; nothing is fitted on them before training."""
        table = self.table
        num_of_test = count_of_test(table.of_test, table.split == VALID)
        return SplitStatistics("pictures", by_part(table.digests(), table.split), num_test_rows=num_of_test)

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """The validation pictures' names with what they are and what they were taken for."""
        rows, target = self.table.rows(VALID), self.target
        names = pd.DataFrame({"picture": [self.table.names[row] for row in rows]})
        said = recognising.top_of(target, outputs, 5) if target.has_one_class else target.answers(outputs, "prediction")
        return pd.concat([names, target.truth(self.table.values[rows]), said], axis=1)

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Confusions, calibration, and the most confident mistakes with what they rest on."""
        from dlrunner.reporting.plots import classes as looks
        from dlrunner.reporting.plots.images import sheet

        rows, values = self.table.rows(VALID), self.table.values
        chances, names = probabilities(self.target, outputs), [str(each) for each in self.target.classes]
        if not self.target.has_one_class:
            return [looks.labels(values[rows], chances, names, folder)]
        truth = values[rows].astype(np.int64)
        drawn = [looks.classes(truth, chances, names, folder)]
        if len(names) > 2:
            drawn.append(looks.calibration(truth, chances, folder))
        said, sure = chances.argmax(axis=1), chances.max(axis=1)
        order = np.argsort(-sure, kind="stable")
        wrong = order[said[order] != truth[order]][:12]
        if len(wrong) and all(isinstance(model, ImageClassifier) for model in models):
            shown, size = [self.table.pixels[rows[place]] for place in wrong], self.settings_in(phase)["size"]
            maps = [
                recognising.heat_of(models, pixels, size, int(said[place]))
                for pixels, place in zip(shown, wrong, strict=True)
            ]
            titles = [(names[truth[i]], names[said[i]], float(sure[i])) for i in wrong]
            drawn.append(sheet(shown, maps, titles, folder / "confident_mistakes.png"))
        return drawn

    def state(self, phase: Phase) -> dict[str, Any]:
        """The classes, and how pictures become pixels."""
        return {
            "target": self.target.state(), "size": self.settings_in(phase)["size"],
            "decoded": self.table.size, "fit": self.table.fit, "tta": self.tta, "augmentation": vars(self.augmentation),
        }  # fmt: skip


def _kept(path: Path, count: int) -> NDArray[np.float32] | None:
    if (content := read_sealed(path)) is None:
        return None
    found: NDArray[np.float32] = np.load(io.BytesIO(content))
    return found if found.ndim == 2 and len(found) == count and found.dtype == np.float32 else None
