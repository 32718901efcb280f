"""A pointer to the words of a text so far, mixed with a softmax: names and rare words come back within a text.

p(w) = g · softmax(w) + Σ aⱼ over the places j that w followed; the weights a and g sum to 1 and are one softmax, of
the similarities of a query and the earlier states, and of the sentinel that stands for g. They are learned with the
net, unlike those of a neural cache, and the pointer's part is larger where the net itself is unsure.

Source: Merity, Xiong, Bradbury and Socher, Pointer sentinel mixture models, 2016, https://arxiv.org/abs/1609.07843.
Unlike there, every place of the window is seen at each step, whatever the length of the sequences.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlrunner.system.precision import without_autocast

NEVER = -1e30
"""A log-probability of zero whose gradients are numbers."""
FORGETS = 0.2
"""How often a column begins again without a memory in training: the softmax has to know what the pointer knows too.

Otherwise it relies on a full window, which a text alone, or the beginning of a validation column, does not have.
"""
FORGOTTEN = -1


class Memory(NamedTuple):
    """The last places of each column: the states after their words, [places, batch, width], and the words."""

    states: Tensor
    words: Tensor


class Pointer(nn.Module):
    """How likely the next word is the one that followed an earlier place, for each place, or one of the softmax.

    Args:
        window: of how many places before the last word.
        width: of the states.
    """

    def __init__(self, window: int, width: int) -> None:
        super().__init__()
        self.window = window
        self.query = nn.Linear(width, width)
        self.sentinel = nn.Linear(width, 1)
        nn.init.zeros_(self.sentinel.weight)
        nn.init.constant_(self.sentinel.bias, math.log(window))  # half of all with a full window of equal places

    def remember(self, states: Tensor, words: Tensor, before: Memory | None) -> Memory:
        """Return the places that the steps see, and themselves.

        Args:
            states: after each word, [steps, batch, width].
            words: [steps, batch].
            before: what `kept` returned at the steps before; None at the start of a stream.
        """
        if before is None:
            return Memory(states, words)
        earlier = before.words
        if self.training:
            earlier = earlier.masked_fill(torch.rand(words.shape[1], device=words.device) < FORGETS, FORGOTTEN)
        return Memory(torch.cat([before.states, states]), torch.cat([earlier, words]))

    def kept(self, memory: Memory) -> Memory:
        """Return what the steps after those of a memory need of it."""
        return Memory(*(each[-self.window :].clone() for each in memory))  # a view would keep the whole stream

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-weights of the places, [batch, steps, places], and of the softmax, [batch, steps, 1].

        The third is the word that followed each place, [batch, places].

        Args:
            queries: the last states of the memory, [steps, batch, width].
            memory: what `remember` returned.
        """
        states, words = memory
        with without_autocast(queries.device):
            queries, states = (each if each.dtype == torch.float64 else each.float() for each in (queries, states))
            similarity = torch.einsum("tbe,pbe->btp", _linear(self.query, queries), states) / math.sqrt(states.shape[2])
            places = torch.arange(states.shape[0], device=states.device)
            distance = places[-queries.shape[0] :, None] - places
            seen = ((distance > 0) & (distance <= self.window))[None] & (words != FORGOTTEN).t()[:, None]
            sentinel = _linear(self.sentinel, queries).transpose(0, 1)
            logs = torch.cat([similarity.masked_fill(~seen, NEVER), sentinel], dim=2).log_softmax(dim=2)
        following = torch.cat([words[1:], words[-1:]])  # nothing has followed the last one, which no step sees
        return logs[:, :, :-1], logs[:, :, -1:], following.t()

    def of_words(self, queries: Tensor, memory: Memory, next_words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability that the pointer has of each next word, and the softmax's weight, [steps, batch].

        Args:
            queries: as in `forward`.
            memory: as in `forward`.
            next_words: [steps, batch].
        """
        places, softmax, following = self(queries, memory)
        other = following[:, None, :] != next_words.t()[:, :, None]
        return places.masked_fill(other, NEVER).logsumexp(dim=2).t(), softmax.squeeze(2).t()


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Return the layer's outputs in the inputs' type: the weights may have been cast to a narrower one."""
    return nn.functional.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))
