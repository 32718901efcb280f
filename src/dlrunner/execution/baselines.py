"""Baselines of a run: computed once for the same data and split, and compared with it."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping

import torch
from threadpoolctl import threadpool_limits

from dlrunner.config.plan import Plan
from dlrunner.data.core.cache import cache_dir, write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.execution.advice import NOTICEABLE
from dlrunner.reporting.terminal.baselines import best_baseline, is_dear
from dlrunner.reporting.terminal.progress import number
from dlrunner.task import Task

log = logging.getLogger("dlrunner")

Baselines = Mapping[str, Mapping[str, float]]
"""Metrics by name (`valid/rmse`) of each baseline, and `seconds`."""


def baselines_of(task: Task, checked: Plan, identity: Mapping[str, str], add_note: Callable[[str], None]) -> Baselines:
    """Return the baselines of a task, from the cache if they are known for this data, split and code.

    Args:
        task: of the run.
        checked: its plan: the settings of data and task count.
        identity: digests of the run's data and code.
        add_note: records a note for the user if they cannot be computed.
    """
    settings = [checked.data.complete() if checked.data else None, checked.task.complete()]
    parts = [settings, task.baseline_key(), identity["data"], identity["code"]]
    key = json.dumps(parts, sort_keys=True, default=repr)
    file = cache_dir() / "baselines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    content = read_sealed(file)
    if content is not None:
        known: Baselines = json.loads(content)
        return known
    started = time.perf_counter()
    try:
        # Threads as in training: more of them than cores wait for each other.
        with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = {name: dict(metrics) for name, metrics in task.baselines().items()}
        for warning in caught:  # a library's, about its own settings: for the log, not for the terminal
            log.info("baselines: %s", warning.message)
    except (SystemExit, Exception) as failed:  # of a library or a plugin; the model is trained, and its results count
        log.exception("the baselines could not be computed")
        add_note(f"the baselines could not be computed: {failed}")
        return {}
    if len(found) == 1:  # its time is that of the call
        next(iter(found.values())).setdefault("seconds", round(time.perf_counter() - started, 2))
    if found:
        try:
            write_sealed(file, json.dumps(found).encode())
        except OSError:  # a cache that cannot be written is only slower
            return found
    return found


def verdict(
    value: float,
    seconds: float,
    baselines: Baselines,
    metric: str,
    shown: Callable[[float], str] = number,
    *,
    higher_is_better: bool,
) -> str:
    """Return a sentence if a baseline is as good as the run or better, or hardly worse in less time; else an empty one.

    >>> verdict(5.96, 3.0, {"ridge": {"valid/rmse": 3.0}}, "valid/rmse", higher_is_better=False)
    'this run (valid/rmse 5.9600) is behind the baseline ridge (3.0000)'
    >>> verdict(0.98, 3.0, {"mean": {"valid/accuracy": 0.98}}, "valid/accuracy", higher_is_better=True)
    'this run (valid/accuracy 0.9800) is no better than the baseline mean (0.9800)'
    >>> verdict(2.99, 300.0, {"ridge": {"valid/rmse": 3.0, "seconds": 1.2}}, "valid/rmse", higher_is_better=False)
    'the baseline ridge is the better buy: valid/rmse 3.0000 in 1 s, this run 2.9900 in 300 s'
    """
    best = best_baseline(baselines, metric, higher_is_better=higher_is_better)
    if best is None:
        return ""
    name, other = best
    gain, taken = other - value if higher_is_better else value - other, baselines[name].get("seconds")
    has_price = is_dear(seconds, taken)
    if gain > NOTICEABLE * abs(value):
        times = f", the better buy: {taken:.0f} s instead of {seconds:.0f} s" if has_price else ""
        return f"this run ({metric} {shown(value)}) is behind the baseline {name} ({shown(other)}){times}"
    if has_price and -gain <= NOTICEABLE * abs(other):
        return (
            f"the baseline {name} is the better buy: {metric} {shown(other)} in {taken:.0f} s, "
            f"this run {shown(value)} in {seconds:.0f} s"
        )
    if gain >= 0:
        return f"this run ({metric} {shown(value)}) is no better than the baseline {name} ({shown(other)})"
    return ""
