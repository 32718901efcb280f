"""Claims judged by several seeds, and their tables: Markdown, JSON, JUnit XML, and the one of a README."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from dlrunner.claims.claims import Word, judge_seeds
from dlrunner.errors import ConfigError
from dlrunner.files.atomic import write_atomic
from dlrunner.files.temporary import remove_abandoned
from dlrunner.renamed import present_verdict

BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"
"""In a README, the table of results stands between these lines."""


@dataclass(frozen=True)
class Verdict:
    """What several seeds say about one claim."""

    experiment: str
    metric: str
    published: float
    source: str
    verdict: Word
    why: str = ""
    """Why it could not be run, or which seed failed."""
    seeds: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    mean: float | None = None
    std: float | None = None
    """Standard deviation over seeds; None for a single one."""
    p: float | None = None
    """Of a mean this bad or worse, were the true mean the published figure (one-sided t-test)."""
    seconds: list[float] = field(default_factory=list)
    """Of each run as a whole."""
    flags: list[str] = field(default_factory=list)
    data: str = ""
    device: str = ""
    command: str = ""
    measured: str = ""
    """The day of the last run."""
    code: str = ""
    """Digest of the code that the runs were done with."""
    folders: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """By seed, the folders of the runs that failed; empty where one left none."""

    @property
    def ours(self) -> str:
        """The mean, and the spread where there is one."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.4f}" if self.std is None else f"{self.mean:.4f} ± {self.std:.4f}"

    @property
    def time(self) -> str:
        """The seconds of a run: one figure, or from the quickest to the slowest."""
        if not self.seconds:
            return "-"
        low, high = (f"{each:.3g}" if each < 100 else f"{each:.0f}" for each in (min(self.seconds), max(self.seconds)))
        return low if low == high else f"{low} to {high}"


def judge(
    experiment: str,
    claim: Mapping[str, Any],
    runs: Mapping[int, Mapping[str, Any]],
    command: str,
    failed: Mapping[int, Mapping[str, Any]] = {},
) -> Verdict:
    """Judge the finished runs of a claim.

    Args:
        experiment: its name.
        claim: as its file says.
        runs: summaries by seed; `folder` in each is where it lies.
        command: what earns it again.
        failed: records of the runs that failed, by seed; a recipe that fails is missed.
    """
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
    verdict, p = judge_seeds(values, claim["value"], bool(first["claim"]["higher_is_better"]))
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
        seconds=[float(summary["seconds"]) for summary in runs.values()],
        flags=list(first["claim"].get("flags") or []),
        data=str(first["data"]["release"]),
        device=_device(first),
        measured=max(str(summary["finished"]) for summary in runs.values())[:10],
        code=str(first["code"])[:8],
        folders=[str(summary["folder"]) for summary in runs.values()],
    )


def write_tables(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Write claims.md, claims.json and claims.xml (JUnit: a test a claim, a missed one fails, others are skipped)."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    write_atomic(folder / "claims.md", markdown(verdicts).encode(errors="backslashreplace"))
    write_atomic(folder / "claims.json", as_json(verdicts).encode())
    write_atomic(folder / "claims.xml", junit(verdicts))


def as_json(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a JSON list."""
    return json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return a table for people: the claims that were earned, and beneath it those that could not be."""
    names = ("experiment", "metric", "published", "ours", "seeds", "verdict", "mind", "data", "device", "seconds a run")
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for v in (v for v in verdicts if v.values or v.verdict == "missed"):
        cells = (
            *(f"`{v.experiment}`", f"{v.metric}", f"{v.published:.5g}", v.ours, str(len(v.seeds) or "-")),
            *(f"**{v.verdict}**" if v.verdict == "missed" else v.verdict, ", ".join(v.flags) or "-"),
            *(v.data or "-", v.device or "-", v.time),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    others = [v for v in verdicts if v.verdict == "cannot be run here"]
    rest = "".join(f"- `{v.experiment}` (published {v.metric} {v.published:.5g}): {v.why}\n" for v in others)
    commands = "".join(f"- `{v.command}`: {v.source}; {v.measured}\n" for v in verdicts if v.values)
    text = "\n".join(lines) + "\n"
    text += f"\nEarned by\n\n{commands}" if commands else ""
    return text + (f"\nNot earned here:\n\n{rest}" if rest else "")


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """Return the verdicts as JUnit XML, which CI servers show."""
    missed = sum(v.verdict == "missed" for v in verdicts)
    skipped = sum(v.verdict == "cannot be run here" for v in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(missed), "skipped": str(skipped), "errors": "0"}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": "claims", **counts})
    for v in verdicts:
        time = f"{sum(v.seconds):.2f}"
        case = ElementTree.SubElement(suite, "testcase", classname="claims", name=v.experiment, time=time)
        told = f"{v.metric}: published {v.published:.5g}, ours {v.ours} ({len(v.seeds)} seeds): {v.verdict}"
        if v.verdict == "missed":
            ElementTree.SubElement(case, "failure", message=v.why or told).text = told
        elif v.verdict == "cannot be run here":
            ElementTree.SubElement(case, "skipped", message=v.why)
        else:
            ElementTree.SubElement(case, "system-out").text = told
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def merge(store: Path, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Put verdicts into a file of results, in the place of older ones of the same experiments, and return all.

    One that could not be run here takes the place of none that was.

    Raises:
        ConfigError: the file is damaged.
    """
    known: dict[str, Verdict] = {}
    if store.exists():
        try:
            known = {each["experiment"]: Verdict(**present_verdict(each)) for each in json.loads(store.read_text())}
        except (ValueError, RecursionError, TypeError, KeyError):
            raise ConfigError(f"{store} does not hold verdicts; move it away") from None
    for verdict in verdicts:
        if verdict.values or verdict.experiment not in known:
            # Folders belong to one machine; what was measured does not.
            known[verdict.experiment] = Verdict(**{**asdict(verdict), "folders": []})
    merged = [known[name] for name in sorted(known)]
    store.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(store, as_json(merged).encode())
    return merged


def write_into(readme: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the table between a README's markers.

    Raises:
        ConfigError: the markers are not there.
    """
    text = readme.read_text() if readme.exists() else ""
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{readme}: the table goes between the lines {BEGIN!r} and {END!r}, which are not there")
    table = f"{BEGIN}\n{markdown(verdicts)}{END}"
    written = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: table, text, flags=re.DOTALL)
    write_atomic(readme, written.encode())


def _device(summary: Mapping[str, Any]) -> str:
    """Return where a run was done: a CPU with so many threads, or a GPU, and in which precision."""
    threads = summary.get("num_threads")
    told = f"CPU, {threads} thread{'s' if threads != 1 else ''}" if summary["device"] == "cpu" else summary["device"]
    return f"{told}, {summary['precision']}"
