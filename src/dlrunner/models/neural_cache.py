"""The neural cache: words that were seen in similar states not long ago are more likely.

Source: Grave, Joulin and Usunier, Improving neural language models with a continuous cache, 2017,
https://arxiv.org/abs/1612.04426.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrunner.system.precision import without_autocast

CPU_ELEMENTS = 2**20
"""Similarities at a time: 4 MB in float32 stay in the caches of a core."""
GPU_ELEMENTS = 2**27


class NeuralCache:
    """Probabilities of the next word w from the last states: p(w) ∝ Σ exp(θ · hₜ·hᵢ) over those followed by w.

    A word is remembered after it was predicted, so nothing depends on later words; the probabilities sum to 1.

    Args:
        window: number of the last words of a column that are remembered.
        thetas: the probabilities are computed for each θ; 0 counts words, a large one trusts the most similar state.
    """

    def __init__(self, window: int, thetas: Sequence[float]) -> None:
        self.window, self.thetas = window, thetas
        self._states: Tensor | None = None
        self._words: Tensor | None = None

    def log_probabilities(self, states: Tensor, following: Tensor) -> Tensor:
        """Return the log-probability of each next word, [thetas, steps, columns], NaN while the cache is empty.

        The next call continues the columns.

        Args:
            states: of the last layer, which the next words are predicted from, [steps, columns, width].
            following: the next words, [steps, columns].
        """
        queries, words = states.detach().transpose(0, 1).float(), following.t()
        steps, columns = following.shape
        keys, seen = self._with(queries, words)
        place, key = torch.arange(steps, device=words.device)[:, None], torch.arange(keys.shape[1], device=words.device)
        distance = place + keys.shape[1] - steps - key
        outside = (distance < 1) | (distance > self.window)
        limit = CPU_ELEMENTS if words.device.type == "cpu" else GPU_ELEMENTS
        size = max(1, limit // (steps * keys.shape[1]))
        parts = [
            self._part(queries[start : start + size], keys[start : start + size], outside, matches)
            for start in range(0, columns, size)
            for matches in [words[start : start + size, :, None] == seen[start : start + size, None, :]]
        ]
        self._states, self._words = keys[:, -self.window :], seen[:, -self.window :]
        return torch.cat(parts, dim=1).transpose(1, 2)

    def _with(self, states: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the remembered states and words, then those of this call: [columns, places, …]."""
        if self._states is None or self._words is None:
            return states, words
        return torch.cat([self._states, states], dim=1), torch.cat([self._words, words], dim=1)

    def _part(self, queries: Tensor, keys: Tensor, outside: Tensor, matches: Tensor) -> Tensor:
        """Return the log-probabilities of some columns, [thetas, columns, steps].

        Args:
            queries: [columns, steps, width].
            keys: [columns, places, width].
            outside: places that a step does not see, [steps, places].
            matches: places followed by the step's next word, [columns, steps, places].
        """
        with without_autocast(queries.device):
            similarity = torch.bmm(queries, keys.transpose(1, 2)).masked_fill_(outside, -torch.inf)
        similarity -= similarity.amax(dim=2, keepdim=True).clamp_min(torch.finfo(similarity.dtype).min)
        found = []
        for theta in self.thetas:
            weights = (similarity * theta).exp_().masked_fill_(outside, 0)
            total = weights.sum(dim=2)
            found.append((weights.masked_fill_(~matches, 0).sum(dim=2) / total).log())
        return torch.stack(found)
