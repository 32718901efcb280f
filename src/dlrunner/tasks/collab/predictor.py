"""What a trained model of ratings is good for: pairs, recommendations, similar items, new users."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlrunner.data.core.tables import read_table
from dlrunner.data.ratings.dataset import USUAL_NAMES
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.model import Model, as_outputs, forward_pass
from dlrunner.models.collab import RatingModel
from dlrunner.tasks.common.inputs import THE_TABLE, check_id, check_table, check_top


class Recommender:
    """Answers about ratings, from the models of a run (several when it is an ensemble: their ratings are averaged).

    Args:
        state: what the task stored: ids, titles, training ratings.
        models: trained models of ratings.
    """

    example = "predictor.recommend(user=1, top=5)"
    limits = (
        "Users and items that were not in training get an answer from the mean of all, or from biases alone.",
        "The time of a rating is not taken into account when new pairs are predicted.",
    )

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state = state
        self.models = [m.extended().eval() for m in models if isinstance(m, RatingModel)]
        self.users = {identifier: code for code, identifier in enumerate(state["user_ids"])}
        self.items = {identifier: code for code, identifier in enumerate(state["item_ids"])}
        self.unknown_user, self.unknown_item = len(self.users), len(self.items)

    @torch.no_grad()
    def pairs(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the ratings of pairs of codes, of shape (pairs,); the codes past the last are the unknown ones."""
        device = next(self.models[0].parameters()).device
        codes = torch.from_numpy(np.asarray(users)).to(device), torch.from_numpy(np.asarray(items)).to(device)
        mean = torch.stack([forward_pass(model, *codes).outputs.float() for model in self.models]).mean(dim=0)
        return np.asarray(mean.cpu().numpy(), dtype=np.float32)

    def answer(self, arguments: argparse.Namespace) -> pd.DataFrame:
        """Answer the options of `dlrun predict RUN`.

        Raises:
            ConfigError: none or several things are asked, or a user or item is not known.
        """
        asked = [name for name in ("file", "user", "ratings", "similar") if getattr(arguments, name) is not None]
        if len(asked) != 1:
            raise ConfigError("ask for one thing: a FILE of pairs, --user ID, --ratings FILE, or --similar ITEM")
        check_top(arguments.top)
        if arguments.file is not None:
            return self.predict(read_table(user_path(arguments.file)), place=arguments.file)
        if arguments.user is not None:
            return self.recommend(arguments.user, top=arguments.top)
        if arguments.similar is not None:
            return self.similar(arguments.similar, top=arguments.top)
        ratings = read_table(user_path(arguments.ratings))
        return self.recommend(ratings=ratings, top=arguments.top, place=arguments.ratings)

    def predict(self, table: pd.DataFrame, *, place: str = THE_TABLE) -> pd.DataFrame:
        """Return a table of pairs with a prediction in every row, and mark the ids that are not known."""
        check_table(table)
        users, items = (self._column(table, role, place) for role in ("user", "item"))
        user_codes = np.array([self._code(self.users, value, self.unknown_user) for value in users])
        item_codes = np.array([self._code(self.items, value, self.unknown_item) for value in items])
        found = table.assign(prediction=self.pairs(user_codes, item_codes).round(4))
        unknown_user, unknown_item = user_codes == self.unknown_user, item_codes == self.unknown_item
        found["note"] = np.select(
            [unknown_user & unknown_item, unknown_user, unknown_item],
            ["unknown user and item: mean answer", "unknown user: bias only", "unknown item: bias only"],
            default="",
        )
        return found

    def recommend(
        self,
        user: int | str | None = None,
        *,
        ratings: pd.DataFrame | None = None,
        top: int = 20,
        place: str = "the ratings",
    ) -> pd.DataFrame:
        """Return the best items for a user, without those rated in training; or for a new user with some ratings.

        Raises:
            ConfigError: none or both are given, or the user is not known.
            DataError: a rating cannot be used.
        """
        check_top(top)
        if (user is None) == (ratings is None):
            raise ConfigError("recommend: give either a user, or the ratings of a new one")
        if ratings is not None:
            return self._recommend_to_new(ratings, top, place)
        check_id(user, "the id of a user (ratings of a new one: ratings=TABLE)")
        code = self._code(self.users, user, -1)
        if code < 0:
            raise ConfigError(
                f"user {user} is not among the {len(self.users)} users of this run; "
                "for a new user give a few ratings (--ratings FILE, in Python ratings=TABLE)"
            )
        rated = self.state["rated_items"][self.state["rated_users"] == code].numpy()
        return self._best(self.pairs(np.full(self.unknown_item, code), np.arange(self.unknown_item)), rated, top)

    def _recommend_to_new(self, table: pd.DataFrame, top: int, path: str) -> pd.DataFrame:
        """Return the best items for a user the model has never seen, from a table of a few ratings."""
        check_table(table)
        items = self._column(table, "item", path)
        ratings = pd.to_numeric(self._column(table, "rating", path), errors="coerce").to_numpy(np.float32)
        if not np.isfinite(ratings).all():
            row = int((~np.isfinite(ratings)).argmax())
            raise DataError(f"{path}, row {row + 2}: the rating is not a number")
        low, high = self.state["min_rating"], self.state["max_rating"]
        if ((ratings < low) | (ratings > high)).any():
            row = int(((ratings < low) | (ratings > high)).argmax())
            raise DataError(
                f"{path}, row {row + 2}: {ratings[row]:g} lies outside the ratings of this run, {low:g} to {high:g}"
            )
        codes = np.array([self._code(self.items, value, self.unknown_item) for value in items])
        known = codes != self.unknown_item
        if not known.any():
            raise DataError(f"{path}: none of the {len(codes)} items is known to this run")
        scores = self.fold_in(codes[known], ratings[known])
        best = self._best(scores, codes[known], top)
        if not known.all():
            best.attrs["note"] = f"{int((~known).sum())} of {len(codes)} items are unknown and were left out"
        return best

    def fold_in(self, items: NDArray[np.int64], ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Solve for a new user with everything else held fixed, and return that user's ratings of all items.

        The user's rows minimise Σ (rating - prediction)² / 2σ² + Σ (row - mean)² / 2τ²: the most probable user
        when users are drawn from a normal distribution with the mean and variance (τ²) of those in training, and
        ratings scatter around the prediction with the variance of the training errors (σ²).

        Args:
            items: codes of the rated items.
            ratings: what the user gave them.
        """
        scores = [self._fold_in_one(model, torch.from_numpy(items), torch.from_numpy(ratings)) for model in self.models]
        return np.asarray(torch.stack(scores).mean(dim=0).numpy(), dtype=np.float32)

    def _fold_in_one(self, model: RatingModel, items: Tensor, ratings: Tensor) -> Tensor:
        """Solve for one model by L-BFGS on the last user rows; the model is left as it was."""
        tables = model.user_tables()
        weights = [table.weight.detach() for table in tables]
        trained = torch.unique(self.state["rated_users"])
        means = [weight[trained].mean(dim=0) for weight in weights]
        variances = [weight[trained].var(dim=0, unbiased=False).clamp(min=1e-8) for weight in weights]
        with torch.no_grad():
            fitted = forward_pass(model, self.state["rated_users"], self.state["rated_items"]).outputs
            noise = (fitted - self.state["ratings"]).square().mean().clamp(min=1e-4)
        rows = [mean.clone().requires_grad_() for mean in means]
        names = {id(parameter): name for name, parameter in model.named_parameters()}

        def answers(codes: Tensor) -> Tensor:
            """Call the model with the rows being solved for in the place of the unknown user."""
            swapped = {
                names[id(table.weight)]: torch.cat([weight[:-1], row.unsqueeze(0)])
                for table, weight, row in zip(tables, weights, rows, strict=True)
            }
            users = torch.full_like(codes, self.unknown_user)
            return as_outputs(torch.func.functional_call(model, swapped, (users, codes))).outputs

        optimizer = torch.optim.LBFGS(rows, max_iter=100, line_search_fn="strong_wolfe")

        def objective() -> float:
            optimizer.zero_grad()
            loss = (answers(items) - ratings).square().sum() / (2 * noise)
            for row, mean, variance in zip(rows, means, variances, strict=True):
                loss = loss + ((row - mean).square() / (2 * variance)).sum()
            loss.backward()
            return float(loss.detach())

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return answers(torch.arange(self.unknown_item))

    def similar(self, item: int | str, *, top: int = 20) -> pd.DataFrame:
        """Return the items whose factors point the same way: mean cosine over the models."""
        check_top(top)
        check_id(item, "an item by its id or a part of its title")
        code = self._find_item(item)
        cosines = []
        for model in self.models:
            factors = nn.functional.normalize(
                model.item_tables()[0].weight.detach()[: self.unknown_item].float(), dim=1
            )
            cosines.append(factors @ factors[code])
        cosine = torch.stack(cosines).mean(dim=0).cpu().numpy()
        counts = np.bincount(self.state["rated_items"].numpy(), minlength=self.unknown_item)
        least = 20 if int((counts >= 20).sum()) > top else 1
        cosine[counts < least] = -1  # an item that hardly anybody rated points anywhere
        best = self._best(cosine, np.array([code]), top)
        best.attrs["note"] = f"most like {self.state['titles'][code]} (items with at least {least} training ratings)"
        return best.rename(columns={"prediction": "cosine"})

    def _best(self, scores: NDArray[np.float32], without: NDArray[np.int64], top: int) -> pd.DataFrame:
        scores = scores.copy()
        scores[without] = -np.inf
        order = np.argsort(-scores, kind="stable")[: min(top, int(np.isfinite(scores).sum()))]
        counts = np.bincount(self.state["rated_items"].numpy(), minlength=self.unknown_item)
        return pd.DataFrame(
            {
                "item": [self.state["item_ids"][code] for code in order],
                "title": [self.state["titles"][code] for code in order],
                "prediction": scores[order].round(4),
                "ratings": counts[order],
            }
        )

    def _find_item(self, item: int | str) -> int:
        """Return the code of an item given by its id or by part of its title."""
        code = self._code(self.items, item, -1)
        if code >= 0:
            return code
        titles: list[str] = self.state["titles"]
        item = str(item)
        exact = [code for code, title in enumerate(titles) if title.lower() == item.lower()]
        found = exact or [code for code, title in enumerate(titles) if item.lower() in title.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            shown = "; ".join(titles[code] for code in found[:5])
            raise ConfigError(f"similar: {len(found)} titles contain {item!r}: {shown}{' …' if len(found) > 5 else ''}")
        raise ConfigError(f"similar: no item {item!r}; {did_you_mean(item, titles[:2000])}"[:300])

    @staticmethod
    def _code(codes: Mapping[int | str, int], value: Any, otherwise: int) -> int:
        """Look an id up as it stands, as a whole number (12, "12" and 12.0 are one id), and as text."""
        if value in codes:
            return codes[value]
        try:
            whole = int(str(value).removesuffix(".0"))
        except ValueError:
            whole = None
        if whole is not None and (whole in codes or str(whole) in codes):
            return codes[whole] if whole in codes else codes[str(whole)]
        return codes.get(str(value), otherwise)

    @staticmethod
    def _column(table: pd.DataFrame, role: str, path: str) -> pd.Series[Any]:
        name = next((usual for usual in USUAL_NAMES[role] if usual in table.columns), None)
        if name is None:
            raise DataError(
                f"{path} has no column for the {role} ({', '.join(USUAL_NAMES[role][:3])}); "
                f"its columns are: {', '.join(map(str, table.columns))}"
            )
        return table[name]
