"""Ranking of items that a user may choose next, from what users chose.

Sources: Koren, Factorization meets the neighborhood, 2008; Kabbur, Ning and Karypis, FISM: factored item similarity
models for top-N recommender systems, 2013 (the item to be predicted does not describe its user).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dlrunner.model import Model
from dlrunner.models.collab import Initial, fill, filled_table
from dlrunner.models.rated_items import Attributes, RatedItems
from dlrunner.ranges import Count


@dataclass(frozen=True)
class ChoiceDims:
    """What a ranking model takes from the data."""

    num_users: int
    num_items: int
    users: Tensor
    """The users of the training rows."""
    items: Tensor
    """The items of the training rows."""
    user_attributes: Tensor | None = None
    """Shape (num_users, attributes); None: nothing is known of them but their choices."""
    item_attributes: Tensor | None = None


class Ranking(Model):
    """score = (p_u + |N(u)|^-1/2 Σ y_j) · q_i + b_i, the sum over the items j in N(u) that the user chose in training.

    In training the item i is left out of N(u). Attributes of items add to q and b, those of users to p.

    Args:
        dims: sizes, training pairs and attributes from the data.
        factors: length of an embedding.
        init: of p, q and y; all else is 0 at first.
        most_rated: N(u) of a user with more items is a random sample of so many; `auto`: as the task recommends.
        attributes: include those of items and users.
    """

    group_names: ClassVar[tuple[str, ...]] = ("factors", "biases")

    def __init__(
        self,
        dims: ChoiceDims,
        *,
        factors: Count = 50,
        init: Initial = 0.05,
        most_rated: Count | Literal["auto"] = 200,
        attributes: bool = True,
    ) -> None:
        super().__init__()
        self.users = filled_table(dims.num_users, factors, init)
        self.items, self.item_bias = filled_table(dims.num_items, factors, init), nn.Embedding(dims.num_items, 1)
        nn.init.zeros_(self.item_bias.weight)
        most = 200 if most_rated == "auto" else most_rated
        self.chosen = RatedItems(dims.users, dims.items, dims.num_users, dims.num_items, factors, most)
        fill(self.chosen.weight, init)
        wanted = (dims.user_attributes, dims.item_attributes) if attributes else (None, None)
        self.of_user, self.of_item = (None if each is None else Attributes(each, factors) for each in wanted)

    def forward(self, users: Tensor, items: Tensor | None = None) -> Tensor:
        """Return scores.

        Args:
            users: codes, of shape (batch,).
            items: codes of the item that each user chose, and of others, of shape (batch, items); None: all items.
        """
        if items is None:
            factors, bias = self._items(torch.arange(self.items.num_embeddings, device=users.device))
            return (self._users(users) + self.chosen.of_users(users)) @ factors.T + bias.squeeze(1)
        factors, bias = self._items(items)
        own = self._users(users) + self.chosen.of_each(users, without=items[:, 0])
        scores: Tensor = torch.bmm(factors, own.unsqueeze(2)).squeeze(2) + bias.squeeze(2)
        return scores

    def layer_groups(self) -> Sequence[nn.Module]:
        """Factors of all kinds, then biases."""
        factors: list[nn.Module] = [self.users, self.items, self.chosen]
        biases: list[nn.Module] = [self.item_bias]
        if self.of_user is not None:
            factors += [self.of_user.factors]
        if self.of_item is not None:
            factors += [self.of_item.factors]
            biases += [self.of_item.bias]
        return [nn.ModuleList(factors), nn.ModuleList(biases)]

    def graph(self) -> nn.Module:
        """The scores of all items for each of some users; the last user is unknown."""
        return self.tables().eval()

    @torch.no_grad()
    def tables(self) -> ScoreTables:
        """Return the model as tables, which need no training pairs and no attributes any more."""
        device = self.items.weight.device
        users = torch.arange(self.users.num_embeddings, device=device)
        own = self._users(users)
        items, bias = self._items(torch.arange(self.items.num_embeddings, device=device))
        return ScoreTables(own + self.chosen.of_all(), own.mean(dim=0), items, bias.squeeze(1))

    def _users(self, users: Tensor) -> Tensor:
        """Return the factors of users without those of what they chose."""
        factors: Tensor = self.users(users)
        return factors if self.of_user is None else factors + self.of_user.factors(self.of_user.values[users])

    def _items(self, items: Tensor) -> tuple[Tensor, Tensor]:
        factors, bias = self.items(items), self.item_bias(items)
        return (factors, bias) if self.of_item is None else self.of_item(items, factors, bias)


class ScoreTables(nn.Module):
    """A trained ranking model: score = u · q_i + b_i.

    An unknown user and an unknown item are added, the last rows: only the biases count, of the item the mean.

    Args:
        users: factors of all known users.
        mean: factors that a user has without any choice, on the average.
        items: factors q.
        bias: of items.
    """

    users: Tensor
    mean: Tensor
    items: Tensor
    bias: Tensor

    def __init__(self, users: Tensor, mean: Tensor, items: Tensor, bias: Tensor) -> None:
        super().__init__()
        users, items = (torch.cat([each, torch.zeros_like(each[:1])]) for each in (users, items))
        bias = torch.cat([bias, bias.mean(dim=0, keepdim=True)])
        for name, values in {"users": users, "mean": mean, "items": items, "bias": bias}.items():
            self.register_buffer(name, values.detach())

    def forward(self, users: Tensor) -> Tensor:
        """Return the scores of all known items, (users, items)."""
        return self.users[users] @ self.items[:-1].T + self.bias[:-1]
