"""Helpers for the split statistics of tasks (see `dlrunner.data_audit`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlrunner.data.core.splitting import TEST, TRAIN, VALID
from dlrunner.data_audit import Digests


def by_part(digests: Digests, split: NDArray[np.int8]) -> dict[str, Digests]:
    """Return the row digests of `train`, `valid` and, if it has rows, `test`."""
    parts = {"train": TRAIN, "valid": VALID, "test": TEST}
    found = {name: digests[split == part] for name, part in parts.items()}
    return {name: rows for name, rows in found.items() if name != "test" or len(rows)}


def count_of_test(of_test: NDArray[np.bool_] | None, valid: NDArray[np.bool_]) -> int:
    """Return the number of validation rows that belong to the publisher's test set."""
    return 0 if of_test is None else int((of_test & valid).sum())
