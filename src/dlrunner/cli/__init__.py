"""The command line: verbs, and Hydra. No other room imports Hydra or OmegaConf.

torch, pandas and Hydra are imported lazily: `--help` takes 0.03 s.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dlrunner.errors import ConfigError, DataError, Interrupted, RunError
from dlrunner.files.paths import forget_empty_variables, user_path
from dlrunner.system.terminal import Stream, open_missing_streams, wrapped
from dlrunner.system.torchrun import num_processes, rank

RUNS = {
    "task=collab optim=adamw": "one run; finished: shown, interrupted: resumed",
    "-m task=collab optim=sgd,adamw": "a sweep: all combinations, and a ranking",
    "experiment=movielens-dot": "a published recipe, checked against its claim",
}
"""Commands without a verb."""

LEVELS = {
    "--quiet": "log.level=warning",
    "-q": "log.level=warning",
    "--verbose": "log.level=debug",
    "-v": "log.level=debug",
}
"""Options of runs and sweeps that stand for a setting."""

EPILOG = """\
common settings
  epochs=5 batch_size=128 seed=1 seeds=5 device=cuda precision=bf16 rerun=true
  optim.lr=1e-3 optim.weight_decay=0.1 trainer.clip=0.3 trainer.early_stopping=3
  data.path=my.csv data.source=synthetic ensemble=6 name=x tags=[a,b] note="…"
  DLRUNNER_DATA, DLRUNNER_CACHE: folders of published and of preprocessed data

RUN                  a folder, id or name, or conditions: task=tabular tag=mine
options              dlrun predict --help; of a run: dlrun predict RUN --help
output of a run      -q, --quiet: its folder alone; -v, --verbose: the log
print the settings   dlrun --cfg job task=collab optim=adamw
tab completion       eval "$(dlrun --shell-completion install=bash)"
exit status          0 done, 1 failed, 2 invalid command, 130 or 143 interrupted
"""


IMPORTING = (10_000, 10, 10)
"""Thresholds of Python's garbage collector while modules are imported.

With its defaults it runs 600 times and takes a fifth of the time of importing torch, pandas and matplotlib, which leave
little garbage: 2.0 s of CPU time instead of 2.5.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Read when torch is imported. Threads that wait by spinning take each other's cores on a busy machine: a step of
    # 5 ms was seen to take 440 there, and 17 with this short spin, which costs nothing on a quiet machine (no spin at
    # all: 10 ms).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    forget_empty_variables()
    atexit.register(gc.freeze)  # Python's last collections would visit every object of torch: 0.13 s
    thresholds = gc.get_threshold()
    gc.set_threshold(*IMPORTING)
    open_missing_streams()
    stdout, stderr = sys.stdout, sys.stderr
    out, errors = Stream(stdout), Stream(stderr)
    sys.stdout, sys.stderr = out, errors
    try:
        return _status(words, out)
    finally:
        errors.flush()
        sys.stdout, sys.stderr = stdout, stderr
        gc.set_threshold(*thresholds)


def _status(words: list[str], out: Stream) -> int:
    """Run the command line; a broken standard output fails only the commands whose result is their output."""
    status = _run_reporting_errors(words)
    out.flush()
    if out.lost is None or isinstance(out.lost, BrokenPipeError):
        return status
    print(f"dlrun: warning: standard output could not be written: {out.lost.strerror}", file=sys.stderr)
    return status or int(_prints_result(words))


def _prints_result(words: Sequence[str]) -> bool:
    """Return whether the result of a command is its output: of help and most verbs, not of a run or a sweep.

    A word that is neither a verb, an option nor a setting is a method of the predictor of a user's run.
    """
    from dlrunner.cli.verbs import VERBS

    first = words[0] if words else ""
    if verb := VERBS.get(first):
        return verb.prints_result
    if first.startswith("-"):
        return first in ("-h", "--help", "-V", "--version", "--cfg", "-c")
    return bool(first) and "=" not in first and not first.startswith("~")


