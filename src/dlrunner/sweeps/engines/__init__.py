"""Engines that start jobs elsewhere: Slurm through submitit, Ray. Frozen jobs, folders and records are the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from dlrunner.errors import ConfigError

if TYPE_CHECKING:
    from dlrunner.config.schema import SweepSettings
    from dlrunner.sweeps.engines.base import RemoteEngine

LAUNCHERS = {"submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}
"""Names of the engines, and the package (and extra) that each needs."""


def need(module: str, asked: str, extra: str) -> None:
    """Refuse what asks for a package that is not installed.

    Raises:
        ConfigError: it is not there; the sentence names the extra that brings it.
    """
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of the package that it is in
        found = None
    if found is None:
        raise ConfigError(f"{asked} needs a package that is not installed: pip install 'dlrunner[{extra}]'")


def make_engine(launcher: str, folder: Path, settings: SweepSettings) -> RemoteEngine:
    """Return the engine of a name; its package is imported now, and must be there.

    Args:
        launcher: one of LAUNCHERS.
        folder: the sweep's, which all machines see.
        settings: what a job needs, and how many run side by side.

    Raises:
        ConfigError: there is no such cluster here, or it knows no such need.
    """
    if launcher == "ray":
        from dlrunner.sweeps.engines.ray import OnRay

        return OnRay(settings.needs)
    from dlrunner.sweeps.engines.slurm import Submitted

    jobs = settings.jobs if isinstance(settings.jobs, int) else None
    return Submitted(launcher, folder / "submitit", settings.needs, jobs)
