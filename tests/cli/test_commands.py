"""The verbs and flags, as a person types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlrunner.cli import main
from tests.conftest import QUICK, Dlrun


def test_help_is_one_screen_that_shows_verbs_tasks_and_settings(dlrun: Dlrun) -> None:
    status, out, _ = dlrun("--help")
    assert status == 0
    assert len(out.splitlines()) <= 56
    assert max(map(len, out.splitlines())) <= 80
    for word in (
        "-m task=",
        "collab",
        "movielens",
        "dot_bias",
        "adamw",
        "one_cycle",
        "movielens-{best",
        "optim.lr=",
        "DLRUNNER_DATA",
    ):
        assert word in out
    assert dlrun()[1] == out


def test_every_verb_that_help_names_exists(dlrun: Dlrun) -> None:
    from dlrunner.cli.verbs import VERBS

    usages = dlrun("--help")[1].partition("usage: dlrun …\n")[2].partition("\n\n")[0]
    named = {line.split()[0] for line in usages.splitlines()} - {"-m"}
    assert {word for word in named if "=" not in word} == set(VERBS)


def test_the_help_of_every_verb_has_the_same_form(dlrun: Dlrun) -> None:
    from dlrunner.cli.verbs import VERBS

    for name, verb in VERBS.items():
        status, out, _ = dlrun(name, "--help")
        assert status == 0
        usage, sentence, *_ = out.split("\n\n")
        assert usage.startswith(f"usage: dlrun {name} ")
        assert " ".join(sentence.split())[1:] == f"{verb.summary[1:]}."
        assert out.endswith(f"example:\n  {verb.example}\n")
        assert verb.example.startswith(f"dlrun {name}")
        assert max(map(len, out.splitlines())) <= 80
    assert "(default: 40)" in dlrun("compare", "--help")[1]


def test_an_unknown_option_is_refused_in_one_line_with_the_nearest(dlrun: Dlrun, here: Path) -> None:
    wrong = {
        "export runs/a --onx": "export: there is no option --onx; did you mean --onnx?",
        "compare a b --metrc=x": "compare: there is no option --metrc; did you mean --metric?",
        "compare a b --met x": "there is no option --met; did you mean --metric?",
        "diff a b c": "diff: unexpected argument 'c'; usage: dlrun diff [-h] A B",
        "diff a": "diff: the following arguments are required: B",
        "reproduce --seeds many": "invalid int value: 'many'",
        "report . --open maybe": "choose from",
        "predict": "required: RUN",
        "lr-find": "required: NAME=VALUE",
        "info --verbose": "there is no option --verbose",
    }
    for words, said in wrong.items():
        status, out, err = dlrun(*words.split())
        assert (status, out) == (2, ""), words
        assert said in err
        assert len(err.splitlines()) == 1


def test_cfg_job_shows_the_composition(dlrun: Dlrun) -> None:
    status, out, _ = dlrun("--cfg", "job", "task=collab", "optim=sgd", "optim.lr=0.5")
    assert status == 0
    assert "_target_: torch.optim.SGD" in out
    assert "lr: 0.5" in out
    assert "hydra" not in out


def test_version_and_info_name_the_conditions_of_a_result(dlrun: Dlrun) -> None:
    assert dlrun("--version")[1].startswith("dlrunner 0")
    _, out, _ = dlrun("info")
    for word in ("torch", "numpy", "hydra-core", "cpu (", "cache"):
        assert word in out


def test_data_lists_release_location_sha256_and_terms(dlrun: Dlrun) -> None:
    status, out, _ = dlrun("data")
    assert status == 0
    for word in (
        "ml-latest-small-2016-10",
        "821795331fd974bb",
        "ml-100k",
        "not found",
        "acknowledge",
        "dlrun data get ml-1m",
    ):
        assert word in out


def test_releases_of_a_users_data_set_are_listed_and_fetched_by_name(dlrun: Dlrun, here: Path) -> None:
    (here / "mine.py").write_text(
        "from dlrunner.data.core.source import Release\n"
        "RELEASES = [Release('flowers', 'My flowers', ('a.csv',), ('flowers',), 'ask me', 'https://example.org')]\n"
    )
    (here / "broken.py").write_text("import nothing_at_all")
    status, out, _ = dlrun("data", "--plugins", "mine")
    assert status == 0
    for word in ("My flowers", "ask me", "put flowers.zip there", "ml-100k"):
        assert word in out
    status, _, err = dlrun("data", "get", "flowers", "--plugins", "mine")
    assert (status, "cannot be downloaded unattended; get it at https://example.org" in err) == (1, True)
    assert "there is no data set 'flowers'" in dlrun("data", "get", "flowers")[2]
    status, _, err = dlrun("data", "--plugins", "broken")
    assert (status, "broken cannot be imported: No module named 'nothing_at_all'" in err) == (2, True)


def test_data_get_refuses_data_that_cannot_be_downloaded(dlrun: Dlrun) -> None:
    status, _, err = dlrun("data", "get", "ml-100")
    assert (status, "did you mean ml-100k?" in err) == (2, True)
    status, _, err = dlrun("data", "get", "ml-latest-small-2016-10")
    assert (status, "cannot be downloaded unattended" in err) == (1, True)
    status, _, err = dlrun("data", "get", "ml-100k")
    assert (status, "DLRUNNER_OFFLINE" in err) == (1, True)


def test_show_prints_the_content_of_a_run_folder(dlrun: Dlrun, ratings_csv: Path) -> None:
    dlrun("task=collab", "data.path=my.csv", "epochs=2", *QUICK)
    status, out, _ = dlrun("show", "runs/latest")
    assert status == 0
    for word in (
        "command  dlrun task=collab data.path=my.csv",
        "status   done",
        "train/loss",
        "valid/rmse",
        "my.csv own (real)",
    ):
        assert word in out
    assert dlrun("show")[1] == out
    status, _, err = dlrun("show", "runs/nothing")
    assert (status, err) == (2, "dlrun: there is no run folder runs/nothing; `dlrun ls` lists the runs\n")


def test_without_a_terminal_a_run_prints_one_line_an_epoch_and_no_control_codes(
    dlrun: Dlrun, ratings_csv: Path
) -> None:
    _, out, _ = dlrun("task=collab", "data.path=my.csv", "epochs=3", *QUICK)
    assert "\x1b" not in out
    assert "\r" not in out
    rows = [line.split() for line in out.splitlines() if len(line.split()) == 7 and line.split()[0].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert ["epoch", "train/loss", "valid/loss", "valid/rmse", "valid/mae", "lr", "seconds"] in [
        line.split() for line in out.splitlines()
    ]


def test_bars_show_loss_learning_rate_speed_and_time_left() -> None:
    import io

    from rich.console import Console

    from dlrunner.reporting.terminal.progress import BarDisplay

    display = BarDisplay()
    screen = io.StringIO()
    display._progress.live.console = display._console = Console(file=screen, force_terminal=True, width=140)
    display.start_epoch(0, 3, 100, 0)
    display.advance(50, 0.7654, 0.005, 64000.0)
    display._progress.refresh()
    row = {"epoch": 1, "step": 100, "train/loss": 1.0, "valid/loss": 0.9, "valid/rmse": 0.95, "lr": 0.1, "seconds": 1.5}
    display.end_epoch(row)
    display.close()
    shown = screen.getvalue()
    for word in ("epoch 1", "50/100", "loss 0.7654", "lr 5.0e-03", "64,000/s", "valid/rmse", "0.9500"):
        assert word in shown


def complete(line: str) -> list[str]:
    """Return what completes a command line; nothing else is printed into the terminal."""
    environment = {
        **os.environ,
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dlrunner", "-sc", "query=bash"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_offers_verbs_tasks_and_options() -> None:
    assert complete("dlrun sh") == ["show"]
    assert {"optim=adam", "optim=adamw", "optim=sgd"} <= set(complete("dlrun optim="))
    assert "task=collab" in complete("dlrun task=")


def test_completion_prints_no_errors_and_knows_options_of_verbs_and_engines() -> None:
    assert complete("dlrun show ") == complete("dlrun classify runs/latest ") == []  # the shell completes paths
    assert {"--jobs", "--json"} <= set(complete("dlrun ls --"))
    assert "hydra/sweeper=optuna" in complete("dlrun -m task=collab hydra/sweeper=")
    assert "task=collab" in complete("dlrun -q lr=, task=") + complete("dlrun lr-find task=")


def test_options_of_help_and_of_sweeps_are_not_taken_for_settings(dlrun: Dlrun, here: Path) -> None:
    for words in (("-m", "--help"), ("task=collab", "-h"), ("-m", "task=collab", "--help")):
        status, out, _ = dlrun(*words)
        assert (status, out.startswith("dlrun: a runner")) == (0, True)
    for line in ("--cfg job -m task=collab", "-m task=collab seed=0,1 --cfg job"):
        status, _, err = dlrun(*line.split())
        assert (status, "--cfg: prints the settings of one run, without -m" in err) == (2, True), err


@pytest.mark.parametrize(
    "words", [["-m", "dlrunner"], ["-c", "import sys; from dlrunner.cli import main; sys.exit(main())"]]
)
def test_python_m_and_the_console_script_are_the_same_program(words: list[str], here: Path) -> None:
    done = subprocess.run([sys.executable, *words, "task=colab"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean collab?" in done.stderr


def test_paths_of_runs_are_quoted_and_latest_is_resolved(here: Path) -> None:
    from dlrunner.cli.conf_paths import with_paths

    run = here / "runs" / "lm" / "epochs=1,seed=2-0a1b2c3d"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0")
    (here / "runs" / "latest").symlink_to(run)
    (here / "it's.csv").write_text("a")
    named = "model.encoder='runs/lm/epochs=1,seed=2-0a1b2c3d'"
    assert with_paths(["model.encoder=runs/lm/epochs=1,seed=2-0a1b2c3d"]) == [named]
    assert with_paths(["model.encoder=runs/latest"]) == [named]
    assert with_paths(["data.path=it's.csv"]) == ["data.path='it\\'s.csv'"]
    untouched = ["task=collab", "optim.lr=1,2", "model.hidden=[1,2]", "data.path=none.csv", "-m", "runs_dir=runs", "a="]
    assert with_paths(untouched) == untouched


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--version"], 1),
        (["ls"], 1),
        (["predict", "runs/latest"], 1),
        (["translate", "runs/latest"], 1),  # a method of a predictor of the user's own
        (["lr-find", "task=collab"], 0),
        (["task=collab"], 0),
        (["-m", "task=collab"], 0),
    ],
)
def test_a_command_whose_result_is_its_output_fails_if_that_is_lost(
    words: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.cli._dispatch", lambda _: print("a result") or 0)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == status
