"""Texts: dlrunner, fastai and plain PyTorch train the lesson's language model; words a second."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import DEVICE, HERE, THREADS, Options, Run, conditions, dlrunner, in_turn, told, with_range
from benchmarks.tabular import slowness_of_bfloat16

NUM_WORDS = 35_000
COLUMNS, BPTT = 64, 70
STEPS, STEPS_OF_A_TRY = 4, 1
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
WORK = [
    *("task=lm", "optim=adam", "optim.lr=3e-3", "optim.betas=[0.7,0.99]", "schedule=constant", "epochs=3"),
    *("data.tokenizer=whitespace", "data.lower=false", "data.min_freq=1", "data.max_vocab=null"),
    *(f"batch_size={COLUMNS}", f"task.bptt={BPTT}", "task.vary_bptt=false", "task.ngram=0", "task.valid_batch_size=1"),
]  # fmt: skip


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and what it was made from."""
    steps = STEPS if options.rows is None else STEPS_OF_A_TRY
    slowness = slowness_of_bfloat16()
    rows: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_words(folder, steps)
        everyone = {"GOMP_SPINCOUNT": "10000", "DLRUNNER_CACHE": str(folder)}
        for precision in PRECISIONS if slowness < 1 else ["fp32"]:
            print(PRECISIONS[precision], file=sys.stderr)
            fastai = [options.rival_python, str(HERE / "fastai_text.py")]
            plain = [sys.executable, "-m", "benchmarks.plain_text"]
            contestants = {
                "dlrunner, AWD-LSTM": _dlrunner(folder, precision, everyone),
                "fastai `AWD_LSTM`, RNNRegularizer": _other(fastai, folder, precision, everyone),
                "plain `nn.LSTM` and cross entropy": _other(plain, folder, precision, everyone),
            }
            rows[PRECISIONS[precision]] = in_turn(contestants, options.repeats)
    return _text(rows, steps, slowness, options), {"rows": rows, "slowness_of_bfloat16": slowness}


def _write_words(folder: Path, steps: int) -> None:
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


def _dlrunner(folder: Path, precision: str, environment: Mapping[str, str]) -> Callable[[int], Run]:
    def run(seed: int) -> Run:
        runs = folder / f"runs-{precision}-{seed}"
        files = [f"data.path={folder / 'train.txt'}", f"data.valid_path={folder / 'valid.txt'}"]
        found = dlrunner([*WORK, *files, f"precision={precision}", f"seed={seed}"], runs, environment)
        history = [json.loads(line) for line in (runs / "latest" / "metrics.jsonl").read_text().splitlines()]
        return {**found, "words_per_second": [row["examples_per_second"] for row in history]}

    return run


def _other(words: list[str], folder: Path, precision: str, environment: Mapping[str, str]) -> Callable[[int], Run]:
    settings = ["--words", str(folder / "words.npz"), "--precision", precision, "--device", DEVICE]
    return lambda seed: told([*words, *settings, "--seed", str(seed)], environment)


def _text(rows: Mapping[str, Mapping[str, list[Run]]], steps: int, slowness: float, options: Options) -> str:
    version = next(iter(rows.values()))["fastai `AWD_LSTM`, RNNRegularizer"][0]["version"]
    lines = [
        f"# Texts: a language model of {NUM_WORDS:,} words, the lesson's sizes",
        "",
        conditions("python -m benchmarks text", options.repeats, f"fastai {version}"),
        f"Embedding 200, three LSTM layers of 500, tied decoder; {COLUMNS} columns, pieces of {BPTT} words,",
        f"{steps} steps an epoch, three epochs, the first left out; training alone. Adam, clipping at .3.",
        "dlrunner and fastai drop words, inputs, weights, hidden states and outputs, and add AR and TAR; the plain",
        "model does none of it.",
        f"All with {THREADS} threads and GOMP_SPINCOUNT=10000: dlrunner sets that itself, for the others it was set.",
        "",
        "| | words a second | dlrunner is … times as fast |",
        "|---|---|---|",
    ]
    for title, contest in rows.items():
        lines.append(f"| **{title}** | | |")
        own = _median(next(iter(contest.values())))
        for name, runs in contest.items():
            speeds = with_range([s for run in runs for s in run["words_per_second"][1:]], 0)
            lines.append(f"| {name} | {speeds} | {own / _median(runs):.1f} |")
    if slowness >= 1:
        lines += ["", f"bfloat16 is left out: this machine emulates it ({slowness:.0f} times as slow as float32)."]
    return "\n".join([*lines, ""])


def _median(runs: list[Run]) -> float:
    return float(statistics.median(speed for run in runs for speed in run["words_per_second"][1:]))
