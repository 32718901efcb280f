"""Texts as numbers, split, with their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.input_columns import ROW
from dlrunner.data.core.splitting import VALID
from dlrunner.data.core.targets import Target
from dlrunner.data.texts.documents import Documents
from dlrunner.data.texts.tokens import Tokenizer
from dlrunner.data.texts.vocabulary import Vocabulary
from dlrunner.encoder_file import EncoderSizes
from dlrunner.prediction_table import with_distinct_names

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class TextTable:
    """Texts as numbers, split: what a task batches, trains on and draws."""

    codes: Codes
    """The words of all documents, one document after the other."""
    ends: NDArray[np.int64]
    """Where each document ends in `codes`, [documents]."""
    split: NDArray[np.int8]
    """TRAIN, VALID, TEST or UNUSED, [documents]."""
    digests: NDArray[np.uint64]
    """Equal where documents have the same tokens, in the vocabulary or not, [documents]."""
    names: Sequence[str]
    vocabulary: Vocabulary
    tokenizer: Tokenizer
    lower: bool
    target: Target | None = None
    values: NDArray[Any] | None = None
    """Class codes, or 0/1 by label, of all documents."""
    encoder: EncoderSizes | None = None
    """Of the encoder whose vocabulary it is."""
    column: str | None = None
    """Of the table, with the texts."""
    notes: list[str] = field(default_factory=list)
    max_tokens: int | None = None
    """Longer documents were cut to this many tokens."""
    of_test: NDArray[np.bool_] | None = None
    """Documents that are kept for the test, whatever their split is, [documents]."""
    row_columns: pd.DataFrame | None = None
    """Of a table: `row` and the columns that are neither text nor target, of its validation rows, by document."""

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return which documents belong to a part."""
        return np.flatnonzero(self.split == part)

    def document(self, row: int) -> Codes:
        """Return the words of one document."""
        return self.codes[self.ends[row - 1] if row else 0 : self.ends[row]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Words of each document."""
        return np.diff(self.ends, prepend=0)


def row_columns(documents: Documents, split: NDArray[np.int8], target: Target | None) -> pd.DataFrame | None:
    """Return what names the validation rows of a table of classified texts in predictions.csv."""
    if documents.column is None or target is None:
        return None
    rows, numbers = np.flatnonzero(split == VALID), documents.place.numbers(len(split))
    others = documents.table.drop(columns=[name for name in target.names if name in documents.table]).iloc[rows]
    return with_distinct_names(pd.concat([pd.Series([numbers[row] for row in rows], rows, name=ROW), others], axis=1))
