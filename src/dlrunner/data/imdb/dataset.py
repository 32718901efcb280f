"""The Large Movie Review Dataset (IMDB): 100,000 reviews, half of them labelled with a sentiment."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from dlrunner.data.core.cache import cache_dir
from dlrunner.data.core.once import read_once
from dlrunner.data.core.source import ArchiveOrFolder, Release, download, find, given_place, place_of
from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID, Splitting, sampled
from dlrunner.data.core.target_columns import read_target
from dlrunner.data.imdb.releases import LAYOUT, RELEASES
from dlrunner.data.imdb.synthetic import write_synthetic_imdb
from dlrunner.data.texts.dataset import TextPreprocessing, TextSource
from dlrunner.data.texts.documents import Documents, documents_in
from dlrunner.data.texts.table import TextTable
from dlrunner.data.texts.tokens import Tokenizer
from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path
from dlrunner.ranges import Count, Fraction, Seed, Text
from dlrunner.task import DataIdentity

_REVIEW = re.compile(r"(train|test)/(pos|neg|unsup)/\d+_\d+\.txt")


class ImdbData(TextSource):
    """Film reviews, validated on the test set as in the lesson, or on a part of the training set.

    Args:
        data_dir: where aclImdb_v1.tar.gz, or its folder, is searched for, and downloaded to.
        path: the archive or the folder itself.
        source: `real` fails without the data, `synthetic` generates it, `auto` uses the real data if available, else
            downloads it (84 MB), else generates.
        split: `test`: the publisher's test set is the validation set, as in the lesson; `random`, `stratified`: a
            fraction of the training set is, and the test set is evaluated once, after training.
        valid: this fraction.
        split_seed: seed of the permutation, also for `sample`.
        sample: number of random training reviews; by default all.
        sample_valid, sample_test: likewise for validation and test reviews.
        labels: read the sentiment; unlabelled reviews are not used.
        tokenizer, lower, min_freq, max_vocab, encoder: see `TextData`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        source: Literal["auto", "real", "synthetic"] = "auto",
        labels: bool = False,
        split: Literal["test", "random", "stratified"] = "test",
        valid: Fraction = 0.1,
        split_seed: Seed = 42,
        sample: Count | None = None,
        sample_valid: Count | None = None,
        sample_test: Count | None = None,
        tokenizer: Tokenizer = "spacy",
        lower: bool = True,
        min_freq: Count = 10,
        max_vocab: Annotated[int, Field(ge=3)] | None = None,
        encoder: Text | None = None,
    ) -> None:
        self.data_dir, self.path, self.source = data_dir, user_path(path) if path else None, source
        self.labels = labels
        self.samples = {TRAIN: sample, VALID: sample_valid, TEST: sample_test}
        self.splitting = Splitting(split, valid, split_seed)
        self.preprocessing = TextPreprocessing(tokenizer, lower, min_freq, max_vocab, encoder)
        self._notes: list[str] = []
        if split == "stratified" and not labels:
            raise ConfigError("data.split: stratified needs classes; a language model has none: use random")

    @cached_property
    def _found(self) -> tuple[Release, ArchiveOrFolder, dict[str, float] | None]:
        """The release, its location, and its best achievable scores (synthetic data only)."""
        release = RELEASES[0]
        if self.path is not None:
            return release, given_place(self.path, LAYOUT, "use task=lm or task=text for other texts"), None
        if self.source != "synthetic":
            if found := find(self.data_dir, RELEASES):
                return *found, None
            try:
                return release, download(release, self.data_dir), None
            except DataError as error:
                if self.source == "real":
                    raise
                self._notes.append(str(error))
        archive, best = write_synthetic_imdb(cache_dir() / "synthetic")
        location = place_of(archive, LAYOUT)
        assert location is not None
        return replace(release, name="synthetic", title="generated reviews", terms="generated"), location, best

    @cached_property
    def _documents(self) -> Documents:
        _, location, _ = self._found
        found = documents_in(location, lambda name: _REVIEW.fullmatch(name) is not None, "imdb reviews")
        parts = {name.rpartition("/")[0] for name in found.names}
        missing = [f"{p}/{c}" for p in ("train", "test") for c in ("pos", "neg") if f"{p}/{c}" not in parts]
        if missing:
            raise DataError(f"{location.path} is missing the reviews of {', '.join(missing)}; download it again")
        return found

    def identity(self) -> DataIdentity:
        """Find the reviews and return their identity.

        Raises:
            ConfigError: settings have no effect with the encoder.
        """
        self.preprocessing.check(ImdbData)
        release, location, best = self._found
        digest = self._documents.digest
        return DataIdentity(
            name="IMDB reviews",
            release=release.name,
            source="synthetic" if best is not None else "real",
            sha256=digest,
            path=str(location.path),
            digest=f"{digest} {self.preprocessing.digest()}".strip(),
            terms=release.terms,
            best_achievable=best["accuracy" if self.labels else "perplexity"] if best else None,
        )

    @read_once
    def read(self) -> TextTable:
        """Read the reviews and split them."""
        documents = self._documents
        labels = pd.Series(documents.labels)
        split = np.where(pd.Series(documents.names).str.startswith("train/"), TRAIN, TEST).astype(np.int8)
        target, values = None, None
        if self.labels:
            split[labels == "unsup"] = UNUSED
            sentiments = pd.DataFrame({"sentiment": labels.replace("unsup", "neg")})
            target, values = read_target(sentiments, "sentiment", "binary", None, "auto", documents.place)
        of_test = split == TEST
        split = self._with_validation(split, documents, values)
        split = sampled(split, self.samples, self.splitting.split_seed, "reviews")
        table = self.preprocessing.read(documents, split, target, values)
        return replace(table, notes=[*self._notes, *table.notes], of_test=of_test)

    def _with_validation(
        self, split: NDArray[np.int8], documents: Documents, values: NDArray[np.int64] | None
    ) -> NDArray[np.int8]:
        split = split.copy()
        if self.splitting.split == "test":
            split[split == TEST] = VALID
            return split
        train = np.flatnonzero(split == TRAIN)
        strata = values[train] if values is not None else None
        split[train] = self.splitting.assign(
            documents.table.iloc[train].reset_index(drop=True), strata, documents.place
        )
        return split
