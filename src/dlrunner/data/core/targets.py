"""What a table's model should say: how the target column becomes a tensor, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.columns import levels_of, quoted
from dlrunner.errors import ConfigError, DataError, did_you_mean

Kind = Literal["regression", "binary", "multiclass", "multilabel"]
Transform = Literal["standard", "log", "none"]


@dataclass(frozen=True)
class Target:
    """What was found out about the target; fitted on the training rows, stored in the run."""

    names: list[str]
    kind: Kind
    classes: list[Any] = field(default_factory=list)
    """The levels of a class target, in the order of their codes; of a multi-label target its labels."""
    transform: Transform = "none"
    mean: float = 0.0
    deviation: float = 1.0
    low: float = 0.0
    """Of the transformed training targets."""
    high: float = 1.0
    middle: float = 0.0
    """Mean of the transformed training targets."""
    separator: str | None = None

    @property
    def num_outputs(self) -> int:
        """Numbers the model gives per row."""
        return len(self.classes) if self.kind in ("multiclass", "multilabel") else 1

    def decode(self, values: Tensor) -> Tensor:
        """Return transformed targets, or outputs, of shape [rows] in the target's own unit, in float64."""
        values = values.double()
        if self.transform == "log":
            return values.exp()
        return values * self.deviation + self.mean if self.transform == "standard" else values

    def state(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Target:
        """Return what `state` was made from."""
        return cls(**state)


def read_target(
    frame: pd.DataFrame,
    target: str | list[str],
    kind: Literal["auto"] | Kind,
    separator: str | None,
    transform: Literal["auto"] | Transform,
    place: Path,
) -> tuple[Target, NDArray[Any]]:
    """Return what the target is, without statistics, and its values: float64, class codes, or 0/1 by label.

    Raises:
        ConfigError: the column does not exist, or cannot be of that kind.
        DataError: values are missing, not finite, not numbers, or have no logarithm.
    """
    names = target if isinstance(target, list) else [target]
    for name in names:
        if name not in frame.columns:
            raise ConfigError(f"data.target: {place} has no column {name!r}; {did_you_mean(name, frame.columns)}")
        missing = frame[name].isna().to_numpy()
        if missing.any() and separator is None:
            raise DataError(
                f"{place}, row {int(missing.argmax()) + 2}: the target {name} is missing; "
                f"{int(missing.sum()):,} such row(s) in all"
            )
    if len(names) > 1 or separator is not None:
        if kind not in ("auto", "multilabel"):
            raise ConfigError(f"data.kind: several targets are labels, not {kind}")
        return _labels(frame, names, separator, place)
    column = frame[names[0]]
    found = _guess_kind(column) if kind == "auto" else kind
    if found != "regression" and transform not in ("auto", "none"):
        raise ConfigError(
            f"data.target_transform: {transform} is for numbers; {names[0]} is taken as {found} "
            "(data.kind=regression says otherwise)"
        )
    if found == "regression":
        return _numbers(column, names[0], "standard" if transform == "auto" else transform, place)
    if found == "multilabel":
        raise ConfigError("data.kind: multilabel needs data.target=[a,b,c] or data.target_separator")
    return _classes(column, names[0], found, place)


def _guess_kind(column: pd.Series[Any]) -> Kind:
    """Text and truth values are classes, 0 and 1 are too; other numbers are quantities."""
    levels = column.nunique()
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "binary" if set(column.unique().tolist()) <= {0, 1} else "regression"
    if levels > 2 and pd.to_numeric(column, errors="coerce").notna().mean() > 0.5:
        return "regression"  # numbers with a typing error among them: it is told with its row
    return "binary" if levels <= 2 else "multiclass"


def _numbers(
    column: pd.Series[Any], name: str, transform: Transform, place: Path
) -> tuple[Target, NDArray[np.float64]]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{place}, row {row + 2}: the target {name} is {quoted(column.iloc[row])}, which is no finite number; "
            f"{int(bad.sum()):,} such row(s) in all (data.kind=multiclass takes texts as classes)"
        )
    if transform == "log" and (numbers <= 0).any():
        row = int((numbers <= 0).argmax())
        raise DataError(
            f"{place}, row {row + 2}: the target {name} is {numbers[row]:g}, which has no logarithm; "
            f"{int((numbers <= 0).sum()):,} such row(s) in all (leave them out, or data.target_transform=standard)"
        )
    if numbers.min() == numbers.max():
        raise DataError(f"{place}: the target {name} is {numbers[0]:g} in all rows; there is nothing to learn")
    return Target([name], "regression", transform=transform), numbers


def _classes(column: pd.Series[Any], name: str, kind: Kind, place: Path) -> tuple[Target, NDArray[np.int64]]:
    values = levels_of(column)
    levels = sorted(pd.unique(values).tolist(), key=lambda level: (isinstance(level, str), level))
    if len(levels) < 2:
        raise DataError(f"{place}: the target {name} is {levels[0]} in all rows; there is nothing to learn")
    if kind == "binary" and len(levels) != 2:
        raise ConfigError(f"data.kind: binary needs two classes; {name} has {len(levels)}")
    if len(levels) > 1000:
        raise DataError(
            f"{place}: the target {name} has {len(levels):,} classes in {len(column):,} rows; "
            "is it a quantity (data.kind=regression), or an id?"
        )
    codes = pd.Index(levels).get_indexer(values)
    return Target([name], kind, classes=levels), np.asarray(codes, dtype=np.int64)


def _labels(
    frame: pd.DataFrame, names: list[str], separator: str | None, place: Path
) -> tuple[Target, NDArray[np.float32]]:
    if separator is not None:
        table = frame[names[0]].fillna("").astype(str).str.get_dummies(sep=separator)
        labels = [str(label) for label in table.columns]
        if len(labels) < 2:
            raise DataError(f"{place}: {names[0]} split at {separator!r} gives {len(labels)} label(s)")
        return Target(names, "multilabel", classes=labels, separator=separator), table.to_numpy(np.float32)
    for name in names:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = ~np.isin(numbers, [0, 1])
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"{place}, row {row + 2}: the label {name} is {quoted(frame[name].iloc[row])}, not 0 or 1")
    return Target(names, "multilabel", classes=list(names)), frame[names].to_numpy(np.float32)


def fit_target(target: Target, train: NDArray[Any]) -> Target:
    """Return the target with the statistics of the training rows."""
    if target.kind != "regression":
        return target
    mean, deviation = 0.0, 1.0
    if target.transform == "standard":
        mean, deviation = float(train.mean()), float(train.std()) or 1.0
    fitted = Target(target.names, target.kind, transform=target.transform, mean=mean, deviation=deviation)
    encoded = encode(fitted, train)
    return Target(
        **{**asdict(fitted), "low": float(encoded.min()), "high": float(encoded.max()), "middle": float(encoded.mean())}
    )


def encode(target: Target, values: NDArray[Any]) -> Tensor:
    """Return targets as a model learns them: float32 of shape [rows] or [rows, labels], or int64 codes."""
    if target.kind == "multiclass":
        return torch.tensor(values)
    if target.kind == "regression":
        values = np.log(values) if target.transform == "log" else (values - target.mean) / target.deviation
    return torch.tensor(np.asarray(values, dtype=np.float32))
