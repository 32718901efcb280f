"""A user's texts as token codes: which documents train, validate and test, and their classes."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from dlrunner.data.core.cache import sha256_of
from dlrunner.data.core.once import read_once
from dlrunner.data.core.regression import Regression
from dlrunner.data.core.splitting import TEST, TRAIN, VALID, Splitting, sampled, split_by_parts
from dlrunner.data.core.target_columns import read_target
from dlrunner.data.core.targets import Kind, Target
from dlrunner.data.tables.table import Decimal, Reading, Thousands
from dlrunner.data.texts.documents import Documents, Wanted, find_documents
from dlrunner.data.texts.table import TextTable, row_columns
from dlrunner.data.texts.tokens import Tokenizer, cached
from dlrunner.data.texts.vocabulary import Vocabulary
from dlrunner.encoder_file import Encoder, encoder_file
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Natural, Positive, Seed, Text
from dlrunner.task import Data, DataIdentity

Split = Literal["auto", "random", "stratified", "folds", "last_rows", "column"]


@dataclass(frozen=True)
class TextPreprocessing:
    """How texts become numbers; the names are those of the `data` section."""

    tokenizer: Tokenizer = "spacy"
    lower: bool = True
    min_freq: int = 1
    max_vocab: int | None = None
    encoder: str | None = None
    max_tokens: int | None = None
    """Of a text that is classified."""

    def read(
        self, documents: Documents, split: NDArray[np.int8], target: Target | None, values: NDArray[Any] | None
    ) -> TextTable:
        """Return documents as numbers of a vocabulary: the encoder's, or one of the words of the training documents.

        Raises:
            DataError: there is nothing to train on, or to validate on.
        """
        for part, what in ((TRAIN, "training"), (VALID, "validation")):
            if not (split == part).any():
                raise DataError(f"{documents.place}: no text is left for {what}; {len(split):,} in all")
        notes, sizes, tokenizer, lower = list(documents.notes), None, self.tokenizer, self.lower
        encoder = Encoder.read(Path(self.encoder)) if self.encoder else None
        if encoder:
            tokenizer, lower, sizes = _known_tokenizer(encoder), encoder.lower, encoder.sizes
            if (tokenizer, lower) != (self.tokenizer, self.lower):
                notes.append(
                    f"tokenized like the encoder's texts: data.tokenizer={tokenizer} data.lower={lower}".lower()
                )
        tokens = cached(documents.digest, tokenizer, lower, documents.texts)
        if len(tokens.ends) != len(split):
            raise DataError(f"{documents.place} changed while it was being read; try again")
        digests = tokens.digests()
        if target is not None and self.max_tokens is not None:
            tokens, num_cut = tokens.cut(self.max_tokens)
            notes += cut_notes(num_cut, self.max_tokens)
        if encoder:
            vocabulary = Vocabulary(encoder.words)
        else:
            vocabulary = Vocabulary.of(tokens, split == TRAIN, self.min_freq, self.max_vocab, with_end=target is None)
        num_words = len(vocabulary.words)
        codes = vocabulary.encode_all(tokens)
        in_validation = np.repeat(split == VALID, tokens.lengths)
        fraction = float((codes[in_validation] == 0).mean()) if in_validation.any() else 0.0
        notes.append(
            f"{num_words:,} words in the vocabulary{' of the encoder' if encoder else ''}; "
            f"{fraction:.1%} of the validation words are out of vocabulary"
        )
        return TextTable(
            codes, tokens.ends, split, digests, documents.names, vocabulary, tokenizer, lower, target, values,
            sizes, documents.column, notes, self.max_tokens, row_columns=row_columns(documents, split, target),
        )  # fmt: skip

    def check(self, source: type[TextSource]) -> None:
        """Refuse settings that have no effect: an encoder brings its tokenizer and its vocabulary.

        What the encoder has too is no contradiction, and the default may not have been typed.

        Args:
            source: whose defaults they are.

        Raises:
            ConfigError: a setting is neither the default nor the encoder's.
        """
        names = ("tokenizer", "lower", "min_freq", "max_vocab")
        parameters = inspect.signature(source).parameters
        typed = [name for name in names if getattr(self, name) != parameters[name].default]
        if not typed or not self.encoder:
            return
        encoder = Encoder.read(Path(self.encoder))
        for name in typed:
            if getattr(self, name) != getattr(encoder, name, None):
                has = f"has {getattr(encoder, name)}" if hasattr(encoder, name) else "brings its vocabulary"
                raise ConfigError(
                    f"data.{name}: {getattr(self, name)} has no effect with the encoder {self.encoder}, which {has}; "
                    f"the default is {parameters[name].default}"
                )

    def digest(self) -> str:
        """Return what identifies the encoder's file; empty without one."""
        return sha256_of(encoder_file(Path(self.encoder))) if self.encoder else ""


class TextSource(Data):
    """The data of a text task."""

    @abstractmethod
    def read(self) -> TextTable:
        """Read and split the texts."""


def cut_notes(count: int, max_tokens: int) -> list[str]:
    """Return a note on texts that were cut."""
    if not count:
        return []
    return [f"{count:,} text(s) have more than {max_tokens:,} tokens; the others are not read (data.max_tokens)"]


