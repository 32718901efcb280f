"""A suite that takes longer than its budget ends with a warning and the slowest tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.budget import Budget


class Terminal:
    """Keeps what is printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line = self.section = self.lines.append


def lines_of(budget: Budget, markexpr: str) -> list[str]:
    terminal: Any = Terminal()
    config: Any = SimpleNamespace(getoption={"markexpr": markexpr}.get)
    for number in range(30):
        for duration in (number, 0.25):  # set-up and call
            report: Any = SimpleNamespace(nodeid=f"test_{number}", duration=duration)
            budget.pytest_runtest_logreport(report)
    budget.pytest_terminal_summary(terminal, config)
    return list(terminal.lines)


def test_a_suite_beyond_its_budget_names_its_slowest_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1000.0, 1241.0])
    monkeypatch.setattr("tests.budget.time.monotonic", lambda: next(clock))
    _, *tests, warning = lines_of(Budget(), "not slow")
    assert tests == [f"{number + 0.25:6.2f} s  test_{number}" for number in range(29, 9, -1)]
    assert warning.startswith("warning: the suite took 241 s, its budget is 240 s")


@pytest.mark.parametrize(("seconds", "markexpr"), [(1e9, "not slow"), (0.0, "slow")])
def test_a_suite_within_its_budget_and_slow_tests_print_nothing(seconds: float, markexpr: str) -> None:
    assert lines_of(Budget(seconds), markexpr) == []
