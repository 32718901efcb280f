"""Training and evaluation of one model of a run; the same on every rank."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dlrunner.config.plan import Plan
from dlrunner.errors import ConfigError
from dlrunner.execution.initial_weights import load_initial
from dlrunner.model import AveragedOutputs, Model
from dlrunner.schedules import Phase
from dlrunner.system.backends import configure, enable_cudnn_benchmark
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
    """A trained model and its evaluations."""

    seed: int
    model: Model
    history: Sequence[Row]
    last: Row
    """Metrics of the epoch whose weights the model holds."""
    phase: Phase
    """The phase of this epoch."""
    best: Row | None
    evaluations: Mapping[Split, Evaluation]
    """Outputs and targets of valid and, if there is one, test; averaged over test-time augmentation."""


def set_up_process(checked: Plan) -> None:
    """Set the threads and algorithms of this process, before a run computes anything."""
    trainer = checked.build_trainer(checked.settings.seed)
    trainer.use_threads(checked.batch_size)
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
    notify: Callable[[str], None] = lambda text: None,
    add_note: Callable[[str], None] = lambda text: None,
) -> Member:
    """Train the run itself, or one member of an ensemble.

    Args:
        checked: the plan of the run.
        task: built with the data and the member's seed.
        seed: of the member.
        group: the processes of the run.
        run: stores checkpoints.
        display: shows progress.
        signals: stop requests.
        notify: shows a line to the user.
        add_note: records a note for the user.
    """
    seed_everything(seed)
    model, notes = initial_model(checked, task)
    trainer = checked.build_trainer(seed, group)
    _refuse_single_rows(task, model, checked.batch_size)
    with group.rank0_first():
        notes += trainer.prepare(task, model, notify)
    for note in notes:
        add_note(note)
    enable_cudnn_benchmark(checked.device, task.fixed_shapes)
    hooks = Hooks(run, display, signals, trainer.checkpoint_minutes, notify)
    fitted = trainer.fit(task, model, checked.make_optimizer, hooks)
    log.info("last row: %s", json.dumps(fitted.row))
    evaluations: dict[Split, Evaluation] = {}
    splits: Sequence[Split] = ("valid", "test") if task.has_test() else ("valid",)
    for split in splits:
        views = []
        for view in range(task.num_tta_views()):
            evaluation = fitted.valid if split == "valid" and view == 0 else None  # kept from the last epoch
            evaluation = evaluation or trainer.evaluate(
                task, model, split, fitted.phase, keep=task.keeps_outputs, view=view
            )
            assert evaluation is not None
            views.append(evaluation)
        evaluations[split] = views[0] if len(views) == 1 else _averaged(task, views)
    return Member(seed, model, fitted.state.history, fitted.row, fitted.phase, fitted.state.best, evaluations)


def initial_model(checked: Plan, task: Task) -> tuple[Model, list[str]]:
    """Return a model with the weights that training starts from, and notes on them for the user."""
    model = checked.build_model(task.dims)
    notes = [*model.load_pretrained()]
    if checked.settings.init:
        notes += load_initial(model, checked.settings.init)
    return model, notes


def evaluate_together(checked: Plan, task: Task, members: Sequence[Member], split: Split) -> Evaluation:
    """Evaluate the averaged outputs of members, computed once more because the task keeps none."""
    averaged = AveragedOutputs([member.model for member in members], task.average)
    evaluation = checked.build_trainer(checked.settings.seed).evaluate(task, averaged, split, members[-1].phase)
    assert evaluation is not None
    return evaluation


def member_seed(seed: int, ensemble: int, index: int) -> int:
    """Return the seed of a member, such that runs with the seeds 0, 1, 2 … share no member.

    >>> [member_seed(1, 6, index) for index in range(6)]
    [6, 7, 8, 9, 10, 11]
    """
    return seed * ensemble + index


def _averaged(task: Task, views: Sequence[Evaluation]) -> Evaluation:
    """Average the outputs of several augmented views; only rank 0 has outputs."""
    outputs = [view.outputs for view in views if view.outputs is not None]
    return Evaluation(views[0].metrics, task.average(outputs) if outputs else None, views[0].targets)


def _refuse_single_rows(task: Task, model: Model, batch_size: int) -> None:
    """Refuse training batches of a single row if the model has batch norm, which needs two."""
    rows = min(batch_size, dict(task.sizes()).get("train", batch_size))
    if rows < 2 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise ConfigError("batch_size: batch norm needs at least two training rows in a batch, not one")
