"""Collaborative filtering: what a user would give an item, from an embedding of each.

Source: fast.ai deep learning part 1, lesson 5 (2018); Koren, Bell and Volinsky, Matrix factorization
techniques for recommender systems, 2009.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlrunner.errors import ConfigError
from dlrunner.model import Model
from dlrunner.models.dropout import Dropout
from dlrunner.ranges import Count, NonNegative, Positive, Probability

Range = Annotated[list[float], Field(min_length=2, max_length=2)]
Initial = Range | Positive
"""[low, high]: uniform between them; one number: normal with this standard deviation."""


@dataclass(frozen=True)
class RatingDims:
    """Sizes that a rating model takes from the data."""

    num_users: int
    num_items: int
    min_rating: float
    max_rating: float
    item_genres: Tensor | None = None
    """Shape (num_items, num_genres), 1 where an item belongs to a genre."""
    has_time: bool = False
    mean_rating: float | None = None
    """Of the training ratings; None: of a run that did not store it."""
    rated_users: Tensor | None = None
    """The users of the training rows."""
    rated_items: Tensor | None = None
    """The items of the training rows."""
    user_attributes: Tensor | None = None
    """Shape (num_users, attributes); None: nothing is known of them but their ratings."""
    item_attributes: Tensor | None = None


class RatingModel(Model):
    """A model with tables of users and items: `forward(users, items[, times])` gives one rating per row."""

    def user_tables(self) -> Sequence[nn.Embedding]:
        """Return the tables with one row per user; the first one holds the factors."""
        raise TypeError(f"{type(self).__name__} must define its embedding tables")

    def item_tables(self) -> Sequence[nn.Embedding]:
        """Return the tables with one row per item; the first one holds the factors."""
        raise TypeError(f"{type(self).__name__} must define its embedding tables")

    @torch.no_grad()
    def user_prior(self, trained: Tensor, rated: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Return mean and variance of the row of a new user in each of the user tables: those of the trained users.

        Args:
            trained: codes of the users with training ratings.
            rated: codes of the items that the new user rated.
        """
        rows = [table.weight[trained] for table in self.user_tables()]
        return [(each.mean(dim=0), each.var(dim=0, unbiased=False)) for each in rows]

    def graph(self) -> nn.Module:
        """The model that knows one more user and one more item, as `predict` uses it."""
        return self.extended().eval()

    @torch.no_grad()
    def extended(self) -> RatingModel:
        """Return a copy that knows one more user and one more item, the last rows: about whom nothing is known.

        Their factors are the mean of all; a model with biases replaces this by the answer of the biases alone.
        """
        extended = copy.deepcopy(self)
        for table in [*extended.user_tables(), *extended.item_tables()]:
            row = table.weight.mean(dim=0, keepdim=True)
            table.weight = nn.Parameter(torch.cat([table.weight, row]))
            table.num_embeddings += 1
        return extended


class Dot(RatingModel):
    """rating = u · m, the dot product of the two embeddings.

    Args:
        dims: sizes from the data.
        factors: length of an embedding.
        init: of the embeddings.
    """

    group_names: ClassVar[tuple[str, ...]] = ("factors",)

    def __init__(self, dims: RatingDims, *, factors: Count = 50, init: Initial = [0.0, 0.05]) -> None:  # noqa: B006
        super().__init__()
        self.users = filled_table(dims.num_users, factors, init)
        self.items = filled_table(dims.num_items, factors, init)

    def forward(self, users: Tensor, items: Tensor, times: Tensor | None = None) -> Tensor:
        """Return ratings of shape (batch,) for user and item codes of shape (batch,)."""
        match: Tensor = (self.users(users) * self.items(items)).sum(dim=1)
        return match

    def user_tables(self) -> Sequence[nn.Embedding]:
        """One table."""
        return [self.users]

    def item_tables(self) -> Sequence[nn.Embedding]:
        """One table."""
        return [self.items]


