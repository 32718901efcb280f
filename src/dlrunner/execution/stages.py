"""The stages of a run: prepare, train, evaluate, publish. Each takes the result of the one before."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlrunner.claims.claims import Claim, judge_run
from dlrunner.config.plan import Plan
from dlrunner.data.tables.description import MOST_COLUMNS
from dlrunner.data_audit import AuditFinding, SplitStatistics, audit
from dlrunner.errors import ConfigError
from dlrunner.execution.advice import training_advice
from dlrunner.execution.baselines import baselines_of, verdict
from dlrunner.execution.identity import refuse_changed_data
from dlrunner.execution.member import Member, evaluate_together, member_seed, set_up_process, train_member
from dlrunner.files.atomic import readable_os_errors
from dlrunner.metrics import describe
from dlrunner.plot import Plot
from dlrunner.reporting.terminal.baselines import baseline_lines
from dlrunner.reporting.terminal.columns import column_lines
from dlrunner.reporting.terminal.progress import metric_value
from dlrunner.runs.directory import RunDirectory
from dlrunner.system.precision import has_bfloat16
from dlrunner.system.process_group import SingleProcess
from dlrunner.system.signals import StopSignals
from dlrunner.task import AnnotatedText, DataIdentity, ResultTable, Split, Task
from dlrunner.training.hooks import Display
from dlrunner.training.state import Evaluation, Tally

log = logging.getLogger("dlrunner")

MOST_TABLE_ROWS = 100
"""Of a table in the report; its file has all rows."""

Notify = Callable[[str], None]
"""Shows a line to the user."""


@dataclass
class Notes:
    """Collects notes for the user; each is shown and logged once."""

    notify: Notify
    texts: list[str] = field(default_factory=list)

    def add(self, note: str) -> None:
        """Add a note; the members of an ensemble repeat the same ones."""
        if note in self.texts:
            return
        self.texts.append(note)
        self.notify(f"note: {note}")
        log.info(note)


@dataclass(frozen=True)
class RunContext:
    """What all stages of a run share."""

    plan: Plan
    directory: RunDirectory
    identity: DataIdentity
    group: SingleProcess
    signals: StopSignals
    notify: Notify
    notes: Notes
    decided: Mapping[str, Any] = field(default_factory=dict)
    """Settings that were `auto`, with their values."""
    is_new: bool = False
    """Nothing but this run has been written to the folder."""


@dataclass(frozen=True)
class Prepared:
    """A run whose data has been read and audited; nothing is trained yet."""

    task: Task
    data: Any
    findings: Sequence[AuditFinding]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """Validation outputs and the metrics for the summary."""

    outputs: torch.Tensor
    """Of the validation split, in its order; empty if outputs are not kept."""
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """Plots, tables and annotated texts for the report."""

    plots: Sequence[Plot] = ()
    tables: Sequence[ResultTable] = ()
    annotated_texts: Mapping[str, Sequence[AnnotatedText]] = field(default_factory=dict)


def prepare(context: RunContext, data: Any) -> Prepared:
    """Read and audit the data, and check the configuration against it.

    Raises:
        ConfigError: the task has no such metric as the claim's, or its outputs cannot be averaged.
        DataError: the data does not match the configuration.
    """
    plan = context.plan
    # A second thread that has to wait for a core took 0.2 s of CPU time to split 100,000 ratings; one takes 0.005.
    plan.build_trainer(plan.settings.seed).use_threads(plan.batch_size)
    task = plan.build_task(data, plan.settings.seed)
    sizes = dict(task.sizes())
    if sizes:
        context.notify("      " + ", ".join(f"{count:,} {name}" for name, count in sizes.items()))
    columns = [dict(each) for each in task.data_columns()]
    for line in column_lines(columns):
        context.notify(line)
        log.info(line)
    if plan.settings.precision == "bf16" and not has_bfloat16(plan.device):
        context.notes.add(f"this {plan.device.type} has no bfloat16 in hardware: precision=fp32 would be faster")
    for note in task.notes():
        context.notes.add(note)
    statistics = task.split_statistics()
    refuse_changed_data(plan, data, context.identity)
    findings = audit_split(plan, task, statistics)
    for finding in findings:  # shown to the user at the end of the run
        log.warning(finding)
    claim = plan.settings.claim
    known = describe(task.metrics(), ["valid", "test"] if task.has_test() else ["valid"])
    if claim and claim.metric not in known:
        raise ConfigError(f"claim.metric: this task has no {claim.metric}; it has {', '.join(known)}")
    if not task.keeps_outputs and task.num_tta_views() > 1:
        raise ConfigError("task: test-time augmentation averages outputs, which this task does not keep")
    identity = {name: value for name, value in asdict(context.identity).items() if value not in (None, "")}
    if statistics and statistics.validation:
        identity["validation"] = statistics.validation
    return Prepared(
        task,
        data,
        findings,
        {
            "purpose": task.purpose(),
            "data": {**identity, "rows": sizes} | ({"columns": columns[:MOST_COLUMNS]} if columns else {}),
            "device": str(plan.device),
            "precision": plan.settings.precision,
            "seed": plan.settings.seed,
            "metrics": known,
            "audit": [asdict(finding) for finding in findings],
            **({"auto": dict(context.decided)} if context.decided else {}),
        },
    )


def audit_split(plan: Plan, task: Task, statistics: SplitStatistics | None) -> list[AuditFinding]:
    """Return the reasons why the metric of this run is too optimistic."""
    claim = plan.settings.claim
    reported = claim.metric if claim else f"valid/{next(iter(task.metrics()))}"
    num_candidate_epochs = sum(phase.epochs for phase in plan.phases) if plan.keeps_best else 1
    return audit(statistics, reported, num_candidate_epochs, has_test=task.has_test() and not claim)


def train(context: RunContext, prepared: Prepared, display: Display) -> tuple[list[Member], Task]:
    """Train the model, or each member of an ensemble, together with the other ranks.

    Returns:
        The members, and the task of the first one, whose `setup` computed what baselines need.
    """
    plan, task = context.plan, prepared.task
    set_up_process(plan)
    context.group.broadcast("train")  # rank 0 has read the data: the others find it in the cache
    context.group.compare(context.directory.identity)
    members, count = [], plan.settings.ensemble
    first = task
    for index in range(count):
        seed = member_seed(plan.settings.seed, count, index)
        own, directory = task, context.directory
        if count > 1:
            own, directory = plan.build_task(prepared.data, seed), context.directory.member(index)
            context.notify(f"member {index + 1} of {count}, seed {seed}")
        first = own if index == 0 else first
        members.append(
            train_member(
                plan, own, seed, context.group, directory, display, context.signals, context.notify, context.notes.add
            )
        )
    return members, first


def evaluate(context: RunContext, prepared: Prepared, members: Sequence[Member], first: Task) -> Results:
    """Return the metrics of the run; for an ensemble, of the averaged outputs and of each member.

    Args:
        context: of the run.
        prepared: its task and data.
        members: trained.
        first: the task of the first member, for the baselines.
    """
    task, notify = prepared.task, context.notify
    splits = {split: _combined(context.plan, task, members, split) for split in members[0].evaluations}
    name, metric = next(iter(task.metrics().items()))
    key, summary = f"valid/{name}", dict[str, Any]()
    shown = partial(metric_value, prepared.summary)
    last, best = members[-1].last, members[-1].best or members[-1].last
    final = {k: v for k, v in last.items() if k.startswith(("train/", "valid/"))}
    if len(members) > 1 or task.num_tta_views() > 1:
        final = dict(splits["valid"].metrics)
        best = {**final, "epoch": last["epoch"]}
    if task.num_tta_views() > 1:
        num_views, names = task.num_tta_views(), [f"valid/{each}" for each in task.metrics()]
        single = {each: last[each] for each in names}
        summary["tta"] = {"num_views": num_views, "single_view": last[key], "single_view_metrics": single}
        texts = [f"{each} {shown(each, final[each])} (single view: {shown(each, single[each])})" for each in names]
        notify(f"with TTA ({num_views} views): {', '.join(texts)}")
    if len(members) > 1:
        values = torch.tensor([member.last[key] for member in members], dtype=torch.float64)
        mean, std = float(values.mean()), float(values.std())
        seeds = [member.seed for member in members]
        summary["members"] = {"seeds": seeds, key: values.tolist(), "mean": mean, "std": std}
        of_members = f"{shown(key, mean)} ± {shown(key, std)}"
        notify(f"ensemble of {len(members)}: {key} {shown(key, final[key])} (members: {of_members})")
    if "test" in splits:
        final |= splits["test"].metrics
        test_metrics = ", ".join(f"{k} {shown(k, v)}" for k, v in final.items() if k.startswith("test/"))
        notify(f"test set (evaluated once): {test_metrics}")
    summary["metric"] = {
        "name": key,
        "value": final[key],
        "epoch": last["epoch"],
        "higher_is_better": metric.higher_is_better,
    }
    summary["weights"] = {"checkpoint": "best.pt" if context.plan.keeps_best else "last.pt", "epoch": last["epoch"]}
    advice = training_advice(
        members[-1].history,
        key,
        higher_is_better=metric.higher_is_better,
        keeps_best=context.plan.keeps_best,
        phases=len(context.plan.phases),
    )
    if advice and context.plan.settings.claim is None:  # a published recipe is as it is
        context.notes.add(advice)
    summary["training_seconds"] = round(sum(float(row["seconds"]) for each in members for row in each.history), 2)
    summary["final"] = final
    summary["best"] = {k: v for k, v in best.items() if k == "epoch" or k.startswith("valid/")}
    claim = context.plan.settings.claim
    if claim:
        summary["claim"] = check_claim(claim, task, final, context.identity, prepared.summary["audit"])
    baselines = baselines_of(first, context.plan, context.directory.identity, context.notes.add)
    if baselines:
        summary["baselines"] = {name: dict(metrics) for name, metrics in baselines.items()}
        better, seconds = metric.higher_is_better, summary["training_seconds"]
        for line in baseline_lines(final[key], seconds, baselines, key, partial(shown, key), higher_is_better=better):
            notify(line)
        behind = verdict(final[key], seconds, baselines, key, partial(shown, key), higher_is_better=better)
        if behind:  # not among the notes of the report, whose head compares with the baselines
            notify(f"note: {behind}")
            log.info(behind)
    outputs = splits["valid"].outputs
    return Results(torch.empty(0) if outputs is None else outputs, summary)


def check_claim(
    claim: Claim,
    task: Task,
    final: Mapping[str, float],
    identity: DataIdentity,
    audited: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return the verdict on a claim, for the summary."""
    metric = task.metrics().get(claim.metric.partition("/")[2])
    higher_is_better = metric.higher_is_better if metric else False
    return judge_run(claim, final, higher_is_better, identity.release, audited)


