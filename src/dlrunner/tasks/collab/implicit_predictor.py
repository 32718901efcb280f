"""Predictions of trained ranking models: recommendations, similar items, new users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.ratings.cleaning import rated_from
from dlrunner.data.ratings.user_table import ratings_of
from dlrunner.errors import DataError
from dlrunner.model import Example, Model
from dlrunner.models.ranking import ChoiceDims, Ranking
from dlrunner.prediction_table import with_notes
from dlrunner.predictor_inputs import check_table, table_name
from dlrunner.row_blocks import in_blocks
from dlrunner.tasks.collab.ensemble_predictor import PAIRS, RatingEnsemble
from dlrunner.tasks.collab.predictor import RatingPredictor


class RankingEnsemble(RatingEnsemble):
    """Scores by the models of a run (their mean for an ensemble), by codes of users and items.

    Args:
        state: stored by the task: ids, titles, training pairs.
        models: trained ranking models.
    """

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state = state
        self.rankings = [model for model in models if isinstance(model, Ranking)]
        self.tables = [model.tables() for model in self.rankings]
        self.unknown_user, self.unknown_item = len(state["user_ids"]), len(state["item_ids"])

    @torch.no_grad()
    def pairs(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of pairs of codes, of shape (pairs,); codes past the last known one mean unknown."""
        codes = torch.from_numpy(np.asarray(users)), torch.from_numpy(np.asarray(items))

        def mean(users: Tensor, items: Tensor) -> Tensor:
            scores = [(each.users[users] * each.items[items]).sum(dim=1) + each.bias[items] for each in self.tables]
            return torch.stack(scores).mean(dim=0)

        return np.asarray(in_blocks(mean, *codes, rows=PAIRS).numpy(), dtype=np.float32)

    @torch.no_grad()
    def fold_in(self, items: NDArray[np.int64], ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of all items for a new user, who is described by the items that were chosen.

        Args:
            items: codes of these items.
            ratings: not used: a choice is a choice.
        """
        chosen = torch.from_numpy(items)
        scores = [
            tables.items[:-1] @ (tables.mean + model.chosen.of_new(chosen)) + tables.bias[:-1]
            for model, tables in zip(self.rankings, self.tables, strict=True)
        ]
        return np.asarray(torch.stack(scores).mean(dim=0).numpy(), dtype=np.float32)

    def cosines(self, item: int) -> NDArray[np.float32]:
        """Return the cosine similarities of an item's factors to those of all items, (items,), averaged over models."""
        normal = [torch.nn.functional.normalize(each.items[:-1].float(), dim=1) for each in self.tables]
        similarities = torch.stack([factors @ factors[item] for factors in normal])
        return np.asarray(similarities.mean(dim=0).numpy(), dtype=np.float32)


class ChoicePredictor(RatingPredictor):
    """Scores pairs and recommends items; a higher score is a likelier choice. An ensemble averages the scores."""

    limits = (
        "Scores rank the items of one user; those of two users are not comparable.",
        "Users who were not in training, and items without training rows, are scored from what is known of the others.",
    )
    ensemble_class = RankingEnsemble

    @classmethod
    def dims(cls, state: Mapping[str, Any]) -> ChoiceDims:  # type: ignore[override]
        """Numbers of users and items, their training pairs and attributes."""
        return ChoiceDims(
            num_users=len(state["user_ids"]),
            num_items=len(state["item_ids"]),
            users=state["rated_users"],
            items=state["rated_items"],
            user_attributes=state["user_attributes"],
            item_attributes=state["item_attributes"],
        )

    def examples(self, count: int) -> Mapping[str, Example]:
        """Users of the training rows."""
        known = self.state["rated_users"]
        rows = torch.randint(len(known), (count,), generator=torch.Generator().manual_seed(count))
        return {"users": Example(known[rows].long(), ("rows",))}

    def _recommend_to_new(self, table: pd.DataFrame, top: int) -> pd.DataFrame:
        """Return the best items for a user who was not in training, from a table of items."""
        check_table(table)
        unknown = self.ensemble.unknown_item
        given, notes = self._chosen(table)
        codes, missing = self.items.of(given[self._column(table, "item")], unknown)
        known = np.unique(codes[(codes != unknown) & ~missing])
        if not len(known):
            raise DataError(f"{table_name(table)}: none of the {len(given)} items is known to this run")
        best = self._best(self.ensemble.fold_in(known, np.ones(len(known), dtype=np.float32)), known, top)
        num_unknown = int((codes == unknown).sum())
        if num_unknown:
            notes.append(f"{num_unknown} of {len(given)} items are unknown and were ignored")
        return with_notes(best, notes)

    def _chosen(self, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """Return the rows that are choices by the ratings of the run, where the table has them, and notes."""
        lowest, name = self.state.get("lowest_choice"), self.state["columns"].get("rating")
        if lowest is None or name not in table.columns:
            return table, []
        path = Path(table_name(table))
        ratings, _ = ratings_of(table, name, self.state["schema"], path)
        enough, notes = rated_from(ratings, lowest, RowLocations(path))
        return table[enough], [] if enough.all() else notes
