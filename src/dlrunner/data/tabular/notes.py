"""Notes on the target and the split of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.columns import Roles, high_cardinality_notes
from dlrunner.data.core.periods import counted, period_of
from dlrunner.data.core.splitting import TRAIN, VALID, Parts, Splitting
from dlrunner.data.core.targets import Target

FEW_VALUES = 10
"""Whole numbers of a target that could be classes."""


def target_notes(target: Target, values: NDArray[Any]) -> Sequence[str]:
    """Return how the target is learned, and that whole numbers could be classes."""
    notes = [f"target {target.description()}"]
    distinct = np.unique(values[: 10 * FEW_VALUES]) if target.kind == "regression" else values[:0]
    if 0 < len(distinct) <= FEW_VALUES and not (distinct % 1).any() and len(np.unique(values)) <= FEW_VALUES:
        notes.append(
            f"target {target.names[0]}: {len(np.unique(values))} whole numbers are learned as a quantity; "
            "data.kind=multiclass takes them as classes"
        )
    return notes


def fold_notes(splitting: Splitting, days: pd.Series[Any] | None, split: Parts) -> Sequence[str]:
    """Return which window or fold of several this is, and how to run them all."""
    sweep = f"as mean ± std: dlrun -m … 'data.fold=range({splitting.folds})'"
    if splitting.split == "rolling" and days is not None:
        train, valid = (_covered(days[split == part]) for part in (TRAIN, VALID))
        window = f"window {splitting.fold + 1} of {splitting.folds} (data.fold={splitting.fold})"
        length = counted(int(splitting.horizon or 0), period_of(days))
        return [f"{window}: {valid} ({length}), trained on {train}; all windows, {sweep}"]
    return [f"fold {splitting.fold} of {splitting.folds}; all folds, {sweep}"] if splitting.split == "folds" else []


def _covered(days: pd.Series[Any]) -> str:
    return f"{days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}"


def input_notes(frame: pd.DataFrame, roles: Roles, num_train: int) -> list[str]:
    """Tell how the inputs were chosen, and which of them have many categories."""
    if roles.inferred:
        chosen = ["to change the inputs: data.categorical=[a,b] data.continuous=[c,d]"]
    else:
        chosen = [f"the column {name} is {roles.reasons[name]} and left out" for name in roles.left_out]
    return [*chosen, *high_cardinality_notes(frame, roles, num_train)]
