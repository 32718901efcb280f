"""The process of a tracker: it reads the run's folder and sends new results until the run ends.

It is connected to the run only by the folder, and by standard input, which is closed when the run ends in any way;
after a timeout this process ends too. It imports neither torch nor pandas.
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
"""Seconds between two reads of the folder."""
MARGIN = 2.0
"""Seconds after the run's timeout until this process kills itself; a run that is alive has killed it before."""


@dataclass
class Record:
    """What was sent to a tracker; stored in the run's folder, so that a resumed run continues from there."""

    path: Path
    id: str | None = None
    sent: dict[str, int] = field(default_factory=dict)
    """Number of rows by the folder of their metrics.jsonl: `.`, or `members/0` of an ensemble."""
    error: str | None = None
    is_complete: bool = False
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Identifies the run in the tracker before the tracker has assigned an id."""

    @classmethod
    def read(cls, folder: Path, name: str) -> Record:
        """Read the record, or create one."""
        path = folder / "trackers" / f"{name}.json"
        try:
            record = cls(path, **json.loads(path.read_text()))
            if isinstance(record.sent, dict) and all(isinstance(count, int) for count in record.sent.values()):
                return record
        except (OSError, ValueError, RecursionError, TypeError):
            pass
        return cls(path)

    def write(self) -> None:
        """Write the record atomically."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({key: value for key, value in asdict(self).items() if key != "path"}))
        temporary.replace(self.path)


def is_incomplete(folder: Path, name: str) -> bool:
    """Return whether results of a finished run are missing in a tracker; False if they are damaged."""
    record = Record.read(folder, name)
    try:
        is_sent = all(record.sent.get(part, 0) >= len(rows) for part, rows in histories(folder).items())
    except (OSError, ValueError, RecursionError):
        return False
    return not (record.is_complete and is_sent)


def histories(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of metrics.jsonl of the run and of an ensemble's members, by folder."""
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
    flat: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, list):
            flat |= numbers({f"{key}/{index}": each for index, each in enumerate(value)}, prefix)
        elif isinstance(value, int | float):
            flat[f"{prefix}{key}"] = float(value)
    return flat


def relay(tracker: Tracker, run: TrackedRun, record: Record, run_pipe: int) -> None:
    """Send a run to a tracker until the run ends.

    Args:
        tracker: the tracker.
        run: what is known when the run starts.
        record: what an earlier process has sent.
        run_pipe: a file descriptor that is closed when the run ends.
    """
    known, record.error, record.is_complete = record.id, None, False
    record.write()
    record.id = tracker.start(run, known)
    if record.id != known:
        record.sent = {}
    record.write()
    has_ended, step = False, 0
    while not has_ended:
        has_ended = bool(select.select([run_pipe], [], [], INTERVAL)[0])
        for part, rows in histories(run.path).items():
            if len(rows) < record.sent.get(part, 0):  # training was restarted
                record.sent[part] = 0
            if new := rows[record.sent.get(part, 0) :]:
                prefix = "" if part == "." else f"{part}/"
                tracker.log({row["step"]: numbers(row, prefix) for row in new})
                record.sent[part] = len(rows)
                record.write()
            step = max([step, *(row["step"] for row in rows[-1:])])
    status, results = _outcome(run.path)
    tracker.finish(status, results, step, sorted(run.path.glob("plots/*.png")) if status == "done" else [])
    record.is_complete = True
    record.write()


def _outcome(folder: Path) -> tuple[str, dict[str, float]]:
    """Return status and results of a run that has ended; a killed run has no summary."""
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except FileNotFoundError:
        return "killed", {}
    parts = {part: numbers(summary.get(part) or {}, f"{part}/") for part in ("final", "best")}
    results = {key: value for part in parts.values() for key, value in part.items() if math.isfinite(value)}
    return summary["status"], results


def kill_after(run_pipe: int, timeout: float) -> None:
    """Kill this process group some time after the run ends, since a run that was killed does not do it.

    A process that hangs would hold the lock of its tracker for ever, and the resumed run could not be tracked.

    Args:
        run_pipe: a file descriptor that is closed when the run ends.
        timeout: seconds that a run waits for its trackers.
    """
    select.select([run_pipe], [], [])
    time.sleep(timeout + MARGIN)
    print(f"killed {timeout + MARGIN:g} s after the end of the run", file=sys.stderr, flush=True)
    os.killpg(os.getpid(), signal.SIGKILL)  # this process was started as a group leader


def main(request_descriptor: int) -> int:
    """Relay a run, and return the exit status.

    Args:
        request_descriptor: the file descriptor of the request. It is not a command-line argument: those are visible
            to other users, and limited in length.
    """
    os.nice(5)  # the run has priority
    with os.fdopen(request_descriptor) as file:
        request = json.load(file)
    folder, name = Path(request["folder"]), request["name"]
    threading.Thread(target=kill_after, args=(sys.stdin.fileno(), request["timeout"]), daemon=True).start()
    # The process of a killed run may still be sending its last rows when the next one starts.
    with FileLock(folder / "trackers" / f".{name}.lock", fallback_to_soft=False):
        if request["is_done"] and not is_incomplete(folder, name):  # another process has sent the rest
            return 0
        record = Record.read(folder, name)
        run = TrackedRun(folder, request["task"], request["values"], request["overrides"], record.key)
        try:
            module, _, kind = request["target"].rpartition(".")
            tracker: Tracker = getattr(importlib.import_module(module), kind)(**request["settings"])
            relay(tracker, run, record, sys.stdin.fileno())
        except (Exception, SystemExit) as error:  # a library, or a user's tracker, may raise anything
            traceback.print_exc()
            record.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".removesuffix(": ")
            record.write()
            return 1
    return 0


if __name__ == "__main__":
    status = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a library's exit handlers or threads may hang
