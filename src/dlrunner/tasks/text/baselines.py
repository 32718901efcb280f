"""Simple classifiers of the same texts, with which a run is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.targets import Target
from dlrunner.data.texts.table import TextTable
from dlrunner.metrics import Metric
from dlrunner.task import Split
from dlrunner.tasks.class_baselines import ClassBaselines

MOST_LABELS = 50
"""With more labels a regression for each takes too long."""
MOST_TEXTS = 100_000
"""Of a random sample of more training texts the regression is fitted."""


def text_baselines(
    table: TextTable,
    target: Target,
    rows: Mapping[Split, NDArray[np.int64]],
    targets: Mapping[Split, Tensor],
    metrics: Callable[[], Mapping[str, Metric]],
    class_weights: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Return the metrics of class frequencies and of a logistic regression on tf-idf of words and bigrams.

    Args:
        table: the texts.
        target: of one class or several labels.
        rows: texts of each split.
        targets: encoded targets of each split.
        metrics: returns fresh metrics by name.
        class_weights: of the training rows by their class.
    """
    baselines = ClassBaselines(target, targets, metrics, class_weights)
    found = {"class frequencies": baselines.timed(baselines.constant)}
    if target.has_one_class or target.num_outputs <= MOST_LABELS:
        try:
            found["logistic regression on tf-idf of words and bigrams"] = baselines.timed(
                lambda: baselines.logistic(_tf_idf(table, rows), _sample(len(rows["train"])), C=10.0, max_iter=300)
            )
        except ValueError as error:
            if "vocabulary" not in str(error) and "terms" not in str(error):
                raise  # else no word occurs twice
    return found


def _tf_idf(table: TextTable, rows: Mapping[Split, NDArray[np.int64]]) -> Callable[[Split], Any]:
    """Return a function that returns the sparse inputs of a split; the words are those of the training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    names = np.array(table.vocabulary.words, dtype=object)
    vectorizer = TfidfVectorizer(
        tokenizer=_identity, preprocessor=_identity, token_pattern=None, lowercase=False, ngram_range=(1, 2),
        min_df=2, sublinear_tf=True,
    )  # fmt: skip
    train = vectorizer.fit_transform(names[table.document(row)] for row in rows["train"])

    @cache
    def inputs(split: Split) -> Any:
        return train if split == "train" else vectorizer.transform(names[table.document(row)] for row in rows[split])

    return inputs


def _sample(count: int) -> NDArray[np.int64]:
    return np.sort(np.random.RandomState(0).permutation(count)[:MOST_TEXTS])


def _identity(words: Any) -> Iterator[Any]:
    """Return the tokens unchanged: texts are tokenized already."""
    tokens: Iterator[Any] = words
    return tokens
