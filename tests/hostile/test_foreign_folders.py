"""A run folder that came from elsewhere writes nowhere and shows nothing that is not its own."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
import yaml

import dlrunner
from dlrunner.cli import main
from dlrunner.config.plan import plan
from dlrunner.errors import ConfigError, RunError
from dlrunner.runs.directory import RunDirectory, refuse_links
from dlrunner.runs.labels import run_label
from dlrunner.runs.reader import FinishedRun
from tests.conftest import QUICK, Dlrun
from tests.small_runs import SmallRuns

SECRET = "root:x:0:0:a-secret"
NAMES = ("../../../out", "..", ".", "/tmp/out", "a/b", "a\\b", "a\0b", ".hidden", "a\nb", "x" * 300, "", "\x1b[2J")
FILES = ("config.yaml", "overrides.yaml", "metrics.jsonl", "summary.json")


@pytest.fixture
def foreign(runs: SmallRuns, here: Path) -> Path:
    """A run folder of an ensemble, deep enough that a name could lead out of it."""
    place = here / "got" / "runs" / "collab" / "theirs-0a1b2c3d"
    shutil.copytree(runs["several of ratings"], place)
    (here / "secret").write_text(SECRET)
    return place


def everything(here: Path) -> set[str]:
    return {str(path.relative_to(here.parent)) for path in here.parent.rglob("*")}


@pytest.mark.parametrize("name", NAMES)
def test_no_name_in_a_configuration_reaches_the_file_system(name: str, foreign: Path, dlrun: Dlrun, here: Path) -> None:
    config = yaml.safe_load((foreign / "config.yaml").read_text())
    for part, wrong in (
        ("choices.task", {"choices": {**config["choices"], "task": name}}),
        ("choices.experiment", {"choices": {**config["choices"], "experiment": name}}),
        (
            "log.trackers",
            {"log": {**config["log"], "trackers": {name: {"_target_": "dlrunner.trackers.mlflow.Mlflow"}}}},
        ),
    ):
        (foreign / "config.yaml").write_text(yaml.safe_dump({**config, **wrong}))
        before = everything(here)
        with pytest.raises(ConfigError, match=part):
            plan({**config, **wrong})
        if not part.startswith("log"):  # a replay has no trackers
            status, _, err = dlrun("replay", str(foreign))
            assert status == 2
            assert f"{part}: must be a name without slashes" in err or "must be a non-empty text" in err
        assert everything(here) == before


def test_the_name_of_an_experiment_is_no_part_of_a_path() -> None:
    for name in NAMES[:-2]:
        label = run_label([], {"experiment": name})
        assert not set("/\\\0\n") & set(label)
        assert not label.startswith(".")
        assert len(label) < 100


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_out_of_the_folder_is_not_read(
    name: str, foreign: Path, dlrun: Dlrun, here: Path
) -> None:
    shutil.copy(foreign / name if (foreign / name).exists() else foreign / "members/0/metrics.jsonl", here / "theirs")
    (foreign / name).unlink(missing_ok=True)
    (foreign / name).symlink_to(here / "theirs")
    with pytest.raises(ConfigError, match="points outside its folder"):
        FinishedRun.read(foreign)
    for words in (["show"], ["report"], ["export"], ["replay"], ["predict"]):
        status, _, err = dlrun(*words, str(foreign))
        assert status == 2
        assert "is a link that points outside its folder" in err


def test_members_are_those_of_the_folder(foreign: Path, dlrun: Dlrun, here: Path) -> None:
    for name in ("x", "-1", "1e3", "\u0663"):  # the last one is a digit too
        (foreign / "members" / name).mkdir()
    assert len(dlrunner.load(foreign).models) == 2
    for words in (["show"], ["report"], ["export", "--out", "out"]):
        assert dlrun(words[0], str(foreign), *words[1:])[0] == 0
    shutil.move(foreign / "members", here / "members")
    (foreign / "members").symlink_to(here / "members")
    for words in (["show"], ["report"], ["export", "--out", "out"], ["replay"]):
        status, _, err = dlrun(words[0], str(foreign), *words[1:])
        assert (status, "points outside" in err) == (2, True), (words, err)


def test_a_report_shows_pictures_of_its_folder_alone(foreign: Path, dlrun: Dlrun, here: Path) -> None:
    hidden = base64.b64encode(SECRET.encode()).decode()
    picture = here / "private.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + SECRET.encode() * 3)
    plots = foreign / "plots"
    (foreign / "report.json").unlink(missing_ok=True)
    plots.mkdir(exist_ok=True)
    for name, target in {"a.png": here / "secret", "b.png": picture, "c.png": Path("/dev/zero")}.items():
        (plots / name).symlink_to(target)
    (plots / "d.png").write_text(SECRET)
    (plots / "e.png").write_text(f"<svg><script>{SECRET}</script></svg>")
    (plots / "f.png").mkdir()
    (plots / "g.png").symlink_to("d.png")
    with (plots / "h.png").open("wb") as file:
        file.truncate(2**33)
    assert dlrun("report", str(foreign))[0] == 0
    page = (foreign / "report.html").read_text()
    assert hidden[:16] not in page
    assert SECRET not in page
    assert "<img" not in page
    shutil.rmtree(plots)
    (here / "elsewhere").mkdir()
    shutil.copy(picture, here / "elsewhere" / "a.png")
    plots.symlink_to(here / "elsewhere")
    assert dlrun("report", str(foreign))[0] == 0
    assert "<img" not in (foreign / "report.html").read_text()


def test_nothing_is_written_through_a_link(foreign: Path, here: Path) -> None:
    target = here / "theirs"
    target.mkdir()
    (target / "file").write_text("mine")
    for name in ("plots", "members", "trackers", "run.log", "members/0"):
        folder = here / "runs" / "collab" / "a-0a1b2c3d"
        shutil.rmtree(here / "runs", ignore_errors=True)
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to(target / "file" if "." in name else target)
        with pytest.raises(RunError, match="points outside its folder; remove it"):
            RunDirectory.claim(here / "runs", "collab", "a", {"signature": "0a1b2c3d"})
    shutil.rmtree(here / "runs")
    (here / "runs" / "collab").mkdir(parents=True)
    (here / "runs" / "collab" / "a-0a1b2c3d").symlink_to(target)
    with pytest.raises(RunError, match="points outside"):
        RunDirectory.claim(here / "runs", "collab", "a", {"signature": "0a1b2c3d"})
    assert [path.name for path in target.iterdir()] == ["file"]
    assert (target / "file").read_text() == "mine"


def test_links_within_a_folder_and_above_it_are_nobodys_business(here: Path) -> None:
    (here / "disk").mkdir()
    (here / "runs").symlink_to(here / "disk")
    run, _ = RunDirectory.claim(here / "runs", "collab", "a", {"signature": "0a1b2c3d"})
    (run.path / "other.log").symlink_to("run.log")
    (run.path / "wandb" / "run-1" / "logs").mkdir(parents=True)
    (run.path / "wandb" / "run-1" / "logs" / "debug-core.log").symlink_to(here / "elsewhere.log")  # as W&B does
    run.release()
    RunDirectory.claim(here / "runs", "collab", "a", {"signature": "0a1b2c3d"})[0].release()
    refuse_links(run.path, here / "disk")


def test_the_folders_of_a_sweep_are_its_own(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=1", "seed=0,1", "log.progress=none", *QUICK)
    assert main(words) == 0
    (folder,) = (here / "runs" / "sweeps").iterdir()
    (here / "mine").write_text("mine")
    (folder / "jobs" / "0" / "output.txt").unlink()
    (folder / "jobs" / "0" / "output.txt").symlink_to(here / "mine")
    status, _, err = dlrun(*words)
    assert status == 1
    assert "output.txt is a link that points outside its folder" in err
    assert (here / "mine").read_text() == "mine"


def test_an_export_is_not_written_through_a_link(foreign: Path, dlrun: Dlrun, here: Path) -> None:
    assert dlrun("export", str(foreign), "--out", "good")[0] == 0
    (foreign / "export").symlink_to(here / "good")
    status, _, err = dlrun("export", str(foreign))
    assert status == 2
    assert "points outside its folder" in err
