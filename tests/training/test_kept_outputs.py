"""What an evaluation keeps must not keep the C library from using freed memory again."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from dlrunner.row_blocks import KeptRows

EVALUATION = """
import resource, sys, torch
from dlrunner.classification_metrics import RocAuc
from dlrunner.training.state import Tally

class Task:
    def metrics(self):
        return {"auc": RocAuc()}
    def loss(self, outputs, targets):
        return outputs.mean()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

torch.set_num_threads(1)
tally = Tally(Task(), keep=True)
for batch in range(100):
    first, second = torch.ones(1_000_000), torch.ones(1_500_000)  # below what glibc maps by itself
    tally.add((first * 2)[:1000] + second[:1000] + first.relu()[:1000] * 0, torch.arange(1000) % 2.0)
    if batch == 20:
        before = peak()
found = tally.result("valid")
assert len(found.outputs) == len(found.targets) == 100_000 and found.outputs.unique().tolist() == [3.0]
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc, and ru_maxrss in KB")
def test_an_evaluation_of_many_batches_needs_no_more_memory_than_one_of_few() -> None:
    done = subprocess.run([sys.executable, "-c", EVALUATION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60, f"{done.stdout} MB more after 80 batches; with lists of tensors it was 430"


def test_rows_are_joined_in_their_order_with_their_type() -> None:
    kept = KeptRows()
    with pytest.raises(ValueError, match="no rows were added"):
        kept.joined()
    parts = [torch.randint(0, 9, (size, 2), dtype=torch.int32) for size in (0, 3, 1, 0, 70, 2)]
    for part in parts:
        kept.add(part)
    assert len(kept) == 76
    assert torch.equal(kept.joined(), torch.cat(parts))
    assert kept.joined().dtype == torch.int32
    assert kept.joined().untyped_storage().nbytes() == 76 * 2 * 4, "stored, it would be larger than its rows"
