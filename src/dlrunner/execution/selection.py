"""Values of settings that training on a part of the training rows decides between."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlrunner.config.auto_values import with_values
from dlrunner.config.plan import Plan, plan
from dlrunner.errors import RunError
from dlrunner.execution.member import set_up_process, train_member
from dlrunner.reporting.terminal.progress import SilentDisplay, number
from dlrunner.system.process_group import SingleProcess
from dlrunner.system.signals import StopSignals
from dlrunner.task import Task
from dlrunner.training.state import Monitor, Row

IMPROVEMENT = 0.005
"""Relative; a smaller one is noise, and the recommended value stays."""
LONG = 3.0
"""Seconds of a training after which a line says that others follow."""


class InMemory:
    """Checkpoints of a training that nothing resumes."""

    def __init__(self) -> None:
        self._saved: dict[str, dict[str, Any]] = {}

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any] | None:
        """Return a checkpoint, or None when there is none."""
        return self._saved.get(name)

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Keep the weights of the best epochs, which training may return to."""
        if name != "last.pt":
            self._saved[name] = copy.deepcopy(dict(state))

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write nothing."""


def selected(checked: Plan, task: Task, values: Mapping[str, Any], notify: Callable[[str], None]) -> dict[str, Any]:
    """Return the task's alternatives that are better than its recommended values, by name.

    Of each setting they are tried in their order as long as the monitored metric improves, on the task's training rows
    alone: neither validation nor test rows decide.

    Args:
        checked: the plan with the recommended values.
        task: built by it.
        values: the recommended values of the settings that are `auto`.
        notify: shows what was compared.

    Raises:
        ConfigError: a value does not fit the other settings.
    """
    better: dict[str, Any] = {}
    for name, others in task.alternatives(values).items():
        if name not in values or not others:
            continue
        set_up_process(checked)
        monitor, tried, last = Monitor.of(task), list[str](), None
        for value in [values[name], *others]:
            started = time.perf_counter()
            result = _result(checked, task, {**better, name: value})
            if result is None:
                if not tried:
                    notify(
                        f"auto: {name}: training on a part of the rows diverges with {typed(value)}; no other is tried"
                    )
                break
            if not tried and (seconds := time.perf_counter() - started) > LONG:
                notify(f"auto: trying values of {name} on a part of the training rows, {seconds:.0f} s each")
            tried.append(f"{typed(value)} {number(result)}")
            if last is not None:
                gain = (result - last) * (1 if monitor.higher_is_better else -1)
                if gain <= IMPROVEMENT * abs(last):
                    break
                better[name] = value
            last = result
        if tried:
            notify(f"auto: {name} by {monitor.name} on a part of the training rows: {', '.join(tried)}")
    return better


def _result(checked: Plan, task: Task, values: Mapping[str, Any]) -> float | None:
    """Train with these values on a part of the training rows; return the monitored metric on the others.

    None if training diverges: the run itself says so, if its values do.
    """
    changed = plan(with_values(checked.config, values))
    inner, seed = task.on_training_rows(), changed.settings.seed
    try:
        member = train_member(changed, inner, seed, SingleProcess(), InMemory(), SilentDisplay(), StopSignals())
    except RunError:
        return None
    return float(member.last[Monitor.of(task).name])


def typed(value: Any) -> str:
    """Return a value as it would be typed, without a blank at which a line would be wrapped.

    >>> typed([2.5, 0.1]), typed(1e-3), typed(None), typed(True)
    ('[2.5,0.1]', '0.001', 'null', 'true')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
