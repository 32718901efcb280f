"""The holidays, promotions and open days of each store, and the distances to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOLIDAY = "StateHoliday"
EVENTS = (HOLIDAY, "SchoolHoliday", "Promo")
"""Events with features of the days before and after."""
FLAGS = (*EVENTS, "Open")
"""What the calendar knows of each day."""
MOST_GAP, MOST_DAYS, CLOSING = 15, 40, 5
"""Most days of a gap between open days, most days since a closing, and the days that a closing has at least."""
WINDOW = 7
"""Days before and after in which events are counted."""


@dataclass(frozen=True)
class Calendar:
    """The events of each store by day, of training and test rows together."""

    first_day: int
    """Days since 1970-01-01."""
    events: NDArray[np.bool_]
    """Shape [FLAGS, stores, days]; False on days without a row."""
    unknown_is_0: bool = False
    """Where no event is known before or after a day, the distance is 0: as in runs of version 2 and before."""

    def with_rows(self, stores: NDArray[np.int64], days: NDArray[np.int64], flags: NDArray[np.bool_]) -> Calendar:
        """Return the calendar with the events of further rows.

        Args:
            stores: codes of the stores, shape [rows].
            days: days since 1970-01-01, shape [rows].
            flags: shape [FLAGS, rows].
        """
        old_last = self.first_day + self.events.shape[2] - 1
        first, last = min(self.first_day, int(days.min())), max(old_last, int(days.max()))
        events = np.zeros((len(FLAGS), self.events.shape[1], last - first + 1), dtype=bool)
        start = self.first_day - first
        events[:, :, start : start + self.events.shape[2]] = self.events
        events[:, stores, days - first] = flags
        return replace(self, first_day=first, events=events)

    @classmethod
    def of_rows(
        cls, num_stores: int, stores: NDArray[np.int64], days: NDArray[np.int64], flags: NDArray[np.bool_]
    ) -> Calendar:
        """Return the calendar of some rows."""
        empty = cls(int(days.min()), np.zeros((len(FLAGS), num_stores, 1), dtype=bool))
        return empty.with_rows(stores, days, flags)

    def days_since(self, event: str) -> NDArray[np.int16]:
        """Return the days since the last event of each store, 0 on the day itself.

        Before the first one nothing is known: the longest distance of the calendar, since 0 would be an event.

        >>> calendar = Calendar(0, np.array([[[0, 1, 0, 0, 1, 0]]] * 4, dtype=bool))
        >>> calendar.days_since("Promo").tolist(), calendar.days_until("Promo").tolist()
        ([[2, 0, 1, 2, 0, 1]], [[1, 0, 2, 1, 0, 2]])
        """
        return _since(self.of(event), self.unknown_is_0)

    def days_until(self, event: str) -> NDArray[np.int16]:
        """Return the days until the next event of each store; after the last one the longest distance."""
        return _since(self.of(event)[:, ::-1], self.unknown_is_0)[:, ::-1]

    def sum_before(self, event: str) -> NDArray[np.int8]:
        """Return the number of events in the seven days that end with each day."""
        return _sum_before(self.of(event))

    def sum_after(self, event: str) -> NDArray[np.int8]:
        """Return the number of events in the seven days that begin with each day."""
        return _sum_before(self.of(event)[:, ::-1])[:, ::-1]

    def of(self, flag: str) -> NDArray[np.bool_]:
        """Return one of FLAGS, [stores, days]."""
        return np.asarray(self.events[FLAGS.index(flag)])

    def open_days(self) -> dict[str, NDArray[Any]]:
        """Return the columns of `features.OPEN_DAYS` but the week of the month, each [stores, days].

        A gap is the number of days to the next open day, 1 for tomorrow; a closing is a gap with CLOSING closed days.
        The days since one count from 0, the first open day after it. PromoDay counts the days of a promotion in a row.
        """
        is_open, promo = self.of("Open"), self.of("Promo")
        before, after = _open_gap(is_open), _open_gap(is_open[:, ::-1])[:, ::-1]
        day = np.arange(promo.shape[1], dtype=np.int16)
        pause = np.maximum.accumulate(np.where(promo, np.int16(-1), day), axis=1)
        return {
            "OpenGapBefore": np.minimum(before, MOST_GAP),
            "OpenGapAfter": np.minimum(after, MOST_GAP),
            "DaysSinceClosing": _since_closing(is_open, before),
            "DaysUntilClosing": _since_closing(is_open[:, ::-1], after[:, ::-1])[:, ::-1],
            "PromoDay": np.where(promo, day - pause, np.int16(0)),
            "DaysSincePromo": np.minimum(self.days_since("Promo"), MOST_DAYS),
            "DaysUntilPromo": np.minimum(self.days_until("Promo"), MOST_DAYS),
        }


def _since(events: NDArray[np.bool_], unknown_is_0: bool) -> NDArray[np.int16]:
    day = np.arange(events.shape[1], dtype=np.int16)
    last = np.maximum.accumulate(np.where(events, day, np.int16(-1)), axis=1)
    distance = day - last
    unknown = 0 if unknown_is_0 else distance[last >= 0].max(initial=0)
    return np.where(last < 0, np.int16(unknown), distance)


def _open_gap(is_open: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Return the days since the open day before each day; 1 where none is known."""
    day = np.arange(is_open.shape[1], dtype=np.int16)
    last = np.maximum.accumulate(np.where(is_open, day, np.int16(-1)), axis=1)
    before = np.concatenate([np.full((len(last), 1), -1, dtype=np.int16), last[:, :-1]], axis=1)
    return np.where(before < 0, np.int16(1), day - before)


def _since_closing(is_open: NDArray[np.bool_], gap: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the days since a store opened again after a closing, at most MOST_DAYS, which also means never."""
    day = np.arange(is_open.shape[1], dtype=np.int16)
    opened = np.maximum.accumulate(np.where(is_open & (gap > CLOSING), day, np.int16(-MOST_DAYS)), axis=1)
    return np.minimum(day - opened, np.int16(MOST_DAYS))


def _sum_before(events: NDArray[np.bool_]) -> NDArray[np.int8]:
    total = np.cumsum(events, axis=1, dtype=np.int16)
    total[:, WINDOW:] -= total[:, :-WINDOW].copy()
    return total.astype(np.int8)
