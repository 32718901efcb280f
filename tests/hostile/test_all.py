"""The first attempts of `make hostile`: nothing is lost, executed, written elsewhere or told by a traceback."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import pytest

from tests.hostile.__main__ import describe
from tests.hostile.harness import KINDS, kind_of, run_kind

SECONDS = (1.0, pytest.param(10.0, marks=pytest.mark.slow))
"""After which no further attempt of a kind is begun; the slow tests make ten times as many."""
SLOW = {"disks", "surroundings"}
"""Kinds whose attempts start programs, or fill disks."""


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in KINDS]
)
def test_what_is_broken_on_purpose_is_neither_lost_nor_executed(
    name: str, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = kind_of(name)
    numbers = range(math.ceil(kind.COUNT / 10))
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:  # short, and readable by the other user
        Path(folder).chmod(0o755)
        tally = run_kind(name, kind, 0, numbers, Path(folder), workers=1, longest=seconds)
    describe(tally, 0, most=5)
    assert tally.attempts
    assert not tally.failures, capsys.readouterr().out
