"""The loop: phases, rates, freezing, accumulation, clipping, early stopping, precision, divergence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrunner import schedules
from dlrunner.data.core.batching import TensorLoader, epoch_order
from dlrunner.data.core.regression import Regression
from dlrunner.errors import ConfigError, RunError
from dlrunner.metrics import EMA, MeanSquaredError, Metric
from dlrunner.model import Model, Outputs
from dlrunner.models.collab import DotBias, RatingDims
from dlrunner.models.tabular import EmbeddingNet
from dlrunner.models.tabular_layers import TabularDims
from dlrunner.reporting.terminal.progress import SilentDisplay
from dlrunner.schedules import Phase
from dlrunner.system.backends import restored_threads
from dlrunner.system.seeding import seed_everything
from dlrunner.system.signals import StopSignals
from dlrunner.task import Batch, Loader, Split, Task
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

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        order = epoch_order(50, self.seed, epoch) if split == "train" else None
        return TensorLoader([self.x], self.y, self.batch_size, order, start)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    def metrics(self) -> Mapping[str, Metric]:
        return {"mse": MeanSquaredError()}


class TwoGroups(Model):
    """A slope and an offset, each a layer group."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.slope(x.unsqueeze(1)).squeeze(1) + self.offset(torch.ones_like(x).unsqueeze(1)).squeeze(1)
        return result

    def layer_groups(self) -> Sequence[nn.Module]:
        return [self.slope, self.offset]


class Counting(TwoGroups):
    """Its hidden state counts the batches of the epoch; copies share the list of received states."""

    stateful = True

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Outputs:  # type: ignore[override]
        self.seen.append(None if hidden is None else int(hidden))
        return Outputs(super().forward(x), torch.ones(1, 1) if hidden is None else hidden + 1)


class Seen(list[int | None]):
    """A list that deepcopy does not copy."""

    def __deepcopy__(self, memory: Any) -> Seen:
        return self


class Shrinking(TwoGroups):
    """Has a penalty: the square of its slope."""

    def forward(self, x: Tensor) -> Outputs:  # type: ignore[override]
        return Outputs(super().forward(x), penalty=self.slope.weight.square().sum())


class Memory:
    """Checkpoints in memory, by name."""

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
    epochs: int = 3, lr: tuple[float, ...] = (0.05,), freeze_to: int = 0, curves: schedules.ScheduleCurves | None = None
) -> Phase:
    return Phase(epochs, curves or schedules.constant(epochs), lr, freeze_to)


def fit(
    *phases: Phase, task: Task | None = None, make: MakeOptimizer = sgd, run: Memory | None = None, **settings: Any
) -> tuple[TwoGroups, TrainingState]:
    seed_everything(0)
    model = TwoGroups()
    hooks = Hooks(run or Memory(), SilentDisplay(), StopSignals(), log=settings.pop("messages", []).append)
    trainer = Trainer(phases, CPU, settings.pop("precision", "fp32"), 0, **settings)
    return model, trainer.fit(task or Line(), model, make, hooks).state


def test_a_line_is_fitted() -> None:
    model, state = fit(phase(40))
    assert float(model.slope.weight.detach()) == pytest.approx(2, abs=0.1)
    assert float(model.offset.weight.detach()) == pytest.approx(1, abs=0.1)
    assert state.history[-1]["valid/mse"] < 0.02


def test_the_training_loss_is_the_exact_mean_over_examples() -> None:
    _, state = fit(phase(1, lr=(0.0,)), task=Line(batch_size=16))  # 16, 16, 16 and 2 rows; weights stand still
    assert state.history[0]["train/loss"] == pytest.approx(state.history[0]["valid/loss"], rel=1e-6)


def test_a_frozen_group_stays_unchanged_and_then_trains() -> None:
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


