"""Rossmann Store Sales: what a store sells on a day."""

from __future__ import annotations

import calendar
from typing import Any

from dlrunner.data.rossmann.features import CATEGORICAL, CONTINUOUS, NEAR_HOLIDAY, near_holiday_name
from dlrunner.tasks.tabular.rossmann_predictor import SalesPredictor
from dlrunner.tasks.tabular.task import Tabular


class Rossmann(Tabular):
    """The tabular task with predictions in Kaggle's format: Id and Sales, 0 for closed days."""

    predictor = SalesPredictor
    optional_columns = (*CATEGORICAL, *CONTINUOUS)
    # experiment=rossmann-sample, 5 seeds: .1218 ± .0024, float32 .1220 ± .0035; published .17248.
    good_in_bf16 = True

    def category_name(self, column: str, category: Any) -> str:
        """Return names of weekdays, months and of the days near a holiday."""
        if column == NEAR_HOLIDAY:
            return near_holiday_name(int(category))
        if column == "DayOfWeek":
            return calendar.day_abbr[int(category) - 1]
        return calendar.month_abbr[int(category)] if column == "Month" else str(category)
