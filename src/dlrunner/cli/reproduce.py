"""Claims: published results, reproduced with several seeds and checked by a t-test."""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dlrunner.claims.claim_report import Verdict, check_seeds, merge, write_into, write_tables
from dlrunner.claims.claims import is_current
from dlrunner.cli.compose import Changes, compose, compose_jobs
from dlrunner.cli.conf_paths import options_of, with_paths
from dlrunner.config.plan import plan
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.execution import run as runner
from dlrunner.files.atomic import readable_os_errors
from dlrunner.files.paths import user_path
from dlrunner.reporting.html import claims as report
from dlrunner.reporting.terminal import tables
from dlrunner.reporting.terminal.sweep import make_screen
from dlrunner.runs.labels import is_in_label, label
from dlrunner.runs.reader import finished_summary, shorter
from dlrunner.sweeps.folder import Job, SweepDirectory, duplicate_jobs, record_of, status_of
from dlrunner.sweeps.pool import run_jobs, start_fork_server
from dlrunner.sweeps.slots import resource_slots


def reproduce(arguments: argparse.Namespace) -> int:
    """Run the missing seeds of some claims, check them, write the tables; 1 if one is missed."""
    arguments.set = with_paths(arguments.set)
    _check(arguments)
    names = options_of("experiment")
    matching = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.patterns)]
    claims = {name: claim for name in matching if (claim := _claim(name))}  # composing all names takes seconds
    for pattern in arguments.patterns:
        if not fnmatch.filter(claims, pattern):
            known = [name for name in names if name in claims or _claim(name)]
            raise ConfigError(f"no experiment with a claim matches {pattern}; {did_you_mean(pattern, known)}")
    if arguments.quick:
        claims = {name: claim for name, claim in claims.items() if claim.get("quick")}
        if not claims:
            raise ConfigError("none of these claims takes less than two minutes; omit --quick")
    verdicts = _reproduce(claims, arguments)
    _print(verdicts)
    out = user_path(arguments.out) if arguments.out else None
    if out is not None:
        with readable_os_errors(out):
            write_tables(out, verdicts)
            print(f"report   {shorter(report.write(out))}")
    if arguments.results:
        with readable_os_errors(user_path(arguments.results)):
            merged = merge(user_path(arguments.results), verdicts)
            if arguments.markdown:
                write_into(user_path(arguments.markdown), merged)
    return 1 if any(v.verdict == "missed" for v in verdicts) else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds: must be 1 or more, not {arguments.seeds}")
    if arguments.jobs != "auto" and not (arguments.jobs.isdigit() and int(arguments.jobs)):
        raise ConfigError(f"--jobs: must be a number or auto, not {arguments.jobs!r}")
    if arguments.markdown and not arguments.results:
        raise ConfigError("--markdown: needs the file of results; name it with --results")
    for word in arguments.set:
        if word.lstrip("+~").partition(".")[0].partition("=")[0] in ("claim", "seed", "seeds", "experiment"):
            raise ConfigError(f"--set {word}: the claim and the seeds cannot be changed")


def _claim(name: str) -> dict[str, Any] | None:
    claim: dict[str, Any] | None = compose([f"experiment={name}"]).get("claim")
    return claim


def _reproduce(claims: Mapping[str, Mapping[str, Any]], arguments: argparse.Namespace) -> list[Verdict]:
    """Run the missing seeds of all claims in one queue, and check the claims."""
    missing = {name: _missing_requirement(name, claim, arguments.set) for name, claim in claims.items()}
    runnable = [name for name in claims if not missing[name]]
    words = [_words(name, seed, arguments.set) for name in runnable for seed in range(arguments.seeds)]
    jobs, changes = [], Changes()
    for number, (overrides, config) in enumerate(zip(words, compose_jobs(words), strict=True)):
        if isinstance(config, ConfigError):
            raise config
        jobs.append(Job(number, overrides, config, plan(config).signature, changes.of(config), ["experiment", "seed"]))
    records = _run(jobs, arguments) if jobs else {}

    verdicts = []
    for name, claim in claims.items():
        command = f"dlrun reproduce {name} --seeds {arguments.seeds}"
        settings = [word for word in arguments.set if is_in_label(word)]
        if settings:
            command += f" --set {shlex.join(settings)}"
        of_claim = [job for job in jobs if job.overrides[0] == f"experiment={name}"]
        failed = {int(j.settings["seed"]): r for j in of_claim if (r := records[j.number])["status"] != "done"}
        why = missing[name] or next((r["error"] for r in failed.values() if r.get("is_data_error")), "")
        if why:
            known = {"metric": claim["metric"], "published": claim["value"], "source": claim["source"]}
            verdicts.append(Verdict(name, **known, verdict="cannot be run here", why=why, command=command))
            continue
        runs = {
            int(job.settings["seed"]): {**summary, "folder": records[job.number]["folder"]}
            for job in of_claim
            if records[job.number]["status"] == "done" and (summary := checked_summary(job, records[job.number]))
        }
        verdicts.append(check_seeds(name, claim, runs, command, failed))
    return verdicts


