"""A language model interpolated with a neural cache and with n-grams: other perplexities of the same words.

Each is a weighted mean of probabilities that sum to 1 over the vocabulary, so it is one too. The weights, and the θ of
the cache, are chosen on words that are not reported.

Source: Jelinek and Mercer, Interpolated estimation of Markov source parameters from sparse data, 1980.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.texts.loaders import StreamLoader, num_steps, piece_lengths, places_in_stream
from dlrunner.models.language import LanguageModel, average_losses
from dlrunner.models.neural_cache import NeuralCache
from dlrunner.models.ngram import KneserNey
from dlrunner.models.recurrent import State

Floats = NDArray[np.float64]

THETAS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Of which the best on the tuning words is taken."""
STEPS = 200
"""Of expectation maximisation, which converges to the best weights: the likelihood is concave in them."""


@dataclass(frozen=True)
class Component:
    """The probability of each word but the first of the tuning words, and of the reported ones, by one model."""

    name: str
    tuning: Floats
    reported: Floats


@dataclass(frozen=True)
class Interpolation:
    """The perplexity of an interpolated model on the reported words."""

    components: Sequence[str]
    weights: Sequence[float]
    perplexity: float


def stream_probabilities(
    models: Sequence[LanguageModel], stream: Tensor, num_columns: int, bptt: int, window: int, thetas: Sequence[float]
) -> tuple[Floats, Floats]:
    """Return the probability of each word but the first by the models, and by the cache for each θ, [thetas, words].

    Both are averages over the models. Where the cache is empty, its probabilities are the model's.

    Args:
        models: in evaluation mode.
        stream: words on the models' device, int32 [words].
        num_columns: that the stream is cut into; each starts without context.
        bptt: words of a column at a time, which changes nothing but the speed.
        window: of the cache; 0: none.
        thetas: of the cache.
    """
    loader = StreamLoader(stream, num_columns, piece_lengths(num_steps(stream, num_columns), bptt, False, 0, 0))
    caches = [NeuralCache(window, thetas) for _ in models] if window else []
    hidden: list[State | None] = [None for _ in models]
    # Allocated before the loop: small tensors that stay, between large ones that go, would keep the freed memory of
    # each piece from being used again (16 GB for the IMDB reviews).
    losses = torch.empty((1 + (len(thetas) if window else 0), len(stream) - 1))
    end = 0
    for batch in loader:
        words, following, *known = batch.inputs
        of_net, of_cache = list[Tensor](), list[Tensor]()
        for index, model in enumerate(models):
            outputs, state = model.encoder(words, hidden[index])
            loss, memory = model.decode(outputs, words, following, known[0] if known else None, hidden[index])
            hidden[index] = [*state, *memory]
            of_net.append(loss)
            if window:
                logs = caches[index].log_probabilities(outputs, following).flatten(1)
                logs = logs[:, known[0]] if known else logs
                of_cache.append(torch.where(logs.isnan(), loss, -logs))
        start, end = end, end + len(batch.targets)
        losses[0, start:end] = average_losses(of_net)
        if window:
            losses[1:, start:end] = average_losses(of_cache)
    probabilities = np.empty(losses.shape)
    probabilities[:, places_in_stream(len(stream), num_columns)] = np.exp(-losses.double().numpy())
    return probabilities[0], probabilities[1:]


def best_weights(probabilities: Sequence[Floats]) -> Floats:
    """Return the weights of the weighted mean that makes the words most likely, by expectation maximisation.

    >>> best_weights([np.array([0.5, 0.1]), np.array([0.1, 0.5])]).round(3)
    array([0.5, 0.5])
    """
    stacked = np.stack(probabilities)
    weights = np.full(len(stacked), 1 / len(stacked))
    for _ in range(STEPS):
        weights = weights * (stacked / (weights @ stacked)).mean(axis=1)
    scaled: Floats = weights / weights.sum()
    return scaled


def interpolated(components: Sequence[Component]) -> Interpolation:
    """Return the perplexity of the reported words with the weights that are best on the tuning words."""
    weights = best_weights([each.tuning for each in components])
    mean = weights @ np.stack([each.reported for each in components])
    perplexity = float(np.exp(-np.log(mean).mean()))
    return Interpolation([each.name for each in components], weights.tolist(), perplexity)


def interpolations(
    models: Sequence[LanguageModel],
    *,
    counted: Tensor,
    tuning: Tensor,
    reported: Tensor,
    num_columns: int,
    bptt: int,
    window: int,
    order: int,
) -> tuple[list[Interpolation], float | None]:
    """Return the perplexity of the models alone, then with the cache, with n-grams, with both; and the cache's θ.

    Args:
        models: in evaluation mode; their probabilities are averaged.
        counted: the words that the n-grams are counted in.
        tuning: the words that weights and θ are chosen on.
        reported: the words whose perplexity is returned.
        num_columns: that `reported` is cut into.
        bptt: words of a column at a time.
        window: words that the cache remembers; 0: no cache.
        order: length of the longest n-grams; 0: none.
    """
    piece = max(bptt, window // 8)
    tuning_columns = max(1, min(num_columns, len(tuning) // (5 * window) if window else num_columns))
    tuned, caches = stream_probabilities(models, tuning, tuning_columns, piece, window, THETAS)
    theta, of_cache = None, None
    if window:
        fits = [np.log(best_weights([tuned, each]) @ np.stack([tuned, each])).mean() for each in caches]
        theta, of_cache = THETAS[int(np.argmax(fits))], caches[int(np.argmax(fits))]
    net, cached = stream_probabilities(models, reported, num_columns, piece, window, [] if theta is None else [theta])
    components = [Component("net", tuned, net)]
    if of_cache is not None:
        components.append(Component("cache", of_cache, cached[0]))
    if order:
        words = counted.cpu().numpy()
        grams = KneserNey(words, models[0].encoder.embedding.num_embeddings, min(order, len(words) - 1))
        streams = [np.exp(grams.log_probabilities(each.cpu().numpy())) for each in (tuning, reported)]
        components.append(Component("ngram", *streams))
    groups = [components[:1], *([components[0], each] for each in components[1:])]
    groups += [components] if len(components) > 2 else []
    return [interpolated(each) for each in groups], theta
