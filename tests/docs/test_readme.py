"""The commands of the README, typed one after the other on tiny settings, do what it says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Dlrun
from tests.docs.pages import dlrun_commands

TINY = ("epochs=1", "batch_size=512", "log.plots=false", "model.factors=5")
"""For ratings; a command's own settings come after."""
TINY_TABLE = ("epochs=1", "log.plots=false", "task.baseline=false")

UNRUN = {
    "--open yes": "opens a browser",
    "runs/latest new.csv": "a table of the reader's own",
}


@pytest.mark.slow  # trains thirty times; each command is checked by test_commands, and what it does elsewhere
def test_the_commands_of_the_readme_can_be_typed(dlrun: Dlrun, here: Path) -> None:
    assert dlrun("data", "get", "sample-sales")[0] == 0
    typed = 0
    for words in dlrun_commands(REPOSITORY / "README.md"):
        text = shlex.join(words)
        if words[0] == "reproduce" or any(part in text for part in UNRUN):
            continue
        status, out, err = dlrun(*_tiny(words, here))
        assert status == 0, (text, out[-500:], err[-2000:])
        typed += 1
    assert typed >= 10


def _tiny(words: list[str], here: Path) -> list[str]:
    """Return a command with tiny settings, and names of runs that exist instead of RUN and NAME."""
    if "task=collab" in words:
        added = [word for word in TINY if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
        return [*words, *added, "data.source=synthetic", "log.report=false"]
    if "task=tabular" in words:
        return [*words, *TINY_TABLE]
    runs = sorted(str(path.parent.relative_to(here)) for path in here.glob("runs/collab/*/summary.json"))
    sweeps = sorted(str(path.parent.relative_to(here)) for path in here.glob("runs/sweeps/*/results.csv"))
    names = iter(runs)
    found = []
    for word in words:
        if word == "RUN":
            found.append(next(names))
        elif word == "runs/collab/*":
            found += runs
        else:
            found.append(sweeps[0] if word == "runs/sweeps/NAME" else word)
    return found
