"""The vocabulary of a model: words and their codes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dlrunner.data.texts.tokens import END, Tokens
from dlrunner.encoder_file import digest_of_words
from dlrunner.errors import DataError

UNKNOWN, PAD = "<unk>", "<pad>"


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their numbers; 0 stands for all words that are not known, 1 for no word.

    >>> Vocabulary(["<unk>", "<pad>", "the", "film"]).encode(["the", "film", "stinks"])
    [2, 3, 0]
    """

    words: Sequence[str]

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    @property
    def digest(self) -> str:
        """Eight hex digits: two vocabularies with the same digest have the same words in the same order."""
        return digest_of_words(self.words)

    @property
    def end(self) -> int | None:
        """The number of the mark that ends a document."""
        return self.index.get(END)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Return numbers of words."""
        return [self.index.get(word, 0) for word in words]

    def encode_all(self, tokens: Tokens) -> NDArray[np.int32]:
        """Return the codes of documents in numbers of this vocabulary."""
        numbers = np.array(self.encode(tokens.words), dtype=np.int32)
        return numbers[tokens.codes] if len(numbers) else tokens.codes

    def to_json(self) -> str:
        """Return the words as JSON, one a line: the place of a word is its number."""
        return json.dumps(list(self.words), ensure_ascii=False, indent=0)

    @classmethod
    def of(
        cls, tokens: Tokens, documents: NDArray[np.bool_], min_freq: int, max_vocab: int | None, with_end: bool
    ) -> Vocabulary:
        """Return the words that occur at least so often in some documents, the most frequent first.

        Words of the same frequency stand in alphabetical order, as torchtext had it in the lesson.

        Args:
            tokens: of all documents.
            documents: whose words count, [documents].
            min_freq: words that are rarer are unknown.
            max_vocab: at most so many words, the two marks included.
            with_end: the mark that ends a document is a word too, once a document.

        Raises:
            DataError: no word is as frequent as that.
        """
        counted = tokens.codes[np.repeat(documents, tokens.lengths)]
        counts = np.bincount(counted, minlength=len(tokens.words))
        frequencies = {tokens.words[code]: int(counts[code]) for code in np.flatnonzero(counts >= min_freq)}
        if with_end:
            frequencies[END] = frequencies.get(END, 0) + int(documents.sum())
        known = sorted(set(frequencies) - {UNKNOWN, PAD}, key=lambda word: (-frequencies[word], word))
        if not any(word != END for word in known):
            raise DataError(f"no word occurs {min_freq} times in the training texts; use a smaller data.min_freq")
        words = [UNKNOWN, PAD, *known][:max_vocab]
        if with_end and END not in words:  # few and long documents: without their ends no text would have one
            words[-1] = END
        return cls(words)
