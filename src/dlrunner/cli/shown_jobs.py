"""Jobs that run while a screen shows their progress, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrunner.errors import Interrupted
from dlrunner.reporting.terminal.sweep import LineScreen, duration
from dlrunner.sweeps.folder import Job, SweepDirectory

if TYPE_CHECKING:
    from dlrunner.sweeps.engines.base import RemoteEngine
    from dlrunner.sweeps.slots import ResourceSlot


def run_shown(
    jobs: Iterable[Job],
    folder: SweepDirectory,
    slots: Sequence[ResourceSlot],
    screen: LineScreen,
    fail_fast: bool,
    engine: RemoteEngine | None,
    on_end: Callable[[Job, Mapping[str, Any]], None] = lambda job, record: None,
) -> int:
    """Run jobs as `run_jobs` does, record each in the folder, and return 0, or the exit status of an interruption."""
    from dlrunner.sweeps.pool import run_jobs

    try:
        run_jobs(jobs, folder, slots, screen, fail_fast, engine, on_end)
    except (Interrupted, KeyboardInterrupt) as stopped:
        return stopped.exit_status if isinstance(stopped, Interrupted) else 130
    finally:
        screen.close()
    return 0


def left_text(what: str, finished: int, total: int, seconds: Sequence[float]) -> str:
    """Return how many jobs are finished, and how long the others will take.

    Args:
        what: the jobs are.
        finished: number of finished ones.
        total: number of all.
        seconds: durations of finished ones.

    >>> left_text("trial", 2, 5, [10.0, 20.0])
    '2 of 5 trials are finished; the other 3 take about 45 s sequentially'
    """
    text, left = f"{finished} of {total} {what}s are finished", total - finished
    if left and seconds:
        return f"{text}; the other {left} take about {duration(left * sum(seconds) / len(seconds))} sequentially"
    return f"{text}; no finished {what} to estimate the time from" if left else text


def same_run_text(job: Job | None, number: int, same: int, swept: Sequence[str]) -> str:
    """Return that a job is the same run as another one; of a job whose request is damaged, without its settings."""
    return f"[{number}]{f' {job.label(swept)}' if job else ''}: the same run as [{same}], run once"
