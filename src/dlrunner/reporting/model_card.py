"""The card of an exported model: what it is, what it learned from, how good it is and what it is not for."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrunner.claims.claims import describe_flags
from dlrunner.reporting.terminal.progress import metric_value, number

if TYPE_CHECKING:
    from jinja2 import Environment

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
                about_model=self._about_model(),
                data=[(name, value) for name, value in self._about_data(data) if value],
                results=[(k, metric_value(summary, k, v)) for k, v in (summary.get("final") or {}).items()],
                floor=data.get("best_achievable"),
                claim=claim,
                flags=describe_flags(claim),
                findings=summary.get("audit") or (),
                command=shlex.join(["dlrun", *self.overrides]),
                training=[(name, value) for name, value in self._about_training() if value not in (None, "")],
                files=[(name, _about(name)) for name in self.files],
                limits=list(self._all_limits()),
            )
        )

    def _code(self) -> str:
        plugins = list(self.config.get("plugins") or [])
        asked = f", plugins={plugins!r}" if plugins else ""
        imports = "import dlrunner\nimport pandas" if "pandas." in self.example else "import dlrunner"
        return f'{imports}\n\npredictor = dlrunner.load("path/to/this/folder"{asked})\n{self.example}'.rstrip()

    def _about_model(self) -> list[tuple[str, Any]]:
        count = f"{self.parameters[0]:,}" if self.parameters else "0"
        several = f" in each of {len(self.parameters)}, whose answers are averaged" if len(self.parameters) > 1 else ""
        return [
            ("class", self.model),
            ("task", self.task),
            ("parameters", f"{count}{several}"),
            *self.settings.items(),
        ]

    def _about_data(self, data: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return [
            ("name", data.get("name")),
            ("release", data.get("release")),
            ("source", "synthetic" if data.get("source") == "synthetic" else data.get("source")),
            ("sha256", data.get("sha256")),
            ("terms", data.get("terms") or "not known: they are those of whoever gave the data"),
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
        yield "Its figures are those of one split of one data set: other data may be unlike it."
        if len(self.parameters) == 1:
            yield "They are those of one seed: others give others (dlrun compare tells how far apart they lie)."


@functools.cache
def _environment() -> Environment:
    """Return the templates' environment, which escapes every value as `autoescape` does for HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes a twentieth of a second
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
