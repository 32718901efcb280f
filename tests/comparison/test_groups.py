"""Runs beside each other: what is read, which settings differ, which repetitions form a group, what is judged."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import scipy

from dlrunner.comparison.collect import NOT_SETTINGS, gather, read_row
from dlrunner.comparison.groups import Comparison, compare, differing_settings
from dlrunner.comparison.statistics import compare_groups, estimate, seeds_required
from dlrunner.errors import ConfigError
from dlrunner.training import Trainer
from tests.fake_runs import write_run, write_seeds, write_sweep

SAMPLE = [0.8712, 0.8754, 0.8699, 0.8731, 0.8770]


def compared(*words: str | Path, **options: object) -> Comparison:
    return compare(gather([str(word) for word in words])[0], **options)  # type: ignore[arg-type]


# Statistics


def test_an_interval_is_students_t() -> None:
    found = estimate(SAMPLE)
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(SAMPLE), scipy.stats.sem(SAMPLE))
    assert (found.n, found.mean, found.sd) == pytest.approx((5, np.mean(SAMPLE), np.std(SAMPLE, ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_pairs_are_compared_by_their_differences() -> None:
    noise = np.array([0.0, 0.3, -0.2, 0.1, 0.5])
    first = dict(enumerate(0.80 + noise))
    second = dict(enumerate(0.81 + noise + [0.001, -0.001, 0.002, -0.002, 0.0]))
    found = compare_groups(first, second, higher_is_better=False)
    interval = scipy.stats.ttest_rel(list(second.values()), list(first.values())).confidence_interval(0.95)
    assert (found.better, found.n, found.method, found.is_significant) == (0, 5, "pairs", True)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert compare_groups(first, second, higher_is_better=True).better == 1


def test_without_pairs_the_interval_is_welchs() -> None:
    a, b = [0.80, 0.82, 0.81, 0.80], [0.85, 0.88, 0.81]
    found = compare_groups(dict(enumerate(a)), dict(enumerate(b, start=10)), higher_is_better=False)
    interval = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (found.better, found.n, found.method) == (0, 3, "welch")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_unpaired_repetitions_are_dropped_and_counted() -> None:
    found = compare_groups({0: 1.0, 1: 2.0, 2: 3.5}, {1: 2.5, 2: 3.5, 7: 90.0, 8: 90.0}, higher_is_better=False)
    assert (found.n, found.num_unpaired) == (2, 3)
    assert found.difference == pytest.approx(0.25)


def test_a_single_seed_gives_no_verdict() -> None:
    found = compare_groups({0: 1.0}, {0: 2.0}, higher_is_better=False)
    assert (found.method, found.n, found.is_significant, found.seeds_required) == ("none", 1, False, None)
    assert math.isnan(found.low)


def test_equal_values_are_not_a_difference() -> None:
    found = compare_groups({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}, higher_is_better=False)
    assert (found.difference, found.low, found.high, found.is_significant) == (0, 0, 0, False)
    assert found.seeds_required is None


def test_the_same_difference_in_every_pair_does_not_say_how_others_would_differ() -> None:
    found = compare_groups({0: 1.0, 1: 2.0}, {0: 1.5, 1: 2.5}, higher_is_better=False)
    assert (found.difference, found.method, found.is_significant) == (0.5, "welch", False)


@pytest.mark.parametrize(("difference", "sd"), [(1.0, 1.0), (0.5, 1.0), (0.2, 1.0)])
def test_the_required_seeds_have_a_power_of_80_percent(difference: float, sd: float) -> None:
    n = seeds_required(difference, sd, per_group=False)
    assert n is not None
    shift = difference * math.sqrt(n) / sd  # the exact power, by the noncentral t distribution
    power = scipy.stats.nct.sf(scipy.stats.t.ppf(0.975, n - 1), n - 1, shift)
    assert 0.8 <= power < 0.84


def test_more_required_seeds_than_the_limit_are_not_given() -> None:
    assert seeds_required(1e-9, 1.0, per_group=False) is None


# Settings that differ


def test_settings_implied_by_an_option_are_omitted(here: Path) -> None:
    for optim in ("sgd", "adam", "adamw"):
        write_run(here / "runs" / optim, 0.8, {"optim": optim})
    assert compared("runs/*").settings == ("optim",)


def test_a_setting_decided_from_the_data_and_the_others_is_omitted(here: Path) -> None:
    for number, (model, decay) in enumerate([("net", 0.1), ("dot", 5.0), ("dot", 5.0)]):
        settings = {"model": model, "optim.weight_decay": decay, "seed": number}
        auto = {"optim.weight_decay": decay}
        write_run(here / "runs" / str(number), 0.8, settings, typed=["model", "seed"], auto=auto)
    assert compared("runs/*").settings == ("model",)
    write_run(here / "runs" / "3", 0.8, {"model": "dot", "optim.weight_decay": 0.2}, auto={})
    assert compared("runs/*").settings == ("model", "optim.weight_decay"), "it was given in one of the runs"


def test_seeds_for_which_a_setting_was_decided_differently_are_of_one_group(here: Path) -> None:
    for seed, lr in enumerate([0.0041, 0.0037, 0.0037]):
        settings = {"optim.lr": lr, "seed": seed}
        write_run(here / "runs" / f"auto-{seed}", 0.8, settings, typed=["optim.lr", "seed"], auto={"optim.lr": lr})
    (group,) = compared("runs/*").groups
    assert len(group.values) == 3
    write_run(here / "runs" / "typed", 0.7, {"optim.lr": 0.01, "seed": 0})
    found = {group.settings["optim.lr"]: len(group.values) for group in compared("runs/*").groups}
    assert found == {0.01: 1, "auto": 3}


def test_a_typed_setting_is_shown_next_to_the_option(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8, {"optim": "sgd", "optim.lr": 0.3})
    write_run(here / "runs" / "b", 0.8, {"optim": "adam"})
    assert compared("runs/*").settings == ("optim", "optim.lr")


def test_a_setting_not_implied_by_an_option_is_shown(here: Path) -> None:
    for number, (optim, lr) in enumerate([("sgd", 0.1), ("sgd", 0.2), ("adam", 0.1)]):
        write_run(here / "runs" / str(number), 0.8, {"optim": optim, "optim.lr": lr}, typed=["optim"])
    assert compared("runs/*").settings == ("optim", "optim.lr")


def test_a_class_that_differs_within_an_option_is_shown(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8, {"model._target_": "mine.Net"}, typed=[])
    write_run(here / "runs" / "b", 0.8)
    assert compared("runs/*").settings == ("model._target_",)


def test_settings_implied_by_the_task_are_omitted(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8, {"task": "collab", "epochs": 5, "model.factors": 50}, typed=["task"])
    write_run(here / "runs" / "b", 0.8, {"task": "tabular", "epochs": 9, "model.factors": 7}, typed=["task"])
    assert compared("runs/*").settings == ("task",)


def test_settings_implied_by_option_and_task_together_are_omitted(here: Path) -> None:
    for task, model, factors in (
        ("collab", "net", 1),
        ("collab", "dot", 2),
        ("tabular", "net", 3),
        ("tabular", "dot", 1),
    ):
        settings = {"task": task, "model": model, "model.factors": factors}
        write_run(here / "runs" / f"{task}{model}", 0.8, settings, typed=["task", "model"])
    assert compared("runs/*").settings == ("task", "model")


def test_a_missing_experiment_implies_no_settings(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8, {"experiment": "movielens-net", "epochs": 9}, typed=["experiment"])
    write_run(here / "runs" / "b", 0.8, {"epochs": 2}, typed=[])
    assert compared("runs/*").settings == ("experiment", "epochs")
    write_run(here / "runs" / "c", 0.8, {"experiment": "movielens-dot", "epochs": 5}, typed=["experiment"])
    assert compared("runs/a", "runs/c").settings == ("experiment",)


def test_settings_that_cannot_change_a_result_are_omitted(here: Path) -> None:
    other = {"data_dir": "elsewhere", "runs_dir": "r", "rerun": True, "log.progress": "none", "trainer.num_threads": 9}
    write_run(here / "runs" / "a", 0.8, other)
    write_run(here / "runs" / "b", 0.8, {"seeds": 3, "sweep.jobs": 2})
    write_run(here / "runs" / "c", 0.8, {"optim.lr": 5.0, "model.hidden": [1, 2]})
    rows = gather(["runs/*"])[0]
    assert differing_settings(rows) == ["model.hidden", "optim.lr"]
    assert len(compare(rows).groups) == 2


# Groups


def test_folds_are_repetitions_and_the_seeds_of_each_are_averaged_first(here: Path) -> None:
    for seed in (0, 1):
        for fold in (0, 1, 2):
            for lr in (0.1, 0.2):
                settings = {"seed": seed, "data.fold": fold, "optim.lr": lr}
                write_run(here / "runs" / f"{seed}{fold}{lr}", lr + seed / 10 + fold / 100, settings)
    found = compared("runs/*")
    assert found.settings == ("optim.lr",)
    # The two runs of a fold are not independent: over six runs the interval would be too narrow.
    assert [group.estimate.n for group in found.groups] == [3, 3]
    assert found.groups[0].estimate.mean == pytest.approx(0.1 + 0.05 + 0.01)
    assert found.groups[0].estimate.sd == pytest.approx(0.01)
    assert "n counts folds" in found.notes[0]
    assert found.verdict is not None
    assert found.verdict.n == 3
    assert found.averaged == ("seed", "data.fold")


def test_what_cannot_change_a_result_is_no_difference() -> None:
    assert {f"trainer.{name}" for name in Trainer.not_in_signature} <= {*NOT_SETTINGS}


@pytest.mark.parametrize(("higher", "best"), [(False, "adamw"), (True, "sgd")])
def test_the_best_group_comes_first_in_both_directions_of_the_metric(higher: bool, best: str, here: Path) -> None:
    write_seeds(here / "runs", [0.1, 0.2], {"optim": "adamw"}, higher_is_better=higher)
    write_seeds(here / "runs", [0.8, 0.9], {"optim": "sgd"}, higher_is_better=higher)
    found = compared("runs/*")
    assert found.groups[0].label == f"optim={best}"
    assert found.verdict is not None
    assert (found.verdict.better, found.verdict.is_significant) == (0, True)


def test_by_one_setting_averages_over_all_others_and_pairs_by_them(here: Path) -> None:
    for lr in (0.1, 0.2, 0.3):
        write_seeds(here / "runs", [lr, lr + 1], {"optim": "adamw", "optim.lr": lr})
        write_seeds(here / "runs", [lr + 0.01, lr + 1.02], {"optim": "sgd", "optim.lr": lr})
    found = compared("runs/*", by=["optim"])
    assert [group.settings for group in found.groups] == [{"optim": "adamw"}, {"optim": "sgd"}]
    assert found.verdict is not None
    assert found.verdict.n == 6
    assert found.verdict.difference == pytest.approx(0.015)
    assert found.averaged == ("optim.lr", "seed")
    assert found.notes == ()


def test_an_unbalanced_average_is_noted(here: Path) -> None:
    for optim, lr in (("adamw", 0.1), ("adamw", 0.2), ("sgd", 0.1)):
        write_run(here / "runs" / f"{optim}{lr}", lr, {"optim": optim, "optim.lr": lr})
    (note,) = compared("runs/*", by=["optim"]).notes
    assert note == "the groups were not run with the same optim.lr: their means are not comparable"


def test_other_folds_or_seeds_of_the_groups_are_noted(here: Path) -> None:
    for optim, fold in (("adamw", 0), ("adamw", 1), ("sgd", 0)):
        write_run(here / "folds" / f"{optim}{fold}", 0.8 + fold, {"optim": optim, "data.fold": fold})
    (note,) = compared("folds/*").notes
    assert note == "the groups were not run with the same data.fold: their means are not comparable"
    for valid, seed in ((0.1, 0), (0.1, 1), (0.2, 0)):  # never compared: no reason to note it
        write_run(here / "sets" / f"{valid}{seed}", 0.8, {"data.valid": valid, "seed": seed})
    (note,) = compared("sets/*").notes
    assert "different sets of rows" in note


def test_a_repeated_seed_is_counted_once(here: Path) -> None:
    write_seeds(here / "runs", [0.8, 0.9], {"optim": "adamw"})
    shutil.copytree(next((here / "runs").glob("*seed=0*")), here / "runs" / "again-2")
    found = compared("runs/*")
    assert found.groups[0].estimate == estimate([0.8, 0.9])
    assert found.notes == ("one run repeats the settings and the seed of another: averaged with it and counted once",)


def test_a_repeated_seed_counts_once_in_every_column(here: Path) -> None:
    for name, seed, value in (("a", 0, 1.0), ("b", 0, 1.0), ("c", 0, 1.0), ("d", 1, 2.0)):
        write_run(here / "runs" / name, value, {"optim": "adam", "seed": seed}, others={"valid/mae": value})
    write_seeds(here / "runs", [3.0, 3.1], {"optim": "sgd"})
    group = compared("runs/*").groups[0]
    assert (group.estimate.mean, group.mean("valid/mae")) == (1.5, 1.5)
    assert group.average([1.0, None, 4.0, 2.0]) == 2.25
    assert math.isnan(group.mean("valid/f1"))


def test_runs_are_compared_by_another_metric_on_request(here: Path) -> None:
    write_run(
        here / "runs" / "a",
        0.8,
        {"optim": "adamw"},
        others={"valid/mae": 0.7, "valid/hits": 0.1},
        higher=["valid/hits"],
    )
    write_run(
        here / "runs" / "b", 0.9, {"optim": "sgd"}, others={"valid/mae": 0.6, "valid/hits": 0.3}, higher=["valid/hits"]
    )
    found = compared("runs/*", metric="mae")
    assert (found.metric, found.groups[0].label) == ("valid/mae", "optim=sgd")
    assert found.notes == ("lower valid/mae is assumed to be better",)
    assert compared("runs/*", metric="valid/hits").groups[0].label == "optim=sgd"


def test_runs_without_recorded_directions_are_compared_by_their_main_metric_only(here: Path) -> None:
    for optim, mae in (("adamw", 0.7), ("sgd", 0.6)):
        write_run(here / "runs" / optim, 0.8, {"optim": optim}, others={"valid/mae": mae}, metrics=None)
    assert compared("runs/*").metric == "valid/rmse"
    with pytest.raises(ConfigError, match=r"do not record whether a higher valid/mae is better"):
        compared("runs/*", metric="mae")
    assert compared("runs/*", metric="valid/loss").metric == "valid/loss"


# What is told


def test_different_tasks_are_noted(here: Path) -> None:
    write_seeds(here / "runs" / "collab", [0.8, 0.9], {"task": "collab"})
    write_seeds(here / "runs" / "image", [0.1, 0.2], {"task": "image"}, metric="valid/accuracy", higher_is_better=True)
    found = compared("runs/*/*")
    assert (found.verdict, found.metric) == (None, None)
    assert "of different tasks (collab, image): their metrics cannot be compared, no verdict" in found.notes[0]
    assert "have different metrics (valid/rmse, valid/accuracy)" in found.notes[1]
    assert [group.estimate.mean for group in found.groups] == pytest.approx([0.85, 0.15])


def test_metrics_of_different_tasks_are_never_averaged(here: Path) -> None:
    for task in ("collab", "tabular"):
        for optim in ("sgd", "adam"):
            write_run(here / "runs" / f"{task}{optim}", 0.8, {"task": task, "optim": optim})
    assert [len(group.rows) for group in compared("runs/*", by=["optim"]).groups] == [1, 1, 1, 1]


def test_different_metrics_are_never_averaged(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8, {"seed": 0})
    write_run(here / "runs" / "b", 0.1, {"seed": 1}, metric="valid/accuracy", higher_is_better=True)
    assert [(group.metric, group.estimate.mean) for group in compared("runs/*").groups] == [
        ("valid/rmse", 0.8),
        ("valid/accuracy", 0.1),
    ]


def test_different_data_code_and_device_are_noted_in_one_line(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8, {"optim": "adamw"})
    data = {"name": "my.csv", "release": "own", "sha256": "b" * 64}
    write_run(here / "runs" / "b", 0.9, {"optim": "sgd"}, data=data, code="d" * 64, device="cuda:0")
    assert compared("runs/*").notes == (
        "these runs validated on 2 different sets of rows, each ranked by itself: they differ in "
        "data (my.csv own aaaaaaaa: 1, my.csv own bbbbbbbb: 1)",
        "these runs have different code (cccccccc: 1, dddddddd: 1), device (cpu: 1, cuda:0: 1)",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": ["optmi"]}, "--by: there is no 'optmi' among these runs; did you mean optim?"),
        ({"by": ["batch_size"]}, "--by: batch_size is 64 in all these runs; differing settings: optim, seed"),
        ({"metric": "valid/rmsee"}, "--metric: there is no 'valid/rmsee' among these runs; did you mean valid/rmse?"),
        ({"metric": "loss"}, "--metric: 'loss' is ambiguous: train/loss or valid/loss"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(options: dict[str, object], said: str, here: Path) -> None:
    write_seeds(here / "runs", [0.8, 0.9], {"optim": "adamw"})
    write_seeds(here / "runs", [0.8, 0.9], {"optim": "sgd"})
    with pytest.raises(ConfigError) as error:
        compared("runs/*", **options)
    assert str(error.value) == said


# What is read


def test_unfinished_runs_are_skipped_and_listed(here: Path) -> None:
    write_seeds(here / "runs", [0.8, 0.9])
    write_run(here / "runs" / "failed", 0.1, status="failed", error="the loss is not finite")
    write_run(here / "runs" / "interrupted", 0.1, status="interrupted")
    write_run(here / "runs" / "running", 0.1, status=None)
    write_run(here / "runs" / "infinite", None)
    rows, left_out = gather(["runs/*"])
    assert [row.value for row in rows] == [0.8, 0.9]
    assert {each.name: each.reason for each in left_out} == {
        "failed": "failed: the loss is not finite",
        "interrupted": "interrupted",
        "running": "killed or still running",
        "infinite": "its valid/rmse is not a number",
    }


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", None, "it has no config.yaml"),
        ("overrides.yaml", None, "overrides.yaml: No such file"),
        ("summary.json", "{", "summary.json is damaged: Expecting property name"),
        ("summary.json", '{"status": "done"}', "damaged: summary.json is incomplete"),
        (
            "summary.json",
            '{"status": "done", "metric": 3, "final": []}',
            "summary.json is damaged: metric is not a section",
        ),
        ("summary.json", "[]", "summary.json is damaged: it has no status"),
        ("summary.json", "", "summary.json is damaged: Expecting value"),
        ("config.yaml", "a: [", "config.yaml is damaged: line 2"),
        ("config.yaml", "- 1", "config.yaml is damaged: it does not hold names"),
        ("config.yaml", "task: {}\nmodel: {}\n", "config.yaml is damaged: it ends early"),
        ("metrics.jsonl", '{"epoch": 1}\n{"epo', "metrics.jsonl is damaged: line 2: Unterminated string"),
        ("metrics.jsonl", "\x00\x00", "metrics.jsonl is damaged: line 1"),
    ],
)
def test_a_damaged_run_is_listed_and_the_others_are_compared(
    file: str, content: str | None, said: str, here: Path
) -> None:
    write_seeds(here / "runs", [0.8, 0.9])
    damaged = write_run(here / "runs" / "odd", 0.1)
    (damaged / file).unlink()
    if content is not None:
        (damaged / file).write_text(content)
    rows, left_out = gather(["runs/*"])
    assert len(rows) == 2
    assert [each.name for each in left_out] == ["odd"]
    assert said in left_out[0].reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs/collab/*xyz*"], "no run folder matches 'runs/collab/*xyz*'"),
        (["runs/collab/nothing"], "there is no run folder runs/collab/nothing"),
        (
            ["runs/collab"],
            "runs/collab is neither a run folder nor a sweep folder; it holds run folders (2): 'runs/collab/*'",
        ),
        (["runs/empty"], "runs/empty is neither a run folder nor a sweep folder"),
        (["runs/note.txt"], "runs/note.txt is a file; name a run folder or a sweep folder"),
        (["runs/collab/*seed=0*"], "a comparison needs at least two finished runs; found only all=same,seed=0"),
        (["runs/em*"], "a comparison needs at least two finished runs; found none\nskipped: empty: neither"),
    ],
)
def test_a_path_that_is_not_a_run_is_refused(words: list[str], said: str, here: Path) -> None:
    write_seeds(here / "runs" / "collab", [0.8, 0.9])
    (here / "runs" / "empty").mkdir()
    (here / "runs" / "note.txt").touch()
    with pytest.raises(ConfigError) as error:
        gather(words)
    assert str(error.value).startswith(said)


def test_a_run_that_is_given_twice_is_read_once(here: Path) -> None:
    paths = write_seeds(here / "runs" / "collab", [0.8, 0.9])
    (here / "runs" / "latest").symlink_to(paths[0])
    assert len(gather(["runs/latest", "runs/collab/*", str(paths[1])])[0]) == 2


def test_a_sweep_is_its_runs_and_its_failures_are_listed(here: Path) -> None:
    runs = write_seeds(here / "runs" / "collab", [0.8, 0.9, 0.7])
    write_seeds(here / "runs" / "collab", [0.1], {"optim": "sgd"})  # of no sweep
    sweep = write_sweep(here / "runs" / "sweeps" / "mine", runs, failed=["out of memory"])
    rows, left_out = gather([str(sweep)])
    assert [row.value for row in rows] == [0.8, 0.9, 0.7]
    assert [(each.name, each.reason) for each in left_out] == [("job 3", "failed: out of memory")]


def test_a_moved_sweep_finds_its_runs(here: Path) -> None:
    runs = write_seeds(here / "runs" / "collab", [0.8, 0.9, 0.7])
    write_sweep(here / "runs" / "sweeps" / "mine", runs)
    shutil.move(here / "runs", here / "elsewhere")
    shutil.rmtree(here / "elsewhere" / "collab" / runs[2].name)
    rows, left_out = gather(["elsewhere/sweeps/mine"])
    assert [row.value for row in rows] == [0.8, 0.9]
    assert left_out[0].reason == f"its folder is missing: {runs[2].name}"


def test_an_unfinished_sweep_is_its_finished_runs(here: Path) -> None:
    runs = write_seeds(here / "runs" / "collab", [0.8, 0.9])
    for number, run in enumerate([*runs, None]):
        place = here / "runs" / "sweeps" / "mine" / "jobs" / str(number)
        place.mkdir(parents=True)
        if run:
            (place / "record.json").write_text(f'{{"status": "done", "folder": "{run}"}}')
    rows, left_out = gather(["runs/sweeps/mine"])
    assert len(rows) == 2
    assert [(each.name, each.reason) for each in left_out] == [("job 2", "not started, or still running")]


def test_seconds_are_those_of_training(here: Path) -> None:
    runs = [
        write_run(here / "runs" / "collab" / name, 0.8, training_seconds=3.0, seconds=seconds)
        for name, seconds in (("resumed", 1.0), ("with baselines", 60.0))
    ]
    assert [read_row(run).numbers["seconds"] for run in runs] == [3.0, 3.0]


def test_a_damaged_results_table_is_reported(here: Path) -> None:
    sweep = write_sweep(here / "runs" / "sweeps" / "mine", write_seeds(here / "runs" / "collab", [0.8, 0.9]))
    (sweep / "results.csv").write_text("job,status\n0,done\n")
    with pytest.raises(ConfigError, match=r"results\.csv is damaged"):
        gather([str(sweep)])


@pytest.mark.slow  # five hundred runs
def test_reading_500_runs_takes_less_than_two_seconds_of_cpu_time(here: Path) -> None:
    runs = [write_run(here / "runs" / "collab" / str(i), 0.8 + i / 1e4, {"optim.lr": float(i)}) for i in range(500)]
    sweep = write_sweep(here / "runs" / "sweeps" / "big", runs)
    started = time.process_time()
    found = compared(sweep)
    assert time.process_time() - started < 2
    assert len(found.groups) == 500


def test_a_row_has_the_names_of_typed_settings(here: Path) -> None:
    run = write_run(here / "runs" / "a", 0.8, {"optim": "sgd", "optim.lr": 0.3})
    row = read_row(run)
    assert row.typed == {"optim", "optim.lr"}
    assert (row.settings["optim"], row.settings["optim.lr"], row.settings["optim.momentum"]) == ("sgd", 0.3, 0.9)
    assert (row.task, row.metric, row.value, row.numbers["seconds"]) == ("collab", "valid/rmse", 0.8, 1.0)


def test_more_repetitions_are_required_than_those_that_do_not_suffice() -> None:
    found = compare_groups({0: 4.3, 1: 5.7}, {2: 0.0, 3: 0.001}, higher_is_better=False)
    assert (found.method, found.is_significant, found.seeds_required) == ("welch", False, 3)
