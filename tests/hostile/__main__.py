"""Break dlrunner on purpose: `python -m tests.hostile [--seed N] [--scale 0.1] [--only kills,requests]`.

Prints a line for each kind of attempts, and how the first failures can be repeated; exit status 1 if there are any.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.harness import FAULTS, HEADER, KINDS, Tally, kind_of, run_kind


def main(words: Sequence[str] | None = None) -> int:
    """Make the attempts and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description="Break dlrunner on purpose.")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all attempts (0)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="0.1: a tenth of the attempts")
    parser.add_argument("--only", default=",".join(KINDS), metavar="KIND,…", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--number", type=int, default=None, metavar="N", help="only this attempt of each kind")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), metavar="N", help="side by side")
    parser.add_argument("--show", type=int, default=10, metavar="N", help="failures of a kind that are described (10)")
    arguments = parser.parse_args(words)
    names = arguments.only.split(",")
    if unknown := set(names) - set(KINDS):
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}")
    print(HEADER, flush=True)
    tallies = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        Path(folder).chmod(0o755)  # one kind of attempts is made as another user
        for name in names:
            kind = kind_of(name)
            numbers = range(math.ceil(kind.COUNT * arguments.scale))
            chosen = numbers if arguments.number is None else [arguments.number]
            workers = min(arguments.workers, len(chosen))
            tallies.append(run_kind(name, kind, arguments.seed, chosen, Path(folder), workers))
            print(tallies[-1].line(), flush=True)
    for tally in tallies:
        describe(tally, arguments.seed, arguments.show)
    return 1 if any(tally.failures for tally in tallies) else 0


def describe(tally: Tally, seed: int, most: int) -> None:
    """Print the first failures, and how each is repeated."""
    for number, failure in tally.failures[:most]:
        command = f"python -m tests.hostile --seed {seed} --only {tally.kind} --number {number}"
        print(f"\n{command}\n  {failure.fault}: {failure.text}")
    if len(tally.failures) > most:
        counts = ", ".join(f"{tally.count(fault)} {fault}" for fault in FAULTS if tally.count(fault))
        print(f"\n{tally.kind}: {counts} in all; --show {len(tally.failures)} describes them")


if __name__ == "__main__":
    sys.exit(main())