class DotBias(RatingModel):
    """rating = low + (high - low) · sigmoid(u · m + user bias + item bias).

    Args:
        dims: sizes from the data.
        factors: length of an embedding.
        init: of embeddings and biases.
        margin: how far the output may lie outside the ratings that occur; the range is
            (min - margin, max + margin).
        start_at_mean: all first predictions are the mean of the training ratings, instead of the middle of the range:
            with few ratings training does not lead there; `auto`: as the task recommends, else false.
    """

    group_names: ClassVar[tuple[str, ...]] = ("factors", "biases")

    def __init__(
        self,
        dims: RatingDims,
        *,
        factors: Count = 50,
        init: Initial = [-0.01, 0.01],  # noqa: B006
        margin: NonNegative = 0.0,
        start_at_mean: bool | Literal["auto"] = False,
    ) -> None:
        super().__init__()
        self.users = filled_table(dims.num_users, factors, init)
        self.items = filled_table(dims.num_items, factors, init)
        self.user_bias, self.item_bias = filled_table(dims.num_users, 1, init), filled_table(dims.num_items, 1, init)
        self.low = dims.min_rating - margin
        self.span = dims.max_rating + margin - self.low
        mean = dims.mean_rating if start_at_mean is True and dims.mean_rating is not None else self.low + self.span / 2
        place = min(max((mean - self.low) / self.span, 1e-6), 1 - 1e-6)
        self.start = math.log(place / (1 - place))

    def forward(self, users: Tensor, items: Tensor, times: Tensor | None = None) -> Tensor:
        """Return ratings of shape (batch,) for user and item codes of shape (batch,)."""
        return self.rating(self.users(users), self.user_bias(users), self.items(items), self.item_bias(items))

    def rating(self, users: Tensor, user_bias: Tensor, items: Tensor, item_bias: Tensor) -> Tensor:
        """Return ratings of shape (batch,) from factors, (batch, factors), and biases, (batch, 1)."""
        match = (users * items).sum(dim=1) + self.start
        match = match + user_bias.squeeze(1) + item_bias.squeeze(1)
        return torch.sigmoid(match) * self.span + self.low

    def layer_groups(self) -> Sequence[nn.Module]:
        """Factors, then biases."""
        return [nn.ModuleList([self.users, self.items]), nn.ModuleList([self.user_bias, self.item_bias])]

    def user_tables(self) -> Sequence[nn.Embedding]:
        """Factors and bias."""
        return [self.users, self.user_bias]

    def item_tables(self) -> Sequence[nn.Embedding]:
        """Factors and bias."""
        return [self.items, self.item_bias]

    @torch.no_grad()
    def extended(self) -> RatingModel:
        """The unknown ones have no factors, only the mean bias."""
        extended = super().extended()
        extended.user_tables()[0].weight[-1] = 0
        extended.item_tables()[0].weight[-1] = 0
        return extended


