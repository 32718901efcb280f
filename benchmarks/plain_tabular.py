"""The lesson's net in plain PyTorch: with a DataLoader, as in tutorials, or over slices of tensors, as a lower bound.

python -m benchmarks.plain_tabular --rows rows.npz --loop slices
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

VALID_BATCH_SIZE = 8192


class EmbeddingNet(nn.Module):
    """Embeddings and numbers, two hidden layers, a sigmoid scaled to the targets."""

    def __init__(self, cardinalities: Sequence[int], sizes: Sequence[int], num_continuous: int, highest: float) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(*size) for size in zip(cardinalities, sizes, strict=True))
        self.embedding_dropout = nn.Dropout(0.04)
        self.norm = nn.BatchNorm1d(num_continuous)
        self.layers = nn.Sequential(
            *(nn.Linear(sum(sizes) + num_continuous, 1000), nn.ReLU(), nn.Dropout(0.001)),
            *(nn.Linear(1000, 500), nn.ReLU(), nn.Dropout(0.01)),
        )
        self.head = nn.Linear(500, 1)
        self.highest = highest
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                bound = 2 / (module.embedding_dim + 1)
                nn.init.uniform_(module.weight, -bound, bound)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return log(Sales)."""
        vectors = torch.cat([table(codes[:, i]) for i, table in enumerate(self.embeddings)], 1)
        hidden = self.layers(torch.cat([self.embedding_dropout(vectors), self.norm(numbers)], 1))
        with torch.autocast(hidden.device.type, enabled=False):  # bfloat16 resolves 8.5 only to ±.03
            return torch.sigmoid(self.head(hidden.float()).squeeze(1)) * self.highest


class Slices:
    """Batches as slices of tensors on the device."""

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, shuffle: bool) -> None:
        self.tensors, self.batch_size, self.shuffle = tensors, batch_size, shuffle

    def __iter__(self) -> Iterator[Sequence[Tensor]]:
        count = len(self.tensors[0])
        if not self.shuffle:
            yield from zip(*(torch.split(each, self.batch_size) for each in self.tensors), strict=True)
            return
        for rows in torch.split(torch.randperm(count, device=self.tensors[0].device), self.batch_size):
            yield [each[rows] for each in self.tensors]


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain loop.")
    parser.add_argument("--rows", required=True, help="what rossmann_rows.py wrote")
    parser.add_argument("--predictions", type=Path, help="where predicted sales of the validation rows are written")
    parser.add_argument("--loop", choices=["loader", "slices"], default="slices")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    rows = np.load(arguments.rows)
    parts = [torch.from_numpy(rows[name]) for name in ("codes", "numbers", "log_sales")]
    parts[0] = parts[0].long()
    valid_rows = torch.from_numpy(rows["valid"])
    train_rows = ~valid_rows
    train: Iterable[Sequence[Tensor]]
    valid: Iterable[Sequence[Tensor]]
    if arguments.loop == "loader":
        train = DataLoader(TensorDataset(*(p[train_rows] for p in parts)), arguments.batch_size, shuffle=True)
        valid = DataLoader(TensorDataset(*(p[valid_rows] for p in parts)), VALID_BATCH_SIZE)
    else:
        train = Slices([p[train_rows].to(device) for p in parts], arguments.batch_size, shuffle=True)
        valid = Slices([p[valid_rows].to(device) for p in parts], VALID_BATCH_SIZE, shuffle=False)
    sizes = (rows["cardinalities"].tolist(), rows["embedding_sizes"].tolist())
    model = EmbeddingNet(*sizes, parts[1].shape[1], float(rows["highest"])).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=arguments.loop == "slices" or None)
    optimizer.step()  # torch imports its compiler here; that is no part of an epoch
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")
    seconds, errors = [], []
    for _ in range(arguments.epochs):
        started = time.perf_counter()
        model.train()
        for batch in train:
            codes, numbers, targets = (part.to(device) for part in batch)
            with autocast:
                loss = F.mse_loss(model(codes, numbers), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        model.eval()
        with torch.inference_mode(), autocast:
            outputs = torch.cat([model(codes.to(device), numbers.to(device)) for codes, numbers, _ in valid]).cpu()
        errors.append(float(F.mse_loss(outputs, parts[2][valid_rows])))
        seconds.append(time.perf_counter() - started)
        if not math.isfinite(errors[-1]):
            raise SystemExit("training diverged")
    if arguments.predictions:
        np.save(arguments.predictions, outputs.double().exp().numpy())
    print(json.dumps({"seconds_per_epoch": seconds, "valid_mse": errors}))


if __name__ == "__main__":
    main()
