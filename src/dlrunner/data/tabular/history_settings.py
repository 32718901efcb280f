"""`data.history`: a module of its own, so that the command line checks it without importing pandas and torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dlrunner.ranges import Count, Natural, Text


class HistorySettings(BaseModel):
    """`data.history`: the groups of rows whose target has a history."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    by: Annotated[list[Text], Field(min_length=1)]
    """Columns that identify a group."""
    of: Literal["target"] = "target"
    within: list[Text] = Field(default_factory=list)
    """Columns that a group's level depends on."""
    effects: list[Text] = Field(default_factory=list)
    """Columns whose categories have effects of their own, such as holidays."""
    block: Count = 28
    """Days: as many as are predicted at once."""
    past: bool = False
    """Use earlier rows only: a forecast."""
    base: bool = False
    """The model learns the difference from level + recent_20."""
    warmup: Natural = 0
    """First days of the table that are history only."""
    peers: Text | None = None
    """Column whose categories have levels of their own: groups of the same one are alike."""
    region: Text | None = None
    """Column whose categories have day effects of their own."""

    @property
    def columns(self) -> list[str]:
        """All columns that features depend on."""
        more = [name for name in (self.peers, self.region) if name is not None]
        return list(dict.fromkeys([*self.by, *self.within, *self.effects, *more]))
