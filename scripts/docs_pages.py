"""Pages of the documentation site that are files outside docs/: README, CONTRIBUTING, benchmarks/, notebooks/."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository and their names on the site."""
FOLDERS = {"benchmarks/": "benchmarks.md", "notebooks/": "notebooks.md"}
"""Folders, and the lists of their pages."""
CONTROL = re.compile(r"\x1b\[[0-9;]*m")
"""Colours of a terminal."""


def benchmark_pages() -> list[Path]:
    """Return the pages of results in benchmarks/, in order."""
    return sorted((ROOT / "benchmarks").glob("*.md"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those of docs/."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text("utf-8")))
    listed = ["# Benchmarks", ""]
    for page in benchmark_pages():
        text = page.read_text("utf-8")
        files.append(File.generated(config, f"benchmarks/{page.name}", content=text))
        listed.append(f"- [{title(text)}](benchmarks/{page.name})")
    for plot in sorted((ROOT / "benchmarks").glob("*.svg")):
        files.append(File.generated(config, f"benchmarks/{plot.name}", content=plot.read_bytes()))
    files.append(File.generated(config, "benchmarks.md", content="\n".join([*listed, ""])))
    listed = ["# Notebooks", ""]
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = "\n\n".join(cell_text(cell) for cell in json.loads(notebook.read_text("utf-8"))["cells"]) + "\n"
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
        listed.append(f"- [{title(text)}](notebooks/{notebook.stem}.md)")
    files.append(File.generated(config, "notebooks.md", content="\n".join([*listed, ""])))
    return files


def cell_text(cell: dict[str, Any]) -> str:
    """Return a cell of a notebook as Markdown, with its outputs."""
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if picture := data.get("image/png"):
            parts.append(f'<img alt="plot" src="data:image/png;base64,{picture.strip()}">')
        elif shown := "".join(output.get("text") or data.get("text/plain") or ""):
            parts.append(f"```text\n{CONTROL.sub('', shown).rstrip()}\n```")
    return "\n\n".join(parts)


def title(text: str) -> str:
    """Return the first heading of a page.

    >>> title("# Speed (cpu)\\n\\ntext")
    'Speed (cpu)'
    """
    return text.partition("# ")[2].partition("\n")[0]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Change the links of a page from places in the repository to pages of the site."""
    return site_links(markdown, page.file.src_uri)


def site_links(markdown: str, uri: str) -> str:
    """Return a page with links to pages of the site instead of files of the repository.

    >>> site_links("[a](docs/data.md#x) [b](CONTRIBUTING.md) ![c](docs/images/c.png)", "index.md")
    '[a](data.md#x) [b](contributing.md) ![c](images/c.png)'
    >>> site_links("[a](../benchmarks/gpu.md) [b](../README.md) [c](../benchmarks/)", "tabular.md")
    '[a](benchmarks/gpu.md) [b](index.md) [c](benchmarks.md)'
    """
    if uri.startswith(("benchmarks", "notebooks")):
        return markdown
    is_from_docs = uri not in PAGES.values()

    def present(found: re.Match[str]) -> str:
        target = found[1]
        if is_from_docs and not target.startswith("../"):
            return found[0]
        place = target.removeprefix("../").removeprefix("docs/")
        name, mark, anchor = place.partition("#")
        name = {**PAGES, **FOLDERS}.get(name, name)
        return f"]({name}{mark}{anchor})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", present, markdown)
