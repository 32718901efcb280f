"""One run, from its configuration to its summary: the order of events, and nothing of how each works."""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from dlrunner.config.plan import Plan, plan
from dlrunner.errors import DlrunnerError, Interrupted, OutOfMemoryError, PeerLostError, RunError
from dlrunner.execution.identity import digests, identity_of
from dlrunner.execution.stages import (
    Notes,
    Published,
    RunContext,
    check_claim,
    evaluate,
    prepare,
    publish,
    train,
    write_report_data,
)
from dlrunner.files.paths import user_path
from dlrunner.reporting.terminal.progress import make_display
from dlrunner.runs.directory import RunDirectory
from dlrunner.runs.labels import run_label
from dlrunner.runs.log import logged
from dlrunner.runs.reader import FinishedRun
from dlrunner.system.backends import matmul_precision, own_threads
from dlrunner.system.machine import git_state, now, peak_memory_mb, versions
from dlrunner.system.process_group import is_peer_failure, is_reporting_rank, joined
from dlrunner.system.signals import StopSignals
from dlrunner.task import Data, DataIdentity
from dlrunner.tracking.relay import lacks
from dlrunner.tracking.supervisor import Tracking, refuse_missing
from dlrunner.training.hooks import Display

log = logging.getLogger("dlrunner")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    path: Path
    summary: Mapping[str, Any]
    is_new: bool = True
    """False when the run was finished before and is only shown again."""

    @property
    def exit_status(self) -> int:
        """0 done; 1 when its claim is missed."""
        claim = self.summary.get("claim")
        return 1 if claim and claim["verdict"].startswith("missed") else 0


def run(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    say: Any = print,
    display: Display | None = None,
    changed: Mapping[str, str] | None = None,
) -> Outcome:
    """Do what a configuration asks for, unless it is done already.

    Args:
        config: the composed configuration, plain dicts and lists.
        overrides: what was typed.
        say: prints a line for the person who waits.
        display: shows how far training is; without one, what `log.progress` asks for.
        changed: what the task's own settings hold where these differ; the report marks them.

    Raises:
        ConfigError: the configuration does not fit; nothing was read or written.
        DataError, RunError: the run failed; its folder says so.
        Interrupted: a stop signal came; the same command goes on from where it stopped.
    """
    checked = plan(config)
    refuse_missing(checked)
    with StopSignals() as signals, joined(checked.device) as group, own_threads():
        data = checked.build_data()
        identity = identity_of(data)
        directory, reason = RunDirectory.claim(
            user_path(checked.settings.runs_dir),
            checked.settings.choices.get("task") or "task",
            run_label(overrides, checked.settings.choices),
            digests(checked, identity),
            checked.settings.rerun,
        )
        try:
            if reason == "finished":
                directory.point_latest()
                say(f"this run is done already: {directory.path} (rerun=true repeats it beside)")
                group.broadcast("finished")
                summary = _judged_again(checked, data, directory, identity)
                _send_lacking(checked, overrides, directory.path, say)
                return Outcome(directory.path, summary, is_new=False)
            if reason.startswith("stale"):
                say(f"{reason.removeprefix('stale: ')}: running anew in {directory.path.name}")
            if identity.source == "synthetic":
                say("DATA: a generated STAND-IN, not the published data; `dlrun data` tells where that is to be had")
            elif identity.name != "none":
                say(f"data: {identity.name} {identity.release} ({identity.path})")
            context = RunContext(checked, directory, identity, group, signals, say, Notes(say))
            return _execute(context, data, overrides, display, changed)
        finally:
            directory.release()


def _judged_again(
    checked: Plan, data: Data | None, directory: RunDirectory, identity: DataIdentity
) -> Mapping[str, Any]:
    """Return the summary of a finished run, its claim judged as it stands now: it is no part of the signature."""
    summary = dict(FinishedRun.read(directory.path).summary or {})
    claim, before = checked.settings.claim, summary.pop("claim", None)
    if claim:
        task = checked.build_task(data, checked.settings.seed)
        summary["claim"] = check_claim(claim, task, summary["final"], identity, summary.get("audit", ()))
    if summary.get("claim") != before:
        directory.finish(summary)
        if (directory.path / "report.html").exists():
            from dlrunner.reporting.html import run as report

            report.write(directory.path)
    return summary


def _send_lacking(checked: Plan, overrides: Sequence[str], folder: Path, say: Any) -> None:
    """Send a finished run to the trackers that have not got all of it, for they failed, or were not asked for then."""
    names = [name for name in checked.trackers if lacks(folder, name)]
    if not names:
        return
    say(f"sent now, for it was not all there: {', '.join(names)}")
    with logged(folder, overrides):
        tracking = Tracking(folder, say)
        tracking.start(checked, overrides, names)
        tracking.close(checked.settings.log.tracker_timeout)


