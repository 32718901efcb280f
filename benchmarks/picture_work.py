"""One piece of work on pictures, timed: decoding, features of a frozen backbone, or a head on kept features.

    python -m benchmarks.picture_work decode dlrunner --pictures folder/
    python -m benchmarks.picture_work features dlrunner-bf16 --pictures folder/ --weights mobilenet_v2_features.pt
    python -m benchmarks.picture_work head plain

Prints one JSON object. The plain ways are what one writes by hand: a DataLoader with a process for each core, Pillow,
resize, crop, normalise; a backbone in batches of 64; a DataLoader over features.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.measuring import DEVICE, THREADS
from dlrunner.data.batching import epoch_order
from dlrunner.data.picture_batches import FeatureLoader, PictureLoader, normalised
from dlrunner.data.picture_files import find_pictures
from dlrunner.data.pictures import cached_pixels
from dlrunner.machine import keep_freed_memory
from dlrunner.models.backbones import load, make_backbone, read_weights
from dlrunner.models.image import PictureDims, PictureNet

SIZE, BATCH, CLASSES, HEAD_EPOCHS = 224, 64, 120, 3
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class PictureFolder(Dataset[tuple[Tensor, int]]):
    """Pictures as torchvision's transforms would make them: shorter side to 224, middle cut out, normalised."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as opened:
            picture = opened.convert("RGB")
        scale = SIZE / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR
        )
        left, top = (picture.width - SIZE) // 2, (picture.height - SIZE) // 2
        pixels = np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)))
        values = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        return (values - MEAN[:, None, None]) / DEVIATION[:, None, None], 0


def decode(way: str, args: argparse.Namespace) -> tuple[int, float]:
    """Return how many pictures were decoded, and in how many seconds."""
    files = sorted(args.pictures.rglob("*.jpg"))
    started = time.perf_counter()
    if way == "dlrunner":
        with tempfile.TemporaryDirectory() as cache:
            os.environ["DLRUNNER_CACHE"] = cache
            found = find_pictures(args.pictures)
            started = time.perf_counter()
            pixels = cached_pixels(found, SIZE, "crop")[0]
            for start in range(0, len(pixels), BATCH):
                normalised(torch.from_numpy(pixels[start : start + BATCH]), SIZE)
            return len(files), time.perf_counter() - started
    for _ in DataLoader(PictureFolder(files), BATCH, num_workers=THREADS):
        pass
    return len(files), time.perf_counter() - started


def features(way: str, args: argparse.Namespace) -> tuple[int, float]:
    """Return how many pictures went through the frozen backbone, and in how many seconds."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (args.number, SIZE, SIZE, 3), dtype=torch.uint8)
    targets = torch.zeros(args.number, dtype=torch.int64, device=DEVICE)
    run: Callable[[Tensor], Tensor]
    if way.startswith("dlrunner"):
        net = PictureNet(
            PictureDims(CLASSES), Path(), backbone="mobilenet_v2", wiring="gluon", weights=str(args.weights)
        ).to(DEVICE)
        net.load_pretrained()
        run, size = net.frozen_features(), 8 if DEVICE == "cpu" else 256
    else:
        backbone = make_backbone("mobilenet_v2", "gluon").eval().to(DEVICE)
        load(backbone, read_weights(args.weights), args.weights)
        if way == "compile":
            backbone.compile()
        run, size = (lambda pictures: backbone(pictures.contiguous()).mean(dim=(2, 3))), BATCH
    loader = PictureLoader(pixels, targets, list(torch.split(torch.arange(args.number), size)), SIZE)
    with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=way.endswith("bf16")):
        run(*next(iter(loader)).inputs)
        started = time.perf_counter()
        for batch in loader:
            run(*batch.inputs).float().cpu()
    return args.number, time.perf_counter() - started


def head(way: str, args: argparse.Namespace) -> tuple[int, float]:
    """Return how many epochs a head was trained on kept features, and in how many seconds."""
    torch.manual_seed(0)
    values = torch.randn(8178, 1280).to(DEVICE)
    targets = torch.randint(0, CLASSES, (8178,)).to(DEVICE)
    net = PictureNet(PictureDims(CLASSES), Path(), backbone="mobilenet_v2").head.train().to(DEVICE)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, fused=way == "dlrunner")

    def epoch(number: int) -> None:
        for batch, wanted in _batches(way, values, targets, number):
            loss = nn.functional.cross_entropy(net(batch), wanted)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    epoch(0)
    started = time.perf_counter()
    for number in range(1, 1 + HEAD_EPOCHS):
        epoch(number)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return HEAD_EPOCHS, time.perf_counter() - started


def _batches(way: str, values: Tensor, targets: Tensor, epoch: int) -> Any:
    if way != "dlrunner":
        return DataLoader(TensorDataset(values, targets), BATCH, shuffle=True)
    loader = FeatureLoader(values, targets, list(torch.split(epoch_order(len(targets), 0, epoch), BATCH)))
    return ((*batch.inputs, batch.targets) for batch in loader)


WORK = {"decode": decode, "features": features, "head": head}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=WORK)
    parser.add_argument("way")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--number", type=int, default=512)
    given = parser.parse_args()
    if given.way.startswith("dlrunner"):
        keep_freed_memory()  # as every run does
    count, seconds = WORK[given.work](given.way, given)
    print(json.dumps({"per_second": count / seconds, "seconds_per_epoch": [seconds, seconds]}))
