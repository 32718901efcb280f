"""Agreement and communication of several processes; complete runs are in test_processes.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dlrunner.model import Model
from dlrunner.models.ranking import ChoiceDims, Ranking
from dlrunner.models.tabular import MLP, Linear
from dlrunner.models.tabular_layers import TabularDims
from dlrunner.reporting.terminal.progress import SilentDisplay
from dlrunner.system.process_group import SingleProcess
from dlrunner.system.signals import StopSignals
from dlrunner.training.distributed import DistributedTrainer, SharedHooks, gather_rows
from dlrunner.training.hooks import Hooks
from dlrunner.training.schedule import freeze_unused
from dlrunner.training.state import TrainingState
from tests.training.test_loop import CPU, Line, Memory, TwoGroups, phase, sgd


class Others(SingleProcess):
    """A process group with one other process, whose requests the test sets."""

    size = 2

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []
        self.wants = (0, 0, 0)
        self.steps = 10**6

    def largest(self, *values: int) -> tuple[int, ...]:
        self.calls.append(values)
        theirs = (*self.wants, -self.steps) if len(values) == 4 else self.wants[2:]
        return tuple(max(pair) for pair in zip(values, theirs, strict=True))


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in ("hooks", "distributed", "loss_log"):
        monkeypatch.setattr(f"dlrunner.training.{module}.time", found)
    return found


def shared(group: Others) -> SharedHooks:
    hooks = SharedHooks(Hooks(Memory(), SilentDisplay(), StopSignals()), group)
    hooks.start_epoch(TrainingState(), 1, 1000)
    return hooks


def test_processes_agree_twice_a_second_and_not_at_each_step(clock: Clock) -> None:
    group = Others()
    hooks = shared(group)
    for _ in range(1000):
        clock.now += 0.01
        assert not hooks.due().stop
    assert len(group.calls) == pytest.approx(10 / 0.5, abs=2)


def test_slow_steps_are_agreed_on_one_by_one(clock: Clock) -> None:
    group = Others()
    hooks = shared(group)
    for _ in range(10):
        clock.now += 2.0
        hooks.due()
    assert len(group.calls) == 10


def test_a_request_of_one_process_is_done_by_all_and_the_slowest_sets_the_interval(clock: Clock) -> None:
    group = Others()
    group.steps = 3
    hooks = shared(group)
    clock.now += 0.001
    hooks.due()
    group.wants = (0, 1, 1)
    found = []
    for _ in range(3):
        clock.now += 0.001
        found.append(hooks.due())
    assert [bool(due) for due in found] == [False, False, True]
    assert found[-1].stop
    assert found[-1].save
    assert not found[-1].show


def test_a_stop_in_an_evaluation_is_agreed_on_at_every_eighth_batch() -> None:
    group = Others()
    hooks = shared(group)
    group.wants = (0, 0, 1)
    assert [hooks.stop_requested_in_evaluation() for _ in range(16)] == 2 * [*7 * [False], True]
    assert len(group.calls) == 2
    assert hooks.stop_requested()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_rows_of_all_processes_are_gathered_in_one_collective(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {
        0: [torch.randn(3, 2).to(dtype), torch.randn(0, 2).to(dtype), torch.randn(2, 2).to(dtype)],
        1: [torch.randn(2, 2).to(dtype), torch.randn(1, 2).to(dtype), torch.randn(1, 2).to(dtype)],
    }
    calls = []

    class Two(Others):
        def all_gather_object(self, value: Any) -> list[Any]:
            return [[len(each) for each in shards[rank]] for rank in (0, 1)]

    def all_gather(found: list[Tensor], own: Tensor) -> None:
        calls.append(len(own))
        for rank, each in enumerate(found):
            content = torch.cat(shards[rank]).view(-1).view(torch.uint8)
            each[: len(content)] = content

    monkeypatch.setattr(dist, "all_gather", all_gather)
    found = gather_rows(shards[1], Two())
    assert len(calls) == 1
    for rank in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(found[rank], shards[rank], strict=True))


def test_accumulated_gradients_are_not_synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged: list[bool] = []

    class Parallel:
        syncs = True

        @contextlib.contextmanager
        def no_sync(self) -> Iterator[None]:
            self.syncs = False
            yield
            self.syncs = True

    trainer = DistributedTrainer(group=Others(), phases=[phase()], device=CPU, precision="fp32", seed=0, accumulate=3)
    parallel, task, model = Parallel(), Line(), TwoGroups()
    monkeypatch.setattr(trainer, "_parallel", parallel)

    def wrapped(model: TwoGroups) -> Callable[..., Tensor]:
        def forward(x: Tensor) -> Tensor:
            exchanged.append(parallel.syncs)
            return model(x)  # type: ignore[no-any-return]

        return forward

    monkeypatch.setattr(trainer, "wrapped", wrapped)
    optimizer = sgd([model])
    for index, batch in enumerate(task.batches("train", 0, phase()), start=1):
        trainer.train_step(task, model, optimizer, batch, update=index in (3, 5))
    assert exchanged == [False, False, True, False, True]


@pytest.mark.parametrize("name", ["ranking", "mlp", "linear"])
def test_what_never_gets_a_gradient_is_not_waited_for(name: str) -> None:
    """DistributedDataParallel fails in its second step if a parameter that requires a gradient has none."""
    pairs, inputs = torch.tensor([0, 1, 2, 0]), (torch.zeros(4, 0, dtype=torch.long), torch.randn(4, 3))
    if name == "ranking":
        model: Model = Ranking(ChoiceDims(3, 3, pairs, pairs, torch.randn(3, 2), torch.randn(3, 2)), factors=4)
        inputs = (pairs, pairs.unsqueeze(1))
    else:
        dims = TabularDims({}, num_continuous=3)
        model = MLP(dims) if name == "mlp" else Linear(dims)
    freeze_unused(model)
    model.train()
    outputs = model(*inputs)
    (outputs if isinstance(outputs, Tensor) else outputs.outputs).sum().backward()
    trained = {
        name: parameter.grad is not None for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    assert all(trained.values()), trained
    assert trained
