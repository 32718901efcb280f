"""Locations of configuration files: the package, and the working directory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dlrunner.cli.quoting import quoted
from dlrunner.cli.run_names import SETTINGS, run_folder, split_runs_dir
from dlrunner.config.conf_files import package_conf
from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path

TEXTS = ("data.query", "note")
"""Settings that are SQL, or a sentence, and not of Hydra's grammar."""


def user_conf() -> Path | None:
    """Return the user's own `conf/` in the working directory, if there is one."""
    here = Path.cwd() / "conf"
    return here if here.is_dir() and here.resolve() != package_conf().resolve() else None


def conf_dirs() -> list[Path]:
    """Return all configuration folders, the user's last."""
    own = user_conf()
    return [package_conf(), own] if own else [package_conf()]


def groups() -> set[str]:
    """Return the names of the configuration groups."""
    return {path.name for folder in conf_dirs() for path in folder.iterdir() if path.is_dir()}


def shadowed_options() -> list[str]:
    """Return the user's files that shadow a file of the package; identical ones, as in a clone, change nothing."""
    own = user_conf()
    found = []
    for file in [*own.glob("*.yaml"), *own.glob("*/*.yaml")] if own else ():
        name = file.relative_to(own or file)
        packaged = package_conf() / name
        if packaged.exists() and packaged.read_bytes() != file.read_bytes():
            found.append(str(name))
    return sorted(found)


def options_of(group: str) -> list[str]:
    """Return the options of a group, in order.

    >>> "adamw" in options_of("optim")
    True
    """
    return sorted({path.stem for folder in conf_dirs() for path in (folder / group).glob("*.yaml")})


def with_paths(words: Sequence[str]) -> list[str]:
    """Quote the names of existing files and folders, and queries, so that Hydra reads them as text.

    Names of run folders contain characters of Hydra's grammar (`model.encoder=runs/imdb-lm/epochs=1,seed=2-0a1b2c3d`),
    and `runs/latest` is resolved now, before a new run changes it; an id or name of a run becomes its folder.
    """
    found, is_sweep = [], "-m" in words or "--multirun" in words
    for word in words:
        key, equals, value = word.partition("=")
        try:
            path = user_path(value)
            known = bool(equals and value) and path.exists()
        except (OSError, ConfigError):  # too long for a file name, or not a path
            known = False
        if not known and key.lstrip("+") in SETTINGS and value:
            folder = run_folder(value, split_runs_dir(words)[0])
            known, value = folder is not None, str(folder or value)
        if known and path.is_symlink() and (path / "config.yaml").exists():
            value = os.path.relpath(path.resolve())
        if not (known or is_sweep) and key.lstrip("+") in (*SETTINGS, "data.path") and "/" in value:
            # A path that is not there: the message is about that, not about a comma in it.
            known = value[0] not in "'\"[{" and "${" not in value
        if (known and re.search(r"[^\w./-]", value)) or (value.startswith("~") and "," not in value):
            value = quoted(value.replace("${", r"\${") if known else value)  # no reference to another setting
        if key.lstrip("+") in TEXTS and value and value[:1] not in ("'", '"'):
            value = quoted(value.replace("${", r"\${"))
        found.append(f"{key}{equals}{value}")
    return found


def file_to_write(name: str) -> Path:
    """Return the file that --out names.

    Raises:
        ConfigError: it is a folder, or its folder does not exist.
    """
    path = user_path(name)
    if path.is_dir() or not path.parent.is_dir():
        problem = f"{path} is a folder; name a file" if path.is_dir() else f"there is no folder {path.parent}"
        raise ConfigError(f"--out: {problem}")
    return path