def momenta_of(factory: Callable[..., torch.optim.Optimizer], *phases: Phase) -> list[list[Any]]:
    """Train; return the betas, or the momentum, of each step by phase."""
    seen: list[Any] = []

    def make(groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        made = factory([p for group in groups for p in group.parameters()], lr=0.01)
        made.register_step_pre_hook(
            lambda o, *_: seen.append(o.param_groups[0].get("betas", o.param_groups[0].get("momentum")))
        )
        return made

    fit(*phases, make=make)
    return [seen[5 * start : 5 * (start + each.epochs)] for start, each in zip((0, 2), phases, strict=False)]


CYCLE = schedules.one_cycle(2, momentum=[0.95, 0.85])


@pytest.mark.parametrize(
    ("factory", "own"),
    [
        (partial(torch.optim.SGD, momentum=0.8), 0.8),
        (partial(torch.optim.Adam, betas=(0.8, 0.97)), (0.8, 0.97)),
        (partial(torch.optim.AdamW, betas=(0.8, 0.97)), (0.8, 0.97)),
    ],
)
def test_a_phase_begins_with_the_optimizers_own_momentum(
    factory: Callable[..., torch.optim.Optimizer], own: Any
) -> None:
    cycled, after = momenta_of(factory, phase(2, lr=(0.01,), curves=CYCLE), phase(1, lr=(0.01,)))
    first = [each[0] if isinstance(each, tuple) else each for each in cycled]
    assert min(first) < 0.86 < 0.94 < max(first)
    if isinstance(own, tuple):
        assert {each[1] for each in cycled} == {own[1]}  # the second beta is never moved
    assert after == [own] * 5


def test_a_cycle_leaves_the_momentum_of_rmsprop_alone() -> None:
    (seen,) = momenta_of(torch.optim.RMSprop, phase(2, lr=(0.01,), curves=CYCLE))
    assert seen == [0.0] * 10


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    small, _ = fit(phase(2), task=Line(batch_size=5), accumulate=2)
    large, _ = fit(phase(2), task=Line(batch_size=10))
    torch.testing.assert_close(small.state_dict(), large.state_dict())


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "large"),
    [
        (50, 4, 50),  # one batch an epoch: its group is never full
        (20, 4, 50),  # 20, 20 and 10 rows: the last group is not full, and its batches differ in size
        (16, 3, 48),  # 16, 16, 16, then 2 rows by themselves
    ],
)
def test_the_gradients_of_a_group_are_averaged_over_its_examples(batch_size: int, accumulate: int, large: int) -> None:
    small, _ = fit(phase(2), task=Line(batch_size=batch_size), accumulate=accumulate)
    large_batch, _ = fit(phase(2), task=Line(batch_size=large))
    torch.testing.assert_close(small.state_dict(), large_batch.state_dict())


def test_an_accumulated_step_has_the_mean_rate_of_its_batches() -> None:
    class Scaled(Line):
        def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
            if split == "valid":
                return super().batches(split, epoch, phase)
            halves = [Batch((self.x[:25],), self.y[:25], 1.0), Batch((self.x[25:],), self.y[25:], 0.5)]
            return halves[start:]

    seen: list[float] = []

    def recording(groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        optimizer = sgd(groups)
        optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
        return optimizer

    fit(phase(1, lr=(0.04,)), task=Scaled(), make=recording, accumulate=2)
    _, state = fit(phase(1, lr=(0.04,)), task=Scaled(), make=recording)
    assert seen == pytest.approx([0.03, 0.04, 0.02])
    assert state.history[0]["lr"] == 0.04, "the rate of the schedule, not that of the last batch"


def test_a_train_step_returns_its_loss_and_updates_only_on_request() -> None:
    seed_everything(0)
    task, model = Line(), TwoGroups()
    trainer, optimizer = Trainer([phase()], CPU, "fp32", 0, accumulate=2, l1=10.0), sgd([model])
    trainer.train_mode(model, phase())
    before = copy.deepcopy(model.state_dict())
    first, second = list(task.batches("train", 0, phase()))[:2]
    loss, _ = trainer.train_step(task, model, optimizer, first, update=False)
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(task.loss(model(*first.inputs), first.targets)))  # without penalties
    torch.testing.assert_close(model.state_dict(), before)
    trainer.train_step(task, model, optimizer, second, update=True)
    assert not torch.equal(model.slope.weight, before["slope.weight"])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_l1_penalty_is_on_weights_and_not_on_biases() -> None:
    dims = TabularDims({"c": 3}, 2, continuous=["a", "b"], target=Regression(["y"]))
    packed = EmbeddingNet(dims, hidden=[4, 4], num_nets=2, batch_norm=False)
    penalised = {id(parameter) for parameter in packed.penalised_weights()}
    names = [name for name, parameter in packed.named_parameters() if id(parameter) in penalised]
    assert names == ["embeddings.tables.0.weight", "layers.weight", "layers.weights.0", "head.weight"]
    ratings = DotBias(RatingDims(3, 4, 1.0, 5.0), factors=2)
    assert sum(parameter.shape[1] == 2 for parameter in ratings.penalised_weights()) == 2
    assert all(parameter.shape[1] == 2 for parameter in ratings.penalised_weights())


