"""ls, tag, rm, prune, du, recipe, and the run that the words of a verb mean."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import dlrunner
from dlrunner.config.plan import plan
from dlrunner.data.core.cache import CACHE_KINDS
from dlrunner.runs.reader import FinishedRun
from tests.conftest import QUICK, Dlrun
from tests.fake_runs import write_run, write_sweep

WORDS = ("task=collab", "data.path=my.csv", "epochs=1", *QUICK)


def fake(name: str, value: float | None = 0.9, settings: Any = None, **summary: Any) -> Path:
    """Write a run that rm accepts."""
    path = write_run(Path("runs") / "collab" / name, value, settings, **summary)
    (path / "run.json").write_text("{}")
    return path


@pytest.fixture
def swept(here: Path) -> list[Path]:
    """Four runs: two of a sweep, of which one failed; one alone; one that starts from the weights of that one."""
    jobs = [fake("seed=0-00000001"), fake("seed=1-00000002", None, status="failed", error="diverged")]
    alone = fake("alone-00000003")
    later = fake("init-00000004", 0.8, {"init": str(alone)})
    folder = write_sweep(Path("runs/sweeps/collab,seed=0_1-00000005"), jobs)
    (folder / "jobs").mkdir()
    return [*jobs, alone, later]


def test_ls_lists_runs_and_marks_the_jobs_of_sweeps(dlrun: Dlrun, swept: list[Path]) -> None:
    status, out, _ = dlrun("ls")
    assert status == 0
    assert out.splitlines()[0].split() == ["run", "age", "task", "status", "metric", "size", "settings"]
    assert {line.split()[0] for line in out.splitlines()[1:3]} == {"00000003", "00000004"}
    assert "… and 2 jobs of sweeps; --jobs lists them too" in out
    assert "… and 1 job of a sweep; --jobs lists it too" in dlrun("ls", "status=failed")[1]
    assert max(map(len, out.splitlines())) <= 80
    _, out, _ = dlrun("ls", "--jobs", "--sort", "metric")
    assert out.count(" * ") == 2
    assert out.splitlines()[1].split()[0] == "00000004"
    assert out.splitlines()[4].split()[0] == "00000002", "a run without the metric is last"
    assert dlrun("ls", "--jobs", "--sort", "-metric", "--top", "1")[1].splitlines()[1].split()[0] == "00000002"
    assert dlrun("ls", "task=collab", "status=done")[1].splitlines()[0].split() == [
        "run",
        "age",
        "metric",
        "size",
        "settings",
    ]
    assert "… 1 more; --top 2" in dlrun("ls", "--top", "1")[1]


def test_on_a_narrow_terminal_ls_shows_what_distinguishes_runs(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, words in enumerate(("seed=1", "seed=2", "optim.lr=0.01,seed=1")):
        fake(f"data.target=Miles_per_Gallon,batch_size=512,epochs=10,{words}-0000000{number}")
    monkeypatch.setattr("dlrunner.cli.listing.line_width", lambda: 80)
    header, *lines = dlrun("ls")[1].splitlines()
    assert header.split() == ["run", "age", "metric", "settings"]
    assert sorted(line.split()[-1] for line in lines) == ["lr=0.01,seed=1", "seed=1", "seed=2"]
    assert dlrun("ls", "--sort", "size")[1].splitlines()[0].split() == ["run", "age", "metric", "size", "settings"]
    fake("default-00000009", None, status="failed")
    assert "failed" in dlrun("ls")[1], "a status that is not the same in all runs stays"


def test_ls_prints_json_and_says_when_nothing_fits(dlrun: Dlrun, swept: list[Path]) -> None:
    found = json.loads(dlrun("ls", "status=failed", "--jobs", "--json")[1])
    assert [(each["run"], each["error"]) for each in found] == [("runs/collab/seed=1-00000002", "diverged")]
    assert found[0]["sweep"] == "runs/sweeps/collab,seed=0_1-00000005"
    assert json.loads(dlrun("ls", "status=interrupted", "--json")[1]) == []
    assert dlrun("ls", "status=interrupted")[:2] == (0, "no runs in runs/ that fit status=interrupted\n")
    assert dlrun("ls", "--sort", "epohs")[0] == 2


def test_ls_sorts_each_metric_by_itself_the_best_first(dlrun: Dlrun, here: Path) -> None:
    names = {"valid/rmse": (False, [210.5, 331.6, 41.0]), "valid/accuracy": (True, [0.7, 1.0, 0.8])}
    for number, (name, (higher, values)) in enumerate(names.items()):
        for each in values:
            path = Path("runs/tabular") / f"v={each}-0000000{number}"
            write_run(path, each, metric=name, higher_is_better=higher)
    found = [each["value"] for each in json.loads(dlrun("ls", "--sort", "metric", "--json")[1])]
    assert sorted([found[:3], found[3:]]) == [[1.0, 0.8, 0.7], [41.0, 210.5, 331.6]]
    found = [each["value"] for each in json.loads(dlrun("ls", "--sort", "-metric", "--json")[1])]
    assert sorted([found[:3], found[3:]]) == [[0.7, 0.8, 1.0], [331.6, 210.5, 41.0]]


def test_a_run_without_a_verb_and_a_run_that_is_not_there_are_answered_with_what_to_do(
    dlrun: Dlrun, here: Path
) -> None:
    path = fake("default-00000001")
    assert f"'{path}' is a run; a command begins with a verb: dlrun show {path}" in dlrun(str(path))[2]
    for words in (["show", "nosuch"], ["tag", "nosuch", "x"], ["rm", "nosuch"], ["compare", "nosuch"]):
        assert dlrun(*words)[2] == "dlrun: there is no run folder nosuch; `dlrun ls` lists the runs\n"


def test_a_sweep_in_the_place_of_a_run_is_answered_with_what_shows_it(dlrun: Dlrun, swept: list[Path]) -> None:
    folder = "runs/sweeps/collab,seed=0_1-00000005"
    for verb in ("show", "predict", "export", "replay"):
        status, _, err = dlrun(verb, folder)
        assert (status, f"{folder} is a sweep, not a run: `dlrun compare {folder}` ranks its jobs" in err) == (2, True)


def test_hydras_flags_without_their_values_are_answered_in_a_sentence(dlrun: Dlrun, here: Path) -> None:
    for words in (["--cfg"], ["--cfg", "jobs"], ["task=collab", "-c"]):
        status, out, err = dlrun(*words)
        assert (status, out, err.count("\n"), "must be followed by job, hydra, all" in err) == (2, "", 1, True)
    for word in ("-m", "--multirun"):
        status, out, err = dlrun(word)
        assert (status, out, f"dlrun: {word}: needs settings" in err) == (2, "", True)


def test_the_next_commands_name_a_run_by_its_id_where_its_folder_is_too_long(
    dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake("data.target=a_long_name,epochs=20,data.date=date,a=1-00000001")
    (path / "task.pt").touch()
    _, out, _ = dlrun("show", str(path))
    assert f"next     dlrun show {path}\n         dlrun predict {path} --help\n" in out, "in a file"
    monkeypatch.setattr("dlrunner.system.terminal.terminal_width", lambda stream=None: 80)
    _, out, _ = dlrun("show", "00000001")
    assert "next     dlrun show 00000001\n         dlrun predict 00000001 --help\n" in out
    shutil.move("runs", "elsewhere")
    assert "dlrun show elsewhere/" in dlrun("show", str(Path("elsewhere", *path.parts[1:])))[1], (
        "ids are those of runs/"
    )


def test_ls_of_two_hundred_runs_takes_less_than_half_a_second(dlrun: Dlrun, here: Path) -> None:
    first = fake("a-00000000", 0.9, {"data.target": "price"})
    for number in range(1, 200):
        shutil.copytree(first, first.with_name(f"a-{number:08x}"))
    started = time.process_time()
    assert "… 160 more" in dlrun("ls", "data.target=price")[1]
    assert time.process_time() - started < 0.5


def test_tags_are_given_and_taken(dlrun: Dlrun, swept: list[Path]) -> None:
    assert dlrun("tag", "00000003", "a", "b", "--name", "mine", "--note", "the old data")[0] == 0
    assert dlrun("tag", "mine", "c", "--remove", "a")[0] == 0
    _, out, _ = dlrun("show", "mine")
    for line in ("name     mine", "tags     b, c", "note     the old data"):
        assert line in out
    assert "mine: [b] [c] alone" in dlrun("ls", "tag=c")[1]
    assert dlrun("tag", "mine", "--name", "", "--note", "")[1].splitlines()[1:] == ["tags     b, c"]
    assert dlrun("tag", "00000003", "--name", "lr=0.1")[0] == 0
    for words in (("show",), ("tag",), ("rm",), ("compare", "00000001")):  # a name that looks like a condition
        _, out, err = dlrun(*words, "lr=0.1")
        assert ("2 runs" if words[0] == "compare" else "alone-00000003") in out + err, words
    assert dlrun("tag", "00000003", "--name", "mine")[0] == 0
    for words, said in ((("--remove", "x"), "has no tag x"), (("--name", "a/b"), "without slashes")):
        status, _, err = dlrun("tag", "00000003", *words)
        assert (status, said in err) == (2, True), err


def test_rm_keeps_what_others_use(dlrun: Dlrun, swept: list[Path]) -> None:
    for run, user in ((swept[0], "runs/sweeps/collab,seed=0_1-00000005"), (swept[2], str(swept[3]))):
        status, _, err = dlrun("rm", str(run), "--yes")
        assert (status, f"is used by {user}" in err) == (2, True), err
    assert dlrun("rm", str(swept[2]), str(swept[3]), "--yes")[0] == 0
    assert [path.exists() for path in swept] == [True, True, False, False]
    status, out, _ = dlrun("rm", "runs/sweeps/collab,seed=0_1-00000005", "--yes")
    assert (status, "removed 3 folders" in out) == (0, True)
    assert not any(path.exists() for path in swept)


def test_a_run_of_two_sweeps_stays_when_one_is_removed(dlrun: Dlrun, swept: list[Path]) -> None:
    other = write_sweep(Path("runs/sweeps/collab,other-00000006"), [swept[0]])
    (other / "jobs").mkdir()
    status, out, _ = dlrun("rm", str(other), "--yes")
    assert (status, swept[0].exists(), other.exists()) == (0, True, False)
    assert "kept: runs/collab/seed=0-00000001 is used by runs/sweeps/collab,seed=0_1-00000005" in out


def test_a_sweep_from_elsewhere_removes_nothing_outside_of_its_own_folder_of_runs(
    dlrun: Dlrun, swept: list[Path], here: Path
) -> None:
    shutil.copytree(here / "runs", here / "copy")
    assert dlrun("rm", "copy/sweeps/collab,seed=0_1-00000005", "--yes")[0] == 0
    assert not (here / "copy" / "collab" / swept[0].name).exists()
    assert all(path.exists() for path in swept)
    results = Path("runs/sweeps/collab,seed=0_1-00000005/results.csv")
    elsewhere = write_run(here / "elsewhere" / "a-00000009", 0.9)
    (elsewhere / "run.json").write_text("{}")
    for named in (elsewhere, Path("runs/..") / elsewhere.relative_to(here), Path("../elsewhere")):
        results.write_text(f"job,status,folder,error\n0,done,{named},\n")
        assert "elsewhere" not in dlrun("rm", str(results.parent))[1]
    assert elsewhere.exists()


def test_a_run_or_a_sweep_in_progress_is_not_removed(dlrun: Dlrun, swept: list[Path]) -> None:
    sweep = Path("runs/sweeps/collab,seed=0_1-00000005")
    for folder, named in ((swept[3], swept[3]), (sweep, sweep), (swept[0], sweep)):
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            status, _, err = dlrun("rm", str(named), "--yes")
        assert (status, f"{folder} is in progress" in err) == (2, True), err
    assert all(path.exists() for path in (*swept, sweep))


def test_another_folder_of_runs_is_named_as_in_the_settings(dlrun: Dlrun, swept: list[Path], here: Path) -> None:
    (here / "runs").rename(here / "mine")
    assert "no runs in runs/" in dlrun("ls")[1]
    assert "00000003" in dlrun("ls", "runs_dir=mine", "status=done")[1]
    assert dlrun("show", "runs_dir=mine", "metric<.85")[1].startswith("mine/collab/init-00000004")
    assert "mine/collab" in dlrun("du", "mine")[1]
    assert dlrun("prune", "runs_dir=mine", "--yes")[0] == 0
    assert not (here / "mine" / "collab" / swept[1].name).exists()


def test_nothing_is_removed_without_an_answer(dlrun: Dlrun, swept: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    for words in (("rm", str(swept[3])), ("prune",)):
        status, out, err = dlrun(*words)
        assert (status, "confirm with --yes" in err) == (2, True)
        assert "runs/collab/" in out
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, is_left in (("", True), ("n", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        dlrun("rm", str(swept[3]))
        assert swept[3].exists() == is_left
    for words, said in (
        (("0000",), "0000: 3 runs have this name"),
        ((".",), "is not the folder of a run"),
        (("x",), "there is no run folder x"),
        (("task=x",), "fits task=x"),
    ):
        status, _, err = dlrun("rm", *words, "--yes")
        assert (status, said in err) == (2, True), err


def test_prune_removes_failed_runs_and_then_finds_none(dlrun: Dlrun, swept: list[Path]) -> None:
    killed = fake("killed-00000007", status=None)
    status, out, _ = dlrun("prune", "--yes")
    assert (status, "removed 1 folder" in out) == (0, True)
    assert [path.exists() for path in (*swept, killed)] == [True, False, True, True, True]
    assert "nothing to remove" in dlrun("prune")[1]
    assert dlrun("prune", "--unfinished", "--yes")[0] == 0
    assert not killed.exists()


def test_a_run_that_succeeds_while_prune_asks_is_kept(
    dlrun: Dlrun, swept: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_: str) -> str:
        file = swept[1] / "summary.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "status": "done"}))
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    status, out, _ = dlrun("prune")
    assert (status, swept[1].exists()) == (0, True)
    assert "was failed and is done now" in " ".join(out.split())
    assert "removed 0 folders" in out


def test_prune_clears_the_cache_and_du_counts_it(
    dlrun: Dlrun, swept: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLRUNNER_CACHE", str(tmp_path))
    for name in ("pixels/a", "auto/b", "mine/c"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"0" * 2000)
    (swept[0] / "last.pt").write_bytes(b"0" * 5_000_000)
    _, out, _ = dlrun("du")
    assert re.search(r"runs/collab +4 +5.0 MB", out)
    assert re.search(r"pixels +2.0 KB", out)
    assert dlrun("prune", "--cache", "--yes")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "work") == ["auto", "mine"]


def test_every_folder_of_the_cache_is_known_to_prune() -> None:
    sources = Path(dlrunner.__file__).parent.rglob("*.py")
    used = {name for file in sources for name in re.findall(r'cache_dir\(\) / "([\w-]+)"', file.read_text())}
    assert used == {*CACHE_KINDS, "auto"}


def test_a_trained_run_is_found_used_and_written_as_a_recipe(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    assert dlrun(*WORDS, "model=dot", "name=dots", "tags=[a,b]", "note='of Monday'")[0] == 0
    assert dlrun(*WORDS, "model=dot_bias", "optim.lr=0.02", "model.factors=7")[0] == 0
    first, second = (
        Path(json.loads(dlrun("ls", f"model={name}", "--json")[1])[0]["run"]) for name in ("dot", "dot_bias")
    )
    assert json.loads((first / "tags.json").read_text()) == {"name": "dots", "tags": ["a", "b"], "note": "of Monday"}

    ratings_csv.with_name("new.csv").write_text("user,item\n1,i1\n")
    status, _, err = dlrun("predict", "task=collab", "data.path=my.csv", "new.csv")
    line = err.splitlines()[0]
    assert (status, len(line) <= 80) == (0, True)
    assert re.fullmatch(rf"run .*{second.name[-12:]}: collab, rmse \d\.\d+, \d+ s old, newest of 2", line), line
    for words in (("dots",), (first.name[-8:],), ("model=dot", "seed=0"), (str(first),)):
        err = dlrun("predict", *words, "new.csv")[2]
        assert f"{first.name[-12:]}: collab, rmse" in err.splitlines()[0]
        assert "newest" not in err
    status, _, err = dlrun("similar", "task=collab", "model=nothing", "i1")
    assert (status, "no finished run in runs fits task=collab model=nothing" in err) == (2, True)
    assert "note: the newest of 2 runs that fit" in dlrun("show", "task=collab")[2]
    assert dlrun("diff", "dots", "model.factors=7")[0] == 0

    (here / "conf" / "experiment").mkdir(parents=True)
    status, out, _ = dlrun("recipe", "model.factors=7")
    assert out.splitlines()[1].startswith("# dlrun task=collab data.path=my.csv epochs=1")
    (here / "conf" / "experiment" / "mine.yaml").write_text(out)
    from dlrunner.cli.compose import compose

    signature = plan(compose(["experiment=mine"])).signature
    assert signature == second.name[-8:] == plan(FinishedRun.read(second).config).signature
    status, out, _ = dlrun("experiment=mine", *QUICK)
    assert "already finished" in out


def test_a_recipe_says_what_a_file_cannot_express(dlrun: Dlrun, here: Path) -> None:
    path = fake("removed-00000001", typed=())
    (path / "overrides.yaml").write_text("['task=collab', '~optim.weight_decay']")
    status, _, err = dlrun("recipe", str(path))
    assert (status, "add '~optim.weight_decay' to the command" in err) == (0, True)


@pytest.mark.parametrize("name", ["movielens-dot-bias", "rossmann-best", "imdb-sentiment", "dogbreeds-finetune"])
def test_the_recipe_of_an_experiment_has_its_signature(name: str, here: Path) -> None:
    from dlrunner.cli.compose import compose
    from dlrunner.cli.recipe import experiment_of

    config = compose([f"experiment={name}"])
    (here / "conf" / "experiment").mkdir(parents=True)
    (here / "conf" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{experiment_of(config)}")
    assert plan(compose(["experiment=mine"])).signature == plan(config).signature


def test_names_and_tags_do_not_change_a_run(dlrun: Dlrun, ratings_csv: Path) -> None:
    dlrun(*WORDS, "tags=[a]")
    status, out, _ = dlrun(*WORDS, "tags=b", "name=later")
    assert (status, "already finished" in out) == (0, True)
    assert "later: [a] [b] " in dlrun("ls")[1]
    status, _, err = dlrun(*WORDS, "tags=[a/b]")
    assert (status, "tags[0]: must be a name without slashes" in err) == (2, True)
    shutil.copy("runs/latest/summary.json", "summary.json")
    assert "name: later" in Path(dlrun("report", "later")[1].split()[1]).read_text()


def test_latest_is_never_a_failed_run(dlrun: Dlrun, ratings_csv: Path) -> None:
    dlrun(*WORDS)
    before = Path("runs/latest").resolve()
    assert dlrun(*WORDS, "optim=sgd", "model=dot", "optim.lr=1e20", "schedule=constant")[0] == 1
    assert Path("runs/latest").resolve() == before
    Path("runs/latest").unlink()
    assert f"{before.name}" in dlrun("show")[1].splitlines()[0]


def test_a_clone_in_the_working_directory_disturbs_nothing(dlrun: Dlrun, here: Path) -> None:
    from dlrunner.config.conf_files import package_conf

    expected = dlrun("--cfg", "job", "task=collab", "optim=adam")
    shutil.copytree(package_conf(), here / "conf")
    assert dlrun("--cfg", "job", "task=collab", "optim=adam") == expected
    assert expected[0] == 0
    with (here / "conf" / "optim" / "adam.yaml").open("a") as file:
        file.write("eps: 1\n")
    status, _, err = dlrun("--cfg", "job", "task=collab")
    assert (status, "conf/optim/adam.yaml has the name of one of dlrunner's own options" in err) == (2, True)
