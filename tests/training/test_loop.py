"""The loop: phases, rates, freezing, accumulation, clipping, early stopping, precision, divergence."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrunner import schedules
from dlrunner.data.batching import TensorLoader, epoch_order
from dlrunner.errors import RunError
from dlrunner.looks.progress import SilentDisplay
from dlrunner.metrics import MeanSquaredError, Metric, SmoothedLoss
from dlrunner.model import Model
from dlrunner.randomness import seed_everything
from dlrunner.schedules import Phase
from dlrunner.signals import StopSignals
from dlrunner.task import Loader, Split, Task
from dlrunner.training import Trainer
from dlrunner.training.hooks import Hooks
from dlrunner.training.state import MakeOptimizer, TrainingState
from tests.conftest import QUICK, Dlrun

CPU = torch.device("cpu")


class Line(Task):
    """y = 2x + 1 with noise, 50 rows."""

    def __init__(self, batch_size: int = 10, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(50, generator=generator)
        self.y = 2 * self.x + 1 + 0.1 * torch.randn(50, generator=generator)
        self.batch_size, self.seed = batch_size, seed

    @property
    def dims(self) -> None:
        return None

    def batches(self, split: Split, epoch: int, start: int = 0) -> Loader:
        order = epoch_order(50, self.seed, epoch) if split == "train" else None
        return TensorLoader([self.x], self.y, self.batch_size, order, start)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    def metrics(self) -> Mapping[str, Metric]:
        return {"mse": MeanSquaredError()}


class TwoGroups(Model):
    """A slope and an offset, each a group."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.slope(x.unsqueeze(1)).squeeze(1) + self.offset(torch.ones_like(x).unsqueeze(1)).squeeze(1)
        return result

    def layer_groups(self) -> Sequence[nn.Module]:
        return [self.slope, self.offset]


class Memory:
    """Checkpoints in memory, and what was saved under which name."""

    def __init__(self) -> None:
        self.saved: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any] | None:
        return copy.deepcopy(self.files.get(name))

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        self.saved.append(name)
        self.files[name] = copy.deepcopy(dict(state))

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = list(rows)


def sgd(groups: Sequence[nn.Module], lr: float = 0.05, momentum: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": list(group.parameters())} for group in groups], lr=lr, momentum=momentum)


def phase(
    epochs: int = 3, lr: tuple[float, ...] = (0.05,), freeze_to: int = 0, curves: schedules.Curves | None = None
) -> Phase:
    return Phase(epochs, curves or schedules.constant(epochs), lr, freeze_to)


def fit(
    *phases: Phase, task: Task | None = None, make: MakeOptimizer = sgd, run: Memory | None = None, **settings: Any
) -> tuple[TwoGroups, TrainingState]:
    seed_everything(0)
    model = TwoGroups()
    trainer = Trainer(phases, CPU, settings.pop("precision", "fp32"), 0, **settings)
    hooks = Hooks(run or Memory(), SilentDisplay(), StopSignals())
    return model, trainer.fit(task or Line(), model, make, hooks).state


def test_a_line_is_found() -> None:
    model, state = fit(phase(40))
    assert float(model.slope.weight.detach()) == pytest.approx(2, abs=0.1)
    assert float(model.offset.weight.detach()) == pytest.approx(1, abs=0.1)
    assert state.history[-1]["valid/mse"] < 0.02


def test_the_training_loss_is_the_exact_mean_over_examples() -> None:
    _, state = fit(phase(1, lr=(0.0,)), task=Line(batch_size=16))  # 16, 16, 16 and 2 rows; weights stand still
    assert state.history[0]["train/loss"] == pytest.approx(state.history[0]["valid/loss"], rel=1e-6)


def test_a_frozen_group_stands_still_and_then_trains() -> None:
    seed_everything(0)
    before = TwoGroups()
    frozen, _ = fit(phase(2, freeze_to=-1))
    assert torch.equal(frozen.slope.weight, before.slope.weight)
    assert not torch.equal(frozen.offset.weight, before.offset.weight)
    unfrozen, _ = fit(phase(2, freeze_to=-1), phase(1))
    assert not torch.equal(unfrozen.slope.weight, before.slope.weight)


def test_each_group_has_its_own_rate() -> None:
    seed_everything(0)
    before = TwoGroups()
    model, state = fit(phase(1, lr=(0.0, 0.05)))
    assert torch.equal(model.slope.weight, before.slope.weight)
    assert not torch.equal(model.offset.weight, before.offset.weight)
    assert state.history[0]["lr"] == [0.0, 0.05]


def test_the_rate_follows_the_schedule_step_by_step_and_phases_follow_each_other() -> None:
    seen: list[float] = []

    def recording(groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        optimizer = sgd(groups)
        optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
        return optimizer

    fit(phase(2, lr=(0.1,), curves=schedules.cosine(2)), phase(1, lr=(0.01,)), make=recording)
    factor = schedules.cosine(2).lr
    assert seen[:10] == pytest.approx([0.1 * factor(step / 10) for step in range(10)])
    assert seen[10:] == pytest.approx([0.01] * 5)


def test_one_cycle_moves_the_momentum_against_the_rate() -> None:
    seen: list[float] = []

    def recording(groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        optimizer = sgd(groups, momentum=0.9)
        optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["momentum"]))
        return optimizer

    curves = schedules.one_cycle(2, momentum=[0.95, 0.85])
    fit(phase(2, lr=(0.01,), curves=curves), make=recording)
    assert curves.momentum is not None
    assert seen == pytest.approx([curves.momentum(step / 10) for step in range(10)])
    assert min(seen) < 0.86 < 0.94 < max(seen)


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    small, _ = fit(phase(2), task=Line(batch_size=5), accumulate=2)
    large, _ = fit(phase(2), task=Line(batch_size=10))
    torch.testing.assert_close(small.state_dict(), large.state_dict())


def test_clipping_bounds_the_norm_of_the_gradient() -> None:
    seed_everything(0)
    before = TwoGroups()
    model, _ = fit(phase(1, lr=(1.0,)), task=Line(batch_size=50), clip=1e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)])
    assert float(moved.norm().detach()) == pytest.approx(1e-3, rel=1e-3)


