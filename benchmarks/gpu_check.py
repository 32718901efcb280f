"""A check that all tasks and precisions work on this GPU: small runs of each task, compared with the CPU.

    make gpu-check                                        under ten minutes on a GPU; on a CPU it lists the checks
    python -m benchmarks.gpu_check --device cpu           try the check itself, on the CPU against the CPU
    python -m benchmarks.gpu_check --only imdb-lm         one task

Each task trains some twenty steps on generated data without dropout, so that both devices compute the same: in float32,
float16 and bfloat16, compiled, stopped in the midst of an epoch and resumed, by two processes where there are two GPUs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlrunner.comparison.diff import row_difference

DRY = tuple(f"model.{name}_dropout=0" for name in ("embedding", "input", "weight", "hidden", "output"))
TEXTS = ("data.source=synthetic", "model.embedding=32", "model.hidden=48", "model.layers=2", "data.min_freq=1", *DRY)
TASKS: Mapping[str, Sequence[str]] = {
    "collab": ("task=collab", "data.source=synthetic", "batch_size=2400"),
    "rossmann": (
        *("task=rossmann", "data.source=synthetic", "data.sample=10000", "batch_size=480"),
        *("model=embedding_net", "model.embedding_dropout=0", "model.dropouts=[0,0]"),
    ),
    "imdb-lm": (
        *("task=imdb-lm", *TEXTS, "data.sample=400", "data.sample_valid=100"),
        *("batch_size=28", "task.bptt=30", "task.ngram=0"),
    ),
    "imdb-sentiment": (
        *("task=imdb-sentiment", *TEXTS, "data.sample=320", "data.sample_valid=64", "data.sample_test=32"),
        *("batch_size=16", "task.baseline=false"),
    ),
    "dogbreeds": (
        *("task=dogbreeds", "data.source=synthetic", "data.size=64", "data.sample=320", "data.sample_valid=64"),
        *("batch_size=16", "model.backbone=squeezenet1_1", "model.dropout=0", "model.xtra_fc=[16]", "task.tta=2"),
        *("optim=sgd", "optim.lr=1e-5"),  # deep nets with random weights amplify differences of the last bits
    ),
}
COMPILED = ("collab", "dogbreeds")
"""Compiling takes half a minute each."""
LIMITS = {"fp32": 2e-3, "fp16": 5e-2, "bf16": 5e-2}
"""Limit of the relative difference of an epoch's losses from the CPU in float32; accuracies of few rows jump."""
LOSSES = ("train/loss", "valid/loss")
QUIET = ("log.plots=false", "log.report=false", "log.progress=none")


@dataclass(frozen=True)
class Check:
    """One run, or two, and the reference of its metrics."""

    task: str
    name: str
    words: tuple[str, ...]
    limit: float
    resumes: bool = False
    processes: int = 1


def checks(device: str, num_gpus: int) -> list[Check]:
    """Return the checks of a device."""
    found = []
    for task in TASKS:
        for precision, limit in LIMITS.items():
            if precision == "fp16" and device == "cpu":
                continue
            matmul = ("trainer.matmul=ieee",) if precision == "fp32" else ()
            found.append(Check(task, precision, (f"precision={precision}", *matmul), limit))
        found.append(Check(task, "tf32", ("trainer.matmul=tf32",), LIMITS["bf16"]))
        exact = ("trainer.matmul=ieee", "trainer.deterministic=true")
        found.append(Check(task, "stopped and resumed", exact, LIMITS["fp32"], resumes=True))
        if task in COMPILED:
            found.append(Check(task, "compiled", ("trainer.compile=true", "trainer.matmul=ieee"), LIMITS["fp32"]))
        if num_gpus > 1:
            found.append(Check(task, "two processes", ("trainer.matmul=ieee",), LIMITS["fp32"], processes=2))
    return found


def run(words: Sequence[str], runs: Path, processes: int = 1) -> list[dict[str, Any]]:
    """Train, and return the rows of metrics.jsonl.

    Raises:
        RuntimeError: the run failed; the message is its last line.
    """
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *start, "-m", "dlrunner", *words, *QUIET, f"runs_dir={runs}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return [json.loads(line) for line in (runs / "latest" / "metrics.jsonl").read_text().splitlines()]


def run_in_two_parts(words: Sequence[str], runs: Path) -> list[dict[str, Any]]:
    """Stop a run after its first checkpoint within an epoch, and let the same command resume it."""
    words = [*words, "trainer.checkpoint_minutes=0.00001"]  # at each step
    command = [sys.executable, "-m", "dlrunner", *words, *QUIET, f"runs_dir={runs}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(runs.glob("*/*/last.pt")):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    if process.returncode not in (0, 143):
        raise RuntimeError((errors.strip().splitlines() or ["it failed"])[-1])
    return run(words, runs)


def compare(
    check: Check, found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> tuple[float, bool]:
    """Return the largest relative difference of an epoch, and whether it is small enough."""
    if len(found) != len(expected):
        return math.inf, False
    losses = [[{name: row[name] for name in LOSSES} for row in rows] for rows in (expected, found)]
    difference = max(row_difference(left, right) for left, right in zip(*losses, strict=True))
    return difference, difference <= check.limit


def perform(checks: Sequence[Check], device: str, folder: Path) -> bool:
    """Do all checks, printing a line for each; return whether all are passed."""
    references: dict[str, list[dict[str, Any]]] = {}
    passed = True
    for number, check in enumerate(checks):
        words, runs = (*TASKS[check.task], "epochs=1", *check.words, f"device={device}"), folder / str(number)
        if check.task not in references:
            references[check.task] = run((*TASKS[check.task], "epochs=1", "device=cpu"), folder / check.task)
        begun = time.perf_counter()
        try:
            rows = run_in_two_parts(words, runs) if check.resumes else run(words, runs, check.processes)
            difference, good = compare(check, rows, references[check.task])
            result = f"differs from the CPU by {difference:.1e} (limit {check.limit:g}), {rows[-1]['step']} steps"
        except RuntimeError as error:
            good, result = False, str(error)
        passed = passed and good
        seconds = time.perf_counter() - begun
        print(f"{'ok' if good else 'FAILED':<7}{check.task:<16}{check.name:<21}{seconds:5.1f} s  {result}", flush=True)
    return passed


def main(words: Sequence[str] | None = None) -> int:
    """Check this machine's GPU, or list the checks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], help="cpu tries the check itself; default: cuda")
    parser.add_argument("--only", choices=list(TASKS), help="one task")
    arguments = parser.parse_args(words)
    num_gpus = torch.cuda.device_count() if arguments.device != "cpu" else 0
    device = arguments.device or "cuda"
    todo = [each for each in checks(device, num_gpus) if arguments.only in (None, each.task)]
    if device == "cuda" and not torch.cuda.is_available():
        print("this machine has no GPU; on one with a GPU these are compared with the CPU in float32:")
        for each in todo:
            print(f"  {each.task:<16}{each.name:<21}{' '.join(each.words)}")
        print("  and by two processes where there are two GPUs")
        return 0
    os.environ.setdefault("DLRUNNER_OFFLINE", "1")
    print(torch.cuda.get_device_name() if device == "cuda" else "the CPU, against itself")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if perform(todo, device, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
