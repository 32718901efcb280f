"""How far numbers vary: where they do not, the rest of a floating-point sum must not pass for a deviation."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

ROUNDING = 1e-12
"""Of the largest number: numbers that are apart by less are the same."""


def is_constant(numbers: NDArray[Any]) -> bool:
    """Return whether finite numbers are all the same.

    >>> import numpy as np
    >>> is_constant(np.array([0.1, 0.1, 0.1])), is_constant(np.array([0.1, 0.2])), is_constant(np.array([]))
    (True, False, True)
    """
    if not len(numbers):
        return True
    low, high = float(numbers.min()), float(numbers.max())
    return high - low <= ROUNDING * max(abs(low), abs(high))


def standard_deviation(numbers: NDArray[Any]) -> float:
    """Return the standard deviation of finite numbers, exactly 0 where they are all the same.

    >>> import numpy as np
    >>> float(np.full(160, 0.1).std()) > 0, standard_deviation(np.full(160, 0.1))
    (True, 0.0)
    """
    return 0.0 if is_constant(numbers) else float(numbers.std())
