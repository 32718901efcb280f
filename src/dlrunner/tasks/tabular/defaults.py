"""Settings that suit a table by its number of training rows; chosen on tables that `benchmarks/own_data.py` names."""

from __future__ import annotations

import math

EPOCHS = 20
MOST_EXAMPLES = 2_000_000
"""Training examples of all epochs, on many rows."""
FEW_ROWS = 1_000
"""Below it bins have too few rows to learn from."""
SMALL = 5_000
"""Up to it nets learn single rows by heart, and are held back by dropout and decay."""
MANY_ROWS = 200_000
"""Above it several nets take time, and agree."""


def recommended_for(num_rows: int, *, is_packed: bool = True) -> dict[str, int | float]:
    """Return batch size, epochs, decay, and bins, dropout and nets of `EmbeddingNet`.

    Args:
        num_rows: training rows.
        is_packed: the model has these nets; a linear model needs no such decay.

    >>> print(*recommended_for(500).values())
    32 30 0 0.3 8 1.0
    >>> print(*recommended_for(16_512).values())
    256 20 32 0.05 4 0.1
    >>> print(*recommended_for(1_000_000).values())
    1024 4 32 0.05 1 0.1
    """
    batch_size = min(1024, max(32, 2 ** round(math.log2(max(1, num_rows) / 80))))
    is_small = num_rows <= SMALL
    epochs = 30 if is_small else max(4, min(EPOCHS, MOST_EXAMPLES // num_rows))
    nets = 8 if is_small else 4 if num_rows <= MANY_ROWS else 1
    return {
        "batch_size": batch_size,
        "epochs": epochs,
        "model.bins": 0 if num_rows < FEW_ROWS else 32,
        "model.dropouts": 0.3 if is_small else 0.05,
        "model.num_nets": nets,
        "optim.weight_decay": 1.0 if is_small and is_packed else 0.1,
    }
