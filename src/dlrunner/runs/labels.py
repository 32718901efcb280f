"""The readable part of a run folder's name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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
)
"""Settings left out of a folder's name: they do not change the result, or the parent folder shows them."""


_RUN = re.compile(r"=['\"]?[^'\"]*/([^/,=]+)(?:[,=][^/]*)?-([0-9a-f]{8}(?:-\d+)?)['\"]?$")
"""A setting that names another run's folder; shortened to the start of its name and its signature."""


def is_in_label(override: str) -> bool:
    """Return whether an override is part of a folder's name.

    >>> [is_in_label(word) for word in ("task=tabular", "task.loss=poisson", "log.plots=false", "+optim.lr=1e-3")]
    [False, True, False, True]
    """
    name = override.lstrip("+").partition("=")[0]
    return name != "task" and name.partition(".")[0] not in NOT_IN_LABEL


def label(words: Sequence[str]) -> str:
    """Return overrides, or other words, in a form that is valid as a folder name.

    >>> label(["optim.lr=1e-3"]), label([])
    ('optim.lr=1e-3', 'default')
    >>> label(["model.encoder='runs/imdb-lm/imdb-lm-small,seed=2-c6a0685d'", "seed=1"])
    'model.encoder=imdb-lm-small-c6a0685d,seed=1'
    """
    shown = sorted(_RUN.sub(r"=\1-\2", word.lstrip("+")) for word in words)
    text = re.sub(r"[^\w.=,+-]+", "_", ",".join(shown)).strip("_,.-")
    return text[:80].rstrip("_,.-=") or "default"


def run_label(overrides: Sequence[str], choices: Mapping[str, str | None]) -> str:
    """Return the readable part of a folder's name: the experiment, if any, and the overrides."""
    shown = label([override for override in overrides if is_in_label(override)])
    experiment = choices.get("experiment")
    if not experiment:
        return shown
    experiment = label([experiment])
    return experiment if shown == "default" else f"{experiment},{shown}"
