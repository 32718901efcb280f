"""Settings that suit texts by their number of words; the columns were compared on 90,000 words of IMDB's reviews."""

from __future__ import annotations

EPOCHS = (3, 20)
"""At least, and at most."""
STEPS = 1_500
"""Steps of training that a language model needs at least, as far as its epochs allow."""
MOST_COLUMNS = 32
MOST_VALID_COLUMNS = 64


def recommended_for(num_words: int, num_valid: int, bptt: int) -> dict[str, int]:
    """Return batch size, epochs, and columns of the validation stream.

    An epoch has a hundred sequences or more, if there are words for four columns: few are read in few columns.

    Args:
        num_words, num_valid: of the training and of the validation texts.
        bptt: words in a sequence.

    >>> print(*recommended_for(20_000, 2_000, 70).values())
    4 20 28
    >>> print(*recommended_for(500_000, 50_000, 70).values())
    32 7 64
    >>> print(*recommended_for(20_000_000, 200_000, 70).values())
    32 3 64
    """
    batch_size = MOST_COLUMNS
    while batch_size > 4 and num_words < 100 * batch_size * bptt:
        batch_size //= 2
    batch_size = max(1, min(batch_size, (num_words - 1) // bptt))
    steps = max(1, num_words // (batch_size * bptt))
    least, most = EPOCHS
    return {
        "batch_size": batch_size,
        "epochs": max(least, min(most, round(STEPS / steps))),
        "task.valid_batch_size": max(1, min(MOST_VALID_COLUMNS, (num_valid - 1) // bptt)),
    }
