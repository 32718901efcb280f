"""Every task with every optimizer and every schedule: it composes, trains, and resumes to the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from dlrunner.cli.compose import compose_jobs
from dlrunner.cli.conf_paths import options_of
from dlrunner.config.plan import Plan, plan
from dlrunner.model import Model
from dlrunner.system.seeding import seed_everything
from dlrunner.task import Batch, Task
from dlrunner.training import Trainer
from dlrunner.training.schedule import set_rates
from dlrunner.training.state import TrainingState
from tests.training.test_devices import TASKS


def made(checked: Plan, task: Task) -> tuple[Model, torch.optim.Optimizer, Trainer]:
    seed_everything(0)
    model, trainer = checked.build_model(task.dims), checked.build_trainer(0)
    trainer.train_mode(model, checked.phases[0])
    return model, checked.make_optimizer(model.layer_groups()), trainer


def train(
    checked: Plan,
    task: Task,
    made: tuple[Model, torch.optim.Optimizer, Trainer],
    batches: Sequence[Batch],
    state: TrainingState,
) -> None:
    model, optimizer, trainer = made
    for number, batch in enumerate(batches, start=state.step):
        set_rates(optimizer, checked.phases[0], number / 10)
        _, state.hidden = trainer.train_step(task, model, optimizer, batch, True, state.hidden)


def pairs_of(task: str) -> list[tuple[str, str]]:
    """Return pairs that have every optimizer and every schedule; the tasks together have every pair."""
    optims, schedules, turn = options_of("optim"), options_of("schedule"), list(TASKS).index(task)
    if len(optims) >= len(schedules):
        return [(optim, schedules[(number + turn) % len(schedules)]) for number, optim in enumerate(optims)]
    return [(optims[(number + turn) % len(optims)], schedule) for number, schedule in enumerate(schedules)]


def test_every_pair_of_optimizer_and_schedule_is_tried_by_a_task() -> None:
    expected = set(itertools.product(options_of("optim"), options_of("schedule")))
    assert len(expected) >= 36
    assert {pair for task in TASKS for pair in pairs_of(task)} == expected


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_and_resumes_with_every_optimizer_and_schedule(name: str) -> None:
    words = [word for word in TASKS[name] if not word.startswith("trainer.")]
    jobs = [
        [*words, "data_dir=nowhere", f"optim={optim}", f"schedule={schedule}"] for optim, schedule in pairs_of(name)
    ]
    task, batches = None, list[Batch]()
    for job, config in zip(jobs, compose_jobs(jobs), strict=True):
        if not isinstance(config, dict):
            raise config
        checked = plan(config)
        if task is None:
            task = checked.build_task(checked.build_data(), 0)
            batches = list(itertools.islice(task.batches("train", 0, checked.phases[0]), 3))
        unbroken = made(checked, task)
        train(checked, task, unbroken, batches, TrainingState())

        stopped, state = made(checked, task), TrainingState()
        train(checked, task, stopped, batches[:2], state)
        state.step = 2
        model, optimizer, trainer = stopped
        checkpoint = trainer.checkpoint(state, model, optimizer)
        resumed = made(checked, task)
        torch.manual_seed(7)  # the generator is put back too
        state = resumed[2].restore(checkpoint, resumed[0], resumed[1])
        train(checked, task, resumed, batches[2:], state)
        weights = zip(unbroken[0].state_dict().items(), resumed[0].state_dict().values(), strict=True)
        for (key, expected), found in weights:
            assert torch.equal(expected, found), (job, key)
            assert bool(expected.isfinite().all()), (job, key)
