"""Settings that nobody should type: each ends with status 2 and a sentence, before anything is read or left behind.

The data that they name does not exist, so that a request without a mistake ends with status 1 and its name.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dlrunner.cli.compose import compose
from tests.hostile.harness import ArchiveOrFolder, Failure, check, shared_value

COUNT = 1000
MISSING = "missing.csv"
LONGEST = 30.0
TASKS = (
    "collab",
    "tabular",
    "lm",
    "text",
    "image",
    "segmentation",
    "rossmann",
    "imdb-lm",
    "imdb-sentiment",
    "dogbreeds",
)

NUMBERS = (
    *(
        "-1",
        "0",
        "1",
        "1.5",
        "-0.0",
        "1e309",
        "-1e309",
        "1e-400",
        "nan",
        "inf",
        "-inf",
        "1e3",
        "1_000",
        "0x10",
        ".5",
        "5.",
    ),
    *("9" * 30, "9" * 5000, "-" + "9" * 400, "1" + "0" * 4299, str(2**63), str(2**64), "007", "1e", "+1", "--1"),
)
TEXTS = (
    *("abc", "true", "True", "yes", "null", "none", "''", '""', "", " ", "'", '"', "\\", "%s", "{}", "a=b", "a:b", "@x", "#", "?"),
    *("ü", '"ü"', "'日本語'", "😀", "'😀'", "\u202e", "'\u202eabc'", "\ufeff1", "'a\u0301'", "\udcff", "'\udcff'", "'\\udcff'"),
    *("'\n'", "'a\nb'", "'\t'", "'\x1b[31mred'", "\x1b]0;title\x07", "'\x7f'", "a" * 10_000, "'" + "b" * 300 + "'", "2024-01-01"),
)  # fmt: skip
NESTED = (
    *("[]", "[[]]", "{}", "[1,[2,[3]]]", "{a:1}", "{a:{b:{c:[1]}}}", "[a,b", "a]", "{a:", "[" * 200 + "]" * 200),
    *("{a:" * 60 + "1" + "}" * 60, "[" * 900, "[" + ",".join("1" * 1 for _ in range(3000)) + "]", "{a:1,a:2}", "[null]", "{_target_:os.system}"),
)  # fmt: skip
REFERENCES = (
    *(
        "${seed}",
        "${nosuch}",
        "${oc.env:HOME}",
        "${oc.env:NOSUCH}",
        "${hydra:runtime.cwd}",
        "${data.path}",
        "${${seed}}",
    ),
    *("${", "${}", "${model}", "${task._target_}", "${oc.create:{a:1}}", "${oc.decode:'[1'}", "${now:%Y}", "???"),
)
COMMANDS = (
    *("$(touch ../neighbour/x)", "`touch ../neighbour/x`", "; touch ../neighbour/x", "| cat", "&& true", "> x", "*", "~/x"),
    *("~nosuch/x", "../../x", "/dev/zero", "/nosuch/x", "/proc/self/mem", "os.system", "builtins.eval", "dlrunner.execution.run.run"),
    *("'!!python/object/apply:os.system [touch ../neighbour/x]'", "torch.load", "subprocess.Popen", "dlrunner", "torch.nn.Linear"),
)  # fmt: skip
SWEEPS = (
    *(
        "1,2",
        "choice(1,2)",
        "range(1,3)",
        "interval(0,1)",
        "glob(*)",
        "sort(2,1)",
        "shuffle(1,2)",
        "tag(a,1)",
        "int(1.5)",
    ),
    *("range(1,1e9)", "choice()", "extend_list(1)", "nosuch(1)", "str(1)", "json_str(1)", "bool(x)", "cast(1)"),
)
VALUES = (NUMBERS, TEXTS, NESTED, REFERENCES, COMMANDS, SWEEPS)

STRANGE_KEYS = (
    *("", ".", "..", "a..b", "a/b", "a.b.c", "_target_", "__class__", "task.__init__", "model._args_", "model._recursive_"),
    *("optim@model", "model@data.x", "defaults", "package", "_self_", "choices", "choices.task", "choices.experiment"),
    *("hydra", "hydra.run.dir", "hydra.job.name", "hydra.job.chdir", "hydra.job.env_set", "hydra.sweep.dir", "hydra.mode"),
    *("hydra.callbacks.x", "hydra.job_logging", "hydra.verbose", "hydra.searchpath", "hydra.output_subdir", "hydra.nosuch"),
    *("hydra/job_logging", "hydra/launcher", "hydra/sweeper", "hydra/output", "hydra.launcher._target_", "hydra.sweeper.x"),
    *("log.trackers", "log.trackers.x", "log", "experiment", "claim", "claim.metric", "seeds", "sweep", "sweep.jobs", "phases"),
    *("data", "task", "model", "optim", "schedule", "trainer", "plugins", "tasks", "sede", "optim.lrr", "ünï", "a b", "a\nb", "1", "-"),
)  # fmt: skip
MODES: tuple[Callable[[list[str]], list[str]], ...] = (
    *(lambda words: words,) * 8,
    lambda words: ["--cfg", "job", *words],
    lambda words: ["-m", *words, "sweep.dry_run=true"],
    lambda words: ["lr-find", *words],
)


def attempt(number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """Type one request."""
    settings: Mapping[str, Mapping[str, Any]] = shared_value(shared, "settings", _settings)
    place.work.mkdir()
    task = rng.choice(TASKS)
    words = [f"task={task}", *(_word(rng, list(settings[task])) for _ in range(rng.choice((1, 1, 1, 2, 3))))]
    words = rng.choice(MODES)([*words, f"data.path={MISSING}", "data.source=real"])
    words = [os.fsdecode(os.fsencode(word)) for word in words]
    done = place.run(*words, longest=LONGEST)
    shown = " ".join(map(ascii, words))[:400]
    for failure in check(done, (0, 1, 2)):
        yield Failure(failure.fault, f"{shown}: {failure.text}")
    is_shown = words[0] == "--cfg" or "sweep.dry_run=true" in words
    if done.status == 0 and not is_shown:
        yield Failure("differences", f"{shown}: ended well without data")
    if done.status == 1 and MISSING not in done.err + done.out:
        yield Failure("differences", f"{shown}: a wrong request ends with 1: {done.err[-300:]!a}")
    if left := [path.name for path in place.work.rglob("*")]:
        yield Failure("left", f"{shown}: ended with {done.status} and left {', '.join(left)[:200]}")


def _settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Return by task all settings that exist, by their flat names."""
    return {task: dict(_flat(compose([f"task={task}"]))) for task in TASKS}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")


def _word(rng: random.Random, known: list[str]) -> str:
    key = rng.choice(STRANGE_KEYS) if rng.random() < 0.3 else rng.choice(known)
    if rng.random() < 0.08:
        at = rng.randrange(len(key) + 1)
        key = key[:at] + rng.choice(("x", ".", "-", "ü", " ", "=", "\n")) + key[at:]
    value = rng.choice(rng.choice(VALUES))
    prefix = rng.choice(("", "", "", "", "+", "++", "~", "+++", "-", "--", "~~"))
    form = rng.choice(("{}{}={}",) * 8 + ("{}{}", "{}{}==", "{}{} = {}", "{}{}:{}"))
    return form.format(prefix, key, value)
