"""Language modeling: predict the next word of a stream of texts; monitors the perplexity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.batching import epoch_order
from dlrunner.data.core.splitting import PART_CODES, TEST, TRAIN, VALID
from dlrunner.data.texts.dataset import TextSource
from dlrunner.data.texts.loaders import StreamLoader, num_steps, piece_lengths, places_in_stream, stream_of
from dlrunner.data.texts.table import TextTable
from dlrunner.data.texts.tokens import END
from dlrunner.data_audit import SplitStatistics
from dlrunner.encoder_file import FILE, Encoder
from dlrunner.errors import DataError
from dlrunner.metrics import Metric, Perplexity
from dlrunner.model import Model
from dlrunner.models.language import LanguageDims, average_losses
from dlrunner.plot import Plot
from dlrunner.ranges import Count, Natural
from dlrunner.schedules import Phase
from dlrunner.system.precision import autocast_dtype
from dlrunner.task import AnnotatedText, Batch, Loader, Split, Task
from dlrunner.tasks.language.defaults import recommended_for
from dlrunner.tasks.language.generation import Generator
from dlrunner.tasks.language.interpolation import interpolations
from dlrunner.tasks.language.predictor import LanguagePredictor, language_models
from dlrunner.tasks.text.audit import text_statistics

TUNING_WORDS = 250_000
"""Of the training texts, at most, that the weights of an interpolation are chosen on."""

MOST_COUNTED = 30_000_000
"""Training words of the n-gram baseline, which takes 120 bytes for each."""


class LanguageModeling(Task):
    """All texts as one stream, cut into parallel columns; monitors the perplexity of all validation words.

    Args:
        data: the texts.
        batch_size: columns of the training stream.
        seed: of the sequence lengths, and of the shuffling of texts.
        device: where the streams are kept (4 bytes per word).
        bptt: sequence length in words for truncated backpropagation through time.
        vary_bptt: draw sequence lengths around bptt, anew in each epoch (see `piece_lengths`).
        scale_rate: scale the learning rate of a sequence by its length / bptt, as AWD-LSTM's authors did; the
            lesson's library did not.
        shuffle: shuffle the texts in each epoch.
        valid_batch_size: columns of the validation stream; each starts without context. `auto` is decided by
            `recommended`.
        ngram: order of the Kneser-Ney n-gram baseline; 0: none.
    """

    predictor = LanguagePredictor
    auto_settings = ("batch_size", "epochs", "task.valid_batch_size")

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
        valid_batch_size: Count | Literal["auto"] = 64,
        ngram: Natural = 4,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.bptt, self.vary_bptt, self.scale_rate, self.shuffle = bptt, vary_bptt, scale_rate, shuffle
        self.valid_batch_size = 1 if valid_batch_size == "auto" else valid_batch_size
        self.ngram = ngram

    def recommended(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Choose by the number of words (see `recommended_for`)."""
        table = self.data.read()
        train, valid = (self._stream_length(table, part) for part in (TRAIN, VALID))
        return recommended_for(train, valid, self.bptt)

    @cached_property
    def table(self) -> TextTable:
        """The texts, read once."""
        table = self.data.read()
        for part, split, columns in ((TRAIN, "train", self.batch_size), (VALID, "valid", self.valid_batch_size)):
            words = self._stream_length(table, part)
            if words <= columns * self.bptt:
                name, fitting = "batch_size" if split == "train" else "task.valid_batch_size", (words - 1) // self.bptt
                raise DataError(
                    f"the {split} texts have {words:,} words: too few for {columns} columns of {self.bptt} words; "
                    + (f"try {name}={fitting}" if fitting else f"try {name}=1 and a smaller task.bptt")
                )
        if (table.split == TEST).any() and not table.lengths[table.rows(TEST)].any():
            raise DataError("the test texts contain no words")
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
        """Return whether there are test texts."""
        return bool((self.table.split == TEST).any())

    def _stream(self, split: Split, epoch: int = 0) -> Tensor:
        if split != "train" or not self.shuffle:
            return self._streams[split]
        table, rows = self.table, self.table.rows(TRAIN)
        rows = rows[epoch_order(len(rows), self.seed, epoch).numpy()]
        return stream_of(table.codes, table.ends, rows, table.vocabulary.end or 0).to(self.device)

    @cached_property
    def _streams(self) -> dict[str, Tensor]:
        table, end = self.table, self.table.vocabulary.end or 0
        parts = {split: table.rows(part) for split, part in PART_CODES.items()}
        return {
            split: stream_of(table.codes, table.ends, rows, end).to(self.device)
            for split, rows in parts.items()
            if len(rows)
        }

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Sequences of the stream, on the device."""
        stream, train = self._stream(split, epoch), split == "train"
        columns = self.batch_size if train else min(self.valid_batch_size, len(stream) - 1)
        lengths = piece_lengths(num_steps(stream, columns), self.bptt, self.vary_bptt and train, self.seed, epoch)
        return StreamLoader(stream, columns, lengths, self.bptt if train and self.scale_rate else None, start)

    def shard(self, batch: Batch, index: int, count: int) -> Batch:
        """Return the columns of a rank, the same ones in every batch, since the hidden state is carried on.

        Where not all next words are known, the batch contains those of all columns.
        """
        words, following, *known = batch.inputs
        if words.shape[1] < count:
            return batch
        words, part = (each.tensor_split(count, dim=1)[index].contiguous() for each in (words, following))
        if not known:
            return Batch((words, part), part.reshape(-1), batch.rate)
        positions = (
            (part.reshape(-1) >= 0).nonzero().reshape(-1)
        )  # waits for a GPU, but only in the last sequences of an epoch
        return Batch((words, part, positions, following), part.reshape(-1)[positions], batch.rate)

    def shard_order(self, batch: Batch, count: int) -> Tensor:
        """Return the positions of the words: batches and shards are both ordered step by step."""
        _, following, *known = batch.inputs
        positions = torch.arange(following.numel(), device=following.device)
        if known:
            positions = torch.full_like(positions, -1).index_copy(0, known[0], positions[: len(known[0])])
        order = torch.cat([part.flatten() for part in positions.view_as(following).tensor_split(count, dim=1)])
        return order[order >= 0] if known else order

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of the outputs: the loss of each word, or already the mean loss (see `LanguageModel`)."""
        return outputs.float().mean()

    def purpose(self) -> str:
        """Continue the texts."""
        return "Continue the texts"

    def metrics(self) -> Mapping[str, Metric]:
        """The perplexity."""
        return {"perplexity": Perplexity()}

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        """Average the probabilities of each word over the members."""
        return average_losses(outputs)

    def sizes(self) -> Mapping[str, int]:
        """Words (end tokens included) and texts per split, and the vocabulary."""
        table = self.table
        parts = [split for split, part in PART_CODES.items() if (table.split == part).any()]
        return {
            **{f"{split} words": self._stream_length(table, PART_CODES[split]) for split in parts},
            **{f"{split} texts": len(table.rows(PART_CODES[split])) for split in parts},
            "vocabulary": len(table.vocabulary.words),
        }

    def notes(self) -> Sequence[str]:
        """Notes on reading the texts."""
        return self.table.notes

    def split_statistics(self) -> SplitStatistics:
        """Digests of complete texts and the vocabulary; shared phrases are normal in language."""
        return text_statistics(self.table, count_words=True)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """The perplexity of a Kneser-Ney n-gram model with the same vocabulary, on the same words."""
        if not self.ngram:
            return {}
        from dlrunner.models.ngram import KneserNey

        train, valid = (self._stream(split).cpu().numpy() for split in ("train", "valid"))
        of_words = f", of the first {MOST_COUNTED:,} words" if len(train) > MOST_COUNTED else ""
        train = train[:MOST_COUNTED]
        order = min(self.ngram, len(train) - 1)
        model = KneserNey(train, len(self.table.vocabulary.words), order)
        losses = -model.log_probabilities(valid)
        name = f"{order}-grams, interpolated Kneser-Ney{of_words}"
        return {name: {"valid/loss": float(losses.mean()), "valid/perplexity": float(np.exp(losses.mean()))}}

    def interpolated(self, models: Sequence[Model], window: int, order: int) -> tuple[pd.DataFrame, str]:
        """Return perplexities with a neural cache and n-grams next to that of the models, and what they were tuned on.

        Weights are chosen on the validation texts, where there are test texts, which are then reported. Otherwise they
        are chosen on the last training texts, which the n-grams are not counted in; the models know them, so that the
        cache and the n-grams get too little weight rather than too much.

        Args:
            models: in evaluation mode, on the device of the task.
            window: words that the cache remembers; 0: no cache.
            order: of the n-grams; 0: none.
        """
        split: Split = "test" if self.has_test() else "valid"
        counted, reported = self._streams["train"], self._streams[split]
        if self.has_test():
            tuning = self._streams["valid"]
        else:
            counted, tuning = self._parted(min(TUNING_WORDS, len(counted) // 10))
        found, theta = interpolations(
            language_models(models),
            counted=counted,
            tuning=tuning,
            reported=reported,
            num_columns=min(self.valid_batch_size, len(reported) - 1),
            bptt=self.bptt,
            window=window,
            order=order,
        )
        rows = [
            {
                "metric": "_".join([f"{split}/perplexity", *each.components[1:]]),
                "value": each.perplexity,
                **{f"weight_{name}": round(w, 4) for name, w in zip(each.components, each.weights, strict=True)},
            }
            for each in found
        ]
        texts = "validation" if self.has_test() else "last training"
        note = f"weights{'' if theta is None else f' and theta = {theta:g}'} chosen on the {texts} texts"
        return pd.DataFrame(rows), f"{note}, {len(tuning):,} words"

    def _parted(self, num_words: int) -> tuple[Tensor, Tensor]:
        """Return the stream of the first training texts and that of the last ones, about so many words.

        They are parted after the text that ends last before these words, if that is near; else inside a text.
        """
        stream, end = self._streams["train"], self.table.vocabulary.end or 0
        cut = len(stream) - num_words
        first = max(0, cut - num_words // 2)
        ends = (stream[first:cut] == end).nonzero()
        place = first + int(ends[-1]) + 1 if len(ends) else cut
        return stream[:place], stream[place:]

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """The loss by word frequency, and by position in the text."""
        from dlrunner.reporting.plots import text as text_plots

        words, losses = self._valid_words(), self._losses_in_order(outputs)
        train = self._stream("train").cpu().numpy()
        counts = np.bincount(train, minlength=len(self.table.vocabulary.words))
        ends = np.flatnonzero(words == self.table.vocabulary.end)
        starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else np.zeros(1, dtype=np.int64)
        positions = np.arange(len(words)) - starts[np.searchsorted(starts, np.arange(len(words)), side="right") - 1]
        return [
            text_plots.loss_by_frequency(counts[words[1:]], losses, folder),
            text_plots.loss_by_place(positions[1:], losses, folder),
        ]

    def annotated_texts(self, models: Sequence[Model], outputs: Tensor) -> Mapping[str, Sequence[AnnotatedText]]:
        """A validation text with the loss of each word, and generated samples."""
        vocabulary = self.table.vocabulary
        words, losses = self._valid_words(), self._losses_in_order(outputs)
        ends = np.concatenate([[0], np.flatnonzero(words == vocabulary.end), [len(words)]])
        chosen = next((text for text in np.flatnonzero(np.diff(ends) > 20) if text), int(np.diff(ends).argmax()))
        first = int(ends[chosen]) + 1
        stop = min(int(ends[chosen + 1]), first + 150)
        surprise = losses[first - 1 : stop - 1]
        visible = [vocabulary.words[code] for code in words[first:stop]]
        title = f"perplexity of these {len(visible)} words: {math.exp(surprise.mean()):.1f}"
        generator = Generator(language_models(models), vocabulary)
        texts = {
            "greedy decoding": generator.generate([END], 60),
            "sampling (top-p 0.9, seed 0)": generator.generate([END], 60, top_p=0.9, seed=0),
        }
        samples = [AnnotatedText(title, text.split(" "), []) for title, text in texts.items()]
        return {
            "A validation text: darker words are less expected": [
                AnnotatedText(title, visible, (surprise / 10).tolist())
            ],
            "Generated texts": samples,
        }

    def _valid_words(self) -> NDArray[np.int64]:
        return self._stream("valid").cpu().numpy().astype(np.int64)

    def _losses_in_order(self, outputs: Tensor) -> NDArray[np.float64]:
        """Return the loss of each validation word except the first, in stream order."""
        stream = self._stream("valid")
        losses = np.empty(len(stream) - 1)
        places = places_in_stream(len(stream), min(self.valid_batch_size, len(stream) - 1))
        losses[places] = outputs.double().cpu().numpy()
        return losses

    def artifacts(self, models: Sequence[Model], phase: Phase) -> Mapping[str, bytes]:
        """The vocabulary, and the first model's encoder for text classifiers, in bfloat16 if that computed with it."""
        table, model = self.table, language_models(models)[0]
        narrow = autocast_dtype(self.device) == torch.bfloat16
        weights = {name: each.bfloat16() if narrow else each for name, each in model.encoder.state_dict().items()}
        encoder = Encoder(weights, model.encoder.sizes, table.vocabulary.words, table.tokenizer, table.lower)
        return {"vocabulary.json": table.vocabulary.to_json().encode(), FILE: encoder.content()}

    def state(self, phase: Phase) -> dict[str, Any]:
        """Vocabulary and tokenizer."""
        table = self.table
        return {
            "words": list(table.vocabulary.words),
            "tokenizer": table.tokenizer,
            "lower": table.lower,
            "column": table.column,
            "files": dict(self.data.file_settings()),
        }
