"""A plot of a run: its file and its texts in the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PLOT_FORMATS = ("png", "svg", "pdf")

TRAINING_CURVES = "losses.svg"
"""The plot that every run has; the report draws the same curves interactively if it can."""


@dataclass(frozen=True)
class Plot:
    """An image file with its texts."""

    path: Path
    caption: str
    """The text under the image."""
    alt: str = ""
    """The alternative text: the kind of plot and its content; empty: the caption is used."""
