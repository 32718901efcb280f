"""Annotated types with ranges for settings; they are validated before data is read."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""An integer ≥ 1."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""A seed that all random number generators accept."""

Text = Annotated[str, Field(min_length=1)]
"""A name or a path: not empty."""

Natural = Annotated[int, Field(ge=0)]
"""An integer ≥ 0."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number > 0."""

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number ≥ 0."""

Probability = Annotated[float, Field(ge=0, lt=1)]
"""A dropout probability, or a decay: 0 ≤ p < 1."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A fraction of rows: 0 < f < 1."""

NUMBER_FORMAT = re.compile(r"(,?(\.\d{1,2})?[efg%])?")
"""How a metric's values are written, in Python's format language: `.3f`, `.1%`; empty: as tables write numbers."""