@pytest.mark.parametrize("number", [-3, 2])
def test_more_frozen_groups_than_there_are_are_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"freeze_to: {number} of a model with 2 layer group"):
        fit(phase(1, freeze_to=number))


def test_a_penalty_adds_to_the_gradients_but_not_to_the_reported_loss() -> None:
    gradients, losses = {}, {}
    for kind in (TwoGroups, Shrinking):
        seed_everything(0)
        task, model = Line(), kind()
        trainer, optimizer = Trainer([phase()], CPU, "fp32", 0), sgd([model])
        (batch, *_) = task.batches("train", 0, phase())
        losses[kind], _ = trainer.train_step(task, model, optimizer, batch, update=False)
        gradients[kind] = torch.as_tensor(model.slope.weight.grad)
    assert torch.equal(losses[TwoGroups], losses[Shrinking])
    expected = gradients[TwoGroups] + 2 * model.slope.weight.detach()
    torch.testing.assert_close(gradients[Shrinking], expected)


def test_the_hidden_state_is_reset_for_each_epoch_and_each_evaluation() -> None:
    seed_everything(0)
    model = Counting()
    run = Memory()
    hooks = Hooks(run, SilentDisplay(), StopSignals())
    Trainer([phase(2)], CPU, "fp32", 0).fit(Line(batch_size=20), model, sgd, hooks)
    assert model.seen == [None, 1, 2] * 4
    assert run.files["last.pt"]["state"]["hidden"] is None


def test_training_resumes_with_the_hidden_state_of_its_checkpoint() -> None:
    task, model, trainer = Line(), Counting(), Trainer([phase()], CPU, "fp32", 0)
    optimizer = sgd([model])
    saved = trainer.checkpoint(TrainingState(step=3, hidden=torch.full((1, 1), 3)), model, optimizer)
    state = trainer.restore(saved, model, optimizer)
    state.losses, state.sizes = [1.0] * 3, [10] * 3
    trainer.train_epoch(task, model, optimizer, state, Hooks(Memory(), SilentDisplay(), StopSignals()))
    assert model.seen == [3, 4]
    assert state.hidden == 5


def test_clipping_bounds_the_norm_of_the_gradient() -> None:
    seed_everything(0)
    before = TwoGroups()
    model, _ = fit(phase(1, lr=(1.0,)), task=Line(batch_size=50), clip=1e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)])
    assert float(moved.norm().detach()) == pytest.approx(1e-3, rel=1e-3)


def test_early_stopping_ends_training_without_improvement() -> None:
    _, state = fit(phase(50, lr=(0.0,)), early_stopping=3)
    assert len(state.history) == 4


@pytest.mark.parametrize(
    ("keep", "early_stopping"), [("best", None), ("best", 30), (None, 30), ("last", 30), (None, None)]
)
def test_the_weights_of_the_best_or_of_the_last_epoch_are_used(keep: Any, early_stopping: int | None) -> None:
    worse = Phase(6, schedules.ScheduleCurves(lr=lambda progress: 1.0 if progress < 0.5 else -1.0), (0.05,))
    model, state = fit(worse, keep=keep, early_stopping=early_stopping)
    values = [row["valid/mse"] for row in state.history]
    assert min(values) == values[2] < values[-1]
    evaluation = Trainer([phase()], CPU, "fp32", 0).evaluate(Line(), model, "valid", phase())
    assert evaluation is not None
    is_best = keep == "best" or (keep is None and early_stopping is not None)
    assert evaluation.metrics["valid/mse"] == (values[2] if is_best else values[-1])


