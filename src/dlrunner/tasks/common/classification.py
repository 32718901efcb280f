"""What tasks have in common that sort something into classes, or give it labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.metrics import Metric
from dlrunner.task import Task
from dlrunner.tasks.common.outputs import CLASS_METRICS, average, class_loss


class Classification(Task):
    """Cross entropy, and the metrics of the target's kind or those that were asked for."""

    metric_names: list[str] | None

    @property
    @abstractmethod
    def target(self) -> Target:
        """The classes or labels."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy."""
        return class_loss(self.target, outputs, targets)

    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of the target's kind, or those that were asked for."""
        known = CLASS_METRICS[self.target.kind]
        return {name: known[name]() for name in self.metric_names or known}

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average the probabilities."""
        return average(self.target, outputs)

    def check_metrics(self, target: Target, what: str) -> None:
        """Refuse metrics that the target's kind does not have.

        Raises:
            ConfigError: there is one.
        """
        known = CLASS_METRICS[target.kind]
        for name in self.metric_names or []:
            if name not in known:
                raise ConfigError(
                    f"task.metrics: {name} is no metric of {target.kind} {what}; {did_you_mean(name, known)}"
                )
