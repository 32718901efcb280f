"""The readable part of a run folder's name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

NOT_IN_LABEL = (
    "experiment",
    "device",
    "data_dir",
    "runs_dir",
    "rerun",
    "log",
    "plugins",
    "hydra",
    "claim",
    "sweep",
    "name",
    "tags",
    "note",
    "trainer.num_threads",
    "trainer.rows_per_thread",
    "trainer.checkpoint_minutes",
    "trainer.cpu_tuning",
)
"""Settings and sections left out of a folder's name: they do not change the result, or the parent folder shows them."""

LENGTH = 48
"""Of a label: with the signature, and -2 … -99 of a repeated run, a folder's name has at most 60 characters."""

VALUE_LENGTH = 24
"""Of a value: a longer one is cut, so that other settings have room."""

ORDER = ("data.target", "", "data", "data.path", "seed")
"""Settings and sections in the order in which a name shows them; "" stands for all others. Most runs share data."""

_RUN = re.compile(r"[^'\"]*/([^/,=]+)(?:[,=][^/]*)?-([0-9a-f]{8}(?:-\d{1,7})?)$")
"""A value that names another run's folder; shortened to the start of its name and its signature."""


def is_in_label(override: str) -> bool:
    """Return whether an override is part of a folder's name.

    >>> [is_in_label(word) for word in ("task=tabular", "task.loss=poisson", "log.plots=false", "+optim.lr=1e-3")]
    [False, True, False, True]
    """
    name = _name(override)
    return name != "task" and not {name, name.partition(".")[0]} & set(NOT_IN_LABEL)


def label(words: Sequence[str], length: int = LENGTH) -> str:
    """Return overrides, or other words, in a form that is valid as a folder name and needs no quotes in a shell.

    Settings that do not fit are left out: the signature distinguishes the folders.

    >>> label(["seed=1", "optim.lr=1e-3"]), label([])
    ('optim.lr=1e-3,seed=1', 'default')
    >>> label(["model.encoder='runs/imdb-lm/imdb-lm-small,seed=2-c6a0685d'"]), label(["data.path='../my data/x.csv'"])
    ('model.encoder=imdb-lm-small-c6a0685d', 'data.path=x.csv')
    """
    shown = ""
    for word in sorted(words, key=lambda word: (_rank(_name(word)), word.lstrip("+"))):
        text = _shown(word)
        if not shown:
            shown = text[:length].rstrip("_,.-=")
        elif len(shown) + 1 + len(text) <= length:
            shown += f",{text}"
    return shown or "default"


def run_label(
    overrides: Sequence[str],
    choices: Mapping[str, str | None],
    swept: Collection[str] = (),
    length: int = LENGTH,
) -> str:
    """Return the readable part of a folder's name: the experiment, if any, and the overrides.

    Args:
        overrides: of the command line.
        choices: names of the chosen options.
        swept: of a job of a sweep, the names of the settings that differ between the jobs: only these are shown.
        length: characters at most.
    """
    kept = [word for word in overrides if is_in_label(word) and (not swept or _name(word) in swept)]
    experiment = choices.get("experiment")
    if not experiment or (swept and "experiment" not in swept):
        return label(kept, length)
    experiment = _clean(experiment)[:length]
    left = length - len(experiment) - 1
    return f"{experiment},{label(kept, left)}" if kept and left > 8 else experiment


def _name(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _rank(name: str) -> int:
    return ORDER.index(next(key for key in (name, name.partition(".")[0], "") if key in ORDER))


def _shown(word: str) -> str:
    """Return an override as it stands in a name: of a path its last part, of a run the start of its name."""
    name, equals, value = word.lstrip("+").partition("=")
    if not equals:
        return _clean(name).lstrip("-")
    value = value.strip("'\"")
    if run := _RUN.fullmatch(value):
        return f"{_clean(name)}={_clean(run[1])}-{run[2]}"
    if name.endswith("path") and "," not in value:
        value = value.rstrip("/").rpartition("/")[2]
    value = re.sub(r"\s*,\s*", "+", value)
    return f"{_clean(name)}={_clean(value)[:VALUE_LENGTH].rstrip('_,.-=')}"


def _clean(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text).lstrip("_,.").rstrip("_,.-") or "_"
