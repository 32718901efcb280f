"""Reviews: dlrunner, Lightning, fastai and a plain loop train a text classifier and predict; reviews per second."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
from benchmarks.text import NUM_WORDS, PRECISIONS
from dlrunner.data.texts.loaders import similar_lengths

TRAIN, VALID, BATCH, VALID_BATCH = 192, 192, 32, 64
TEXTS_OF_A_QUICK_CHECK = 64
SPEEDS = ("training", "prediction")
WORK = [
    *("task=text", "model=text_classifier", "model.embedding=200", "model.hidden=500", "model.layers=3"),
    *("optim=adam", "optim.lr=3e-3", "optim.betas=[0.8,0.99]", "schedule=constant", "epochs=3"),
    *("data.text=text", "data.target=label", "data.tokenizer=whitespace", "data.lower=false", "data.min_freq=1"),
    *("data.max_vocab=null", "data.split=column", "data.valid_column=valid", f"batch_size={BATCH}"),
    *("model.head=[50]", "task.baseline=false", f"task.valid_batch_size={VALID_BATCH}"),
]  # fmt: skip


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements."""
    counts = (TRAIN, VALID) if options.rows is None else (TEXTS_OF_A_QUICK_CHECK, TEXTS_OF_A_QUICK_CHECK)
    slowness = slowness_of_bfloat16()
    rows: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = write_texts(folder, *counts)
        everyone = {"GOMP_SPINCOUNT": "10000", "DLRUNNER_CACHE": str(folder)}
        for precision in PRECISIONS if slowness < 1 else ["fp32"]:
            print(PRECISIONS[precision], file=sys.stderr)
            contestants = {
                "dlrunner": _dlrunner(folder, precision, everyone, counts),
                "Lightning 2.6": _lightning(options, folder, precision, everyone, counts),
                "fastai `AWD_LSTM`": _fastai(options, folder, precision, everyone),
                "plain `nn.LSTM` over padded texts": _plain(folder, precision, everyone),
            }
            rows[PRECISIONS[precision]] = in_turn(contestants, options.repeats)
    return _text(rows, counts, words, slowness, options), {"rows": rows, "slowness_of_bfloat16": slowness}


def write_texts(folder: Path, train: int, valid: int) -> float:
    """Write reviews as long as IMDB's, in which all words occur; return their mean length."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(5.4, 0.6, train + valid), 20, 1500).astype(int)
    codes = np.concatenate([random.permutation(NUM_WORDS) for _ in range(-(-lengths.sum() // NUM_WORDS))])
    texts = np.split(codes[: lengths.sum()], np.cumsum(lengths)[:-1])
    labels = random.integers(0, 2, len(texts))
    table = {"text": [" ".join(f"w{code}" for code in text) for text in texts], "label": [f"c{n}" for n in labels]}
    pd.DataFrame({**table, "valid": np.arange(len(texts)) >= train}).to_csv(folder / "texts.csv", index=False)
    arrays: dict[str, Any] = {"num_words": NUM_WORDS + 3}
    valid_order = np.argsort(-lengths[train:], kind="stable")
    chosen = {
        "train": similar_lengths(lengths[:train], BATCH, 0, 0),
        "valid": [train + rows for rows in np.split(valid_order, range(VALID_BATCH, valid, VALID_BATCH))],
    }
    for split, batches in chosen.items():
        order = np.concatenate(batches)
        arrays[f"{split}_codes"] = np.concatenate([texts[row] for row in order]) + 3
        arrays[f"{split}_lengths"] = lengths[order]
        arrays[f"{split}_labels"] = labels[order]
        arrays[f"{split}_sizes"] = np.array([len(batch) for batch in batches])
    np.savez(folder / "texts.npz", **arrays)
    return float(lengths.mean())


def run_words(folder: Path, precision: str, seed: int) -> list[str]:
    """Return dlrun's overrides."""
    return [*WORK, f"data.path={folder / 'texts.csv'}", f"precision={precision}", f"seed={seed}"]


