"""The commands of docs/scaling.md: tests run them as they stand there."""

from __future__ import annotations

import re
import shlex

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "scaling.md"


def commands() -> list[list[str]]:
    """Return the words of each command."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def documented(part: str) -> list[str]:
    """Return the only command that has a word that begins like this."""
    (found,) = [command for command in commands() if any(word.startswith(part) for word in command)]
    return found
