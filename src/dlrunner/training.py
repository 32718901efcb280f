"""The training loop. It knows nothing of any task.

`fit` runs the epochs, `train_epoch` one pass over the training batches, `evaluate` one over another split.
A run can stop after any batch and go on later with the same numbers, bit for bit on the CPU, because everything
that changes is in the checkpoint (weights, optimizer, random generators, losses so far) and the order of the
batches is a function of (seed, epoch).
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dlrunner.errors import Interrupted, RunError
from dlrunner.metrics import SmoothedLoss, exact_sum
from dlrunner.model import Model
from dlrunner.processes import World, divided, whole
from dlrunner.randomness import generator_states, restore_generators, seed_everything
from dlrunner.ranges import Count, NonNegative, Positive
from dlrunner.schedules import Phase
from dlrunner.signals import StopSignals
from dlrunner.task import Split, Task

Row = dict[str, Any]
MakeOptimizer = Callable[[Sequence[nn.Module]], torch.optim.Optimizer]


class Checkpoints(Protocol):
    """Where the loop keeps what it needs to go on."""

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or None when there is none."""
        ...

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint so that either the old or the new one is whole, whatever happens."""
        ...

    def write_history(self, rows: Sequence[Row]) -> None:
        """Write the rows of all epochs so far."""
        ...


class Display(Protocol):
    """What a person sees while a run goes on."""

    interval: float
    """Seconds between two calls of `advance`."""

    def start_epoch(self, epoch: int, num_epochs: int, num_steps: int, step: int) -> None:
        """An epoch begins, or goes on, at a step."""
        ...

    def advance(self, step: int, loss: float, lr: float, examples_per_second: float) -> None:
        """Show how far the epoch is."""
        ...

    def end_epoch(self, row: Row) -> None:
        """Show the metrics of an epoch."""
        ...

    def close(self) -> None:
        """Training has ended."""
        ...


@dataclass
class State:
    """Where training stands; together with weights, optimizer and generators, all there is to save."""

    epoch: int = 0
    step: int = 0
    """Batches of this epoch that are done."""
    global_step: int = 0
    losses: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    """Spent on this epoch's training and evaluation so far."""
    history: list[Row] = field(default_factory=list)
    best: Row | None = None
    smoothed: tuple[float, int] = (0.0, 0)


@dataclass(frozen=True)
class Evaluation:
    """What a pass over a split gave."""

    metrics: dict[str, float]
    outputs: Tensor | None = None


