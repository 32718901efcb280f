"""What tells whether the split of texts is a fair one."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlrunner.data.core.splitting import TRAIN, UNUSED, VALID
from dlrunner.data.texts.dataset import TextTable
from dlrunner.data.texts.tokens import END
from dlrunner.data.texts.vocabulary import PAD, UNKNOWN
from dlrunner.data_audit import SplitStatistics
from dlrunner.tasks.common.audit import by_part, count_of_test


def of_texts(table: TextTable, words_are_judged: bool) -> SplitStatistics:
    """Return the texts, without those that hold nothing, and the words that are known.

    An encoder brings its words: which texts they are from is not known here.
    """
    filled = table.lengths > 0
    split = np.where(filled, table.split, UNUSED)
    valid = split == VALID
    fitted: dict[str, tuple[Any, Any]] = {}
    if table.encoder is None:
        marks = {UNKNOWN, PAD, END}
        words = table.vocabulary.words
        counts = np.bincount(table.codes[np.repeat(table.split == TRAIN, table.lengths)], minlength=len(words))
        there = {words[code]: -int(counts[code]) for code in np.flatnonzero(counts).tolist()}
        alone = sorted(there.keys() - marks, key=lambda word: (there[word], word))
        fitted["the vocabulary"] = ([word for word in words if word not in marks], alone)
    return SplitStatistics(
        "texts",
        by_part(table.digests, split),
        fitted=fitted,
        num_test_rows=count_of_test(table.of_test, valid),
        counts={"words": table.lengths[valid]} if words_are_judged else {},
    )
