"""Trackers that keep a record of what they are told, and some that misbehave."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dlrunner.tracker import TrackedRun, Tracker

Call = Literal["start", "log", "finish"]


class Recording(Tracker):
    """Writes each call as a line of a file."""

    def __init__(self, to: str, note: str = "") -> None:
        self.to, self.note = to, note

    def told(self, call: Call, **values: Any) -> None:
        with Path(self.to).open("a") as file:
            file.write(json.dumps({"call": call, "pid": os.getpid(), **values}) + "\n")

    def start(self, run: TrackedRun, known: str | None) -> str:
        about = {"name": run.name, "folder": str(run.path), "values": run.values, "typed": run.overrides}
        self.told("start", **about, known=known, key=run.key, note=len(self.note), argv=sys.orig_argv)
        return known or "an id"

    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        for step, row in rows.items():
            self.told("log", row=dict(row), step=step)

    def finish(self, status: str, figures: Mapping[str, float], step: int, pictures: Sequence[Path]) -> None:
        modules = sorted({"torch", "pandas", "numpy"} & set(sys.modules))
        names = [picture.name for picture in pictures]
        self.told("finish", status=status, figures=dict(figures), step=step, pictures=names, modules=modules)


class Raising(Recording):
    """Raises at one kind of call."""

    def __init__(self, to: str, at: Call) -> None:
        super().__init__(to)
        self.at = at

    def told(self, call: Call, **values: Any) -> None:
        super().told(call, **values)
        if call == self.at:
            raise ConnectionError(f"no answer at {call}")


class Leaving(Recording):
    """Ends its process without a word."""

    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        os._exit(3)


class Sleeping(Recording):
    """Sleeps at each call, and has a thread that would keep its process from ending."""

    def told(self, call: Call, **values: Any) -> None:
        super().told(call, **values)
        threading.Thread(target=time.sleep, args=(60,)).start()
        time.sleep(60)


class Lingering(Recording):
    """Is done in time, but its library keeps the process from ending."""

    def finish(self, status: str, figures: Mapping[str, float], step: int, pictures: Sequence[Path]) -> None:
        threading.Thread(target=time.sleep, args=(60,)).start()
        super().finish(status, figures, step, pictures)


class Lacking(Recording):
    """Needs what nobody has."""

    modules = ("json", "no_such_module")
    package = "no-such-package"
