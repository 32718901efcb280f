"""Texts to tokens: spaCy's tokenizer on all cores, or words between blanks; what comes out is kept in the cache.

This module imports no torch: it is what the processes import that share the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import chain, islice, pairwise
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dlrunner.data.core.cache import cache_dir, write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.errors import ConfigError
from dlrunner.system.parallel import in_order, num_cores, without_main

Tokenizer = Literal["spacy", "whitespace"]

END = "<eos>"
"""Ends every document of a stream, as in the lesson."""
CHUNK = 400
"""Documents that a process takes at once."""
MANY = 2_000_000
"""Characters from which on more processes than one are worth their start of two seconds."""
VERSION = 6
"""Of what the cache holds."""

LONGEST = 250
"""Characters without a blank that spaCy gets at once; those of IMDB's reviews are at most 91.

Its time grows with their square: 4,000 emoji took 2 s, in pieces of 250 they take 0.1.
"""
MOST_KEPT = 500_000
"""Different words after which spaCy's tokenizer is made anew, which took .2 s.

It keeps each for good, with some 400 bytes: a server would grow with every number and typing mistake.
"""
_LONG = re.compile(rf"\S{{{LONGEST}}}(?=\S)")
_BREAK = re.compile(r"<\s*br\s*/?>", re.IGNORECASE)


@dataclass(frozen=True)
class Tokens:
    """Documents as numbers, each the place of a word in the list of all words that occur.

    Args:
        codes: of all documents one after the other, int32.
        ends: where each document ends in `codes`, int64 [documents].
        words: in the order in which they were first seen.
    """

    codes: NDArray[np.int32]
    ends: NDArray[np.int64]
    words: list[str]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document."""
        return np.diff(self.ends, prepend=0)

    def cut(self, most: int) -> tuple[Tokens, int]:
        """Return the documents with their first so many tokens, and how many had more."""
        lengths = self.lengths
        num_cut = int((lengths > most).sum())
        if not num_cut:
            return self, 0
        position = np.arange(len(self.codes)) - np.repeat(self.ends - lengths, lengths)
        return Tokens(self.codes[position < most], np.cumsum(np.minimum(lengths, most)), self.words), num_cut

    def digests(self) -> NDArray[np.uint64]:
        """Return digests that are equal where documents have the same tokens, [documents]."""
        content, stops = self.codes.data, self.ends.tolist()
        parts = (content[start:stop] for start, stop in zip([0, *stops], stops, strict=False))
        joined = b"".join(hashlib.blake2b(part, digest_size=8).digest() for part in parts)
        return np.frombuffer(joined, np.uint64)


