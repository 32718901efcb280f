"""SVD++: a user is described by the items that the user rated too, and items and users by their attributes.

Source: Koren, Factorization meets the neighborhood: a multifaceted collaborative filtering model, 2008.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dlrunner.models.collab import DotBias, Initial, RatingDims, RatingModel
from dlrunner.models.rated_items import Attributes, RatedItems
from dlrunner.ranges import Count, NonNegative


class SVDpp(RatingModel):
    """rating = low + (high - low) · sigmoid(start + (p_u + |N(u)|^-1/2 Σ y_j) · q_i + b_u + b_i), with j in N(u).

    N(u) are the items that user u rated in training. The attributes x of an item (of a film: genres and year) add A x
    to its factors q and a · x to its bias, those of a user likewise: they describe what has few ratings.

    Args:
        dims: sizes, training pairs and attributes from the data.
        factors: length of an embedding.
        init: of p, q and the biases; y, A and a start at 0, and the first predictions at the mean rating.
        margin: the output's range is (min - margin, max + margin).
        implicit: include the sum over the rated items.
        most_rated: N(u) of a user who rated more items is a random sample of so many; `auto`: as the task recommends.
        attributes: include those of items and users.
    """

    group_names: ClassVar[tuple[str, ...]] = ("factors", "biases")

    def __init__(
        self,
        dims: RatingDims,
        *,
        factors: Count = 50,
        init: Initial = 0.01,
        margin: NonNegative = 0.0,
        implicit: bool = True,
        most_rated: Count | Literal["auto"] = 200,
        attributes: bool = True,
    ) -> None:
        super().__init__()
        self.base = DotBias(dims, factors=factors, init=init, margin=margin, start_at_mean=True)
        self.implicit: RatedItems | None = None
        if implicit and dims.rated_users is not None and dims.rated_items is not None:
            most = 200 if most_rated == "auto" else most_rated
            self.implicit = RatedItems(
                dims.rated_users, dims.rated_items, dims.num_users, dims.num_items, factors, most
            )
        wanted = (dims.user_attributes, dims.item_attributes) if attributes else (None, None)
        self.of_user, self.of_item = (None if each is None else Attributes(each, factors) for each in wanted)

    def forward(self, users: Tensor, items: Tensor, times: Tensor | None = None) -> Tensor:
        """Return ratings of shape (batch,) for user and item codes of shape (batch,)."""
        factors, bias = self._users(users)
        if self.implicit is not None:
            factors = factors + self.implicit.of_users(users)
        return self.base.rating(factors, bias, *self._items(items))

    def layer_groups(self) -> Sequence[nn.Module]:
        """Factors of all kinds, then biases."""
        factors, biases = (list(group.children()) for group in self.base.layer_groups())
        attributes = [each for each in (self.of_user, self.of_item) if each is not None]
        implicit = [] if self.implicit is None else [self.implicit]
        return [
            nn.ModuleList([*factors, *implicit, *(each.factors for each in attributes)]),
            nn.ModuleList([*biases, *(each.bias for each in attributes)]),
        ]

    def user_tables(self) -> Sequence[nn.Embedding]:
        """Factors and bias, without what rated items and attributes add."""
        return self.base.user_tables()

    def item_tables(self) -> Sequence[nn.Embedding]:
        """Factors and bias, without what attributes add."""
        return self.base.item_tables()

    @torch.no_grad()
    def extended(self) -> RatingModel:
        """The model as tables of factors and biases, which need no training pairs and no attributes any more."""
        device = self.base.users.weight.device
        merged = copy.deepcopy(self.base)
        users = torch.arange(self.base.users.num_embeddings, device=device)
        factors, bias = self._users(users)
        if self.implicit is not None:
            factors = factors + self.implicit.of_all()
        merged.users.weight, merged.user_bias.weight = nn.Parameter(factors), nn.Parameter(bias)
        factors, bias = self._items(torch.arange(self.base.items.num_embeddings, device=device))
        merged.items.weight, merged.item_bias.weight = nn.Parameter(factors), nn.Parameter(bias)
        return merged.extended()

    @torch.no_grad()
    def user_prior(self, trained: Tensor, rated: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """As of any model, but the rated items add to the factors."""
        factors, bias = self._users(trained)
        prior = [(rows.mean(dim=0), rows.var(dim=0, unbiased=False)) for rows in (factors, bias)]
        if self.implicit is not None:
            prior[0] = prior[0][0] + self.implicit.of_new(rated), prior[0][1]
        return prior

    def _users(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return factors (users, factors) and biases (users, 1), without the rated items."""
        factors, bias = self.base.users(users), self.base.user_bias(users)
        return (factors, bias) if self.of_user is None else self.of_user(users, factors, bias)

    def _items(self, items: Tensor) -> tuple[Tensor, Tensor]:
        factors, bias = self.base.items(items), self.base.item_bias(items)
        return (factors, bias) if self.of_item is None else self.of_item(items, factors, bias)