def _execute(
    context: RunContext,
    data: Any,
    overrides: Sequence[str],
    display: Display | None,
    changed: Mapping[str, str] | None,
) -> Outcome:
    """Prepare, train, evaluate, publish, and write the summary last; whatever happens, the folder says how it ended."""
    started, directory, error = time.perf_counter(), context.directory, None
    summary: dict[str, Any] = {"status": "failed"}
    published, tracking = Published(), Tracking(directory.path, context.say)
    with logged(directory.path, overrides):
        try:
            directory.write_text("config.yaml", yaml.safe_dump(context.plan.config, sort_keys=False))
            directory.write_text("overrides.yaml", yaml.safe_dump(list(overrides)))
            tracking.start(context.plan, overrides)
            display = tracking.beside(display or make_display(context.plan.settings.log.progress))
            prepared = prepare(context, data)
            summary |= prepared.summary  # a run that fails says at least this
            try:
                members = train(context, prepared, display)
            finally:
                display.close()
            results = evaluate(context, prepared, members)
            summary |= results.summary
            published = publish(context, prepared, members, results)
            summary["status"] = "done"
        except (Interrupted, Exception) as failed:  # anybody's task or model may fail in any way
            summary["status"], summary["error"], error = _ending(failed, directory.path)
            if error is not failed:
                log.exception("the run failed")
            log.error("%s: %s", summary["status"], summary["error"])
            if not isinstance(error, PeerLostError):
                is_reporting_rank()  # the other processes need not
        try:
            # torchrun stops what is left when one process is lost: how that ended is written all the same.
            with contextlib.nullcontext() if error is None else context.signals.deferred():
                _finish(context, summary, started, published, changed, error)
        finally:
            tracking.close(context.plan.settings.log.tracker_timeout)
    if isinstance(error, DlrunnerError):
        error.folder = directory.path
    if error is not None:
        raise error
    return Outcome(directory.path, summary)


def _ending(failed: BaseException, folder: Path) -> tuple[str, str, BaseException]:
    """Return the status of a run that ended early, what its summary says, and the error to raise: a plain sentence."""
    if isinstance(failed, Interrupted):
        return "interrupted", f"stopped by signal {failed.signum}", failed
    if isinstance(failed, DlrunnerError):
        return "failed", str(failed), failed
    first = (str(failed).splitlines() or [""])[0]
    # torch raises a plain RuntimeError where the memory of the CPU is at an end.
    if isinstance(failed, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in first:
        cause = f"out of memory: {first or type(failed).__name__}"
        return "failed", cause, OutOfMemoryError(f"{cause}; try a smaller batch_size, or precision=bf16")
    if isinstance(failed, Exception) and is_peer_failure(failed):
        cause = "another process of this run is gone"
        advice = "the last checkpoint is kept, and the same command goes on from it"
        return "failed", cause, PeerLostError(f"{cause}; {advice}")
    cause, place = f"{type(failed).__name__}: {failed}", traceback.extract_tb(failed.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return "failed", cause, RunError(f"{cause} ({where}); the traceback is in {folder / 'run.log'}")


def _finish(
    context: RunContext,
    summary: dict[str, Any],
    started: float,
    published: Published,
    changed: Mapping[str, str] | None,
    error: BaseException | None,
) -> None:
    """Write the report and, last, the summary; a disk that is full takes nothing from an error that came before."""
    device, directory = context.plan.device, context.directory
    summary |= {
        "finished": now(),
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_mb": peak_memory_mb(device),
        "num_threads": torch.get_num_threads(),
        "num_processes": context.group.size,
        "matmul": matmul_precision(device),
        "deterministic": torch.are_deterministic_algorithms_enabled() or device.type == "cpu",
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
        "code": directory.identity["code"],
        "signature": directory.identity["signature"],
    }
    try:
        write_report_data(directory, published, context.notes.texts, changed)
        if context.plan.settings.log.report and not isinstance(error, Interrupted):
            _write_report(directory.path, summary, context.say)
        directory.finish(summary)
    except RunError:
        if error is None:
            raise


def _write_report(folder: Path, summary: Mapping[str, Any], say: Any) -> None:
    from dlrunner.reporting.html import run as report

    try:
        report.write(folder, summary=summary)
    except Exception as failed:  # no page is worth a run
        log.exception("the report could not be written")
        say(f"note: the report could not be written: {failed}")
