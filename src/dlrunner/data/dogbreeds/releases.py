"""Kaggle's Dog Breed Identification."""

from __future__ import annotations

from dlrunner.data.core.source import Release

HOME = "https://www.kaggle.com/c/dog-breed-identification"

RELEASES = (
    Release(
        name="dog-breeds",
        title="Dog Breed Identification (Kaggle)",
        layouts=("labels.csv",),
        archives=("dog-breeds", "dog-breed-identification"),
        terms="Kaggle competition data: accept its rules at Kaggle; the images are ImageNet's, for research only",
        home=HOME,
    ),
)
