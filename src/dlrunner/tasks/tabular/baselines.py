"""Simple models of the same table, with which a run is compared: a constant, a linear model, boosted trees."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.periods import YEAR, period_numbers, period_of
from dlrunner.data.core.regression import Regression
from dlrunner.data.core.targets import Target
from dlrunner.data.tabular.lags import group_keys
from dlrunner.data.tabular.table import TabularTable
from dlrunner.task import Split

MOST_ROWS = 100_000
"""To a random sample of more training rows the baselines are fitted."""
MOST_ROW_CLASSES = 2_000_000
"""Of more than 20 classes the sample is smaller: rows times classes determine the time."""
MOST_BOOSTED_CLASSES = 50
"""Boosting fits a tree for each class in each of 100 iterations."""
MOST_CATEGORIES = 255
"""Scikit-learn's boosting takes columns of at most as many as categories, others as numbers."""
LITTLE_DECAY = 1e-3
"""L2 penalty of the regressions with a log link: one-hot categories alone have no unique solution."""
WEEK = 7
BOOSTING = "gradient boosting"
_LINEAR = {0.0: "ridge regression", 1.0: "Poisson regression"}

log = logging.getLogger("dlrunner")

Inputs = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Codes of the categorical columns and standardised numbers, [rows, columns] each."""


@dataclass(frozen=True)
class TableBaselines:
    """Fits simple models on the training rows and computes the metrics of the task.

    Args:
        inputs: codes and numbers of each split.
        targets: encoded targets of each split.
        target: the fitted target.
        cardinalities: number of codes of each categorical column.
        score: returns the metrics of outputs for a split, by name.
        class_weights: of the training rows by their class.
    """

    inputs: Mapping[Split, Inputs]
    targets: Mapping[Split, Tensor]
    target: Target
    cardinalities: list[int]
    score: Callable[[Tensor, Split], Mapping[str, float]]
    class_weights: Tensor | None = None

    def all(self) -> dict[str, dict[str, float]]:
        """Return the metrics of each baseline and the seconds that it takes, by name.

        One that scikit-learn cannot fit is reported and left out. Where all rows have one class, the class frequencies
        are all there is to fit.
        """
        fits = {self._constant_name: self._constant}
        if self._regression.quantiles:
            fits[BOOSTING] = self._boosted_quantiles
        elif self.target.kind == "regression" or (self.target.has_one_class and len(self._sampled_classes[0]) > 1):
            fits[self._linear_name] = self._linear
            if len(self.target.classes) <= MOST_BOOSTED_CLASSES:
                fits[BOOSTING] = self._boosting
        found = {}
        for name, fit in fits.items():
            try:
                found[name] = self._timed(fit)
            except ValueError as failed:
                message = f"note: the baseline {name} could not be computed: {failed}"
                print(message, file=sys.stderr, flush=True)
                log.warning(message, exc_info=True)
        return found

    @property
    def _regression(self) -> Regression:
        """The target if it is numbers; else one without distribution and quantiles."""
        return self.target if isinstance(self.target, Regression) else Regression(self.target.names)

    def _timed(self, fit: Callable[[], Callable[[Split], Tensor]]) -> dict[str, float]:
        started = time.perf_counter()
        predict = fit()
        found: dict[str, float] = {}
        for split in self.inputs:
            if split != "train":
                found |= {f"{split}/{name}": value for name, value in self.score(predict(split), split).items()}
        return {**found, "seconds": round(time.perf_counter() - started, 2)}

    @property
    def _constant_name(self) -> str:
        if self.target.kind != "regression":
            return "class frequencies"
        return "quantiles" if self._regression.quantiles else "mean"

    @property
    def _linear_name(self) -> str:
        if self.target.kind != "regression":
            return "logistic regression"
        return _LINEAR.get(self._regression.power, "Tweedie regression")

    def _constant(self) -> Callable[[Split], Tensor]:
        train = self.targets["train"].cpu()
        if self.target.kind == "multiclass":
            counts = torch.bincount(train, minlength=self.target.num_outputs).float()
            row = (counts / counts.sum()).clamp(min=1e-9).log()
        elif self.target.kind == "regression":
            row = self._of_encoded(train.mean())
            if levels := self._regression.quantiles:  # torch.quantile is for at most 2 ** 24 rows
                row = torch.from_numpy(np.quantile(train.numpy(), levels)).float()
        else:
            row = torch.logit(train.mean(dim=0), eps=1e-6)
        return lambda split: row.expand(len(self.targets[split]), *row.shape)

    def _linear(self) -> Callable[[Split], Tensor]:
        from scipy.sparse import csr_matrix, hstack
        from sklearn.linear_model import LogisticRegression, Ridge, TweedieRegressor
        from sklearn.preprocessing import OneHotEncoder

        rows = self._sample()
        codes, _ = self.inputs["train"]
        encoder = OneHotEncoder(handle_unknown="ignore").fit(codes[rows]) if codes.shape[1] else None

        def matrix(split: Split, chosen: NDArray[np.int64] | slice) -> Any:
            codes, numbers = self.inputs[split]
            parts = [csr_matrix(numbers[chosen].clip(-10, 10))]  # an outlier of new rows is not extrapolated
            return hstack([*parts, encoder.transform(codes[chosen])] if encoder else parts).tocsr()

        kind = Ridge() if self.target.kind == "regression" else LogisticRegression(max_iter=200)
        if power := self._regression.power:
            kind = TweedieRegressor(power=power, link="log", alpha=LITTLE_DECAY, max_iter=300)
        model = kind.fit(matrix("train", rows), self._train_targets(rows), sample_weight=self._row_weights(rows))
        return lambda split: self._in_pieces(split, lambda some: self._outputs(model, matrix(split, some)))

    def _boosting(self) -> Callable[[Split], Tensor]:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if self.target.kind == "regression":
            loss = "poisson" if self._regression.power else "squared_error"
            return self._boosted(HistGradientBoostingRegressor, {"loss": loss})
        # To stop early a tenth of each class is held out: of one row nothing is left.
        is_rare = self._sampled_classes[1].min() < 2
        return self._boosted(HistGradientBoostingClassifier, {"early_stopping": False if is_rare else "auto"})

    def _boosted_quantiles(self) -> Callable[[Split], Tensor]:
        from sklearn.ensemble import HistGradientBoostingRegressor

        fitted = [
            self._boosted(HistGradientBoostingRegressor, {"loss": "quantile", "quantile": level})
            for level in self._regression.quantiles
        ]
        return lambda split: torch.stack([predict(split) for predict in fitted], dim=1)

    def _boosted(self, kind: Any, settings: Mapping[str, Any]) -> Callable[[Split], Tensor]:
        rows = self._sample()
        small = [size <= MOST_CATEGORIES for size in self.cardinalities]

        def matrix(split: Split, chosen: NDArray[np.int64] | slice) -> NDArray[np.float32]:
            codes, numbers = self.inputs[split]
            return np.concatenate([codes[chosen].astype(np.float32), numbers[chosen]], axis=1)

        is_category = np.array([*small, *[False] * self.inputs["train"][1].shape[1]])
        model = kind(categorical_features=is_category, random_state=0, **settings)
        model.fit(matrix("train", rows), self._train_targets(rows), sample_weight=self._row_weights(rows))
        return lambda split: self._in_pieces(split, lambda some: self._outputs(model, matrix(split, some)))

    def _in_pieces(self, split: Split, outputs: Callable[[slice], Tensor]) -> Tensor:
        """Return outputs that are computed for some rows at a time: the inputs of a model are copies, in 64 bits."""
        starts = range(0, len(self.targets[split]), MOST_ROWS)
        return torch.cat([outputs(slice(start, start + MOST_ROWS)) for start in starts])

    def _sample(self) -> NDArray[np.int64]:
        most = min(MOST_ROWS, MOST_ROW_CLASSES // max(1, len(self.target.classes)))
        return np.sort(np.random.RandomState(0).permutation(len(self.targets["train"]))[:most])

    @property
    def _sampled_classes(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The classes of the sampled rows, and how many rows each has."""
        return np.unique(self._train_targets(self._sample()), return_counts=True)

    def _train_targets(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(self.targets["train"].cpu().numpy()[rows])

    def _of_encoded(self, numbers: Tensor) -> Tensor:
        """Return predictions of encoded numbers as the outputs of a net."""
        return self._regression.outputs_of(numbers)

    def _row_weights(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        if self.class_weights is None:
            return None
        return np.asarray(self.class_weights.numpy()[self._train_targets(rows).astype(np.int64)])

    def _outputs(self, model: Any, inputs: Any) -> Tensor:
        """Return a model's predictions as the outputs of a net: encoded numbers, or logits."""
        if self.target.kind == "regression":
            return self._of_encoded(torch.from_numpy(model.predict(inputs)).float())
        log_p = np.log(np.clip(model.predict_proba(inputs), 1e-9, 1))
        scores = torch.full((len(log_p), len(self.target.classes)), -1e9)
        scores[:, model.classes_.astype(int)] = torch.from_numpy(log_p).float()
        return scores[:, 1] - scores[:, 0] if self.target.kind == "binary" else scores


def naive_forecasts(table: TabularTable, split: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Return the forecasts that need no model by name; none if training rows are not all older, or too few.

    These are less than two weeks of days, or less than two weeks or months where these are the periods.

    The target of the last training day of the same weekday (of the last week or month, where these are the periods),
    and that of a year before (364 days, 52 weeks, 12 months).
    Rows of one day are distinguished by the columns that the user named, else by the categorical column that, with the
    day, names each training row; without one, the mean of the day is used. A row without such a training row has the
    mean of training.

    Args:
        table: with dates, and numbers as targets.
        split: which rows to predict, [rows].
    """
    if table.dates is None or table.dates[table.train].max() >= table.dates[split].min():
        return {}
    period = period_of(table.dates)
    frame = pd.DataFrame({"day": table.dates.dt.normalize(), "value": table.values})
    frame["weekday"] = table.dates.dt.day_of_week if period == "day" else 0
    frame["period"] = period_numbers(table.dates, period)
    by: list[str] = []
    if columns := table.series or _distinguishing(table, frame["day"]):
        frame["by"], by = group_keys(table.frame, columns), ["by"]
    train, new = frame[table.train], frame[split]
    if train["day"].nunique() < (2 * WEEK if period == "day" else 2):
        return {}
    mean = train["value"].mean()
    by_day = train.groupby(["weekday", *by, "day"], sort=True)["value"].mean().reset_index()
    last, day = by_day.groupby(["weekday", *by])["value"].last(), "weekday" if period == "day" else period
    found = {"last same weekday" if period == "day" else f"last {period}": _looked_up(last, new, mean)}
    if train["period"].min() <= new["period"].min() - YEAR[period]:
        by_period = train.groupby(["period", *by])["value"].mean()
        before = new.assign(period=new["period"] - YEAR[period])
        found[f"same {day} last year"] = _looked_up(by_period, before, mean)
    return found


def _distinguishing(table: TabularTable, days: pd.Series[Any]) -> list[str]:
    """Return the categorical column that, with the day, names each training row; empty if the day does, or none."""
    train = days[table.train]
    if not train.duplicated().any():
        return []
    for name in table.roles.categorical:
        known = pd.DataFrame({"day": train, "by": table.frame[name][table.train].astype(str)})
        if name not in table.roles.parts and not known.duplicated().any():
            return [name]
    return []


def _looked_up(known: pd.Series[Any], rows: pd.DataFrame, otherwise: float) -> NDArray[np.float64]:
    """Return the known values at the keys of rows, which are the names of the index."""
    keys = list(known.index.names)
    index = pd.MultiIndex.from_frame(rows[keys]) if len(keys) > 1 else pd.Index(rows[keys[0]])
    return known.reindex(index).fillna(otherwise).to_numpy(np.float64)
