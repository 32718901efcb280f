"""Time fastai's AWD_LSTM on a stream of words, with the lesson's sizes, RNNRegularizer and clipping.

    python fastai_text.py --words words.npz

What to know when comparing another library with it:

* The stream consists of columns of word codes, already in batches: only training is timed.
* fastai's ``to_bf16`` is for CUDA only; ``Bfloat16`` does the same on any device.
"""

# mypy: disable-error-code="import-not-found, misc, no-untyped-call, no-untyped-def"

import argparse
import json

import numpy as np
import torch
from fastai_tabular import Bfloat16  # first: it silences warnings

import fastai  # isort: skip
from fastai.callback.rnn import rnn_cbs
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.text.models.core import get_language_model
from fastai.torch_core import set_seed
from fastai_collab import EpochRecord


class Pieces(list):  # type: ignore[type-arg]
    """Batches as fastai wants a loader: with a device to send them to."""

    device, bs, n_inp = None, 0, 1

    def to(self, device):
        """Stay: the batches are on the device."""
        return self

    def one_batch(self):
        """Return the first batch."""
        return self[0]


class Width(EpochRecord):
    """Count words, not rows."""

    def after_batch(self):
        """Take the loss of a validation batch."""
        if not self.training:
            self.squared_error += self.loss.item() * self.y.numel()
            self.rows += self.y.numel()


def main():
    """Train and print the measurements as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--words", required=True, help="columns of codes, [columns, words], and num_words")
    parser.add_argument("--bptt", type=int, default=70)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    set_seed(args.seed)
    device = torch.device(args.device)
    given = np.load(args.words)
    columns = torch.from_numpy(given["columns"]).long().to(device)
    starts = range(0, columns.shape[1] - 1, args.bptt)
    train = Pieces((columns[:, s : s + args.bptt], columns[:, s + 1 : s + args.bptt + 1]) for s in starts)
    valid = Pieces([(train[0][0][:2], train[0][1][:2])])
    for loader in (train, valid):
        loader.bs, loader.device = len(columns), device  # type: ignore[assignment]
    config = {
        "emb_sz": 200,
        "n_hid": 500,
        "n_layers": 3,
        "pad_token": 1,
        "bidir": False,
        "output_p": 0.05,
        "hidden_p": 0.05,
        "input_p": 0.05,
        "embed_p": 0.02,
        "weight_p": 0.1,
        "tie_weights": True,
        "out_bias": True,
    }
    model = get_language_model(AWD_LSTM, int(given["num_words"]), config=config).to(device)
    learn = Learner(DataLoaders(train, valid, device=device), model, loss_func=CrossEntropyLossFlat(), moms=(0.7,) * 3)
    record = Width()
    learn.add_cbs([*rnn_cbs(alpha=2, beta=1), GradientClip(0.3)])
    if args.precision == "bf16":
        learn.add_cb(Bfloat16())
    with learn.no_bar(), learn.no_logging():
        learn.fit(args.epochs, 3e-3, wd=0.0, cbs=record)
    count = columns.shape[0] * (columns.shape[1] - 1)
    print(
        json.dumps(
            {
                "library": "fastai",
                "version": fastai.__version__,
                "seconds_per_epoch": record.train_seconds,
                "words_per_second": [count / seconds for seconds in record.train_seconds],
                "parameters": sum(p.numel() for p in learn.model.parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()
