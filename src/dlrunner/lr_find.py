"""The learning-rate range test: train a copy with a rate that climbs, and watch the loss.

Source: Smith, Cyclical learning rates for training neural networks, 2017, https://arxiv.org/abs/1506.01186
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlrunner.metrics import SmoothedLoss
from dlrunner.model import Model
from dlrunner.randomness import generator_states, restore_generators
from dlrunner.task import Task
from dlrunner.training import MakeOptimizer, Trainer


@dataclass
class RangeTest:
    """What the test saw, step by step."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    diverged: bool = False

    @property
    def suggestion(self) -> float | None:
        """The rate where the smoothed loss falls fastest (per factor of the rate), before its minimum.

        Slopes are taken over a tenth of the steps, and not in the first tenth: there the mean of a few losses moves
        with every batch.
        """
        lowest = min(range(len(self.smoothed)), key=self.smoothed.__getitem__, default=0)
        reach = max(2, len(self.smoothed) // 20)
        slopes = {
            i: (self.smoothed[i + reach] - self.smoothed[i - reach])
            / math.log(self.rates[i + reach] / self.rates[i - reach])
            for i in range(3 * reach, lowest - reach + 1)
        }
        if not slopes or min(slopes.values()) >= 0:
            return None
        return self.rates[min(slopes, key=slopes.__getitem__)]


def range_test(
    task: Task,
    model: Model,
    make_optimizer: MakeOptimizer,
    trainer: Trainer,
    lowest: float = 1e-8,
    highest: float = 10.0,
    num_steps: int = 200,
) -> RangeTest:
    """Run the test on a copy of the model; the model and the random generators are left as they were.

    The rate climbs exponentially from `lowest` to `highest`; the test ends when the smoothed loss is four times
    its minimum or not finite.

    Args:
        task: gives the training batches, over and over if there are too few.
        model: its copy is trained.
        make_optimizer: for the copy's layer groups.
        trainer: says the device, the precision and the clipping.
        lowest, highest: ends of the range.
        num_steps: steps from one to the other.
    """
    generators = generator_states(trainer.device)
    trained = copy.deepcopy(model).to(trainer.device).train()
    optimizer = make_optimizer(trained.layer_groups())
    found, mean = RangeTest(), SmoothedLoss()
    batches = itertools.chain.from_iterable(task.batches("train", epoch) for epoch in itertools.count())
    autocast = trainer.autocast()
    for step, batch in enumerate(itertools.islice(batches, num_steps)):
        rate = lowest * (highest / lowest) ** (step / max(1, num_steps - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(trainer.device)
        with autocast:
            loss = task.loss(trained(*batch.inputs), batch.targets)
            value = float(loss.detach())
            if (penalty := trained.penalty()) is not None:
                loss = loss + penalty
        smoothed = mean.update([value])
        if not math.isfinite(value) or (step > 10 and smoothed > 4 * min(found.smoothed)):
            found.diverged = True
            break
        found.rates.append(rate)
        found.losses.append(value)
        found.smoothed.append(smoothed)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if trainer.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained.parameters(), trainer.clip)
        optimizer.step()
    restore_generators(generators, trainer.device)
    return found


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return the sha256 of a state dict: names, shapes and bytes of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(
                value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
                if value.dim()
                else str(value.item()).encode()
            )
    return digest.hexdigest()
