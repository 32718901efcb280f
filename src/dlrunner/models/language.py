"""AWD-LSTM as a language model: what comes next, with the embedding for a decoder.

Source: Merity, Keskar and Socher, Regularizing and optimizing LSTM language models, 2017,
https://arxiv.org/abs/1708.02182; fast.ai deep learning part 1, lesson 4 (2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dlrunner.encoder_file import Cell, EncoderSizes
from dlrunner.errors import ConfigError
from dlrunner.metrics import exact_dtype
from dlrunner.model import Model, Outputs
from dlrunner.models import softmax as full_softmax
from dlrunner.models.adaptive_softmax import AdaptiveSoftmax
from dlrunner.models.pointer import Memory, Pointer
from dlrunner.models.recurrent import LockedDropout, RecurrentEncoder, State, detached
from dlrunner.ranges import Count, Natural, NonNegative, Probability


@dataclass(frozen=True)
class LanguageDims:
    """Sizes that a language model takes from the data."""

    num_words: int


class LanguageModel(Model):
    """The next word from all words before; its hidden state is carried from batch to batch.

    The decoder's weights are the embedding's: one tensor, so it has one place in the optimizer too.

    Args:
        dims: the size of the vocabulary.
        embedding, hidden, layers: sizes.
        cell: lstm, gru or qrnn.
        softmax: full, or adaptive: several times as fast on a CPU, for large vocabularies (see `AdaptiveSoftmax`).
        cutoffs: of the adaptive softmax: the first word of each cluster of rarer words; by default 2,000 and 10,000.
        pointer: to how many of the last words; its probabilities are mixed with the softmax's (see `Pointer`); 0: none.
        embedding_dropout, input_dropout, weight_dropout, hidden_dropout: see `RecurrentEncoder`.
        output_dropout: of what the decoder sees.
        alpha: AR: this times the mean square of the dropped outputs is added to the training loss.
        beta: TAR: this times the mean square of the outputs' steps from word to word.
    """

    stateful: ClassVar[bool] = True

    def __init__(
        self,
        dims: LanguageDims,
        *,
        embedding: Count = 200,
        hidden: Count = 500,
        layers: Count = 3,
        cell: Cell = "lstm",
        softmax: Literal["full", "adaptive"] = "full",
        cutoffs: list[Count] | None = None,
        pointer: Natural = 0,
        embedding_dropout: Probability = 0.02,
        input_dropout: Probability = 0.05,
        weight_dropout: Probability = 0.1,
        hidden_dropout: Probability = 0.05,
        output_dropout: Probability = 0.05,
        alpha: NonNegative = 2.0,
        beta: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = RecurrentEncoder(
            dims.num_words,
            EncoderSizes(embedding, hidden, layers, cell),
            embedding_dropout=embedding_dropout,
            input_dropout=input_dropout,
            weight_dropout=weight_dropout,
            hidden_dropout=hidden_dropout,
        )
        self.output_dropout = LockedDropout(output_dropout)
        self.bias = nn.Parameter(torch.zeros(dims.num_words))
        self.clusters = AdaptiveSoftmax(dims.num_words, embedding, cutoffs) if softmax == "adaptive" else None
        self.pointer = Pointer(pointer, embedding) if pointer else None
        self.alpha, self.beta = alpha, beta

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse cutoffs that do not increase, and those of a full softmax."""
        cutoffs = settings.get("cutoffs")  # a subclass may have none
        if cutoffs is not None and settings.get("softmax") == "full":
            raise ConfigError("model.cutoffs: a full softmax has none; add model.softmax=adaptive")
        if cutoffs is not None and (not cutoffs or any(after <= before for before, after in pairwise(cutoffs))):
            raise ConfigError(f"model.cutoffs: must be one or more increasing numbers, not {cutoffs}")

    def forward(
        self,
        words: Tensor,
        following: Tensor,
        known: Tensor | None = None,
        of_all: Tensor | None = None,
        *,
        hidden: State | None = None,
    ) -> Outputs:
        """Return the loss of each known next word, or, in training, their mean with AR and TAR as the penalty.

        Only the mean can be differentiated without keeping the probabilities of all words for all steps.

        Args:
            words: [steps, batch].
            following: the next word of each, -1 where there is none; the same shape.
            known: where there is one, as places in the flattened `following`; None: everywhere.
            of_all: `following` of all columns, where these are one process's shard of them and not all is known.
            hidden: the state after the words before; None at the start of a stream.
        """
        outputs, state = self.encoder(words, hidden)
        dropped = self.output_dropout(outputs)
        penalty = regularisation(outputs, dropped, self.alpha, self.beta) if self.training else None
        if known is not None and of_all is not None and penalty is not None:  # weighed as the loss; a mean over all
            known_fraction = max(1, len(known)) / (of_all >= 0).sum()
            penalty = penalty * (following.numel() / of_all.numel()) / known_fraction
        loss, memory = self.decode(dropped, words, following, known, hidden)
        return Outputs(loss, detached([*state, *memory]), penalty)

    def decode(
        self, states: Tensor, words: Tensor, following: Tensor, known: Tensor | None, hidden: State | None
    ) -> tuple[Tensor, State]:
        """Return the loss of each known next word, or in training their mean, and what comes after the encoder's state.

        Args:
            states: the encoder's outputs, [steps, batch, embedding].
            words, following, known, hidden: as in `forward`.
        """
        chosen, targets = states.flatten(0, 1), following.flatten().long()
        if known is not None:
            chosen, targets = chosen[known], targets[known]
        decoder, softmax = (chosen, self.encoder.embedding.weight, self.bias, targets), self.clusters or full_softmax
        if self.pointer is None:
            return softmax.mean_loss(*decoder) if self.training else softmax.token_losses(*decoder), []
        memory = self.pointer.remember(states, words, None if hidden is None else Memory(*hidden[-1]))
        pointed, gate = (each.flatten() for each in self.pointer.of_words(states, memory, following))
        if known is not None:
            pointed, gate = pointed[known], gate[known]
        if self.training:
            loss = softmax.mixed_loss(*decoder, gate, pointed)
        else:
            loss = -torch.logaddexp(gate - softmax.token_losses(*decoder), pointed)
        return loss, [self.pointer.kept(memory)]

    def next_words(self, words: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the log-probabilities of the next word, [batch, words], and the state.

        Args:
            words: [steps, batch]; the word after the last step is predicted.
            state: after the words before; None at the beginning.
        """
        outputs, after = self.encoder(words, state)
        if self.clusters is not None:
            logs = self.clusters.log_probabilities(outputs[-1], self.encoder.embedding.weight, self.bias)
        else:
            logits = torch.addmm(self.bias, outputs[-1], self.encoder.embedding.weight.t())
            logs = torch.log_softmax(logits.float(), dim=1)
        if self.pointer is None:
            return logs, after
        memory = self.pointer.remember(outputs, words, None if state is None else Memory(*state[-1]))
        places, gate, following = self.pointer(outputs[-1:], memory)
        pointed = torch.zeros_like(logs).scatter_add(1, following.long(), places[:, 0].exp().to(logs.dtype))
        mixed = torch.stack([pointed.log(), gate[:, 0] + logs]).logsumexp(dim=0)
        return mixed, [*after, self.pointer.kept(memory)]

    def graph(self) -> nn.Module:
        """`next_words` of a prompt; the state is not returned."""
        return NextWords(self)

    @classmethod
    def groups_of(cls, settings: Mapping[str, Any]) -> Sequence[str] | None:
        """Return a name for each recurrent layer, then `words`; None of a subclass without such a setting."""
        if not isinstance(layers := settings.get("layers"), int):
            return None
        return [*(f"layer {number + 1}" for number in range(layers)), "words"]

    def layer_groups(self) -> Sequence[nn.Module]:
        """Each recurrent layer, then the words: embedding and decoder at once, and the pointer."""
        words = nn.Module()
        words.embedding, words.bias = self.encoder.embedding, self.bias
        if self.clusters is not None:
            words.clusters = self.clusters
        if self.pointer is not None:
            words.pointer = self.pointer
        return [*self.encoder.layers, words]


class NextWords(nn.Module):
    """The probabilities of the next word after prompts: the module exported to ONNX.

    Args:
        model: the language model.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        model.encoder.check_graph()
        self.model = model

    def forward(self, words: Tensor) -> Tensor:
        """Return the log-probabilities of the next word, [batch, words], for words, [steps, batch]."""
        return self.model.next_words(words, None)[0]


def regularisation(outputs: Tensor, dropped: Tensor, alpha: float, beta: float) -> Tensor | None:
    """Return α · mean(dropped²) + β · mean((outputs_t - outputs_{t-1})²); None where both are 0.

    Args:
        outputs: of the last layer, [steps, batch, width].
        dropped: the same after dropout.
        alpha, beta: of activations and of their steps.
    """
    penalty = None
    if alpha:
        penalty = alpha * dropped.float().square().mean()
    if beta and len(outputs) > 1:
        steps = beta * (outputs[1:] - outputs[:-1]).float().square().mean()
        penalty = steps if penalty is None else penalty + steps
    return penalty


def average_losses(losses: Sequence[Tensor]) -> Tensor:
    """Return the losses of the averaged probabilities from the losses of each model; float64 keeps losses near 0."""
    stacked = torch.stack(list(losses))
    return (math.log(len(losses)) - torch.logsumexp(-stacked.to(exact_dtype(stacked)), dim=0)).to(stacked.dtype)
