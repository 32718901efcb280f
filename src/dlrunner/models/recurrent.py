"""The encoder of AWD-LSTM: an embedding and recurrent layers, with its five dropouts.

Source: Merity, Keskar and Socher, Regularizing and optimizing LSTM language models, 2017,
https://arxiv.org/abs/1708.02182; QRNN: Bradbury et al., Quasi-recurrent neural networks, 2016,
https://arxiv.org/abs/1611.01576.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrunner.encoder_file import Cell, EncoderSizes
from dlrunner.errors import ConfigError
from dlrunner.system.precision import emulates_bfloat16, without_autocast

State = list[tuple[Tensor, ...]]
"""The state of each layer: (h, c) of an LSTM, (h,) of a GRU, (h, last input) of a QRNN."""


class RecurrentEncoder(nn.Module):
    """Words in, one vector per word out.

    Args:
        num_words: rows of the embedding.
        sizes: the last layer is as wide as the embedding, so that a decoder can share its weights.
        embedding_dropout: whole words are dropped, wherever they stand in the batch.
        input_dropout: of the embedded words.
        hidden_dropout: between the layers.
        weight_dropout: of the weights from state to state: the same ones at all time steps of a batch.
    """

    def __init__(
        self,
        num_words: int,
        sizes: EncoderSizes,
        *,
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.sizes, self.embedding_dropout = sizes, embedding_dropout
        self.embedding = nn.Embedding(num_words, sizes.embedding)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.layers = nn.ModuleList(
            RecurrentLayer(
                sizes.cell,
                sizes.embedding if index == 0 else sizes.hidden,
                sizes.embedding if index == sizes.layers - 1 else sizes.hidden,
                weight_dropout,
            )
            for index in range(sizes.layers)
        )
        self.input_dropout, self.hidden_dropout = LockedDropout(input_dropout), LockedDropout(hidden_dropout)

    def forward(self, words: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the last layer's outputs, [steps, batch, embedding], and the state after the last step.

        Args:
            words: [steps, batch].
            state: of the layers before the first step; zero without it.
        """
        return self.run(words, state, self.dropped_weights())

    def check_graph(self) -> None:
        """Refuse cells that no ONNX graph can say for texts of any length.

        Raises:
            ConfigError: the cell is a QRNN.
        """
        if self.sizes.cell == "qrnn":
            raise ConfigError("a qrnn loops over the words in Python: its graph would accept texts of one length only")

    def dropped_weights(self) -> list[dict[str, Tensor]]:
        """Return the weights of this batch, some of them dropped in training, for each layer."""
        return [layer.dropped_weights() for layer in self._layers()]

    def _layers(self) -> list[RecurrentLayer]:
        return [cast(RecurrentLayer, layer) for layer in self.layers]

    def run(self, words: Tensor, state: State | None, dropped: Sequence[dict[str, Tensor]]) -> tuple[Tensor, State]:
        """Do as `forward`, with weights that were dropped before: one draw for all pieces of a text."""
        outputs = self.embedding(words)
        if self.training and self.embedding_dropout:
            kept = torch.empty(self.embedding.num_embeddings, 1, device=words.device)
            kept.bernoulli_(1 - self.embedding_dropout).div_(1 - self.embedding_dropout)
            outputs = outputs * F.embedding(words, kept)
        outputs = self.input_dropout(outputs)
        after: State = []
        for index, layer in enumerate(self._layers()):
            outputs, final = layer(outputs, None if state is None else state[index], dropped[index])
            after.append(final)
            if index < len(self.layers) - 1:
                outputs = self.hidden_dropout(outputs)
        return outputs, after


class RecurrentLayer(nn.Module):
    """One recurrent layer whose weights from state to state are dropped in training.

    The dropped weights take the place of the layer's own for one call (`torch.func.functional_call`), so that
    torch's fused implementations stay in use.

    Args:
        cell: lstm, gru, or qrnn.
        input_size, hidden_size: widths.
        dropout: of the weights; of a QRNN, which has none from state to state, of those from its inputs.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        kinds: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "qrnn": QRNN}
        self.cell: nn.Module = kinds[cell](input_size, hidden_size)
        self.kind, self.dropout = cell, dropout
        self.dropped = "weight" if cell == "qrnn" else "weight_hh_l0"

    def dropped_weights(self) -> dict[str, Tensor]:
        """Return the weights of this call, some of them dropped in training."""
        weight = self.cell.get_parameter(self.dropped)
        return {self.dropped: F.dropout(weight, self.dropout)} if self.training and self.dropout else {}

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, ...] | None, dropped: dict[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return outputs, [steps, batch, hidden], and the state after the last step.

        A CPU without bfloat16 computes them in float32: torch's LSTM needs AVX-512 for less.
        """
        if emulates_bfloat16(inputs.device):
            with without_autocast(inputs.device):
                return self._outputs(inputs.float(), state, dropped)
        return self._outputs(inputs, state, dropped)

    def _outputs(
        self, inputs: Tensor, state: tuple[Tensor, ...] | None, dropped: dict[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        initial: Any = state[0] if state is not None and self.kind == "gru" else state
        if dropped:
            outputs, after = torch.func.functional_call(self.cell, dropped, (inputs, initial))
        else:
            outputs, after = self.cell(inputs, initial)
        return outputs, (after,) if self.kind == "gru" else tuple(after)


class QRNN(nn.Module):
    """A quasi-recurrent layer: gates from this word and the one before, and a state that only they weigh.

    z = tanh, f and o = σ of the gates; h_t = f_t · h_{t-1} + (1 - f_t) · z_t; the output is o_t · h_t.
    All matrices are multiplied for all steps at once; what is left for each step is one weighted sum.

    Args:
        input_size, hidden_size: widths.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        start = nn.Linear(2 * input_size, 3 * hidden_size)
        self.weight, self.bias = start.weight, start.bias

    def forward(self, inputs: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs, [steps, batch, hidden], and (state, last input), each [1, batch, width]."""
        hidden_size = len(self.bias) // 3
        if state is None:
            state = (inputs.new_zeros(1, inputs.shape[1], hidden_size), inputs.new_zeros(1, *inputs.shape[1:]))
        before = torch.cat([state[1].to(inputs.dtype), inputs[:-1]])
        gates = F.linear(torch.cat([inputs, before], dim=2), self.weight, self.bias)
        candidate, forget, output = gates.chunk(3, dim=2)
        forget, candidate = forget.float().sigmoid(), candidate.float().tanh()
        weighed = (1 - forget) * candidate
        hidden, states = state[0][0].float(), []
        for gate, update in zip(forget, weighed, strict=True):
            hidden = torch.addcmul(update, gate, hidden)
            states.append(hidden)
        outputs = output.float().sigmoid() * torch.stack(states)
        return outputs.to(gates.dtype), (hidden[None], inputs[-1:])


class LockedDropout(nn.Module):
    """Dropout with one mask for all time steps: [1, batch, width].

    Args:
        p: the probability of dropping.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, the dropped ones 0 and the others larger."""
        if not self.training or not self.p:
            return values
        mask = torch.empty(1, *values.shape[1:], device=values.device, dtype=values.dtype)
        return values * mask.bernoulli_(1 - self.p).div_(1 - self.p)


def detached(state: State) -> State:
    """Return a state that carries numbers on, and no gradients."""
    return [tuple(part.detach() for part in layer) for layer in state]
