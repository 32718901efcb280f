"""Images: decoding, features of a frozen backbone and a head on them, by dlrunner, libraries and plain loops."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.measuring import (
    DEVICE,
    HERE,
    THREADS,
    Contestant,
    Options,
    Run,
    conditions,
    data_dir,
    dlrunner,
    in_turn,
    lightning,
    run_json,
    sameness,
    versions,
    with_range,
)
from benchmarks.tabular import slowness_of_bfloat16
from dlrunner.errors import DataError

NUM_IMAGES, NUM_LARGE, NUM_TRIAL = 2000, 300, 40
WEIGHTS = "mobilenet_v2_features.pt"
TITLES = {
    "decode": "decoding {images} JPEGs of 224 pixels a side into normalised batches",
    "large": "decoding {large} JPEGs of 1,344 pixels a side",
    "features": "MobileNetV2's 1,280 features of an image, 224 pixels a side, float32",
    "features-bf16": "the same in bfloat16",
    "net": "training all of MobileNetV2, epochs of {net} images in batches of 16, validation on {net_valid}",
    "head": "epochs of a head on {head} × 1,280 cached features in batches of 64, validation on {head_valid}",
}
WAYS = {
    "decode": {"dlrunner": "dlrunner", "plain": "plain, DataLoader and Pillow"},
    "large": {"dlrunner": "dlrunner", "plain": "plain, DataLoader and Pillow"},
    "features": {"dlrunner": "dlrunner", "plain": "plain", "compile": "plain, torch.compile"},
    "features-bf16": {"dlrunner-bf16": "dlrunner", "plain-bf16": "plain"},
}
PIECES = {"decode": "decode", "large": "decode", "features": "features", "features-bf16": "features"}
WORK = [
    *("task=dogbreeds", "data.source=real", "model.backbone=mobilenet_v2", "model.variant=gluon", "optim=adamw"),
    *(f"model.weights={WEIGHTS}", "schedule=constant", "optim.lr=1e-3", "task.augment=false", "epochs=4"),
]
TRAINED = {"net": ["batch_size=16"], "head": ["batch_size=64", "freeze_to=-1", "task.precompute=true"]}
COUNTS, TRIAL_COUNTS = {"net": (64, 32), "head": (2000, 500)}, {"net": (32, 16), "head": (200, 50)}
"""Numbers of training and validation images."""


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and its measurements."""
    slowness, is_try = slowness_of_bfloat16(), options.rows is not None
    images, large = (NUM_IMAGES, NUM_LARGE) if not is_try else (NUM_TRIAL, NUM_TRIAL)
    weights = data_dir() / "weights" / WEIGHTS
    for file in (weights, data_dir() / "dog-breeds.zip"):
        if not file.exists():
            raise DataError(f"the benchmark of images needs {file}: set DLRUNNER_DATA")
    counts = TRIAL_COUNTS if is_try else COUNTS
    sizes = {"images": images, "large": large}
    for work, (train, valid) in counts.items():
        sizes |= {work: train, f"{work}_valid": valid}
    rows: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = {"decode": Path(name) / "small", "large": Path(name) / "large"}
        write_images(folders["decode"], images, 1)
        write_images(folders["large"], large, 6)
        for work, ways in WAYS.items():
            if work.endswith("bf16") and slowness >= 1:
                continue
            print(_title(work, sizes), file=sys.stderr)
            given = ["--images", str(folders.get(work, name)), "--weights", str(weights)]
            given += ["--number", str(NUM_TRIAL if is_try else 512)]
            contestants = {
                title: _contestant(PIECES[work], way, given)
                for way, title in ways.items()
                if not (way == "compile" and shutil.which("g++") is None)
            }
            rows[work] = in_turn(contestants, options.repeats)
        for work, count in counts.items():
            print(_title(work, sizes), file=sys.stderr)
            rows[work] = in_turn(_trained(work, count, options, Path(name)), options.repeats)
    return _text(rows, sizes, slowness, options), {"rows": rows}


def _title(work: str, counts: Mapping[str, int]) -> str:
    return TITLES[work].format(**{name: f"{count:,}" for name, count in counts.items()})


