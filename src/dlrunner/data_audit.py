"""What makes a number flattering: what a task hands over about its split, and what is found in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.audit_flags import Flag

Digests = NDArray[np.uint64]


@dataclass(frozen=True)
class SplitStatistics:
    """What a task knows of its split, by content: settings tell what was meant, content what is the case."""

    rows: str
    """What to call them, in the plural."""
    digests: Mapping[str, Digests]
    """Of the rows of `train`, `valid` and, where there is one, `test`, each [rows]: equal where the rows are."""
    times: Mapping[str, NDArray[np.datetime64]] = field(default_factory=dict)
    """When each row of `train` and of `valid` was, each [rows]; empty where rows have no time."""
    fitted: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Statistics by name, as they are used and as the training rows alone give them: numbers, or lists of levels."""
    num_of_test: int = 0
    """Validation rows that their publisher keeps for the test."""
    counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """What is judged where it is not the rows (words), by name: how many of them each row of `valid` has, [rows]."""


@dataclass(frozen=True)
class AuditFinding:
    """Something that makes a number flattering."""

    flag: Flag
    message: str

    def __str__(self) -> str:
        return f"{self.flag}: {self.message}"


def findings(evidence: SplitStatistics | None, reported: str, chosen_from: int = 1) -> list[AuditFinding]:
    """Return what makes the reported number flattering.

    Args:
        evidence: of the task; None where it hands nothing over.
        reported: the metric, such as `valid/rmse`.
        chosen_from: of so many epochs the one with the best validation rows is kept; 1: there is no choice.
    """
    found = [] if evidence is None else [*_shared(evidence), *_later(evidence), *_fitted(evidence), *_of_test(evidence)]
    if chosen_from > 1 and reported.startswith("valid/"):
        told = f"{reported} is that of the best of up to {chosen_from:,} epochs, chosen by the same {_rows(evidence)}"
        found.append(AuditFinding("best-epoch-on-test", told))
    return found


def _shared(evidence: SplitStatistics) -> Iterator[AuditFinding]:
    """Yield rows of one part that stand in another one too."""
    pairs: Sequence[tuple[str, str, str, Flag]] = (
        ("valid", "train", "validation {} are in training too", "validation-rows-in-training"),
        ("test", "train", "test {} are in training too", "test-rows-in-training"),
        ("test", "valid", "test {} validate too", "test-rows-in-validation"),
    )
    for part, other, told, flag in pairs:
        if part not in evidence.digests:
            continue
        digests = evidence.digests[part]
        twice = pd.Series(digests).isin(evidence.digests[other]).to_numpy()  # a hash table: five times a sort's speed
        if not twice.any():
            continue
        share = ""
        if part == "valid":
            shares = (f"{n[twice].sum() / n.sum():.2%} of the {name}" for name, n in evidence.counts.items())
            share = "".join(f", with {each}" for each in shares)
        yield AuditFinding(flag, f"{twice.sum():,} of {len(digests):,} {told.format(evidence.rows)}{share}")


def _later(evidence: SplitStatistics) -> Iterator[AuditFinding]:
    """Yield training rows that are later than what is predicted: a forecast has none."""
    if not evidence.times:
        return
    train, valid = evidence.times["train"], evidence.times["valid"]
    first, last = valid.min(), valid.max()
    later, after = int((train > first).sum()), int((train > last).sum())
    window = " to ".join(np.datetime_as_string(time, unit="D") for time in (first, last))
    if later:
        where = "validation window" if later == after else "earliest validation row"
        where += f", {after:,} later than the latest" if 0 < after < later else ""
        told = f"{later:,} of {len(train):,} training {evidence.rows} are later than the {where} ({window})"
        yield AuditFinding("future-rows-in-training", told)


def _fitted(evidence: SplitStatistics) -> Iterator[AuditFinding]:
    """Yield statistics that the training rows alone do not give."""
    different = [
        _difference(name, used, alone) for name, (used, alone) in evidence.fitted.items() if not _equal(used, alone)
    ]
    if different:
        named = "; ".join(different[:3]) + (" …" if len(different) > 3 else "")
        told = f"{len(different):,} of {len(evidence.fitted):,} statistics are not the training {evidence.rows}' own"
        yield AuditFinding("statistics-fitted-on-validation", f"{told}: {named}")


def _equal(used: Any, alone: Any) -> bool:
    if isinstance(used, float | int):  # sums in another order are the same statistic
        return math.isclose(used, alone, rel_tol=1e-6, abs_tol=1e-9)
    return list(used) == list(alone)


def _difference(name: str, used: Any, alone: Any) -> str:
    if isinstance(used, float | int):
        return f"{name} {used:.6g}, by training alone {alone:.6g}"
    strange = len(set(used) - set(alone))
    if strange:
        return f"{name}, {strange:,} of {len(used):,} not in training"
    return f"{name}, in another order or number than by training alone"


def _of_test(evidence: SplitStatistics) -> Iterator[AuditFinding]:
    if evidence.num_of_test:
        told = f"{evidence.num_of_test:,} of {len(evidence.digests['valid']):,} validation {evidence.rows}"
        yield AuditFinding(
            "validates-on-test", f"{told} are of the part that is kept for the test: choose nothing by them"
        )


def _rows(evidence: SplitStatistics | None) -> str:
    return evidence.rows if evidence else "rows"