class Net(RatingModel):
    """A small neural net on the concatenated embeddings, its output scaled to the ratings by a sigmoid.

    Args:
        dims: sizes from the data.
        factors: length of the embeddings of users and of items.
        user_factors, item_factors: lengths apart.
        hidden: sizes of the hidden layers.
        dropouts: on the concatenated input, then after each hidden layer.
        init: of the embeddings.
        linear_init: of the linear layers: torch's default, Kaiming (ReLU) or Xavier.
        margin: the output's range is (min - margin, max + margin).
        genre_factors: length of an embedding of genres, averaged over those of the item; 0 leaves them out.
        time: take the time of the rating as an input, standardised over the training rows.
    """

    group_names: ClassVar[tuple[str, ...]] = ("embeddings", "layers")

    item_genres: Tensor

    def __init__(
        self,
        dims: RatingDims,
        *,
        factors: Count = 50,
        user_factors: Count | None = None,
        item_factors: Count | None = None,
        hidden: Annotated[list[Count], Field(min_length=1)] = [10],  # noqa: B006
        dropouts: list[Probability] = [0.05, 0.5],  # noqa: B006
        init: Initial = [-0.01, 0.01],  # noqa: B006
        linear_init: Literal["torch", "kaiming", "xavier"] = "torch",
        margin: NonNegative = 0.5,
        genre_factors: Annotated[int, Field(ge=0)] = 0,
        time: bool = False,
    ) -> None:
        super().__init__()
        if genre_factors and dims.item_genres is None:
            raise ConfigError("model.genre_factors: this data has no genres; set it to 0")
        if time and not dims.has_time:
            raise ConfigError("model.time: this data has no times; set data.timestamp=NAME, or set it to false")
        self.users = filled_table(dims.num_users, user_factors or factors, init)
        self.items = filled_table(dims.num_items, item_factors or factors, init)
        size = self.users.embedding_dim + self.items.embedding_dim + genre_factors + int(time)
        self.genres: nn.Linear | None = None
        if genre_factors and dims.item_genres is not None:
            shares = dims.item_genres / dims.item_genres.sum(dim=1, keepdim=True).clamp(min=1)
            self.register_buffer("item_genres", torch.cat([shares, torch.zeros(1, shares.shape[1])]))
            self.genres = nn.Linear(shares.shape[1], genre_factors, bias=False)
        self.time = time
        layers: list[nn.Module] = [Dropout(dropouts[0])]
        for width, dropout in zip(hidden, dropouts[1:], strict=True):
            layers += [_linear(size, width, linear_init), nn.ReLU(), Dropout(dropout)]
            size = width
        self.layers = nn.Sequential(*layers, _linear(size, 1, linear_init))
        self.low = dims.min_rating - margin
        self.span = dims.max_rating + margin - self.low

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """There is one dropout for the input and one after each hidden layer."""
        hidden, dropouts = settings["hidden"], settings["dropouts"]
        if len(dropouts) != len(hidden) + 1:
            raise ValueError(
                f"model.dropouts: {len(dropouts)} for {len(hidden)} hidden layer(s); "
                f"give {len(hidden) + 1}: the input's, then each layer's"
            )

    def forward(self, users: Tensor, items: Tensor, times: Tensor | None = None) -> Tensor:
        """Return ratings of shape (batch,) for codes, and times where the model takes them, of shape (batch,)."""
        inputs = [self.users(users), self.items(items)]
        if self.genres is not None:
            inputs.append(self.genres(self.item_genres[items]))
        if self.time:
            inputs.append(torch.zeros_like(inputs[0][:, :1]) if times is None else times.unsqueeze(1))
        outputs = self.layers(torch.cat(inputs, dim=1)).squeeze(1)
        return torch.sigmoid(outputs.float()) * self.span + self.low  # in bfloat16 3.5 is known to ±.008

    def layer_groups(self) -> Sequence[nn.Module]:
        """Embeddings, then layers."""
        embeddings = [self.users, self.items, *([self.genres] if self.genres is not None else [])]
        return [nn.ModuleList(embeddings), self.layers]

    def user_tables(self) -> Sequence[nn.Embedding]:
        """One table."""
        return [self.users]

    def item_tables(self) -> Sequence[nn.Embedding]:
        """One table."""
        return [self.items]


def filled_table(rows: int, columns: int, init: list[float] | float) -> nn.Embedding:
    """Return an embedding, uniform or normal (see `Initial`)."""
    table = nn.Embedding(rows, columns)
    fill(table.weight, init)
    return table


def fill(weight: Tensor, init: list[float] | float) -> None:
    """Fill weights, uniform or normal (see `Initial`)."""
    if isinstance(init, list):
        nn.init.uniform_(weight, init[0], init[1])
    else:
        nn.init.normal_(weight, std=init)


def _linear(inputs: int, outputs: int, init: str) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    if init != "torch":
        fill = nn.init.kaiming_normal_ if init == "kaiming" else nn.init.xavier_normal_
        fill(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
