"""Models of tables: embeddings of the categories beside the numbers, then layers; and two simple baselines.

Source: fast.ai deep learning part 1, lesson 4 (2018); Guo and Berkhahn, Entity embeddings of categorical variables,
2016, https://arxiv.org/abs/1604.06737.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.model import Model
from dlrunner.models.dropout import Dropout
from dlrunner.ranges import Count, Probability
from dlrunner.system.precision import without_autocast

Activation = Literal["relu", "sigmoid", "tanh", "gelu"]
Initial = Literal["kaiming", "xavier", "torch"]
OutputRange = Literal["auto"] | Annotated[list[float], Field(min_length=2, max_length=2)]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}


@dataclass(frozen=True)
class TabularDims:
    """Sizes that a tabular model takes from the data."""

    cardinalities: Mapping[str, int]
    """Codes of each categorical column, 0 among them: missing or unseen."""
    num_continuous: int
    num_outputs: int = 1
    target_low: float | None = None
    """Of the transformed training targets; None where the target is no number."""
    target_high: float | None = None
    target_mean: float = 0.0


class EmbeddingNet(Model):
    """An embedding of each category, batch norm on the numbers, and layers on both together.

    Args:
        dims: sizes from the data.
        embedding_sizes: sizes by column name; the others follow the rule min(50, (cardinality + 1) // 2).
        embedding_dropout: on the concatenated embeddings.
        hidden: sizes of the hidden layers.
        dropouts: after each hidden layer.
        batch_norm_inputs: on the numbers.
        batch_norm: on the hidden layers.
        activation: between the layers.
        init: of the hidden layers' weights.
        y_range: outputs lie within, by a sigmoid, in units of the transformed target. `auto` is the lesson's
            (0, 1.2 · max) where no training target is negative, else a fifth of their span beyond both ends.
    """

    group_names: ClassVar[tuple[str, ...]] = ("embeddings", "layers")

    def __init__(
        self,
        dims: TabularDims,
        *,
        embedding_sizes: dict[str, Count] = {},  # noqa: B006
        embedding_dropout: Probability = 0.04,
        hidden: list[Count] = [200, 100],  # noqa: B006
        dropouts: list[Probability] = [0.05, 0.05],  # noqa: B006
        batch_norm_inputs: bool = True,
        batch_norm: bool = True,
        activation: Activation = "relu",
        init: Initial = "kaiming",
        y_range: OutputRange | None = None,
    ) -> None:
        super().__init__()
        unknown = [name for name in embedding_sizes if name not in dims.cardinalities]
        if unknown:
            raise ConfigError(
                f"model.embedding_sizes.{unknown[0]}: there is no such categorical column; "
                f"{did_you_mean(unknown[0], dims.cardinalities)}"
            )
        sizes = {name: embedding_sizes.get(name, embedding_size(rows)) for name, rows in dims.cardinalities.items()}
        self.embeddings = Embeddings(dims.cardinalities, sizes)
        self.embedding_dropout = Dropout(embedding_dropout)
        size = sum(sizes.values()) + dims.num_continuous
        normed = batch_norm_inputs and dims.num_continuous
        self.norm = nn.BatchNorm1d(dims.num_continuous) if normed else nn.Identity()
        self.layers, size = _hidden_layers(size, hidden, dropouts, activation, init, batch_norm)
        self.head = Head(size, dims, y_range)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """There is one dropout after each hidden layer, and the range has a width."""
        _check_layers(settings)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return outputs of shape [rows] (one number per row) or [rows, classes].

        Args:
            codes: categories, shape [rows, categorical columns].
            numbers: standardised, shape [rows, continuous columns].
        """
        inputs = [self.norm(numbers)]
        if codes.shape[1]:
            inputs = [self.embedding_dropout(self.embeddings(codes)), *inputs]
        outputs: Tensor = self.head(self.layers(torch.cat(inputs, dim=1)))
        return outputs

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
        self.first = OneHotLinear(dims, hidden[0], init)
        norm: list[nn.Module] = [nn.BatchNorm1d(hidden[0])] if batch_norm else []
        self.start = nn.Sequential(*norm, ACTIVATIONS[activation](), Dropout(dropouts[0]))
        self.layers, size = _hidden_layers(hidden[0], hidden[1:], dropouts[1:], activation, init, batch_norm)
        self.head = Head(size, dims, y_range)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """There is one dropout after each hidden layer, and the range has a width."""
        _check_layers(settings)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return outputs of shape [rows] or [rows, classes] (see `EmbeddingNet.forward`)."""
        outputs: Tensor = self.head(self.layers(self.start(self.first(codes, numbers))))
        return outputs


class Linear(Model):
    """One linear layer on the numbers and the one-hot categories: linear or logistic regression.

    Args:
        dims: sizes from the data.
        init: of the weights.
        y_range: outputs lie within, by a sigmoid (see `EmbeddingNet`).
    """

    group_names: ClassVar[tuple[str, ...]] = ("layers",)

    def __init__(self, dims: TabularDims, *, init: Initial = "xavier", y_range: OutputRange | None = None) -> None:
        super().__init__()
        self.layer = OneHotLinear(dims, dims.num_outputs, init)
        self.range = _range(dims, y_range)
        nn.init.constant_(self.layer.bias, _start(dims, self.range))

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """The range has a width."""
        _check_range(settings)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return outputs of shape [rows] or [rows, classes] (see `EmbeddingNet.forward`)."""
        return _scaled(self.layer(codes, numbers), self.range)


class Embeddings(nn.Module):
    """One table of vectors per column; tables of the same size are looked up together: 12 lookups for 22 columns.

    Args:
        cardinalities: rows of each column's table.
        sizes: length of each column's vectors.
    """

    def __init__(self, cardinalities: Mapping[str, int], sizes: Mapping[str, int]) -> None:
        super().__init__()
        places = {name: place for place, name in enumerate(cardinalities)}
        self.rows: dict[str, tuple[int, int, int]] = {}
        self.tables = nn.ModuleList()
        for group, size in enumerate(sorted(set(sizes.values()))):
            names = [name for name in cardinalities if sizes[name] == size]
            starts = [0]
            for name in names:
                self.rows[name] = (group, starts[-1], starts[-1] + cardinalities[name])
                starts.append(starts[-1] + cardinalities[name])
            self.tables.append(_embedding(starts[-1], size))
            self.register_buffer(f"columns{group}", torch.tensor([places[name] for name in names]), persistent=False)
            self.register_buffer(f"starts{group}", torch.tensor(starts[:-1], dtype=torch.int32), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Return shape [rows, sum of sizes] for codes of shape [rows, columns]."""
        vectors = []
        for group, table in enumerate(self.tables):
            columns, starts = self.get_buffer(f"columns{group}"), self.get_buffer(f"starts{group}")
            vectors.append(table(codes.index_select(1, columns) + starts).flatten(1))
        return torch.cat(vectors, dim=1)

    def of(self, column: str) -> Tensor:
        """Return the vectors of a column, one row per code, of shape [codes, size]."""
        group, start, end = self.rows[column]
        table = self.tables[group]
        assert isinstance(table, nn.Embedding)
        return table.weight.detach()[start:end]


class OneHotLinear(nn.Module):
    """A linear layer on one-hot categories and numbers; the product with a one-hot vector is the choice of a row."""

    starts: Tensor

    def __init__(self, dims: TabularDims, width: int, init: Initial) -> None:
        super().__init__()
        sizes = torch.tensor([0, *dims.cardinalities.values()])
        self.register_buffer("starts", sizes.cumsum(0)[:-1], persistent=False)
        num_codes = int(sizes.sum())
        layer = _linear(num_codes + dims.num_continuous, width, init)
        weight = layer.weight.detach().T.contiguous()
        self.categories = nn.EmbeddingBag.from_pretrained(weight[:num_codes], freeze=False, mode="sum")
        self.numbers = nn.Parameter(weight[num_codes:].clone())
        self.bias = nn.Parameter(layer.bias.detach())

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return shape [rows, width]."""
        outputs = torch.addmm(self.bias, numbers, self.numbers)
        return outputs + self.categories(codes + self.starts) if codes.shape[1] else outputs


class Head(nn.Module):
    """The last layer, in float32 whatever the precision of the rest: bfloat16 knows 8.5 only to ±.03.

    Its outputs start near the mean of the training targets, its weights small. Where a sigmoid starts saturated, as it
    does under Kaiming's wider weights, the first steps have gradients a hundred times as large as all others, and
    Adam's second moment remembers them for as many steps as it looks back.
    """

    def __init__(self, size: int, dims: TabularDims, y_range: OutputRange | None) -> None:
        super().__init__()
        self.layer = nn.Linear(size, dims.num_outputs)
        self.range = _range(dims, y_range)
        nn.init.constant_(self.layer.bias, _start(dims, self.range))
        with torch.no_grad():
            self.layer.weight.mul_(0.1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return shape [rows], or [rows, outputs] where there are several."""
        with without_autocast(hidden.device):
            return _scaled(self.layer(hidden.float()), self.range)


def embedding_size(cardinality: int) -> int:
    """Return the lesson's size of an embedding: half the cardinality, at most 50.

    >>> [embedding_size(cardinality) for cardinality in (1116, 8, 4, 13, 53)]
    [50, 4, 2, 7, 27]
    """
    return min(50, (cardinality + 1) // 2)


def _embedding(rows: int, size: int) -> nn.Embedding:
    """Start as the lesson's library does: uniform within ±2 / (size + 1)."""
    table = nn.Embedding(rows, size)
    bound = 2 / (size + 1)
    nn.init.uniform_(table.weight, -bound, bound)
    return table


def _linear(inputs: int, outputs: int, init: Initial) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    if init != "torch":
        fill = nn.init.kaiming_normal_ if init == "kaiming" else nn.init.xavier_normal_
        fill(layer.weight)
    return layer


def _hidden_layers(
    size: int,
    hidden: Sequence[int],
    dropouts: Sequence[float],
    activation: Activation,
    init: Initial,
    batch_norm: bool,
) -> tuple[nn.Sequential, int]:
    """Return linear layers with activation, batch norm and dropout, and the size of the last one."""
    layers: list[nn.Module] = []
    for width, dropout in zip(hidden, dropouts, strict=True):
        layers += [_linear(size, width, init), ACTIVATIONS[activation]()]
        layers += [nn.BatchNorm1d(width)] if batch_norm else []
        layers += [Dropout(dropout)] if dropout else []
        size = width
    return nn.Sequential(*layers), size


def _range(dims: TabularDims, y_range: OutputRange | None) -> tuple[float, float] | None:
    """Return the range of the outputs."""
    if y_range is None:
        return None
    if dims.target_low is None or dims.target_high is None:
        raise ConfigError("model.y_range: is for numeric targets; set it to null")
    if y_range != "auto":
        return y_range[0], y_range[1]
    if dims.target_low >= 0:
        return 0.0, 1.2 * dims.target_high
    margin = 0.2 * (dims.target_high - dims.target_low)
    return dims.target_low - margin, dims.target_high + margin


def _start(dims: TabularDims, bounds: tuple[float, float] | None) -> float:
    """Return the bias with which the outputs start at the mean of the training targets."""
    if bounds is None:
        return dims.target_mean
    fraction = (dims.target_mean - bounds[0]) / (bounds[1] - bounds[0])
    fraction = min(max(fraction, 0.01), 0.99)
    return math.log(fraction / (1 - fraction))


def _scaled(outputs: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    outputs = outputs.squeeze(1) if outputs.shape[1] == 1 else outputs
    if bounds is None:
        return outputs
    low, high = bounds
    return torch.sigmoid(outputs) * (high - low) + low


def _check_layers(settings: Mapping[str, Any]) -> None:
    hidden, dropouts = settings["hidden"], settings["dropouts"]
    if len(dropouts) != len(hidden):
        raise ValueError(
            f"model.dropouts: {len(dropouts)} for {len(hidden)} hidden layer(s); give one after each layer"
        )
    _check_range(settings)


def _check_range(settings: Mapping[str, Any]) -> None:
    y_range = settings["y_range"]
    if isinstance(y_range, list) and y_range[0] >= y_range[1]:
        raise ValueError(f"model.y_range: {y_range[0]:g} is not below {y_range[1]:g}")
