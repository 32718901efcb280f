"""Time fastai's collaborative filtering on MovieLens ratings.

Reads a ratings file with the columns userId, movieId, rating and timestamp,
trains ``collab_learner`` (a dot product of embeddings plus biases) with
``fit_one_cycle``, and prints one JSON object with the time and the validation
error of every epoch. ``setup-fastai.sh`` prepares an environment for it.

    python fastai_collab.py --ratings ml-latest-small/ratings.csv --threads 2

What to know when comparing another library with it:

* The validation rows are the first fifth of a fixed permutation of the rows;
  ``--seed`` changes the initial weights and the order of the batches only.
* As fastai does by default, the last incomplete training batch of an epoch is
  dropped, validation uses the training batch size, and users or movies that
  occur only in the validation rows share one untrained "unknown" embedding.
* Data is loaded in the training process (fastai's default for tables).
"""

import argparse
import json
import resource
import sys
import time
import warnings

import numpy as np
import pandas as pd
import torch

# fastai and torch warn about their own use of deprecated functions.
warnings.filterwarnings("ignore")

import fastai  # noqa: E402
from fastai.callback.core import Callback  # noqa: E402
from fastai.collab import TabularCollab, collab_learner  # noqa: E402
from fastai.data.block import TransformBlock  # noqa: E402
from fastai.losses import MSELossFlat  # noqa: E402
from fastai.tabular.core import Categorify  # noqa: E402
from fastai.torch_core import set_seed  # noqa: E402


class EpochRecord(Callback):
    """Keep the wall time and the validation error of every epoch."""

    order = 100  # after fastai's own callbacks, so that their work is counted

    def before_fit(self):
        """Start with empty lists."""
        self.seconds, self.train_seconds, self.valid_mse = [], [], []

    def before_epoch(self):
        """Start the clock."""
        self.started = time.perf_counter()
        self.squared_error, self.rows = 0.0, 0

    def after_train(self):
        """Note the time of the training part."""
        self.train_seconds.append(time.perf_counter() - self.started)

    def after_batch(self):
        """Add up the squared error of a validation batch in double precision."""
        if not self.training:
            self.squared_error += self.loss.item() * len(self.y)
            self.rows += len(self.y)

    def after_epoch(self):
        """Note the time of the whole epoch and the mean squared error."""
        self.seconds.append(time.perf_counter() - self.started)
        self.valid_mse.append(self.squared_error / self.rows)


def split_rows(n):
    """Return the training and the validation row numbers of ``n`` ratings."""
    order = np.random.RandomState(42).permutation(n)
    cut = int(0.2 * n)
    return order[cut:].tolist(), order[:cut].tolist()


def make_learner(args):
    """Build the data loaders and the learner.

    The same as ``CollabDataLoaders.from_df``, but with a given split of the
    rows instead of a random one.
    """
    ratings = pd.read_csv(args.ratings)
    table = TabularCollab(
        ratings,
        [Categorify],
        ["userId", "movieId"],
        y_names=["rating"],
        y_block=TransformBlock(),
        splits=split_rows(len(ratings)),
    )
    dls = table.dataloaders(bs=args.batch_size, device=torch.device(args.device))
    return collab_learner(
        dls,
        n_factors=args.factors,
        y_range=tuple(args.y_range),
        loss_func=MSELossFlat(),
    )


def peak_memory_mb():
    """Return the largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ratings", required=True, help="path of ratings.csv")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--wd", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--y-range", type=float, nargs=2, default=(0.5, 5.0), metavar=("LOW", "HIGH"))
    return parser.parse_args()


def main():
    """Train once and print the measurements as one line of JSON."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    set_seed(args.seed)
    learn = make_learner(args)
    record = EpochRecord()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(args.epochs, args.lr, wd=args.wd, cbs=record)
    print(
        json.dumps(
            {
                "library": "fastai",
                "version": fastai.__version__,
                "torch": torch.__version__,
                "threads": args.threads,
                "seed": args.seed,
                "seconds_per_epoch": [round(s, 4) for s in record.seconds],
                "train_seconds_per_epoch": [round(s, 4) for s in record.train_seconds],
                "valid_mse": [round(v, 6) for v in record.valid_mse],
                "peak_memory_mb": round(peak_memory_mb(), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
