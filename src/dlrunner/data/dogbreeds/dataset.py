"""Kaggle's dog breeds: 10,222 images of 120 breeds."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dlrunner.data.core.cache import cache_dir
from dlrunner.data.core.once import read_once
from dlrunner.data.core.source import ArchiveOrFolder, Release, find, given_place, place_of
from dlrunner.data.core.splitting import TRAIN, VALID, Splitting, sampled, split_again, split_by_parts
from dlrunner.data.dogbreeds.releases import HOME, RELEASES
from dlrunner.data.dogbreeds.synthetic import SIZE, write_synthetic_images
from dlrunner.data.images.dataset import ImagePreprocessing, ImageSource, ImageTable, image_classes
from dlrunner.data.images.decoding import Fit
from dlrunner.data.images.files import LABELS, ImageFiles, find_images
from dlrunner.errors import DataError
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Fraction, Seed, Text
from dlrunner.task import DataIdentity

OVERLAP = (
    "these images are part of ImageNet, on which the weights were pre-trained: the score is higher than on new images"
)


class DogBreedsData(ImageSource):
    """Images of dogs, one of 120 breeds each.

    Args:
        data_dir: where dog-breeds.zip or dog-breed-identification.zip, or its folder, is searched for.
        path: the archive or the folder itself.
        source: `real` fails without the data, `synthetic` generates it, `auto` uses the real data if available, else
            generates: Kaggle permits no unattended download.
        split: `random`, as the lesson's `get_cv_idxs`, or `stratified`; `inner` leaves out the validation images of
            `random` and validates on the same fraction of the others, for model selection.
        valid: fraction of validation images.
        test: fraction of test images, evaluated once, after training.
        split_seed: seed of the permutation, also for `sample`.
        sample: number of random training images; by default all.
        sample_valid: likewise for validation images.
        size, fit, skip_bad: see `ImageData`.
    """

    input_settings = frozenset({"size", "fit"})

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        source: Literal["auto", "real", "synthetic"] = "auto",
        split: Literal["random", "stratified", "inner"] = "random",
        valid: Fraction = 0.2,
        test: Fraction | None = None,
        split_seed: Seed = 42,
        sample: Count | None = None,
        sample_valid: Count | None = None,
        size: Annotated[int, Field(ge=32, le=1024)] = 224,
        fit: Fit = "crop",
        skip_bad: bool = False,
    ) -> None:
        self.data_dir, self.path, self.source = data_dir, user_path(path) if path else None, source
        self.samples = {TRAIN: sample, VALID: sample_valid}
        self.splitting = Splitting(split, valid, split_seed, test=test)
        self.preprocessing = ImagePreprocessing(size, fit, skip_bad)

    @cached_property
    def _found(self) -> tuple[Release, ArchiveOrFolder, float | None]:
        """The release, its location, and the best achievable accuracy (synthetic data only)."""
        release = RELEASES[0]
        if self.path is not None:
            return release, given_place(self.path, LABELS, "use task=image for other images"), None
        if self.source != "synthetic":
            if found := find(self.data_dir, RELEASES):
                return *found, None
            if self.source == "real":
                names = " or ".join(f"{name}.zip" for name in release.archives)
                raise DataError(f"{release.title}: there is no {names} in {self.data_dir}; get it at {HOME}")
        archive, best = write_synthetic_images(cache_dir() / "synthetic")
        location = place_of(archive, LABELS)
        assert location is not None
        return replace(release, name="synthetic", title="generated images", terms="generated"), location, best

    @cached_property
    def _files(self) -> ImageFiles:
        location = self._found[1]
        return find_images(location.path, "id", "breed")

    def identity(self) -> DataIdentity:
        """Find the images and return their identity."""
        release, location, best = self._found
        digest = self._files.digest
        return DataIdentity(
            name="dog breeds",
            release=release.name,
            source="synthetic" if best is not None else "real",
            sha256=digest,
            path=str(location.path),
            digest=digest,
            terms=release.terms,
            best_achievable=best,
        )

    @read_once
    def read(self) -> ImageTable:
        """Read, decode and split the images."""
        files = self._files
        target, values = image_classes(files, "breed", "multiclass", None)
        split, _ = split_by_parts(None, self.splitting, files.table, values, files.rows)
        if self.splitting.split == "inner":
            split = split_again(split, self.splitting)
        split = sampled(split, self.samples, self.splitting.split_seed, "images")
        if self._found[2] is None:
            return self.preprocessing.read(files, split, target, values, [OVERLAP])
        return replace(self.preprocessing, size=min(self.preprocessing.size, SIZE)).read(
            files, split, target, values, []
        )
