"""--quiet, --verbose and --log-level are one setting, which changes what is shown and no result."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dlrunner.runs.log import logged
from tests.conftest import QUICK, Dlrun

RUN = ("task=collab", "data.source=synthetic", "epochs=1", "batch_size=512", *QUICK)


def test_a_quiet_run_prints_its_folder_alone_and_warnings_on_standard_error(dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun(*RUN, "--quiet")
    assert status == 0
    assert (here / out.strip() / "summary.json").exists()
    assert len(out.splitlines()) == 1
    assert "warning: synthetic data" in err
    assert "epoch" not in err
    _, again, err = dlrun("-q", *RUN)
    assert (again, err) == (out, "")
    _, folder, _ = dlrun(*RUN)
    assert out.strip() in folder, "the level changes no result"


@pytest.mark.slow  # a sweep of programs; a quiet run is tested above
def test_a_quiet_sweep_prints_its_folder_alone_and_failures_on_standard_error(dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun("-m", *RUN, "seed=0,1", "--log-level", "warning")
    assert status == 0
    assert (here / out.strip() / "results.csv").exists()
    assert len(out.splitlines()) == 1
    (here / "t.csv").write_text("x,y\n" + "".join(f"{n},{n % 7}\n" for n in range(40)))
    status, out, err = dlrun("-m", "task=tabular", "data.path=t.csv", "data.target=y,z", "epochs=1", *QUICK, "-q")
    assert status == 1
    assert len(out.splitlines()) == 1
    assert "FAILED" in err
    assert "'z'" in err


@pytest.mark.parametrize("option", ["--verbose", "-v", "--log-level=debug"])
def test_a_verbose_run_shows_its_log_with_timings(option: str, dlrun: Dlrun, here: Path) -> None:
    status, out, err = dlrun(*RUN, option)
    assert status == 0
    assert "valid/rmse" in out
    assert "DEBUG trained until" in err
    assert "DEBUG trained until" in (here / "runs" / "latest" / "run.log").read_text()


def test_a_terminal_shows_no_message_of_a_verbose_run_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("dlrunner")
    for is_terminal, shown in ((False, ["dlrun a=1", "a note", "timings"]), (True, ["timings"])):
        monkeypatch.setattr("sys.stdout.isatty", lambda answer=is_terminal: answer, raising=False)
        monkeypatch.setattr("sys.stderr.isatty", lambda answer=is_terminal: answer, raising=False)
        with logged(tmp_path, ["a=1"], debug=True):
            log.info("a note")
            log.debug("timings")
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(" ", 3)[3] for line in lines] == shown
        assert "a note" in (tmp_path / "run.log").read_text()


def test_an_unknown_level_and_a_missing_one_are_refused(dlrun: Dlrun) -> None:
    status, _, err = dlrun(*RUN, "--log-level=loud")
    assert (status, "log.level: must be 'warning', 'info' or 'debug'" in err) == (2, True)
    status, _, err = dlrun(*RUN, "--log-level")
    assert (status, "needs a level" in err) == (2, True)
