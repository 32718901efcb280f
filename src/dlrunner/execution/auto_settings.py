"""Settings that are `auto`: decided from the data before a run starts, and remembered for the same request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from dlrunner.config.auto_values import with_values
from dlrunner.config.plan import Plan, plan
from dlrunner.data.core.cache import cache_dir, write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.errors import ConfigError, RunError
from dlrunner.execution.identity import digests, refuse_changed_data
from dlrunner.execution.member import initial_model, set_up_process
from dlrunner.execution.selection import selected, typed
from dlrunner.runs.fingerprint import code_digest
from dlrunner.system.backends import restored_threads
from dlrunner.system.seeding import seed_everything
from dlrunner.task import Data, DataIdentity, Task
from dlrunner.training.lr_finder import RangeTest, range_test

LR = "optim.lr"


def decide(
    checked: Plan, data: Data | None, identity: DataIdentity, notify: Callable[[str], None]
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan with values for all settings that are `auto`, and these values by name.

    The precision follows from the task and the device, and is in the plan already. The task recommends numbers for its
    data, and may have alternatives that are tried on its training rows; a learning rate is found by the range test. All
    follow from the request, the data and the code, so that they are kept in the cache: asking twice reads nothing.

    Raises:
        ConfigError: the values do not fit the other settings.
        DataError: the data cannot be read.
        RunError: the range test finds no rate.
    """
    precision = {"precision": checked.settings.precision} if checked.precision_reason else {}
    if not checked.undecided:
        return checked, precision
    asked = digests(checked, identity)
    known = remembered(checked, asked)
    if known is not None:
        return plan(with_values(checked.config, known)), {**precision, **known}
    task = checked.build_task(data, checked.settings.seed)
    recommended = task.recommended(checked.by_name())
    unknown = [name for name in checked.undecided if name != LR and name not in recommended]
    if unknown:
        raise ConfigError(f"{unknown[0]}: {checked.task.target}.recommended() has no value for it; set it")
    values = {name: recommended[name] for name in checked.undecided if name != LR}
    decided = plan(with_values(checked.config, values)) if values else checked
    if LR in checked.undecided:
        rate = find_rate(decided, decided.build_task(data, decided.settings.seed), notify).suggestion
        if rate is None:
            raise RunError("optim.lr=auto: the loss does not decrease at any rate; set optim.lr to a number")
        values[LR] = float(f"{rate:.2g}")
        decided = plan(with_values(decided.config, values))
    better = {}
    if task.alternatives(values):
        with restored_threads():  # what is tried may have other batches than the run
            better = selected(decided, decided.build_task(data, decided.settings.seed), values, notify)
    if better:
        values |= better
        decided = plan(with_values(checked.config, values))
    refuse_changed_data(checked, data, identity)
    _remember(asked, values)
    return decided, {**precision, **values}


def find_rate(checked: Plan, task: Task, notify: Callable[[str], None]) -> RangeTest:
    """Run the learning-rate range test on a new model, with the threads and algorithms of the run."""
    set_up_process(checked)
    seed_everything(checked.settings.seed)
    trainer = checked.build_trainer(checked.settings.seed)
    model, notes = initial_model(checked, task)
    for note in [*notes, *trainer.prepare(task, model, notify)]:
        notify(f"note: {note}")
    return range_test(task, model, checked.make_optimizer, trainer)


def remembered(checked: Plan, identity: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the values that were decided for the same request, data and code.

    None: not yet, or with pre-trained weights in a file that has been moved since.
    """
    content = read_sealed(cache_dir() / "auto" / _key(identity))
    found = json.loads(content) if content else {}
    if found.keys() != {*checked.undecided}:
        return None
    try:
        plan(with_values(checked.config, found)).model_files()
    except ConfigError:
        return None
    return found


def _remember(identity: Mapping[str, str], values: Mapping[str, Any]) -> None:
    try:
        write_sealed(cache_dir() / "auto" / _key(identity), json.dumps(values).encode())
    except OSError:  # a cache that cannot be written is only slower
        return


def _key(identity: Mapping[str, str]) -> str:
    own = code_digest(also=("execution/auto_settings", "execution/selection", "training/lr_finder"))
    return hashlib.sha256(json.dumps([identity, own], sort_keys=True).encode()).hexdigest()[:32] + ".json"


def describe(values: Mapping[str, Any]) -> str:
    """Return the decided values as they would be typed.

    >>> describe({"epochs": 20, "optim.lr": 0.005, "optim.weight_decay": [2.5, 0.1]})
    'epochs=20 optim.lr=0.005 optim.weight_decay=[2.5,0.1]'
    """
    return " ".join(f"{name}={typed(value)}" for name, value in values.items())
