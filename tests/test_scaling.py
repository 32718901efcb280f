"""The commands of docs/scaling.md are those that tests run."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY
from tests.scaling import commands, documented


def test_every_command_of_the_page_is_run_by_a_test() -> None:
    sources = "".join(file.read_text() for file in (REPOSITORY / "tests").rglob("test_*.py"))
    run = {tuple(documented(part)) for part in re.findall(r'documented\("([^"]+)"\)', sources)}
    assert run == {tuple(command) for command in commands()}
