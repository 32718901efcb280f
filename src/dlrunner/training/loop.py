"""The training loop, independent of any task.

`fit` runs the epochs, `train_epoch` one pass over the training batches, `train_step` one batch, `evaluate` one pass
over another split. A run can stop after any step and resume with the same numbers, bit for bit on the CPU, because
the checkpoint has all that changes (weights, optimizer, random generators, losses so far) and the order of the
batches is a function of (seed, epoch).
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
from dlrunner.system.backends import set_threads
from dlrunner.task import Batch, Split, Task
from dlrunner.training.hooks import Hooks
from dlrunner.training.loss_log import LossLog
from dlrunner.training.schedule import Accumulation, current_lr, cycle_number, freeze, phase_at, set_rates
from dlrunner.training.state import Evaluation, MakeOptimizer, Monitor, Row, Tally, TrainingState, restore, snapshot

PHASE_BEST = "phase-best.pt"
"""With early stopping and several phases: the best weights of the current phase, where the next one starts."""


@dataclass(frozen=True)
class FitResult:
    """The result of training; the model holds the final weights."""

    state: TrainingState
    row: Row
    """Metrics of the epoch of these weights: the last or the best one."""
    phase: Phase
    """Phase of this epoch."""
    valid: Evaluation | None
    """Validation results of these weights; None: not available, since the run was interrupted afterwards."""


class Trainer:
    """Trains a model on a task through phases.

    Args:
        phases: training phases with their own epochs, rates, schedule and frozen groups.
        device: of the model and the batches.
        precision: fp32, or mixed precision by autocast (fp16 with a gradient scaler).
        seed: of weights, dropout and shuffling.
        clip: maximum global norm of the gradient.
        l1: factor of the L1 penalty on all weights (not biases), which is added to the training loss.
        accumulate: batches per optimizer step; their gradients are averaged over their examples.
        early_stopping: patience: the phase ends after this many epochs without improvement. The next phase starts
            from the best weights of the one before, with a new optimizer (without early stopping the optimizer keeps
            its state).
        keep: which weights are evaluated and used in the end: of the last epoch, or of the best one by the monitored
            metric; by default the last, with early stopping the best.
        compile: use torch.compile.
        deterministic: on a GPU, use deterministic algorithms only (slower); a CPU is always deterministic.
        matmul: float32 matrix products on a GPU: tf32 (10 bits of mantissa, several times as fast), or ieee.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0: none.
        num_threads: CPU threads; by default torch's choice, at most the cores available to this process.
        rows_per_thread: rows of a batch that occupy a CPU thread, if num_threads is None: 512 gives batches of less
            than 1,024 one thread, and of 2,048 at most four.
        cpu_tuning: speed up small steps on a CPU without changing results (`dlrunner.system.cpu_tuning`).
    """

    not_in_signature: ClassVar[frozenset[str]] = frozenset(
        {"checkpoint_minutes", "num_threads", "rows_per_thread", "cpu_tuning"}
    )

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
        keep: Literal["last", "best"] | None = None,
        compile: bool = False,
        deterministic: bool = False,
        matmul: Literal["tf32", "ieee"] = "tf32",
        checkpoint_minutes: NonNegative = 10.0,
        num_threads: Count | None = None,
        rows_per_thread: Count | None = None,
        cpu_tuning: bool = True,
    ) -> None:
        self.phases, self.device, self.precision, self.seed = phases, device, precision, seed
        self.clip, self.l1, self.accumulate, self.early_stopping = clip, l1, accumulate, early_stopping
        self.keeps_best = keeps_best(early_stopping, keep)
        self.compile, self.deterministic, self.matmul = compile, deterministic, matmul
        self.checkpoint_minutes, self.cpu_tuning = checkpoint_minutes, cpu_tuning
        self.num_threads, self.rows_per_thread = num_threads, rows_per_thread
        self.num_epochs = sum(phase.epochs for phase in phases)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.accumulation = Accumulation(accumulate)
        self._wrapped: tuple[Model, Callable[..., Tensor | Outputs]] | None = None

    def use_threads(self, batch_size: int) -> None:
        """Set the CPU threads of this process: as many as are asked for, or as a batch of so many rows occupies."""
        set_threads(self.num_threads, max(1, batch_size // self.rows_per_thread) if self.rows_per_thread else None)

    def fit(self, task: Task, model: Model, make_optimizer: MakeOptimizer, hooks: Hooks) -> FitResult:
        """Train from the last checkpoint, or from the start, to the end of the last phase.

        Raises:
            RunError: the loss is not finite; the last good checkpoint is kept.
            Interrupted: by a stop signal; a checkpoint of this step was saved.
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
                keep = task.keeps_outputs and (self.keeps_best or state.epoch + 1 == self.num_epochs)
                evaluation = self.evaluate(task, model, "valid", phase, hooks, keep=keep)
                if evaluation is not None:
                    _check_finite(evaluation, state.epoch + 1)
                    row = self._row(state, evaluation, optimizer, trained - started, time.perf_counter() - started)
                    hooks.show_epoch(row)
                    if not self.keeps_best or monitor.improves(row, state.best):
                        valid = evaluation if keep or not task.keeps_outputs else None  # stopped early: without them
                    if self._end_epoch(model, state, row, monitor, hooks):
                        optimizer = self._start_from_best(model, make_optimizer, hooks)
                    elif self._starts_with_new_optimizer(state):
                        optimizer = make_optimizer(model.layer_groups())
                hooks.save("last.pt", self.checkpoint(state, model, optimizer))
                _save_best(model, state, hooks)
                hooks.write_history(state.history)
                if hooks.stop_requested():
                    hooks.stop()
        row = state.history[-1]
        if self.keeps_best and state.best is not None:
            row = state.best
            model.load_state_dict(hooks.load_best("best.pt", int(row["epoch"]))["model"])
        phase, _ = phase_at(self.phases, int(row["epoch"]) - 1)
        return FitResult(state, row, phase, valid)

    def prepare(self, task: Task, model: Model, log: Callable[[str], None]) -> Sequence[str]:
        """Let the task compute what it needs from the untrained model, in the precision of the run; return notes."""
        model.to(self.device)
        with torch.no_grad(), self.autocast():  # inference-mode tensors cannot be trained on
            return task.setup(model, self.phases[0], log)

    def train_epoch(
        self, task: Task, model: Model, optimizer: torch.optim.Optimizer, state: TrainingState, hooks: Hooks
    ) -> None:
        """Train on the remaining batches of this epoch, starting at `state.step`."""
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
            if update and (due := hooks.due()):  # accumulated gradients are not in a checkpoint
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
        """Train on one batch without waiting for a GPU.

        Args:
            task: gives the loss.
            model: in training mode (see `train_mode`).
            optimizer: with the rates of this step.
            batch: on any device.
            update: make an optimizer step; otherwise accumulate the gradients.
            hidden: hidden state of a stateful model after the previous batch.

        Returns the mean loss of the batch, without penalties, on the device, and the next hidden state.
        """
        weight = self.accumulation.add(len(batch.targets), batch.rate)
        loss, hidden = self.backward(task, model, batch, weight, hidden)
        if update:
            self.update(optimizer)
        return loss, hidden

    def backward(self, task: Task, model: Model, batch: Batch, weight: float, hidden: Any) -> tuple[Tensor, Any]:
        """Accumulate `weight` times the gradients of the mean loss of a batch; return as `train_step` does."""
        batch = batch.to(self.device)
        with self.autocast():
            outputs, hidden, penalty = forward_pass(model, *batch.inputs, hidden=hidden, wrapped=self.wrapped(model))
            loss = objective = task.loss(outputs, batch.targets)
            if self.l1:
                weights = (p for p in model.penalised_weights() if p.requires_grad)
                objective = objective + self.l1 * sum(p.abs().sum() for p in weights)
            if penalty is not None:
                objective = objective + penalty
        if weight != 1:
            objective = objective * weight
        self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), hidden

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Make an optimizer step with the accumulated gradients, and reset them."""
        factor, rate = self.accumulation.close()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if factor != 1:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
        if self.clip is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, self.clip)
        scheduled = [group["lr"] for group in optimizer.param_groups] if rate != 1 else []
        for group, lr in zip(optimizer.param_groups, scheduled, strict=False):
            group["lr"] = lr * rate
        # With fp16 the scaler reads whether gradients are finite: this waits for a GPU, unless the step is fused.
        self.scaler.step(optimizer)
        self.scaler.update()
        for group, lr in zip(optimizer.param_groups, scheduled, strict=False):  # what is shown is the schedule's
            group["lr"] = lr
        for parameter in parameters:  # as optimizer.zero_grad, which takes fifty times as long
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
        """Compute the exact loss and metrics of a split: sums over examples.

        Args:
            task, model, split: to evaluate.
            phase: its task settings apply.
            hooks: checked for a stop request; then None is returned.
            keep: return outputs and targets too, in the order of the batches.
            view: 0 for the plain examples, else the number of a TTA view (see `Task.num_tta_views`).
        """
        model.eval()
        tally, hidden = self.tally(task, keep), None
        with self.autocast():
            for batch in task.tta_batches(split, view, phase) if view else task.batches(split, 0, phase=phase):
                hidden = self.evaluate_step(task, model, batch, tally, hidden)
                if hooks is not None and hooks.stop_requested_in_evaluation():
                    return None
        return tally.result(split)

    def evaluate_step(self, task: Task, model: Model, batch: Batch, tally: Tally, hidden: Any = None) -> Any:
        """Add the outputs for one batch to the sums; return the next hidden state."""
        batch = batch.to(self.device)
        outputs, hidden, _ = forward_pass(model, *batch.inputs, hidden=hidden)
        tally.add(outputs, batch.targets)
        return hidden

    def resume(self, model: Model, optimizer: torch.optim.Optimizer, hooks: Hooks) -> TrainingState:
        """Return the training state: restored from the last checkpoint, or at the start."""
        checkpoint = hooks.load()
        if checkpoint is None:
            return TrainingState()
        state = self.restore(checkpoint, model, optimizer)
        _save_best(model, state, hooks)  # a kill or a full disk may have come between the two checkpoints
        hooks.write_history(state.history)
        position = f", {state.step} steps into the next" if state.step else ""
        hooks.log(f"resuming after epoch {state.epoch} of {self.num_epochs}{position}")
        return state

    def train_mode(self, model: Model, phase: Phase) -> None:
        """Set training mode, and freeze the groups of the phase."""
        model.train()
        freeze(model, phase.freeze_to)

    def wrapped(self, model: Model) -> Callable[..., Tensor | Outputs]:
        """Return the callable for forward passes in training: the model, compiled if requested."""
        if self._wrapped is None or self._wrapped[0] is not model:
            self._wrapped = (model, self.wrap(model))
        return self._wrapped[1]

    def wrap(self, model: Model) -> Callable[..., Tensor | Outputs]:
        """Compile the model if requested."""
        return torch.compile(model) if self.compile else model

    def loss_log(self, state: TrainingState, num_steps: int) -> LossLog:
        """Return an empty log of an epoch's losses."""
        return LossLog(state, num_steps, self.device)

    def tally(self, task: Task, keep: bool) -> Tally:
        """Return empty sums for a split; on the CPU for devices without float64."""
        return Tally(task, keep, on_cpu=self.device.type == "mps")

    def checkpoint(self, state: TrainingState, model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return a checkpoint."""
        return snapshot(state, model, optimizer, self.scaler, self.device)

    def restore(self, checkpoint: Mapping[str, Any], model: Model, optimizer: torch.optim.Optimizer) -> TrainingState:
        """Restore a checkpoint."""
        return restore(checkpoint, model, optimizer, self.scaler, self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the autocast context of forward passes."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _end_epoch(self, model: Model, state: TrainingState, row: Row, monitor: Monitor, hooks: Hooks) -> bool:
        """Record the metrics of an epoch, save weights as needed, and advance to the next epoch or phase.

        Returns whether the next phase starts from the best weights of this one.
        """
        phase, first = phase_at(self.phases, state.epoch)
        last, number = first + phase.epochs, int(row["epoch"])
        reuses_best = self.early_stopping is not None and last < self.num_epochs
        weights = {"model": model.state_dict(), "epoch": number}
        state.history.append(row)
        if monitor.improves(row, state.best):
            state.best = row
        if state.phase_best is None or monitor.improves(row, state.phase_best):
            state.phase_best = row
            if reuses_best:
                hooks.save(PHASE_BEST, weights)
        if number - first in phase.curves.cycle_ends:
            hooks.save(f"cycle-{cycle_number(self.phases, state.epoch)}.pt", weights)
        num_bad_epochs = number - int(state.phase_best["epoch"])
        stops = self.early_stopping is not None and num_bad_epochs >= self.early_stopping and number < last
        if stops:
            hooks.log(
                f"early stopping after epoch {number}: {monitor.name} has not improved for {num_bad_epochs} epoch(s)"
            )
        state.epoch, state.step, state.seconds = last if stops else number, 0, 0.0
        state.losses, state.sizes, state.hidden = [], [], None
        if state.epoch == last:
            state.phase_best = None
        return reuses_best and state.epoch == last

    def _start_from_best(self, model: Model, make_optimizer: MakeOptimizer, hooks: Hooks) -> torch.optim.Optimizer:
        """Load the best weights of the finished phase, and return a new optimizer."""
        best = hooks.load_best(PHASE_BEST)
        model.load_state_dict(best["model"])
        hooks.log(f"the next phase starts from the weights of epoch {best['epoch']}")
        return make_optimizer(model.layer_groups())

    def _starts_with_new_optimizer(self, state: TrainingState) -> bool:
        """Return whether the next epoch is the first of a phase that asks for a new optimizer."""
        if state.epoch == self.num_epochs:
            return False
        phase, first = phase_at(self.phases, state.epoch)
        return phase.new_optimizer and first == state.epoch

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


def keeps_best(early_stopping: int | None, keep: str | None) -> bool:
    """Return whether the weights of the best epoch are used in the end, rather than those of the last one."""
    return keep == "best" or (keep is None and early_stopping is not None)


def _save_best(model: Model, state: TrainingState, hooks: Hooks) -> None:
    """Save the weights of the last epoch as the best ones, if they are, and no step was made since.

    This comes after `last.pt`, which then has the same weights: an epoch that is trained again may not be the best one.
    """
    if state.best is not None and state.best["epoch"] == state.history[-1]["epoch"] and state.step == 0:
        hooks.save("best.pt", {"model": model.state_dict(), "epoch": int(state.best["epoch"])})


def _check_finite(evaluation: Evaluation, epoch: int) -> None:
    bad = [name for name, value in evaluation.metrics.items() if not math.isfinite(value)]
    if bad:
        raise RunError(
            f"{bad[0]} is {evaluation.metrics[bad[0]]} after epoch {epoch}: training diverged; "
            "try a smaller optim.lr, or trainer.clip=1"
        )
