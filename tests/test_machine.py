"""What this process asks of the machine."""

from __future__ import annotations

import os
import platform
import resource

import numpy as np
import pytest

from dlrunner.machine import keep_freed_memory


def faults() -> int:
    """Return how many pages the system had to provide for an array that had been there before."""
    np.ones(8 * 2**20)  # 64 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no mallopt")
def test_memory_that_was_freed_is_kept_for_the_next_tensor() -> None:
    child = os.fork()  # the setting stays with a process
    if child == 0:
        without = faults()
        keep_freed_memory()
        os._exit(0 if faults() < without / 20 and without > 100 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
