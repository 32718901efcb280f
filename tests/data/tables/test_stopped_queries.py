"""A signal that arrives while DuckDB reads stops the run: it is no damage of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrunner.data.tables.raw import INTERRUPTED, readable_errors
from dlrunner.errors import DataError, Interrupted
from dlrunner.system.signals import StopSignals


def test_a_signal_during_a_query_is_not_a_damaged_file() -> None:
    with pytest.raises(Interrupted) as stopped, StopSignals() as signals, readable_errors(Path("t.csv")):  # noqa: PT012
        signals.pending = 15
        raise RuntimeError(INTERRUPTED)  # what DuckDB makes of the handler's exception
    assert stopped.value.signum == 15
    with pytest.raises(KeyboardInterrupt), readable_errors(Path("t.csv")):
        raise RuntimeError(INTERRUPTED)
    with pytest.raises(DataError, match="damaged"), readable_errors(Path("t.csv")):
        raise RuntimeError("Bad magic")
