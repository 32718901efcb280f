"""Texts in, a class or labels out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.splitting import TEST, TRAIN, VALID
from dlrunner.data.core.targets import Target
from dlrunner.data.texts.dataset import TextSource, TextTable
from dlrunner.data.texts.loaders import TextLoader, similar_lengths
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import ConfigError
from dlrunner.files.atomic import atomic_file
from dlrunner.files.spreadsheet import as_csv
from dlrunner.model import Model
from dlrunner.models.text import TextDims
from dlrunner.plot import Plot
from dlrunner.ranges import Count
from dlrunner.schedules import Phase
from dlrunner.task import AnnotatedText, Batch, Loader, Split
from dlrunner.tasks.common.classification import Classification
from dlrunner.tasks.common.outputs import probabilities, with_distinct_names
from dlrunner.tasks.text.audit import of_texts
from dlrunner.tasks.text.predictor import TextPredictor, word_weights

PARTS: dict[Split, int] = {"train": TRAIN, "valid": VALID, "test": TEST}


class TextClassification(Classification):
    """Whole texts in batches of similar length; judged by accuracy, or by F1 for labels.

    Args:
        data: the texts with their classes.
        batch_size: training texts in a batch.
        seed: of the order of the texts.
        device: where the texts live (4 bytes a word).
        metrics: the first one judges; by default those of the target's kind.
        baseline: a logistic regression on the texts' words and pairs of words (tf-idf) is put beside the model.
        valid_batch_size: validation texts at once; it changes nothing but the speed.
    """

    predictor = TextPredictor

    def __init__(
        self,
        data: TextSource,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        metrics: list[str] | None = None,
        baseline: bool = True,
        valid_batch_size: Count = 64,
    ) -> None:
        self.data, self.batch_size, self.seed, self.device = data, batch_size, seed, device
        self.metric_names, self.baseline, self.valid_batch_size = metrics, baseline, valid_batch_size

    @cached_property
    def table(self) -> TextTable:
        """The texts, read once."""
        table = self.data.read()
        if table.target is None:
            raise ConfigError("data.labels: must be true: this task sorts texts into classes")
        if min(self.batch_size, len(table.rows(TRAIN))) < 2:
            raise ConfigError("batch_size: the classifier's batch norm needs two training texts in a batch, or more")
        self.check_metrics(table.target, "texts")
        return table

    @property
    def target(self) -> Target:
        """The classes."""
        target = self.table.target
        assert target is not None
        return target

    @property
    def dims(self) -> TextDims:
        """The vocabulary, the classes, and the encoder whose vocabulary it is."""
        table = self.table
        return TextDims(len(table.vocabulary.words), self.target.num_outputs, table.vocabulary.digest, table.encoder)

    def has_test(self) -> bool:
        """Tell whether some texts are kept for the end."""
        return bool((self.table.split == TEST).any())

    @cached_property
    def _codes(self) -> Tensor:
        return torch.from_numpy(self.table.codes).to(self.device)

    @cached_property
    def _targets(self) -> Tensor:
        assert self.table.values is not None
        return self.target.encode(self.table.values).to(self.device)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the texts of a split in the order in which they are batched: the longest first, or as they stand."""
        rows = self.table.rows(PARTS[split])
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
        """Some of the texts; the model is told the lengths of all."""
        part = super().shard(batch, index, count)
        return part if part is batch else replace(part, inputs=(*part.inputs, batch.inputs[1]))

    def sizes(self) -> Mapping[str, int]:
        """Texts of each split, known words and classes."""
        found: dict[str, int] = {split: len(self.table.rows(part)) for split, part in PARTS.items()}
        sizes = {split: count for split, count in found.items() if count}
        return {**sizes, "vocabulary": len(self.table.vocabulary.words), "classes": len(self.target.classes)}

    def notes(self) -> Sequence[str]:
        """How the texts were read, and how even the classes are."""
        notes = list(self.table.notes)
        if self.table.encoder is None:
            notes.append("no encoder: the weights start at random (model.encoder=RUN takes those of a language model)")
        if self.target.has_one_class:
            values = self.table.values
            assert values is not None
            counts = np.bincount(values[self.table.rows(TRAIN)].astype(int), minlength=len(self.target.classes))
            most = counts.argmax()
            if counts[most] > 0.8 * counts.sum():
                share = f"{counts[most] / counts.sum():.0%}"
                notes.append(
                    f"{share} of the training texts are {self.target.classes[most]}: so much is right by guessing"
                )
        return notes

    def split_statistics(self) -> SplitStatistics:
        """The texts and the vocabulary."""
        return of_texts(self.table, words_are_judged=False)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """The metrics of a logistic regression on tf-idf of words and pairs of words, on the same texts."""
        if not (self.baseline and self.target.has_one_class):
            return {}
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        table, values = self.table, self.table.values
        assert values is not None
        names = np.array(table.vocabulary.words, dtype=object)
        vectorizer = TfidfVectorizer(
            tokenizer=_itself, preprocessor=_itself, token_pattern=None, lowercase=False, ngram_range=(1, 2),
            min_df=2, sublinear_tf=True,
        )  # fmt: skip
        train = table.rows(TRAIN)
        if len(np.unique(values[train])) < 2:  # there is nothing to tell apart
            return {}
        try:
            inputs = vectorizer.fit_transform([names[table.document(row)] for row in train])
        except ValueError:  # no word occurs twice
            return {}
        model = LogisticRegression(C=10.0, max_iter=300).fit(inputs, values[train])
        found = {}
        for split in ("valid", "test") if self.has_test() else ("valid",):
            rows = self.rows(split)
            words = vectorizer.transform([names[table.document(row)] for row in rows])
            # Classes that no training text has are never said.
            scores = torch.full((len(rows), len(self.target.classes)), -1e9)
            scores[:, model.classes_.astype(int)] = torch.from_numpy(model.predict_log_proba(words)).float()
            outputs = scores[:, 1] - scores[:, 0] if self.target.kind == "binary" else scores
            for name, metric in self.metrics().items():
                metric.update(outputs, self._targets[torch.from_numpy(rows)].cpu())
                found[f"{split}/{name}"] = metric.compute()
        return {"logistic regression on tf-idf of words and pairs": found}

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """The validation texts' names with what they are and what they were taken for, in the order of the data."""
        rows, outputs = self._in_order(outputs)
        names = pd.DataFrame({"text": [self.table.names[row] for row in rows]})
        found = pd.concat([names, self._truth(rows), self.target.answers(outputs, "prediction")], axis=1)
        return with_distinct_names(found)

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Which classes are taken for which, and how far to trust the probabilities; labels by precision and recall."""
        from dlrunner.reporting.plots import classes as looks

        rows, outputs = self._in_order(outputs)
        values, names = self.table.values, [str(each) for each in self.target.classes]
        assert values is not None
        if not self.target.has_one_class:
            return [looks.labels(values[rows], probabilities(self.target, outputs), names, folder)]
        worst = self._mistakes(outputs, rows)
        with atomic_file(folder.parent / "confident_mistakes.csv", sync=False) as file:
            file.write(as_csv(worst)[0])
        return [looks.classes(values[rows], probabilities(self.target, outputs), names, folder)]

    def annotated_texts(self, models: Sequence[Model], outputs: Tensor) -> Mapping[str, Sequence[AnnotatedText]]:
        """The most confident mistakes, and some texts that were understood, with the words that mattered."""
        if not self.target.has_one_class:
            return {}
        rows, outputs = self._in_order(outputs)
        values = self.table.values
        assert values is not None
        chances = probabilities(self.target, outputs)
        said = chances.argmax(axis=1)
        sure = chances.max(axis=1)
        wrong = said != values[rows]
        order = np.argsort(-sure, kind="stable")
        medium = self.table.lengths[rows[order]] <= 300
        right = order[~wrong[order] & medium]
        groups = {
            "The most confident mistakes": order[wrong[order]][:5],
            "Texts that were understood": right[:: max(1, len(right) // 4)][:4],
        }
        names = self.target.classes
        return {
            f"{title}: orange words speak for the answer, blue ones against it": [
                AnnotatedText(
                    f"{self.table.names[rows[place]]}: {names[values[rows[place]]]}, "
                    f"taken for {names[said[place]]} ({sure[place]:.1%})",
                    *self.weighed(models, self.table.document(rows[place]), int(said[place])),
                )
                for place in places
            ]
            for title, places in groups.items()
            if len(places)
        }

    def weighed(self, models: Sequence[Model], codes: NDArray[np.int32], answer: int) -> tuple[list[str], list[float]]:
        """Return a text's words and how much each speaks for an answer, the strongest with 1 or -1."""
        weights = word_weights(models, self.target, codes, answer)
        weights /= np.abs(weights).max(initial=1e-9)
        return [self.table.vocabulary.words[code] for code in codes], weights.tolist()

    def _mistakes(self, outputs: Tensor, rows: NDArray[np.int64], number: int = 50) -> pd.DataFrame:
        chances = probabilities(self.target, outputs)
        values = self.table.values
        assert values is not None
        sure, said = chances.max(axis=1), chances.argmax(axis=1)
        places = np.argsort(-sure, kind="stable")
        places = places[said[places] != values[rows[places]]][:number]
        words = self.table.vocabulary.words
        return pd.DataFrame(
            {
                "text": [self.table.names[row] for row in rows[places]],
                "truth": [self.target.classes[v] for v in values[rows[places]].astype(int)],
                "prediction": [self.target.classes[v] for v in said[places]],
                "probability": sure[places].round(4),
                "words": [" ".join(words[code] for code in self.table.document(row)) for row in rows[places]],
            }
        )

    def _truth(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        values = self.table.values
        assert values is not None
        return self.target.truth(values[rows])

    def _in_order(self, outputs: Tensor) -> tuple[NDArray[np.int64], Tensor]:
        """Return the validation texts as they stand in the data, and their outputs."""
        rows = self.rows("valid")
        order = np.argsort(rows)
        return rows[order], outputs.detach().float().cpu()[torch.from_numpy(order)]

    def state(self, phase: Phase) -> dict[str, Any]:
        """The words, the classes, and how texts become words."""
        table = self.table
        return {
            "words": list(table.vocabulary.words),
            "tokenizer": table.tokenizer,
            "lower": table.lower,
            "target": self.target.state(),
            "encoder": None if table.encoder is None else asdict(table.encoder),
            "column": table.column,
        }


def _itself(words: Any) -> Iterator[Any]:
    """Words are words already."""
    found: Iterator[Any] = words
    return found
