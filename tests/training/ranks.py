"""The processes of one run, forked from the tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from dlrunner.cli import main
from dlrunner.system.process_group import is_reporting_rank
from tests.conftest import QUICK, Forked


class Ranks:
    """The processes of one run, forked from this one: none of them imports torch again.

    They have torchrun's variables, and this process has the store in which they meet, as torchrun's agent has. It stops
    none of them.
    """

    def __init__(self, here: Path, count: int, *words: str, program: Callable[[tuple[str, ...]], int] = main) -> None:
        import torch._dynamo  # noqa: F401  DistributedDataParallel imports it, for a second, in each of them

        is_reporting_rank.cache_clear()  # they would inherit the answer of an earlier test
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        shared = {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        self.processes = [
            Forked((*words, *QUICK), here, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, program)
            for rank in range(count)
        ]

    def wait_until(self, here: Path, pattern: str) -> None:
        """Wait until there is a file that matches the pattern."""
        deadline = time.monotonic() + 90
        while not list(here.glob(pattern)):
            assert all(process.poll() is None for process in self.processes), self.ended()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end of all and return the largest status, their outputs and errors."""
        outputs = [process.communicate() for process in self.processes]
        status = max(abs(process.returncode or 0) for process in self.processes)
        return status, "".join(out for out, _ in outputs), "".join(err for _, err in outputs)


def forked(here: Path, count: int, *words: str) -> tuple[int, str, str]:
    """Run the processes of one run to their end."""
    return Ranks(here, count, *words).ended()
