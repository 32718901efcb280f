"""Split statistics of texts, for the data audit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID, digests_by_part, num_test_rows
from dlrunner.data.texts.table import TextTable
from dlrunner.data.texts.tokens import END
from dlrunner.data.texts.vocabulary import PAD, UNKNOWN
from dlrunner.data_audit import SplitStatistics, rows_digest


def text_statistics(table: TextTable, count_words: bool) -> SplitStatistics:
    """Return digests of the non-empty texts, and the vocabulary.

    The vocabulary of an encoder is not checked: its training texts are not known here.

    Args:
        table: the texts.
        count_words: metrics average over words, not over texts.
    """
    filled = table.lengths > 0
    split = np.where(filled, table.split, UNUSED)
    valid = split == VALID
    fitted: dict[str, tuple[Any, Any]] = {}
    if table.encoder is None:
        special = {UNKNOWN, PAD, END}
        words = table.vocabulary.words
        counts = np.bincount(table.codes[np.repeat(table.split == TRAIN, table.lengths)], minlength=len(words))
        negative_counts = {words[code]: -int(counts[code]) for code in np.flatnonzero(counts).tolist()}
        refitted = sorted(negative_counts.keys() - special, key=lambda word: (negative_counts[word], word))
        fitted["the vocabulary"] = ([word for word in words if word not in special], refitted)
    return SplitStatistics(
        "texts",
        digests_by_part(table.digests, split),
        fitted=fitted,
        num_test_rows=num_test_rows(table.of_test, valid),
        counts={"words": table.lengths[valid]} if count_words else {},
        validation=_validation_digest(table, count_words),
    )


def _validation_digest(table: TextTable, count_words: bool) -> str:
    """Return a digest of the validation texts: of their words in this vocabulary, or of their labels."""
    rows = table.rows(VALID)
    if count_words:
        words = pd.DataFrame({"words": table.digests[rows], "length": table.lengths[rows]})
        return rows_digest(words, table.vocabulary.digest)
    labels = pd.DataFrame(
        None if table.values is None else table.values[rows], index=[table.names[row] for row in rows]
    )
    classes = table.target.classes if table.target else ()
    return rows_digest(labels.add_prefix("target ").reset_index(names="text"), *map(str, classes))
