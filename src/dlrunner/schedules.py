"""Schedules of the learning rate (and the momentum) over a training phase.

A schedule is a pure function of the progress through its phase, from 0 to 1; it has no
state to save. The factories below take the length of the phase in epochs and their settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from dlrunner.ranges import Count, Fraction, NonNegative, Positive, Probability

Schedule = Callable[[float], float]
"""Progress in [0, 1] -> factor of the learning rate (or the momentum itself)."""

SLOW_FACTOR = 0.01
"""Of the rate during the slow start of a cosine schedule."""


@dataclass(frozen=True)
class ScheduleCurves:
    """The curves of a phase: factor of the learning rate, optionally the momentum, and the ends of cycles."""

    lr: Schedule
    momentum: Schedule | None = None
    cycle_ends: tuple[int, ...] = ()
    """Epochs (counted from the start of the phase) after which a cycle is complete and a checkpoint is kept."""


@dataclass(frozen=True)
class Phase:
    """A training phase with its own length, rates, schedule and frozen groups."""

    epochs: int
    curves: ScheduleCurves
    lr: tuple[float, ...]
    """One rate per layer group, or a single one for all."""
    freeze_to: int = 0
    """Layer groups before this one are frozen; negative counts from the end (-1: only the last group trains)."""
    task: Mapping[str, Any] = field(default_factory=dict)
    """Task settings for this phase."""
    new_optimizer: bool = False
    """Start with a new optimizer instead of the state of the phase before."""


def constant(epochs: int) -> ScheduleCurves:
    """Keep the rate constant."""
    return ScheduleCurves(lr=lambda progress: 1.0)


def cosine(
    epochs: int,
    *,
    cycle_len: Count | None = None,
    cycle_mult: Count = 1,
    floor: Probability = 0.0,
    slow_start: Probability = 0.0,
) -> ScheduleCurves:
    """Cosine annealing, with warm restarts when `cycle_len` is given (SGDR).

    factor = floor + (1 - floor) · (1 + cos(π t)) / 2, t the progress through the cycle.

    Args:
        epochs: the length of the phase.
        cycle_len: epochs in the first cycle; by default the phase is one cycle.
        cycle_mult: each cycle is this many times longer than the one before (1 + 2 + 4 … for 2).
        floor: the factor at the end of a cycle.
        slow_start: in this fraction of the first cycle the factor is SLOW_FACTOR (fastai 0.7: 0.05).

    Raises:
        ValueError: the phase ends in the middle of a cycle, or cycle_mult has no effect.

    Source: Loshchilov and Hutter, SGDR, 2017, https://arxiv.org/abs/1608.03983
    """
    if cycle_mult != 1 and cycle_len is None:
        raise ValueError(f"cycle_mult={cycle_mult} has no effect without cycle_len, which is the length of a cycle")
    ends = _cycle_ends(epochs, cycle_len or epochs, cycle_mult)

    def factor(progress: float) -> float:
        if progress * epochs < slow_start * ends[0] - 1e-9:
            return SLOW_FACTOR
        cycle = _progress_in_cycle(progress * epochs, ends)
        return floor + (1 - floor) * (1 + math.cos(math.pi * cycle)) / 2

    return ScheduleCurves(lr=factor, cycle_ends=ends if cycle_len else ())


def one_cycle(
    epochs: int,
    *,
    warmup: Fraction = 0.25,
    div: Positive = 25.0,
    final_div: Positive = 1e5,
    momentum: Annotated[list[Probability], Field(min_length=2, max_length=2)] | None = None,
    shape: Literal["cosine", "linear"] = "cosine",
) -> ScheduleCurves:
    """The 1cycle policy: the rate rises, then falls far below its start; the momentum does the opposite.

    Args:
        epochs: the length of the phase.
        warmup: fraction of the phase in which the rate rises from 1/div to 1.
        div: peak / start.
        final_div: peak / end.
        momentum: [high, low]: the momentum (the first beta of Adam) falls to low while the rate rises.
        shape: of both legs.

    Source: Smith, A disciplined approach to neural network hyper-parameters, 2018,
    https://arxiv.org/abs/1803.09820
    """
    ease = _cosine_ease if shape == "cosine" else _linear_ease

    def legs(start: float, peak: float, end: float) -> Schedule:
        def value(progress: float) -> float:
            if progress < warmup:
                return start + (peak - start) * ease(progress / warmup)
            return peak + (end - peak) * ease((progress - warmup) / (1 - warmup))

        return value

    return ScheduleCurves(
        lr=legs(1 / div, 1.0, 1 / final_div),
        momentum=legs(momentum[0], momentum[1], momentum[0]) if momentum else None,
    )


def triangular(
    epochs: int,
    *,
    cycle_len: Count | None = None,
    floor: Probability = 0.1,
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> ScheduleCurves:
    """Cyclical rates: linearly up from `floor` to 1 and down again in every cycle.

    Args:
        epochs: the length of the phase.
        cycle_len: epochs in a cycle; by default the phase is one triangle.
        floor: the factor at both ends of the triangle.
        decay: factor of the height of each peak (above the floor) ("triangular2": 0.5).

    Raises:
        ValueError: the phase ends in the middle of a cycle, or decay has no effect.

    Source: Smith, Cyclical learning rates for training neural networks, 2017,
    https://arxiv.org/abs/1506.01186
    """
    if decay != 1 and cycle_len is None:
        raise ValueError(f"decay={decay:g} has no effect without cycle_len, which is the length of a cycle")
    length = cycle_len or epochs
    ends = _cycle_ends(epochs, length, 1)

    def factor(progress: float) -> float:
        place = _progress_in_cycle(progress * epochs, ends)
        height = decay ** min(int(progress * epochs / length + 1e-9), len(ends) - 1)
        return floor + (1 - floor) * height * (1 - abs(2 * place - 1))

    return ScheduleCurves(lr=factor, cycle_ends=ends if cycle_len else ())


def step(
    epochs: int, *, at: list[Positive] | None = None, every: Count | None = None, gamma: NonNegative = 0.1
) -> ScheduleCurves:
    """Multiply the rate by `gamma` after the epochs in `at`, or after every `every` epochs; by default at two thirds.

    Raises:
        ValueError: both `at` and `every` are given, or one that has no effect. A single epoch, which tries out other
            settings or stands for a number that is not decided yet, is accepted.
    """
    if at is not None and every is not None:
        raise ValueError("takes either at or every, not both")
    late = [drop for drop in at or [every or 0] if drop >= epochs > 1]
    if late or at == []:
        name = f"every={every}" if every else f"at=[{','.join(f'{drop:g}' for drop in at or [])}]"
        place = f" after epoch {late[0]:g}" if at else ""
        raise ValueError(f"{name} has no effect{place} in a phase of {epochs} epochs")
    drops = at if at is not None else list(range(every, epochs, every)) if every else [epochs * 2 / 3]
    return ScheduleCurves(lr=lambda progress: gamma ** sum(progress * epochs + 1e-9 >= drop for drop in drops))


def _cosine_ease(part: float) -> float:
    return (1 - math.cos(math.pi * part)) / 2


def _linear_ease(part: float) -> float:
    return part


def _cycle_ends(epochs: int, cycle_len: int, cycle_mult: int) -> tuple[int, ...]:
    ends, end, length = [], 0, cycle_len
    while end < epochs:
        end, length = end + length, length * cycle_mult
        ends.append(end)
    if end != epochs:
        lengths = [*ends[:-1], end][-2:]
        raise ValueError(
            f"{epochs} epochs end in the middle of a cycle (cycle_len={cycle_len}, cycle_mult={cycle_mult}); "
            f"use {' or '.join(map(str, lengths))} epochs"
        )
    return tuple(ends)


def _progress_in_cycle(epoch: float, ends: tuple[int, ...]) -> float:
    """Return the progress through the cycle that `epoch` lies in; a boundary belongs to the next cycle."""
    start = 0
    for end in ends:
        if epoch < end - 1e-9:
            return (epoch - start) / (end - start)
        start = end
    return 1.0
