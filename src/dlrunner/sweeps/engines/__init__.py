"""Remote engines: Slurm through submitit, and Ray; jobs, folders and records are the same as on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dlrunner.errors import ConfigError

if TYPE_CHECKING:
    from dlrunner.config.schema import SweepSettings
    from dlrunner.sweeps.engines.base import RemoteEngine

LAUNCHERS = {"submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}
"""Names of the engines, and the package (and extra) that each needs."""


def require_package(module: str, setting: str, extra: str) -> None:
    """Check that a package is installed.

    Raises:
        ConfigError: it is missing; the message names the setting, and the extra to install.
    """
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # the parent package is missing
        spec = None
    if spec is None:
        raise ConfigError(f"{setting} needs a package that is not installed: pip install 'dlrunner[{extra}]'")


def make_engine(launcher: str, folder: Path, settings: SweepSettings) -> RemoteEngine:
    """Return the engine of a launcher; its package is imported here.

    Args:
        launcher: one of LAUNCHERS.
        folder: the sweep's, visible to all machines.
        settings: the resources of a job, and the number of parallel jobs.

    Raises:
        ConfigError: there is no such cluster, or it does not support one of the requirements.
    """
    if launcher == "ray":
        from dlrunner.sweeps.engines.ray import RayEngine

        return RayEngine(settings.needs)
    from dlrunner.sweeps.engines.slurm import SlurmEngine

    jobs = settings.jobs if isinstance(settings.jobs, int) else None
    return SlurmEngine(launcher, folder / "submitit", settings.needs, jobs)
