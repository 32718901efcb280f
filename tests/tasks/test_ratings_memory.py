"""Memory that each row of a table of ratings takes while it is read, audited and evaluated."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.data_audit import audit
from dlrunner.reporting.plots.collab import _block
from dlrunner.tasks.collab.task import Collab

NUM_ROWS = 200_000


def write_ratings(path: str, num_rows: int) -> None:
    random = np.random.default_rng(0)
    columns = {
        "user": random.integers(0, 1_300, num_rows),
        "item": random.integers(0, 5_000, num_rows),
        "rating": random.integers(1, 11, num_rows) / 2,
        "timestamp": random.integers(10**9, 15 * 10**8, num_rows),
    }
    pd.DataFrame(columns).to_csv(path, index=False)


def peak_of(work: Callable[[], object]) -> int:
    """Return the largest number of bytes that NumPy and pandas held during some work, beyond those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peaks(path: str) -> dict[str, int]:
    """Return the peak of each step that handles all rows of a table; PyTorch's memory is not among it."""
    task = Collab(RatingsData(Path(), path=path), 1024, 0, torch.device("cpu"))
    few = np.arange(15)
    steps: dict[str, Callable[[], object]] = {
        "reading": lambda: task.table,
        "notes": task.notes,
        "dims": lambda: task.dims,
        "audit": lambda: audit(task.split_statistics(), "valid/rmse"),
        "baselines": task.baselines,
        "predictions": lambda: task.predictions(torch.zeros(dict(task.sizes())["valid"])),
        "cross table": lambda: _block(task.table, few, few),
    }
    return {name: peak_of(work) for name, work in steps.items()}


def test_no_step_needs_several_copies_of_the_ratings(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.row_blocks.MANY_ROWS", 4_000)  # as small a part as it is of a large table
    monkeypatch.setattr("dlrunner.data.tables.raw.PIECE", 4_000)
    monkeypatch.setattr("dlrunner.data.tables.text_files.HEAD", 2**16)
    monkeypatch.setattr("dlrunner.tasks.collab.baselines.MOST_CELLS", 0)
    write_ratings("few.csv", 4_000)
    write_ratings("many.csv", NUM_ROWS)
    peaks("few.csv")  # imports what is needed
    found = {name: round(peak / NUM_ROWS, 1) for name, peak in peaks("many.csv").items()}
    most = {"reading": 42, "notes": 2, "dims": 15, "audit": 28, "baselines": 13, "predictions": 10, "cross table": 2}
    assert {name: peak for name, peak in found.items() if peak > most[name]} == {}
