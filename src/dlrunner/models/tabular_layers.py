"""Layers of the tabular models, and the sizes that they take from the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.errors import ConfigError
from dlrunner.models.dropout import Dropout
from dlrunner.system.precision import without_autocast

Activation = Literal["relu", "sigmoid", "tanh", "gelu"]
Initial = Literal["kaiming", "xavier", "torch"]
LinearInitial = Literal["zeros", "kaiming", "xavier", "torch"]
"""Of a layer that is the whole model: its loss has one minimum, and the start at 0 is near it."""
HeadInitial = Literal["target_mean", "kaiming"]
OutputRange = Literal["auto"] | Annotated[list[float], Field(min_length=2, max_length=2)]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}


@dataclass(frozen=True)
class TabularDims:
    """Sizes that a tabular model takes from the data."""

    cardinalities: Mapping[str, int]
    """Codes of each categorical column, 0 among them: missing or unseen."""
    num_continuous: int
    num_outputs: int = 1
    continuous: Sequence[str] = ()
    """Names of the continuous columns."""
    target_low: float | None = None
    """Of the transformed training targets; None where the target is no number."""
    target_high: float | None = None
    target_mean: float = 0.0
    quantiles: Sequence[Sequence[float]] = ()
    """Of each continuous column as it is given to the model, in ascending order; none of an indicator."""
    has_base: bool = False
    """Whether a further, last column of the numbers is added to the outputs."""
    target: Target | None = None
    """Knows how the outputs of several nets are averaged."""

    @classmethod
    def of(cls, preparation: TabularPreprocessor, target: Target) -> TabularDims:
        """Return the sizes for a preprocessor and a target that are fitted to the training rows."""
        fitted = target.statistics()
        return cls(
            cardinalities=preparation.cardinalities,
            num_continuous=len(preparation.continuous),
            num_outputs=target.num_outputs,
            continuous=preparation.continuous,
            target_low=fitted.get("low"),
            target_high=fitted.get("high"),
            target_mean=fitted.get("middle", 0.0),
            quantiles=[preparation.quantiles.get(name, []) for name in preparation.continuous],
            target=target,
            has_base=preparation.base is not None,
        )


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

    def __init__(self, dims: TabularDims, width: int, init: LinearInitial) -> None:
        super().__init__()
        sizes = torch.tensor([0, *dims.cardinalities.values()])
        self.register_buffer("starts", sizes.cumsum(0)[:-1], persistent=False)
        num_codes = int(sizes.sum())
        layer = initialised_linear(num_codes + dims.num_continuous, width, init)
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
    Adam's second moment remembers them for as many steps as it looks back. The lesson's `kaiming` is such a start.
    """

    def __init__(
        self, size: int, dims: TabularDims, y_range: OutputRange | None, init: HeadInitial = "target_mean"
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(size, dims.num_outputs)
        self.range = output_range(dims, y_range)
        if init == "kaiming":
            nn.init.kaiming_normal_(self.layer.weight)
            return
        nn.init.constant_(self.layer.bias, start_bias(dims, self.range))
        with torch.no_grad():
            self.layer.weight.mul_(0.1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return shape [rows], or [rows, outputs] where there are several."""
        with without_autocast(hidden.device):
            return scaled(self.layer(hidden.float()), self.range)


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


def initialised_linear(inputs: int, outputs: int, init: LinearInitial) -> nn.Linear:
    """Return a linear layer."""
    layer = nn.Linear(inputs, outputs)
    if init == "zeros":
        nn.init.zeros_(layer.weight)
    elif init != "torch":
        fill = nn.init.kaiming_normal_ if init == "kaiming" else nn.init.xavier_normal_
        fill(layer.weight)
    return layer


def hidden_layers(
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
        layers += [initialised_linear(size, width, init), ACTIVATIONS[activation]()]
        layers += [nn.BatchNorm1d(width)] if batch_norm else []
        layers += [Dropout(dropout)] if dropout else []
        size = width
    return nn.Sequential(*layers), size


def split_base(dims: TabularDims, numbers: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the numbers that are inputs, and the base of the outputs, if there is one."""
    return (numbers[:, :-1], numbers[:, -1]) if dims.has_base else (numbers, None)


def add_base(dims: TabularDims, outputs: Tensor, base: Tensor | None) -> Tensor:
    """Return outputs, [rows], [nets, rows] or with a last dimension for several, plus the base, [rows]."""
    if base is None:
        return outputs
    return outputs + (base if dims.num_outputs == 1 else base[:, None])


def output_range(dims: TabularDims, y_range: OutputRange | None) -> tuple[float, float] | None:
    """Return the range of the outputs."""
    if y_range is None:
        return None
    if dims.has_base:
        raise ConfigError("model.y_range: must be null, since outputs are differences from a base (data.history.base)")
    if dims.target_low is None or dims.target_high is None:
        raise ConfigError("model.y_range: is for numeric targets; set it to null")
    if y_range != "auto":
        return y_range[0], y_range[1]
    if dims.target_low == dims.target_high <= 0:
        raise ConfigError("model.y_range: auto needs training targets that differ; set it to null")
    if dims.target_low >= 0:
        return 0.0, 1.2 * dims.target_high
    margin = 0.2 * (dims.target_high - dims.target_low)
    return dims.target_low - margin, dims.target_high + margin


def start_bias(dims: TabularDims, bounds: tuple[float, float] | None) -> float:
    """Return the bias with which the outputs start at the mean of the training targets, or at their base."""
    if dims.has_base:
        return 0.0
    if bounds is None:
        return dims.target_mean
    fraction = (dims.target_mean - bounds[0]) / (bounds[1] - bounds[0])
    fraction = min(max(fraction, 1e-6), 1 - 1e-6)
    return math.log(fraction / (1 - fraction))


def scaled(outputs: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """Return outputs within a range, if there is one; without the last dimension where it is 1."""
    outputs = outputs.squeeze(-1) if outputs.shape[-1] == 1 else outputs
    if bounds is None:
        return outputs
    low, high = bounds
    return torch.sigmoid(outputs) * (high - low) + low