def _trained(work: str, counts: tuple[int, int], options: Options, folder: Path) -> dict[str, Contestant]:
    """Return the contestants that train a net, or a head on the features of the frozen net."""
    train, valid = counts
    words = [*WORK, *TRAINED[work], f"data.sample={train}", f"data.sample_valid={valid}"]
    everyone = {"GOMP_SPINCOUNT": "10000", "DLRUNNER_CACHE": str(folder / "cache"), "DLRUNNER_DATA": str(data_dir())}
    by_hand = [sys.executable, "-m", "benchmarks.image_work", work, "plain", "--number", str(train)]
    by_hand += ["--number-valid", str(valid), "--weights", str(data_dir() / "weights" / WEIGHTS)]
    rival = [options.rival_python, str(HERE / "fastai_images.py"), work, "--number", str(train)]
    rival += ["--number-valid", str(valid), "--device", DEVICE]
    with_own_net = {**everyone, "PYTHONPATH": str(HERE.parent / "src")}

    def with_speed(run: Run) -> Run:
        """Add epochs per second for the head, else images per second in training and validation."""
        images = 1 if work == "head" else train + valid
        return {**run, "per_second": images / statistics.median(run["seconds_per_epoch"][1:])}

    return {
        "dlrunner": lambda seed: with_speed(
            dlrunner([*words, f"seed={seed}"], folder / f"runs-{work}-{seed}", everyone)
        ),
        "Lightning 2.6": lambda seed: with_speed(lightning([*words, f"seed={seed}"], options, everyone)),
        "fastai `Learner`": lambda seed: with_speed(run_json([*rival, "--seed", str(seed)], with_own_net)),
        "plain, DataLoader and AdamW": lambda seed: with_speed(run_json([*by_hand, "--seed", str(seed)], everyone)),
    }


def write_images(folder: Path, number: int, scale: int) -> None:
    """Write images of dogs into folders of two classes, enlarged by a factor."""
    with zipfile.ZipFile(data_dir() / "dog-breeds.zip") as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".jpg")][:number]
        for index, name in enumerate(names):
            path = folder / "ab"[index % 2] / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
            if scale > 1:
                with Image.open(path) as opened:
                    image = opened.resize((scale * opened.width, scale * opened.height), Image.Resampling.BICUBIC)
                image.save(path, "JPEG", quality=90)


def _contestant(work: str, way: str, given: list[str]) -> Contestant:
    words = [sys.executable, "-m", "benchmarks.image_work", work, way, *given]
    return lambda seed: run_json(words, {"GOMP_SPINCOUNT": "10000", "OMP_NUM_THREADS": str(THREADS)})


def _text(
    rows: Mapping[str, Mapping[str, list[Run]]], counts: Mapping[str, int], slowness: float, options: Options
) -> str:
    lines = [
        "# Images",
        "",
        conditions("python -m benchmarks images", options.repeats, versions(rows["net"])),
        "Each in its own process; imports are not timed. dlrunner decodes into its cache, once for all epochs;",
        "its features are computed in batches of eight, channels last, with batch norm folded into the convolutions.",
        "Every dlrun keeps freed memory (`keep_freed_memory`), the others do not.",
        "The plain loops use torchvision's transforms with Pillow, batches of 64 for features. Nets train on",
        "decoded images without augmentation; an epoch is training and validation, the first is left out.",
        "fastai's Learner trains the same net from decoded images in memory; its users decode in every epoch.",
        "",
        "| | per second | dlrunner is … times as fast |",
        "|---|---|---|",
    ]
    for work, contest in rows.items():
        lines.append(f"| **{_title(work, counts)}** | | |")
        own = _median(next(iter(contest.values())))
        for name, runs in contest.items():
            median = _median(runs)
            speeds = with_range([run["per_second"] for run in runs], 0 if median >= 100 else 1)
            lines.append(f"| {name} | {speeds} | {own / median:.1f} |")
    for work in TRAINED:
        same = sameness(rows[work]["dlrunner"], rows[work]["Lightning 2.6"])
        lines += ["", f"{work}: {same}"]
    if slowness >= 1:
        lines += ["", f"bfloat16 is left out: this machine emulates it ({slowness:.0f} times as slow as float32)."]
    return "\n".join([*lines, ""])


def _median(runs: list[Run]) -> float:
    return float(statistics.median(run["per_second"] for run in runs))