def test_the_best_weights_are_never_replaced_by_others_in_silence() -> None:
    class Losing(Memory):
        """Loses its best checkpoint, or has an older one in its place."""

        def __init__(self, name: str, found: dict[str, Any] | None) -> None:
            super().__init__()
            self.name, self.found = name, found

        def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any] | None:
            return self.found if name == self.name else super().load_checkpoint(name)

    with pytest.raises(RunError, match=r"best\.pt, the best checkpoint, is missing; rerun=true"):
        fit(phase(2), run=Losing("best.pt", None), keep="best")
    with pytest.raises(RunError, match="has the weights of epoch 1, not of 2"):
        fit(phase(2), run=Losing("best.pt", {"model": {}, "epoch": 1}), keep="best")
    with pytest.raises(RunError, match=r"phase-best\.pt, the best checkpoint, is missing"):
        fit(phase(2), phase(2), run=Losing("phase-best.pt", None), early_stopping=5)


class GivenError(MeanSquaredError):
    """Has the given results, one after another."""

    results: Iterator[float]

    def compute(self) -> float:
        return next(self.results)


@pytest.mark.parametrize("number", range(1, 5))
def test_the_best_checkpoint_is_of_the_best_epoch_after_a_full_disk_even_if_results_are_not_reproducible(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Memory):
        """Has no space for one of its checkpoints."""

        def save(self, name: str, state: Mapping[str, Any]) -> None:
            super().save(name, state) if len(self.saved) + 1 != number else self.fail()

        def fail(self) -> None:
            self.saved.append("")
            raise RunError("no space left on device")

    class Noisy(Line):
        def metrics(self) -> Mapping[str, Metric]:
            return {"mse": GivenError()}

    run = Full()
    monkeypatch.setattr(GivenError, "results", iter([3.0, 2.0]), raising=False)
    with pytest.raises(RunError, match="no space"):
        fit(phase(2), task=Noisy(), run=run, keep="best")
    monkeypatch.setattr(GivenError, "results", iter([5.0, 6.0]))  # on a GPU the same epoch is not the same again
    _, state = fit(phase(2), task=Noisy(), run=run, keep="best")
    assert state.best is not None
    assert run.files["best.pt"]["epoch"] == state.best["epoch"]


def test_early_stopping_is_counted_within_a_phase_and_the_next_begins_from_the_best_weights() -> None:
    """The first phase can only get worse after its first epoch; the second must still be trained, from that epoch."""
    run = Memory()
    worse = Phase(20, schedules.ScheduleCurves(lr=lambda progress: 1.0 if progress < 0.05 else -3.0), (0.05,), 1)
    messages: list[str] = []
    model, state = fit(worse, phase(10, lr=(0.1,)), run=run, early_stopping=2, messages=messages)
    epochs = [row["epoch"] for row in state.history]
    assert epochs[:3] == [1, 2, 3]  # the best one, and two that are worse
    assert epochs[3] == 21  # the second phase begins where the schedule has it
    assert state.history[3]["valid/mse"] < state.history[0]["valid/mse"] < state.history[2]["valid/mse"]
    assert messages[:2] == [
        "early stopping after epoch 3: valid/mse has not improved for 2 epoch(s)",
        "the next phase starts from the weights of epoch 1",
    ]
    # What the second phase began with: the frozen slope is the same anyway, the offset is that of epoch 1.
    alone, _ = fit(Phase(1, schedules.constant(1), (0.05,), 1))
    assert torch.equal(run.files["phase-best.pt"]["model"]["offset.weight"], alone.offset.weight)
    best = min(row["valid/mse"] for row in state.history)
    evaluation = Trainer([phase()], CPU, "fp32", 0).evaluate(Line(), model, "valid", phase())
    assert evaluation is not None
    assert evaluation.metrics["valid/mse"] == best


