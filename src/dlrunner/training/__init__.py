"""Training: the loop, its schedule, checkpoints, losses, and the range test that finds a learning rate."""

from dlrunner.training.loop import Trainer

__all__ = ["Trainer"]