class Trainer:
    """Trains a model on a task through phases.

    Args:
        phases: stretches of training with their own epochs, rates, schedule and frozen groups.
        device: where the model and the batches live.
        precision: fp32, or mixed precision by autocast (fp16 with a gradient scaler).
        seed: of weights, dropout and order.
        world: the processes that do this run together.
        clip: largest norm of the gradient of all parameters together.
        l1: of the absolute values of all weights (not biases), this much is added to the training loss.
        accumulate: batches per optimizer step; their gradients are averaged.
        early_stopping: epochs without a better metric after which training ends; the best weights are then kept.
        compile: compile the model with torch.compile.
        checkpoint_minutes: minutes between checkpoints within an epoch.
        num_threads: CPU threads; by default torch's own choice.
    """

    not_in_signature: ClassVar[frozenset[str]] = frozenset({"checkpoint_minutes", "num_threads"})

    def __init__(
        self,
        phases: Sequence[Phase],
        device: torch.device,
        precision: Literal["fp32", "bf16", "fp16"],
        seed: int,
        world: World | None = None,
        *,
        clip: Positive | None = None,
        l1: NonNegative = 0.0,
        accumulate: Count = 1,
        early_stopping: Count | None = None,
        compile: bool = False,
        checkpoint_minutes: NonNegative = 10.0,
        num_threads: Count | None = None,
    ) -> None:
        self.phases, self.device, self.precision, self.seed = phases, device, precision, seed
        self.clip, self.l1, self.accumulate, self.early_stopping = clip, l1, accumulate, early_stopping
        self.compile, self.checkpoint_minutes, self.num_threads = compile, checkpoint_minutes, num_threads
        self.num_epochs = sum(phase.epochs for phase in phases)
        if num_threads:
            torch.set_num_threads(num_threads)
        self.world = world or World()
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def fit(
        self,
        task: Task,
        model: Model,
        make_optimizer: MakeOptimizer,
        run: Checkpoints,
        display: Display,
        signals: StopSignals,
        tell: Callable[[str], None] = lambda text: None,
    ) -> State:
        """Train from the last checkpoint, or from the start, to the end of the last phase.

        `tell` hears where a broken run goes on.

        Raises:
            RunError: the loss is no longer finite; the last good checkpoint is kept.
            Interrupted: a stop signal came; a checkpoint of this very step is kept.
        """
        model.to(self.device)
        optimizer = make_optimizer(model.layer_groups())
        state = State()
        if self.world.rank:
            seed_everything(self.seed + 1_000_003 * self.world.rank)  # dropout of another share
        if checkpoint := self.world.first(run.load_checkpoint()):
            state = self._restore(checkpoint, model, optimizer)
            run.write_history(state.history)
            place = f", {state.step} steps into the next" if state.step else ""
            tell(f"goes on after epoch {state.epoch} of {self.num_epochs}{place}")
        judged, higher_is_better = _judged_metric(task)

        def save(name: str = "last.pt") -> None:
            run.save(name, self._checkpoint(state, model, optimizer))

        with signals.deferred():
            while state.epoch < self.num_epochs and not self._should_stop(state, judged, higher_is_better):
                phase, first_epoch = self._phase_at(state.epoch)
                task.enter(phase)
                started, before = time.perf_counter(), state.seconds
                self.train_epoch(task, model, optimizer, state, phase, first_epoch, display, signals, save)
                trained = time.perf_counter()
                evaluation = self.world.first(self.evaluate(task, model, "valid", signals))
                if evaluation is None:
                    state.seconds = before + trained - started
                    save()
                    raise Interrupted(signals.pending or signal.SIGTERM)
                _refuse_what_is_not_finite(evaluation, state.epoch + 1)
                now = time.perf_counter()
                row = self._row(state, evaluation, optimizer, before + now - started, before + trained - started)
                state.history.append(row)
                if state.best is None or _is_better(row[judged], state.best[judged], higher_is_better):
                    state.best = row
                    run.save("best.pt", {"model": model.state_dict(), "epoch": row["epoch"]})
                if state.epoch + 1 - first_epoch in phase.curves.cycle_ends:
                    run.save(
                        f"cycle-{self._cycle_number(state.epoch)}.pt",
                        {"model": model.state_dict(), "epoch": row["epoch"]},
                    )
                state.epoch, state.step, state.seconds = state.epoch + 1, 0, 0.0
                state.losses, state.sizes = [], []
                save()
                run.write_history(state.history)
                display.end_epoch(row)
                (stop,) = self.world.agree(signals.pending is not None)
                if stop:
                    raise Interrupted(signals.pending or signal.SIGTERM)
        task.enter(self.last_phase(state))
        return state

    def last_phase(self, state: State) -> Phase:
        """Return the phase that the weights come from: with early stopping that of the best epoch."""
        row = state.best if self.early_stopping is not None and state.best else state.history[-1]
        return self._phase_at(int(row["epoch"]) - 1)[0]

    def prepare(self, task: Task, model: Model, tell: Callable[[str], None]) -> Sequence[str]:
        """Let the task compute what it needs from the untrained model, in the precision of the run; return notes."""
        model.to(self.device)
        task.enter(self.phases[0])
        with torch.no_grad(), self.autocast(), self.world.in_turn():  # what inference_mode makes cannot be trained on
            return task.prepare(model, tell)

    def train_epoch(
        self,
        task: Task,
        model: Model,
        optimizer: torch.optim.Optimizer,
        state: State,
        phase: Phase,
        first_epoch: int,
        display: Display,
        signals: StopSignals,
        save: Callable[[], None],
    ) -> None:
        """Go over the training batches of this epoch, from where `state` stands, to the end."""
        loader = task.batches("train", state.epoch)
        num_steps = len(loader)
        model.train()
        _freeze(model, phase.freeze_to)
        parameters = [p for p in model.parameters() if p.requires_grad]
        wrapped = self.world.wrap(model)
        forward = torch.compile(wrapped) if self.compile else wrapped
        autocast = self.autocast()
        smoothed = SmoothedLoss(0.98, *state.smoothed)
        # Losses stay on the device and are read now and then: a read at every step would make a GPU wait.
        losses = torch.zeros(num_steps, device=self.device)
        weights = [1.0] * num_steps
        read, begun, shown = state.step, time.perf_counter(), time.perf_counter()
        resumed_at, seconds_before = state.step, state.seconds

        def catch_up(done: int) -> float:
            """Read the losses of the steps since the last look; refuse those that are not finite."""
            nonlocal read
            new = self.world.totals(losses[read:done], weights[read:done])
            for offset, loss in enumerate(new):
                if not math.isfinite(loss):
                    raise RunError(
                        f"the loss is {loss} at step {read + offset + 1} of epoch {state.epoch + 1}: training "
                        f"diverged (learning rate {_rate(optimizer):g}); try a smaller optim.lr, or trainer.clip=1"
                    )
            state.losses.extend(new)
            value = smoothed.update(new)
            state.smoothed = (smoothed.average, smoothed.count)
            state.step = read = done
            state.seconds = seconds_before + time.perf_counter() - begun
            return value

        if state.step == 0:
            model.reset_state()
        display.start_epoch(state.epoch, self.num_epochs, num_steps, state.step)
        saved = time.perf_counter()
        for index, batch in enumerate(islice(loader, state.step, None), start=state.step):
            _set_rates(optimizer, phase, (state.epoch - first_epoch + index / num_steps) / phase.epochs, batch.rate)
            state.sizes.append(len(batch.targets))
            batch, weights[index] = self.world.share(task, batch)
            batch = batch.to(self.device)
            with autocast:
                loss = task.loss(forward(*batch.inputs), batch.targets)
                losses[index] = loss.detach()  # without penalties, to be compared with the validation loss
                if self.l1:
                    loss = loss + self.l1 * sum(p.abs().sum() for p in parameters if p.ndim > 1)
                if (penalty := model.penalty()) is not None:
                    loss = loss + penalty
            if (scale := weights[index] / self.accumulate) != 1:
                loss = loss * scale
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if (index + 1) % self.accumulate == 0 or index + 1 == num_steps:
                if self.clip is not None:
                    self.scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(parameters, self.clip)
                self.scaler.step(optimizer)
                self.scaler.update()
                for parameter in parameters:  # optimizer.zero_grad does the same in fifty times the time
                    parameter.grad = None
                state.global_step += 1
            now = time.perf_counter()
            stop, is_due, is_old = self.world.agree(
                signals.pending is not None,
                now - shown >= display.interval,
                now - saved >= 60 * self.checkpoint_minutes > 0,
            )
            if is_due:
                speed = sum(state.sizes[resumed_at:]) / (now - begun)
                display.advance(index + 1, catch_up(index + 1), _rate(optimizer), speed)
                shown = now
            if (index + 1) % self.accumulate == 0:  # gradients that wait for their step are not in a checkpoint
                if is_old or stop:
                    catch_up(index + 1)
                    save()
                    saved = now
                if stop:
                    raise Interrupted(signals.pending or signal.SIGTERM)
        catch_up(num_steps)

    @torch.inference_mode()
    def evaluate(
        self,
        task: Task,
        model: Model,
        split: Split,
        signals: StopSignals | None = None,
        keep_outputs: bool = False,
        look: int = 0,
    ) -> Evaluation | None:
        """Compute the loss and the metrics over a whole split, exactly: sums over examples.

        Args:
            task, model, split: what is evaluated.
            signals: a stop signal ends it.
            keep_outputs: the outputs are returned too, in the order of the batches.
            look: the number of the look at the split (see `Task.looks`).

        Returns None when a stop signal came before the end.
        """
        world = World() if keep_outputs else self.world  # what is kept has an order, and is for one process
        model.eval()
        model.reset_state()
        metrics = task.metrics()
        total: Tensor | float = 0.0
        count = 0
        outputs = []
        with self.autocast():
            for batch in task.batches(split, look):
                batch = batch.to(self.device)
                part, _ = world.share(task, batch)
                output = model(*part.inputs)
                if part is not batch:
                    output = world.gather(output)
                size = len(batch.targets)
                total = total + exact_sum(task.loss(output, batch.targets)) * size
                count += size
                for metric in metrics.values():
                    metric.update(output, batch.targets)
                if keep_outputs:
                    outputs.append(output)
                (stop,) = world.agree(signals is not None and signals.pending is not None)
                if stop:
                    return None
        values = {
            "loss": float(total) / count,
            **{name: metric.compute() for name, metric in metrics.items()},
        }
        return Evaluation(
            {f"{split}/{name}": value for name, value in values.items()},
            torch.cat(outputs) if keep_outputs else None,
        )

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context that forward passes run in."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _row(
        self,
        state: State,
        evaluation: Evaluation,
        optimizer: torch.optim.Optimizer,
        seconds: float,
        train_seconds: float,
    ) -> Row:
        sizes = np.asarray(state.sizes, dtype=np.float64)
        rates = [group["lr"] for group in optimizer.param_groups]
        return {
            "epoch": state.epoch + 1,
            "step": state.global_step,
            "train/loss": float(np.asarray(state.losses) @ sizes / sizes.sum()),
            **evaluation.metrics,
            "lr": rates if len(set(rates)) > 1 else rates[0],
            "seconds": round(seconds, 4),
            "examples_per_second": round(float(sizes.sum()) / train_seconds, 1),
        }

    def _phase_at(self, epoch: int) -> tuple[Phase, int]:
        """Return the phase of an epoch and the epoch it begins with."""
        first = 0
        for phase in self.phases:
            if epoch < first + phase.epochs:
                return phase, first
            first += phase.epochs
        raise AssertionError(f"epoch {epoch} lies after the last phase")

    def _cycle_number(self, epoch: int) -> int:
        """Count the cycles that are complete after an epoch, over all phases."""
        count, first = 0, 0
        for phase in self.phases:
            count += sum(first + end <= epoch + 1 for end in phase.curves.cycle_ends)
            first += phase.epochs
        return count

    def _should_stop(self, state: State, judged: str, higher_is_better: bool) -> bool:
        if self.early_stopping is None or state.best is None or state.step > 0:
            return False
        return len(state.history) - int(state.best["epoch"]) >= self.early_stopping

    def _checkpoint(self, state: State, model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return {
            "state": dict(vars(state)),
            "model": model.state_dict(),
            "carried": whole(self.world.collect(model.carried())),
            "optimizer": optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": self.world.collect(generator_states(self.device)),
        }

    def _restore(self, checkpoint: Mapping[str, Any], model: Model, optimizer: torch.optim.Optimizer) -> State:
        model.load_state_dict(checkpoint["model"])
        model.carry(divided(checkpoint["carried"], self.world.rank, self.world.size))
        optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        state = State(**checkpoint["state"])
        generators = checkpoint["generators"]
        if self.world.rank < len(generators):
            restore_generators(generators[self.world.rank], self.device)
        else:  # fewer processes have saved than go on
            seed_everything(self.seed + 1_000_003 * self.world.rank + state.global_step)
        return state


def _refuse_what_is_not_finite(evaluation: Evaluation, epoch: int) -> None:
    bad = [name for name, value in evaluation.metrics.items() if not math.isfinite(value)]
    if bad:
        raise RunError(
            f"{bad[0]} is {evaluation.metrics[bad[0]]} after epoch {epoch}: training diverged; "
            "try a smaller optim.lr, or trainer.clip=1"
        )


def _judged_metric(task: Task) -> tuple[str, bool]:
    name, metric = next(iter(task.metrics().items()))
    return f"valid/{name}", metric.higher_is_better


def _is_better(value: float, than: float, higher_is_better: bool) -> bool:
    return value > than if higher_is_better else value < than


def _freeze(model: Model, freeze_to: int) -> None:
    """Let only the layer groups from `freeze_to` on be trained.

    Batch norm in a frozen group keeps its statistics too: what is frozen is one function of its inputs, so that its
    outputs may be computed once and kept. Dropout in a frozen group goes on.
    """
    groups = list(model.layer_groups())
    first = freeze_to % len(groups) if freeze_to < 0 else freeze_to
    for index, group in enumerate(groups):
        group.requires_grad_(index >= first)
        if index < first:
            for module in group.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def _set_rates(optimizer: torch.optim.Optimizer, phase: Phase, progress: float, scale: float) -> None:
    factor = phase.curves.lr(progress) * scale
    rates = phase.lr if len(phase.lr) > 1 else phase.lr * len(optimizer.param_groups)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
    if phase.curves.momentum is not None:
        momentum = phase.curves.momentum(progress)
        for group in optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = momentum


def _rate(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[-1]["lr"])
