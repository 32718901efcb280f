"""Time fastai's Learner on dlrunner's net for images: all of it, or a head on cached features.

    PYTHONPATH=src python fastai_images.py net --number 64 --number-valid 32
    PYTHONPATH=src python fastai_images.py head --number 2000 --number-valid 500

What to know when comparing another library with it:

* The net is dlrunner's own: MobileNetV2 in Gluon's variant, which torchvision does not have, with the lesson's head.
* Images are decoded and normalised in memory, and features are computed, before the clock starts; there is no
  augmentation. fastai's users have `ImageDataLoaders`, which decode every image in every epoch: this favours fastai.
* ``Adam`` is fastai's own with decoupled weight decay; as fastai does by default, the last incomplete training batch
  of an epoch is dropped and data is loaded in the training process (its default for what is in memory).
"""

# mypy: disable-error-code="import-not-found, misc, no-untyped-call, no-untyped-def"

import argparse
import json
from pathlib import Path

import torch
from fastai_collab import EpochRecord, peak_memory_mb  # first: it silences warnings

import fastai  # isort: skip
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from torch.utils.data import TensorDataset

from dlrunner.models.image import ImageClassifier, ImageDims

SHAPES = {"net": (3, 224, 224), "head": (1280,)}
BATCHES = {"net": 16, "head": 64}
CLASSES = 120


def make_learner(args):
    """Build the data loaders and the learner."""
    device, size = torch.device(args.device), BATCHES[args.work]
    train, valid = (
        TensorDataset(torch.randn(count, *SHAPES[args.work]), torch.randint(0, CLASSES, (count,)))
        for count in (args.number, args.number_valid)
    )
    loaders = [
        DataLoader(train, bs=size, shuffle=True, drop_last=True, device=device),
        DataLoader(valid, bs=size, device=device),
    ]
    net = ImageClassifier(ImageDims(CLASSES), Path(), backbone="mobilenet_v2", variant="gluon", channels_last=False)
    if args.work == "head":
        net.backbone.requires_grad_(False)
    loss = CrossEntropyLossFlat()
    return Learner(DataLoaders(*loaders, device=device), net.to(device), loss_func=loss, metrics=accuracy)


def main():
    """Train once and print the measurements as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=list(SHAPES))
    parser.add_argument("--number", type=int, default=64)
    parser.add_argument("--number-valid", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    set_seed(args.seed)
    learn, record = make_learner(args), EpochRecord()
    with learn.no_bar(), learn.no_logging():
        learn.fit(args.epochs, 1e-3, wd=0.1, cbs=record)
    print(
        json.dumps(
            {
                "library": "fastai",
                "version": fastai.__version__,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "seconds_per_epoch": [round(seconds, 4) for seconds in record.seconds],
                "peak_memory_mb": round(peak_memory_mb(), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
