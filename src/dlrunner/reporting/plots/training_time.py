"""The plot of the validation metric by time: what a longer training was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dlrunner.plot import Plot
from dlrunner.reporting.plots import training

MIN_SECONDS = 600
"""Shorter runs have no such plot: their curves by epoch are enough."""
MOST_LISTED = 20
"""Points in the alternative text."""


def metric_by_time(history: Sequence[Mapping[str, Any]], metric: str, folder: Path) -> Plot | None:
    """Draw time.svg: a validation metric by the time of training and validation; None for a short run.

    Args:
        history: one row per epoch, with its `seconds`; interruptions do not count.
        metric: name of its column.
        folder: of the plot.
    """
    rows = [row for row in history if row.get(metric) is not None and np.isfinite(row[metric])]
    seconds = np.cumsum([float(row.get("seconds") or 0) for row in history])
    if len(rows) < 2 or seconds[-1] < MIN_SECONDS:
        return None
    at = dict(zip([row["epoch"] for row in history], seconds, strict=True))
    unit, size = ("hours", 3600) if seconds[-1] >= 7200 else ("minutes", 60)
    times, values = [at[row["epoch"]] / size for row in rows], [float(row[metric]) for row in rows]
    with training.styled():
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(times, values, color=training.GREEN, marker="o" if len(rows) <= training.MOST_MARKERS else None)
        axes.set_xlim(left=0)
        axes.set_title(f"{metric} after {times[-1]:.1f} {unit}: {values[-1]:.4f}", parse_math=False)
        axes.set_xlabel(unit)
        course = ", ".join(
            f"{value:.4g} after {time:.1f}" for time, value in list(zip(times, values, strict=True))[:MOST_LISTED]
        )
        caption = f"{metric} by {unit} of training and validation"
        return Plot(training.save(figure, folder / "time.svg"), caption, f"Line plot of {metric}: {course} {unit}.")
