"""One run, from its configuration to its summary: prepare, train, evaluate, publish."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from dlrunner.config.plan import Plan, plan
from dlrunner.data_audit import AuditFinding
from dlrunner.errors import ConfigError, DlrunnerError, Interrupted, OutOfMemoryError, PeerLostError, RunError
from dlrunner.execution import auto_settings
from dlrunner.execution.identity import digests, identity_of, synthetic_data_warning
from dlrunner.execution.stages import (
    Notes,
    Notify,
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
from dlrunner.runs.predecessor import copy_checkpoints, find_predecessor
from dlrunner.runs.reader import FinishedRun, member_folders
from dlrunner.runs.tags import keep_tags
from dlrunner.system.backends import matmul_precision, restored_threads
from dlrunner.system.machine import git_state, now, peak_memory_mb, reset_peak_memory, versions
from dlrunner.system.precision import float32_by_default
from dlrunner.system.process_group import is_peer_failure, is_reporting_rank, joined
from dlrunner.system.seeding import generators_lock
from dlrunner.system.signals import StopSignals
from dlrunner.system.terminal import print_warning, print_wrapped
from dlrunner.task import Data, DataIdentity
from dlrunner.tracking.relay import is_incomplete
from dlrunner.tracking.supervisor import Tracking, require_packages
from dlrunner.training.hooks import Display

log = logging.getLogger("dlrunner")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    path: Path
    summary: Mapping[str, Any]
    is_new: bool = True
    """False if the run was already finished and is only shown again."""

    @property
    def exit_status(self) -> int:
        """0, or 1 if the claim is missed."""
        claim = self.summary.get("claim")
        return 1 if claim and claim["verdict"].startswith("missed") else 0


def run(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    notify: Notify | None = None,
    display: Display | None = None,
    changed: Mapping[str, str] | None = None,
    swept: Collection[str] = (),
    on_claim: Callable[[Path], None] = lambda path: None,
) -> Outcome:
    """Execute the run of a configuration; a finished run is not repeated.

    Args:
        config: the composed configuration, plain dicts and lists.
        overrides: the command line's overrides.
        notify: shows a line to the user; None: prints what `log.level` lets through.
        display: shows training progress; None: as `log.progress` says.
        changed: the task's default for each setting that differs from it; marked in the report.
        swept: of a job of a sweep, the settings that differ between the jobs; its folder is named after them.
        on_claim: called with the run's folder before anything is written there.

    Raises:
        ConfigError: the configuration is invalid; nothing was read or written.
        DataError, RunError: the run failed, which its folder records.
        Interrupted: a stop signal arrived; the same command resumes the run.
    """
    checked = plan(config)
    notify = notify or (print_warning if checked.settings.log.level == "warning" else print_wrapped)
    require_packages(checked)
    checked.check_model_files()
    with (
        generators_lock,
        StopSignals() as signals,
        joined(checked.device) as group,
        restored_threads(),
        float32_by_default(),
        _no_exit(),
    ):
        reset_peak_memory(checked.device)
        data = checked.build_data()
        identity = identity_of(data)
        why = f" ({checked.settings.precision}: {checked.precision_reason})" if checked.precision_reason else ""
        checked, decided = auto_settings.decide(checked, data, identity, notify)
        group.broadcast(checked.config)
        own_digests = digests(checked, identity)
        with signals.deferred():  # until the lock is sure to be released
            directory, reason = RunDirectory.claim(
                user_path(checked.settings.runs_dir),
                checked.settings.choices.get("task") or "task",
                run_label(overrides, checked.settings.choices, swept),
                own_digests,
                checked.settings.rerun,
            )
        try:
            signals.raise_pending()
            on_claim(directory.path)
            keep_tags(directory.path, config)
            if reason == "finished":
                directory.point_latest()
                notify(f"already finished; rerun=true trains again in a new folder\n{directory.path}")
                group.broadcast("finished")
                summary = _recheck_claim(checked, data, directory, identity)
                _send_missing(checked, overrides, directory.path, notify)
                return Outcome(directory.path, summary, is_new=False)
            if reason.startswith("stale"):
                notify(f"{reason.removeprefix('stale: ')}; training again in a new folder\n{directory.path}")
            if identity.source == "synthetic":
                notify(synthetic_data_warning(checked))
            elif identity.name != "none":
                notify(f"data: {identity.name} {identity.release} ({identity.path})")
            is_new = not (directory.path / "config.yaml").exists()
            if reason == "new":
                _continue_shorter(checked, directory, notify)
            if decided:
                notify(f"auto: {auto_settings.describe(decided)}{why}")
            context = RunContext(checked, directory, identity, group, signals, notify, Notes(notify), decided, is_new)
            return _execute(context, data, overrides, display, changed)
        finally:
            directory.release()


@contextlib.contextmanager
def _no_exit() -> Iterator[None]:
    """Turn `sys.exit()` in a user's data, task or model into an error: its status 0 would mean that the run is done."""
    try:
        yield
    except SystemExit as left:
        raise _ended_by(left) from left


