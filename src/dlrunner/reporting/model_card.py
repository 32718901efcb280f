"""The card of an exported model: what it is, what it learned from, how good it is and what it is not for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrunner.claims.claims import describe_flags
from dlrunner.reporting.terminal.progress import metric_value, number

FILES = {
    "model": "the weights",
    "state.json": "what was fitted on the training rows, and the digests of the files beside it",
    "state.safetensors": "its tensors",
    "config.yaml": "the whole configuration",
    "overrides.yaml": "what was typed",
    "summary.json": "what came out",
    "metrics.jsonl": "a line per epoch",
}


@dataclass(frozen=True)
class Card:
    """All that a card tells."""

    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    overrides: Sequence[str]
    task: str
    """The names of the classes."""
    model: str
    settings: Mapping[str, Any]
    """Of the model, defaults included."""
    parameters: Sequence[int]
    """Numbers that each model of the ensemble has learned."""
    example: str
    """A line of Python that asks for something."""
    limits: Sequence[str]
    files: Sequence[str]
    difference: float | None = None
    """Of the ONNX graph from torch."""
    no_graph: str = ""
    """Why there is no graph, though one was asked for."""

    def markdown(self) -> str:
        """Return the card as Markdown, in which nothing that a user wrote is read as markup."""
        choices, metric = self.config.get("choices") or {}, self.summary.get("metric") or {}
        title = f"# {escaped(choices.get('task') or self.task)}: {escaped(choices.get('model') or self.model)}"
        told = (
            f"{escaped(metric.get('name'))} **{self._value(metric['name'], metric['value'])}**"
            if metric
            else "no metric"
        )
        parts = {
            "": [f"{title}\n", *self._warning(), f"{told}, on the validation part of {self._data_named()}."],
            "Use": list(self._use()),
            "Model": list(self._model()),
            "Data": list(self._data()),
            "Result": list(self._result()),
            "Training": list(self._training()),
            "Files": [f"- `{name}`: {_about(name)}" for name in self.files],
            "Limits": [f"- {escaped(limit)}" for limit in self._limits()],
        }
        return "\n".join(
            (f"## {heading}\n\n" if heading else "") + "\n".join(lines) + "\n" for heading, lines in parts.items()
        )

    def _warning(self) -> list[str]:
        if (self.summary.get("data") or {}).get("source") != "synthetic":
            return []
        return [
            "> **Warning: trained on a generated stand-in, not on the published data.** Its figures say nothing about "
            "that data, and its answers nothing about the world.\n"
        ]

    def _data_named(self) -> str:
        data = self.summary.get("data") or {}
        release = f" ({escaped(data['release'])})" if data.get("release") else ""
        return f"{escaped(data.get('name') or 'its data')}{release}"

    def _use(self) -> Iterator[str]:
        plugins = list(self.config.get("plugins") or [])
        asked = f", plugins={plugins!r}" if plugins else ""
        imports = "import dlrunner\nimport pandas" if "pandas." in self.example else "import dlrunner"
        code = f'{imports}\n\npredictor = dlrunner.load("path/to/this/folder"{asked})'
        yield fenced(f"{code}\n{self.example}".rstrip(), "python")
        if plugins:
            yield f"\nIt imports {', '.join(map(escaped, plugins))}, which is not in this folder."
        if self.difference is not None:
            yield (
                f"\nThe ONNX graph was compared with torch by onnxruntime: the largest difference is "
                f"{self.difference:.1e}, in units of the output where that is above 1. Its inputs are what the model "
                "sees: rows, words or pixels are made into them with `state.json`."
            )
        if self.no_graph:
            yield f"\nThere is no ONNX graph: {escaped(self.no_graph)}."

    def _model(self) -> Iterator[str]:
        yield f"- class: {escaped(self.model)}"
        yield f"- task: {escaped(self.task)}"
        count = f"{self.parameters[0]:,}" if self.parameters else "0"
        several = f" in each of {len(self.parameters)}, whose answers are averaged" if len(self.parameters) > 1 else ""
        yield f"- parameters: {count}{several}"
        yield from (f"- {escaped(name)}: {escaped(value)}" for name, value in self.settings.items())

    def _data(self) -> Iterator[str]:
        data = self.summary.get("data") or {}
        told = {
            "name": data.get("name"),
            "release": data.get("release"),
            "source": "a generated stand-in" if data.get("source") == "synthetic" else data.get("source"),
            "sha256": data.get("sha256"),
            "terms": data.get("terms") or "not known: they are those of whoever gave the data",
            **{str(name): f"{rows:,}" for name, rows in (data.get("rows") or {}).items()},
        }
        yield from (f"- {escaped(name)}: {escaped(value)}" for name, value in told.items() if value)

    def _result(self) -> Iterator[str]:
        yield "| metric | value |\n|---|---|"
        yield from (
            f"| {escaped(name)} | {self._value(name, value)} |"
            for name, value in (self.summary.get("final") or {}).items()
        )
        floor = (self.summary.get("data") or {}).get("best_achievable")
        if floor is not None:
            yield f"\nThe best that is possible on this stand-in is {number(floor)}."
        if claim := self.summary.get("claim"):
            mind = f" (mind: {escaped(describe_flags(claim))})" if describe_flags(claim) else ""
            yield (
                f"\nPublished: {escaped(claim['metric'])} {number(claim['published'])} ({escaped(claim['source'])}); "
                f"this run: {escaped(claim['verdict'])}{mind}."
            )
        findings = self.summary.get("audit") or ()
        yield "\nWhat makes the figure flattering:\n" if findings else "\nNothing was found that flatters the figure."
        yield from (f"- {escaped(each['flag'])}: {escaped(each['message'])}" for each in findings)

    def _value(self, name: str, value: Any) -> str:
        return escaped(metric_value(self.summary, name, value))

    def _training(self) -> Iterator[str]:
        yield fenced(shlex.join(["dlrun", *self.overrides]), "sh") + "\n"
        config, optim = self.config, self.config.get("optim") or {}
        told = {
            "optimizer": f"{str(optim.get('_target_')).rpartition('.')[2]}, lr {optim.get('lr')}",
            **{name: config.get(name) for name in ("epochs", "batch_size", "seed", "ensemble")},
            "precision": self.summary.get("precision"),
            "device": self.summary.get("device"),
            "seconds": self.summary.get("seconds"),
            "finished": self.summary.get("finished"),
            "signature": self.summary.get("signature"),
            "versions": ", ".join(f"{name} {told}" for name, told in (self.summary.get("versions") or {}).items()),
        }
        yield from (f"- {escaped(name)}: {escaped(value)}" for name, value in told.items() if value not in (None, ""))

    def _limits(self) -> Iterator[str]:
        yield from self.limits
        yield "Its figures are those of one split of one data set: other data may be unlike it."
        if len(self.parameters) == 1:
            yield "They are those of one seed: others give others (dlrun compare tells how far apart they lie)."


def escaped(value: Any) -> str:
    r"""Return a text as Markdown that shows it as it is, on one line.

    >>> print(escaped("a|b *c* <img>"))
    a\|b \*c\* &lt;img&gt;
    """
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", text)
    return re.sub(r"^(\d*)([-.])(?= |$)", r"\1\\\2", text)  # what would begin a list


def fenced(code: str, language: str) -> str:
    """Return code between fences that are longer than any in it."""
    longest = max(map(len, re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _about(name: str) -> str:
    if name.endswith(".onnx"):
        return "the model as an ONNX graph"
    return FILES.get(name) or FILES["model" if name.startswith("model") else "metrics.jsonl"]
