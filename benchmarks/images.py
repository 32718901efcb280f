"""Pictures: decoding, features of a frozen backbone and a head on them, by dlrunner and as one writes them by hand."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.measuring import THREADS, Options, Run, conditions, data_dir, in_turn, told, with_range
from benchmarks.tabular import slowness_of_bfloat16
from dlrunner.errors import DataError

PICTURES, LARGE, OF_A_TRY = 2000, 300, 40
WEIGHTS = "mobilenet_v2_features.pt"
TITLES = {
    "decode": "decoding {pictures:,} JPEGs of 224 pixels a side into normalised batches",
    "large": "decoding {large} JPEGs of 1,344 pixels a side",
    "features": "MobileNetV2's 1,280 features of a picture, 224 pixels a side",
    "head": "epochs of a head on 8,178 × 1,280 kept features",
}
WAYS = {
    "decode": {"dlrunner": "dlrunner", "plain": "DataLoader, Pillow"},
    "large": {"dlrunner": "dlrunner", "plain": "DataLoader, Pillow"},
    "features": {
        "dlrunner": "dlrunner, float32",
        "dlrunner-bf16": "dlrunner, bfloat16",
        "plain": "plain, float32",
        "plain-bf16": "plain, bfloat16",
        "compile": "plain, torch.compile, float32",
    },
    "head": {"dlrunner": "dlrunner, fused AdamW", "plain": "DataLoader, AdamW"},
}


def measure(options: Options) -> tuple[str, dict[str, Any]]:
    """Return the table and what it was made from."""
    slowness, is_try = slowness_of_bfloat16(), options.rows is not None
    pictures, large = (PICTURES, LARGE) if not is_try else (OF_A_TRY, OF_A_TRY)
    weights = data_dir() / "weights" / WEIGHTS
    if not weights.exists():
        raise DataError(f"the pictures' benchmark needs {weights}")
    rows: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folders = {"decode": Path(name) / "small", "large": Path(name) / "large"}
        _write_pictures(folders["decode"], pictures, 1)
        _write_pictures(folders["large"], large, 6)
        for work, ways in WAYS.items():
            print(TITLES[work].format(pictures=pictures, large=large), file=sys.stderr)
            given = ["--pictures", str(folders.get(work, name)), "--weights", str(weights)]
            given += ["--number", str(OF_A_TRY if is_try else 512)]
            contestants = {
                title: _contestant("decode" if work == "large" else work, way, given)
                for way, title in ways.items()
                if not (way.endswith("bf16") and slowness >= 1)
                and not (way == "compile" and shutil.which("g++") is None)
            }
            rows[work] = in_turn(contestants, options.repeats)
    return _text(rows, {"pictures": pictures, "large": large}, slowness, options), {"rows": rows}


def _write_pictures(folder: Path, number: int, scale: int) -> None:
    """Write dogs as a folder with two classes, each enlarged so many times."""
    with zipfile.ZipFile(data_dir() / "dog-breeds.zip") as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".jpg")][:number]
        for place, name in enumerate(names):
            path = folder / "ab"[place % 2] / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
            if scale > 1:
                with Image.open(path) as opened:
                    picture = opened.resize((scale * opened.width, scale * opened.height), Image.Resampling.BICUBIC)
                picture.save(path, "JPEG", quality=90)


def _contestant(work: str, way: str, given: list[str]) -> Callable[[int], Run]:
    words = [sys.executable, "-m", "benchmarks.picture_work", work, way, *given]
    return lambda seed: told(words, {"GOMP_SPINCOUNT": "10000", "OMP_NUM_THREADS": str(THREADS)})


def _text(
    rows: Mapping[str, Mapping[str, list[Run]]], counts: Mapping[str, int], slowness: float, options: Options
) -> str:
    lines = [
        "# Pictures",
        "",
        conditions("python -m benchmarks images", options.repeats, "by hand: torchvision's way with Pillow"),
        "Each in a process of its own; imports are not timed. dlrunner decodes into its cache, once for all epochs;",
        "its features are computed in batches of eight, channels last, with batch norm folded into the convolutions.",
        "",
        "| | a second | dlrunner is … times as fast |",
        "|---|---|---|",
    ]
    for work, contest in rows.items():
        lines.append(f"| **{TITLES[work].format(**counts)}** | | |")
        own = _median(next(iter(contest.values())))
        for name, runs in contest.items():
            speeds = with_range([run["per_second"] for run in runs], 1 if work == "head" else 0)
            lines.append(f"| {name} | {speeds} | {own / _median(runs):.1f} |")
    if slowness >= 1:
        lines += ["", f"bfloat16 is left out: this machine emulates it ({slowness:.0f} times as slow as float32)."]
    return "\n".join([*lines, ""])


def _median(runs: list[Run]) -> float:
    return float(statistics.median(run["per_second"] for run in runs))
