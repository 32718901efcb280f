"""Training: loop, schedule, state, losses, several processes, and the learning-rate range test."""

from dlrunner.training.loop import Trainer

__all__ = ["Trainer"]