def publish(context: RunContext, prepared: Prepared, members: Sequence[Member], results: Results) -> Published:
    """Write the results: state for `predict`, tables, plots, and texts for the report."""
    task, directory, wanted = prepared.task, context.directory, context.plan.settings.log
    models, outputs = [member.model for member in members], results.outputs
    if task.predictor is not None:
        directory.save("task.pt", {"task": task.state(phase=members[-1].phase)})
    with readable_os_errors(directory.path):
        if (table := task.predictions(outputs)) is not None:
            directory.write_csv("predictions.csv", table)
        del table  # it may be larger than what the plots need
        tables = task.tables(outputs)
        for each in tables:
            directory.write_csv(each.file, each.frame)
        with context.plan.build_trainer(context.plan.settings.seed).autocast():
            files = task.artifacts(models, phase=members[-1].phase)
        for name, content in files.items():
            directory.write_bytes(name, content)
        formats = {wanted.plot_format, *(["png"] if wanted.trackers else [])}  # trackers show only pixels
        plots = _draw(directory.path, task, members, outputs, formats) if wanted.plots else []
        texts = dict(task.annotated_texts(models, outputs)) if wanted.report else {}
    return Published(plots, tables, texts)


def write_report_data(
    directory: RunDirectory, published: Published, notes: Sequence[str], changed: Mapping[str, str] | None
) -> None:
    """Store what the other files do not hold, so that `dlrun report` can write the same page."""
    content = {
        "plots": [{"file": each.path.name, "caption": each.caption, "alt": each.alt} for each in published.plots],
        "tables": [_for_report(each) for each in published.tables],
        "notes": list(notes),
        "annotated_texts": {
            heading: [asdict(text) for text in texts] for heading, texts in published.annotated_texts.items()
        },
        "changed": changed,
    }
    directory.write_text("report.json", json.dumps(content))


