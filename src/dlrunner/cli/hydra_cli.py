"""Hydra's own flags: --cfg, --info and tab completion."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import hydra
from omegaconf import OmegaConf

from dlrunner.cli.completion import completions
from dlrunner.cli.compose import compose_for_hydra, search_path_override, without_engines, without_hydra
from dlrunner.cli.hydra_guard import own_hydra, refusals
from dlrunner.config.conf_files import package_conf
from dlrunner.errors import ConfigError

SHOWN = ("job", "hydra", "all")
"""What --cfg prints."""


def handle_flags(words: list[str]) -> int:
    """Let Hydra handle --cfg, --info and tab completion."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("--cfg", "-c") and following not in SHOWN:
            raise ConfigError(f"{word}: must be followed by {', '.join(SHOWN)}: dlrun --cfg job task=collab")
    if words[0] in ("--shell-completion", "-sc"):
        if words[-1].startswith("query="):
            _complete(words)
            return 0
    elif {"-m", "--multirun"} & set(words):
        raise ConfigError(
            "--cfg: prints the settings of one run, without -m and with one value each; the jobs of a sweep are "
            "printed with sweep.dry_run=true"
        )
    elif "job" in words and not {"--info", "-i", "--resolve", "-r", "--package", "-p"} & set(words):
        config = compose_for_hydra([word for word in words if word not in ("--cfg", "-c", "job")])
        print(OmegaConf.to_yaml(without_hydra(config)[0]), end="")
        return 0
    else:  # reports errors first
        compose_for_hydra([word for word in words if "=" in word and not word.startswith("-")])
    return _run_hydra([*without_engines(words), *search_path_override()])


def _run_hydra(words: Sequence[str]) -> int:
    """Pass the command line to Hydra, which prints the result."""
    sys.argv = [sys.argv[0], *words]
    # An absolute path works under the console script, `python -m` and an installed wheel alike.
    decorate = hydra.main(config_path=str(package_conf()), config_name="config", version_base="1.3")
    try:
        with own_hydra():
            decorate(lambda config: None)()
    except SystemExit:
        if refusals:
            raise refusals.pop() from None
        raise
    return 0


def _complete(words: Sequence[str]) -> None:
    """Print what completes the command line in COMP_LINE; what cannot be completed is no error."""
    found, line = completions(os.environ.get("COMP_LINE", ""))
    print("\n".join(found))
    if line:
        os.environ["COMP_LINE"] = line
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            _run_hydra([*words, *search_path_override()])
