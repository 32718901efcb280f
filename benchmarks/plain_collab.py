"""A minimal loop that trains the same model on the same rows: the time of the arithmetic.

python -m benchmarks.plain_collab --ratings ml-latest-small/ratings.csv
"""

from __future__ import annotations

import argparse
import json
import math
import time

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn


class DotBias(nn.Module):
    """Embeddings, biases, a sigmoid scaled to the ratings."""

    def __init__(self, num_users: int, num_items: int, factors: int) -> None:
        super().__init__()
        sizes = ((num_users, factors), (num_items, factors), (num_users, 1), (num_items, 1))
        self.u, self.m, self.ub, self.mb = (nn.Embedding(*size) for size in sizes)
        for table in self.children():
            assert isinstance(table, nn.Embedding)
            table.weight.data.uniform_(-0.01, 0.01)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return ratings."""
        match = (self.u(users) * self.m(items)).sum(1) + self.ub(users).squeeze(1) + self.mb(items).squeeze(1)
        return torch.sigmoid(match) * 4.5 + 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain loop, as a lower bound.")
    parser.add_argument("--ratings", required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--optimizer", choices=["default", "fused"], default="fused")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(arguments.seed)
    ratings = pd.read_csv(arguments.ratings)
    users, items = (torch.tensor(pd.factorize(ratings[name])[0], device=device) for name in ("userId", "movieId"))
    stars = torch.tensor(ratings["rating"].to_numpy(np.float32), device=device)
    order = torch.tensor(np.random.RandomState(42).permutation(len(stars)), device=device)
    valid, train = order[: int(0.2 * len(stars))], order[int(0.2 * len(stars)) :]
    model = DotBias(int(users.max()) + 1, int(items.max()) + 1, 50).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), 5e-3, betas=(0.95, 0.99), weight_decay=0.1, fused=arguments.optimizer == "fused" or None
    )
    steps, step, seconds, errors = -(-len(train) // 64) * arguments.epochs, 0, [], []
    optimizer.step()  # torch imports its compiler here; that is no part of an epoch
    for _ in range(arguments.epochs):
        started = time.perf_counter()
        for rows in torch.split(train[torch.randperm(len(train), device=device)], 64):
            done = step / steps
            rise = (1 - math.cos(math.pi * min(done / 0.25, 1))) / 2
            fall = (1 + math.cos(math.pi * max((done - 0.25) / 0.75, 0))) / 2
            optimizer.param_groups[0]["lr"] = 5e-3 * (0.04 + 0.96 * rise if done < 0.25 else fall)
            loss = (model(users[rows], items[rows]) - stars[rows]).square().mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            step += 1
        with torch.no_grad():
            errors.append(float((model(users[valid], items[valid]) - stars[valid]).square().mean()))
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds_per_epoch": seconds, "valid_mse": errors}))


if __name__ == "__main__":
    main()
