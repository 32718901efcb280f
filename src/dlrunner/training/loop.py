"""The training loop. It knows nothing of any task.

`fit` runs the epochs, `train_epoch` one pass over the training batches, `train_step` one batch, `evaluate` one pass
over another split. A run can stop after any step and go on later with the same numbers, bit for bit on the CPU,
because everything that changes is in the checkpoint (weights, optimizer, random generators, losses so far) and the
order of the batches is a function of (seed, epoch).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dlrunner.errors import RunError
from dlrunner.model import Model, Outputs, forward_pass
from dlrunner.ranges import Count, NonNegative, Positive
from dlrunner.schedules import Phase
from dlrunner.task import Batch, Split, Task
from dlrunner.training.hooks import Hooks
from dlrunner.training.loss_log import LossLog
from dlrunner.training.schedule import Accumulation, current_lr, cycle_number, freeze, phase_at, set_rates
from dlrunner.training.state import Evaluation, MakeOptimizer, Monitor, Row, Tally, TrainingState, restore, snapshot

PHASE_BEST = "phase-best.pt"
"""With early stopping and several phases: the best weights of the present one, from which the next begins."""


@dataclass(frozen=True)
class FitResult:
    """How training ended; the model holds the weights that answer."""

    state: TrainingState
    row: Row
    """Of the epoch whose weights the model holds: the last one, with early stopping the best one."""
    phase: Phase
    """Of this epoch."""
    valid: Evaluation | None
    """What these weights say of the validation split; None: not at hand, the run was interrupted since."""


class Trainer:
    """Trains a model on a task through phases.

    Args:
        phases: stretches of training with their own epochs, rates, schedule and frozen groups.
        device: where the model and the batches live.
        precision: fp32, or mixed precision by autocast (fp16 with a gradient scaler).
        seed: of weights, dropout and order.
        clip: largest norm of the gradient of all parameters together.
        l1: of the absolute values of all weights (not biases), this much is added to the training loss.
        accumulate: batches per optimizer step; their gradients are averaged over their examples.
        early_stopping: epochs of a phase without a better metric after which the phase ends. The next phase begins
            from the best weights of the one before, with a new optimizer (it keeps its memory without early stopping);
            in the end the best weights of all are kept.
        compile: compile the model with torch.compile.
        deterministic: on a GPU, only algorithms that give the same bits again (slower); a CPU always does.
        matmul: float32 products of a GPU: tf32 (inputs rounded to 10 bits of mantissa, several times as fast), or ieee.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0: none.
        num_threads: CPU threads; by default torch's own choice, but no more than the cores this process may use.
        cpu_tuning: what makes small steps faster on a CPU and changes no number (`dlrunner.system.cpu_tuning`).
    """

    not_in_signature: ClassVar[frozenset[str]] = frozenset({"checkpoint_minutes", "num_threads", "cpu_tuning"})

    def __init__(
        self,
        phases: Sequence[Phase],
        device: torch.device,
        precision: Literal["fp32", "bf16", "fp16"],
        seed: int,
        *,
        clip: Positive | None = None,
        l1: NonNegative = 0.0,
        accumulate: Count = 1,
        early_stopping: Count | None = None,
        compile: bool = False,
        deterministic: bool = False,
        matmul: Literal["tf32", "ieee"] = "tf32",
        checkpoint_minutes: NonNegative = 10.0,
        num_threads: Count | None = None,
        cpu_tuning: bool = True,
    ) -> None:
        self.phases, self.device, self.precision, self.seed = phases, device, precision, seed
        self.clip, self.l1, self.accumulate, self.early_stopping = clip, l1, accumulate, early_stopping
        self.compile, self.deterministic, self.matmul = compile, deterministic, matmul
        self.checkpoint_minutes, self.num_threads, self.cpu_tuning = checkpoint_minutes, num_threads, cpu_tuning
        self.num_epochs = sum(phase.epochs for phase in phases)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.accumulation = Accumulation(accumulate)
        self._wrapped: tuple[Model, Callable[..., Tensor | Outputs]] | None = None

    def fit(self, task: Task, model: Model, make_optimizer: MakeOptimizer, hooks: Hooks) -> FitResult:
        """Train from the last checkpoint, or from the start, to the end of the last phase.

        Raises:
            RunError: the loss is no longer finite; the last good checkpoint is kept.
            Interrupted: a stop signal came; a checkpoint of this very step is kept.
        """
        model.to(self.device)
        optimizer = make_optimizer(model.layer_groups())
        state, monitor = self.resume(model, optimizer, hooks), Monitor.of(task)
        valid = None
        with hooks.deferred_signals():
            while state.epoch < self.num_epochs:
                started = time.perf_counter() - state.seconds
                phase, _ = phase_at(self.phases, state.epoch)
                self.train_epoch(task, model, optimizer, state, hooks)
                trained = time.perf_counter()
                keep = self.early_stopping is not None or state.epoch + 1 == self.num_epochs
                evaluation = self.evaluate(task, model, "valid", phase, hooks, keep=keep and task.keeps_outputs)
                if evaluation is not None:
                    _refuse_what_is_not_finite(evaluation, state.epoch + 1)
                    row = self._row(state, evaluation, optimizer, trained - started, time.perf_counter() - started)
                    hooks.show_epoch(row)
                    if self.early_stopping is None or monitor.improves(row, state.best):
                        valid = evaluation
                    if self._end_epoch(model, state, row, monitor, hooks):
                        optimizer = self._hand_on(model, make_optimizer, hooks)
                hooks.save("last.pt", self.checkpoint(state, model, optimizer))
                hooks.write_history(state.history)
                if hooks.stop_requested():
                    hooks.stop()
        row = state.history[-1]
        if self.early_stopping is not None and state.best is not None and (best := hooks.load("best.pt")):
            model.load_state_dict(best["model"])
            row = state.best
        phase, _ = phase_at(self.phases, int(row["epoch"]) - 1)
        return FitResult(state, row, phase, valid)

    def prepare(self, task: Task, model: Model, log: Callable[[str], None]) -> Sequence[str]:
        """Let the task compute what it needs from the untrained model, in the precision of the run; return notes."""
        model.to(self.device)
        with torch.no_grad(), self.autocast():  # what inference_mode makes cannot be trained on
            return task.setup(model, self.phases[0], log)

    def train_epoch(
        self, task: Task, model: Model, optimizer: torch.optim.Optimizer, state: TrainingState, hooks: Hooks
    ) -> None:
        """Go over the training batches of this epoch, from where `state` stands, to the end."""
        phase, first_epoch = phase_at(self.phases, state.epoch)
        loader = task.batches("train", state.epoch, phase=phase, start=state.step)
        num_steps = len(loader)
        self.train_mode(model, phase)
        losses = self.loss_log(state, num_steps)
        hooks.start_epoch(state, self.num_epochs, num_steps)
        for step, batch in enumerate(loader, start=state.step):
            set_rates(optimizer, phase, (state.epoch - first_epoch + step / num_steps) / phase.epochs)
            update = (step + 1) % self.accumulate == 0 or step + 1 == num_steps
            loss, state.hidden = self.train_step(task, model, optimizer, batch, update, state.hidden)
            losses.add(loss, len(batch.targets), current_lr(optimizer))
            state.global_step += update
            if update and (due := hooks.due()):  # gradients that wait for their step are not in a checkpoint
                losses.read()  # waits for the GPU
                if due.show:
                    hooks.show(losses, current_lr(optimizer))
                if due.save:
                    hooks.save("last.pt", self.checkpoint(state, model, optimizer))
                if due.stop:
                    hooks.stop()
        losses.read()

    def train_step(
        self,
        task: Task,
        model: Model,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        update: bool,
        hidden: Any = None,
    ) -> tuple[Tensor, Any]:
        """Train on one batch; nothing in it waits for a GPU.

        Args:
            task: gives the loss.
            model: in training mode (see `train_mode`).
            optimizer: with the rates of this step.
            batch: on any device.
            update: the optimizer makes a step; else the gradients are kept, to be averaged with the next batch's.
            hidden: of a stateful model, after the batch before.

        Returns the mean loss of the batch, without penalties, on the device, and the next hidden state.
        """
        weight = self.accumulation.add(len(batch.targets), batch.rate)
        loss, hidden = self.backward(task, model, batch, weight, hidden)
        if update:
            self.update(optimizer)
        return loss, hidden

    def backward(self, task: Task, model: Model, batch: Batch, weight: float, hidden: Any) -> tuple[Tensor, Any]:
        """Add the gradients of a batch, `weight` times those of its mean loss; return as `train_step` does."""
        batch = batch.to(self.device)
        with self.autocast():
            outputs, hidden, penalty = forward_pass(model, *batch.inputs, hidden=hidden, wrapped=self.wrapped(model))
            loss = objective = task.loss(outputs, batch.targets)
            if self.l1:
                weights = (p for p in model.parameters() if p.requires_grad and p.ndim > 1)
                objective = objective + self.l1 * sum(p.abs().sum() for p in weights)
            if penalty is not None:
                objective = objective + penalty
        if weight != 1:
            objective = objective * weight
        self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), hidden

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the optimizer's step with the gradients that have been added up, and forget them."""
        factor, rate = self.accumulation.close()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if factor != 1:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
        if self.clip is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, self.clip)
        if rate != 1:
            for group in optimizer.param_groups:
                group["lr"] *= rate
        # With fp16 the scaler reads whether gradients are finite: a GPU is waited for, unless the step is fused.
        self.scaler.step(optimizer)
        self.scaler.update()
        for parameter in parameters:  # optimizer.zero_grad does the same in fifty times the time
            parameter.grad = None

    @torch.inference_mode()
    def evaluate(
        self,
        task: Task,
        model: Model,
        split: Split,
        phase: Phase,
        hooks: Hooks | None = None,
        *,
        keep: bool = False,
        view: int = 0,
    ) -> Evaluation | None:
        """Compute the loss and the metrics over a whole split, exactly: sums over examples.

        Args:
            task, model, split: what is evaluated.
            phase: whose settings the batches are made with.
            hooks: ask for a stop; then None is returned.
            keep: outputs and targets are returned too, in the order of the batches.
            view: 0 for the examples as they are, else the number of an augmented view (see `Task.looks`).
        """
        model.eval()
        tally, hidden = self.tally(task, keep), None
        with self.autocast():
            for batch in task.tta_batches(split, view, phase) if view else task.batches(split, 0, phase=phase):
                batch = batch.to(self.device)
                outputs, hidden, _ = forward_pass(model, *batch.inputs, hidden=hidden)
                tally.add(outputs, batch.targets)
                if hooks is not None and hooks.stop_requested():
                    return None
        return tally.result(split)

    def resume(self, model: Model, optimizer: torch.optim.Optimizer, hooks: Hooks) -> TrainingState:
        """Return where training stands: at its last checkpoint, which is put back, or at the start."""
        checkpoint = hooks.load()
        if checkpoint is None:
            return TrainingState()
        state = self.restore(checkpoint, model, optimizer)
        hooks.write_history(state.history)
        place = f", {state.step} steps into the next" if state.step else ""
        hooks.log(f"resuming after epoch {state.epoch} of {self.num_epochs}{place}")
        return state

    def train_mode(self, model: Model, phase: Phase) -> None:
        """Set training mode, and freeze what the phase freezes."""
        model.train()
        freeze(model, phase.freeze_to)

    def wrapped(self, model: Model) -> Callable[..., Tensor | Outputs]:
        """Return what is called for a forward pass in training: the model, compiled where that is asked for."""
        if self._wrapped is None or self._wrapped[0] is not model:
            self._wrapped = (model, self.wrap(model))
        return self._wrapped[1]

    def wrap(self, model: Model) -> Callable[..., Tensor | Outputs]:
        """Compile the model where that is asked for."""
        return torch.compile(model) if self.compile else model

    def loss_log(self, state: TrainingState, num_steps: int) -> LossLog:
        """Return an empty log of an epoch's losses."""
        return LossLog(state, num_steps, self.device)

    def tally(self, task: Task, keep: bool) -> Tally:
        """Return the empty sums of a split; a device without float64 leaves them to the CPU."""
        return Tally(task, keep, on_cpu=self.device.type == "mps")

    def checkpoint(self, state: TrainingState, model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return all that there is to save."""
        return snapshot(state, model, optimizer, self.scaler, self.device)

    def restore(self, checkpoint: Mapping[str, Any], model: Model, optimizer: torch.optim.Optimizer) -> TrainingState:
        """Put everything back to where a checkpoint was made."""
        return restore(checkpoint, model, optimizer, self.scaler, self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context that forward passes run in."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _end_epoch(self, model: Model, state: TrainingState, row: Row, monitor: Monitor, hooks: Hooks) -> bool:
        """Take in the row of an epoch, keep the weights that are to be kept, and go to the next epoch or phase.

        Returns whether the next phase begins from the best weights of this one.
        """
        phase, first = phase_at(self.phases, state.epoch)
        last, number = first + phase.epochs, int(row["epoch"])
        hands_on = self.early_stopping is not None and last < self.num_epochs
        weights = {"model": model.state_dict(), "epoch": number}
        state.history.append(row)
        if monitor.improves(row, state.best):
            state.best = row
            hooks.save("best.pt", weights)
        if state.phase_best is None or monitor.improves(row, state.phase_best):
            state.phase_best = row
            if hands_on:
                hooks.save(PHASE_BEST, weights)
        if number - first in phase.curves.cycle_ends:
            hooks.save(f"cycle-{cycle_number(self.phases, state.epoch)}.pt", weights)
        waited = number - int(state.phase_best["epoch"])
        stops = self.early_stopping is not None and waited >= self.early_stopping and number < last
        if stops:
            hooks.log(f"early stopping after epoch {number}: {monitor.name} was best {waited} epoch(s) before")
        state.epoch, state.step, state.seconds = last if stops else number, 0, 0.0
        state.losses, state.sizes, state.hidden = [], [], None
        if state.epoch == last:
            state.phase_best = None
        return hands_on and state.epoch == last

    def _hand_on(self, model: Model, make_optimizer: MakeOptimizer, hooks: Hooks) -> torch.optim.Optimizer:
        """Take the best weights of the phase that has ended, and an optimizer that remembers nothing of others."""
        best = hooks.load(PHASE_BEST)
        assert best is not None
        model.load_state_dict(best["model"])
        hooks.log(f"the next phase begins from the weights of epoch {best['epoch']}")
        return make_optimizer(model.layer_groups())

    def _row(
        self,
        state: TrainingState,
        evaluation: Evaluation,
        optimizer: torch.optim.Optimizer,
        train_seconds: float,
        seconds: float,
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


def _refuse_what_is_not_finite(evaluation: Evaluation, epoch: int) -> None:
    bad = [name for name, value in evaluation.metrics.items() if not math.isfinite(value)]
    if bad:
        raise RunError(
            f"{bad[0]} is {evaluation.metrics[bad[0]]} after epoch {epoch}: training diverged; "
            "try a smaller optim.lr, or trainer.clip=1"
        )
