"""A softmax over many words in two steps: a frequent word or a cluster of rarer ones, then a word of the cluster.

The probabilities are exact and sum to 1 over all words: p(word) = p(cluster) · p(word | cluster). A cluster's words
are only computed for tokens whose target is among them. With 34,892 words, clusters from 2,000 and 10,000, a width of
200 and bfloat16 on a CPU, loss and gradients of 50,000 words per second and core are computed, of 5,200 with the full
softmax. The clusters' own words take 7 % of a training step, which is all that narrower ones with projections could
save: they keep the full width, so that embedding and decoder stay one tensor.

Sources: Grave et al., Efficient softmax approximation for GPUs, 2017, https://arxiv.org/abs/1609.04309; tied with the
embedding: Baevski and Auli, Adaptive input representations for neural language modeling, 2019,
https://arxiv.org/abs/1809.10853.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dlrunner.errors import ConfigError
from dlrunner.models.softmax import mean_loss, mixed_loss_and_part, token_losses

CUTOFFS = (2_000, 10_000)


class AdaptiveSoftmax(nn.Module):
    """The clusters of the rarer words; the weights of the words themselves are the embedding's.

    Args:
        num_words: the most frequent ones come first.
        size: width of the states.
        cutoffs: the first word of each cluster; None: those of `CUTOFFS` that the vocabulary has words after.

    Raises:
        ConfigError: a cluster has no words.
    """

    def __init__(self, num_words: int, size: int, cutoffs: Sequence[int] | None = None) -> None:
        super().__init__()
        cutoffs = [each for each in CUTOFFS if each < num_words] if cutoffs is None else list(cutoffs)
        if not cutoffs or cutoffs[-1] >= num_words:
            after = f"{cutoffs[-1] if cutoffs else CUTOFFS[0]:,}"
            raise ConfigError(
                f"model.cutoffs: the vocabulary has {num_words:,} words, none after the first {after}: "
                "give smaller cutoffs, or model.softmax=full"
            )
        self.bounds = [*cutoffs, num_words]
        self.sizes = [cutoffs[0], *(end - start for start, end in pairwise(self.bounds))]
        self.weight = nn.Parameter(torch.empty(len(cutoffs), size).uniform_(-0.1, 0.1))
        self.bias = nn.Parameter(torch.zeros(len(cutoffs)))

    def mean_loss(self, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy, a number that can be differentiated.

        Args:
            states: [tokens, size].
            weight: of all words, [words, size].
            bias: of all words, [words].
            targets: the target words, [tokens], int64.
        """
        (head_weight, head_bias), *clusters = self._parts(weight, bias)
        loss = mean_loss(states, head_weight, head_bias, self._head_targets(targets))
        for rows, within, (part, offset) in self._rows(targets, clusters):
            loss = loss + len(rows) / len(targets) * mean_loss(states[rows], part, offset, within)
        return loss

    def mixed_loss(
        self, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, gate: Tensor, rest: Tensor
    ) -> Tensor:
        """Return the mean of -log(gate · p + rest), as `dlrunner.models.softmax.mixed_loss`."""
        (head_weight, head_bias), *clusters = self._parts(weight, bias)
        within_clusters = torch.zeros_like(gate)
        for rows, within, (part, offset) in self._rows(targets, clusters):
            within_clusters[rows] = token_losses(states[rows], part, offset, within).to(gate.dtype)
        gate = gate - within_clusters
        loss, factors = mixed_loss_and_part(states, head_weight, head_bias, self._head_targets(targets), gate, rest)
        for rows, within, (part, offset) in self._rows(targets, clusters):
            counted = mean_loss(states[rows], part, offset, within, factors[rows])
            loss = loss + len(rows) / len(targets) * (counted - counted.detach())  # the gradient alone
        return loss

    def token_losses(self, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of each token, float32 or float64 of shape [tokens]; it keeps no gradient."""
        (head_weight, head_bias), *clusters = self._parts(weight, bias)
        losses = token_losses(states, head_weight, head_bias, self._head_targets(targets))
        for rows, within, (part, offset) in self._rows(targets, clusters):
            losses[rows] += token_losses(states[rows], part, offset, within)
        return losses

    def log_probabilities(self, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the log-probabilities of all words, [tokens, words]."""
        parts = [
            torch.addmm(offset, states, part.t()).float().log_softmax(dim=1)
            for part, offset in self._parts(weight, bias)
        ]
        frequent, of_clusters = torch.split(parts[0], [self.sizes[0], len(self.bias)], dim=1)
        rare = [part + of_clusters[:, index : index + 1] for index, part in enumerate(parts[1:])]
        return torch.cat([frequent, *rare], dim=1)

    def _parts(self, weight: Tensor, bias: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return weights and biases of the head (the frequent words, then the clusters) and of each cluster's words."""
        weights, biases = torch.split(weight, self.sizes), torch.split(bias, self.sizes)
        head = torch.cat([weights[0], self.weight]), torch.cat([biases[0], self.bias])
        return [head, *zip(weights[1:], biases[1:], strict=True)]

    def _head_targets(self, targets: Tensor) -> Tensor:
        """Return the targets in the head: a rare word's is its cluster."""
        found = targets
        for index, start in enumerate(self.bounds[:-1]):
            found = torch.where(targets >= start, self.sizes[0] + index, found)
        return found

    def _rows(
        self, targets: Tensor, clusters: Sequence[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor]]]:
        """Yield the tokens of each cluster, their targets within it, and its weights; this waits for a GPU."""
        for (start, end), part in zip(pairwise(self.bounds), clusters, strict=True):
            rows = ((targets >= start) & (targets < end)).nonzero().squeeze(1)
            if len(rows):
                yield rows, targets[rows] - start, part
