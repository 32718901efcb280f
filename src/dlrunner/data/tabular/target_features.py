"""A table with columns that are made from its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from dlrunner.data.core.splitting import Parts


@dataclass(frozen=True)
class TargetFeatures:
    """Lags and rolling means of the target, or the features of its history."""

    frame: pd.DataFrame
    """The table with the new columns."""
    split: Parts
    """Without the rows that serve as history only."""
    names: list[str]
    """Of the new columns that are inputs."""
    what: str
    columns: list[str]
    """Of the table, which they are made from."""
    recipe: dict[str, Any]
    """What those of new rows are computed from, by the name of the kind."""
    notes: list[str]
    base: str | None = None
    """A new column that the model's outputs are added to."""