def _refuse_lost_directory() -> None:
    try:
        os.getcwd()  # noqa: PTH109  only checks that it exists
    except FileNotFoundError:
        raise ConfigError("the working directory no longer exists; change to another one") from None


def _run_reporting_errors(words: list[str]) -> int:
    """Run the command line and print errors without a traceback."""
    try:
        _refuse_lost_directory()
        return _dispatch(words)
    except ConfigError as error:
        return _fail(error, 2)
    except (DataError, RunError) as error:
        return _fail(error, 1)
    except Interrupted as stopped:
        print("\ninterrupted: the same command resumes the run", file=sys.stderr)
        return stopped.exit_status
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except SystemExit as left:
        place = _place_of(left)
        if place is None:
            raise
        return _fail(RunError(f"SystemExit ({place})"), 1)
    except Exception as error:  # a bug, or a user's module: no traceback by default
        if "DLRUNNER_TRACEBACK" in os.environ or "log.level=debug" in _with_log_level(words):
            raise
        if isinstance(error, OSError) and error.filename and error.strerror:
            return _fail(RunError(f"{os.fsdecode(error.filename)}: {error.strerror}"), 1)
        first = (str(error).splitlines() or [""])[0]
        return _fail(RunError(f"{type(error).__name__}: {first} (DLRUNNER_TRACEBACK=1 shows where)"), 1)


def _place_of(left: SystemExit) -> str | None:
    """Return where a user's module has called `sys.exit()`; None: argparse has (help), or Hydra (its own flags)."""
    import traceback

    last = traceback.extract_tb(left.__traceback__)[-1]
    theirs = [module.__file__ or "" for name in ("argparse", "hydra") if (module := sys.modules.get(name))]
    if last.filename.startswith(tuple(file.removesuffix("__init__.py") for file in theirs if file)):
        return None
    return f"{Path(last.filename).name}, line {last.lineno}"


def _fail(error: Exception, status: int) -> int:
    prefix, several = "dlrun", False
    with contextlib.suppress(ConfigError):  # which may be the error itself
        several = num_processes() > 1
    if several:
        from dlrunner.system.process_group import is_reporting_rank

        if not is_reporting_rank():
            return status
        prefix += f", rank {rank()}" if rank() else ""
    for line in str(error).splitlines():
        print(wrapped(f"{prefix}: {line}", stream=sys.stderr), file=sys.stderr)
    return status


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if words[0] in ("-V", "--version"):
        from dlrunner._version import __version__

        print(f"dlrunner {__version__}")
        return 0
    from dlrunner.cli.verbs import VERBS

    if verb := VERBS.get(words[0]):
        if num_processes() > 1:
            raise ConfigError(f"torchrun starts the processes of one run; use `dlrun {words[0]}` without it")
        return verb.run(words[0], words[1:])
    if {"-h", "--help"} & set(words) and (words[0].startswith("-") or "=" in words[0]):
        print(help_text())
        return 0
    from dlrunner.cli.conf_paths import with_paths

    words = with_paths(_with_log_level(words))
    hydra_flags = {"--cfg", "-c", "--info", "-i", "--resolve", "-r", "--package", "-p"}
    if words[0] in ("--shell-completion", "-sc") or hydra_flags & set(words):
        from dlrunner.cli import hydra_cli

        return hydra_cli.handle_flags(words)
    if "-m" in words or "--multirun" in words or any(word.startswith("seeds=") for word in words):
        from dlrunner.cli import sweep as sweeping

        settings = [word for word in words if word not in ("-m", "--multirun")]
        if not settings:
            raise ConfigError(
                f"{words[0]}: needs settings, some with several values: dlrun -m task=collab optim=sgd,adam"
            )
        return sweeping.run_sweep(settings)[1]
    if "=" not in words[0] and not words[0].startswith(("-", "~")):
        from dlrunner.cli.predictor_verbs import verb_of_run
        from dlrunner.errors import did_you_mean

        if verb := verb_of_run(words):
            return verb.run(words[0], words[1:])
        if (user_path(words[0]) / "config.yaml").is_file():
            raise ConfigError(f"{words[0]!r} is a run; a command begins with a verb: dlrun show {words[0]}")
        raise ConfigError(f"{words[0]!r} is neither a verb nor a setting (name=value); {did_you_mean(words[0], VERBS)}")
    return _run(words)


