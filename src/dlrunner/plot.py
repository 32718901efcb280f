"""A plot that a run has drawn: its file, and what its report says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TRAINING_CURVES = "losses.png"
"""The plot that every run has; the report draws the same curves itself where it can."""


@dataclass(frozen=True)
class Plot:
    """An image file with its texts."""

    path: Path
    caption: str
    """What is shown, under the image."""
    alt: str = ""
    """The alternative text: the kind of plot and what it shows, in words; empty: the caption says it."""
