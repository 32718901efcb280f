"""Links of the documentation lead somewhere, pages are in the site, and the site builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.docs.pages import PAGES, name_of

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), target


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text("utf-8").splitlines()) <= 200


def test_the_numbers_of_the_readme_are_those_of_the_pages() -> None:
    readme, results = ((REPOSITORY / name).read_text("utf-8") for name in ("README.md", "docs/results.md"))
    verdicts = [line.split("|")[6].strip(" *") for line in results.splitlines() if line.startswith("| `")]
    counts = [sum(each.startswith(word) for each in verdicts) for word in ("reached", "not distinguishable", "missed")]
    expected = "Of {} claims.*?{} are reached, {} not distinguishable with the seeds at hand, {} missed".format(
        *(NUMBERS[count] for count in (len(verdicts), *counts))
    )
    assert re.search(expected, readme, re.DOTALL)
    speed = (REPOSITORY / "docs" / "speed.md").read_text("utf-8")
    cells = [line.split("|")[4:6] for line in speed.splitlines() if line.endswith("times |")]
    for name, column in zip(("fastai", "Lightning"), zip(*cells, strict=True), strict=True):
        values = [float(cell.split()[0]) for cell in column if cell.strip() != "-"]
        assert f"{min(values):.1f} to {max(values):.1f} times as fast as {name}" in readme


def test_every_page_is_in_the_site() -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text("utf-8")
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    listed = set(re.findall(r"[\w-]+\.md\b", text[text.index("nav:\n  - ") :]))
    assert pages <= listed
    assert yaml.safe_load(text)["site_name"] == "dlrunner"


@pytest.mark.slow  # builds all pages; links and the list of pages are tested above
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    clean = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # a note on MkDocs 2, which is excluded
    done = subprocess.run(words, cwd=REPOSITORY, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    text = (tmp_path / "site" / "api.html").read_text("utf-8")
    for name in ("dlrunner.load", "LoadedRun", "Predictor", "ConfigError"):
        assert name in text
    assert "docs/" not in re.findall(r'href="([^"#]+)', (tmp_path / "site" / "index.html").read_text("utf-8"))
