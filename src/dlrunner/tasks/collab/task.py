"""Collaborative filtering: predict the rating a user would give an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.batching import TensorLoader, epoch_order
from dlrunner.data.core.splitting import PART_CODES, TRAIN, VALID, Splitting, split_again
from dlrunner.data.core.variation import is_constant, standard_deviation
from dlrunner.data.ratings.dataset import RatingsData, RatingsTable
from dlrunner.data_audit import SplitStatistics
from dlrunner.errors import DataError
from dlrunner.metrics import MeanAbsoluteError, Metric, RootMeanSquaredError
from dlrunner.model import Model
from dlrunner.models.collab import RatingDims, RatingModel
from dlrunner.plot import Plot
from dlrunner.ranges import Count
from dlrunner.row_blocks import blocks_of, occurrences
from dlrunner.schedules import Phase
from dlrunner.task import Loader, Split
from dlrunner.tasks.collab.defaults import less_decay, recommended_for
from dlrunner.tasks.collab.ensemble_predictor import RatingEnsemble
from dlrunner.tasks.collab.predictor import RatingPredictor
from dlrunner.tasks.collab.ratings_task import RatingsTask

SMALL_VARIANCE = 0.01
"""Of ratings; the loss of smaller ones is relative to theirs."""


class Collab(RatingsTask):
    """Predicts ratings of user-item pairs; trained on the mean squared error, monitors the RMSE.

    Args:
        data: the ratings table.
        batch_size: training rows per batch.
        seed: of the shuffling.
        device: where the table is kept (100,000 ratings take 2 MB).
        valid_batch_size: validation rows per batch; affects only the speed.
    """

    predictor = RatingPredictor
    auto_settings = ("batch_size", "epochs", "model.most_rated", "model.start_at_mean", "optim.weight_decay")

    def __init__(
        self,
        data: RatingsData,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        valid_batch_size: Count = 16384,
    ) -> None:
        super().__init__(data, batch_size, seed, device)
        self.valid_batch_size = valid_batch_size

    def recommended(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Choose by the training rows and users (see `recommended_for`); MovieLens starts as in the lesson."""
        found = recommended_for(self._num_train, settings, len(self.table.user_ids))
        return {**found, "model.start_at_mean": self.data.file is not None}

    def alternatives(self, values: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
        """Less decay of the factors, of a user's own table: how much they explain depends on the ratings."""
        decay = values.get("optim.weight_decay")
        if self.data.file is None or not isinstance(decay, list):
            return {}
        return {"optim.weight_decay": less_decay(decay, self._num_train)}

    def on_training_rows(self) -> Collab:
        """The ratings without validation and test rows: a fifth of them validates."""
        inner = type(self)(self.data, self.batch_size, self.seed, self.device, valid_batch_size=self.valid_batch_size)
        inner.table = self.table.with_split(split_again(self.table.split, Splitting(split_seed=0)))
        return inner

    @cached_property
    def dims(self) -> RatingDims:
        """Sizes, the range of the training ratings, their pairs, and what else is known of users and items.

        Raises:
            DataError: all training ratings are equal.
        """
        table = self.table
        (users, items, *_), targets = self._parts["train"]
        ratings = targets.numpy()
        if ratings.min() == ratings.max():
            lowest = self.data.min_rating
            why = "" if lowest is None else f" (data.min_rating={lowest:g} leaves out lower ones)"
            raise DataError(
                f"all {len(ratings):,} training ratings are {ratings[0]:g}{why}: there is nothing to learn; "
                "task=implicit learns from which items a user has rated"
            )
        return RatingDims(
            num_users=len(table.user_ids),
            num_items=len(table.item_ids),
            min_rating=float(ratings.min()),
            max_rating=float(ratings.max()),
            item_genres=_tensor(table.item_genres),
            has_time=table.times is not None,
            mean_rating=float(ratings.mean(dtype=np.float64)),
            rated_users=users,
            rated_items=items,
            user_attributes=_tensor(table.user_attributes),
            item_attributes=_tensor(table.item_attributes),
        )

    @cached_property
    def _parts(self) -> dict[Split, tuple[list[Tensor], Tensor]]:
        """Inputs (users, items and, if known, times) and targets of each split that has rows: views of the table."""
        table, parts = self.table, dict[Split, tuple[list[Tensor], Tensor]]()
        columns: list[NDArray[Any]] = [table.users, table.items]
        if table.times is not None:
            mean, std = self._time_scale
            columns.append(np.empty(len(table.times), dtype=np.float32))
            for block in blocks_of(len(table.times)):
                columns[-1][block] = (table.times[block] - mean) / std if std else 0
        names: Sequence[Split] = ("train", "valid", "test")
        for name in names:
            rows = table.part(PART_CODES[name])
            if rows.start < rows.stop:
                *inputs, targets = (torch.from_numpy(each[rows]) for each in (*columns, table.ratings))
                parts[name] = inputs, targets
        return parts

    @cached_property
    def _tensors(self) -> dict[Split, tuple[list[Tensor], Tensor]]:
        """The same on the device; on the CPU there is no second copy."""
        return {
            name: ([each.to(self.device) for each in inputs], targets.to(self.device))
            for name, (inputs, targets) in self._parts.items()
        }

    @cached_property
    def _time_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the training rows' times."""
        return _scale(self.table)

    @property
    def _num_train(self) -> int:
        return int(self.table.part(TRAIN).stop)

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Rows of the table on the device."""
        inputs, targets = self._tensors[split]
        if split == "train":
            return TensorLoader(inputs, targets, self.batch_size, epoch_order(len(targets), self.seed, epoch), start)
        return TensorLoader(inputs, targets, self.valid_batch_size, start=start)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error; of small numbers, such as fractions of .001, relative to their variance."""
        return F.mse_loss(outputs.float(), targets) / self._unit

    @cached_property
    def _unit(self) -> float:
        """The variance of the training ratings if it is small: else Adam's epsilon, 1e-8, would count."""
        mean, train = self.dims.mean_rating, self.table.ratings[self.table.part(TRAIN)]
        if mean is None or is_constant(train):
            return 1.0
        squares = (((train[block].astype(np.float64) - mean) ** 2).sum() for block in blocks_of(len(train)))
        variance = float(sum(squares)) / len(train)
        return variance if variance < SMALL_VARIANCE else 1.0

    def purpose(self) -> str:
        """Predict the ratings."""
        return "Predict the ratings"

    def metrics(self) -> Mapping[str, Metric]:
        """RMSE (monitored) and MAE."""
        return {"rmse": RootMeanSquaredError(), "mae": MeanAbsoluteError()}

    def split_statistics(self) -> SplitStatistics:
        """User-item pairs, times, and the fitted range and time scale of the training ratings."""
        table = self.table
        ratings = table.ratings[table.part(TRAIN)]
        fitted = {
            "lowest rating": (self.dims.min_rating, float(ratings.min())),
            "highest rating": (self.dims.max_rating, float(ratings.max())),
        }
        if table.times is not None:
            mean, std = self._time_scale
            fitted["mean time"], fitted["std of time"] = zip((mean, std), _scale(table), strict=True)
        return self.statistics(fitted)

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """The mean, biases of users and items, and similar items; within the range of the ratings."""
        from dlrunner.tasks.collab.baselines import rating_baselines

        table, dims = self.table, self.dims
        found: dict[str, dict[str, float]] = {}
        parts = table.split[self._num_train :]
        for name, (predicted, seconds) in rating_baselines(table).items():
            within = torch.from_numpy(predicted.clip(dims.min_rating, dims.max_rating)).float()
            found[name] = {"seconds": seconds}
            for split, (_, targets) in self._parts.items():
                if split == "train":
                    continue
                rows = torch.from_numpy(parts == PART_CODES[split])
                for key, metric in self.metrics().items():
                    metric.update(within[rows], targets)
                    found[name][f"{split}/{key}"] = metric.compute()
        return found

    def predictions(self, outputs: Tensor) -> pd.DataFrame:
        """The validation rows with their predictions."""
        table = self.table
        rows = table.part(VALID)
        users, items = table.users[rows], table.items[rows]
        return pd.DataFrame(
            {
                "user": _values_of(users, table.user_ids),
                "item": _values_of(items, table.item_ids),
                "title": _values_of(items, table.titles),
                "rating": table.ratings[rows],
                "prediction": outputs.float().cpu().numpy().round(4),
            },
            copy=False,
        )

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Predictions against ratings, cross table, item biases, principal components and item map."""
        from dlrunner.reporting.plots import collab as collab_plots

        table = self.table
        drawn = [collab_plots.predictions(table.ratings[table.part(VALID)], outputs.float().cpu().numpy(), folder)]
        drawn.append(collab_plots.cross_table(table, RatingEnsemble(self.state(phase), models).pairs, folder))
        rated = occurrences(table.items[table.part(TRAIN)], len(table.item_ids))
        answering = _rating_model(models[0]).extended()  # the last row is of an unknown item
        tables = [each.weight.detach()[:-1].float().cpu().numpy() for each in answering.item_tables()]
        if len(tables) > 1:
            drawn.append(collab_plots.item_biases(tables[1][:, 0], table.titles, rated, folder))
        drawn.append(collab_plots.item_components(tables[0], table.titles, rated, folder))
        drawn.append(collab_plots.item_map(tables[0], table.titles, rated, folder))
        return drawn

    def state(self, phase: Phase) -> dict[str, Any]:
        """Ids, titles, training ratings, held-out pairs and how all were read: recommendations need no data set."""
        table, dims = self.table, self.dims
        return {
            "user_ids": table.user_ids,
            "item_ids": table.item_ids,
            "titles": table.titles,
            "columns": table.columns,
            "schema": table.schema,
            "min_rating": dims.min_rating,
            "max_rating": dims.max_rating,
            "mean_rating": dims.mean_rating,
            "item_genres": dims.item_genres,
            "user_attributes": dims.user_attributes,
            "item_attributes": dims.item_attributes,
            "time_scale": self._time_scale if table.times is not None else None,
            "rated_users": dims.rated_users,
            "rated_items": dims.rated_items,
            "ratings": self._parts["train"][1],
            **self.held_out_pairs(),
        }


def _values_of(codes: NDArray[np.int32], values: Sequence[int | str]) -> pd.Series[Any]:
    """Return the value of each code, as objects: pandas' own strings would be a copy of each."""
    return pd.Series(np.asarray(values, dtype=object)[codes], dtype=object)


def _scale(table: RatingsTable) -> tuple[float, float]:
    """Return mean and standard deviation of the training rows' times."""
    assert table.times is not None
    times = table.times[table.part(TRAIN)].astype(np.float64)
    return float(times.mean()), standard_deviation(times)


def _tensor(values: NDArray[np.float32] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values)


def _rating_model(model: Model) -> RatingModel:
    if not isinstance(model, RatingModel):
        raise TypeError(f"{type(model).__name__} is not a rating model")
    return model
