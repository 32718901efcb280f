"""The linear classifier of texts: its inputs, and what changes nothing about them."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from dlrunner.models.ngram_classifier import NgramClassifier
from dlrunner.models.text import TextDims


def classifier(num_outputs: int = 1, buckets: int = 64) -> NgramClassifier:
    torch.manual_seed(0)
    model = NgramClassifier(TextDims(20, num_outputs, ""), buckets=buckets)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def batch(*texts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(text) for text in texts])
    words = torch.ones(len(texts), int(lengths.max()), dtype=torch.int32)
    for row, text in enumerate(texts):
        words[row, : len(text)] = torch.tensor(text)
    return words, lengths


def test_a_score_is_a_sum_over_distinct_words_and_bigrams_of_logarithmic_counts_and_ranks() -> None:
    model, text = classifier(), [5, 3, 5, 3, 0]
    rarity = {word: 0.5 + math.log1p(word) for word in text}
    values: dict[tuple[int, ...], float] = {}
    for word, n in Counter(text).items():
        values[(word,)] = (1 + math.log(n)) * rarity[word]
    for (first, second), n in Counter(pairwise(text)).items():
        values[first, second] = (1 + math.log(n)) * (rarity[first] + rarity[second]) / 2
    norm = math.sqrt(sum(value**2 for value in values.values()))
    weight = model.weight.detach()
    expected = float(model.bias.detach())
    for gram, value in values.items():
        place = gram[0] if len(gram) == 1 else 20 + (gram[0] * 40 + gram[1]) % 64
        expected += float(weight[place, 0]) * value / norm
    found = model(*batch(text))
    assert found.shape == (1,)
    assert found.item() == pytest.approx(15 * expected, rel=1e-5)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_padding_and_the_other_texts_of_a_batch_change_nothing(num_outputs: int) -> None:
    model, texts = classifier(num_outputs), [[1], [4, 1, 1, 4], [7, 7, 7, 2, 9, 1]]
    together = model(*batch(*texts))
    for row, text in enumerate(texts):
        torch.testing.assert_close(model(*batch(text))[0], together[row])


def test_bigrams_of_frequent_words_do_not_share_a_weight() -> None:
    model = classifier(buckets=262_144)
    first, second = np.divmod(np.arange(300 * 300), 300)
    grams, _ = model._grams(torch.from_numpy(np.stack([first, second], axis=1)), torch.full((len(first),), 2))
    assert len(np.unique(grams[:, 2])) == len(first)


def test_the_graph_computes_what_the_model_does() -> None:
    model = classifier(3)
    inputs = batch([4, 1, 1, 4], [7, 7, 7, 2, 9, 1], [3])
    torch.testing.assert_close(model.graph()(*inputs), model(*inputs))


def test_the_scores_of_several_classes_and_their_gradients_are_those_of_single_ones() -> None:
    model, inputs = classifier(3), batch([4, 1, 1, 4], [7, 7, 7, 2, 9, 1], [3])
    found = model(*inputs)
    found.square().sum().backward()
    assert model.weight.grad is not None
    for number in range(3):
        single = classifier()
        with torch.no_grad():
            single.weight.copy_(model.weight[:, [number]])
            single.bias.copy_(model.bias[[number]])
        expected = single(*inputs)
        expected.square().sum().backward()
        torch.testing.assert_close(found[:, number], expected)
        torch.testing.assert_close(model.weight.grad[:, [number]], single.weight.grad)
