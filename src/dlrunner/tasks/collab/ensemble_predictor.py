"""Trained rating models: the ratings of pairs, new users, similar items; an ensemble averages them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlrunner.model import Model, as_outputs, forward_pass
from dlrunner.models.collab import RatingModel
from dlrunner.row_blocks import ROWS, in_blocks

PAIRS = 4 * ROWS
"""Of users and items whose ratings are computed at once."""
MOST_ERRORS = 100_000
"""Training ratings whose errors give the noise: the standard deviation is then known to about .3 %."""


class RatingEnsemble:
    """Ratings predicted by the models of a run (their mean for an ensemble), by codes of users and items.

    Args:
        state: stored by the task: ids, titles, training ratings.
        models: trained rating models.
    """

    def __init__(self, state: Mapping[str, Any], models: Sequence[Model]) -> None:
        self.state = state
        self.trained = [model for model in models if isinstance(model, RatingModel)]
        self.models = [model.extended().eval() for model in self.trained]
        self.unknown_user, self.unknown_item = len(state["user_ids"]), len(state["item_ids"])

    @torch.no_grad()
    def pairs(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the ratings of pairs of codes, of shape (pairs,); codes past the last known one mean unknown."""
        device = next(self.models[0].parameters()).device
        codes = torch.from_numpy(np.asarray(users)).to(device), torch.from_numpy(np.asarray(items)).to(device)

        def mean(*codes: Tensor) -> Tensor:
            return torch.stack([forward_pass(model, *codes).outputs.float() for model in self.models]).mean(dim=0)

        return np.asarray(in_blocks(mean, *codes, rows=PAIRS).cpu().numpy(), dtype=np.float32)

    def fold_in(self, items: NDArray[np.int64], ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fit a new user with all other parameters fixed, and return the predicted ratings of all items.

        The user's factors minimise Σ (rating - prediction)² / 2σ² + Σ (factor - mean)² / 2τ²: the maximum a
        posteriori estimate under a normal prior with the mean and variance (τ²) of `RatingModel.user_prior`, and normal
        noise with the variance of the training errors (σ²).

        Args:
            items: codes of the rated items.
            ratings: of these items by the new user.
        """
        rated, given = torch.from_numpy(items), torch.from_numpy(ratings)
        scores = [
            self._fold_in_one(model, trained.user_prior(self._known_users, rated), noise, rated, given)
            for trained, model, noise in zip(self.trained, self.models, self._noise, strict=True)
        ]
        return np.asarray(torch.stack(scores).mean(dim=0).numpy(), dtype=np.float32)

    @cached_property
    def _known_users(self) -> Tensor:
        users: Tensor = torch.unique(self.state["rated_users"])
        return users

    @cached_property
    @torch.no_grad()
    def _noise(self) -> list[Tensor]:
        """The variance of the errors of the training ratings by each model; of a random sample of many."""
        users, items, ratings = (self.state[name] for name in ("rated_users", "rated_items", "ratings"))
        if len(ratings) > MOST_ERRORS:
            rows = torch.randint(len(ratings), (MOST_ERRORS,), generator=torch.Generator().manual_seed(0))
            users, items, ratings = users[rows], items[rows], ratings[rows]
        fitted = (forward_pass(model, users, items).outputs for model in self.models)
        return [(each - ratings).square().mean().clamp(min=1e-4) for each in fitted]

    def _fold_in_one(
        self,
        model: RatingModel,
        prior: Sequence[tuple[Tensor, Tensor]],
        noise: Tensor,
        items: Tensor,
        ratings: Tensor,
    ) -> Tensor:
        """Solve for one model by L-BFGS on the last user rows; the model stays unchanged."""
        tables = model.user_tables()
        weights = [table.weight.detach() for table in tables]
        means, variances = zip(*((mean, variance.clamp(min=1e-8)) for mean, variance in prior), strict=True)
        rows = [mean.clone().requires_grad_() for mean in means]
        names = {id(parameter): name for name, parameter in model.named_parameters()}

        def predict(codes: Tensor) -> Tensor:
            """Call the model with the fitted rows in place of the unknown user."""
            swapped = {
                names[id(table.weight)]: torch.cat([weight[:-1], row.unsqueeze(0)])
                for table, weight, row in zip(tables, weights, rows, strict=True)
            }
            users = torch.full_like(codes, self.unknown_user)
            return as_outputs(torch.func.functional_call(model, swapped, (users, codes))).outputs

        optimizer = torch.optim.LBFGS(rows, max_iter=100, line_search_fn="strong_wolfe")

        def objective() -> float:
            optimizer.zero_grad()
            loss = (predict(items) - ratings).square().sum() / (2 * noise)
            for row, mean, variance in zip(rows, means, variances, strict=True):
                loss = loss + ((row - mean).square() / (2 * variance)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return predict(torch.arange(self.unknown_item))

    def cosines(self, item: int) -> NDArray[np.float32]:
        """Return the cosine similarities of an item's factors to those of all items, (items,), averaged over models."""
        similarities = []
        for model in self.models:
            factors = nn.functional.normalize(
                model.item_tables()[0].weight.detach()[: self.unknown_item].float(), dim=1
            )
            similarities.append(factors @ factors[item])
        return np.asarray(torch.stack(similarities).mean(dim=0).cpu().numpy(), dtype=np.float32)
