"""What a model is: a torch module that knows its layer groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Example:
    """An input of a model, by example."""

    values: Tensor
    axes: Sequence[str | None]
    """What each dimension counts, where it may have any length; None: it is always this long."""


class Model(nn.Module):
    """A module with defaults that a model may replace.

    A model's constructor takes `dims` (the sizes that come from the data, the task's `dims`) and the settings
    of its YAML file; the annotations of the settings are what the dispatcher checks.
    """

    group_names: ClassVar[tuple[str, ...] | None] = None
    """Names of the layer groups, where they do not depend on the settings: rates are counted before data is read."""

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Compare settings with each other, before data is read; raise ValueError when they do not fit."""

    def layer_groups(self) -> Sequence[nn.Module]:
        """Return the groups, from input to output, that can be frozen and given rates of their own."""
        return [self]

    @classmethod
    def files(cls, settings: Mapping[str, Any], data_dir: Path) -> Sequence[Path]:
        """Return the files that `load_pretrained` will read: a result rests on them as on the data.

        Raises:
            ConfigError: a file is not there.
        """
        return []

    def load_pretrained(self) -> Sequence[str]:
        """Take over weights from elsewhere, before training, and return what a person should know about it.

        A trained model that is read back needs none.
        """
        return []

    def graph(self) -> nn.Module:
        """Return what an ONNX graph is made of: its inputs are the task's `examples`.

        Raises:
            ConfigError: no graph can say what the model does; the message tells why.
        """
        return self

    def penalty(self) -> Tensor | None:
        """Return what the last forward pass adds to the training loss; None: nothing.

        Several processes weigh it as they weigh the loss, by the examples that each of them has.
        """
        return None

    def reset_state(self) -> None:
        """Forget what was carried over from batch to batch (the hidden state of a recurrent net)."""

    def carried(self) -> Any:
        """Return what is carried over, for a checkpoint in the midst of an epoch.

        Tensors in tuples and lists, the examples of a batch along their second dimension: several processes divide
        them by it.
        """
        return None

    def carry(self, carried: Any) -> None:
        """Go on with what `carried` returned."""