def _with_log_level(words: list[str]) -> list[str]:
    """Replace --quiet, --verbose and --log-level by the setting `log.level`."""
    found, rest = [], iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name == "--log-level":
            level = value if equals else next(rest, None)
            if level is None:
                raise ConfigError("--log-level: needs a level: warning, info or debug")
            found.append(f"log.level={level}")
        else:
            found.append(LEVELS.get(word, word))
    return found


def _run(words: list[str]) -> int:
    from dlrunner.cli.python import config_of_run

    config = config_of_run(words)
    if config["seeds"] is not None:  # an experiment may set them too
        from dlrunner.cli import sweep as sweeping

        return sweeping.run_sweep([*words, f"seeds={config['seeds']}"])[1]
    if rank():
        from dlrunner.execution.follow import follow

        return follow(config)
    if "torch" not in sys.modules:
        _import_frozen()
    from dlrunner.cli.compose import Changes
    from dlrunner.execution import run as runner
    from dlrunner.reporting.terminal import tables

    outcome = runner.run(config, words, changed=Changes().of(config))
    if config["log"]["level"] == "warning":
        print(outcome.path)
    else:
        tables.print_outcome(outcome.path, outcome.is_new)
    return outcome.exit_status


def _import_frozen() -> None:
    """Import what a run needs without any garbage collection; later ones need not visit these modules."""
    gc.disable()
    try:
        import dlrunner.execution.run
        import dlrunner.reporting.terminal.tables  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def _with_common_stems(names: Sequence[str]) -> list[str]:
    """Join names that begin alike, as a shell's braces do.

    >>> _with_common_stems(["camvid", "imdb-lm", "imdb-lm-small", "movielens-best", "movielens-dot"])
    ['camvid', 'imdb-lm{,-small}', 'movielens-{best,dot}']
    """
    groups: dict[str, list[str]] = {}
    stem = ""
    for name in names:
        if not stem or not name.startswith(f"{stem}-"):
            is_stem = any(other.startswith(f"{name}-") for other in names)
            stem = name if is_stem else name.rpartition("-")[0]
        groups.setdefault(stem or name, []).append(name)
    return [_braces(stem, each) for stem, each in groups.items()]


def _braces(stem: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    start = stem if stem in names else f"{stem}-"
    return f"{start}{{{','.join(name.removeprefix(start) for name in names)}}}"


def help_text() -> str:
    """Return the output of `dlrun --help`: verbs, tasks, options."""
    from dlrunner.cli.conf_paths import options_of

    def listed(group: str, width: int = 80 - 14) -> str:
        text, line = "", ""
        for name in _with_common_stems(options_of(group)) if group == "experiment" else options_of(group):
            if len(line) + len(name) > width:
                text, line = f"{text}{line.rstrip()}\n{'':14}", ""
            line += f"{name}  "
        return text + line.rstrip()

    groups = ("task", "model", "optim", "schedule", "experiment")
    options = "\n".join(f"  {group:<12}{listed(group)}" for group in groups)
    from dlrunner.cli.verbs import VERBS

    lines = {**RUNS, **{f"{name} {verb.usage}".rstrip(): verb.summary for name, verb in VERBS.items()}}
    width = max(map(len, lines)) + 2
    usages = "\n".join(f"  {usage:<{width}}{summary}" for usage, summary in lines.items())
    title = "dlrun: a runner for deep-learning experiments, configured by YAML"
    return f"{title}\n\nusage: dlrun …\n{usages}\n\noptions, name=value\n{options}\n\n{EPILOG}".rstrip()
