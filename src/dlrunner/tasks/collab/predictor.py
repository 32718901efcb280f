"""Predictions of trained rating models: pairs, recommendations, similar items, new users."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dlrunner.data.core.input_columns import append_predictions, input_columns
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.targets import shown
from dlrunner.data.ratings.user_table import USUAL_NAMES, ratings_of
from dlrunner.data.tables.raw import as_text
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.model import Example, Model
from dlrunner.models.collab import RatingDims
from dlrunner.prediction_table import with_notes, with_problems
from dlrunner.predictor import Predictor, RowField
from dlrunner.predictor_inputs import check_table, table_name
from dlrunner.ranges import Count
from dlrunner.tasks.collab.ensemble_predictor import RatingEnsemble

Id = int | float | str


class Codes:
    """The codes of ids, which are found as they stand in a file, and as numbers.

    >>> codes = Codes(["7", "007", "1.50"])
    >>> [codes.get(each, -1) for each in ("7", 7, 7.0, "007", "07", "1.50", "1.5")]
    [0, 0, 0, 1, -1, 2, -1]

    Args:
        ids: text as in the user's table; numbers, whose leading zeros mean nothing, where the data is published.
    """

    def __init__(self, ids: Sequence[int | str]) -> None:
        self._codes = {str(each): code for code, each in enumerate(ids)}
        self._are_numbers = all(isinstance(each, int) for each in ids)

    def __len__(self) -> int:
        return len(self._codes)

    def get(self, value: Any, default: int) -> int:
        """Return the code of an id, or a default if it is unknown."""
        text = as_text(value)
        if text in self._codes:
            return self._codes[text]
        if self._are_numbers:
            with contextlib.suppress(ValueError):
                text = str(int(text.strip().removesuffix(".0")))
        elif not isinstance(value, str):
            text = f"{text}.0"  # a file that holds whole numbers as 7.0
        return self._codes.get(text, default)

    def of(self, values: pd.Series[Any], default: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the codes of a column of ids, and which of them are missing."""
        texts = values.to_numpy(dtype=object)
        missing = values.isna().to_numpy() | np.array([isinstance(each, str) and not each.strip() for each in texts])
        known: dict[tuple[type, Any], int] = {}
        codes = np.full(len(texts), default, dtype=np.int64)
        for row in np.flatnonzero(~missing):
            key = type(texts[row]), texts[row]
            if key not in known:
                known[key] = self.get(texts[row], default)
            codes[row] = known[key]
        return codes, missing


