"""What pages, YAML comments and docstrings repeat of the code and of stored results is what these say."""

from __future__ import annotations

import inspect
import json
import re
import statistics
import tomllib

import pytest
import yaml

from benchmarks.gpu_check import TASKS
from dlrunner import LoadedRun
from dlrunner.config.suggestions import PROVIDED
from dlrunner.data_audit import AuditFinding
from dlrunner.model import Model
from dlrunner.models.vision.backbones import BACKBONES
from dlrunner.task import Task
from dlrunner.tasks.collab.defaults import recommended_for
from dlrunner.tasks.image.defaults import recommended_for as for_images
from dlrunner.tasks.tabular.defaults import recommended_for as for_tables
from dlrunner.tasks.text.defaults import recommended_for as for_texts
from tests.conftest import REPOSITORY
from tests.docs.test_pages import NUMBERS


def page(name: str) -> str:
    """Return the text of a page with single spaces."""
    return " ".join((REPOSITORY / name).read_text("utf-8").split())


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_defaults_for_ratings_are_those_of_the_rule() -> None:
    text = page("docs/collab.md")
    shown = re.findall(r"([\d,]+): (\d+) epochs in batches of ([\d,]+), decay (\d+\.?\d*) and (\.\d+)", text)
    assert len(shown) == 3
    for rows, *values in shown:
        found = recommended_for(int(number(rows)), ["model.most_rated"], 1)
        assert [found["epochs"], found["batch_size"], *found["optim.weight_decay"]] == [number(each) for each in values]
    (found,) = re.findall(r"fewer than (\d+) training ratings on average \((\d+): ([\d.]+)\)", text)
    limit, few, decay = map(float, found)
    of_users = {n: recommended_for(10**6, ["model.most_rated"], round(10**6 / n)) for n in (limit + 1, limit - 1, few)}
    decays = [each["optim.weight_decay"][0] for each in of_users.values()]
    assert decays[0] == 2.5 < decays[1]
    assert decays[2] == decay


def test_the_defaults_for_tables_are_those_of_the_rule() -> None:
    _, text = (REPOSITORY / "docs" / "tabular.md").read_text("utf-8").split("### Defaults\n")
    rows = re.findall(r"^\| ([\d,]+) \|(.*)\|$", text.partition("\n#")[0], re.MULTILINE)
    assert len(rows) == 4
    for count, cells in rows:
        found = for_tables(int(number(count)))
        names = ("batch_size", "epochs", "model.bins", "model.num_nets", "model.dropouts", "optim.weight_decay")
        assert [found[name] for name in names] == [number(cell) for cell in cells.split("|")]


def test_the_defaults_for_images_are_those_of_the_rule() -> None:
    (first, *others) = re.findall(
        r"([\d,]+)(?:(?: are trained)? on)? in batches of (\d+) for (\d+)", page("docs/images.md")
    )
    assert len(others) == 2
    for count, size, epochs in (first, *others):
        assert for_images(int(number(count))) == {"batch_size": int(size), "epochs": int(epochs)}


def test_the_defaults_for_texts_are_those_of_the_rule() -> None:
    shown = r"(\d+) to (\d+) epochs \(with an encoder (\d+) at most\), ([\d,]+) steps"
    ((least, most, with_encoder, steps),) = re.findall(shown, page("docs/text.md"))
    few, many = (for_texts(count, has_encoder=False)["epochs"] for count in (10, 10**6))
    assert (many, few, for_texts(10, has_encoder=True)["epochs"]) == (int(least), int(most), int(with_encoder))
    middle = for_texts(4_000, has_encoder=False)
    assert middle["epochs"] * 4_000 / middle["batch_size"] == number(steps)


def test_the_readme_names_the_extras() -> None:
    (shown,) = re.findall(r"Extras: (.*?)\.\s", page("README.md"))
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*re.findall(r"`([\w]+)`", shown)} == {*extras} - {"docs", "dev"}


@pytest.mark.parametrize("model", ["image_classifier", "unet"])
def test_the_backbones_that_there_are_are_listed(model: str) -> None:
    text = (REPOSITORY / "conf" / "model" / f"{model}.yaml").read_text()
    (comment,) = re.findall(r"^backbone:.*# (.*)$", text, re.MULTILINE)
    listed = set()
    for each in comment.split(", "):
        first, *others = each.split("/") if not each.startswith("timm/") else [each]
        listed |= {first, *(first.rstrip("0123456789") + other for other in others)}
    assert listed == {*BACKBONES, "timm/NAME"}


