"""Text classification: one class or several labels per text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.splitting import PART_CODES, TEST, TRAIN, UNUSED, split_sizes
from dlrunner.data.core.targets import Target
from dlrunner.data.texts.dataset import TextSource
from dlrunner.data.texts.loaders import TextLoader, similar_lengths
from dlrunner.data.texts.table import TextTable
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.files.atomic import atomic_file
from dlrunner.files.spreadsheet import as_csv
from dlrunner.model import Model
from dlrunner.models.text import TextDims
from dlrunner.plot import Plot
from dlrunner.prediction_table import with_distinct_names
from dlrunner.ranges import Count
from dlrunner.schedules import Phase
from dlrunner.task import AnnotatedText, Batch, Loader, Split
from dlrunner.tasks.class_baselines import frequencies
from dlrunner.tasks.classification import Classification, ClassWeights, absent_classes, class_plots
from dlrunner.tasks.text.audit import text_statistics
from dlrunner.tasks.text.defaults import recommended_for
from dlrunner.tasks.text.predictor import TextPredictor, word_weights

MOST_MISTAKES = 50
"""Validation texts that are written to the run folder, the most confident mistakes first."""


class TextClassification(Classification):
    """Texts in batches of similar length; monitors accuracy, or F1 for labels.

    Args:
        data: texts with their classes.
        batch_size: training texts per batch.
        seed: of the shuffling.
        device: where the texts are kept (4 bytes per word).
        metrics: the first one is monitored; by default those of the target's kind.
        class_weights: `balanced`, or weights by class, of the texts in the loss, of all splits.
        baseline: compare with class frequencies, and a logistic regression on tf-idf of words and bigrams.
        valid_batch_size: validation texts per batch; affects only the speed.
    """

    predictor = TextPredictor
    auto_settings = ("batch_size", "epochs", "model.embedding", "model.hidden", "model.layers")

    def __init__(
        self,
        data: TextSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        metrics: list[str] | None = None,
        class_weights: ClassWeights | None = None,
        baseline: bool = True,
        valid_batch_size: Count = 64,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.metric_names, self.class_weights = metrics, class_weights
        self.baseline, self.valid_batch_size = baseline, valid_batch_size

    def recommended(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Choose by the number of training texts (see `recommended_for`)."""
        table = self.data.read()
        return recommended_for(len(table.rows(TRAIN)), has_encoder=table.encoder is not None)

    @cached_property
    def table(self) -> TextTable:
        """The texts, read once."""
        table = self.data.read()
        if table.target is None:
            raise ConfigError("data.labels: must be true: text classification needs classes")
        self.check_target(table.target, "texts")
        return table

    @property
    def target(self) -> Target:
        """The target of the texts."""
        target = self.table.target
        assert target is not None
        return target

    @property
    def dims(self) -> TextDims:
        """Sizes of the vocabulary and the target, and the encoder that the vocabulary belongs to."""
        table = self.table
        return TextDims(len(table.vocabulary.words), self.target.num_outputs, table.vocabulary.digest, table.encoder)

    def has_test(self) -> bool:
        """Return whether there are test texts."""
        return bool((self.table.split == TEST).any())

    @cached_property
    def _codes(self) -> Tensor:
        return torch.from_numpy(self.table.codes).to(self.device)

    @cached_property
    def _targets(self) -> Tensor:
        assert self.table.values is not None
        return self.target.encode(self.table.values).to(self.device)

    def train_values(self) -> NDArray[Any]:
        """Return the classes or labels of the training texts."""
        assert self.table.values is not None
        return self.table.values[self.rows("train")]

    def valid_values(self) -> NDArray[Any]:
        """Return the classes or labels of the validation texts, the longest first."""
        assert self.table.values is not None
        return self.table.values[self.rows("valid")]

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the row numbers of a split in batching order: training rows as stored, others the longest first."""
        rows = self.table.rows(PART_CODES[split])
        return rows if split == "train" else rows[np.argsort(-self.table.lengths[rows], kind="stable")]

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Texts of similar length."""
        rows = self.rows(split)
        if split == "train":
            found = similar_lengths(self.table.lengths[rows], self.batch_size, self.seed, epoch)
            batches = [rows[batch] for batch in found]
        else:
            batches = np.array_split(rows, range(self.valid_batch_size, len(rows), self.valid_batch_size))
        return TextLoader(self._codes, self.table.ends, self._targets, batches, start)

    def shard(self, batch: Batch, index: int, count: int) -> Batch:
        """Some of the texts; the model gets the lengths of all."""
        part = super().shard(batch, index, count)
        return part if part is batch else replace(part, inputs=(*part.inputs, batch.inputs[1]))

    def purpose(self) -> str:
        """Classify the texts."""
        return "Classify the texts"

    def sizes(self) -> Mapping[str, int]:
        """Texts per split, vocabulary and classes."""
        sizes = split_sizes(self.table.split)
        return {**sizes, "vocabulary": len(self.table.vocabulary.words), "classes": len(self.target.classes)}

    def notes(self) -> Sequence[str]:
        """Notes on reading the texts, and on imbalanced classes."""
        notes = [*self.table.notes, *absent_classes(self.target, self.train_values())]
        if self.table.encoder is None:
            notes.append("no encoder: model=text_classifier model.encoder=RUN starts from a language model's weights")
        if self.target.has_one_class:
            values = self.table.values
            assert values is not None
            counts = np.bincount(values[self.table.rows(TRAIN)].astype(int), minlength=len(self.target.classes))
            most = counts.argmax()
            if counts[most] > 0.8 * counts.sum():
                fraction = f"{counts[most] / counts.sum():.0%}"
                notes.append(
                    f"{fraction} of the training texts are {self.target.classes[most]}: "
                    "a constant prediction has this accuracy"
                )
        return notes

    def split_statistics(self) -> SplitStatistics:
        """Digests of the texts, and the vocabulary."""
        return text_statistics(self.table, count_words=False)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Metrics of class frequencies, and of a logistic regression on tf-idf of words and bigrams."""
        if not self.baseline:
            return {}
        from dlrunner.tasks.text.baselines import text_baselines

        splits: Sequence[Split] = ("train", "valid", "test") if self.has_test() else ("train", "valid")
        rows = {split: self.rows(split) for split in splits}
        encoded = self._targets.cpu()
        targets = {split: encoded[torch.from_numpy(each)] for split, each in rows.items()}
        return text_baselines(self.table, self.target, rows, targets, self.metrics, self._weights)

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """Names of the validation texts, or a table's columns, with true and predicted classes, in the data's order."""
        rows, outputs = self._in_order(outputs)
        if self.table.row_columns is not None:
            names = self.table.row_columns.loc[rows].reset_index(drop=True)
        else:
            names = pd.DataFrame({"text": [self.table.names[row] for row in rows]})
        found = pd.concat([names, self._truth(rows), self.target.answers(outputs, "prediction")], axis=1)
        return with_distinct_names(found)

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Confusion matrix and calibration; precision and recall; ROC and precision-recall curves."""
        if self.target.has_one_class:
            rows, in_order = self._in_order(outputs)
            with atomic_file(folder.parent / "confident_mistakes.csv", sync=False) as file:
                file.write(as_csv(self._mistakes(in_order, rows))[0])
        return class_plots(self.target, self.valid_values(), outputs, folder)

    def annotated_texts(self, models: Sequence[Model], outputs: Tensor) -> Mapping[str, Sequence[AnnotatedText]]:
        """The most confident mistakes and some correct predictions, with the importance of each word."""
        if not self.target.has_one_class:
            return {}
        rows, outputs = self._in_order(outputs)
        values = self.table.values
        assert values is not None
        probs = self.target.probabilities(outputs)
        predicted = probs.argmax(axis=1)
        confidence = probs.max(axis=1)
        wrong = predicted != values[rows]
        order = np.argsort(-confidence, kind="stable")
        medium = self.table.lengths[rows[order]] <= 300
        right = order[~wrong[order] & medium]
        groups = {
            "The most confident mistakes": order[wrong[order]][:5],
            "Correct predictions": right[:: max(1, len(right) // 4)][:4],
        }
        names = self.target.classes
        return {
            f"{title}: orange words support the prediction, blue words oppose it": [
                AnnotatedText(
                    f"{self.table.names[rows[index]]}: {names[values[rows[index]]]}, "
                    f"predicted {names[predicted[index]]} ({confidence[index]:.1%})",
                    *self.scaled_weights(models, self.table.document(rows[index]), int(predicted[index])),
                )
                for index in indices
            ]
            for title, indices in groups.items()
            if len(indices)
        }

    def scaled_weights(
        self, models: Sequence[Model], codes: NDArray[np.int32], label: int
    ) -> tuple[list[str], list[float]]:
        """Return a text's words and their importance for a class, scaled to a maximum of 1 in absolute value."""
        weights = word_weights(models, self.target, codes, label)
        weights /= np.abs(weights).max(initial=1e-9)
        return [self.table.vocabulary.words[code] for code in codes], weights.tolist()

    def _mistakes(self, outputs: Tensor, rows: NDArray[np.int64]) -> pd.DataFrame:
        probs = self.target.probabilities(outputs)
        values = self.table.values
        assert values is not None
        confidence, predicted = probs.max(axis=1), probs.argmax(axis=1)
        worst = np.argsort(-confidence, kind="stable")
        worst = worst[predicted[worst] != values[rows[worst]]][:MOST_MISTAKES]
        words = self.table.vocabulary.words
        return pd.DataFrame(
            {
                "text": [self.table.names[row] for row in rows[worst]],
                "truth": [self.target.classes[v] for v in values[rows[worst]].astype(int)],
                "prediction": [self.target.classes[v] for v in predicted[worst]],
                "probability": confidence[worst].round(4),
                "words": [" ".join(words[code] for code in self.table.document(row)) for row in rows[worst]],
            }
        )

    def _truth(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        values = self.table.values
        assert values is not None
        return self.target.truth(values[rows])

    def _in_order(self, outputs: Tensor) -> tuple[NDArray[np.int64], Tensor]:
        """Return the validation rows and their outputs in the order of the data."""
        rows = self.rows("valid")
        order = np.argsort(rows)
        return rows[order], outputs.detach().float().cpu()[torch.from_numpy(order)]

    def _text_columns(self) -> list[str]:
        """Return the columns next to predictions that hold texts, such as ids: they keep every character."""
        columns = self.table.row_columns
        if columns is None:
            return ["text"]
        return [str(name) for name, kind in columns.dtypes.items() if pd.api.types.is_string_dtype(kind)]

    def state(self, phase: Phase) -> dict[str, Any]:
        """Vocabulary, target and tokenizer, and the outputs for texts without words, unless the run has such texts."""
        table, rows = self.table, self.table.rows(TRAIN)
        is_known = bool((table.lengths[table.split != UNUSED] == 0).any())  # else predictions.csv has another answer
        train = self._targets.cpu()[torch.from_numpy(rows)]
        return {
            "words": list(table.vocabulary.words),
            "tokenizer": table.tokenizer,
            "lower": table.lower,
            "target": self.target.state(),
            "encoder": None if table.encoder is None else asdict(table.encoder),
            "column": table.column,
            "text_columns": self._text_columns(),
            "files": dict(self.data.file_settings()),
            "max_tokens": table.max_tokens,
            "without_words": None if is_known else frequencies(self.target, train),
        }
