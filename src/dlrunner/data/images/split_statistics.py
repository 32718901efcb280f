"""What the audit of a split needs to know of images."""

from __future__ import annotations

from typing import Any, Protocol

import pandas as pd
from numpy.typing import NDArray

from dlrunner.data.core.splitting import VALID, Mask, Parts, digests_by_part, num_test_rows
from dlrunner.data_audit import Digests, SplitStatistics, rows_digest


class SplitImages(Protocol):
    """Images with a part each."""

    @property
    def names(self) -> Any:
        """The name of each image."""
        ...

    @property
    def split(self) -> Parts:
        """The part of each image."""
        ...

    @property
    def of_test(self) -> Mask | None:
        """Which images the publisher has for testing."""
        ...

    def digests(self) -> Digests:
        """Return a digest of the pixels of each image."""
        ...


def split_statistics(table: SplitImages, values: NDArray[Any], prefix: str, *context: str) -> SplitStatistics:
    """Return digests of the pixels by part, and one of the validation images and targets; nothing is fitted on them.

    Args:
        table: the images.
        values: the targets, of as many rows.
        prefix: of the names of their columns.
        context: what else decides the meaning of the targets, such as the names of the classes.
    """
    rows = (table.split == VALID).nonzero()[0]
    targets = pd.DataFrame(values[rows], index=[table.names[row] for row in rows]).add_prefix(prefix)
    return SplitStatistics(
        "images",
        digests_by_part(table.digests(), table.split),
        num_test_rows=num_test_rows(table.of_test, table.split == VALID),
        validation=rows_digest(targets.reset_index(names="image"), *context),
    )
