"""A classifier of texts as in tutorials: torch's LSTM over padded texts, pooled, and two layers; no dropout.

python -m benchmarks.plain_sentiment --texts texts.npz
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

Texts = list[tuple[Tensor, Tensor, Tensor]]


class PlainClassifier(nn.Module):
    """Three LSTM layers of the lesson's sizes; last output, maximum and mean of a text; two classes."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_words, 200, padding_idx=1)
        self.layers = nn.ModuleList([nn.LSTM(200, 500), nn.LSTM(500, 500), nn.LSTM(500, 200)])
        self.head = nn.Sequential(nn.Linear(600, 50), nn.ReLU(), nn.Linear(50, 2))

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return class scores, [batch, 2], of words, [steps, batch], padded at the end."""
        outputs = self.embedding(words)
        for layer in self.layers:
            outputs, _ = layer(outputs)
        inside = (torch.arange(len(words), device=words.device)[:, None] < lengths)[:, :, None]
        last = outputs[lengths - 1, torch.arange(len(lengths), device=words.device)]
        highest = outputs.masked_fill(~inside, -torch.inf).amax(0)
        mean = (outputs * inside).sum(0) / lengths[:, None]
        scores: Tensor = self.head(torch.cat([last, highest, mean], 1))
        return scores


def batches(given: Any, split: str, device: torch.device) -> Texts:
    """Return words, lengths and classes of each batch."""
    lengths = given[f"{split}_lengths"]
    texts = np.split(given[f"{split}_codes"], np.cumsum(lengths)[:-1])
    found = []
    for rows in np.split(np.arange(len(texts)), np.cumsum(given[f"{split}_sizes"])[:-1]):
        words = pad_sequence([torch.from_numpy(texts[row]).long() for row in rows], padding_value=1)
        found.append(
            (
                words.to(device),
                torch.from_numpy(lengths[rows]).to(device),
                torch.from_numpy(given[f"{split}_labels"][rows]).to(device),
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain loop.")
    parser.add_argument("--texts", required=True, help="codes, lengths, labels and batch sizes of two splits")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    given = np.load(arguments.texts)
    train, valid = (batches(given, split, device) for split in ("train", "valid"))
    model = PlainClassifier(int(given["num_words"])).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, fused=True)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")
    times = []
    for _ in range(arguments.epochs):
        times.append([time.perf_counter()])
        model.train()
        for words, lengths, labels in train:
            with autocast:
                loss = F.cross_entropy(model(words, lengths).float(), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 25.0)
            optimizer.step()
        loss.item()  # waits for a GPU
        times[-1].append(time.perf_counter())
        model.eval()
        right = torch.zeros((), device=device)
        with torch.inference_mode(), autocast:
            for words, lengths, labels in valid:
                right += (model(words, lengths).argmax(1) == labels).sum()
        right.item()
        times[-1].append(time.perf_counter())
    counts = {split: len(given[f"{split}_labels"]) for split in ("train", "valid")}
    print(
        json.dumps(
            {
                "seconds_per_epoch": [end - begun for begun, _, end in times],
                "training": [counts["train"] / (trained - begun) for begun, trained, _ in times],
                "prediction": [counts["valid"] / (end - trained) for _, trained, end in times],
            }
        )
    )


if __name__ == "__main__":
    main()
