"""A classifier of texts on the encoder of a language model: last state, maximum and mean of its outputs.

Source: Howard and Ruder, Universal language model fine-tuning for text classification, 2018,
https://arxiv.org/abs/1801.06146; fast.ai deep learning part 1, lesson 4 (2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrunner.encoder_file import Cell, Encoder, EncoderSizes, digest_of_words, encoder_file
from dlrunner.errors import ConfigError
from dlrunner.model import Model, Outputs
from dlrunner.models.dropout import Dropout
from dlrunner.models.recurrent import RecurrentEncoder, State, detached
from dlrunner.ranges import Count, NonNegative, Probability, Text

Size = Count | Literal["auto"] | None
"""Decided by the task where it is auto; null: the encoder's."""


@dataclass(frozen=True)
class TextDims:
    """Sizes that a text classifier takes from the data."""

    num_words: int
    num_outputs: int
    """1 for two classes, whose logit it is."""
    vocabulary: str
    """The digest of the words: an encoder must have been trained with the same ones."""
    encoder: EncoderSizes | None = None
    """Sizes of the encoder whose vocabulary it is."""


class TextClassifier(Model):
    """Class scores of whole texts, however long.

    A text is read in pieces of `bptt` words: gradients do not go from piece to piece, and in a batch whose longest
    text has more than `max_len` words only the last `max_len` places have any. What is pooled is pooled over the
    whole text, and what pads a batch changes nothing.

    Args:
        dims: the vocabulary and the outputs.
        encoder: a run of a language model, or its encoder.pt; without it the weights start at random.
        embedding, hidden, layers, cell: sizes; by default the encoder's, or 200, 500, 3 and lstm.
        embedding_dropout, input_dropout, weight_dropout, hidden_dropout: see `RecurrentEncoder`.
        output_dropout: before each layer of the head.
        head: sizes of the layers between the pooled outputs and the classes.
        bptt: words in a piece.
        max_len: the last so many words of a batch have gradients, rounded up to whole pieces.
        alpha, beta: of AR and TAR (see `LanguageModel`).
    """

    def __init__(
        self,
        dims: TextDims,
        *,
        encoder: Text | None = None,
        embedding: Size = None,
        hidden: Size = None,
        layers: Size = None,
        cell: Cell | None = None,
        embedding_dropout: Probability = 0.05,
        input_dropout: Probability = 0.4,
        weight_dropout: Probability = 0.5,
        hidden_dropout: Probability = 0.3,
        output_dropout: Probability = 0.1,
        head: list[Count] = [],  # noqa: B006
        bptt: Count = 70,
        max_len: Count = 1500,
        alpha: NonNegative = 2.0,
        beta: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        given = dims.encoder or EncoderSizes(200, 500, 3, "lstm")
        width, inner, depth = (None if each == "auto" else each for each in (embedding, hidden, layers))
        sizes = EncoderSizes(width or given.embedding, inner or given.hidden, depth or given.layers, cell or given.cell)
        if dims.encoder and sizes != dims.encoder:
            raise ConfigError(f"model.encoder: it has {dims.encoder}; requested: {sizes}")
        self.encoder_file, self.vocabulary, self.bptt, self.max_len = encoder, dims.vocabulary, bptt, max_len
        self.encoder = RecurrentEncoder(
            dims.num_words,
            sizes,
            embedding_dropout=embedding_dropout,
            input_dropout=input_dropout,
            weight_dropout=weight_dropout,
            hidden_dropout=hidden_dropout,
        )
        widths = [3 * sizes.embedding, *head, dims.num_outputs]
        modules: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            modules += [nn.ReLU()] if index else []
            modules += [nn.BatchNorm1d(before), Dropout(output_dropout), nn.Linear(before, after)]
        self.head = nn.Sequential(*modules)
        self.alpha, self.beta = alpha, beta

    @classmethod
    def files(cls, settings: Mapping[str, Any], data_dir: Path) -> Sequence[Path]:
        """Return the encoder's file; that of `data.encoder`, whose vocabulary is taken, may be another."""
        return [] if settings.get("encoder") is None else [encoder_file(Path(settings["encoder"]))]

    def load_pretrained(self) -> Sequence[str]:
        """Load the encoder's weights.

        Raises:
            ConfigError: it was trained with other words, or has other sizes.
        """
        if self.encoder_file is None:
            return []
        found = Encoder.read(Path(self.encoder_file))
        if digest_of_words(found.words) != self.vocabulary:
            raise ConfigError(
                f"model.encoder: {self.encoder_file} was trained with another vocabulary ({len(found.words):,} words, "
                f"{digest_of_words(found.words)}) than the texts were read with ({self.vocabulary}); "
                "data.encoder must name the same encoder"
            )
        if found.sizes != self.encoder.sizes:
            raise ConfigError(f"model.encoder: it has {found.sizes}; requested: {self.encoder.sizes}")
        self.encoder.load_state_dict(dict(found.weights))
        return []

    def forward(self, words: Tensor, lengths: Tensor, of_all: Tensor | None = None) -> Outputs:
        """Return class scores, [batch] for two classes, else [batch, classes], and in training AR and TAR.

        The penalty is a mean over the words of the batch; what pads it has no part in it.

        Args:
            words: [batch, steps], padded at the end.
            lengths: words of each text, [batch], 1 or more.
            of_all: words of each text of the whole batch, where these are one process's shard of it.
        """
        pooled, penalty = self.pooled(words, lengths, of_all)
        scores: Tensor = self.head(pooled)
        return Outputs(scores.squeeze(1) if scores.shape[1] == 1 else scores, penalty=penalty)

    def pooled(self, words: Tensor, lengths: Tensor, of_all: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return last output, maximum and mean over each text, [batch, 3 · embedding], and the penalty."""
        order = lengths.argsort(descending=True, stable=True)
        pooled, penalty = self._pooled(words[order], lengths[order], of_all)
        return pooled[order.argsort()], penalty

    def _pooled(self, words: Tensor, lengths: Tensor, of_all: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Do as `pooled`, for texts of which the longest come first."""
        state: State | None = None
        dropped = self.encoder.dropped_weights()
        last = highest = total = previous = None
        regularisation = _Regularisation()
        for start, piece in self._pieces(words):
            # Texts that have ended are left out of what follows, but for one: a process whose texts are shorter than
            # those of others reads as many pieces, for they wait for its gradients.
            alive = max(1, _num_active(lengths, start))
            if state is not None and alive < state[0][0].shape[1]:
                state = [tuple(part[:, :alive].contiguous() for part in layer) for layer in state]
            with torch.set_grad_enabled(torch.is_grad_enabled() and start + len(piece) > words.shape[1] - self.max_len):
                outputs, state = self.encoder.run(piece[:, :alive].contiguous(), state, dropped)
                state = detached(state)
                outputs = outputs.float()
                places = torch.arange(start, start + len(piece), device=words.device)[:, None]
                inside = (places < lengths[:alive])[:, :, None]
                if self.training and outputs.requires_grad:
                    regularisation.add(start, outputs, previous, inside)
                previous = outputs[-1]
                maximum = outputs.masked_fill(~inside, -torch.inf).amax(dim=0)
                ending = (outputs * (places == lengths[:alive] - 1)[:, :, None]).sum(dim=0)
                summed = (outputs * inside).sum(dim=0)
                if last is None or highest is None or total is None:
                    last, highest, total = ending, maximum, summed
                else:
                    last = torch.cat([last[:alive] + ending, last[alive:]])
                    highest = torch.cat([torch.maximum(highest[:alive], maximum), highest[alive:]])
                    total = torch.cat([total[:alive] + summed, total[alive:]])
        assert last is not None
        assert highest is not None
        assert total is not None
        penalty = regularisation.mean(self.alpha, self.beta, lengths, of_all)
        return torch.cat([last, highest, total / lengths[:, None]], dim=1), penalty

    def graph(self) -> nn.Module:
        """The classifier that reads texts at once, not in pieces: the same answers, within rounding."""
        return WholeTexts(self)

    @classmethod
    def groups_of(cls, settings: Mapping[str, Any]) -> Sequence[str] | None:
        """Return names, where the number of layers is set: else it is the encoder's, or follows from the data."""
        if not isinstance(layers := settings.get("layers"), int):
            return None
        return ["embedding", *(f"layer {number + 1}" for number in range(layers)), "head"]

    def layer_groups(self) -> Sequence[nn.Module]:
        """The embedding, each recurrent layer, the head."""
        return [self.encoder.embedding, *self.encoder.layers, self.head]

    def _pieces(self, words: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield pieces, [steps, batch], and where they start: the first one is the short one."""
        steps = words.shape[1]
        start, end = 0, steps % self.bptt or self.bptt
        while start < steps:
            yield start, words[:, start:end].t().contiguous()
            start, end = end, end + self.bptt


def _num_active(lengths: Tensor, start: int) -> int:
    """Return how many texts go on at a place; on a GPU, which would have to wait for their number, all of them."""
    return int((lengths > start).sum()) if lengths.device.type == "cpu" else len(lengths)


class _Regularisation:
    """AR and TAR of texts that are read in pieces: sums over words that have gradients, then means."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._squares: Tensor | float = 0.0
        self._steps: Tensor | float = 0.0
        self._width = 0

    def add(self, start: int, outputs: Tensor, previous: Tensor | None, inside: Tensor) -> None:
        """Take in a piece.

        Args:
            start: its first place.
            outputs: [steps, texts, width].
            previous: the outputs before it, [texts or more, width]; None at the beginning of the texts.
            inside: which places belong to their text, [steps, texts, 1].
        """
        self._first, self._width = start if self._first is None else self._first, outputs.shape[2]
        self._squares = self._squares + (outputs.square() * inside).sum()
        joined = outputs if previous is None else torch.cat([previous[None, : outputs.shape[1]], outputs])
        steps = (joined[1:] - joined[:-1]).square()
        self._steps = self._steps + (steps * inside[len(outputs) - len(steps) :]).sum()

    def mean(self, alpha: float, beta: float, lengths: Tensor, of_all: Tensor | None) -> Tensor | None:
        """Return α · mean of squares + β · mean of squared steps; None where nothing has gradients, or both are 0.

        Args:
            alpha, beta: of AR and TAR.
            lengths: of the texts.
            of_all: of all texts, where these are one process's shard: the means are over the words of all, and what is
                returned is weighed by texts, as the loss is.
        """
        if self._first is None or not (alpha or beta):
            return None
        counted, first = lengths if of_all is None else of_all, self._first
        words, steps = (
            (counted - place).clamp(min=0).sum().clamp(min=1) * self._width for place in (first, max(1, first))
        )
        found = alpha * self._squares / words + beta * self._steps / steps
        assert isinstance(found, Tensor)
        return found if of_all is None else found * (len(of_all) / len(lengths))


class WholeTexts(nn.Module):
    """A classifier without its loop over pieces, which only training needs: what an ONNX graph is made of.

    Args:
        model: the classifier.
    """

    def __init__(self, model: TextClassifier) -> None:
        super().__init__()
        model.encoder.check_graph()
        self.encoder, self.head = model.encoder, model.head

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return class scores (see `TextClassifier.forward`)."""
        outputs, _ = self.encoder(words.t())
        places = torch.arange(words.shape[1], device=words.device)[:, None]
        inside = (places < lengths)[:, :, None]
        last = (outputs * (places == lengths - 1)[:, :, None]).sum(dim=0)
        highest = outputs.masked_fill(~inside, -torch.inf).amax(dim=0)
        mean = (outputs * inside).sum(dim=0) / lengths[:, None]
        scores: Tensor = self.head(torch.cat([last, highest, mean], dim=1))
        return scores.squeeze(1) if scores.shape[1] == 1 else scores
