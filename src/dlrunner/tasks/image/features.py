"""Features of a frozen backbone, computed once and cached; an interrupted pass is continued."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.cache import write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.task import Loader

PART = 16
"""Batches in a part: seconds of the pass."""

Features = NDArray[np.float32]


@dataclass(frozen=True)
class FeaturePass:
    """The pass of a frozen backbone over images.

    Args:
        path: file of the cache for all features; parts of an unfinished pass are in a folder of the same name.
        num_images: of the pass.
        batch_size: images in a batch; the last one may have fewer.
        loader: returns the batches from a number on; those before are not read.
        features: returns the features of a batch of images.
        log: shows progress.
    """

    path: Path
    num_images: int
    batch_size: int
    loader: Callable[[int], Loader]
    features: Callable[[Tensor], Tensor]
    log: Callable[[str], None]

    def kept(self) -> Features | None:
        """Return the features from the cache; None: they are not there yet."""
        return _read(self.path, self.num_images)

    def run(self) -> tuple[Features, list[str]]:
        """Compute the features, from where an earlier pass was interrupted, and cache them; return notes too."""
        parts, notes = self._parts(), list[str]()
        before, current = sum(map(len, parts)), list[Tensor]()
        if before:
            self.log(f"features: {before:,} of {self.num_images:,} images are computed already")
        started = logged = time.perf_counter()
        loader = self.loader(len(parts) * PART)
        for index, batch in enumerate(loader, start=len(parts) * PART + 1):
            current.append(self.features(*batch.inputs).float().cpu())
            now, is_last = time.perf_counter(), index == len(loader)
            if now - logged > 10 or is_last:
                done, logged = min(index * self.batch_size, self.num_images), now
                rate = (done - before) / (now - started)
                self.log(f"features of {done:,} of {self.num_images:,} images, {rate:.0f} images/s")
            if index % PART == 0 or is_last:
                parts.append(torch.cat(current).numpy())
                current = []
                if not is_last and not notes:
                    notes += _write(self._part(len(parts) - 1), parts[-1])
        found: Features = np.concatenate(parts)
        notes = _write(self.path, found)
        shutil.rmtree(self._folder, ignore_errors=True)
        return found, notes

    @property
    def _folder(self) -> Path:
        return self.path.with_suffix(".parts")

    def _part(self, number: int) -> Path:
        return self._folder / f"{self.batch_size}-{number:06}.features"

    def _parts(self) -> list[Features]:
        """Return the parts of an unfinished pass up to the first one that is missing or damaged."""
        found: list[Features] = []
        while (part := _read(self._part(len(found)), PART * self.batch_size)) is not None:
            found.append(part)
        return found


def _read(path: Path, count: int) -> Features | None:
    if (content := read_sealed(path)) is None:
        return None
    found: Features = np.load(io.BytesIO(content))
    return found if found.ndim == 2 and len(found) == count and found.dtype == np.float32 else None


def _write(path: Path, features: Features) -> list[str]:
    """Write features; return a note if the cache cannot be written, which only costs time."""
    buffer = io.BytesIO()
    np.save(buffer, features)
    try:
        write_sealed(path, buffer.getbuffer())
    except OSError as error:
        return [f"features are not cached: {path.parent} cannot be written ({error.strerror})"]
    return []


def by_image(features: Features, rows: NDArray[np.int64], num_images: int) -> Tensor:
    """Return features as a row for each image; those that were not computed are 0."""
    table = np.zeros((num_images, features.shape[1]), np.float32)
    table[rows] = features
    return torch.from_numpy(table)
