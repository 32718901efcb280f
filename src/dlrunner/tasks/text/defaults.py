"""Settings that suit a text classifier by its number of training texts; tried on 300 and 1,000 of IMDB's reviews."""

from __future__ import annotations

from typing import Any

STEPS = 1_000
"""Steps of training that a classifier needs at least, as far as its epochs allow."""
FEW = 10_000
"""Up to it a net that starts at random is small: on a CPU a step of the large one takes many times as long."""


def recommended_for(num_texts: int, *, has_encoder: bool) -> dict[str, Any]:
    """Return batch size, epochs, and the sizes of the net; null: the encoder's, or the model's own.

    Args:
        num_texts: of the training set.
        has_encoder: the weights are those of a language model: they are fine-tuned, not learned.

    >>> print(*recommended_for(300, has_encoder=False).values())
    16 20 100 100 1
    >>> print(*recommended_for(300, has_encoder=True).values())
    16 10 None None None
    >>> print(*recommended_for(25_000, has_encoder=False).values())
    32 3 None None None
    """
    batch_size = 16 if num_texts < 1_000 else 32
    most = 10 if has_encoder else 20
    is_small = num_texts <= FEW and not has_encoder
    return {
        "batch_size": batch_size,
        "epochs": max(3, min(most, round(STEPS * batch_size / num_texts))),
        "model.embedding": 100 if is_small else None,
        "model.hidden": 100 if is_small else None,
        "model.layers": 1 if is_small else None,
    }
