"""Audit of a data split: leaks and other reasons why a metric is too optimistic."""

from __future__ import annotations

import hashlib
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
    """The content of a split, as a task reports it: settings state the intent, the content shows the facts."""

    rows: str
    """The plural of a row: rows, ratings, texts, images."""
    digests: Mapping[str, Digests]
    """Of the rows of `train`, `valid` and, if there is one, `test`, each [rows]; equal rows have equal digests."""
    times: Mapping[str, NDArray[np.datetime64]] = field(default_factory=dict)
    """Time of each row of `train` and of `valid`, each [rows]; empty if rows have no time."""
    fitted: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Statistics by name, as used and as fitted on the training rows alone: numbers, or lists of categories."""
    num_test_rows: int = 0
    """Validation rows that belong to the publisher's test set."""
    counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Units of the metrics where these are not rows (words), by name: how many each row of `valid` has, [rows]."""
    time_split: str = ""
    """The value of `data.split` that splits by time; empty: there is none."""
    validation: str = ""
    """Digest of which rows validate and of their targets, whatever the inputs (see `rows_digest`); empty: unknown."""


@dataclass(frozen=True)
class AuditFinding:
    """One reason why a metric is too optimistic."""

    flag: Flag
    message: str
    """What is wrong, with counts."""
    advice: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{self.message}; {self.advice} [{self.flag}]"


def rows_digest(rows: pd.DataFrame, *context: str) -> str:
    """Return a digest of rows in any order: two runs with the same one validate on the same rows and targets.

    Args:
        rows: what identifies each row, and its target.
        context: what else defines the targets, such as the names of the classes.

    >>> rows_digest(pd.DataFrame({"row": [1, 2]})) == rows_digest(pd.DataFrame({"row": [2, 1]}))
    True
    """
    digests = np.sort(pd.util.hash_pandas_object(rows, index=False).to_numpy())
    return hashlib.sha256(digests.tobytes() + "\0".join([*map(str, rows.columns), *context]).encode()).hexdigest()[:16]


def audit(
    statistics: SplitStatistics | None, reported: str, num_candidate_epochs: int = 1, has_test: bool = False
) -> list[AuditFinding]:
    """Return the reasons why the reported metric is too optimistic.

    Args:
        statistics: of the task's split; None if the task reports none.
        reported: the metric, such as `valid/rmse`.
        has_test: test rows are evaluated once, too.
        num_candidate_epochs: the epoch with the best validation metric is kept out of this many; 1: no selection.
    """
    findings: list[AuditFinding] = []
    if statistics is not None:
        findings += [*_duplicates(statistics), *_newer_training_rows(statistics)]
        findings += [*_leaked_statistics(statistics), *_test_rows(statistics)]
    if num_candidate_epochs > 1 and reported.startswith("valid/") and not has_test:
        rows = statistics.rows if statistics else "rows"
        message = f"{reported} is the best of up to {num_candidate_epochs:,} epochs, selected on the same {rows}"
        advice = "report a metric of test rows, evaluated once (data.test=0.1)"
        findings.append(AuditFinding("best-epoch-on-test", message, advice))
    return findings


def _duplicates(statistics: SplitStatistics) -> Iterator[AuditFinding]:
    """Yield rows of one part that occur in another part as well."""
    pairs: Sequence[tuple[str, str, str, Flag]] = (
        ("valid", "train", "validation {} are also in the training set", "validation-rows-in-training"),
        ("test", "train", "test {} are also in the training set", "test-rows-in-training"),
        ("test", "valid", "test {} are also in the validation set", "test-rows-in-validation"),
    )
    for part, other, message, flag in pairs:
        if part not in statistics.digests:
            continue
        digests, others = statistics.digests[part], statistics.digests[other]
        # isin makes a hash table of its argument, here the smaller part: five times as fast as np.isin, which sorts
        common = others[pd.Series(others).isin(digests).to_numpy()]
        if not len(common):
            continue
        duplicated = pd.Series(digests).isin(common).to_numpy()
        fraction = ""
        if part == "valid":
            counts = statistics.counts.items()
            fraction = "".join(f", with {n[duplicated].sum() / n.sum():.2%} of the {name}" for name, n in counts)
        count = f"{duplicated.sum():,} of {len(digests):,}"
        advice = "remove duplicates before splitting"
        yield AuditFinding(flag, f"{count} {message.format(statistics.rows)}{fraction}", advice)


def _newer_training_rows(statistics: SplitStatistics) -> Iterator[AuditFinding]:
    """Yield training rows that are newer than the validation rows: a forecast has none."""
    if not statistics.times:
        return
    train, valid = statistics.times["train"], statistics.times["valid"]
    first, last = valid.min(), valid.max()
    newer, after_all = int((train > first).sum()), int((train > last).sum())
    window = " to ".join(np.datetime_as_string(time, unit="D") for time in (first, last))
    if newer:
        reference = "validation window" if newer == after_all else "first validation row"
        reference += f", {after_all:,} newer than the last" if 0 < after_all < newer else ""
        message = f"{newer:,} of {len(train):,} training {statistics.rows} are newer than the {reference} ({window})"
        split = statistics.time_split
        advice = f"use data.split={split} for a forecast" if split else "split by time for a forecast"
        yield AuditFinding("future-rows-in-training", message, advice)


def _leaked_statistics(statistics: SplitStatistics) -> Iterator[AuditFinding]:
    """Yield statistics that differ from those of the training rows alone."""
    differences = [
        _difference(name, used, train_only)
        for name, (used, train_only) in statistics.fitted.items()
        if not _equal(used, train_only)
    ]
    if differences:
        details = "; ".join(differences[:3]) + (" …" if len(differences) > 3 else "")
        count = f"{len(differences):,} of {len(statistics.fitted):,}"
        yield AuditFinding(
            "statistics-fitted-on-validation",
            f"{count} statistics are not fitted on the training {statistics.rows} alone: {details}",
            "fit them on the training set only",
        )


def _equal(used: Any, train_only: Any) -> bool:
    if isinstance(used, float | int):  # the order of summation may differ
        return math.isclose(used, train_only, rel_tol=1e-6, abs_tol=1e-9)
    return list(used) == list(train_only)


def _difference(name: str, used: Any, train_only: Any) -> str:
    if isinstance(used, float | int):
        return f"{name} is {used:.6g}, of the training set {train_only:.6g}"
    unseen = len(set(used) - set(train_only))
    if unseen:
        return f"{name}: {unseen:,} of {len(used):,} not in the training set"
    return f"{name}: order or number differs from the training set"


def _test_rows(statistics: SplitStatistics) -> Iterator[AuditFinding]:
    if statistics.num_test_rows:
        count = f"{statistics.num_test_rows:,} of {len(statistics.digests['valid']):,}"
        yield AuditFinding(
            "validates-on-test",
            f"{count} validation {statistics.rows} belong to the published test set",
            "choose settings on another split",
        )
