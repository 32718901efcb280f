"""Scales of the axes of charts, and round values along them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def distinct_texts(values: Sequence[float], digits: int) -> list[str]:
    """Write different numbers with as many significant digits as all need to differ, from `digits` to 12.

    >>> distinct_texts([1.5, 1234.5], 3), distinct_texts([1230000000, 1231000000], 3)
    (['1.5', '1.23e+03'], ['1.23e+09', '1.231e+09'])
    """
    while len({f"{value:.{digits}g}" for value in values}) < len(values) and digits < 12:
        digits += 1
    return [f"{value:.{digits}g}" for value in values]


@dataclass(frozen=True)
class Scale:
    """Mapping of values to positions between 0 and 1."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def of(cls, low: float, high: float, is_exact: bool = False, is_linear: bool = False) -> Scale:
        """Choose a scale for a range: logarithmic where it spans more than a factor of 20 above zero.

        Args:
            low, high: the range; a single value gets a margin.
            is_exact: no margin.
            is_linear: never logarithmic.
        """
        is_log = not is_linear and low > 0 and high / low > 20
        if high <= low:
            room = abs(low) * 0.1 or 1.0
            return cls(low - room, high + room, False)
        if is_exact:
            return cls(low, high, is_log)
        if is_log:
            return cls(low / 1.1, high * 1.1, True)
        margin = 0.05 * (high - low)
        return cls(low - margin, high + margin, False)

    def position(self, value: float) -> float:
        """Return the position of a value, 0 at the low end and 1 at the high end."""
        if self.is_log:
            value = max(value, self.low * 1e-9)  # zero and less are far below the plot
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values within the range and their labels.

        >>> [text for _, text in Scale.of(0.79, 0.94).ticks()]
        ['0.80', '0.85', '0.90']
        >>> [text for _, text in Scale.of(1e-5, 1e-2).ticks()]
        ['1e-05', '0.0001', '0.001', '0.01']
        """
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            few = len(decades) <= 3
            values = [m * 10.0**d for d in decades for m in ((1, 2, 5) if few else (1,))]
            values = [v for v in values if self.low <= v * (1 + 1e-9) and v <= self.high * (1 + 1e-9)]
            return [(v, f"{v:.3g}") for v in values[:: max(1, math.ceil(len(values) / 7))]]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        digits = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        texts = [(index * step, f"{index * step:,.{digits}f}") for index in range(first, last + 1)]
        if digits <= 5 and step < 1e6:
            return texts
        values = [value for value, _ in texts]
        return list(zip(values, distinct_texts(values, 3), strict=True))
