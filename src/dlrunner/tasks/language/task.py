"""Language models: the next word of a long stream of texts, judged by the perplexity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.batching import epoch_order
from dlrunner.data.core.splitting import TEST, TRAIN, VALID
from dlrunner.data.texts.dataset import TextSource, TextTable
from dlrunner.data.texts.loaders import StreamLoader, num_steps, piece_lengths, stream_of
from dlrunner.data.texts.tokens import END
from dlrunner.data_audit import SplitStatistics
from dlrunner.encoder_file import FILE, Encoder
from dlrunner.errors import DataError
from dlrunner.metrics import Metric, Perplexity
from dlrunner.model import Model
from dlrunner.models.language import LanguageDims
from dlrunner.plot import Plot
from dlrunner.ranges import Count, Natural
from dlrunner.schedules import Phase
from dlrunner.task import AnnotatedText, Batch, Loader, Split, Task
from dlrunner.tasks.common.outputs import average_losses
from dlrunner.tasks.language.generation import Generator
from dlrunner.tasks.language.predictor import LanguagePredictor, language_models
from dlrunner.tasks.text.audit import of_texts

PARTS: dict[Split, int] = {"train": TRAIN, "valid": VALID, "test": TEST}


class LanguageModeling(Task):
    """All texts as one stream, read side by side in columns; judged by the perplexity of all validation words.

    Args:
        data: the texts.
        batch_size: columns that the training stream is cut into.
        seed: of the pieces' lengths, and of the order of the texts where they are shuffled.
        device: where the streams live (4 bytes a word).
        bptt: words in a piece: gradients go back as far.
        vary_bptt: pieces have lengths around bptt, drawn anew in each epoch (see `piece_lengths`).
        scale_rate: the learning rate of a piece is scaled by its length / bptt, as AWD-LSTM's authors did; the
            lesson's library did not.
        shuffle: the texts come in another order in each epoch.
        valid_batch_size: columns that the validation stream is cut into; each begins without a context.
        ngram: the report puts n-grams of this length, smoothed after Kneser and Ney, beside the model; 0: none.
    """

    predictor = LanguagePredictor

    def __init__(
        self,
        data: TextSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        bptt: Count = 70,
        vary_bptt: bool = True,
        scale_rate: bool = False,
        shuffle: bool = False,
        valid_batch_size: Count = 64,
        ngram: Natural = 4,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.bptt, self.vary_bptt, self.scale_rate, self.shuffle = bptt, vary_bptt, scale_rate, shuffle
        self.valid_batch_size, self.ngram = valid_batch_size, ngram

    @cached_property
    def table(self) -> TextTable:
        """The texts, read once."""
        table = self.data.read()
        for part, split, columns in ((TRAIN, "train", self.batch_size), (VALID, "valid", self.valid_batch_size)):
            words = self._stream_length(table, part)
            if words <= columns * self.bptt:
                name, fitting = "batch_size" if split == "train" else "task.valid_batch_size", (words - 1) // self.bptt
                raise DataError(
                    f"the {split} texts have {words:,} words: too few for {columns} columns of pieces of {self.bptt}; "
                    + (f"{name}={fitting} would do" if fitting else f"try {name}=1 and a smaller task.bptt")
                )
        if (table.split == TEST).any() and not table.lengths[table.rows(TEST)].any():
            raise DataError("the test texts hold no words")
        return table

    @staticmethod
    def _stream_length(table: TextTable, part: int) -> int:
        rows = table.rows(part)
        return int(table.lengths[rows].sum()) + len(rows)

    @property
    def dims(self) -> LanguageDims:
        """The size of the vocabulary."""
        return LanguageDims(len(self.table.vocabulary.words))

    def has_test(self) -> bool:
        """Tell whether some texts are kept for the end."""
        return bool((self.table.split == TEST).any())

    def _stream(self, split: Split, epoch: int = 0) -> Tensor:
        if split != "train" or not self.shuffle:
            return self._streams[split]
        table, rows = self.table, self.table.rows(TRAIN)
        rows = rows[epoch_order(len(rows), self.seed, epoch).numpy()]
        return stream_of(table.codes, table.ends, rows, table.vocabulary.end or 0).to(self.device)

    @cached_property
    def _streams(self) -> dict[Split, Tensor]:
        table, end = self.table, self.table.vocabulary.end or 0
        parts = {split: table.rows(part) for split, part in PARTS.items()}
        return {
            split: stream_of(table.codes, table.ends, rows, end).to(self.device)
            for split, rows in parts.items()
            if len(rows)
        }

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Pieces of the stream on the device."""
        stream, train = self._stream(split, epoch), split == "train"
        columns = self.batch_size if train else min(self.valid_batch_size, len(stream) - 1)
        lengths = piece_lengths(num_steps(stream, columns), self.bptt, self.vary_bptt and train, self.seed, epoch)
        return StreamLoader(stream, columns, lengths, self.bptt if train and self.scale_rate else None, start)

    def shard(self, batch: Batch, index: int, count: int) -> Batch:
        """Some of the columns, the same ones in every batch: their state is carried on.

        Where not all next words are known, the model is told those of all columns.
        """
        words, following, *known = batch.inputs
        if words.shape[1] < count:
            return batch
        words, part = (each.tensor_split(count, dim=1)[index].contiguous() for each in (words, following))
        if not known:
            return Batch((words, part), part.reshape(-1), batch.rate)
        places = (part.reshape(-1) >= 0).nonzero().reshape(-1)  # waits for a GPU: in the last pieces of an epoch only
        return Batch((words, part, places, following), part.reshape(-1)[places], batch.rate)

    def shard_order(self, batch: Batch, count: int) -> Tensor:
        """The words of a batch come step by step, those of a share too."""
        _, following, *known = batch.inputs
        places = torch.arange(following.numel(), device=following.device)
        if known:
            places = torch.full_like(places, -1).index_copy(0, known[0], places[: len(known[0])])
        order = torch.cat([part.flatten() for part in places.view_as(following).tensor_split(count, dim=1)])
        return order[order >= 0] if known else order

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of what the model gives: the loss of each word, or already their mean (see `LanguageModel`)."""
        return outputs.float().mean()

    def metrics(self) -> Mapping[str, Metric]:
        """The perplexity."""
        return {"perplexity": Perplexity()}

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average the chances that the members give to each word."""
        return average_losses(outputs)

    def sizes(self) -> Mapping[str, int]:
        """Words of the streams, the marks of their ends included, texts, and known words."""
        table = self.table
        parts = [split for split, part in PARTS.items() if (table.split == part).any()]
        return {
            **{f"{split} words": self._stream_length(table, PARTS[split]) for split in parts},
            **{f"{split} texts": len(table.rows(PARTS[split])) for split in parts},
            "vocabulary": len(table.vocabulary.words),
        }

    def notes(self) -> Sequence[str]:
        """How the texts were read."""
        return self.table.notes

    def split_statistics(self) -> SplitStatistics:
        """Whole texts and the vocabulary: that two texts share a phrase is how language is."""
        return of_texts(self.table, words_are_judged=True)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """The perplexity of smoothed n-grams with the same vocabulary, on the same words."""
        if not self.ngram:
            return {}
        from dlrunner.models.ngram import KneserNey

        train, valid = (self._stream(split).cpu().numpy() for split in ("train", "valid"))
        order = min(self.ngram, len(train) - 1)
        model = KneserNey(train, len(self.table.vocabulary.words), order)
        losses = -model.log_probabilities(valid)
        name = f"{order}-grams, interpolated Kneser-Ney"
        return {name: {"valid/loss": float(losses.mean()), "valid/perplexity": float(np.exp(losses.mean()))}}

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """The loss by how frequent a word is, and by how far into a text it stands."""
        from dlrunner.reporting.plots import text as looks

        words, losses = self._valid_words(), self._losses_in_order(outputs)
        train = self._stream("train").cpu().numpy()
        counts = np.bincount(train, minlength=len(self.table.vocabulary.words))
        ends = np.flatnonzero(words == self.table.vocabulary.end)
        starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(1, dtype=np.int64)
        places = np.arange(len(words)) - starts[np.searchsorted(starts, np.arange(len(words)), side="right") - 1]
        return [
            looks.loss_by_frequency(counts[words[1:]], losses, folder),
            looks.loss_by_place(places[1:], losses, folder),
        ]

    def annotated_texts(self, models: Sequence[Model], outputs: Tensor) -> Mapping[str, Sequence[AnnotatedText]]:
        """A validation text with the words that surprised the model, and what it writes by itself."""
        vocabulary = self.table.vocabulary
        words, losses = self._valid_words(), self._losses_in_order(outputs)
        ends = np.concatenate([[0], np.flatnonzero(words == vocabulary.end), [len(words)]])
        chosen = next((text for text in np.flatnonzero(np.diff(ends) > 20) if text), int(np.diff(ends).argmax()))
        first = int(ends[chosen]) + 1
        stop = min(int(ends[chosen + 1]), first + 150)
        surprise = losses[first - 1 : stop - 1]
        shown = [vocabulary.words[code] for code in words[first:stop]]
        title = f"perplexity of these {len(shown)} words: {math.exp(surprise.mean()):.1f}"
        generator = Generator(language_models(models), vocabulary)
        texts = {
            "the likeliest words, one by one": generator.text_after([END], 60),
            "drawn at random (top-p 0.9, seed 0)": generator.text_after([END], 60, top_p=0.9, seed=0),
        }
        samples = [AnnotatedText(title, text.split(" "), []) for title, text in texts.items()]
        return {
            "A validation text: the darker, the less expected": [AnnotatedText(title, shown, (surprise / 10).tolist())],
            "What the model writes": samples,
        }

    def _valid_words(self) -> NDArray[np.int64]:
        return self._stream("valid").cpu().numpy().astype(np.int64)

    def _losses_in_order(self, outputs: Tensor) -> NDArray[np.float64]:
        """Return the loss of each validation word but the first, in the order of the stream."""
        stream = self._stream("valid")
        columns = min(self.valid_batch_size, len(stream) - 1)
        steps = num_steps(stream, columns)
        place = np.arange(steps * columns).reshape(columns, steps).T.reshape(-1)  # of each output, pieces in a row
        losses = np.empty(len(stream) - 1)
        losses[place[place < len(losses)]] = outputs.double().cpu().numpy()
        return losses

    def artifacts(self, models: Sequence[Model], phase: Phase) -> Mapping[str, bytes]:
        """The vocabulary, and the first model's encoder for classifiers of texts."""
        table, model = self.table, language_models(models)[0]
        weights = model.encoder.state_dict()
        encoder = Encoder(weights, model.encoder.sizes, table.vocabulary.words, table.tokenizer, table.lower)
        return {"vocabulary.json": table.vocabulary.to_json().encode(), FILE: encoder.content()}

    def state(self, phase: Phase) -> dict[str, Any]:
        """The words and how texts become words."""
        table = self.table
        return {
            "words": list(table.vocabulary.words),
            "tokenizer": table.tokenizer,
            "lower": table.lower,
            "column": table.column,
        }