class TextData(TextSource):
    """A user's own texts: a folder of .txt files, a file with a text a line, a table with a column of texts.

    Args:
        data_dir: not used: the texts are where `path` says.
        path: the folder, archive or file; of a table also a glob or folder of part files; `-` is standard input. In a
            folder, `train/`, `valid/` and `test/` above all others or directly in the class folders tell the split.
        query: SQL that selects a table from files, instead of a path.
        valid_path: likewise; what is there validates.
        labels: the classes are asked for: set by `task=text`.
        text: the table's column with the texts.
        target: the table's column with the classes (several columns of 0 and 1 are labels); of a folder the classes
            are its first level of folders.
        kind: of the target.
        target_separator: the target is text that lists labels, separated by this.
        split: which documents validate: `random`, `stratified`, `folds`, `last_rows`, `column` (see `TabularData`);
            `auto` uses the folders or `valid_path`, else random.
        valid: fraction used for validation; for `last_rows` also a number.
        split_seed: of numpy's RandomState that permutes the documents, for `sample` too.
        valid_column: the table's column that marks what validates.
        folds, fold: number of folds and the one that validates.
        test: examples that are evaluated once, after training: as `valid`; by default those that the data calls so.
        sample: this many random training documents are used; by default all.
        sample_valid, sample_test: likewise of the validation and of the test documents.
        tokenizer: `spacy` (its rules for English) or `whitespace` (token files as they are).
        lower: case is forgotten.
        min_freq: rarer words are unknown.
        max_vocab: at most so many words are known.
        encoder: a run of a language model, or its encoder.pt: vocabulary and tokenizer are the encoder's, and other
            values of the four settings above than the default are refused.
        max_tokens: tokens of a text that is classified; the rest is not read, and a note says so.
        schema: a file of `dlrun data describe --save` that says how each column of a table is read; texts and names of
            classes keep every character.
        date_format, decimal, thousands: of a table's dates and numbers; by default those that fit all rows.
        separator: of a table in a text file.
        encoding: of the files.
        skip_bad: leave out texts that cannot be read, and rows without text or target, and report their number.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        query: Text | None = None,
        valid_path: Text | None = None,
        labels: bool = False,
        text: Text | None = None,
        target: Text | Annotated[list[Text], Field(min_length=1)] | None = None,
        kind: Literal["auto"] | Kind = "auto",
        target_separator: Text | None = None,
        split: Split = "auto",
        valid: Positive | Count = 0.1,
        split_seed: Seed = 42,
        valid_column: Text | None = None,
        folds: Annotated[int, Field(ge=2)] = 5,
        fold: Natural = 0,
        test: Positive | Count | None = None,
        sample: Count | None = None,
        sample_valid: Count | None = None,
        sample_test: Count | None = None,
        tokenizer: Tokenizer = "spacy",
        lower: bool = True,
        min_freq: Count = 2,
        max_vocab: Annotated[int, Field(ge=3)] | None = 60000,
        encoder: Text | None = None,
        max_tokens: Count | None = 20_000,
        schema: Text | None = None,
        date_format: Text | None = None,
        decimal: Decimal | None = None,
        thousands: Thousands | None = None,
        separator: Text | None = None,
        encoding: Text | None = None,
        skip_bad: bool = False,
    ) -> None:
        if path is None and query is None:
            raise ConfigError("data.path: is missing: which folder, file or table? dlrun task=lm data.path=texts/")
        if path is not None and query is not None:
            raise ConfigError("data.query: data.path names the texts already; set one of both")
        self.path = user_path(path) if path else Path("data.query")
        self.query = query
        self.reading = Reading(schema, date_format, decimal, thousands, separator, encoding, skip_bad)
        self.valid_path = user_path(valid_path) if valid_path else None
        self.labels, self.text = labels, text
        self.target, self.kind, self.target_separator = target, kind, target_separator
        self.splitting = Splitting(
            split, valid, split_seed, valid_column=valid_column, folds=folds, fold=fold, test=test
        )
        self.splitting.check()
        self.samples = {TRAIN: sample, VALID: sample_valid, TEST: sample_test}
        self.preprocessing = TextPreprocessing(tokenizer, lower, min_freq, max_vocab, encoder, max_tokens)
        if valid_path and split != "auto":
            raise ConfigError(f"data.split: {split} cannot be combined with data.valid_path")
        if split == "stratified" and not labels:
            raise ConfigError("data.split: stratified needs classes; a language model has none: use random or folds")
        if self.valid_path and self.valid_path.resolve().is_relative_to(self.path.resolve()):
            raise ConfigError(
                f"data.valid_path: {valid_path} is inside data.path: validation texts would be trained on"
            )

    def _documents(self) -> Documents:
        names = self.target if isinstance(self.target, list) else [self.target] if self.target else []
        needs_target = self.labels and self.target_separator is None
        wanted = Wanted(self.text, None, names, needs_target, self.query, self.reading)
        found = find_documents(None if self.query else self.path, wanted)
        if self.valid_path is None:
            return found
        if found.parts is not None:
            raise ConfigError(f"data.valid_path: {self.path} already has validation folders")
        valid = find_documents(self.valid_path, replace(wanted, query=None))
        for name in names:  # where labels are listed, a cell without any is no missing one
            if name in found.table.columns and name not in valid.table.columns:
                raise ConfigError(
                    f"data.target: {valid.place} has no column {name!r}; {did_you_mean(name, valid.table.columns)}"
                )
        return concatenated(found, valid)

    def file_settings(self) -> Mapping[str, str]:
        """The separator and the encoding that are set."""
        return self.reading.file_settings()

    def identity(self) -> DataIdentity:
        """The texts as they are now.

        Raises:
            ConfigError: settings have no effect with the encoder.
        """
        self.preprocessing.check(TextData)
        return self._identity(self._documents().digest)

    def identity_as_read(self) -> DataIdentity:
        """The texts as they were read."""
        self.read()
        return self._identity(self._digest_as_read)

    def _identity(self, digest: str) -> DataIdentity:
        return DataIdentity(
            name=self.path.name,
            release="own",
            source="real",
            sha256=digest[:64],
            path=str(self.path),
            digest=f"{digest} {self.preprocessing.digest()}".strip(),
        )

    @read_once
    def read(self) -> TextTable:
        """Read the texts and split them.

        Raises:
            ConfigError: a named column does not exist.
            DataError: nothing trains or validates, or a text cannot be read.
        """
        documents = self._documents()
        self._digest_as_read = documents.digest
        target, values = self._target(documents) if self.labels else (None, None)
        if self.labels and self.target is None:
            documents = replace(documents, notes=(*documents.label_notes, *documents.notes))
        split, of_test = self._split(documents, target, values)
        split = sampled(split, self.samples, self.splitting.split_seed, "documents")
        return replace(self.preprocessing.read(documents, split, target, values), of_test=of_test)

    def _target(self, documents: Documents) -> tuple[Target, NDArray[Any]]:
        frame, target = documents.table, self.target
        if target is None and documents.labels is not None:
            frame, target = pd.DataFrame({"folder": documents.labels}), "folder"
            if "" in documents.labels or len(set(documents.labels)) < 2:
                where = documents.names[list(documents.labels).index("")] if "" in documents.labels else "all"
                raise DataError(
                    f"{documents.place}: classes come from folders, pos/ and neg/ (or train/pos/ and train/neg/), "
                    f"but {f'{where} is in none' if where != 'all' else 'all texts are in one'}"
                )
        if target is None:
            raise ConfigError(
                f"data.target: is missing: which column of {documents.place} holds the classes? "
                f"It has {', '.join(map(str, frame.columns)) or 'none'}"
            )
        found, values = read_target(frame, target, self.kind, self.target_separator, "auto", documents.place)
        if isinstance(found, Regression) or (self.kind == "auto" and _are_fractions(found.classes)):
            raise ConfigError(
                f"data.target: {found.names[0]} holds numbers; a text task needs classes (data.kind=multiclass)"
            )
        return found, values

    def _split(
        self, documents: Documents, target: Target | None, values: NDArray[Any] | None
    ) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """Return which part each document belongs to, and which are kept for the test."""
        classes = target is not None and target.has_one_class
        strata = values if classes else None
        return split_by_parts(documents.parts, self.splitting, documents.table, strata, documents.place)


def concatenated(train: Documents, valid: Documents) -> Documents:
    """Return the documents of two places, the second of which validates; those of files with rows are named anew."""
    place = train.place.followed_by(valid.place, len(train.names), len(valid.names))
    located = place.all_short(len(train.names) + len(valid.names))
    names = [
        *(located[: len(train.names)] if train.labels is None else train.names),
        *(located[len(train.names) :] if valid.labels is None else valid.names),
    ]
    labels = [*train.labels, *valid.labels] if train.labels is not None and valid.labels is not None else None
    return Documents(
        place,
        f"{train.digest} {valid.digest}",
        names,
        pd.concat([train.table, valid.table], ignore_index=True),
        lambda: [*train.texts(), *valid.texts()],
        train.column,
        labels,
        tuple(dict.fromkeys((*train.label_notes, *valid.label_notes))),
        [*("train" for _ in train.names), *("valid" for _ in valid.names)],
        tuple(dict.fromkeys((*train.notes, *valid.notes))),
    )


def _known_tokenizer(encoder: Encoder) -> Tokenizer:
    if encoder.tokenizer == "spacy":
        return "spacy"
    if encoder.tokenizer == "whitespace":
        return "whitespace"
    raise DataError(
        f"the encoder was trained on tokens of {encoder.tokenizer!r}, which is not supported by this version"
    )


def _are_fractions(classes: Sequence[Any]) -> bool:
    """Return whether classes are numbers, not all whole.

    >>> _are_fractions(["1.5", "2"]), _are_fractions(["1", "2"]), _are_fractions(["1.5", "x"])
    (True, False, False)
    """
    numbers = pd.to_numeric(pd.Series(classes, dtype="object"), errors="coerce")
    return bool(numbers.notna().all() and (numbers % 1 != 0).any())
