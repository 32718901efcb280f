"""Summary table of all benchmarks on a device: the relative speed of dlrunner, with the range of the ratios."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import HERE, Run, with_range

BEGIN, END = "<!-- speed: written by `make bench` -->", "<!-- end of speed -->"
"""Markers of the tables in docs/speed.md."""
DEVICES = ("cpu", "cuda")
RIVALS = {"fastai": "fastai", "Lightning": "Lightning", "plain": "a plain loop"}
"""Prefixes of the contestants' names, and their names in the table."""


@dataclass(frozen=True)
class Quantity:
    """The measured quantity of a benchmark."""

    key: str
    """Key of a run's measurements: one number, or one per epoch, of which the first is left out."""
    unit: str
    title: str = ""
    is_time: bool = False
    """Whether lower is better."""

    def value(self, run: Run) -> float:
        """Return one number for one run."""
        found = run[self.key]
        return float(statistics.median(found[1:]) if isinstance(found, list) else found)

    def ratios(self, own: Sequence[Run], other: Sequence[Run]) -> list[float]:
        """Return how many times as fast the first is, one number a repetition: those ran one after the other."""
        pairs = [(self.value(left), self.value(right)) for left, right in zip(own, other, strict=False)]
        return [right / left if self.is_time else left / right for left, right in pairs]


SECONDS = Quantity("seconds_per_epoch", "seconds per epoch", is_time=True)
BENCHMARKS: Mapping[str, tuple[str, tuple[Quantity, ...]]] = {
    "collab": ("Collaborative filtering", (SECONDS,)),
    "tabular": ("Tables", (SECONDS,)),
    "text": ("Language model", (Quantity("words_per_second", "words per second"),)),
    "sentiment": (
        "Reviews",
        (
            Quantity("training", "reviews per second", "training"),
            Quantity("prediction", "reviews per second", "prediction"),
        ),
    ),
    "images": ("Images", (Quantity("per_second", "per second"),)),
}
CONTESTS = {
    "decode": "decoding, 224 pixels per side",
    "large": "decoding, 1,344 pixels per side",
    "features": "features of MobileNetV2, float32",
    "features-bf16": "features of MobileNetV2, bfloat16",
    "net": "training all of MobileNetV2, float32, batches of 16",
    "head": "epochs of a head on cached features, float32, batches of 64",
}
COLLAB = "float32, batches of 64"


@dataclass(frozen=True)
class Row:
    """One contest in one quantity."""

    benchmark: str
    unit: str
    own: list[float]
    """dlrunner's number in each repetition."""
    contestants: dict[str, str]
    """Of each kind of rival the fastest contestant."""
    ratios: dict[str, list[float]]
    """By kind of rival, how many times as fast dlrunner was in each repetition."""


def rows_of(benchmark: str, record: Mapping[str, Any]) -> dict[str, Row]:
    """Return the rows of the table that one benchmark's record fills, by title."""
    name, quantities = BENCHMARKS[benchmark]
    contests = {COLLAB: record["rows"]} if benchmark == "collab" else record["rows"]
    found = {}
    for contest, runs in contests.items():
        own = next(iter(runs.values()))
        for quantity in quantities:
            words = [name, CONTESTS.get(contest, contest), quantity.title]
            contestants, ratios = {}, {}
            for kind in RIVALS:
                others = {rival: quantity.ratios(own, runs[rival]) for rival in runs if rival.startswith(kind)}
                if others:
                    contestants[kind] = min(others, key=lambda rival: statistics.median(others[rival]))
                    ratios[kind] = others[contestants[kind]]
            values = [quantity.value(run) for run in own]
            found[", ".join(filter(None, words))] = Row(benchmark, quantity.unit, values, contestants, ratios)
    return found