def checked_summary(job: Job, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the summary of a finished run, checked against the job's claim: another one may have the same run."""
    folder = Path(record["folder"])
    summary = finished_summary(folder)
    if summary and not is_current(job.config["claim"], summary.get("claim") or {}, summary["data"]["release"]):
        runner.run(job.config, job.overrides, notify=lambda _: None)
        summary = finished_summary(folder)
    return summary


def _words(name: str, seed: int, settings: Sequence[str]) -> list[str]:
    return [f"experiment={name}", f"seed={seed}", "log.plots=false", *settings]


def _run(jobs: Sequence[Job], arguments: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """Run the missing jobs, and return the records of all."""
    records = {}
    statuses = status_of(jobs)
    for job, status in zip(jobs, statuses.values(), strict=True):
        if status.folder and status.summary:
            records[job.number] = record_of(status.folder, status.summary)
    same = {job.number: first.number for job, first in duplicate_jobs(jobs, statuses)}  # of claims with one recipe
    missing = [job for job in jobs if job.number not in records and job.number not in same]
    digest = hashlib.sha256(json.dumps([job.overrides for job in jobs]).encode()).hexdigest()[:8]
    runs_dir = user_path(jobs[0].config["runs_dir"]).resolve()
    path = runs_dir / "claims" / f"{label(arguments.patterns)}-{digest}"
    print(f"{len(jobs)} runs of {len({job.overrides[0] for job in jobs})} claims\nfolder   {shorter(path)}", flush=True)
    if records:
        print(f"finished: {len(records)} of {len(jobs)}", flush=True)
    arguments.out = arguments.out or str(path)
    with SweepDirectory(path) as folder:
        folder.freeze(jobs, statuses)
        if missing:
            start_fork_server(missing)
            slots = resource_slots(arguments.jobs if arguments.jobs == "auto" else int(arguments.jobs), missing)
            screen = make_screen("auto", len(jobs), len(records), len(slots), lambda job: " ".join(job.overrides[:2]))
            try:
                records |= run_jobs(missing, folder, slots, screen)
            finally:
                screen.close()
    return records | {number: records[first] for number, first in same.items()}


def _missing_requirement(name: str, claim: Mapping[str, Any], settings: Sequence[str]) -> str:
    """Return why a claim cannot be run here; empty if it can."""
    config = compose([f"experiment={name}", *settings])
    needs = claim.get("needs") or []
    if "encoder" in needs and not config["model"]["encoder"]:
        return "it needs an encoder: --set model.encoder=RUN of a language model"
    checked = plan(config)
    if "gpu" in needs and checked.device.type == "cpu":
        return f"it needs a GPU: a CPU takes hours to days (dlrun experiment={name} trains on one anyway)"
    data = checked.build_data()
    try:
        if data is not None:
            data.identity()
        checked.model_files()
    except (DataError, ConfigError) as error:
        return str(error)
    return ""


def _print(verdicts: Sequence[Verdict]) -> None:
    rows = [
        {
            "experiment": v.experiment,
            "metric": v.metric,
            "published": f"{v.published:.5g}",
            "ours": v.ours,
            "seeds": str(len(v.seeds) or "-"),
            "seconds": v.time,
            "verdict": v.verdict,
        }
        for v in verdicts
    ]
    tables.print_frame(pd.DataFrame(rows), title="\nclaims", optional=("metric", "seeds", "seconds"))
    for v in verdicts:
        if v.why:
            tables.print_sentence(f"{v.experiment}: {v.verdict}: {v.why}")
        elif v.verdict in ("missed", "not distinguishable") and v.p is not None:
            tables.print_sentence(f"{v.experiment}: {v.verdict_text} (p = {v.p:.3f})")