def _with_speeds(run: Run, counts: tuple[int, int]) -> Run:
    """Add the reviews per second of training and of prediction."""
    training = run["examples_per_second"]
    left = [total - counts[0] / speed for total, speed in zip(run["seconds_per_epoch"], training, strict=True)]
    return {**run, "training": training, "prediction": [counts[1] / seconds for seconds in left]}


def _dlrunner(folder: Path, precision: str, environment: Mapping[str, str], counts: tuple[int, int]) -> Contestant:
    def run(seed: int) -> Run:
        runs = folder / f"runs-{precision}-{seed}"
        return _with_speeds(dlrunner(run_words(folder, precision, seed), runs, environment), counts)

    return run


def _lightning(
    options: Options, folder: Path, precision: str, environment: Mapping[str, str], counts: tuple[int, int]
) -> Contestant:
    return lambda seed: _with_speeds(lightning(run_words(folder, precision, seed), options, environment), counts)


def _fastai(options: Options, folder: Path, precision: str, environment: Mapping[str, str]) -> Contestant:
    words = [options.rival_python, str(HERE / "fastai_sentiment.py"), "--texts", str(folder / "texts.npz")]
    words += ["--precision", precision, "--device", DEVICE, "--epochs", "3"]
    return lambda seed: run_json([*words, "--seed", str(seed)], environment)


def _plain(folder: Path, precision: str, environment: Mapping[str, str]) -> Contestant:
    words = [sys.executable, "-m", "benchmarks.plain_sentiment", "--texts", str(folder / "texts.npz")]
    words += ["--precision", precision, "--device", DEVICE, "--epochs", "3"]
    return lambda seed: run_json([*words, "--seed", str(seed)], environment)


def _text(
    rows: Mapping[str, Mapping[str, list[Run]]],
    counts: tuple[int, int],
    words: float,
    slowness: float,
    options: Options,
) -> str:
    lines = [
        "# Reviews: the lesson's classifier of texts",
        "",
        conditions("python -m benchmarks sentiment", options.repeats, versions(next(iter(rows.values())))),
        f"{counts[0]} texts to train in batches of {BATCH}, {counts[1]} to predict in batches of {VALID_BATCH}, of",
        f"similar length; {words:.0f} words each of {NUM_WORDS:,}. Embedding 200, three LSTM layers of 500,",
        "pieces of 70 words, gradients for the last 1,500, a layer of 50 in the head; all dropouts, AR and TAR,",
        "clipping at 25; every layer trains. Three epochs, the first left out; prediction: each evaluation.",
        "The plain model has neither dropouts nor penalties, and reads each text in one piece.",
        f"All with {THREADS} threads and GOMP_SPINCOUNT=10000: dlrunner sets that itself, for the others it was set.",
        "",
        "| | training, reviews per second | prediction | dlrunner is … times as fast |",
        "|---|---|---|---|",
    ]
    for title, contest in rows.items():
        lines.append(f"| **{title}** | | | |")
        own = {kind: _median(next(iter(contest.values())), kind) for kind in SPEEDS}
        for name, runs in contest.items():
            speeds = " | ".join(with_range([s for run in runs for s in run[kind][1:]], 1) for kind in SPEEDS)
            ratios = ", ".join(f"{own[kind] / _median(runs, kind):.1f}" for kind in SPEEDS)
            lines.append(f"| {name} | {speeds} | {ratios} |")
    for title, contest in rows.items():
        lines += ["", f"{title}: {sameness(contest['dlrunner'], contest['Lightning 2.6'])}"]
    if slowness >= 1:
        lines += ["", f"bfloat16 is left out: this machine emulates it ({slowness:.0f} times as slow as float32)."]
    return "\n".join([*lines, ""])


def _median(runs: list[Run], kind: str) -> float:
    return float(statistics.median(speed for run in runs for speed in run[kind][1:]))
