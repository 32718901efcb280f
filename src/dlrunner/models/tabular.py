"""Models of tables: embeddings of the categories and the numbers, then layers; and two simple baselines.

Source: fast.ai deep learning part 1, lesson 4 (2018); Guo and Berkhahn, Entity embeddings of categorical variables,
2016, https://arxiv.org/abs/1604.06737.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.model import Model
from dlrunner.models.dropout import Dropout
from dlrunner.models.packed_nets import PackedHead, PackedLayers
from dlrunner.models.quantile_encoding import QuantileEncoding
from dlrunner.models.tabular_layers import (
    ACTIVATIONS,
    Activation,
    Embeddings,
    Head,
    HeadInitial,
    Initial,
    LinearInitial,
    OneHotLinear,
    OutputRange,
    TabularDims,
    add_base,
    embedding_size,
    hidden_layers,
    output_range,
    scaled,
    split_base,
    start_bias,
)
from dlrunner.ranges import Count, Natural, Probability
from dlrunner.system.precision import without_autocast

Dropouts = Probability | list[Probability] | Literal["auto"]
"""One for all hidden layers, or one after each; `auto`: as the task recommends, else 0.05."""


class EmbeddingNet(Model):
    """An embedding of each category, batch norm on the numbers, and layers on both together.

    Args:
        dims: sizes from the data.
        embedding_sizes: sizes by column name; the others follow the rule min(50, (cardinality + 1) // 2).
        max_embedding_size: at most, instead of the rule's 50.
        embedding_dropout: on the concatenated embeddings.
        hidden: sizes of the hidden layers.
        dropouts: after the hidden layers (see `Dropouts`).
        batch_norm_inputs: on the numbers.
        batch_norm: on the hidden layers.
        activation: between the layers.
        init: of the hidden layers' weights.
        head_init: of the last layer: `target_mean`, small weights around the mean of the training targets, or
            `kaiming`, the lesson's, whose sigmoid starts saturated.
        y_range: outputs lie within, by a sigmoid, in units of the transformed target. `auto` is the lesson's
            (0, 1.2 · max) where no training target is negative, else a fifth of their span beyond both ends.
        bins: each number is also given to the layers by this many bins between quantiles (see `QuantileEncoding`);
            0: as it is only; `auto`: as the task recommends, else 0.
        num_nets: nets that are trained at once and averaged (see `PackedLayers`); `auto`: as the task recommends,
            else 1.
    """

    group_names: ClassVar[tuple[str, ...]] = ("embeddings", "layers")

    def __init__(
        self,
        dims: TabularDims,
        *,
        embedding_sizes: dict[str, Count] = {},  # noqa: B006
        max_embedding_size: Count = 50,
        embedding_dropout: Probability = 0.04,
        hidden: list[Count] = [200, 100],  # noqa: B006
        dropouts: Dropouts = 0.05,
        batch_norm_inputs: bool = True,
        batch_norm: bool = True,
        activation: Activation = "relu",
        init: Initial = "kaiming",
        head_init: HeadInitial = "target_mean",
        y_range: OutputRange | None = None,
        bins: Natural | Literal["auto"] = 0,
        num_nets: Count | Literal["auto"] = 1,
    ) -> None:
        super().__init__()
        unknown = [name for name in embedding_sizes if name not in dims.cardinalities]
        if unknown:
            raise ConfigError(
                f"model.embedding_sizes.{unknown[0]}: there is no such categorical column; "
                f"{did_you_mean(unknown[0], dims.cardinalities)}"
            )
        sizes = {
            name: embedding_sizes.get(name, min(embedding_size(rows), max_embedding_size))
            for name, rows in dims.cardinalities.items()
        }
        self.embeddings = Embeddings(dims.cardinalities, sizes)
        self.embedding_dropout, self.dims = Dropout(embedding_dropout), dims
        size = sum(sizes.values()) + dims.num_continuous
        normed = batch_norm_inputs and dims.num_continuous
        self.norm = nn.BatchNorm1d(dims.num_continuous) if normed else nn.Identity()
        each = 0.05 if dropouts == "auto" else dropouts
        dropouts = each if isinstance(each, list) else [each] * len(hidden)
        num_bins, num_nets = (0 if bins == "auto" else bins), (1 if num_nets == "auto" or not hidden else num_nets)
        self.encoding = QuantileEncoding(dims.quantiles, num_bins) if num_bins and dims.num_continuous else None
        size += self.encoding.size if self.encoding else 0
        self.layers: nn.Module
        self.head: nn.Module
        if num_nets == 1:
            self.layers, size = hidden_layers(size, hidden, dropouts, activation, init, batch_norm)
            self.head = Head(size, dims, y_range, head_init)
        else:
            self.layers = PackedLayers(size, num_nets, hidden, dropouts, activation, init, batch_norm)
            self.head = PackedHead(hidden[-1], num_nets, dims, y_range)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """There is one dropout after each hidden layer, the range has a width, and several nets have no other start."""
        _check_layers(settings)
        if settings["head_init"] != "target_mean" and settings["num_nets"] != 1:
            raise ValueError("model.head_init: kaiming is for a single net; set model.num_nets=1")

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return outputs of shape [rows] (one number per row) or [rows, classes].

        Of several nets: in training their outputs, with a first dimension for the nets; else their average.

        Args:
            codes: categories, shape [rows, categorical columns].
            numbers: standardised, shape [rows, continuous columns]; with a base one column more (see `TabularDims`).
        """
        numbers, base = split_base(self.dims, numbers)
        inputs = [self.norm(numbers)]
        if self.encoding is not None:
            inputs.append(self.encoding(numbers))
        if codes.shape[1]:
            inputs = [self.embedding_dropout(self.embeddings(codes)), *inputs]
        return add_base(self.dims, self.head(self.layers(torch.cat(inputs, dim=1))), base)

    def layer_groups(self) -> Sequence[nn.Module]:
        """Embeddings, then layers."""
        return [self.embeddings, nn.ModuleList([self.norm, self.layers, self.head])]


class MLP(Model):
    """Layers on the numbers and the one-hot categories: a net without embeddings.

    Args:
        dims: sizes from the data.
        hidden: sizes of the hidden layers.
        dropouts: after each hidden layer.
        activation: between the layers.
        init: of the hidden layers' weights.
        batch_norm: on the hidden layers.
        y_range: outputs lie within, by a sigmoid (see `EmbeddingNet`).
    """

    group_names: ClassVar[tuple[str, ...]] = ("layers",)

    def __init__(
        self,
        dims: TabularDims,
        *,
        hidden: Annotated[list[Count], Field(min_length=1)] = [200, 100],  # noqa: B006
        dropouts: list[Probability] = [0.0, 0.0],  # noqa: B006
        activation: Activation = "relu",
        init: Initial = "kaiming",
        batch_norm: bool = False,
        y_range: OutputRange | None = None,
    ) -> None:
        super().__init__()
        self.first, self.dims = OneHotLinear(dims, hidden[0], init), dims
        norm: list[nn.Module] = [nn.BatchNorm1d(hidden[0])] if batch_norm else []
        self.start = nn.Sequential(*norm, ACTIVATIONS[activation](), Dropout(dropouts[0]))
        self.layers, size = hidden_layers(hidden[0], hidden[1:], dropouts[1:], activation, init, batch_norm)
        self.head = Head(size, dims, y_range)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """There is one dropout after each hidden layer, and the range has a width."""
        _check_layers(settings)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return outputs of shape [rows] or [rows, classes] (see `EmbeddingNet.forward`)."""
        numbers, base = split_base(self.dims, numbers)
        return add_base(self.dims, self.head(self.layers(self.start(self.first(codes, numbers)))), base)


class Linear(Model):
    """One linear layer on the numbers and the one-hot categories: linear or logistic regression.

    Args:
        dims: sizes from the data.
        init: of the weights.
        y_range: outputs lie within, by a sigmoid (see `EmbeddingNet`).
    """

    group_names: ClassVar[tuple[str, ...]] = ("layers",)

    def __init__(self, dims: TabularDims, *, init: LinearInitial = "zeros", y_range: OutputRange | None = None) -> None:
        super().__init__()
        self.layer, self.dims = OneHotLinear(dims, dims.num_outputs, init), dims
        self.range = output_range(dims, y_range)
        nn.init.constant_(self.layer.bias, start_bias(dims, self.range))

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """The range has a width."""
        _check_range(settings)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return outputs of shape [rows] or [rows, classes] (see `EmbeddingNet.forward`)."""
        numbers, base = split_base(self.dims, numbers)
        with without_autocast(numbers.device):  # as `Head`
            outputs = scaled(self.layer(codes, numbers.float()), self.range)
        return add_base(self.dims, outputs, base)


def _check_layers(settings: Mapping[str, Any]) -> None:
    hidden, dropouts = settings["hidden"], settings["dropouts"]
    if isinstance(dropouts, list) and len(dropouts) != len(hidden):
        raise ValueError(
            f"model.dropouts: {len(dropouts)} for {len(hidden)} hidden layer(s); give one after each layer"
        )
    _check_range(settings)


def _check_range(settings: Mapping[str, Any]) -> None:
    y_range = settings["y_range"]
    if isinstance(y_range, list) and y_range[0] >= y_range[1]:
        raise ValueError(f"model.y_range: {y_range[0]:g} is not below {y_range[1]:g}")
