"""A language model as in tutorials: torch's LSTM, an embedding tied to the decoder, torch's cross entropy.

python -m benchmarks.plain_text --words words.npz
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = list[tuple[Tensor, Tensor] | None]


class PlainLanguageModel(nn.Module):
    """Three LSTM layers of the lesson's sizes; no dropout of weights, no penalties."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_words, 200)
        self.layers = nn.ModuleList([nn.LSTM(200, 500), nn.LSTM(500, 500), nn.LSTM(500, 200)])
        self.bias = nn.Parameter(torch.zeros(num_words))

    def forward(self, words: Tensor, states: State) -> tuple[Tensor, State]:
        """Return logits of the next words, [steps, batch, words], and the states."""
        outputs, after = self.embedding(words), []
        for layer, state in zip(self.layers, states, strict=True):
            outputs, (hidden, cell) = layer(outputs, state)
            after.append((hidden.detach(), cell.detach()))
        return F.linear(outputs, self.embedding.weight, self.bias), list(after)


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain loop.")
    parser.add_argument("--words", required=True, help="columns of codes, [columns, words], and num_words")
    parser.add_argument("--bptt", type=int, default=70)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    given = np.load(arguments.words)
    stream = torch.from_numpy(given["columns"]).long().t().contiguous().to(device)
    model = PlainLanguageModel(int(given["num_words"])).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, fused=True)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")
    count = stream.shape[1] * (stream.shape[0] - 1)
    seconds = []
    for _ in range(arguments.epochs):
        started = time.perf_counter()
        states: State = [None] * 3
        for start in range(0, len(stream) - 1, arguments.bptt):
            words = stream[start : start + arguments.bptt + 1]
            with autocast:
                logits, states = model(words[:-1], states)
                loss = F.cross_entropy(logits.flatten(0, 1), words[1:].flatten())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.3)
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds_per_epoch": seconds, "words_per_second": [count / each for each in seconds]}))


if __name__ == "__main__":
    main()
