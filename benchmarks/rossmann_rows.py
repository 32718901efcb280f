"""Rossmann's rows, split and preprocessed by dlrunner, in a file that every environment can read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dlrunner.data.rossmann.dataset import RossmannData
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.metrics import Metric
from dlrunner.models.tabular_layers import embedding_size


def write_rows(data: RossmannData, file: Path) -> NDArray[np.float64]:
    """Write codes, numbers and targets of all rows, and the validation mask; return the validation sales."""
    table = data.read()
    train = ~table.valid
    preparation = TabularPreprocessor.fit(table.frame[train], table.roles.categorical, table.roles.continuous)
    target = table.target.fit(table.values[train])
    cardinalities = list(preparation.cardinalities.values())
    np.savez(
        file,
        names=np.array(list(preparation.categories)),
        cardinalities=np.array(cardinalities),
        embedding_sizes=np.array([embedding_size(rows) for rows in cardinalities]),
        codes=preparation.codes(table.frame),
        numbers=preparation.numbers(table.frame),
        log_sales=target.encode(table.values).numpy(),
        highest=np.array(1.2 * target.statistics()["high"]),
        valid=table.valid,
    )
    sales: NDArray[np.float64] = table.values[table.valid]
    return sales


def score(metric: Metric, predicted: NDArray[np.float64], sales: NDArray[np.float64]) -> float:
    """Return a metric of predictions, both in euros and in the order of the file."""
    metric.update(torch.tensor(predicted), torch.tensor(sales))
    return metric.compute()