def test_patience_is_counted_within_a_phase_even_if_it_never_beats_the_one_before() -> None:
    worse = Phase(9, schedules.ScheduleCurves(lr=lambda progress: -1.0), (0.05,))
    _, state = fit(phase(5), worse, early_stopping=2)
    assert [row["epoch"] for row in state.history] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_phase_that_begins_from_the_best_weights_has_an_optimizer_without_memory() -> None:
    memories: list[int] = []

    def make(groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
        made = sgd(groups, momentum=0.9)
        made.register_step_pre_hook(lambda o, *_: memories.append(len(o.state)))
        return made

    fit(phase(2), phase(2), make=make, early_stopping=5)
    assert [step for step, known in enumerate(memories) if not known] == [0, 10]  # the first step of each phase
    memories.clear()
    fit(phase(2), phase(2), make=make)
    assert [step for step, known in enumerate(memories) if not known] == [0]
    memories.clear()
    fit(phase(2), replace(phase(2), new_optimizer=True), make=make)
    assert [step for step, known in enumerate(memories) if not known] == [0, 10]


@pytest.mark.parametrize("stopped_at", range(1, 12))
def test_a_run_with_early_stopping_resumes_in_any_phase_with_the_same_numbers(stopped_at: int) -> None:
    phases = [phase(4, lr=(1.2,)), phase(4, lr=(0.3,), freeze_to=1), phase(4, lr=(0.01,))]

    class Stopped(Memory):
        def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
            super().write_history(rows)
            if len(rows) == stopped_at:
                raise KeyboardInterrupt

    unbroken, state = fit(*phases, early_stopping=2, make=adagrad)
    if stopped_at > len(state.history):
        return
    run: Memory = Stopped()
    with pytest.raises(KeyboardInterrupt):
        fit(*phases, early_stopping=2, make=adagrad, run=run)
    resumed = Memory()
    resumed.files = run.files
    model, again = fit(*phases, early_stopping=2, make=adagrad, run=resumed)
    assert numbers(again.history) == numbers(state.history)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), unbroken.parameters(), strict=True))


@pytest.mark.parametrize("stopped_at", range(1, 6))
def test_a_run_with_a_new_optimizer_resumes_in_any_phase_with_the_same_numbers(stopped_at: int) -> None:
    phases = [phase(2, lr=(0.3,)), replace(phase(2, lr=(0.3,)), new_optimizer=True), phase(2, lr=(0.1,))]

    class Stopped(Memory):
        def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
            super().write_history(rows)
            if len(rows) == stopped_at:
                raise KeyboardInterrupt

    unbroken, state = fit(*phases, make=adagrad)
    run: Memory = Stopped()
    with pytest.raises(KeyboardInterrupt):
        fit(*phases, make=adagrad, run=run)
    resumed = Memory()
    resumed.files = run.files
    model, again = fit(*phases, make=adagrad, run=resumed)
    assert numbers(again.history) == numbers(state.history)
    torch.testing.assert_close(model.state_dict(), unbroken.state_dict(), rtol=0, atol=0)


def numbers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in rows]


def adagrad(groups: Sequence[nn.Module]) -> torch.optim.Optimizer:
    """Its state is made with it: an optimizer whose state is only cleared would fail."""
    return torch.optim.Adagrad([{"params": list(group.parameters())} for group in groups], lr=0.05)


def test_a_checkpoint_is_kept_at_the_end_of_every_cycle() -> None:
    run = Memory()
    fit(phase(3, curves=schedules.cosine(3, cycle_len=1, cycle_mult=2)), run=run)
    assert [name for name in run.saved if name.startswith("cycle")] == ["cycle-1.pt", "cycle-2.pt"]


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_still_finds_the_line(precision: str) -> None:
    model, _ = fit(phase(40), precision=precision)
    assert float(model.slope.weight.detach()) == pytest.approx(2, abs=0.15)
    assert model.slope.weight.dtype is torch.float32


