"""Tab completion of verbs, their options, and the settings of a sweep that Hydra does not know."""

from __future__ import annotations

from dlrunner.cli.compose import ENGINES
from dlrunner.cli.verbs import VERBS

TAKES_SETTINGS = ("lr-find",)
"""Verbs whose arguments are the settings of a run."""


def completions(line: str) -> tuple[list[str], str]:
    """Return words that complete a command line, and the line whose last word Hydra completes; empty: none.

    A run is a path: where there are no words, the shell completes the names of files.

    >>> completions("dlrun sho")
    (['show'], 'dlrun sho')
    >>> completions("dlrun rm runs/")
    ([], '')
    >>> completions("dlrun -q -m task=collab hydra/sweeper=o")
    (['hydra/sweeper=basic', 'hydra/sweeper=optuna'], '')
    >>> completions("dlrun lr-find task=")
    ([], 'dlrun task=')
    """
    program, *words, last = line.split(" ") if " " in line else [line, ""]
    verb = words[0] if words and words[0] in VERBS else None
    if last.startswith("hydra"):
        key = last.partition("=")[0]
        names = [f"{key}={name}" for name in ENGINES.get(key, ())] if "=" in last else [f"{key}=" for key in ENGINES]
        return names, ""
    if verb and last.startswith("-"):
        return VERBS[verb].parser(verb).options, ""
    if verb and verb not in TAKES_SETTINGS:
        return [], ""
    settings = [word for word in words if word != verb and not word.startswith("-")]
    verbs = [name for name in VERBS if name.startswith(last)] if not words else []
    return verbs, " ".join([program, *settings, last])