def test_early_stopping_ends_training_when_nothing_gets_better() -> None:
    _, state = fit(phase(50, lr=(0.0,)), early_stopping=3)
    assert len(state.history) == 4


def test_a_checkpoint_is_kept_at_the_end_of_every_cycle() -> None:
    run = Memory()
    fit(phase(3, curves=schedules.cosine(3, cycle_len=1, cycle_mult=2)), run=run)
    assert [name for name in run.saved if name.startswith("cycle")] == ["cycle-1.pt", "cycle-2.pt"]


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_still_finds_the_line(precision: str) -> None:
    model, _ = fit(phase(40), precision=precision)
    assert float(model.slope.weight.detach()) == pytest.approx(2, abs=0.15)
    assert model.slope.weight.dtype is torch.float32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it imports its compiler
def test_compiling_changes_nothing_but_the_speed() -> None:
    plain, _ = fit(phase(1))
    torch._dynamo.reset()
    compiled, _ = fit(phase(1), compile=True)
    torch.testing.assert_close(plain.state_dict(), compiled.state_dict())


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step() -> None:
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+ of epoch \d+"):
        fit(phase(30, lr=(1e9,)))


def test_a_diverged_run_says_failed_and_keeps_its_last_good_checkpoint(dlrun: Dlrun, here: Any) -> None:
    words = [
        "task=collab",
        "data.source=stand-in",
        "epochs=2",
        "schedule=step",
        "schedule.at=[1]",
        "schedule.gamma=1e12",
    ]
    status, _, err = dlrun(*words, *QUICK)
    assert status == 1
    assert "diverged" in err
    assert "epoch 2" in err
    (run,) = (here / "runs" / "collab").glob("*-????????")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "at step" in summary["error"]
    checkpoint = torch.load(run / "last.pt", weights_only=True)
    assert checkpoint["state"]["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in checkpoint["model"].values())


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    orders = {(seed, epoch): tuple(epoch_order(100, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert tuple(epoch_order(100, 2, 1).tolist()) == orders[2, 1]
    assert sorted(orders[0, 0]) == list(range(100))


def test_the_smoothed_loss_is_corrected_for_its_start() -> None:
    smoothed = SmoothedLoss()
    assert smoothed.update([5.0]) == pytest.approx(5.0)
    average = 0.0
    for loss in (5.0, 3.0, 1.0):
        average = average * 0.98 + loss * 0.02
    assert smoothed.update([3.0, 1.0]) == pytest.approx(average / (1 - 0.98**3))