def gather(folder: Path, device: str) -> dict[str, Any]:
    """Return all rows of a device with the machines they were measured on."""
    rows: dict[str, Row] = {}
    machines = {}
    for benchmark in BENCHMARKS:
        file = folder / f"results-{benchmark}-{device}.json"
        if file.exists():
            record = json.loads(file.read_text())
            rows |= rows_of(benchmark, record)
            machines[benchmark] = {**record["machine"], "versions": _versions(record["rows"])}
    return {"machines": machines, "rows": {title: vars(row) for title, row in rows.items()}}


def _versions(runs: Any) -> dict[str, str]:
    """Return the versions that contestants have reported, at any level."""
    if isinstance(runs, Mapping):
        if "library" in runs and "version" in runs:
            return {runs["library"]: runs["version"]}
        runs = list(runs.values())
    found: dict[str, str] = {}
    for each in runs if isinstance(runs, list) else []:
        found |= _versions(each)
    return found


def table(speed: Mapping[str, Any]) -> str:
    """Return the table in Markdown, with the machines below it."""
    lines = [
        "Speed relative to other libraries on the same work: the median over repetitions, with their range in",
        "parentheses. The libraries run alternately, and each ratio is from one repetition; the fastest variant of",
        "each library counts. Lightning's Trainer trains dlrunner's modules on its loaders and logs no training loss.",
        "",
        f"| | dlrunner | | times as fast as {' | '.join(RIVALS.values())} | measured |",
        "|---|---|---|---|---|---|---|",
    ]
    machines = _machine_texts(speed["machines"])
    letters = {machine_text: "abcdefgh"[index] for index, machine_text in enumerate(dict.fromkeys(machines.values()))}
    for title, row in speed["rows"].items():
        cells = [with_range(row["ratios"][kind]) if kind in row["ratios"] else "-" for kind in RIVALS]
        digits = 0 if statistics.median(row["own"]) >= 100 else 2
        cells = [title, with_range(row["own"], digits), row["unit"], *cells]
        lines.append(f"| {' | '.join(cells)} | {letters[machines[row['benchmark']]]}, {len(row['own'])} times |")
    lines += ["", *(f"- {letter}: {machine_text}." for machine_text, letter in letters.items())]
    return "\n".join([*lines, "- `-`: no such library, or not measured.", ""])


def _machine_texts(machines: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the machine and the versions of each benchmark as text."""
    machines_of: dict[str, str] = {}
    versions: dict[str, dict[str, str]] = {}
    for benchmark, machine in machines.items():
        of = f"{machine['cores']} cores, {machine['gpu'] or machine['cpu']}; "
        own = {"dlrunner": machine["dlrunner"]} if "dlrunner" in machine else {}
        machines_of[benchmark] = of + ", ".join(
            f"{name} {version}"
            for name, version in {**own, "torch": machine["torch"], "Python": machine["python"]}.items()
        )
        versions.setdefault(machines_of[benchmark], {}).update(machine["versions"])
    return {
        benchmark: ", ".join([machine_text, *(f"{name} {version}" for name, version in versions[machine_text].items())])
        for benchmark, machine_text in machines_of.items()
    }


def quoted(folder: Path) -> str:
    """Return the text between the markers: the tables of all measured devices."""
    parts = ["Written by `make bench`; `python -m benchmarks summary` writes it again from the stored results.\n"]
    for device in DEVICES:
        file = folder / f"speed-{device}.json"
        if file.exists():
            parts.append(table(json.loads(file.read_text())))
    return "\n".join(parts)


def write(folder: Path = HERE, page: Path = HERE.parent / "docs" / "speed.md") -> list[Path]:
    """Write the tables of all devices from the stored results, and on the page between its markers."""
    written = []
    for device in DEVICES:
        speed = gather(folder, device)
        if speed["rows"]:
            written += [folder / f"speed-{device}.md", folder / f"speed-{device}.json"]
            written[-2].write_text(f"# Speed ({device})\n\n{table(speed)}")
            written[-1].write_text(json.dumps(speed, indent=1) + "\n")
    text = page.read_text()
    if BEGIN in text and END in text:
        block = f"{BEGIN}\n{quoted(folder)}{END}"
        text = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL)
        page.write_text(text)
        written.append(page)
    return written
