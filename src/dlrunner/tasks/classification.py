"""Base of the classification tasks: one class or several labels per example."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.metrics import Metric
from dlrunner.task import Task


class Classification(Task):
    """Cross entropy, and the default metrics of the target or those in `task.metrics`."""

    metric_names: list[str] | None

    @property
    @abstractmethod
    def target(self) -> Target:
        """The classes or labels."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy."""
        return self.target.loss(outputs, targets)

    def metrics(self) -> Mapping[str, Metric]:
        """The default metrics of the target, or those in `task.metrics`."""
        return self.target.metrics(self.metric_names)

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average the probabilities."""
        return self.target.average(outputs)

    def check_metrics(self, target: Target, what: str) -> None:
        """Refuse metrics that do not fit the target.

        Raises:
            ConfigError: a metric does not fit.
        """
        known = target.known_metrics
        for name in self.metric_names or []:
            if name not in known:
                raise ConfigError(
                    f"task.metrics: {name} is not a metric for {target.kind} {what}; {did_you_mean(name, known)}"
                )
