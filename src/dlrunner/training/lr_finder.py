"""The learning-rate range test: train a copy with an increasing rate and record the loss.

Source: Smith, Cyclical learning rates for training neural networks, 2017, https://arxiv.org/abs/1506.01186
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from dlrunner.metrics import EMA
from dlrunner.model import Model
from dlrunner.schedules import Phase
from dlrunner.system.seeding import generator_states, restore_generators
from dlrunner.task import Batch, Task
from dlrunner.training.loop import Trainer
from dlrunner.training.schedule import set_lr
from dlrunner.training.state import MakeOptimizer


@dataclass
class RangeTest:
    """Rates and losses of the range test, step by step."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    diverged: bool = False

    @property
    def suggestion(self) -> float | None:
        """The rate of the steepest descent of the smoothed loss (over log rate), before its minimum.

        Slopes are computed over a tenth of the steps, and both exclude the first quarter, where the average of few
        losses is noisy: for review classification from random weights this noise fell faster than the loss ever did,
        and for ratings it was lower than the loss ever was.
        """
        reach = max(2, len(self.smoothed) // 20)
        first = max(3 * reach, len(self.smoothed) // 4)
        lowest = min(range(first, len(self.smoothed)), key=self.smoothed.__getitem__, default=0)
        slopes = {
            i: (self.smoothed[i + reach] - self.smoothed[i - reach])
            / math.log(self.rates[i + reach] / self.rates[i - reach])
            for i in range(first, lowest - reach + 1)
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
    """Run the test on a copy of the model; the model and the random generators stay unchanged.

    The rate rises exponentially from `lowest` to `highest`; the test ends when the smoothed loss is four times
    its minimum or not finite. Each step is the trainer's step in its first phase, with frozen groups, the ratios of
    the group rates, penalties, accumulation and clipping.

    Args:
        task: provides the training batches, repeated if there are too few.
        model: a copy of it is trained.
        make_optimizer: for the copy's layer groups.
        trainer: performs the steps.
        lowest, highest: ends of the range, for the last layer group.
        num_steps: optimizer steps between them.
    """
    generators = generator_states(trainer.device)
    trained, phase = copy.deepcopy(model).to(trainer.device), trainer.phases[0]
    optimizer = make_optimizer(trained.layer_groups())
    trainer.train_mode(trained, phase)
    result, mean, batches, hidden = RangeTest(), EMA(), _endless(task, phase), None
    for step in range(num_steps):
        rate = lowest * (highest / lowest) ** (step / max(1, num_steps - 1))
        set_lr(optimizer, phase, rate / phase.lr[-1])
        total, examples = 0.0, 0
        for index in range(1, trainer.accumulate + 1):
            is_first, batch = next(batches)
            update, hidden = index == trainer.accumulate, None if is_first else hidden
            loss, hidden = trainer.train_step(task, trained, optimizer, batch, update, hidden)
            total += float(loss) * len(batch.targets)  # waits for a GPU: an exploding loss ends the test
            examples += len(batch.targets)
        smoothed = mean.update([total / examples])
        if not math.isfinite(smoothed) or (step > 10 and _has_diverged(smoothed, min(result.smoothed))):
            result.diverged = True
            break
        result.rates.append(rate)
        result.losses.append(total / examples)
        result.smoothed.append(smoothed)
    restore_generators(generators, trainer.device)
    return result


def _has_diverged(loss: float, lowest: float) -> bool:
    """Return whether a loss is four times the lowest; of negative losses, as far above it.

    >>> _has_diverged(4.1, 1.0), _has_diverged(-0.9, -1.0), _has_diverged(2.1, -1.0)
    (True, False, True)
    """
    return loss > lowest + 3 * abs(lowest)


def _endless(task: Task, phase: Phase) -> Iterator[tuple[bool, Batch]]:
    """Yield training batches, epoch after epoch, and whether each is the first of its epoch."""
    for epoch in itertools.count():
        for number, batch in enumerate(task.batches("train", epoch, phase=phase)):
            yield number == 0, batch