def _for_report(table: ResultTable) -> dict[str, Any]:
    """Return a table as plain values, NaN as None; of a long one the first rows."""
    rows = table.frame.head(MOST_TABLE_ROWS).astype(object).to_numpy().tolist()
    cells = [[None if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows]
    more = f" (the first {len(rows)} of {len(table.frame):,} rows)" if len(rows) < len(table.frame) else ""
    columns = [str(name) for name in table.frame]
    return {"file": table.file, "caption": table.caption + more, "columns": columns, "rows": cells}


def _combined(plan: Plan, task: Task, members: Sequence[Member], split: Split) -> Evaluation:
    """Return the evaluation of the members' averaged outputs, with the same exact metrics as for one model."""
    evaluations = [member.evaluations[split] for member in members]
    if len(evaluations) == 1 and task.num_tta_views() == 1:
        return evaluations[0]
    if not task.keeps_outputs:
        return evaluate_together(plan, task, members, split)
    outputs = [evaluation.outputs for evaluation in evaluations if evaluation.outputs is not None]
    average = outputs[0] if len(outputs) == 1 else task.average(outputs)
    targets = evaluations[0].targets
    assert targets is not None
    tally = Tally(task)
    tally.add(average, targets)
    return Evaluation(tally.result(split).metrics, average, targets)


def _draw(
    run: Path, task: Task, members: Sequence[Member], outputs: torch.Tensor, formats: Collection[str]
) -> Sequence[Plot]:
    from dlrunner.reporting.plots import training, training_time  # importing matplotlib takes a second

    folder = run / "plots"
    folder.mkdir(exist_ok=True)
    models, last = [member.model for member in members], members[-1]
    with training.also_as(formats):
        by_time = training_time.metric_by_time(last.history, f"valid/{next(iter(task.metrics()))}", folder)
        plots = [training.training_curves(last.history, folder), *([by_time] if by_time else [])]
        return [*plots, *task.plots(models, outputs, folder, phase=last.phase)]
