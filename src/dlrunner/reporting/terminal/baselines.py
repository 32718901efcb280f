"""A run compared with its baselines, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dlrunner.reporting.terminal.progress import number

MOST_TIMES = 2.0
"""A run that takes more times a baseline's time has to be noticeably better."""
SHORT = 10.0
"""A run of fewer seconds is not compared by its time."""


def best_baseline(
    baselines: Mapping[str, Mapping[str, float]], metric: str, *, higher_is_better: bool
) -> tuple[str, float] | None:
    """Return the best baseline by a metric, and its value; None: none has this metric."""
    values = {name: found[metric] for name, found in baselines.items() if metric in found}
    if not values:
        return None
    best = (max if higher_is_better else min)(values, key=values.__getitem__)
    return best, values[best]


def is_dear(seconds: float, of_baseline: float | None) -> bool:
    """Return whether a run took so much more time than a baseline that it has to be noticeably better."""
    return of_baseline is not None and seconds >= max(SHORT, MOST_TIMES * of_baseline)


def baseline_lines(
    value: float,
    seconds: float,
    baselines: Mapping[str, Mapping[str, float]],
    metric: str,
    shown: Callable[[float], str] = number,
    *,
    higher_is_better: bool,
) -> Sequence[str]:
    """Return a table of this run and its baselines, the best first.

    >>> for line in baseline_lines(2.25, 3.0, {"mean": {"valid/rmse": 7.5}}, "valid/rmse", higher_is_better=False):
    ...     print(line)
    compared with   valid/rmse  seconds
    this run            2.2500     3.00
    mean                7.5000

    Args:
        value: of the run, in the metric.
        seconds: that its training took.
        baselines: their metrics.
        metric: its name.
        shown: formats a value of the metric.
        higher_is_better: its direction.
    """
    rows: dict[str, tuple[float, float | None]] = {"this run": (value, seconds)}
    rows |= {name: (found[metric], found.get("seconds")) for name, found in baselines.items() if metric in found}
    if len(rows) == 1:
        return []
    texts = {name: shown(score) for name, (score, _) in rows.items()}
    width, column = max(14, *map(len, rows)), max(10, len(metric), *map(len, texts.values()))
    ordered = sorted(rows, key=lambda name: -rows[name][0] if higher_is_better else rows[name][0])
    lines = [f"{'compared with':<{width}}  {metric:>{column}}  seconds"]
    for name in ordered:
        taken = rows[name][1]
        lines.append(f"{name:<{width}}  {texts[name]:>{column}}  {'' if taken is None else f'{taken:7.2f}'}".rstrip())
    return lines
