"""One workload of the table of limits: dlrunner's own loop, and the ceiling of the same operators, in turn.

    python -m benchmarks.limit_work train --repeats 3 task=movielens optim=adamw
    python -m benchmarks.limit_work evaluate task=text data.path=texts.csv
    python -m benchmarks.limit_work decode --images folder/
    python -m benchmarks.limit_work features --weights mobilenet_v2_features.pt --precision bf16

Prints one JSON object: examples, seconds of the own loop, and seconds of the ceiling by part, one of each a repetition.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.image_work import BATCH, CLASSES, SIZE
from benchmarks.measuring import THREADS, settled
from benchmarks.operators import SIZES, Machine, Recorder, ceiling
from dlrunner.data.images.dataset import cached_pixels
from dlrunner.data.images.files import find_images
from dlrunner.data.images.loaders import ImageLoader, normalised
from dlrunner.execution.member import set_up_process
from dlrunner.models.image import ImageClassifier, ImageDims
from dlrunner.system.cpu_tuning import keep_freed_memory
from dlrunner.system.seeding import seed_everything
from dlrunner.training.hooks import NOTHING
from dlrunner.training.state import TrainingState

WARM_UP = 1
"""Passes before the first one that is timed: libraries choose their kernels in it."""


class NoHooks:
    """Hooks that show, save and stop nothing."""

    def start_epoch(self, *_: Any) -> None:
        """Show nothing."""

    def due(self) -> Any:
        """Return that nothing is due."""
        return NOTHING


def training(words: Sequence[str], *, evaluates: bool) -> Callable[[], int]:
    """Return an epoch of training, or an evaluation of the validation split, through dlrunner's Trainer."""
    checked = settled(words)
    seed, phase = checked.settings.seed, checked.phases[0]
    set_up_process(checked)
    trainer, task = checked.build_trainer(seed), checked.build_task(checked.build_data(), seed)
    task.notes()  # reads the data, as a run does before it seeds
    seed_everything(seed)
    model = checked.build_model(task.dims)
    model.load_pretrained()
    trainer.prepare(task, model, lambda line: None)
    optimizer = checked.make_optimizer(model.layer_groups())
    hooks: Any = NoHooks()

    def train() -> int:
        state = TrainingState()
        trainer.train_epoch(task, model, optimizer, state, hooks)
        return sum(state.sizes)

    without_inference_mode = inspect.unwrap(type(trainer).evaluate)

    def evaluate() -> int:
        with torch.no_grad():  # see `Recorder`
            without_inference_mode(trainer, task, model, "valid", phase)
        return task.sizes()["valid"]

    return evaluate if evaluates else train


def features(weights: Path, precision: str, number: int) -> Callable[[], int]:
    """Return a pass of the frozen backbone over images, as `benchmarks.image_work` measures it."""
    keep_freed_memory()
    torch.manual_seed(0)
    dims = ImageDims(CLASSES)
    net = ImageClassifier(dims, Path(), backbone="mobilenet_v2", variant="gluon", weights=str(weights))
    net.load_pretrained()
    run = net.frozen_features()
    pixels = torch.randint(0, 256, (number, SIZE, SIZE, 3), dtype=torch.uint8)
    batches = list(torch.split(torch.arange(number), 8))
    loader = ImageLoader(pixels, torch.zeros(number, dtype=torch.int64), batches, SIZE)

    def work() -> int:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for batch in loader:
                run(*batch.inputs).float()
        return number

    return work


def measure(work: Callable[[], int], repeats: int, machine: Machine) -> dict[str, Any]:
    """Run the work and measure the ceiling of its operators, in turn."""
    for _ in range(WARM_UP):
        examples = work()
    with Recorder() as recorder:
        work()
    own, ceilings = [], []
    for _ in range(repeats):
        started = machine.clock()
        work()
        own.append(machine.clock() - started)
        machine.measure()
        ceilings.append(ceiling(recorder.counts, machine))
    kernels = sum(count for operator, count in recorder.counts.items() if not operator.is_view)
    return {
        "examples": examples,
        "threads": torch.get_num_threads(),
        "kernels": kernels,
        "own": own,
        "ceilings": ceilings,
        "launch": machine.launch,
        "bandwidth": SIZES[-1] / machine.copies[-1],
    }


def decoding(images: Path, repeats: int, machine: Machine) -> dict[str, Any]:
    """Decode images into normalised batches, and by the library alone, each core a part of the files."""
    keep_freed_memory()  # as a run does
    files = sorted(images.rglob("*.jpg"))
    contents = [file.read_bytes() for file in files]
    own, ceilings = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["DLRUNNER_CACHE"] = cache
            found = find_images(images)
            started = machine.clock()
            pixels = cached_pixels(found, SIZE, "crop", np.arange(len(files))).pixels
            for start in range(0, len(pixels), BATCH):
                normalised(torch.from_numpy(pixels[start : start + BATCH]), SIZE)
            own.append(machine.clock() - started)
        with ThreadPoolExecutor(machine.threads) as pool:
            started = machine.clock()
            list(pool.map(_pillow_alone, contents))
            decoded = machine.clock() - started
        machine.measure()
        batch = BATCH * SIZE * SIZE * 3 * 5  # a byte read and a float written
        moved = len(files) / BATCH * machine.seconds_to_move(batch)
        ceilings.append({"decoding": decoded, "other operators": moved})
    return {"examples": len(files), "threads": machine.threads, "kernels": 0, "own": own, "ceilings": ceilings}


def _pillow_alone(content: bytes) -> None:
    """Decode and resize a JPEG as `decode` does, without its checks, EXIF data and copies."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (SIZE * 3 // 2, SIZE * 3 // 2))
        ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BILINEAR)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", choices=["train", "evaluate", "decode", "features"])
    parser.add_argument("overrides", nargs="*", help="as for dlrun")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--number", type=int, default=512)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: CPU seconds of one thread")
    given = parser.parse_intermixed_args()
    machine = Machine(THREADS) if given.clock == "wall" else Machine(1, time.process_time)
    if given.work == "decode":
        measured = decoding(given.images, given.repeats, machine)
    elif given.work == "features":
        torch.set_num_threads(machine.threads)
        measured = measure(features(given.weights, given.precision, given.number), given.repeats, machine)
    else:
        words = [*given.overrides, *([] if given.clock == "wall" else ["trainer.num_threads=1"])]
        measured = measure(training(words, evaluates=given.work == "evaluate"), given.repeats, machine)
    print(json.dumps(measured))