def _ended_by(failed: BaseException, advice: str = "") -> RunError:
    """Return the error for an unexpected exception, with its place."""
    frame = traceback.extract_tb(failed.__traceback__)[-1]
    return RunError(f"{_cause(failed)} ({Path(frame.filename).name}, line {frame.lineno}){advice}")


def _cause(failed: BaseException) -> str:
    return f"{type(failed).__name__}: {failed}".removesuffix(": ")


def _continue_shorter(checked: Plan, directory: RunDirectory, notify: Notify) -> None:
    """Take over the checkpoints of a finished run of fewer epochs, if this run starts as that one did."""
    shorter = find_predecessor(directory, sum(phase.epochs for phase in checked.phases))
    if shorter is None:
        return
    try:
        copy_checkpoints(shorter, directory, checked.settings.ensemble)
    except RunError as error:
        notify(f"warning: a run of fewer epochs is not continued: {error}")
    else:
        notify(f"continuing a run of fewer epochs\n{shorter}")


def _recheck_claim(
    checked: Plan, data: Data | None, directory: RunDirectory, identity: DataIdentity
) -> Mapping[str, Any]:
    """Return the summary of a finished run with the current claim checked; claims are not part of the signature."""
    summary = dict(FinishedRun.read(directory.path).summary or {})
    claim, before = checked.settings.claim, summary.pop("claim", None)
    if claim:
        task = checked.build_task(data, checked.settings.seed)
        summary["claim"] = check_claim(claim, task, summary["final"], identity, summary.get("audit", ()))
    if summary.get("claim") != before and os.access(directory.path, os.W_OK):
        directory.finish(summary)
        if (directory.path / "report.html").exists():
            from dlrunner.reporting.html import run as report

            report.write(directory.path)
    return summary


def _send_missing(checked: Plan, overrides: Sequence[str], folder: Path, notify: Notify) -> None:
    """Send a finished run to the trackers that are incomplete: they failed before, or were not configured then."""
    names = [name for name in checked.trackers if is_incomplete(folder, name)]
    if not names:
        return
    notify(f"sending missing results to {', '.join(names)}")
    with logged(folder, overrides):
        tracking = Tracking(folder, notify)
        tracking.start(checked, overrides, names)
        tracking.close(checked.settings.log.tracker_timeout)


