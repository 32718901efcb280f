"""One run, from its configuration to its summary: the order of events, and nothing of how each works."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from dlrunner.claims.claims import Claim, judge_run
from dlrunner.config.plan import Plan, plan
from dlrunner.data_audit import findings
from dlrunner.errors import Interrupted, LostError, OutOfMemoryError, RequestError, RunError, Told
from dlrunner.execution.identity import digests, identity_of
from dlrunner.execution.member import Member, member_seed, set_up_process, train_member
from dlrunner.files.atomic import readable_os_errors
from dlrunner.files.paths import user_path
from dlrunner.files.spreadsheet import as_csv
from dlrunner.model import Model
from dlrunner.reporting.terminal.progress import make_display
from dlrunner.runs.directory import RunDirectory
from dlrunner.runs.labels import run_label
from dlrunner.runs.log import logged
from dlrunner.runs.reader import FinishedRun
from dlrunner.system.backends import matmul_precision, own_threads
from dlrunner.system.machine import git_state, now, peak_memory_mb, versions
from dlrunner.system.process_group import SingleProcess, joined, tells_why, was_left
from dlrunner.system.signals import StopSignals
from dlrunner.task import Data, DataIdentity, Passage, Split, Task
from dlrunner.tracking.relay import lacks
from dlrunner.tracking.supervisor import Tracking, refuse_missing
from dlrunner.training.hooks import Display
from dlrunner.training.state import Evaluation, Row, Tally

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
        RequestError: the configuration does not fit; nothing was read or written.
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
            if identity.source == "stand-in":
                say("DATA: a generated STAND-IN, not the published data; `dlrun data` tells where that is to be had")
            elif identity.name != "none":
                say(f"data: {identity.name} {identity.release} ({identity.path})")
            return _Work(checked, overrides, directory, identity, signals, group, say, display, changed).do(data)
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
        release, protocol = identity.release, summary.get("protocol", ())
        summary["claim"] = judge_run(claim, summary["final"], _higher_is_better(task, claim), release, protocol)
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
        tracking.close(checked.settings.log.patience)


class _Work:
    """The run that is being done: what all its stages need."""

    def __init__(
        self,
        checked: Plan,
        overrides: Sequence[str],
        directory: RunDirectory,
        identity: DataIdentity,
        signals: StopSignals,
        group: SingleProcess,
        say: Any,
        display: Display | None,
        changed: Mapping[str, str] | None,
    ) -> None:
        self.plan, self.overrides, self.directory = checked, overrides, directory
        self.identity, self.signals, self.group, self.say = identity, signals, group, say
        self.display = display or make_display(checked.settings.log.progress)
        self.tracking = Tracking(directory.path, say)
        self.started = time.perf_counter()
        self.changed, self.notes = changed, list[str]()
        self.pictures, self.passages = list[Path](), dict[str, Sequence[Passage]]()
        self.history: Sequence[Row] = []
        self.summary: dict[str, Any] = {"status": "failed"}

    def do(self, data: Any) -> Outcome:
        """Train, evaluate, draw, and write the summary last; whatever happens, the folder says how it ended."""
        error: BaseException | None = None
        with logged(self.directory.path, self.overrides):
            try:
                self._write_request()
                self.tracking.start(self.plan, self.overrides)
                self.display = self.tracking.beside(self.display)
                self._train_and_look(data)
                self.summary["status"] = "done"
            except Interrupted as stopped:
                self.summary["status"] = "interrupted"
                self.summary["error"] = f"stopped by signal {stopped.signum}"
                error = stopped
            except Told as failed:
                self.summary["error"] = str(failed)
                error = failed
            except Exception as failed:  # anybody's task or model may fail in any way: the log has the traceback
                self.summary["error"], error = self._told(failed)
                log.exception("the run failed")
            if error is not None:
                log.error("%s: %s", self.summary["status"], self.summary["error"])
                if not isinstance(error, LostError):
                    tells_why()  # the other processes need not
            try:
                # torchrun stops what is left when one process is lost: how that ended is written all the same.
                with contextlib.nullcontext() if error is None else self.signals.deferred():
                    self._write_summary(error)
            finally:
                self.tracking.close(self.plan.settings.log.patience)
        if isinstance(error, Told):
            error.folder = self.directory.path
        if error is not None:
            raise error
        return Outcome(self.directory.path, self.summary)

    def _told(self, failed: Exception) -> tuple[str, RunError]:
        """Return what the summary says of an unforeseen failure, and what the person who waits is told."""
        first = (str(failed).splitlines() or [""])[0]
        # torch raises a plain RuntimeError where the memory of the CPU is at an end.
        if isinstance(failed, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in first:
            said = f"out of memory: {first or type(failed).__name__}"
            return said, OutOfMemoryError(f"{said}; try a smaller batch_size, or precision=bf16")
        if was_left(failed):
            said = "another process of this run is gone"
            return said, LostError(f"{said}; the last checkpoint is kept, and the same command goes on from it")
        place = traceback.extract_tb(failed.__traceback__)[-1]
        said = f"{type(failed).__name__}: {failed}"
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return said, RunError(f"{said} ({where}); the traceback is in {self.directory.path / 'run.log'}")

    def _write_request(self) -> None:
        self.directory.write_text("config.yaml", yaml.safe_dump(self.plan.config, sort_keys=False))
        self.directory.write_text("overrides.yaml", yaml.safe_dump(list(self.overrides)))

    def _train_and_look(self, data: Any) -> None:
        settings = self.plan.settings
        task = self.plan.build_task(data, settings.seed)
        sizes = dict(task.sizes())
        if sizes:
            self.say("      " + ", ".join(f"{count:,} {name}" for name, count in sizes.items()))
        for note in task.notes():
            self._note(note)
        self._describe(sizes)
        self._mind(task)
        claim = settings.claim
        splits = ["valid", "test"] if task.has_test() else ["valid"]
        known = [f"{split}/{name}" for split in splits for name in ("loss", *task.metrics())]
        if claim and claim.metric not in known:
            raise RequestError(f"claim.metric: this task has no {claim.metric}; it has {', '.join(known)}")

        if not task.keeps_outputs and task.looks() > 1:
            raise RequestError("task: it keeps no outputs, so that those of several looks cannot be averaged")
        set_up_process(self.plan)
        self.group.broadcast("train")  # the data has been read: what others need of it is in the cache
        self.group.compare(self.directory.identity)
        self.directory.point_latest()  # a run that its data refuses does not take the last one's place
        members = []
        try:
            for index in range(settings.ensemble):
                members.append(self._train_member(index, data, task))
        finally:
            self.display.close()

        models = [member.model for member in members]
        combined = {split: self._combined(task, members, split) for split in members[0].evaluations}
        outputs = combined["valid"].outputs
        outputs = torch.empty(0) if outputs is None else outputs
        self._judge(task, members, combined)
        self._compare_with_baselines(task)
        self._save_for_prediction(task)
        with readable_os_errors(self.directory.path):
            table = task.predictions(outputs)
            if table is not None:
                self.directory.write_bytes("predictions.csv", as_csv(table)[0])
            for name, content in task.keep(models).items():
                self.directory.write_bytes(name, content)
            self.pictures = self._draw(task, models, outputs) if settings.log.pictures else []
            self.passages = dict(task.passages(models, outputs)) if settings.log.report else {}

    def _train_member(self, index: int, data: Any, whole: Task) -> Member:
        """Train the run itself, or one member of an ensemble."""
        settings = self.plan.settings
        seed = member_seed(settings.seed, settings.ensemble, index)
        directory = self.directory if settings.ensemble == 1 else self.directory.member(index)
        task = whole if settings.ensemble == 1 else self.plan.build_task(data, seed)
        if settings.ensemble > 1:
            self.say(f"member {index + 1} of {settings.ensemble}, seed {seed}")
        member = train_member(
            self.plan, task, seed, self.group, directory, self.display, self.signals, self.say, self._note
        )
        self.history = member.history
        whole.enter(member.phase)
        return member

    def _combined(self, task: Task, members: Sequence[Member], split: Split) -> Evaluation:
        """Return what all members together say of a split."""
        found = [member.evaluations[split] for member in members]
        outputs = [each.outputs for each in found if each.outputs is not None]
        if len(found) == 1 and task.looks() == 1:
            return found[0]
        average = outputs[0] if len(outputs) == 1 else task.average(outputs)
        targets = found[0].targets
        assert targets is not None
        return Evaluation(self._evaluate_outputs(task, split, average, targets), average, targets)

    def _note(self, note: str) -> None:
        if note in self.notes:  # another member's too
            return
        self.notes.append(note)
        self.say(f"note: {note}")
        log.info(note)

    def _mind(self, task: Task) -> None:
        """Tell what makes the number flattering, and write it down."""
        claim, early = self.plan.settings.claim, self.plan.trainer.settings.get("early_stopping")
        reported = claim.metric if claim else f"valid/{next(iter(task.metrics()))}"
        chosen_from = sum(phase.epochs for phase in self.plan.phases) if early else 1
        found = findings(task.evidence(), reported, chosen_from)
        self.summary["protocol"] = [asdict(each) for each in found]
        for each in found:
            self.say(f"mind: {each}")
            log.info("mind: %s", each)

    def _describe(self, sizes: Mapping[str, int]) -> None:
        """Fill in what is known before training; a run that fails says at least this."""
        settings = self.plan.settings
        data = {k: v for k, v in asdict(self.identity).items() if v not in (None, "")}
        self.summary.update(
            {
                "data": {**data, "rows": dict(sizes)},
                "device": str(self.plan.device),
                "precision": settings.precision,
                "seed": settings.seed,
            }
        )

    def _judge(self, task: Task, members: Sequence[Member], splits: Mapping[Split, Evaluation]) -> None:
        """Write the metrics of the run; of an ensemble, the metrics of its average beside its members'."""
        name, metric = next(iter(task.metrics().items()))
        key = f"valid/{name}"
        last, best = members[-1].last, members[-1].best or members[-1].last
        final = {k: v for k, v in last.items() if k.startswith(("train/", "valid/"))}
        if len(members) > 1 or task.looks() > 1:
            final = dict(splits["valid"].metrics)
            best = {**final, "epoch": last["epoch"]}
        if task.looks() > 1:
            self.summary["looks"] = {"number": task.looks(), "one_look": last[key]}
            self.say(f"{task.looks()} looks at each example: {key} {final[key]:.4f}  (one look: {last[key]:.4f})")
        if len(members) > 1:
            values = torch.tensor([member.last[key] for member in members], dtype=torch.float64)
            self.summary["members"] = {
                "seeds": [member.seed for member in members],
                key: values.tolist(),
                "mean": float(values.mean()),
                "spread": float(values.std()),
            }
            self.say(
                f"average of {len(members)} members: {key} {final[key]:.4f}  "
                f"(members: {values.mean():.4f} ± {values.std():.4f})"
            )
        if "test" in splits:
            final |= splits["test"].metrics
            told = ", ".join(f"{k} {v:.4f}" for k, v in final.items() if k.startswith("test/"))
            self.say(f"the test split, looked at once: {told}")
        self.summary["metric"] = {
            "name": key,
            "value": final[key],
            "epoch": last["epoch"],
            "higher_is_better": metric.higher_is_better,
        }
        self.summary["final"] = final
        self.summary["best"] = {k: v for k, v in best.items() if k == "epoch" or k.startswith("valid/")}
        if self.plan.settings.claim:
            claim = self.plan.settings.claim
            release, protocol = self.identity.release, self.summary["protocol"]
            self.summary["claim"] = judge_run(claim, final, _higher_is_better(task, claim), release, protocol)

    def _compare_with_baselines(self, task: Task) -> None:
        """Put plain methods on the same splits beside the run."""
        found = task.baselines()
        for name, metrics in found.items():
            self.say(f"beside it, {name}: {', '.join(f'{k} {v:.4f}' for k, v in metrics.items())}")
        if found:
            self.summary["baselines"] = {name: dict(metrics) for name, metrics in found.items()}

    def _evaluate_outputs(
        self, task: Task, split: Split, outputs: torch.Tensor, targets: torch.Tensor
    ) -> dict[str, float]:
        """Compute loss and metrics of averaged outputs, exactly as for one model."""
        tally = Tally(task)
        tally.add(outputs, targets)
        return tally.result(split).metrics

    def _save_for_prediction(self, task: Task) -> None:
        state = task.state()
        if state:
            self.directory.save("task.pt", {"task": state})

    def _draw(self, task: Task, models: Sequence[Model], outputs: torch.Tensor) -> list[Path]:
        from dlrunner.reporting.plots import training as plots  # matplotlib takes a second: only now

        folder = self.directory.path / "plots"
        folder.mkdir(exist_ok=True)
        pictures = [plots.training_curves(self.history, folder)]
        return [*pictures, *task.pictures(models, outputs, folder)]

    def _write_summary(self, error: BaseException | None) -> None:
        self.summary.update(
            {
                "finished": now(),
                "seconds": round(time.perf_counter() - self.started, 2),
                "peak_memory_mb": peak_memory_mb(self.plan.device),
                "num_threads": torch.get_num_threads(),
                "num_processes": self.group.size,
                "matmul": matmul_precision(self.plan.device),
                "deterministic": torch.are_deterministic_algorithms_enabled() or self.plan.device.type == "cpu",
                "versions": versions(),
                "git": git_state(Path(__file__).parent),
                "code": self.directory.identity["code"],
                "signature": self.directory.identity["signature"],
            }
        )
        try:
            self._write_report(error)
            self.directory.finish(self.summary)
        except RunError:
            if error is None:
                raise

    def _write_report(self, error: BaseException | None) -> None:
        """Keep what only this process knows, so that `dlrun report` can write the same page, and write the page."""
        from dlrunner.reporting.html import run as report

        kept = {
            "pictures": [picture.name for picture in self.pictures],
            "notes": self.notes,
            "passages": {heading: [asdict(text) for text in texts] for heading, texts in self.passages.items()},
            "changed": self.changed,
        }
        self.directory.write_text("report.json", json.dumps(kept))
        if isinstance(error, Interrupted) or not self.plan.settings.log.report:
            return
        try:
            report.write(self.directory.path, summary=self.summary)
        except Exception as failed:  # no page is worth a run
            log.exception("the report could not be written")
            self.say(f"note: the report could not be written: {failed}")


def _higher_is_better(task: Task, claim: Claim) -> bool:
    metric = task.metrics().get(claim.metric.partition("/")[2])
    return metric.higher_is_better if metric else False
