"""What the benchmarks conclude from numbers; nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import (
    checking,
    collab,
    cores,
    gpu_check,
    growth,
    growth_data,
    images,
    own_data,
    planted_ratings,
    sentiment,
    summary,
    tabular,
    text,
)
from benchmarks.checking import compare, interval
from benchmarks.measuring import Options, largest_difference, sameness, settled
from dlrunner.errors import ConfigError, DataError
from tests.conftest import REPOSITORY

STORED = [2.0, 2.1, 1.95]


@pytest.mark.parametrize(
    "work",
    [
        collab.WORK,
        tabular.WORK,
        [*text.WORK, "data.path=x", "epochs=1"],
        [*sentiment.WORK, "data.path=x"],
        *([*images.WORK, *each] for each in images.TRAINED.values()),
    ],
    ids=lambda words: words[0],
)
def test_what_is_compared_leaves_nothing_to_be_decided(work: Sequence[str]) -> None:
    assert settled(work).undecided == ()
    with pytest.raises(ConfigError, match=r"optim.lr: must be set, so that all train the same"):
        settled([*work, "optim.lr=auto"])


def test_a_real_slowdown_fails() -> None:
    assert compare(STORED, [1.5, 1.45, 1.55]) == "slower"
    # One repetition of seven that happened to be fast does not hide it.
    assert compare(STORED, [1.5, 1.45, 1.55, 1.5, 2.4, 1.52, 1.47]) == "slower"


def test_noise_around_the_stored_ratio_does_not_fail() -> None:
    assert compare(STORED, [1.9, 2.05, 2.0]) == "as fast"
    # The least that is lost within the tolerance passes, a median just beyond it is not yet a slowdown.
    assert compare(STORED, [1.75, 1.8, 1.78]) == "as fast"
    assert compare(STORED, [1.66, 1.69, 1.68]) == "too noisy"


def test_repetitions_that_differ_by_more_than_the_effect_are_told_to_be_too_noisy() -> None:
    assert compare(STORED, [1.3, 2.6, 1.6]) == "too noisy"
    # So is a clear result beside a stored one that says little.
    assert compare([1.2, 2.9, 2.0], [1.4, 1.45, 1.5]) == "too noisy"


def test_a_single_stored_repetition_convicts_nobody() -> None:
    assert compare([2.0], [1.0, 1.01, 1.02]) == "too noisy"
    assert compare(STORED, [1.0]) == "too noisy"


def test_a_faster_result_passes() -> None:
    assert compare(STORED, [2.6, 2.5, 2.7]) == "faster"


def test_more_repetitions_narrow_the_interval_around_the_same_noise() -> None:
    noise = [1.0, 1.2, 1.4]
    assert interval(noise) == (1.0, 1.4)
    assert interval([*noise, 1.2, 1.2, 1.2, 1.2]) == (1.2, 1.2)


def contest(seconds: float, rivals: dict[str, float]) -> checking.Quick:
    """A contest in which everyone needs the same time in each repetition."""
    kinds = {"Lightning 2.6": "Lightning", "plain loop": "plain"}
    contestants = {
        name: lambda seed, each=each: {"seconds_per_epoch": [9.0, each * (1 + seed / 100)]}
        for name, each in {"dlrunner": seconds, **rivals}.items()
    }
    rows = {kinds[name]: name for name in rivals}
    return checking.Quick("collab", "Collaborative filtering, quick", summary.SECONDS, rows, contestants)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[checking.Quick], Options]:
    """Let a contest take the place of those that train."""
    monkeypatch.setattr(checking, "HERE", tmp_path)

    def put(given: checking.Quick) -> Options:
        monkeypatch.setattr(checking, "_contests", lambda options, folder: [given])
        return Options(tmp_path, tmp_path, tmp_path, repeats=3, rows=None, runs=None)

    return put


Quicken = Callable[[checking.Quick], Options]


def test_what_was_stored_is_found_again_and_a_slowdown_is_told(
    quick: Quicken, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checking.store(quick(contest(1.0, {"Lightning 2.6": 2.0, "plain loop": 1.5}))).exists()
    assert checking.check(quick(contest(3.0, {"Lightning 2.6": 6.0, "plain loop": 4.5}))) == 0, "ratios, never seconds"
    assert "0 of 2 ratios are slower" in capsys.readouterr().out
    assert checking.check(quick(contest(1.3, {"Lightning 2.6": 2.0, "plain loop": 1.5}))) == 1
    assert "against Lightning: 1.54 (1.54 to 1.54) times as fast in 3 repetitions, stored 2.00" in (
        out := capsys.readouterr().out
    )
    assert "2 of 2 ratios are slower by more than 15%" in out


def test_a_check_that_can_compare_nothing_does_not_pass(quick: Quicken, capsys: pytest.CaptureFixture[str]) -> None:
    options = quick(contest(1.0, {"Lightning 2.6": 2.0}))
    with pytest.raises(DataError, match=r"is written by `make bench`"):
        checking.check(options)
    checking.store(options)
    with pytest.raises(DataError, match="no rival that was stored is here"):
        checking.check(quick(contest(1.0, {"plain loop": 2.0})))
    checking.store(quick(contest(1.0, {"Lightning 2.6": 2.0, "plain loop": 1.5})))
    capsys.readouterr()
    assert checking.check(quick(contest(1.0, {"plain loop": 1.5}))) == 0
    assert "not installed: Collaborative filtering, quick against Lightning" in capsys.readouterr().out


def runs(seconds: list[float], **more: Any) -> list[dict[str, Any]]:
    """Runs of three epochs, the first of which is slow for everyone."""
    return [{"seconds_per_epoch": [9.0, each, each], **more} for each in seconds]


def store(folder: Path) -> None:
    machine = {"cpu": "a processor", "cores": 2, "gpu": None, "python": "3.11.7", "torch": "2.13.0"}
    rows = {
        "dlrunner": runs([1.0, 2.0, 1.0]),
        "Lightning 2.6": runs([1.5, 2.0, 1.25], library="Lightning", version="2.6.6"),
        "plain loop, slow": runs([8.0, 8.0, 8.0]),
        "plain loop, quick": runs([0.5, 2.0, 0.75]),
    }
    (folder / "results-collab-cpu.json").write_text(json.dumps({"machine": machine, "rows": rows}))


def test_a_ratio_is_that_of_one_repetition_and_the_fastest_of_a_kind_counts(tmp_path: Path) -> None:
    store(tmp_path)
    speed = summary.gather(tmp_path, "cpu")
    row = speed["rows"]["Collaborative filtering, float32, batches of 64"]
    assert row["own"] == [1.0, 2.0, 1.0]  # without the first epoch
    assert row["ratios"] == {"Lightning": [1.5, 1.0, 1.25], "plain": [0.5, 1.0, 0.75]}
    assert row["contestants"]["plain"] == "plain loop, quick"


def test_the_table_says_what_was_measured_where_and_which_contestant_is_missing(tmp_path: Path) -> None:
    store(tmp_path)
    table = summary.table(summary.gather(tmp_path, "cpu"))
    line = next(line for line in table.splitlines() if line.startswith("| Collaborative"))
    assert line == (
        "| Collaborative filtering, float32, batches of 64 | 1.00 (1.00 to 2.00) | seconds per epoch | - | "
        "1.25 (1.00 to 1.50) | 0.75 (0.50 to 1.00) | a, 3 times |"
    )
    assert "- a: 2 cores, a processor; torch 2.13.0, Python 3.11.7, Lightning 2.6.6." in table


def test_of_words_a_second_more_is_better() -> None:
    told = [{"words_per_second": [1.0, 300.0]}], [{"words_per_second": [1.0, 100.0]}]
    (quantity,) = summary.BENCHMARKS["text"][1]
    assert quantity.ratios(*told) == [3.0]


def test_the_page_gets_the_table_between_its_markers_and_keeps_the_rest(tmp_path: Path) -> None:
    store(tmp_path)
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n")
    summary.write(tmp_path, page)
    text = page.read_text()
    assert text == f"before\n{summary.BEGIN}\n{summary.quoted(tmp_path)}{summary.END}\nafter\n"
    assert "old" not in text
    assert "Collaborative" in text


def test_what_stands_in_the_repository_is_what_the_stored_results_say() -> None:
    text = (REPOSITORY / "docs" / "speed.md").read_text()
    assert summary.BEGIN in text
    assert text.partition(f"{summary.BEGIN}\n")[2].partition(summary.END)[0] == summary.quoted(
        REPOSITORY / "benchmarks"
    )
    for device in summary.DEVICES:
        file = REPOSITORY / "benchmarks" / f"speed-{device}.json"
        if file.exists():
            assert json.loads(file.read_text()) == summary.gather(REPOSITORY / "benchmarks", device)


def test_make_bench_measures_what_the_table_of_speeds_has_and_nothing_that_needs_a_users_tables() -> None:
    assert set(command.UNASKED) == set(summary.BENCHMARKS)
    assert not set(command.UNASKED) & {*command.QUALITY}
    for table in own_data.TABLES:
        assert table.name in (command.__doc__ or ""), "where it comes from"


@pytest.mark.parametrize("kind", [ConfigError, DataError])
def test_a_missing_file_ends_a_benchmark_with_its_message(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(_: Options) -> tuple[str, dict[str, Any]]:
        raise kind("wine is not there")

    monkeypatch.setitem(command.BENCHMARKS, "own_files", measure)
    monkeypatch.setattr("sys.argv", ["benchmarks", "own_files"])
    with pytest.raises(SystemExit, match="wine is not there"):
        command.main()


def test_loops_that_train_something_else_are_not_compared() -> None:
    own = [{"metrics": [{"valid/loss": 0.5, "valid/accuracy": 0.8}]}]
    assert largest_difference(own, own) == 0
    assert "to the last digit" in sameness(own, own)
    near = [{"metrics": [{"valid/loss": 0.501, "valid/accuracy": 0.8}]}]
    assert "at most" in sameness(own, near)
    with pytest.raises(ValueError, match="do not train the same"):
        largest_difference(own, [{"metrics": [{"valid/loss": 0.6, "valid/accuracy": 0.8}]}])


def check_of(limit: float = 0.01) -> gpu_check.Check:
    return gpu_check.Check("collab", "fp32", (), limit)


def rows_of(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": 1, "train/loss": loss, "valid/loss": loss, "valid/accuracy": loss / 3} for loss in losses]


def test_a_gpu_check_fails_where_a_loss_is_too_far_from_that_of_the_cpu() -> None:
    difference, good = gpu_check.compare(check_of(), rows_of(1.0), rows_of(1.001))
    assert difference == pytest.approx(0.001, rel=0.01)
    assert good
    assert not gpu_check.compare(check_of(), rows_of(1.0), rows_of(1.1))[1]
    assert not gpu_check.compare(check_of(), rows_of(1.0), rows_of(1.0, 1.0))[1]
    assert not gpu_check.compare(check_of(), rows_of(float("nan")), rows_of(1.0))[1]


def test_a_gpu_check_covers_its_tasks_in_every_precision_and_two_processes_where_there_are_two_gpus() -> None:
    one, two = gpu_check.checks("cuda", 1), gpu_check.checks("cuda", 2)
    for task in gpu_check.TASKS:
        names = {each.name for each in one if each.task == task}
        assert {"fp32", "fp16", "bf16", "tf32", "stopped and resumed"} <= names
    assert {each.task for each in two if each.processes == 2} == set(gpu_check.TASKS)
    assert not any(each.processes == 2 for each in one)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_said_what_would_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 0
    told = capsys.readouterr().out
    assert "this machine has no GPU" in told
    assert told.count("stopped and resumed") == len(gpu_check.TASKS)


def test_a_gpu_check_tells_which_runs_fail_and_does_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(words: Sequence[str], *_: Any) -> list[dict[str, float]]:
        if "precision=bf16" in words:
            raise RuntimeError("no bfloat16 here")
        return [{**row, "step": 20} for row in rows_of(1.0)]

    monkeypatch.setattr(gpu_check, "run", run)
    monkeypatch.setattr(gpu_check, "run_in_two_parts", lambda *_: [*run(()), *run(())])
    todo = [each for each in gpu_check.checks("cpu", 0) if each.task == "rossmann"]
    assert not gpu_check.perform(todo, "cpu", tmp_path)
    told = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        ["ok", "rossmann", "fp32"],
        ["FAILED", "rossmann", "bf16"],
        ["ok", "rossmann", "tf32"],
        ["FAILED", "rossmann", "stopped"],
    ]


@pytest.mark.slow  # six programs that each import torch; what is made of their results is tested above
def test_the_check_itself_runs_on_a_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "COMPILED", ())
    assert gpu_check.main(["--device", "cpu", "--only", "rossmann"]) == 0
    told = capsys.readouterr().out
    assert "FAILED" not in told
    assert "rossmann        stopped and resumed" in told


def test_growth_that_is_faster_than_linear_is_marked() -> None:
    def took(seconds: float) -> dict[str, Any]:
        steps = ("results", "compare", "report")
        return {
            **{step: {"seconds": seconds, "cpu_seconds": 1.0, "peak_memory_mb": 300} for step in steps},
            "runs_mb": 1,
        }

    linear, squared = growth.text({"jobs": {"10": took(1.0), "100": took(10.0), "1000": took(1000.0)}}).split(
        "\n| 100 "
    )
    assert "**" not in linear
    assert squared.count("**2.00**") == 3
    assert squared.count("1.00, 1.00, 1.00; 0.00") == 1


def test_a_size_that_fails_has_a_row_and_does_not_stop_the_others() -> None:
    table = growth.text({"jobs": {"10": {"error": "out of memory"}}})
    assert "| 10 | failed: out of memory |" in table


def test_two_processes_are_compared_with_two_threads_and_engines_with_own_processes() -> None:
    def epochs(seconds: float) -> list[dict[str, Any]]:
        return [{"seconds_per_epoch": [9.0, seconds, seconds]}]

    rows = {"Tables": {cores.ONE: epochs(4.0), cores.THREADS: epochs(2.0), cores.BOTH: epochs(2.5)}}
    table = cores.text(rows, {"": [12.0], "submitit_local": [12.0 + 2 * cores.NUM_JOBS]}, 1)
    assert "| 2.00 | 0.80 |" in table
    assert "24.0 (24.0 to 24.0) | 2.0 s |" in table
    assert "| Ray, on this machine | not installed | - |" in table


def test_generated_data_is_the_same_from_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        growth_data.write_ratings(tmp_path / f"{name}.csv", 1_000)
        growth_data.write_table(tmp_path / f"{name}.table.csv", 100)
        growth_data.write_texts(tmp_path / f"{name}.txt", 1_000)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.table.csv").read_bytes() == (tmp_path / "b.table.csv").read_bytes()
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    assert len((tmp_path / "a.table.csv").read_text().splitlines()[0].split(",")) == 40


def test_planted_ratings_have_as_many_by_user_and_the_variance_that_is_asked_for() -> None:
    found = planted_ratings.ratings(20_000, 100.0, 0.0).to_pandas()
    assert 180 <= found["user"].nunique() <= 200
    more = planted_ratings.ratings(20_000, 100.0, 1.0).to_pandas()
    assert more["rating"].var() > found["rating"].var() + 0.4  # values beyond the scale are cut off
