"""What a model is: a torch module that knows its layer groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn


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
            RequestError: a file is not there.
        """
        return []

    def load_pretrained(self) -> Sequence[str]:
        """Take over weights from elsewhere, before training, and return what a person should know about it.

        A trained model that is read back needs none.
        """
        return []

    def penalty(self) -> Tensor | None:
        """Return what the last forward pass adds to the training loss; None: nothing."""
        return None

    def reset_state(self) -> None:
        """Forget what was carried over from batch to batch (the hidden state of a recurrent net)."""

    def carried(self) -> Any:
        """Return what is carried over, tensors in tuples and lists, for a checkpoint in the midst of an epoch."""
        return None

    def carry(self, carried: Any) -> None:
        """Go on with what `carried` returned."""
