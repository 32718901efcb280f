"""Time from rossmann.tgz to the table of features, in its own process.

DLRUNNER_CACHE=$(mktemp -d) python -m benchmarks.read_rossmann --data DIR
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import time
from pathlib import Path

from benchmarks.measuring import megabytes
from dlrunner.data.rossmann.dataset import RossmannData


def main() -> None:
    parser = argparse.ArgumentParser(description="Read Rossmann's tables once.")
    parser.add_argument("--data", type=Path, required=True)
    for name in ("pyarrow.csv", "pyarrow.feather"):  # pandas would import these during the measurement
        importlib.import_module(name)
    data = RossmannData(parser.parse_args().data, source="real", split="last_days", valid=48)
    before = megabytes(resource.getrusage(resource.RUSAGE_SELF))
    started = time.perf_counter()
    data.identity()
    table = data.read()
    seconds = time.perf_counter() - started
    peak = megabytes(resource.getrusage(resource.RUSAGE_SELF))
    result = {"seconds": seconds, "rows": len(table.frame), "peak_memory_mb": peak, "memory_of_imports_mb": before}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