def tokens_of(text: str, tokenizer: Tokenizer, lower: bool) -> list[str]:
    r"""Return the tokens of a text; `<br />` is a line break.

    >>> tokens_of("It's good.<br />Isn't it", "whitespace", lower=True)
    ["it's", 'good.', "isn't", 'it']
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("the text is not in UTF-8") from None
    codes, _, words = _encode([text], tokenizer, lower)
    return [words[code] for code in codes]


def has_words(text: str) -> bool:
    """Return whether a text is more than blanks and line breaks, which alone are no tokens."""
    return bool(_clean(text, lower=False))


def tokenize(texts: Iterable[str], tokenizer: Tokenizer, lower: bool, processes: int | None = None) -> Tokens:
    """Return texts as tokens, made by several processes where there is much to do.

    Args:
        texts: they are read as they are needed.
        tokenizer: `spacy`, its rules for English without a pipeline, or `whitespace`.
        lower: whether case is forgotten.
        processes: by default one per core, and this one alone for less than two million characters.
    """
    merged: dict[str, int] = {}
    codes: list[NDArray[np.int32]] = []
    lengths: list[NDArray[np.int64]] = []
    work = partial(_encode, tokenizer=tokenizer, lower=lower)
    for found, sizes, words in _mapped(work, texts, processes):
        places = np.fromiter((merged.setdefault(word, len(merged)) for word in words), np.int32, len(words))
        codes.append(places[found] if len(words) else found.astype(np.int32))
        lengths.append(sizes)
    ends = np.cumsum(np.concatenate(lengths)) if lengths else np.zeros(0, np.int64)
    return Tokens(np.concatenate(codes) if codes else np.zeros(0, np.int32), ends, list(merged))


def cached(digest: str, tokenizer: Tokenizer, lower: bool, texts: Callable[[], Iterable[str]]) -> Tokens:
    """Return the tokens of texts with this digest from the cache, or make them and keep them there.

    Args:
        digest: of the texts and their order.
        tokenizer, lower: see `tokenize`.
        texts: reads them.
    """
    recipe = f"{VERSION} {digest} {tokenizer} {lower} {version('spacy') if tokenizer == 'spacy' else ''}"
    path = cache_dir() / "tokens" / f"{hashlib.sha256(os.fsencode(recipe)).hexdigest()[:32]}.npz"
    if (content := read_sealed(path)) is not None:
        with np.load(io.BytesIO(content)) as kept:
            return Tokens(kept["codes"], kept["ends"], _split(kept["words"].tobytes(), kept["word_ends"].tolist()))
    tokens = tokenize(texts(), tokenizer, lower)
    buffer = io.BytesIO()
    words = [word.encode() for word in tokens.words]
    word_ends = np.cumsum([len(word) for word in words], dtype=np.int64)  # a word may hold any character
    joined = np.frombuffer(b"".join(words), np.uint8)
    np.savez(buffer, codes=tokens.codes, ends=tokens.ends, words=joined, word_ends=word_ends)
    with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
        write_sealed(path, buffer.getbuffer())
    return tokens


def _split(words: bytes, ends: Sequence[int]) -> list[str]:
    return [words[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


def _mapped(work: Callable[[list[str]], Any], texts: Iterable[str], processes: int | None) -> Iterator[Any]:
    """Apply `work` to chunks of the texts, in their order."""
    chunks = _chunks(texts)
    first, total = [], 0
    for chunk in chunks:
        first.append(chunk)
        total += sum(map(len, chunk))
        if total >= MANY:
            break
    processes = processes or (1 if total < MANY else num_cores())
    if processes == 1:
        yield from map(work, first)
        yield from map(work, chunks)
        return
    # A forked process would inherit the threads' locks of torch.
    with without_main(), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from in_order(pool, work, chain(first, chunks), 4 * processes)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _encode(
    texts: Sequence[str], tokenizer: Tokenizer, lower: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64], list[str]]:
    """Return the texts' tokens as places in a list of words, their numbers, and that list."""
    if tokenizer == "whitespace":
        return _encode_words([_clean(text, lower).split() for text in texts])
    return _encode_by_spacy(texts, lower)


def _clean(text: str, lower: bool) -> str:
    text = _BREAK.sub("\n", text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():  # spaCy would make a token of blanks
        return ""
    return text.lower() if lower else text


def _encode_words(texts: Sequence[Sequence[str]]) -> tuple[NDArray[np.int32], NDArray[np.int64], list[str]]:
    seen: dict[str, int] = {}
    codes = [seen.setdefault(word, len(seen)) for text in texts for word in text]
    return np.array(codes, np.int32), np.array([len(text) for text in texts], np.int64), list(seen)


def _encode_by_spacy(texts: Sequence[str], lower: bool) -> tuple[NDArray[np.int32], NDArray[np.int64], list[str]]:
    from spacy.attrs import LOWER, ORTH

    tokenizer, attribute = _spacy_tokenizer(), LOWER if lower else ORTH
    found = [
        np.concatenate([tokenizer(piece).to_array(attribute) for piece in _pieces(_clean(text, lower=False))])
        for text in texts
    ]
    lengths = np.array([len(each) for each in found], np.int64)
    # spaCy's numbers of words are hashes of their text: sorted they stand for the same words in every process.
    hashes, codes = np.unique(np.concatenate(found) if found else np.zeros(0, np.uint64), return_inverse=True)
    words = [tokenizer.vocab.strings[value] for value in hashes]
    if tokenizer.vocab.length > MOST_KEPT:
        _spacy_tokenizer.cache_clear()
    return codes.astype(np.int32), lengths, words


def _pieces(text: str) -> list[str]:
    """Return a text cut where too many characters follow each other without a blank; most texts are one piece."""
    cuts = [0, *(found.end() for found in _LONG.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


@cache
def _spacy_tokenizer() -> Any:
    import spacy

    return spacy.blank("en").tokenizer
