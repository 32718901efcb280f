"""A linear classifier of texts on their words and pairs of neighbouring words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrunner.model import Model
from dlrunner.models.text import TextDims
from dlrunner.ranges import Count, Positive


class NgramClassifier(Model):
    """Class scores that are linear in a text's words and bigrams: a logistic regression that is trained in batches.

    A word or bigram that occurs n times counts 1 + log n, times .5 + log(1 + rank) of the word, of a bigram the mean of
    both: rare words tell more, and by Zipf's law log(rank) is the inverse document frequency but for a constant. The
    inputs of a text have length 1. All weights start at 0.

    Bigrams share `buckets` weights (Weinberger et al., Feature hashing for large scale multitask learning, 2009): by
    Fibonacci hashing (Knuth, The art of computer programming, 6.4), so that pairs of frequent words do not collide.
    Linear models on such inputs are hard to beat with few texts: Wang and Manning, Baselines and bigrams, 2012; Joulin
    et al., Bag of tricks for efficient text classification, 2017.

    Args:
        dims: the vocabulary, sorted by frequency, and the outputs.
        buckets: number of weights for bigrams, for each output.
        scale: of the scores: with Adam a weight changes by up to lr · scale per step.
    """

    group_names = ("weights",)

    def __init__(self, dims: TextDims, *, buckets: Count = 262_144, scale: Positive = 15.0) -> None:
        super().__init__()
        self.num_words, self.buckets, self.scale = dims.num_words, buckets, scale
        self.weight = nn.Parameter(torch.zeros(dims.num_words + buckets, dims.num_outputs))
        self.bias = nn.Parameter(torch.zeros(dims.num_outputs))

    def forward(self, words: Tensor, lengths: Tensor, of_all: Tensor | None = None) -> Tensor:
        """Return class scores, [batch] for two classes, else [batch, classes].

        Args:
            words: [batch, steps], padded at the end.
            lengths: words of each text, [batch], 1 or more.
            of_all: is not used: lengths of the whole batch, where these are one process's shard of it.
        """
        grams, rarity = self._grams(words, lengths)
        ordered = grams.sort(dim=1).values
        counts = torch.searchsorted(ordered, grams, right=True) - torch.searchsorted(ordered, grams)
        return self._scores(grams, rarity, counts)

    def _grams(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return words and bigrams, -1 where a text has ended, and the factor of each for its rank, [batch, grams]."""
        words = words.long()
        first, second = words[:, :-1], words[:, 1:]
        bigrams = self.num_words + (first * round(0.618034 * self.buckets) + second) % self.buckets
        rarity = 0.5 + words.float().log1p()
        inside = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
        grams = torch.cat([words, bigrams], dim=1)
        return (
            grams.masked_fill(~torch.cat([inside, inside[:, 1:]], dim=1), -1),
            torch.cat([rarity, (rarity[:, :-1] + rarity[:, 1:]) / 2], dim=1),
        )

    def _scores(self, grams: Tensor, rarity: Tensor, counts: Tensor) -> Tensor:
        """Return the scores; a gram that occurs n times stands n times in `grams`, each with 1/n of its value."""
        counts = counts.float()
        values = (1 + counts.log()) * rarity
        inside = grams >= 0
        norm = (values.square() / counts * inside).sum(dim=1, keepdim=True).sqrt()
        shares = values / counts * inside / norm
        known = grams.clamp(min=0)
        if len(self.bias) == 1:
            return self.scale * ((self.weight[:, 0][known] * shares).sum(dim=1) + self.bias)
        # Sums as it reads the weights: [batch, grams, classes] would be gigabytes for long texts and many classes.
        sums = F.embedding_bag(known, self.weight, mode="sum", per_sample_weights=shares.to(self.weight.dtype))
        return self.scale * (sums + self.bias)

    def graph(self) -> nn.Module:
        """Return the classifier without sorted search, which is not in ONNX: the same answers, within rounding."""
        return PairwiseCounts(self)


class PairwiseCounts(nn.Module):
    """A classifier that counts by comparing each word and bigram of a text with all others: for ONNX graphs only.

    Args:
        model: the classifier.
    """

    def __init__(self, model: NgramClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return class scores (see `NgramClassifier.forward`)."""
        grams, rarity = self.model._grams(words, lengths)
        counts = (grams[:, :, None] == grams[:, None, :]).sum(dim=2)
        return self.model._scores(grams, rarity, counts)
