"""The model card of an exported model: use, model, data, results, training, files, limitations."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.claims.claims import describe_finding, describe_flags
from dlrunner.reporting.terminal.progress import metric_value, number

if TYPE_CHECKING:
    from jinja2 import Environment

FILES = {
    "model": "the weights",
    "state.json": "preprocessing fitted on the training rows, and the digests of the files",
    "state.safetensors": "its tensors",
    "config.yaml": "the complete configuration",
    "overrides.yaml": "the overrides of the command line",
    "summary.json": "the results",
    "metrics.jsonl": "one line per epoch",
    "Dockerfile": "a container that serves the model over HTTP (`dlrun serve`)",
    "requirements.txt": "its packages, at the versions that the run used",
}


@dataclass(frozen=True)
class Card:
    """The content of a card."""

    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    overrides: Sequence[str]
    task: str
    """The names of the classes."""
    model: str
    settings: Mapping[str, Any]
    """Of the model, defaults included."""
    parameters: Sequence[int]
    """Number of parameters of each model of the ensemble."""
    example: str
    """A line of Python that uses the predictor."""
    limits: Sequence[str]
    files: Sequence[str]
    difference: float | None = None
    """Largest difference between the ONNX graph and torch."""
    no_graph: str = ""
    """Why there is no ONNX graph, though one was requested."""
    formula: str = ""
    """How an answer follows from the outputs of the graph."""

    def markdown(self) -> str:
        """Return the card as Markdown, in which no text of the user is interpreted as markup."""
        summary, choices = self.summary, self.config.get("choices") or {}
        data, claim, metric = (summary.get(part) or {} for part in ("data", "claim", "metric"))
        return (
            _environment()
            .get_template("card.md.j2")
            .render(
                task=choices.get("task") or self.task,
                model=choices.get("model") or self.model,
                is_generated=data.get("source") == "synthetic",
                metric=metric,
                metric_text=metric_value(summary, metric["name"], metric["value"]) if metric else "",
                data_name=data.get("name") or "its data",
                release=data.get("release"),
                code=self._code(),
                plugins=self.config.get("plugins") or [],
                difference=self.difference,
                no_graph=self.no_graph,
                formula=self.formula,
                about_model=self._about_model(),
                data=[(name, value) for name, value in self._about_data(data) if value],
                results=[(k, metric_value(summary, k, v)) for k, v in (summary.get("final") or {}).items()],
                best_achievable=data.get("best_achievable"),
                claim=claim,
                flags=describe_flags(claim),
                findings=[(each["flag"], describe_finding(each)) for each in summary.get("audit") or ()],
                command=shlex.join(["dlrun", *self.overrides]),
                training=[(name, value) for name, value in self._about_training() if value not in (None, "")],
                files=[(name, _about(name)) for name in self.files],
                limits=list(self._all_limits()),
            )
        )

    def _code(self) -> str:
        plugins = list(self.config.get("plugins") or [])
        plugins_argument = f", plugins={plugins!r}" if plugins else ""
        imports = "import dlrunner\nimport pandas" if "pandas." in self.example else "import dlrunner"
        return (
            f'{imports}\n\npredictor = dlrunner.load("path/to/this/folder"{plugins_argument})\n{self.example}'.rstrip()
        )

    def _about_model(self) -> list[tuple[str, Any]]:
        count = f"{self.parameters[0]:,}" if self.parameters else "0"
        members = (
            f" in each of {len(self.parameters)} members, whose predictions are averaged"
            if len(self.parameters) > 1
            else ""
        )
        return [
            ("class", self.model),
            ("task", self.task),
            ("parameters", f"{count}{members}"),
            *self.settings.items(),
        ]

    def _about_data(self, data: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return [
            ("name", data.get("name")),
            ("release", data.get("release")),
            ("source", "synthetic" if data.get("source") == "synthetic" else data.get("source")),
            ("sha256", data.get("sha256")),
            ("terms", data.get("terms") or "unknown: they depend on the source of the data"),
            *((name, f"{rows:,}") for name, rows in (data.get("rows") or {}).items()),
        ]

    def _about_training(self) -> list[tuple[str, Any]]:
        config, summary, optim = self.config, self.summary, self.config.get("optim") or {}
        versions = summary.get("versions") or {}
        return [
            ("optimizer", f"{str(optim.get('_target_')).rpartition('.')[2]}, lr {optim.get('lr')}"),
            *((name, config.get(name)) for name in ("epochs", "batch_size", "seed", "ensemble")),
            *((name, summary.get(name)) for name in ("precision", "device", "seconds", "finished", "signature")),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ]

    def _all_limits(self) -> Iterator[str]:
        yield from self.limits
        yield "The results are from one split of one data set: other data may differ."
        if len(self.parameters) == 1:
            yield "They are from one seed: results vary between seeds (see `dlrun compare`)."


@functools.cache
def _environment() -> Environment:
    """Return the environment of the templates, which escapes every value for Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes 50 ms
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        finalize=lambda value: value if isinstance(value, Markup) else escaped(value),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = lambda value: Markup(number(value))
    environment.filters["fenced"] = lambda code, language: Markup(fenced(code, language))
    return environment


def escaped(value: Any) -> str:
    r"""Escape a text for Markdown, on one line.

    >>> print(escaped("a|b *c* <img>"))
    a\|b \*c\* &lt;img&gt;
    """
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", text)
    return re.sub(r"^(\d*)([-.])(?= |$)", r"\1\\\2", text)  # would start a list


def fenced(code: str, language: str) -> str:
    """Return code between fences that are longer than any in it."""
    longest = max(map(len, re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _about(name: str) -> str:
    if name.endswith(".onnx"):
        return "the model as an ONNX graph"
    return FILES.get(name) or FILES["model" if name.startswith("model") else "metrics.jsonl"]
