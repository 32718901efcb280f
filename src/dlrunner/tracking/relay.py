"""What a tracker's process does: it reads the run's folder and passes on what is new, until the run is over.

The folder is all it knows of the run, and the run knows nothing of it: the end of standard input tells it that the
run has ended, in whatever way; some time later it ends too, in whatever way. It imports neither torch nor pandas.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import select
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlrunner.files.plain_data import read_json
from dlrunner.tracker import TrackedRun, Tracker

INTERVAL = 0.5
"""Seconds between two looks at the folder."""
MARGIN = 2.0
"""Seconds beyond those that a run waits, after which this process ends itself; a run that still lives has ended it."""


@dataclass
class Record:
    """What a tracker has of a run; kept in the run's folder, so that a resumed run goes on with it."""

    path: Path
    id: str | None = None
    sent: dict[str, int] = field(default_factory=dict)
    """Rows, by the folder whose metrics.jsonl they stand in: `.`, or `members/0` of an ensemble."""
    error: str | None = None
    is_complete: bool = False
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What the tracker may know the run by before it has given it an id."""

    @classmethod
    def read(cls, folder: Path, name: str) -> Record:
        """Read the record, or begin one."""
        path = folder / "trackers" / f"{name}.json"
        try:
            record = cls(path, **json.loads(path.read_text()))
            if isinstance(record.sent, dict) and all(isinstance(count, int) for count in record.sent.values()):
                return record
        except (OSError, ValueError, RecursionError, TypeError):
            pass
        return cls(path)

    def write(self) -> None:
        """Write the record whole or not at all."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({key: value for key, value in asdict(self).items() if key != "path"}))
        temporary.replace(self.path)


def lacks(folder: Path, name: str) -> bool:
    """Tell whether a tracker has not got all of a finished run; what is damaged can be sent to nobody."""
    record = Record.read(folder, name)
    try:
        is_sent = all(record.sent.get(place, 0) >= len(rows) for place, rows in histories(folder).items())
    except (OSError, ValueError, RecursionError):
        return False
    return not (record.is_complete and is_sent)


def histories(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of metrics.jsonl, of the run itself and of an ensemble's members, by folder."""
    files = [folder / "metrics.jsonl", *sorted(folder.glob("members/*/metrics.jsonl"))]
    return {
        str(file.parent.relative_to(folder)): [read_json(line) for line in file.read_text().splitlines()]
        for file in files
        if file.exists()
    }


def numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a row by flat name.

    >>> numbers({"epoch": 1, "lr": [0.1, 0.01], "best": None}, "members/0/")
    {'members/0/epoch': 1.0, 'members/0/lr/0': 0.1, 'members/0/lr/1': 0.01}
    """
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, list):
            found |= numbers({f"{key}/{index}": each for index, each in enumerate(value)}, prefix)
        elif isinstance(value, int | float):
            found[f"{prefix}{key}"] = float(value)
    return found


def relay(tracker: Tracker, run: TrackedRun, record: Record, run_is_over: int) -> None:
    """Pass a run on to a tracker until it is over.

    Args:
        tracker: who is told.
        run: what it is told first.
        record: what it was told in an earlier process.
        run_is_over: a file descriptor that comes to its end with the run.
    """
    known, record.error, record.is_complete = record.id, None, False
    record.write()
    record.id = tracker.start(run, known)
    if record.id != known:
        record.sent = {}
    record.write()
    is_over, step = False, 0
    while not is_over:
        is_over = bool(select.select([run_is_over], [], [], INTERVAL)[0])
        for place, rows in histories(run.path).items():
            if len(rows) < record.sent.get(place, 0):  # training has begun anew
                record.sent[place] = 0
            if new := rows[record.sent.get(place, 0) :]:
                prefix = "" if place == "." else f"{place}/"
                tracker.log({row["step"]: numbers(row, prefix) for row in new})
                record.sent[place] = len(rows)
                record.write()
            step = max([step, *(row["step"] for row in rows[-1:])])
    status, figures = _ending(run.path)
    tracker.finish(status, figures, step, sorted(run.path.glob("plots/*.png")) if status == "done" else [])
    record.is_complete = True
    record.write()


def _ending(folder: Path) -> tuple[str, dict[str, float]]:
    """Return status and figures of a run that is over; one that was killed left no summary."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except FileNotFoundError:
        return "killed", {}
    parts = {part: numbers(summary.get(part) or {}, f"{part}/") for part in ("final", "best")}
    figures = {key: value for part in parts.values() for key, value in part.items() if math.isfinite(value)}
    return summary["status"], figures


def end_after(run_is_over: int, patience: float) -> None:
    """End this process, and all that it has started, when it has had its time: a run that was killed ends nobody.

    What hangs would hold the lock of its tracker for ever, and the same run could not be tracked when it goes on.

    Args:
        run_is_over: a file descriptor that comes to its end with the run.
        patience: seconds that a run waits.
    """
    select.select([run_is_over], [], [])
    time.sleep(patience + MARGIN)
    print(f"ended {patience + MARGIN:g} s after the run", file=sys.stderr, flush=True)
    os.killpg(os.getpid(), signal.SIGKILL)  # it was started as the leader of a group


def main(request: int) -> int:
    """Relay a run, and return the exit status.

    Args:
        request: a file descriptor, from which what is asked for is read. Arguments of a process are seen by everybody,
            and may not be long.
    """
    os.nice(5)  # the run comes first
    with os.fdopen(request) as file:
        asked = json.load(file)
    folder, name = Path(asked["folder"]), asked["name"]
    threading.Thread(target=end_after, args=(sys.stdin.fileno(), asked["patience"]), daemon=True).start()
    # The process of a run that was killed may still pass on its last rows when the next one begins.
    with FileLock(folder / "trackers" / f".{name}.lock", fallback_to_soft=False):
        if asked["is_done"] and not lacks(folder, name):  # somebody else has sent it meanwhile
            return 0
        record = Record.read(folder, name)
        run = TrackedRun(folder, asked["task"], asked["values"], asked["overrides"], record.key)
        try:
            module, _, kind = asked["target"].rpartition(".")
            tracker: Tracker = getattr(importlib.import_module(module), kind)(**asked["settings"])
            relay(tracker, run, record, sys.stdin.fileno())
        except (Exception, SystemExit) as error:  # a library, or a user's tracker, may fail in any way
            traceback.print_exc()
            record.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".removesuffix(": ")
            record.write()
            return 1
    return 0


if __name__ == "__main__":
    status = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # what a library still does at an exit, or in a thread of its own, may take for ever
