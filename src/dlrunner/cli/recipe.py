"""A configuration as an experiment file: the chosen options, and the differences from their defaults."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from dlrunner.cli.compose import compose
from dlrunner.cli.run_names import named_run
from dlrunner.runs.reader import FinishedRun

NOT_IN_EXPERIMENT = ("choices", "claim", "device", "log", "name", "note", "rerun", "runs_dir", "seeds", "sweep", "tags")
"""Sections that an experiment file omits: how a run is run and logged."""


def recipe(arguments: argparse.Namespace) -> int:
    """Print a run as an experiment file."""
    run = FinishedRun.read(named_run(arguments.run))
    print(f"# @package _global_\n# dlrun {shlex.join(run.overrides)}\n{experiment_of(run.config)}", end="")
    if removed := [word for word in run.overrides if word.startswith("~")]:
        print(f"warning: a file cannot remove settings; add {shlex.join(removed)} to the command", file=sys.stderr)
    return 0


def experiment_of(config: Mapping[str, Any]) -> str:
    """Return a configuration as an experiment file."""
    chosen = {group: config["choices"].get(group) for group in ("task", "model", "optim", "schedule")}
    chosen = {group: name for group, name in chosen.items() if name}
    usual = compose([f"{group}={name}" for group, name in chosen.items()])
    wanted = {key: value for key, value in config.items() if key not in NOT_IN_EXPERIMENT}
    parts = {"defaults": [{f"override /{group}": name} for group, name in chosen.items()]}
    return "".join(yaml.safe_dump(part, sort_keys=False) for part in (parts, _different(wanted, usual)) if part)


def _different(wanted: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a section that differ from the defaults."""
    found = {}
    for key, value in wanted.items():
        before = usual.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inside := _different(value, before):
                found[key] = inside
        elif key not in usual or value != before:
            found[key] = value
    return found
