"""Runs and sweeps that are started in Python, by the same words as on the command line."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrunner.cli.conf_paths import with_paths
from dlrunner.cli.quoting import quoted
from dlrunner.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    import pandas as pd

    from dlrunner.inference.load import LoadedRun

PLAIN = re.compile(r"[A-Za-z_./][\w./-]*", re.ASCII)
"""Texts that need no quotation marks, unless they are words of YAML."""
WORDS_OF_YAML = ("true", "false", "yes", "no", "on", "off", "null", "none", "nan", "inf", "")

_sweeping = threading.RLock()
"""Held by a sweep: how Python starts processes is one setting of this process."""


def run(*overrides: str, **settings: Any) -> LoadedRun:
    """Run what `dlrun` with the same settings runs, and return the finished run: its record, and its predictions.

        run = dlrunner.run("task=collab", "optim=adamw", epochs=5, **{"data.path": "ratings.csv"})
        run.metrics["valid/rmse"], run.predict(table)

    A run that is finished already is not repeated, an unfinished one is resumed (`rerun=True` starts afresh). What the
    command prints is printed; "log.level=warning" leaves warnings only. Random generators are those of the process: a
    run that another thread starts meanwhile waits.

    Args:
        overrides: settings as on the command line.
        settings: settings by name, with their values in Python: numbers, texts, booleans, None, lists, dicts, paths.

    Raises:
        ConfigError: a setting is invalid; nothing was read or written.
        DataError, RunError: the run failed, which its folder records.
        KeyboardInterrupt: Ctrl-C; the same call resumes the run.
    """
    words = with_paths([*overrides, *(word(name, value) for name, value in settings.items())])
    config = config_of_run(words)
    if config["seeds"] is not None:
        raise ConfigError("seeds: a run has one seed; dlrunner.sweep takes several")
    from dlrunner.cli.compose import Changes
    from dlrunner.execution import run as runner
    from dlrunner.inference.load import LoadedRun
    from dlrunner.runs.reader import FinishedRun

    with _interruptions():
        outcome = runner.run(config, words, changed=Changes().of(config))
    return LoadedRun(FinishedRun.read(outcome.path.resolve()))


def sweep(*overrides: str, **settings: Any) -> pd.DataFrame:
    """Run what `dlrun -m` with the same settings runs, and return the sweep as a table, as `load_sweep` does.

        table = dlrunner.sweep("task=collab", "optim=sgd,adam,adamw", seed=range(3))
        table.groupby("optim")[table.attrs["metric"]].agg(["mean", "std"])

    Finished jobs are not repeated. A job that failed has the status failed, and its error.

    Args:
        overrides: settings as on the command line, several values of one separated by commas.
        settings: settings by name, with their values in Python; a tuple or range holds several values of a setting,
            a list is one value.

    Raises:
        ConfigError: a setting is invalid; no job was started.
        KeyboardInterrupt: Ctrl-C; the same call resumes the sweep.
    """
    from dlrunner.cli.sweep import run_sweep
    from dlrunner.comparison.sweep_frame import load_sweep

    words = with_paths(["-m", *overrides, *(word(name, value, several=True) for name, value in settings.items())])
    if any(each.startswith("sweep.dry_run=") for each in words):
        raise ConfigError("sweep.dry_run: shows a plan on the command line; it has no table")
    with _sweeping:
        before = multiprocessing.get_start_method(allow_none=True)
        try:
            with _interruptions():
                path, status = run_sweep(words[1:])
                if status > 128:
                    raise Interrupted(status - 128)
        finally:
            multiprocessing.set_start_method(before, force=True)
    return load_sweep(path)


def config_of_run(words: Sequence[str]) -> dict[str, Any]:
    """Return the checked configuration of one run.

    Raises:
        ConfigError: a setting is invalid, or is one of sweeps.
    """
    from dlrunner.cli.compose import compose
    from dlrunner.config.signatures import EarlyCheck

    config = compose(words)
    if config["seeds"] is None:
        if alone := [word for word in words if word.lstrip("+").startswith("sweep.")]:
            raise ConfigError(f"{alone[0]}: this is one run, not a sweep; add -m, or seeds=5")
        if alone := [word for word in words if word.lstrip("+").startswith(("hydra/launcher=", "hydra/sweeper="))]:
            raise ConfigError(f"{alone[0]} is for a sweep; add -m")
        EarlyCheck()(config)
    return config


def word(name: str, value: Any, *, several: bool = False) -> str:
    """Return a setting as it would be typed.

    Args:
        name: of the setting.
        value: of Python.
        several: a tuple or range holds several values.

    Raises:
        ConfigError: YAML has no such value.

    >>> print(word("optim.lr", 1e-3), word("data.target", "1"), word("task.tags", [None, True, "a, b"]))
    optim.lr=0.001 data.target='1' task.tags=[null,true,'a, b']
    >>> print(word("seed", range(3), several=True), word("data.path", "my.csv"))
    seed=0,1,2 data.path=my.csv
    """
    if several and isinstance(value, tuple | range):
        return f"{name}={','.join(_value(name, each) for each in value)}"
    return f"{name}={_value(name, value)}"


def _value(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if hasattr(value, "item") and not getattr(value, "shape", None):  # a number of NumPy
        value = value.item()
    if isinstance(value, int | float):
        return f".{value}" if isinstance(value, float) and not math.isfinite(value) else repr(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) and value.lower() not in WORDS_OF_YAML else quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(name, each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple | range):
        return f"[{','.join(_value(name, each) for each in value)}]"
    raise ConfigError(f"{name}: {value!r} is no number, text, boolean, list or dict")


@contextlib.contextmanager
def _interruptions() -> Iterator[None]:
    """Turn a stop signal into the exception that Python has for it."""
    try:
        yield
    except Interrupted as stopped:
        if stopped.signum == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(stopped.exit_status) from None
