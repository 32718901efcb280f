"""The base class of models: a torch module with layer groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

FACTORS = ("signs", "scales")
"""Parameters of `PackedLayers` that multiply inputs and outputs, and start at ±1."""


class Outputs(NamedTuple):
    """The outputs of a model with a hidden state or an auxiliary loss."""

    outputs: Tensor
    hidden: Any = None
    """The initial state of the next batch (of a stateful model).

    Tensors without gradients, in tuples and lists; the examples of a batch along their second dimension, by which
    several processes divide them.
    """
    penalty: Tensor | None = None
    """Added to the training loss; several processes weight it like the loss, by their examples."""


@dataclass(frozen=True)
class Example:
    """An input of a model, by example."""

    values: Tensor
    axes: Sequence[str | None]
    """What each dimension counts, where it may have any length; None: it is always this long."""


class Model(nn.Module):
    """A module with defaults that a model may replace.

    `forward` takes the inputs of a batch and returns the outputs, or `Outputs` where there is a hidden state or a
    penalty (an auxiliary loss) too.

    A model's constructor takes `dims` (the sizes that come from the data, the task's `dims`), if it asks for it
    `data_dir` (the folder of published data and weights), and the settings of its YAML file; the annotations of the
    settings are checked before data is read.
    """

    group_names: ClassVar[tuple[str, ...] | None] = None
    """Names of the layer groups, where they do not depend on the settings: rates are counted before data is read."""
    stateful: ClassVar[bool] = False
    """`forward` takes `hidden` too, None at the start of an epoch, and returns the next one (see `Outputs`)."""

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Check the settings against each other, before data is read; raise ValueError if they do not fit."""

    @classmethod
    def groups_of(cls, settings: Mapping[str, Any]) -> Sequence[str] | None:
        """Return the names of the layer groups that a model with these settings has.

        None: they depend on the data; rates and frozen groups are then checked when training starts.
        """
        return cls.group_names

    def layer_groups(self) -> Sequence[nn.Module]:
        """Return the groups, from input to output, that can be frozen and given rates of their own."""
        return [self]

    def penalised_weights(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that `trainer.l1` penalises: matrices, but no biases and no factors near ±1."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and "bias" not in name and name.rpartition(".")[2] not in FACTORS:
                yield parameter

    @classmethod
    def files(cls, settings: Mapping[str, Any], data_dir: Path) -> Sequence[Path]:
        """Return the files that `load_pretrained` will read: the result depends on them as on the data.

        Raises:
            ConfigError: a file is not there.
        """
        return []

    @classmethod
    def check_files(cls, settings: Mapping[str, Any], data_dir: Path) -> None:
        """Check that the files fit the settings, before data is read; raise ValueError if they do not."""

    def load_pretrained(self) -> Sequence[str]:
        """Load pre-trained weights, before training, and return notes for the user.

        Not called for a trained model that is loaded again.
        """
        return []

    def graph(self) -> nn.Module:
        """Return the module that is exported to ONNX: its inputs are the task's `examples`.

        Raises:
            ConfigError: the model cannot be exported; the message gives the reason.
        """
        return OutputsOnly(self)


class AveragedOutputs(Model):
    """The models of an ensemble as one, whose outputs are averaged batch by batch: none have to be kept.

    Args:
        models: the trained models.
        average: of their outputs for the same examples (`Task.average`).
    """

    stateful = True

    def __init__(self, models: Sequence[Model], average: Callable[[Sequence[Tensor]], Tensor]) -> None:
        super().__init__()
        self.models, self.average = nn.ModuleList(models), average

    def forward(self, *inputs: Tensor, hidden: Sequence[Any] | None = None) -> Outputs:
        """Return the average and, of stateful models, their hidden states."""
        members = [each for each in self.models if isinstance(each, Model)]
        states = hidden or [None] * len(members)
        found = [forward_pass(model, *inputs, hidden=state) for model, state in zip(members, states, strict=True)]
        return Outputs(self.average([each.outputs for each in found]), [each.hidden for each in found])


class OutputsOnly(nn.Module):
    """A model that returns its outputs and nothing else.

    Args:
        model: of a stateful one the hidden state is None.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the outputs."""
        return forward_pass(self.model, *inputs).outputs


def forward_pass(
    model: Model, *inputs: Tensor, hidden: Any = None, wrapped: Callable[..., Tensor | Outputs] | None = None
) -> Outputs:
    """Call a model and return its outputs, its next hidden state and its penalty.

    Args:
        model: the model.
        inputs: of a batch.
        hidden: the state after the batch before; None: there was none. Only stateful models get it.
        wrapped: is called in the model's place (a compiled model).
    """
    call = model if wrapped is None else wrapped
    return as_outputs(call(*inputs, hidden=hidden) if model.stateful else call(*inputs))


def as_outputs(returned: Tensor | Outputs) -> Outputs:
    """Return what a model returned as `Outputs`, which outputs alone are not."""
    return returned if isinstance(returned, Outputs) else Outputs(returned)
