"""Time fastai's tabular learner on Rossmann's rows, with the lesson's net.

Reads what rossmann_rows.py wrote, trains ``tabular_learner`` with ``fit`` at a constant rate, and prints one JSON
object with the time and the validation error of every epoch. ``setup-fastai.sh`` prepares an environment for it.

    python fastai_tabular.py --rows rows.npz --batch-size 128

What to know when comparing another library with it:

* The rows are preprocessed: categories are encoded by ``Categorify``, numbers have no missing values and are
  standardised (fastai's ``FillMissing`` does not work with pandas 3).
* ``Adam`` is fastai's own, with its betas (.9, .99), epsilon 1e-5 and no weight decay here.
* As fastai does by default, the last incomplete training batch of an epoch is dropped, validation uses the training
  batch size, and data is loaded in the training process.
* fastai's ``to_bf16`` is for CUDA only; ``Bfloat16`` does the same on any device.
"""

# mypy: disable-error-code="import-not-found, misc, no-untyped-call, no-untyped-def"

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai_collab import EpochRecord, peak_memory_mb  # first: it silences warnings

import fastai  # isort: skip
from fastai.callback.core import Callback
from fastai.data.block import RegressionBlock
from fastai.losses import MSELossFlat
from fastai.tabular.core import Categorify, TabularPandas
from fastai.tabular.learner import tabular_learner
from fastai.tabular.model import tabular_config
from fastai.torch_core import set_seed


class Bfloat16(Callback):
    """Let the model and the loss run in mixed precision."""

    def before_batch(self):
        """Begin."""
        self.autocast = torch.autocast(self.dls.device.type, torch.bfloat16)
        self.autocast.__enter__()

    def after_pred(self):
        """Compute the loss in float32."""
        self.learn.pred = self.pred.float()

    def after_loss(self):
        """End: the backward pass takes the types of the forward pass."""
        self.autocast.__exit__(None, None, None)


def make_learner(args):
    """Build the data loaders and the learner."""
    rows = np.load(args.rows)
    names = rows["names"].tolist()
    table = {}
    for name, codes, cardinality in zip(names, rows["codes"].T, rows["cardinalities"], strict=True):
        # Code 0 is a missing category, for fastai as for dlrunner.
        table[name] = pd.Categorical.from_codes(codes - 1, categories=pd.RangeIndex(1, cardinality))
    numbers = {f"number {i}": column for i, column in enumerate(rows["numbers"].T)}
    splits = [np.flatnonzero(mask).tolist() for mask in (~rows["valid"], rows["valid"])]
    tabular = TabularPandas(
        pd.DataFrame({**table, **numbers, "log_sales": rows["log_sales"]}),
        procs=[Categorify],
        cat_names=names,
        cont_names=list(numbers),
        y_names="log_sales",
        y_block=RegressionBlock(),
        splits=splits,
    )
    learn = tabular_learner(
        tabular.dataloaders(bs=args.batch_size, device=torch.device(args.device)),
        layers=[1000, 500],
        emb_szs=dict(zip(names, rows["embedding_sizes"].tolist(), strict=True)),
        config=tabular_config(ps=[0.001, 0.01], embed_p=0.04, use_bn=False, bn_final=False, bn_cont=True),
        y_range=(0, float(rows["highest"])),
        loss_func=MSELossFlat(),
    )
    found = [table.num_embeddings for table in learn.model.embeds]
    assert found == rows["cardinalities"].tolist(), "fastai's net has other embeddings"
    return learn


def main():
    """Train once and print the measurements as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", required=True, help="what rossmann_rows.py wrote")
    parser.add_argument("--predictions", type=Path, help="where predicted sales of the validation rows are written")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    set_seed(args.seed)
    learn = make_learner(args)
    record = EpochRecord()
    if args.precision == "bf16":
        learn.add_cb(Bfloat16())
    with learn.no_bar(), learn.no_logging():
        learn.fit(args.epochs, 1e-3, wd=0.0, cbs=record)
        if args.predictions:
            outputs, _ = learn.get_preds(ds_idx=1)
            np.save(args.predictions, outputs.squeeze(1).double().exp().numpy())
    print(
        json.dumps(
            {
                "library": "fastai",
                "version": fastai.__version__,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "seed": args.seed,
                "parameters": sum(p.numel() for p in learn.model.parameters()),
                "seconds_per_epoch": [round(s, 4) for s in record.seconds],
                "valid_mse": [round(v, 6) for v in record.valid_mse],
                "peak_memory_mb": round(peak_memory_mb(), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
