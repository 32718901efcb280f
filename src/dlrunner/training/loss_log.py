"""The losses of an epoch, kept on the device and read occasionally: reading at every step would stall a GPU."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from dlrunner.errors import RunError
from dlrunner.metrics import EMA
from dlrunner.training.state import TrainingState


class LossLog:
    """Collects the loss of each step; `read` copies them into the training state.

    Args:
        state: its losses, sizes, step and seconds are updated.
        num_steps: batches of the epoch.
        device: of the losses.
    """

    def __init__(self, state: TrainingState, num_steps: int, device: torch.device) -> None:
        self.state = state
        self.smoothed = EMA(0.98, *state.smoothed)
        self._losses = torch.zeros(num_steps, device=device)
        self._rates = [0.0] * num_steps
        self._step = self._first = state.step
        self._begun, self._seconds_before = time.perf_counter(), state.seconds

    def add(self, loss: Tensor, size: int, rate: float) -> None:
        """Add a step: its loss, number of examples and learning rate."""
        self._losses[self._step], self._rates[self._step] = loss, rate
        self.state.sizes.append(size)
        self._step += 1

    def read(self) -> None:
        """Wait for the device and update the state.

        Raises:
            RunError: a loss is not finite; raised before a checkpoint is overwritten.
        """
        read = self.state.step
        new = self._values(self._losses[read : self._step])
        for step, loss in enumerate(new, start=read):
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss is {loss} at step {step + 1} of epoch {self.state.epoch + 1}: training diverged "
                    f"(learning rate {self._rates[step]:g}); try a smaller optim.lr, or trainer.clip=1"
                )
        self.state.losses.extend(new)
        self.smoothed.update(new)
        self.state.smoothed = (self.smoothed.average, self.smoothed.count)
        self.state.step = self._step
        self.state.seconds = self._seconds_before + time.perf_counter() - self._begun

    def examples_per_second(self) -> float:
        """Return the speed since this log began, as of the last read."""
        return sum(self.state.sizes[self._first :]) / (self.state.seconds - self._seconds_before)

    def _values(self, losses: Tensor) -> list[float]:
        values: list[float] = losses.tolist()  # the only synchronisation with a GPU in an epoch
        return values
