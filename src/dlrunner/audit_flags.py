"""Flags of the data audit, and of claims: reasons why a number may be too good."""

from __future__ import annotations

from typing import Literal

Flag = Literal[
    "validates-on-test",
    "best-epoch-on-test",
    "future-rows-in-training",
    "validation-rows-in-training",
    "test-rows-in-training",
    "test-rows-in-validation",
    "statistics-fitted-on-validation",
    "averaged-over-batches",
    "images-overlap-imagenet",
]
"""Reasons why a metric is too optimistic, explained in docs/claims.md. The last two can only be declared."""
