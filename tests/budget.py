"""The time that the suite may take: when it took longer, the slowest tests are named. Machines differ: nothing fails."""

from __future__ import annotations

import time
from collections import defaultdict

import pytest

SECONDS = 240.0
"""Of the whole suite without the slow tests, on two cores."""


class Budget:
    """A plugin of pytest that warns at the end of a run that took too long.

    Args:
        seconds: the budget.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds, self._began, self._tests = seconds, time.monotonic(), defaultdict[str, float](float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the time of a test's set-up, call or tear-down."""
        self._tests[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Name the 20 slowest tests of a run beyond the budget; runs of the slow tests have none."""
        taken = time.monotonic() - self._began
        if taken <= self.seconds or config.getoption("markexpr") != "not slow":
            return
        terminalreporter.section("the 20 slowest tests")
        for name, seconds in sorted(self._tests.items(), key=lambda pair: -pair[1])[:20]:
            terminalreporter.line(f"{seconds:6.2f} s  {name}")
        terminalreporter.line(
            f"warning: the suite took {taken:.0f} s, its budget is {self.seconds:.0f} s on two cores: share finished "
            "runs, train less, or mark tests that are slow by their nature"
        )
