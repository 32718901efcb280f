"""What the shipped tasks hand over about their split (see `dlrunner.data_audit`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID
from dlrunner.data.core.targets import Target, fit_target
from dlrunner.data.images.dataset import ImageTable
from dlrunner.data.ratings.dataset import RatingsTable
from dlrunner.data.tabular.dataset import TabularTable
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.data.texts.dataset import TextTable
from dlrunner.data.texts.tokens import END
from dlrunner.data.texts.vocabulary import PAD, UNKNOWN
from dlrunner.data_audit import Digests, SplitStatistics

Fitted = dict[str, tuple[Any, Any]]


def of_ratings(table: RatingsTable, used: Mapping[str, float]) -> SplitStatistics:
    """Return the pairs of user and item, when they were rated, and the statistics of the training ratings.

    Args:
        table: the ratings.
        used: statistics as the task uses them: `lowest rating`, `highest rating`, `mean time`, `deviation of time`.
    """
    pairs = (table.users * len(table.item_ids) + table.items).astype(np.uint64)
    train = ~table.valid
    alone = {"lowest rating": float(table.ratings[train].min()), "highest rating": float(table.ratings[train].max())}
    times: dict[str, NDArray[np.datetime64]] = {}
    if table.times is not None:
        days = table.times.astype(np.int64).astype("datetime64[s]")
        times = {"train": days[train], "valid": days[table.valid]}
        alone["mean time"] = float(table.times[train].mean())
        alone["deviation of time"] = float(table.times[train].std()) or 1.0
    return SplitStatistics(
        "ratings",
        {"train": pairs[train], "valid": pairs[table.valid]},
        times,
        {name: (value, alone[name]) for name, value in used.items()},
        _count(table.of_test, table.valid),
    )


def of_table(table: TabularTable, preparation: TabularPreprocessor, target: Target) -> SplitStatistics:
    """Return whole rows with their target, their days, and all that is fitted.

    A column that tells every row from every other is left out, as is what names the rows or says which of them
    validate: with it no row would have its like.
    """
    inputs = {*table.roles.categorical, *table.roles.continuous}
    names, frame = {table.roles.id, table.marked_by}, table.frame
    kept = [name for name in frame if name in inputs or (name not in names and _repeats(frame[name]))]
    target_columns = pd.DataFrame(table.values, index=frame.index).add_prefix("target ")
    whole = pd.concat([frame[kept], target_columns], axis=1)
    digests: Digests = np.asarray(pd.util.hash_pandas_object(whole, index=False), dtype=np.uint64)
    train = ~table.valid
    columns = TabularPreprocessor.fit(table.frame[train], table.roles.categorical, table.roles.continuous)
    targets = fit_target(table.target, table.values[train])
    times = {} if table.dates is None else {"train": table.dates[train], "valid": table.dates[table.valid]}
    return SplitStatistics(
        "rows",
        {"train": digests[train], "valid": digests[table.valid]},
        {part: days.to_numpy("datetime64[s]") for part, days in times.items()},
        _fitted_on_columns(preparation, columns) | _fitted_on_target(target, targets),
        _count(table.of_test, table.valid),
    )


def of_texts(table: TextTable, words_are_judged: bool) -> SplitStatistics:
    """Return the texts, without those that hold nothing, and the words that are known.

    An encoder brings its words: which texts they are from is not known here.
    """
    filled = table.lengths > 0
    split = np.where(filled, table.split, UNUSED)
    valid = split == VALID
    fitted: Fitted = {}
    if table.encoder is None:
        marks = {UNKNOWN, PAD, END}
        words = table.vocabulary.words
        counts = np.bincount(table.codes[np.repeat(table.split == TRAIN, table.lengths)], minlength=len(words))
        there = {words[code]: -int(counts[code]) for code in np.flatnonzero(counts).tolist()}
        alone = sorted(there.keys() - marks, key=lambda word: (there[word], word))
        fitted["the vocabulary"] = ([word for word in words if word not in marks], alone)
    return SplitStatistics(
        "texts",
        _by_part(table.digests, split),
        fitted=fitted,
        num_test_rows=_count(table.of_test, valid),
        valid_words=table.lengths[valid] if words_are_judged else None,
    )


def of_pictures(table: ImageTable) -> SplitStatistics:
    """Return the pictures by their pixels; nothing is fitted on them before training."""
    digests = _by_part(table.digests(), table.split)
    return SplitStatistics("pictures", digests, num_test_rows=_count(table.of_test, table.split == VALID))


def _by_part(digests: Digests, split: NDArray[np.int8]) -> dict[str, Digests]:
    parts = {"train": TRAIN, "valid": VALID, "test": TEST}
    found = {name: digests[split == part] for name, part in parts.items()}
    return {name: rows for name, rows in found.items() if name != "test" or len(rows)}


def _repeats(column: pd.Series[Any]) -> bool:
    try:
        return not column.is_unique
    except TypeError:  # lists, which a parquet file may hold, have no hash
        return False


def _count(of_test: NDArray[np.bool_] | None, valid: NDArray[np.bool_]) -> int:
    return 0 if of_test is None else int((of_test & valid).sum())


def _fitted_on_columns(used: TabularPreprocessor, alone: TabularPreprocessor) -> Fitted:
    kinds = {"levels": "levels of", "medians": "median of", "means": "mean of", "deviations": "deviation of"}
    found: Fitted = {
        f"{told} {name}": (value, getattr(alone, kind).get(name, []))
        for kind, told in kinds.items()
        for name, value in getattr(used, kind).items()
    }
    return {**found, "columns with missing values": (used.flagged, alone.flagged)}


def _fitted_on_target(used: Target, alone: Target) -> Fitted:
    names = ("mean", "deviation", "low", "high", "middle") if used.kind == "regression" else ()
    return {f"{name} of the target": (getattr(used, name), getattr(alone, name)) for name in names}
