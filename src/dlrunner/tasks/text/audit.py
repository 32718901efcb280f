"""Split statistics of texts, for the data audit."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID, digests_by_part, num_test_rows
from dlrunner.data.texts.dataset import TextTable
from dlrunner.data.texts.tokens import END
from dlrunner.data.texts.vocabulary import PAD, UNKNOWN
from dlrunner.data_audit import SplitStatistics


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
    )
