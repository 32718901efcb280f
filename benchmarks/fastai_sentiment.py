"""Time fastai's classifier of texts on documents of codes, with the lesson's sizes, RNNRegularizer and clipping.

    python fastai_sentiment.py --texts texts.npz

What to know when comparing another library with it:

* Batches have texts of similar length, each padded by fastai's own ``pad_input_chunk``.
* As fastai does by default, prediction reads full texts, but pools over the last ``max_len`` words only.
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
from fastai.text.data import pad_input_chunk
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.text.models.core import get_text_classifier
from fastai.torch_core import TensorBase, set_seed
from fastai_collab import EpochRecord
from fastai_text import Pieces


def batches(given, split, bptt, device):
    """Return the padded batches of a split with their classes."""
    texts = np.split(given[f"{split}_codes"], np.cumsum(given[f"{split}_lengths"])[:-1])
    labels = given[f"{split}_labels"]
    found = Pieces()
    for rows in np.split(np.arange(len(texts)), np.cumsum(given[f"{split}_sizes"])[:-1]):
        samples = [(TensorBase(torch.from_numpy(texts[row]).long()), int(labels[row])) for row in rows]
        padded = pad_input_chunk(samples, pad_idx=1, pad_first=True, seq_len=bptt)
        words = torch.stack([each[0].as_subclass(torch.Tensor) for each in padded]).to(device)
        found.append((words, torch.tensor([each[1] for each in padded], device=device)))
    found.bs, found.device = len(found[0][1]), device
    return found


def main():
    """Train and print the measurements as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", required=True, help="codes, lengths, labels and batch sizes of two splits")
    parser.add_argument("--bptt", type=int, default=70)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    set_seed(args.seed)
    device = torch.device(args.device)
    given = np.load(args.texts)
    train, valid = (batches(given, split, args.bptt, device) for split in ("train", "valid"))
    sizes = {"emb_sz": 200, "n_hid": 500, "n_layers": 3, "pad_token": 1, "bidir": False}
    dropouts = {"output_p": 0.1, "hidden_p": 0.3, "input_p": 0.4, "embed_p": 0.05, "weight_p": 0.5}
    model = get_text_classifier(
        AWD_LSTM, int(given["num_words"]), 2, args.bptt, {**sizes, **dropouts}, lin_ftrs=[50], max_len=1500
    ).to(device)
    learn = Learner(DataLoaders(train, valid, device=device), model, loss_func=CrossEntropyLossFlat(), moms=(0.8,) * 3)
    record = EpochRecord()
    learn.add_cbs([*rnn_cbs(alpha=2, beta=1), GradientClip(25.0)])
    if args.precision == "bf16":
        learn.add_cb(Bfloat16())
    with learn.no_bar(), learn.no_logging():
        learn.fit(args.epochs, 3e-3, wd=0.0, cbs=record)
    counts = {split: len(given[f"{split}_labels"]) for split in ("train", "valid")}
    print(
        json.dumps(
            {
                "library": "fastai",
                "version": fastai.__version__,
                "seconds_per_epoch": record.seconds,
                "training": [counts["train"] / seconds for seconds in record.train_seconds],
                "prediction": [
                    counts["valid"] / (total - part)
                    for total, part in zip(record.seconds, record.train_seconds, strict=True)
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
