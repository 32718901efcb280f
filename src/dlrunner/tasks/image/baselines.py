"""Simple classifiers of the same images, with which a run is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.data.images.decoding import Pixels
from dlrunner.metrics import Metric
from dlrunner.task import Split
from dlrunner.tasks.class_baselines import ClassBaselines
from dlrunner.tasks.image.features import Features

FEATURES = "logistic regression on backbone features"
SIDE = 16
PIXELS = f"logistic regression on {SIDE} x {SIDE} pixels"
MOST_PRODUCTS = 1_000_000_000
"""Of rows, columns and classes; of a random sample of more training rows the regression is fitted: some ten seconds."""
IMAGES = 256
"""Made smaller at a time."""
MOST_LABELS = 50
"""With more labels a regression for each takes too long."""


def image_baselines(
    target: Target,
    targets: Mapping[Split, Tensor],
    inputs: Callable[[Split], Features],
    name: str,
    metrics: Callable[[], Mapping[str, Metric]],
    class_weights: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Return the metrics of class frequencies and of a logistic regression, and the seconds that each takes.

    Args:
        target: of one class or several labels.
        targets: encoded targets of each split.
        inputs: returns the inputs of a split, [images, columns].
        name: of the regression.
        metrics: returns fresh metrics by name.
        class_weights: of the training rows by their class.
    """
    baselines = ClassBaselines(target, targets, metrics, class_weights)
    found = {"class frequencies": baselines.timed(baselines.constant)}
    if target.has_one_class or target.num_outputs <= MOST_LABELS:
        found[name] = baselines.timed(lambda: baselines.logistic(*_standardised(inputs, target), C=0.01, max_iter=200))
    return found


def _standardised(
    inputs: Callable[[Split], Features], target: Target
) -> tuple[Callable[[Split], Any], NDArray[np.int64]]:
    """Return inputs with mean 0 and standard deviation 1 on the training rows, and the training rows to use."""
    train = inputs("train")
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-6
    most = max(1_000, MOST_PRODUCTS // (train.shape[1] * target.num_outputs))
    rows = np.sort(np.random.RandomState(0).permutation(len(train))[:most])

    def standardised(split: Split) -> Features:
        return np.asarray(((train if split == "train" else inputs(split)) - mean) / std, dtype=np.float32)

    return standardised, rows


def small_images(pixels: Pixels, rows: NDArray[np.int64]) -> Features:
    """Return the mean colours of 16 x 16 parts of images, [images, 768], from 0 to 1."""
    small = [
        F.adaptive_avg_pool2d(torch.from_numpy(pixels[part]).permute(0, 3, 1, 2).float(), SIDE).flatten(1) / 255
        for part in np.array_split(rows, range(IMAGES, len(rows), IMAGES))
    ]
    found: Features = torch.cat(small).numpy()
    return found
