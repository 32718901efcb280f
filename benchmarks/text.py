"""Texts: dlrunner, fastai and plain PyTorch train the lesson's language model; words per second."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import (
    DEVICE,
    HERE,
    THREADS,
    Contestant,
    Options,
    Run,
    conditions,
    dlrunner,
    in_turn,
    lightning,
    run_json,
    sameness,
    versions,
    with_range,
)
from benchmarks.tabular import slowness_of_bfloat16

NUM_WORDS = 35_000
COLUMNS, BPTT = 64, 70
STEPS, STEPS_OF_A_QUICK_CHECK = 4, 1
EPOCHS = 3
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
WORK = [
    *("task=lm", "optim=adam", "optim.lr=3e-3", "optim.betas=[0.7,0.99]", "schedule=constant"),
    *("data.tokenizer=whitespace", "data.lower=false", "data.min_freq=1", "data.max_vocab=null"),
    *(f"batch_size={COLUMNS}", f"task.bptt={BPTT}", "task.vary_bptt=false", "task.ngram=0", "task.valid_batch_size=1"),
]  # fmt: skip


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements."""
    steps = STEPS if options.rows is None else STEPS_OF_A_QUICK_CHECK
    slowness = slowness_of_bfloat16()
    rows: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_words(folder, steps)
        for precision in PRECISIONS if slowness < 1 else ["fp32"]:
            print(PRECISIONS[precision], file=sys.stderr)
            rows[PRECISIONS[precision]] = in_turn(contestants(options, folder, precision, EPOCHS), options.repeats)
    return _text(rows, steps, slowness, options), {"rows": rows, "slowness_of_bfloat16": slowness}


def contestants(options: Options, folder: Path, precision: str, epochs: int) -> dict[str, Contestant]:
    """Return the contestants on the words of a folder."""
    everyone = {"GOMP_SPINCOUNT": "10000", "DLRUNNER_CACHE": str(folder)}
    files = [f"data.path={folder / 'train.txt'}", f"data.valid_path={folder / 'valid.txt'}"]
    work = [*WORK, *files, f"precision={precision}", f"epochs={epochs}"]
    settings = ["--words", str(folder / "words.npz"), "--precision", precision, "--device", DEVICE]
    settings += ["--epochs", str(epochs)]

    def own(seed: int) -> Run:
        run = dlrunner([*work, f"seed={seed}"], folder / f"runs-{precision}-{seed}", everyone)
        return {**run, "words_per_second": run["examples_per_second"]}

    def trainer(seed: int) -> Run:
        run = lightning([*work, f"seed={seed}"], options, everyone)
        return {**run, "words_per_second": run["examples_per_second"]}

    def other(*words: str) -> Contestant:
        return lambda seed: run_json([*words, *settings, "--seed", str(seed)], everyone)

    return {
        "dlrunner, AWD-LSTM": own,
        "Lightning 2.6, dlrunner's AWD-LSTM": trainer,
        "fastai `AWD_LSTM`, RNNRegularizer": other(options.rival_python, str(HERE / "fastai_text.py")),
        "plain `nn.LSTM` and cross entropy": other(sys.executable, "-m", "benchmarks.plain_text"),
    }


def write_words(folder: Path, steps: int) -> None:
    """Write a stream in which all words occur, as a token file and as columns of codes."""
    random = np.random.default_rng(0)
    length = COLUMNS * BPTT * steps + 1
    # dlrunner adds the three marks to the vocabulary, and one of them to the end of the text.
    codes = np.concatenate([random.permutation(NUM_WORDS) for _ in range(-(-length // NUM_WORDS))])[: length - 1]
    (folder / "train.txt").write_text(" ".join(f"w{code}" for code in codes) + "\n")
    (folder / "valid.txt").write_text(" ".join(f"w{code}" for code in codes[:200]) + "\n")
    stream = np.concatenate([codes + 3, [2]]).astype(np.int32)
    columns = np.stack([stream[i * BPTT * steps : (i + 1) * BPTT * steps + 1] for i in range(COLUMNS)])
    np.savez(folder / "words.npz", columns=columns, num_words=NUM_WORDS + 3)


def _text(rows: Mapping[str, Mapping[str, list[Run]]], steps: int, slowness: float, options: Options) -> str:
    lines = [
        f"# Texts: a language model of {NUM_WORDS:,} words, the lesson's sizes",
        "",
        conditions("python -m benchmarks text", options.repeats, versions(next(iter(rows.values())))),
        f"Embedding 200, three LSTM layers of 500, tied decoder; {COLUMNS} columns, pieces of {BPTT} words,",
        f"{steps} steps per epoch, three epochs, the first left out; training only. Adam, clipping at .3.",
        "All but the plain model drop words, inputs, weights, hidden states and outputs, and add AR and TAR.",
        f"All with {THREADS} threads and GOMP_SPINCOUNT=10000: dlrunner sets that itself, for the others it was set.",
        "",
        "| | words per second | dlrunner is … times as fast |",
        "|---|---|---|",
    ]
    for title, contest in rows.items():
        lines.append(f"| **{title}** | | |")
        own = _median(next(iter(contest.values())))
        for name, runs in contest.items():
            speeds = with_range([s for run in runs for s in run["words_per_second"][1:]], 0)
            lines.append(f"| {name} | {speeds} | {own / _median(runs):.1f} |")
    for title, contest in rows.items():
        dlrunners, trainers = list(contest.values())[:2]
        lines += ["", f"{title}: {sameness(dlrunners, trainers)}"]
    if slowness >= 1:
        lines += ["", f"bfloat16 is left out: this machine emulates it ({slowness:.0f} times as slow as float32)."]
    return "\n".join([*lines, ""])


def _median(runs: list[Run]) -> float:
    return float(statistics.median(speed for run in runs for speed in run["words_per_second"][1:]))
