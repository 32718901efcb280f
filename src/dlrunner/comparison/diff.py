"""Differences between two runs: settings, conditions (code, data, versions, device), and metrics by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from dlrunner.comparison.collect import flatten, frozen

NOT_COMPARED = ("seconds", "examples_per_second")
ROUNDING = 1e-4
"""Relative difference that another number of threads or device can cause; a changed recipe causes a larger one."""

Entry = tuple[str, Any, Any]
"""A name, and its values in the first and the second run."""


@dataclass(frozen=True)
class FirstDifference:
    """The first epoch whose metrics are not identical in two runs."""

    epoch: int
    numbers: tuple[Entry, ...]
    difference: float
    """The largest relative difference at this epoch; infinite if a value is missing."""
    first_beyond_rounding: int | None
    """The first epoch with a relative difference of more than 1e-4."""


def differing_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Entry]:
    """Return the settings in which two configurations differ, without those that cannot change a result."""
    left, right = flatten(a), flatten(b)
    names = dict.fromkeys([*left, *right])
    return [(n, left.get(n), right.get(n)) for n in names if frozen(left.get(n)) != frozen(right.get(n))]


def differing_conditions(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Entry]:
    """Return the differences between two summaries in all that can change a result: code, data, machine, versions."""
    left, right = _conditions(a), _conditions(b)
    return [(n, left.get(n), right.get(n)) for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n)]


def first_difference(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> FirstDifference | None:
    """Return the first difference between the histories of two runs; None if their common epochs are identical."""
    found: FirstDifference | None = None
    for left, right in zip(a, b, strict=False):
        difference = max(row_difference(left, right), row_difference(right, left))
        if difference == 0:
            continue
        if found is None:
            names = [name for name in dict.fromkeys([*left, *right]) if name not in NOT_COMPARED]
            numbers = [(n, left.get(n), right.get(n)) for n in names if left.get(n) != right.get(n)]
            found = FirstDifference(int(left["epoch"]), tuple(numbers), difference, None)
        if difference > ROUNDING:
            return FirstDifference(found.epoch, found.numbers, found.difference, int(left["epoch"]))
    return found


def row_difference(left: Mapping[str, Any], right: Mapping[str, Any]) -> float:
    """Return the largest relative difference of an epoch's numbers; infinite if the right side misses a metric.

    >>> row_difference({"epoch": 1, "valid/rmse": 1.0, "seconds": 3}, {"epoch": 1, "valid/rmse": 0.5, "seconds": 4})
    0.5
    """
    differences = [0.0]
    for key in left:
        if key in NOT_COMPARED:
            continue
        a, b = left[key], right.get(key)
        if isinstance(a, list) and isinstance(b, list):
            differences += [_relative(x, y) for x, y in zip_longest(a, b)]
        else:
            differences.append(_relative(a, b))
    return max(differences)


def _conditions(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of a result by name."""
    data, git = summary.get("data") or {}, summary.get("git") or {}
    return {
        "code": summary.get("code"),
        "git commit": f"{git.get('commit')}{' with uncommitted changes' if git.get('dirty') else ''}" if git else None,
        **{f"data {key}": data.get(key) for key in ("name", "release", "source", "sha256", "digest")},
        "data rows": data.get("rows"),
        "device": summary.get("device"),
        "precision": summary.get("precision"),
        "CPU threads": summary.get("num_threads"),
        **(summary.get("versions") or {}),
    }


def _relative(a: Any, b: Any) -> float:
    if a == b:
        return 0.0
    if not (isinstance(a, int | float) and isinstance(b, int | float)):
        return math.inf
    if not (math.isfinite(a) and math.isfinite(b)):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return abs(a - b) / max(abs(a), abs(b), 1e-12)
