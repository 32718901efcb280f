"""What this process asks of the machine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from dlrunner.system.cpu_tuning import keep_freed_memory

def faults():
    np.ones(8 * 2**20)  # 64 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no mallopt")
def test_memory_that_was_freed_is_kept_for_the_next_tensor() -> None:
    # In a process of its own: the setting stays with a process.
    told = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout
    before, after = (int(pages) for pages in told.split())
    assert before > 100, "the system provides pages anew"
    assert after < before / 20
