"""Implicit feedback: rank the items that a user may choose next, from purchases, clicks or plays without ratings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.batching import TensorLoader, epoch_order
from dlrunner.data.core.splitting import PART_CODES, TRAIN
from dlrunner.data.ratings.dataset import RatingsData
from dlrunner.data_audit import SplitStatistics
from dlrunner.files.spreadsheet import as_csv
from dlrunner.metrics import Metric
from dlrunner.model import AveragedOutputs, Model
from dlrunner.models.ranking import ChoiceDims, Ranking
from dlrunner.plot import Plot
from dlrunner.ranges import Count
from dlrunner.row_blocks import KeptRows, occurrences
from dlrunner.schedules import Phase
from dlrunner.task import Loader, Split
from dlrunner.tasks.collab.choice_loaders import SampledLoader, UserLoader
from dlrunner.tasks.collab.defaults import recommended_for_choices
from dlrunner.tasks.collab.implicit_predictor import ChoicePredictor
from dlrunner.tasks.collab.ranking_metrics import (
    CHOSEN,
    NDCG,
    SEEN,
    Coverage,
    MeanAveragePrecision,
    Recall,
    without_seen,
)
from dlrunner.tasks.collab.ratings_task import RatingsTask


class Implicit(RatingsTask):
    """Ranks items by users' choices; trained against sampled items, monitors the NDCG.

    A row of the table says that a user chose an item. Validation ranks, for each user with validation rows, all items
    that the user did not choose in training; the test split those chosen neither in training nor in validation.

    Args:
        data: the table.
        batch_size: training rows per batch.
        seed: of the shuffling and of the sampled items.
        device: where the table is kept.
        loss: `softmax`: cross entropy of the chosen item among the sampled ones (sampled softmax); `bpr`: each sampled
            item must score lower (Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, 2009).
        negatives: items that are sampled for each row, uniformly.
        top: number of items that a user is shown: the k of the metrics.
        valid_batch_size: users per batch of validation; affects only the speed.
    """

    predictor = ChoicePredictor
    keeps_outputs = False
    auto_settings = ("batch_size", "epochs", "model.most_rated", "optim.weight_decay")

    def __init__(
        self,
        data: RatingsData,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        loss: Literal["softmax", "bpr"] = "softmax",
        negatives: Count = 64,
        top: Count = 10,
        valid_batch_size: Count = 256,
    ) -> None:
        super().__init__(data, batch_size, seed, device)
        self.kind, self.negatives, self.top, self.valid_batch_size = loss, negatives, top, valid_batch_size

    def recommended(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Choose by the number of training rows."""
        return recommended_for_choices(self.table.part(TRAIN).stop)

    @cached_property
    def dims(self) -> ChoiceDims:
        """Numbers of users and items, their training pairs and attributes."""
        table = self.table
        attributes = (
            None if each is None else torch.tensor(each) for each in (table.user_attributes, table.item_attributes)
        )
        users, items = (torch.from_numpy(codes[table.part(TRAIN)]) for codes in (table.users, table.items))
        return ChoiceDims(len(table.user_ids), len(table.item_ids), users, items, *attributes)

    def batches(self, split: Split, epoch: int, phase: Phase, start: int = 0) -> Loader:
        """Training rows with sampled items; or users with a target for every item."""
        if split != "train":
            return self._rankings[split]
        users, items = self._training
        order = epoch_order(len(users), self.seed, epoch)
        rows = TensorLoader([users, items], torch.zeros_like(users), self.batch_size, order, start)
        return SampledLoader(rows, self.negatives, len(self.table.item_ids), (self.seed, epoch), start)

    @cached_property
    def _training(self) -> tuple[Tensor, Tensor]:
        return self.dims.users.to(self.device), self.dims.items.to(self.device)

    @cached_property
    def _rankings(self) -> dict[Split, UserLoader]:
        """Users of each split that has rows, with what they chose in it and before it."""
        table, found = self.table, dict[Split, UserLoader]()
        names: Sequence[Split] = ("valid", "test")
        for name in names:
            part = PART_CODES[name]
            known = np.isin(table.users, table.users[table.split == part]) & (table.split <= part)
            rows = np.flatnonzero(known)
            rows = rows[np.argsort(table.users[rows], kind="stable")]
            targets: NDArray[np.int8] = np.where(table.split[rows] == part, CHOSEN, SEEN).astype(np.int8)
            if len(rows):
                pairs, size = (table.users[rows], table.items[rows], targets), self.valid_batch_size
                found[name] = UserLoader(*pairs, len(table.item_ids), size, self.device)
        return found

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss against sampled items; of whole rankings the mean cross entropy of each user's choices."""
        scores = outputs.float()
        if targets.ndim == 1:
            if self.kind == "softmax":
                return F.cross_entropy(scores, targets)
            return F.softplus(scores[:, 1:] - scores[:, :1]).mean()
        surprise = -scores.masked_fill(targets == SEEN, -torch.inf).log_softmax(dim=1)
        chosen = targets == CHOSEN
        return (torch.where(chosen, surprise, 0.0).sum(dim=1) / chosen.sum(dim=1)).mean()

    def purpose(self) -> str:
        """Rank the items."""
        return "Rank the items"

    def metrics(self) -> Mapping[str, Metric]:
        """NDCG (monitored), recall, mean average precision and coverage of the first items."""
        k = self.top
        return {"ndcg": NDCG(k), "recall": Recall(k), "map": MeanAveragePrecision(k), "coverage": Coverage(k)}

    def split_statistics(self) -> SplitStatistics:
        """User-item pairs and times."""
        return self.statistics({})

    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Popularity, and items similar to the chosen ones."""
        from dlrunner.tasks.collab.ranking_baselines import popularity, similar_items

        found = dict[str, dict[str, float]]()
        for name, fit in (("popularity", popularity), ("similar items (kNN)", similar_items)):
            started = time.perf_counter()
            scores_of = fit(self.table)
            if scores_of is None:
                continue
            found[name] = {}
            for split, loader in self._rankings.items():
                metrics = self.metrics()
                for batch in loader:
                    scores = scores_of(batch.inputs[0].cpu())
                    for metric in metrics.values():
                        metric.update(scores, batch.targets.cpu())
                found[name] |= {f"{split}/{key}": metric.compute() for key, metric in metrics.items()}
            found[name]["seconds"] = round(time.perf_counter() - started, 2)
        return found

    def artifacts(self, models: Sequence[Model], phase: Phase) -> Mapping[str, bytes]:
        """Return predictions.csv: what each validation user is shown, and the rank of what the user chose."""
        return {"predictions.csv": as_csv(self._shown(models))[0]}

    @torch.inference_mode()
    def _shown(self, models: Sequence[Model]) -> pd.DataFrame:
        """Return the first items of each validation user, and those chosen in validation; by user and rank."""
        table, model = self.table, AveragedOutputs(models, self.average).eval()
        found = [KeptRows() for _ in range(5)]
        for batch in self._rankings["valid"]:
            (users,), chosen = batch.inputs, batch.targets == CHOSEN
            scores = without_seen(model(users).outputs, batch.targets)
            order = scores.argsort(dim=1, descending=True, stable=True)
            first, in_order = chosen.gather(1, order), scores.gather(1, order)
            first[:, : self.top] = True
            rows, ranks = (first & in_order.isfinite()).nonzero(as_tuple=True)
            items = order[rows, ranks]
            columns = users[rows], items, ranks + 1, in_order[rows, ranks], chosen[rows, items]
            for kept, column in zip(found, columns, strict=True):
                kept.add(column.cpu())
        all_users, all_items, all_ranks, prediction, taken = (each.joined().numpy() for each in found)
        return pd.DataFrame(
            {
                "user": np.asarray(table.user_ids, dtype=object)[all_users],
                "item": np.asarray(table.item_ids, dtype=object)[all_items],
                "title": np.asarray(table.titles, dtype=object)[all_items],
                "rank": all_ranks,
                "prediction": prediction.round(4),
                "chosen": taken.astype(np.int8),
            }
        )

    def plots(self, models: Sequence[Model], outputs: Tensor, folder: Path, phase: Phase) -> Sequence[Plot]:
        """Principal components and a map of the items by their factors."""
        from dlrunner.reporting.plots import collab as collab_plots

        table, (model, *_) = self.table, models
        if not isinstance(model, Ranking):
            return []
        factors = model.tables().items[:-1].float().cpu().numpy()
        counts = occurrences(table.items[table.part(TRAIN)], len(table.item_ids))
        return [
            collab_plots.item_components(factors, table.titles, counts, folder),
            collab_plots.item_map(factors, table.titles, counts, folder),
        ]

    def state(self, phase: Phase) -> dict[str, Any]:
        """Ids, titles, training and held-out pairs, attributes: recommendations need no data set."""
        table, dims = self.table, self.dims
        return {
            "user_ids": table.user_ids,
            "item_ids": table.item_ids,
            "titles": table.titles,
            "columns": table.columns,
            "schema": table.schema,
            "lowest_choice": self.data.min_rating,
            "user_attributes": dims.user_attributes,
            "item_attributes": dims.item_attributes,
            "rated_users": dims.users,
            "rated_items": dims.items,
            **self.held_out_pairs(),
        }
