"""Advice on how long to train, from the metric of each epoch."""

from __future__ import annotations

from collections.abc import Sequence

from dlrunner.reporting.terminal.progress import number
from dlrunner.training.state import Row

NOTICEABLE = 0.01
"""Smaller relative differences of a metric are not worth a note."""


def training_advice(history: Sequence[Row], name: str, *, higher_is_better: bool, keeps_best: bool, phases: int) -> str:
    """Return what to try if the metric was better before the end, or still improved there; else an empty text.

    The end is the last tenth of the epochs. A tenth that improves the metric by a hundredth leaves something to gain;
    so does a best epoch that is a hundredth better than the last one.

    >>> falling = [{"epoch": 1, "valid/rmse": 4.0}, {"epoch": 2, "valid/rmse": 2.0}]
    >>> training_advice(falling, "valid/rmse", higher_is_better=False, keeps_best=False, phases=1)
    'valid/rmse was still improving at the end (epoch 1: 4.0000, epoch 2: 2.0000): try epochs=4'

    Args:
        history: a row per epoch; epochs that early stopping left out of a phase are counted.
        name: of the monitored metric.
        higher_is_better: its direction.
        keeps_best: the weights of the best epoch are used in the end.
        phases: number of training phases.
    """
    values = [float(row[name]) for row in history]
    count, best = len(values), (max if higher_is_better else min)
    if count < 2:
        return ""
    found = values.index(best(values))
    last, before = count - 1, count - 1 - max(1, count // 10)
    if found < last and _differ(values[found], values[last]) and not keeps_best:
        at, end = history[found]["epoch"], history[last]["epoch"]
        shorter = f"epochs={at} or " if phases == 1 else ""
        return (
            f"{name} was best after epoch {at} of {end} ({number(values[found])}, "
            f"at the end {number(values[last])}): try {shorter}trainer.keep=best with data.test=0.1"
        )
    if found == last and _differ(values[last], values[before]):
        longer = f"try epochs={2 * count}" if phases == 1 else "train the last phase longer"
        return (
            f"{name} was still improving at the end (epoch {history[before]['epoch']}: {number(values[before])}, "
            f"epoch {history[last]['epoch']}: {number(values[last])}): {longer}"
        )
    return ""


def _differ(first: float, second: float) -> bool:
    return abs(first - second) > NOTICEABLE * max(abs(first), abs(second))
