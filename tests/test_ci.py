"""What CI does is what `make` does, and its nightly matrix leaves no claim out."""

from __future__ import annotations

import fnmatch
import json
import re
import statistics
import subprocess
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def steps(file: Path) -> list[dict[str, Any]]:
    workflow = yaml.safe_load(file.read_text())
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_call_targets_of_the_makefile_and_nothing_else(file: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    commands = [step["run"] for step in steps(file) if "run" in step]
    assert commands
    for command in commands:
        assert "\n" not in command.strip()
        assert re.fullmatch(r"make ([a-z-]+)( [A-Z]+=\S+| [A-Z]+='[^']*')*", command.strip()), command
        assert command.split()[1] in targets


def test_checks_run_on_the_oldest_and_the_newest_python_that_the_package_lists() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "checks.yml").read_text())
    versions = workflow["jobs"]["checks"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed = [line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert versions == [listed[0], listed[-1]]
    assert project["requires-python"] == f">={listed[0]}"
    assert True in workflow  # YAML reads the key `on` as a truth value
    assert "push" in workflow[True]


def test_the_nightly_matrix_covers_every_claim_that_was_measured_once_and_uploads_what_was_written() -> None:
    """A claim that has no result yet takes longer than a job may, or needs what no runner has."""
    file = REPOSITORY / ".github" / "workflows" / "nightly.yml"
    workflow = yaml.safe_load(file.read_text())
    job = workflow["jobs"]["claims"]
    patterns = job["strategy"]["matrix"]["claims"]
    results = json.loads((REPOSITORY / "docs" / "results.json").read_text())
    seconds = {each["experiment"]: statistics.fmean(each["seconds"]) for each in results}
    experiments = (REPOSITORY / "conf" / "experiment").glob("*.yaml")
    claimed = [file.stem for file in experiments if "claim" in yaml.safe_load(file.read_text())]
    assert claimed
    for name in claimed:
        assert sum(fnmatch.fnmatch(name, pattern) for pattern in patterns) == (name in seconds), name
    (seeds,) = re.findall(r"SEEDS=(\d+)", file.read_text())
    for pattern in patterns:
        needed = int(seeds) * sum(seconds[name] for name in fnmatch.filter(claimed, pattern))
        assert needed < 60 * job["timeout-minutes"], pattern
    (uploaded,) = (step["with"]["path"] for step in steps(file) if "upload-artifact" in step.get("uses", ""))
    shown = subprocess.run(["make", "-n", "reproduce"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert f"--out {Path(uploaded).parent}" in shown.stdout
    assert "dlrun reproduce '*' --seeds 5" in shown.stdout


def test_installing_keeps_a_torch_that_is_there() -> None:
    """Versions are pinned in constraints.txt, for the project's own environment; the package asks for a minimum."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (torch,) = [line for line in project["dependencies"] if line.startswith("torch")]
    assert re.fullmatch(r"torch>=[\d.]+", torch)


def test_every_dependency_is_imported() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    sources = "\n".join(file.read_text() for file in (REPOSITORY / "src").rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", sources, re.MULTILINE))
    installed = packages_distributions()
    for dependency in project["dependencies"]:
        name = re.split(r"[><=\[]", dependency)[0]
        modules = {module for module, by in installed.items() if name in map(str.lower, by)}
        assert modules & imported, name


def test_running_installs_no_tools_for_development() -> None:
    shown = subprocess.run(["make", "-n", "-B", "run"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "-e ." in shown.stdout
    assert "[dev]" not in shown.stdout
    shown = subprocess.run(["make", "-n", "-B", "test"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "[dev]" in shown.stdout


def test_speed_is_compared_nightly_on_a_runner_that_was_chosen_for_it() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "nightly.yml").read_text())
    job = workflow["jobs"]["speed"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make bench-check"]
    assert "SPEED_RUNNER" in job["if"]
    assert "SPEED_RUNNER" in job["runs-on"]
