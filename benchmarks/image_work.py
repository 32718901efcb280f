"""Timing of one work on images: decoding, features of a frozen backbone, training a net or a head by a plain loop.

    python -m benchmarks.image_work decode dlrunner --images folder/
    python -m benchmarks.image_work features dlrunner-bf16 --images folder/ --weights mobilenet_v2_features.pt
    python -m benchmarks.image_work net plain --number 64 --number-valid 32
    python -m benchmarks.image_work head plain --number 2000 --number-valid 500

Prints one JSON object. The plain ways are what one writes by hand: a DataLoader with a process for each core, Pillow,
resize, crop, normalise; a backbone in batches of 64; a DataLoader over normalised images, or over features.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.measuring import DEVICE, THREADS
from dlrunner.data.images.dataset import cached_pixels
from dlrunner.data.images.files import find_images
from dlrunner.data.images.loaders import ImageLoader, normalised
from dlrunner.models.image import ImageClassifier, ImageDims
from dlrunner.models.vision.backbones import load, make_backbone, read_weights
from dlrunner.system.cpu_tuning import keep_freed_memory

SIZE, BATCH, CLASSES, EPOCHS = 224, 64, 120, 4
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class PictureFolder(Dataset[tuple[Tensor, int]]):
    """Images as by torchvision's transforms: shorter side to 224, centre crop, normalised."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as opened:
            image = opened.convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
        pixels = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))
        values = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        return (values - MEAN[:, None, None]) / STD[:, None, None], 0


def decode(way: str, args: argparse.Namespace) -> tuple[int, float]:
    """Return the number of decoded images, and the seconds."""
    files = sorted(args.images.rglob("*.jpg"))
    started = time.perf_counter()
    if way == "dlrunner":
        with tempfile.TemporaryDirectory() as cache:
            os.environ["DLRUNNER_CACHE"] = cache
            found = find_images(args.images)
            started = time.perf_counter()
            pixels = cached_pixels(found, SIZE, "crop", np.arange(len(files))).pixels
            for start in range(0, len(pixels), BATCH):
                normalised(torch.from_numpy(pixels[start : start + BATCH]), SIZE)
            return len(files), time.perf_counter() - started
    for _ in DataLoader(PictureFolder(files), BATCH, num_workers=THREADS):
        pass
    return len(files), time.perf_counter() - started


def features(way: str, args: argparse.Namespace) -> tuple[int, float]:
    """Return the number of images that the frozen backbone has processed, and the seconds."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (args.number, SIZE, SIZE, 3), dtype=torch.uint8)
    targets = torch.zeros(args.number, dtype=torch.int64, device=DEVICE)
    run: Callable[[Tensor], Tensor]
    if way.startswith("dlrunner"):
        net = ImageClassifier(
            ImageDims(CLASSES), Path(), backbone="mobilenet_v2", variant="gluon", weights=str(args.weights)
        ).to(DEVICE)
        net.load_pretrained()
        run, size = net.frozen_features(), 8 if DEVICE == "cpu" else 256
    else:
        backbone = make_backbone("mobilenet_v2", "gluon").eval().to(DEVICE)
        load(backbone, read_weights(args.weights), args.weights)
        if way == "compile":
            backbone.compile()
        run, size = (lambda images: backbone(images.contiguous()).mean(dim=(2, 3))), BATCH
    loader = ImageLoader(pixels, targets, list(torch.split(torch.arange(args.number), size)), SIZE)
    with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=way.endswith("bf16")):
        run(*next(iter(loader)).inputs)
        started = time.perf_counter()
        for batch in loader:
            run(*batch.inputs).float().cpu()
    return args.number, time.perf_counter() - started


def train(work: str, args: argparse.Namespace) -> list[float]:
    """Train a head, or a backbone with a head, by a plain loop; return the seconds of each epoch with validation."""
    torch.manual_seed(args.seed)
    counts = (args.number, args.number_valid)
    shape, batch_size = ((1280,), 64) if work == "head" else ((3, SIZE, SIZE), 16)
    train_set, valid_set = (
        TensorDataset(torch.randn(count, *shape), torch.randint(0, CLASSES, (count,))) for count in counts
    )
    net = ImageClassifier(ImageDims(CLASSES), Path(), backbone="mobilenet_v2", variant="gluon", channels_last=False)
    net = net.to(DEVICE)
    if work == "head":
        net.backbone.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    seconds = []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        net.train()
        for inputs, wanted in DataLoader(train_set, batch_size, shuffle=True):
            loss = nn.functional.cross_entropy(net(inputs.to(DEVICE)), wanted.to(DEVICE))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        net.eval()
        right = torch.zeros((), device=DEVICE)
        with torch.inference_mode():
            for inputs, wanted in DataLoader(valid_set, batch_size):
                right += (net(inputs.to(DEVICE)).argmax(1) == wanted.to(DEVICE)).sum()
        right.item()  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return seconds


PIECES = {"decode": decode, "features": features}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=[*PIECES, "net", "head"])
    parser.add_argument("way")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--number", type=int, default=512)
    parser.add_argument("--number-valid", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.way.startswith("dlrunner"):
        keep_freed_memory()  # as every run does
    if given.work in PIECES:
        count, seconds = PIECES[given.work](given.way, given)
        print(json.dumps({"per_second": count / seconds, "seconds_per_epoch": [seconds, seconds]}))
    else:
        print(json.dumps({"seconds_per_epoch": train(given.work, given)}))