def _execute(
    context: RunContext,
    data: Any,
    overrides: Sequence[str],
    display: Display | None,
    changed: Mapping[str, str] | None,
) -> Outcome:
    """Prepare, train, evaluate, publish, and write the summary last, whether the run succeeds or fails."""
    started, directory, error = time.perf_counter(), context.directory, None
    summary: dict[str, Any] = {"status": "failed"}
    published, tracking = Published(), Tracking(directory.path, context.notify)
    findings: Sequence[AuditFinding] = ()
    with logged(directory.path, overrides, debug=context.plan.settings.log.level == "debug"):
        try:
            directory.write_text("config.yaml", yaml.safe_dump(context.plan.config, sort_keys=False))
            directory.write_text("overrides.yaml", yaml.safe_dump(list(overrides)))
            tracking.start(context.plan, overrides)
            display = tracking.watch(display or make_display(context.plan.settings.log.shown_progress))
            prepared = prepare(context, data)
            log.debug("prepared until %.2f s", time.perf_counter() - started)
            findings = prepared.findings
            summary |= prepared.summary  # recorded even if the run fails later
            try:
                members, first = train(context, prepared, display)
            finally:
                display.close()
            log.debug("trained until %.2f s", time.perf_counter() - started)
            results = evaluate(context, prepared, members, first)
            log.debug("evaluated until %.2f s", time.perf_counter() - started)
            summary |= results.summary
            published = publish(context, prepared, members, results)
            log.debug("published until %.2f s", time.perf_counter() - started)
            summary["status"] = "done"
        except (Interrupted, SystemExit, Exception) as failed:  # a user's task or model may raise anything
            summary["status"], summary["error"], error = _ending(failed, directory.path)
            if error is not failed:
                log.exception("the run failed")
            log.error("%s: %s", summary["status"], summary["error"])
            if not isinstance(error, PeerLostError):
                is_reporting_rank()  # so that the other ranks do not report it again
        timeout = context.plan.settings.log.tracker_timeout
        try:
            # torchrun stops the remaining processes when one is lost: the outcome must still be written.
            with contextlib.nullcontext() if error is None else context.signals.deferred():
                _finish(context, summary, started, published, changed, error)
        except Interrupted:
            timeout = 0.0  # the signal ends the wait too
            raise
        finally:
            tracking.close(timeout)
    if isinstance(error, ConfigError) and context.is_new and not _has_trained(directory.path):
        directory.remove()
    if error is not None:
        raise error
    for finding in findings:
        context.notify(f"warning: {finding}")
    return Outcome(directory.path, summary)


def _has_trained(path: Path) -> bool:
    return any((folder / "metrics.jsonl").exists() for folder in (path, *member_folders(path)))


def _ending(failed: BaseException, folder: Path) -> tuple[str, str, BaseException]:
    """Return the status of a run that ended early, the error for its summary, and the exception to raise."""
    if isinstance(failed, Interrupted):
        return "interrupted", f"stopped by signal {failed.signum}", failed
    if isinstance(failed, DlrunnerError):
        return "failed", str(failed), failed
    first = (str(failed).splitlines() or [""])[0]
    # torch raises a plain RuntimeError if the CPU runs out of memory.
    if isinstance(failed, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in first:
        cause = f"out of memory: {first or type(failed).__name__}"
        return "failed", cause, OutOfMemoryError(f"{cause}; try a smaller batch_size, or precision=bf16")
    if isinstance(failed, Exception) and is_peer_failure(failed):
        cause = "lost another process of this run"
        advice = "the same command resumes from the last checkpoint"
        return "failed", cause, PeerLostError(f"{cause}; {advice}")
    return "failed", _cause(failed), _ended_by(failed, f"; the traceback is in {folder / 'run.log'}")


def _finish(
    context: RunContext,
    summary: dict[str, Any],
    started: float,
    published: Published,
    changed: Mapping[str, str] | None,
    error: BaseException | None,
) -> None:
    """Write the report and, last, the summary; a full disk must not hide an earlier error."""
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
            _write_report(directory.path, summary, context.notify if error is None else log.debug)
        directory.finish(summary)
    except RunError:
        if error is None:
            raise


def _write_report(folder: Path, summary: Mapping[str, Any], notify: Notify) -> None:
    from dlrunner.reporting.html import run as report

    try:
        report.write(folder, summary=summary)
    except Exception as failed:  # a report must not fail the run
        log.exception("the report could not be written")
        notify(f"warning: the report could not be written: {failed}")