@pytest.mark.parametrize(("base", "kind"), [(Task, "task"), (Model, "model")])
def test_what_a_constructor_may_ask_for_is_in_the_docstring(base: type, kind: str) -> None:
    text = inspect.getdoc(base) or ""
    assert {name for name in PROVIDED[kind] if f"`{name}`" in text} == PROVIDED[kind]


def test_the_table_of_loaded_runs_has_every_task() -> None:
    names = {file.stem for file in (REPOSITORY / "conf" / "task").glob("*.yaml")}
    rows = [line for line in (LoadedRun.__doc__ or "").splitlines() if line.strip().startswith("|")]
    assert names <= {name for row in rows for name in re.findall(r"[\w-]+", row.split("|")[1])}


def test_a_warning_of_the_audit_is_shown_as_it_is_printed() -> None:
    line = f"warning: {AuditFinding('validates-on-test', 'MESSAGE', 'ADVICE')}"
    assert f"`{line.replace('validates-on-test', 'FLAG')}`" in page("docs/claims.md")


def test_the_troubleshooting_page_has_messages_that_there_are() -> None:
    sources = [file.read_text("utf-8") for file in (REPOSITORY / "src").rglob("*.py")]
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text("utf-8")
    cells = re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE)
    assert len(cells) > 8
    value = r"[…;]|'\w+'|\b(?:lr|price|nan|the code|last\.pt)\b"  # or an example of one
    for cell in cells:
        parts = re.split(value, cell.removeprefix("warning: "))
        texts = [text for part in parts if " " in (text := part.strip(" :;?"))]
        assert texts, cell
        for text in texts:
            assert any(text in source for source in sources), cell


def test_the_standard_deviations_of_claims_are_those_of_the_results() -> None:
    compared = 0
    for result in json.loads((REPOSITORY / "docs" / "results.json").read_text()):
        file = REPOSITORY / "conf" / "experiment" / f"{result['experiment']}.yaml"
        declared = yaml.safe_load(file.read_text())["claim"].get("std")
        if declared is not None and len(result["seeds"]) >= 5:
            assert declared == pytest.approx(statistics.stdev(result["values"]), abs=0.5e-4), file.name
            assert "over the seeds 0 to 4" not in file.read_text() or result["seeds"] == [0, 1, 2, 3, 4]
            compared += 1
    assert compared > 5


def test_the_gpu_check_is_said_to_check_as_many_tasks_as_it_does() -> None:
    count = f"{NUMBERS[len(TASKS)]} tasks"
    assert f"make gpu-check # {count}" in page("benchmarks/gpu.md")
    assert f"## check {count} on this GPU" in page("Makefile")


def test_times_and_memory_of_growth_are_those_that_were_measured() -> None:
    sizes = json.loads((REPOSITORY / "benchmarks" / "results-growth-cpu.json").read_text())["sizes"]
    scaling = page("docs/scaling.md")

    def taken(kind: str, size: int, between: str = "s and") -> str:
        first = sizes[kind][str(size)]["first"]
        memory = f"{first['peak_memory_mb'] / 1024:.1f}".removeprefix("0")
        return f"{first['seconds']:.0f} {between} {memory} GB"

    for kind, size, shown in (
        ("ratings", 25_000_000, "reported on in {}"),
        ("ratings", 1_000_000, "a million in {}"),
    ):
        assert shown.format(taken(kind, size, "s with")) in scaling
    assert f"A million rows of 40 columns take {taken('tables', 1_000_000)}" in scaling
    assert f"10 million {taken('tables', 10_000_000)}" in scaling
    for size in (5_000_000, 25_000_000):
        assert taken("ratings", size) in page("docs/collab.md")
    ends = [f"{sizes['jobs'][str(size)]['results']['seconds']:.1f} s" for size in (10, 100, 1000)]
    shown = "with 10 finished jobs ends after {}, with 100 after {} and with 1,000 after {}".format(*ends)
    assert shown in page("docs/sweeps.md")
    assert f"With 1,000 finished jobs the same sweep command ends after {ends[-1]}" in scaling