@pytest.mark.slow  # imports torch's compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it imports its compiler
def test_compiling_changes_nothing_but_the_speed() -> None:
    plain, _ = fit(phase(1))
    torch._dynamo.reset()
    compiled, _ = fit(phase(1), compile=True)
    torch.testing.assert_close(plain.state_dict(), compiled.state_dict())


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step() -> None:
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+ of epoch \d+"):
        fit(phase(30, lr=(1e9,)))


def test_a_diverged_run_is_marked_failed_and_keeps_its_last_good_checkpoint(dlrun: Dlrun, here: Any) -> None:
    words = [
        "task=collab",
        "data.source=synthetic",
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


def test_the_reported_rate_is_that_of_the_diverged_step() -> None:
    def message(interval: float) -> str:
        class Often(SilentDisplay):
            pass

        Often.interval = interval
        trainer = Trainer([phase(3, lr=(1e30,), curves=schedules.cosine(3))], CPU, "fp32", 0)
        with pytest.raises(RunError) as found:
            trainer.fit(Line(), TwoGroups(), sgd, Hooks(Memory(), Often(), StopSignals()))
        return str(found.value)

    assert message(0.0) == message(1e9)  # whether losses are read at each step or at the end of an epoch


def test_a_trainer_changes_nothing_of_the_process() -> None:
    before = torch.get_num_threads()
    Trainer([phase()], CPU, "fp32", 0, num_threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("rows", "batch_size", "threads"), [(None, 64, 4), (512, 64, 1), (512, 1023, 1), (512, 1024, 2), (512, 4096, 4)]
)
def test_a_batch_occupies_a_thread_for_so_many_rows(
    rows: int | None, batch_size: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.system.backends.num_cores", lambda: 4)
    with restored_threads():
        torch.set_num_threads(4)
        Trainer([phase()], CPU, "fp32", 0, rows_per_thread=rows).use_threads(batch_size)
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize("batch_size", [7, 16, 49])
def test_a_loader_with_a_start_yields_the_rest_and_reads_nothing_before(batch_size: int) -> None:
    for order in (None, epoch_order(50, 0, 0)):
        x, y = torch.arange(50.0), torch.arange(50)
        batches = list(TensorLoader([x], y, batch_size, order))
        for start in range(len(batches) + 1):
            loader = TensorLoader([x], y, batch_size, order, start)
            assert len(loader) == len(batches)
            rest = list(loader)
            assert len(rest) == len(batches) - start
            assert all(torch.equal(a.targets, b.targets) for a, b in zip(rest, batches[start:], strict=True))


def test_rows_that_are_gathered_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, y, order = torch.arange(50, dtype=torch.int32), torch.arange(50.0), epoch_order(50, 0, 0)
    whole = list(TensorLoader([codes], y, 7, order))
    monkeypatch.setattr("dlrunner.data.core.batching.GATHERED", 30)
    for start in range(len(whole) + 1):
        pieces = list(TensorLoader([codes], y, 7, order, start))
        assert len(pieces) == len(whole) - start
        for piece, batch in zip(pieces, whole[start:], strict=True):
            assert piece.inputs[0].dtype == torch.int64
            assert torch.equal(piece.inputs[0], batch.inputs[0])
            assert torch.equal(piece.targets, batch.targets)


def test_a_single_row_is_never_a_batch() -> None:
    for rows in range(2, 60):
        sizes = [len(b.targets) for b in TensorLoader([torch.zeros(rows)], torch.zeros(rows), 7)]
        assert min(sizes) > 1
        assert sum(sizes) == rows


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    orders = {(seed, epoch): tuple(epoch_order(100, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert tuple(epoch_order(100, 2, 1).tolist()) == orders[2, 1]
    assert sorted(orders[0, 0]) == list(range(100))


def test_the_smoothed_loss_is_corrected_for_its_start() -> None:
    smoothed = EMA()
    assert smoothed.update([5.0]) == pytest.approx(5.0)
    average = 0.0
    for loss in (5.0, 3.0, 1.0):
        average = average * 0.98 + loss * 0.02
    assert smoothed.update([3.0, 1.0]) == pytest.approx(average / (1 - 0.98**3))
