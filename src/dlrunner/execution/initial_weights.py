"""Weights of another run as a start: `init=RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dlrunner.errors import ConfigError, RunError
from dlrunner.files.paths import user_path
from dlrunner.model import Model
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.runs.reader import REPAIR, FinishedRun, own_file, shorter
from dlrunner.training.loop import keeps_best

MOST_NAMED = 4


def initial_file(init: str) -> Path:
    """Return the checkpoint with the weights that a run was evaluated with; of an ensemble those of its first member.

    Raises:
        ConfigError: it is not a finished run with checkpoints.
    """
    try:
        run = FinishedRun.read(user_path(init))
    except ConfigError as error:
        raise ConfigError(f"init: {error}") from None
    if run.status != "done" or run.summary is None:
        raise ConfigError(f"init: {shorter(run.path)} is {run.status}; only a finished run has weights to start from")
    folder = own_file(run.path, "members/0") if (run.config.get("ensemble") or 1) > 1 else run.path
    trainer = run.config.get("trainer") or {}
    name = "best.pt" if keeps_best(trainer.get("early_stopping"), trainer.get("keep")) else "last.pt"
    file = own_file(folder, name)
    if not file.exists():
        raise ConfigError(f"init: {shorter(folder)} has no {name}")
    return file


def load_initial(model: Model, init: str) -> Sequence[str]:
    """Load the weights whose names and shapes agree, and return a note that names the others.

    Raises:
        ConfigError: no weights agree.
        RunError: the file is damaged.
    """
    try:
        found = load_weights_file(initial_file(init)).get("model") or {}
    except RunError as error:
        raise RunError(f"init: {error}; {REPAIR}") from None
    own = model.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not any(name in fitting for name, _ in model.named_parameters()):
        raise ConfigError(f"init: {init} has no weights of this model's names and shapes")
    model.load_state_dict({**own, **fitting})
    note = f"init: {len(fitting):,} of {len(own):,} tensors are those of {init}"
    missing = [_described(name, own[name], found.get(name)) for name in own if name not in fitting]
    if missing:
        more = f", and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
        note += f"; new: {', '.join(missing[:MOST_NAMED])}{more}"
    return [note]


def _described(name: str, own: torch.Tensor, other: torch.Tensor | None) -> str:
    sizes = "×".join(map(str, own.shape)) or "1"
    return f"{name} ({sizes})" if other is None else f"{name} ({sizes}, there {'×'.join(map(str, other.shape)) or 1})"
