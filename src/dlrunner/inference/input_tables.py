"""What stands for a table where a predictor is called in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dlrunner.data.tables.table import read_new_rows
from dlrunner.errors import ConfigError
from dlrunner.predictor_inputs import exact, frame_of_rows


def as_table(data: Mapping[str, Any] | None, name: str, given: Any) -> Any:
    """Return rows as a DataFrame: a row as a dict, or of columns; several rows as a list of dicts; the path of a table.

    >>> as_table(None, "table", {"city": "Ulm"}).equals(as_table(None, "table", [{"city": "Ulm"}]))
    True

    Args:
        data: the settings of the training data: a file is read with its separator and encoding where it needs them.
        name: of the argument.
        given: what stands for a table; anything else is returned as it is.

    Raises:
        ConfigError: there is no such file, or the columns differ in length.
        DataError: the file cannot be read.
    """
    if isinstance(given, str | Path):
        return read_new_rows(given, **_file_settings(data))
    if isinstance(given, list) and given and all(isinstance(each, Mapping) for each in given):
        return frame_of_rows(given)
    if isinstance(given, Mapping):
        is_row = not any(isinstance(value, list | tuple | np.ndarray | pd.Series) for value in given.values())
        try:
            return pd.DataFrame([given] if is_row else {name: exact(values) for name, values in given.items()})
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
    return given


def _file_settings(data: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: value for name in ("separator", "encoding") if isinstance(value := (data or {}).get(name), str)}
