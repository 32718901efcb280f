"""One model of a run, trained and evaluated; every process of the run does it alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dlrunner.config.plan import Plan
from dlrunner.errors import ConfigError
from dlrunner.model import Model
from dlrunner.schedules import Phase
from dlrunner.system.backends import configure, set_threads, try_algorithms
from dlrunner.system.cpu_tuning import keep_freed_memory
from dlrunner.system.process_group import SingleProcess
from dlrunner.system.seeding import seed_everything
from dlrunner.system.signals import StopSignals
from dlrunner.task import Split, Task
from dlrunner.training.hooks import Checkpoints, Display, Hooks
from dlrunner.training.state import Evaluation, Row

log = logging.getLogger("dlrunner")


@dataclass(frozen=True)
class Member:
    """A trained model and what it says of the splits."""

    seed: int
    model: Model
    history: Sequence[Row]
    last: Row
    """Of the epoch whose weights the model holds."""
    phase: Phase
    """Of this epoch."""
    best: Row | None
    evaluations: Mapping[Split, Evaluation]
    """Outputs and targets of valid and, where there is one, test; of several looks, averaged."""


def set_up_process(checked: Plan) -> None:
    """Set threads and algorithms of this process, before anything is computed for a run."""
    trainer = checked.build_trainer(checked.settings.seed)
    set_threads(trainer.num_threads)
    configure(checked.device, trainer.deterministic, trainer.matmul)
    if trainer.cpu_tuning:
        keep_freed_memory()


def train_member(
    checked: Plan,
    task: Task,
    seed: int,
    group: SingleProcess,
    run: Checkpoints,
    display: Display,
    signals: StopSignals,
    tell: Callable[[str], None] = lambda text: None,
    note: Callable[[str], None] = lambda text: None,
) -> Member:
    """Train the run itself, or one member of an ensemble.

    Args:
        checked: what was asked for.
        task: on its data, with the member's seed.
        seed: of the member.
        group: the processes of the run.
        run: keeps checkpoints.
        display: shows progress.
        signals: ask for a stop.
        tell: shows a line.
        note: takes down what a person should know.
    """
    seed_everything(seed)
    model = checked.build_model(task.dims)
    trainer = checked.build_trainer(seed, group)
    _refuse_single_rows(task, model, checked.settings.batch_size)
    notes = list(model.load_pretrained())
    with group.rank0_first():
        notes += trainer.prepare(task, model, tell)
    for each in notes:
        note(each)
    try_algorithms(checked.device, task.fixed_shapes)
    hooks = Hooks(run, display, signals, trainer.checkpoint_minutes, tell)
    fitted = trainer.fit(task, model, checked.make_optimizer, hooks)
    log.info("last row: %s", json.dumps(fitted.row))
    evaluations: dict[Split, Evaluation] = {}
    splits: Sequence[Split] = ("valid", "test") if task.has_test() else ("valid",)
    for split in splits:
        looks = []
        for look in range(task.num_tta_views()):
            found = fitted.valid if split == "valid" and look == 0 else None  # it is at hand from the last epoch
            found = found or trainer.evaluate(task, model, split, fitted.phase, keep=task.keeps_outputs, view=look)
            assert found is not None
            looks.append(found)
        evaluations[split] = looks[0] if len(looks) == 1 else _averaged(task, looks)
    return Member(seed, model, fitted.state.history, fitted.row, fitted.phase, fitted.state.best, evaluations)


def member_seed(seed: int, ensemble: int, index: int) -> int:
    """Return the seed of a member: runs with the seeds 0, 1, 2 … have no member in common.

    >>> [member_seed(1, 6, index) for index in range(6)]
    [6, 7, 8, 9, 10, 11]
    """
    return seed * ensemble + index


def _averaged(task: Task, looks: Sequence[Evaluation]) -> Evaluation:
    """Average the outputs of several looks; another process than rank 0 has none."""
    outputs = [look.outputs for look in looks if look.outputs is not None]
    return Evaluation(looks[0].metrics, task.average(outputs) if outputs else None, looks[0].targets)


def _refuse_single_rows(task: Task, model: Model, batch_size: int) -> None:
    """Refuse training batches of a single row where batch norm needs two."""
    rows = min(batch_size, dict(task.sizes()).get("train", batch_size))
    if rows < 2 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ConfigError("batch_size: batch norm needs two training rows in a batch, or more; there would be one")
