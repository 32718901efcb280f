"""What tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.small_runs import SmallRuns

if TYPE_CHECKING:
    from tests.serving.client import Client


@pytest.fixture
def flats_client(runs: SmallRuns) -> Iterator[Client]:
    from tests.serving.client import served  # fastapi may be missing

    with served(runs["numbers"]) as client:
        yield client
