"""Downloads: checked, shown in a terminal only, told as a sentence when they fail; and where prepared data is kept."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dlrunner.data.core.cache import cache_dir
from dlrunner.data.core.source import Release, download
from dlrunner.errors import ConfigError, DataError


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    monkeypatch.delenv("DLRUNNER_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "*")
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "a.zip", "w") as archive:
        archive.writestr("a/layout.csv", "x" * 10_000)
    digest = hashlib.sha256((served / "a.zip").read_bytes()).hexdigest()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.zip"
        yield Release("a", "Data A", ("layout.csv",), ("a",), "terms", "its home", url, digest)
        server.shutdown()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_download_draws_its_bar_in_a_terminal_only(
    release: Release,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    monkeypatch.setattr("dlrunner.data.core.source.DELAY", 0.0)
    assert download(release, tmp_path / "data").path == tmp_path / "data" / "a.zip"
    out, err = capsys.readouterr()
    assert ("Data A" in err) == is_terminal
    assert not out
    assert is_terminal or not err


def test_a_download_of_another_content_is_refused_and_leaves_nothing(release: Release, tmp_path: Path) -> None:
    other = Release(*(release.name, release.title, release.layouts, release.archives, "", "its home", release.url, "0"))
    with pytest.raises(DataError, match=r"Data A could not be downloaded from its home .*hash"):
        download(other, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_prepared_data_is_kept_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLRUNNER_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == Path("/home/ada/.cache/dlrunner")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast/cache")
    assert cache_dir() == Path("/fast/cache/dlrunner")
    monkeypatch.setenv("DLRUNNER_CACHE", "~/mine")
    assert cache_dir() == Path("/home/ada/mine")
    monkeypatch.setenv("DLRUNNER_CACHE", "~nosuchuser/x")
    with pytest.raises(ConfigError, match="no home folder"):
        cache_dir()
