"""What every report must be, whatever stands in it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from dlrunner.reporting.html import page

EVIL = "<script>alert(1)</script>\"'><img src=http://x.example/y onerror=alert(1)>{style}&lt;"

SCRIPT = (Path(page.__file__).parent / "script.js").read_text()


class Parsed(HTMLParser):
    """All tags of a page with their attributes, and the texts of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> Any:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts.append(data)


def assert_harmless(html: str) -> None:
    """Assert that the page's own script is its only one and that nothing in it comes from outside."""
    found = Parsed(html)
    assert found.scripts == [SCRIPT]
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert not {tag for tag, _ in found.tags} & {"iframe", "object", "embed", "link", "base", "form", "video", "audio"}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        assert (attributes.get("src") or "data:").startswith("data:"), attributes
        address = attributes.get("href") or "#"
        assert ":" not in address, address
        assert not address.startswith("/"), address
