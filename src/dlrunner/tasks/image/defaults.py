"""Batch size and epochs that suit a number of images, where the backbone is trained."""

from __future__ import annotations

import math

STEPS = 300
"""With far fewer a net has learned nothing, and its batch norm has the running statistics of the first steps."""


def recommended_for(num_images: int) -> dict[str, int]:
    """Return about 32 steps an epoch, and the epochs of 300 steps, between 5 and 20.

    >>> [tuple(recommended_for(count).values()) for count in (96, 500, 2_000, 100_000)]
    [(8, 20), (16, 10), (64, 10), (64, 5)]

    Args:
        num_images: training images.
    """
    batch_size = min(64, max(8, 2 ** round(math.log2(max(1, num_images) / 32))))
    steps = math.ceil(max(1, num_images) / batch_size)
    return {"batch_size": batch_size, "epochs": min(20, max(5, math.ceil(STEPS / steps)))}
