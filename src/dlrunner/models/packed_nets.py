"""Several nets trained at once in one model: an efficient ensemble.

Source: Gorishniy, Kotelnikov and Babenko, TabM: advancing tabular deep learning with parameter-efficient ensembling,
2025, https://arxiv.org/abs/2410.24210; Wen, Tran and Ba, BatchEnsemble, 2020, https://arxiv.org/abs/2002.06715.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrunner.data.core.targets import Target
from dlrunner.models.dropout import Dropout
from dlrunner.models.tabular_layers import (
    ACTIVATIONS,
    Activation,
    Initial,
    OutputRange,
    TabularDims,
    initialised_linear,
    output_range,
    scaled,
    start_bias,
)
from dlrunner.system.precision import without_autocast


class PackedLayers(nn.Module):
    """The hidden layers of several nets: the widest, the first, is shared; the others are each net's own.

    The first layer's inputs and outputs are scaled by factors of each net. Those of the inputs start as random signs,
    by which the nets differ from the start.

    Args:
        size: of the inputs.
        num_nets: number of nets.
        hidden: sizes of the layers, at least one.
        dropouts: after each layer.
        activation: of each layer.
        init: of the weights.
        batch_norm: after each layer, of each net by itself.
    """

    def __init__(
        self,
        size: int,
        num_nets: int,
        hidden: Sequence[int],
        dropouts: Sequence[float],
        activation: Activation,
        init: Initial,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        shared = initialised_linear(size, hidden[0], init)
        self.weight = nn.Parameter(shared.weight.detach().T.contiguous())
        self.signs = nn.Parameter(torch.randint(0, 2, (num_nets, 1, size)) * 2.0 - 1.0)
        self.scales = nn.Parameter(torch.ones(num_nets, 1, hidden[0]))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList([_uniform((num_nets, 1, hidden[0]), size)])
        for inputs, outputs in itertools.pairwise(hidden):
            own = [initialised_linear(inputs, outputs, init).weight.detach().T for _ in range(num_nets)]
            self.weights.append(nn.Parameter(torch.stack(own)))
            self.biases.append(_uniform((num_nets, 1, outputs), inputs))
        self.activation = ACTIVATIONS[activation]()
        self.norms = nn.ModuleList([nn.BatchNorm1d(num_nets * width) for width in hidden] if batch_norm else [])
        self.dropouts = nn.ModuleList([Dropout(dropout) for dropout in dropouts])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return shape [nets, rows, width of the last layer] for inputs of shape [rows, size]."""
        hidden = (inputs * self.signs) @ self.weight * self.scales + self.biases[0]
        hidden = self._finish(hidden, 0)
        for layer, weight in enumerate(self.weights, start=1):
            hidden = self._finish(torch.baddbmm(self.biases[layer], hidden, weight), layer)
        return hidden

    def _finish(self, hidden: Tensor, layer: int) -> Tensor:
        hidden = self.activation(hidden)
        if len(self.norms):
            nets, _, width = hidden.shape
            by_row = hidden.transpose(0, 1).reshape(-1, nets * width)
            hidden = self.norms[layer](by_row).reshape(-1, nets, width).transpose(0, 1)
        dropped: Tensor = self.dropouts[layer](hidden)
        return dropped


class PackedHead(nn.Module):
    """The last layer of each net, in float32 (see `Head`); in evaluation mode the nets' outputs are averaged.

    Args:
        size: of the inputs.
        num_nets: number of nets.
        dims: sizes from the data, with the target, which knows how its outputs are averaged.
        y_range: outputs lie within, by a sigmoid.
    """

    def __init__(self, size: int, num_nets: int, dims: TabularDims, y_range: OutputRange | None) -> None:
        super().__init__()
        assert dims.target is not None
        self.target: Target = dims.target
        self.range = output_range(dims, y_range)
        with torch.no_grad():
            self.weight = nn.Parameter(_uniform((num_nets, size, dims.num_outputs), size).mul_(0.1))
        self.bias = nn.Parameter(torch.full((num_nets, 1, dims.num_outputs), start_bias(dims, self.range)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the nets' outputs, [nets, rows] or [nets, rows, outputs]; in evaluation mode one for each row."""
        with without_autocast(hidden.device):
            outputs = torch.baddbmm(self.bias, hidden.float(), self.weight)
            outputs = scaled(outputs, self.range)
            return outputs if self.training else self.target.average(outputs.unbind(0))


def _uniform(shape: tuple[int, int, int], inputs: int) -> nn.Parameter:
    """Return values within ±1 / sqrt(inputs), as torch starts a layer's biases."""
    return nn.Parameter((torch.rand(shape) * 2 - 1) / math.sqrt(max(1, inputs)))