class RatingPredictor(Predictor):
    """Predicts ratings and recommends items; an ensemble averages the ratings of its models."""

    example = "predictor.recommend(user=1, top=5)"
    ensemble_class: ClassVar[type[RatingEnsemble]] = RatingEnsemble
    limits = (
        "Users and items that were not in training are predicted from the mean, or from biases alone.",
        "The time of a rating is ignored when new pairs are predicted.",
    )

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        super().__init__(state, models)
        self.ensemble = self.ensemble_class(state, models)
        self.users, self.items = Codes(state["user_ids"]), Codes(state["item_ids"])

    @property
    def text_columns(self) -> Sequence[str]:
        """Users and items of a user's table, and titles; published ids are numbers."""
        return ("user", "item", "title") if self.state.get("columns") else ("title",)

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> RatingDims:
        """Sizes, the range of the training ratings, their pairs, and what else is known of users and items."""
        return RatingDims(
            num_users=len(state["user_ids"]),
            num_items=len(state["item_ids"]),
            min_rating=state["min_rating"],
            max_rating=state["max_rating"],
            item_genres=state["item_genres"],
            has_time=state["time_scale"] is not None,
            mean_rating=state.get("mean_rating"),
            rated_users=state["rated_users"],
            rated_items=state["rated_items"],
            user_attributes=state.get("user_attributes"),
            item_attributes=state.get("item_attributes"),
        )

    def examples(self, count: int) -> Mapping[str, Example]:
        """Pairs of users and items from the training ratings."""
        rows = torch.randint(len(self.state["ratings"]), (count,), generator=torch.Generator().manual_seed(count))
        named = {"users": self.state["rated_users"], "items": self.state["rated_items"]}
        return {name: Example(codes[rows].long(), ("rows",)) for name, codes in named.items()}

    def row_fields(self) -> Sequence[RowField]:
        """Return the columns of users and items, as they are named in the training table."""
        columns = self.state.get("columns", {})
        ids = {"user": self.state["user_ids"], "item": self.state["item_ids"]}
        return [RowField(columns.get(role) or role, "id", example=found[0]) for role, found in ids.items()]

    def predict(
        self,
        table: pd.DataFrame | None = None,
        *,
        user: Id | None = None,
        ratings: pd.DataFrame | None = None,
        similar: Id | None = None,
        top: Count = 20,
        only: list[str] | None = None,
    ) -> pd.DataFrame:
        """Predict the ratings of user-item pairs; a note marks unknown ids, a row without an id has a problem.

            predictor.predict(pandas.DataFrame({"user": [1, 1], "item": [31, 1029]}))

        Args:
            table: user-item pairs (columns: user, item, or as in the training table).
            user: recommend items to this user instead (see `recommend`).
            ratings: recommend items to a new user with these ratings instead (columns: item, rating).
            similar: list the items most similar to this one instead (see `similar`).
            top: number of items.
            only: columns of the table next to the predictions, instead of all; none: predictions alone.

        Raises:
            ConfigError: none or several of these are given, or a user or item is unknown.
            DataError: a column is missing, or no rating can be read.
        """
        if sum(each is not None for each in (table, user, ratings, similar)) != 1:
            raise ConfigError("give exactly one of: a table of pairs, user, ratings, similar")
        if similar is not None:
            return self.similar(similar, top=top)
        if table is None:
            return self.recommend(user, ratings=ratings, top=top)
        check_table(table)
        unknown = self.ensemble.unknown_user, self.ensemble.unknown_item
        user_codes, no_user = self.users.of(table[self._column(table, "user")], unknown[0])
        item_codes, no_item = self.items.of(table[self._column(table, "item")], unknown[1])
        unknown_user, unknown_item = user_codes == unknown[0], item_codes == unknown[1]
        notes = np.select(
            [unknown_user & unknown_item, unknown_user, unknown_item],
            ["unknown user and item: mean rating", "unknown user: bias only", "unknown item: bias only"],
            default="",
        )
        predicted = shown(self.ensemble.pairs(user_codes, item_codes))
        inputs = input_columns(table, only, self._column(table, "user"))  # user and item identify a row
        answer = append_predictions(inputs, pd.DataFrame({"prediction": predicted, "note": notes}))
        problems = [
            (int(row), f"the {role} is missing")
            for role, missing in (("user", no_user), ("item", no_item))
            for row in np.flatnonzero(missing)
        ]
        own = list(answer.columns[: inputs.shape[1]])
        return with_problems(answer, own, problems, RowLocations.within_files(table))

    def recommend(
        self, user: Id | None = None, *, ratings: pd.DataFrame | None = None, top: Count = 20
    ) -> pd.DataFrame:
        """Recommend items that a user has not rated yet; or items for a new user with some ratings.

            predictor.recommend(user=1, top=5)
            predictor.recommend(ratings=pandas.DataFrame({"item": [31, 1029], "rating": [4.5, 2.0]}))

        Args:
            user: id of a user in the training data.
            ratings: a new user's ratings (columns: item, rating, or as in the training table).
            top: number of items.

        Raises:
            ConfigError: none or both are given, or the user is unknown.
            DataError: a rating is invalid.
        """
        if (user is None) == (ratings is None):
            raise ConfigError("recommend: give either user or ratings")
        if ratings is not None:
            return self._recommend_to_new(ratings, top)
        code = self.users.get(user, -1)
        if code < 0:
            raise ConfigError(
                f"user {user} is not among the {len(self.users)} users of this run; "
                "for a new user pass some ratings (--ratings FILE, in Python ratings=TABLE)"
            )
        count = self.ensemble.unknown_item
        return self._best(self.ensemble.pairs(np.full(count, code), np.arange(count)), self._rated_by(code), top)

    def similar(self, item: Id, *, top: Count = 20) -> pd.DataFrame:
        """Return the most similar items by cosine similarity of their factors, averaged over the models.

            predictor.similar("Toy Story", top=5)

        Args:
            item: an id, a title, or part of a title.
            top: number of items.

        Raises:
            ConfigError: no item matches, or several do.
        """
        code = self._find_item(item)
        cosine = self.ensemble.cosines(code)
        counts = np.bincount(self.state["rated_items"].numpy(), minlength=len(cosine))
        minimum = 20 if int((counts >= 20).sum()) > top else 1
        cosine[counts < minimum] = -np.inf  # factors of rarely rated items are mostly noise
        best = self._best(cosine, np.array([code]), top)
        best.attrs["note"] = (
            f"most similar to {self.state['titles'][code]} (items with at least {minimum} training ratings)"
        )
        return best.rename(columns={"prediction": "cosine"})

    def _rated_by(self, user: int) -> NDArray[np.int64]:
        """Return the codes of the items of a user's training, validation and test rows."""
        pairs = [(f"{rows}_users", f"{rows}_items") for rows in ("rated", "held_out")]
        found = [self.state[items][self.state[users] == user] for users, items in pairs if users in self.state]
        return torch.cat(found).numpy()  # a run of an older version has its training rows only

    def _recommend_to_new(self, table: pd.DataFrame, top: int) -> pd.DataFrame:
        """Return the best items for a user who was not in training, from a table of ratings."""
        check_table(table)
        path, unknown = table_name(table), self.ensemble.unknown_item
        name, columns = self._column(table, "rating"), self.state.get("schema", [])
        item_codes, _ = self.items.of(table[self._column(table, "item")], unknown)
        ratings, problems = ratings_of(table, name, columns, Path(path))
        low, high = self.state["min_rating"], self.state["max_rating"]  # of ratings in 32 bits: 0.9 is a little more
        with np.errstate(over="ignore"):
            compared = ratings.astype(np.float32)
        problems += [
            (int(row), f"rating {ratings[row]:g} is outside the range of this run, {low:g} to {high:g}")
            for row in np.flatnonzero((compared < low) | (compared > high))
        ]
        readable = np.ones(len(table), dtype=bool)
        readable[[row for row, _ in problems]] = False
        example = next((f"{RowLocations.of_frame(table).at(row)}: {reason}" for row, reason in sorted(problems)), "")
        if not readable.any():
            raise DataError(f"{example}; no other row is left")
        known = readable & (item_codes != unknown)
        if not known.any():
            raise DataError(f"{path}: none of the {len(table)} items is known to this run")
        rows = np.flatnonzero(known)
        last = rows[~pd.Series(item_codes[rows]).duplicated(keep="last").to_numpy()]
        scores = self.ensemble.fold_in(item_codes[last], ratings[last].astype(np.float32))
        best = self._best(scores, item_codes[last], top)
        notes = []
        if num_repeated := len(rows) - len(last):
            notes.append(f"{num_repeated:,} row(s) repeat an item: the last rating counts")
        if problems:
            best.attrs["num_bad"] = len(problems)
            notes.append(f"{len(problems):,} of {len(table):,} rows are left out: {example}")
        if num_unknown := int((readable & ~known).sum()):
            notes.append(f"{num_unknown} of {len(table)} items are unknown and were ignored")
        return with_notes(best, notes)

    def _best(self, scores: NDArray[np.float32], exclude: NDArray[np.int64], top: int) -> pd.DataFrame:
        scores = scores.copy()
        scores[exclude] = -np.inf
        order = np.argsort(-scores, kind="stable")[: min(top, int(np.isfinite(scores).sum()))]
        counts = np.bincount(self.state["rated_items"].numpy(), minlength=len(self.items))
        return pd.DataFrame(
            {
                "item": [self.state["item_ids"][code] for code in order],
                "title": [self.state["titles"][code] for code in order],
                "prediction": shown(scores[order]),
                "ratings": counts[order],
            }
        )

    def _find_item(self, item: Id) -> int:
        """Return the code of an item given by its id or by part of its title."""
        code = self.items.get(item, -1)
        if code >= 0:
            return code
        titles: list[str] = self.state["titles"]
        item = str(item)
        exact = [code for code, title in enumerate(titles) if title.lower() == item.lower()]
        matches = exact or [code for code, title in enumerate(titles) if item.lower() in title.lower()]
        if len(matches) == 1:
            return matches[0]
        if matches:
            shown = "; ".join(titles[code] for code in matches[:5])
            raise ConfigError(
                f"similar: {len(matches)} titles contain {item!r}: {shown}{' …' if len(matches) > 5 else ''}"
            )
        raise ConfigError(f"similar: no item {item!r}; {did_you_mean(item, titles[:2000])}"[:300])

    def _column(self, table: pd.DataFrame, role: str) -> str:
        """Return the name of a column: that of the training table, or a usual one."""
        usual = USUAL_NAMES[role]
        trained: str | None = self.state.get("columns", {}).get(role)
        name: str | None = next((each for each in (trained, *usual) if each in table.columns), None)
        if name is None:
            raise DataError(
                f"{table_name(table)} has no column for the {role} "
                f"({', '.join(([trained] if trained else []) + list(usual[:3]))}); "
                f"its columns are: {', '.join(map(str, table.columns))}"
            )
        return name
