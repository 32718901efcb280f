"""The pages of the documentation, and the commands on them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "benchmarks").glob("*.md"),
    ]
)

TESTED_ELSEWHERE = {
    "adding-a-task.md": "tests/test_segmentation_from_outside.py runs its files",
    "scaling.md": "tests/test_scaling.py: each command is run",
}
"""Pages whose commands need files that they show themselves."""


def name_of(page: Path) -> str:
    """Return the name of a page, for the names of tests."""
    return page.relative_to(REPOSITORY).as_posix()


def commands_of(text: str) -> list[str]:
    """Return the commands of a page, without its comments.

    In a block with prompts only lines with a prompt are typed; the others are output.

    >>> commands_of("```\\n$ dlrun a=1   # one\\nepoch 1\\n```\\n")
    ['dlrun a=1']
    >>> commands_of("```\\ndlrun b \\\\\\n  c=2\\ndlrun compare A     explained\\n```\\n")
    ['dlrun b c=2', 'dlrun compare A']
    """
    found = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in typed or lines:
            if line.startswith(("dlrun ", "make ")):
                found.append(re.split(r"\s+#\s|\s{3,}", line)[0].strip())
    return found


def dlrun_commands(page: Path) -> list[list[str]]:
    """Return the words of each dlrun command of a page; what stands for anything (`…`, `RUN | SWEEP`) is left out."""
    if page.name in TESTED_ELSEWHERE:
        return []
    lines = [line for line in commands_of(page.read_text("utf-8")) if line.startswith("dlrun ")]
    return [shlex.split(line.partition(" | ")[0])[1:] for line in lines if "…" not in line]
