"""Claims checked with several seeds, and their tables: Markdown, JSON, JUnit XML, and the table of a Markdown page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from dlrunner.claims.claims import Word, describe, judge_seeds
from dlrunner.errors import ConfigError
from dlrunner.files.atomic import write_atomic
from dlrunner.files.temporary import name_of, remove_abandoned
from dlrunner.renamed import present_verdict
from dlrunner.system.terminal import visible

BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"
"""Lines around the table of results on a Markdown page."""


@dataclass(frozen=True)
class Verdict:
    """The result of several seeds for one claim."""

    experiment: str
    metric: str
    published: float
    source: str
    verdict: Word
    why: str = ""
    """Why it could not be run, or the error of a failed seed."""
    seeds: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    mean: float | None = None
    std: float | None = None
    """Standard deviation over seeds; None for a single one."""
    p: float | None = None
    """p-value of the one-sided test of the mean against the published value."""
    needed: int | None = None
    """Seeds that a test would need to detect a difference of this size, if it did not."""
    seconds: list[float] = field(default_factory=list)
    """Duration of each run."""
    flags: list[str] = field(default_factory=list)
    data: str = ""
    device: str = ""
    command: str = ""
    measured: str = ""
    """The day of the last run."""
    code: str = ""
    """Digest of the code of the runs."""
    folders: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Folders of the failed runs by seed; empty if there is no folder."""

    @property
    def ours(self) -> str:
        """The mean ± standard deviation, or a single value."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.4f}" if self.std is None else f"{self.mean:.4f} ± {self.std:.4f}"

    @property
    def verdict_text(self) -> str:
        """The verdict, with the number of seeds that would be needed where it is open."""
        return describe(self.verdict, len(self.seeds), self.needed)

    @property
    def time(self) -> str:
        """The seconds per run: one value, or the range."""
        if not self.seconds:
            return "-"
        low, high = (f"{each:.3g}" if each < 100 else f"{each:.0f}" for each in (min(self.seconds), max(self.seconds)))
        return low if low == high else f"{low} to {high}"


def check_seeds(
    experiment: str,
    claim: Mapping[str, Any],
    runs: Mapping[int, Mapping[str, Any]],
    command: str,
    failed: Mapping[int, Mapping[str, Any]] = {},
) -> Verdict:
    """Check a claim against its finished runs.

    Args:
        experiment: its name.
        claim: from its experiment file.
        runs: summaries by seed, each with its `folder`.
        command: reproduces the claim.
        failed: records of the failed runs by seed; with one the claim is missed.
    """
    no_value = {
        seed: {"error": f"{claim['metric']} is not a number", "folder": summary["folder"]}
        for seed, summary in runs.items()
        if summary["final"].get(claim["metric"]) is None
    }
    failed, runs = {**failed, **no_value}, {seed: runs[seed] for seed in runs if seed not in no_value}
    known: dict[str, Any] = {
        "experiment": experiment,
        "metric": claim["metric"],
        "published": claim["value"],
        "source": claim["source"],
        "command": command,
    }
    if failed:
        lost = {str(seed): str(record.get("folder") or "") for seed, record in failed.items()}
        done = [float(summary["final"][claim["metric"]]) for summary in runs.values()]
        folders = [str(summary["folder"]) for summary in runs.values()]
        why = f"seed {next(iter(failed))}: {next(iter(failed.values()))['error']}"
        kept: dict[str, Any] = {"seeds": list(runs), "values": done, "folders": folders, "failed": lost}
        return Verdict(**known, verdict="missed", why=why, **kept)
    for summary in runs.values():
        if summary["claim"]["verdict"].startswith("not comparable"):
            return Verdict(**known, verdict="cannot be run here", why=summary["claim"]["verdict"])
    first = next(iter(runs.values()))
    values = [float(summary["final"][claim["metric"]]) for summary in runs.values()]
    higher_is_better = bool(first["claim"]["higher_is_better"])
    verdict, p, needed = judge_seeds(values, claim["value"], higher_is_better, claim.get("std"))
    mean = sum(values) / len(values)
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    return Verdict(
        **known,
        verdict=verdict,
        seeds=list(runs),
        values=values,
        mean=mean,
        std=std,
        p=None if math.isnan(p) else p,
        needed=needed,
        seconds=[float(summary["seconds"]) for summary in runs.values()],
        flags=list(first["claim"].get("flags") or []),
        data=str(first["data"]["release"]),
        device=_device(first),
        measured=max(str(summary["finished"]) for summary in runs.values())[:10],
        code=str(first["code"])[:8],
        folders=[str(summary["folder"]) for summary in runs.values()],
    )


def write_tables(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Write claims.md, claims.json and claims.xml (JUnit: a test per claim)."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, is_ours=lambda name: name_of(name) in ("claims.md", "claims.json", "claims.xml"))
    write_atomic(folder / "claims.md", markdown(verdicts).encode(errors="backslashreplace"))
    write_atomic(folder / "claims.json", as_json(verdicts).encode())
    write_atomic(folder / "claims.xml", junit(verdicts))


def as_json(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a JSON list."""
    return json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return a Markdown table of the claims that were run, and a list of those that could not be run."""
    names = (
        "experiment",
        "metric",
        "published",
        "ours",
        "seeds",
        "verdict",
        "warnings",
        "data",
        "device",
        "seconds per run",
    )
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for v in (v for v in verdicts if v.values or v.verdict == "missed"):
        cells = (
            *(f"`{v.experiment}`", f"{v.metric}", f"{v.published:.5g}", v.ours, str(len(v.seeds) or "-")),
            *(f"**{v.verdict_text}**" if v.verdict == "missed" else v.verdict_text, ", ".join(v.flags) or "-"),
            *(v.data or "-", v.device or "-", v.time),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    others = [v for v in verdicts if v.verdict == "cannot be run here"]
    rest = "".join(f"- `{v.experiment}` (published {v.metric} {v.published:.5g}): {v.why}\n" for v in others)
    commands = "".join(f"- `{v.command}`: {v.source}; {v.measured}\n" for v in verdicts if v.values)
    text = "\n".join(lines) + "\n"
    text += f"\nReproduced by\n\n{commands}" if commands else ""
    return text + (f"\nNot run:\n\n{rest}" if rest else "")


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """Return the verdicts as JUnit XML for CI servers."""
    missed = sum(v.verdict == "missed" for v in verdicts)
    skipped = sum(v.verdict == "cannot be run here" for v in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(missed), "skipped": str(skipped), "errors": "0"}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": "claims", **counts})
    for v in verdicts:
        time = f"{sum(v.seconds):.2f}"
        case = ElementTree.SubElement(suite, "testcase", classname="claims", name=visible(v.experiment), time=time)
        text = f"{v.metric}: published {v.published:.5g}, ours {v.ours} ({len(v.seeds)} seeds): {v.verdict_text}"
        if v.verdict == "missed":
            ElementTree.SubElement(case, "failure", message=visible(v.why) or text).text = text
        elif v.verdict == "cannot be run here":
            ElementTree.SubElement(case, "skipped", message=visible(v.why))
        else:
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def merge(store: Path, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Update the verdicts in a file of results, and return all.

    A claim that could not be run here does not replace an earlier verdict.

    Raises:
        ConfigError: the file is damaged.
    """
    known: dict[str, Verdict] = {}
    if store.exists():
        try:
            known = {each["experiment"]: Verdict(**present_verdict(each)) for each in json.loads(store.read_text())}
        except (ValueError, RecursionError, TypeError, KeyError):
            raise ConfigError(f"{store} has no verdicts; move it away") from None
    for verdict in verdicts:
        if verdict.verdict != "cannot be run here" or verdict.experiment not in known:
            # Folders exist on one machine only.
            lost = dict.fromkeys(verdict.failed, "")
            known[verdict.experiment] = Verdict(**{**asdict(verdict), "folders": [], "failed": lost})
    merged = [known[name] for name in sorted(known)]
    store.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(store, as_json(merged).encode())
    return merged


def write_into(page: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the table between the markers of a Markdown page.

    Raises:
        ConfigError: the markers are missing.
    """
    text = page.read_text() if page.exists() else ""
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{page}: the lines {BEGIN!r} and {END!r} around the table are missing")
    table = f"{BEGIN}\n{markdown(verdicts)}{END}"
    written = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: table, text, flags=re.DOTALL)
    write_atomic(page, written.encode())


def _device(summary: Mapping[str, Any]) -> str:
    """Return the device of a run, its threads and its precision."""
    threads = summary.get("num_threads")
    device = f"CPU, {threads} thread{'s' if threads != 1 else ''}" if summary["device"] == "cpu" else summary["device"]
    return f"{device}, {summary['precision']}"
