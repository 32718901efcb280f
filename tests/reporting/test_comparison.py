"""Reports of comparisons: tables, sentences, plots."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from dlrunner.comparison.collect import LeftOut, gather
from dlrunner.comparison.groups import Comparison, compare
from dlrunner.comparison.importance import importance
from dlrunner.errors import ConfigError
from dlrunner.reporting.latex import latex_table
from dlrunner.reporting.plots import comparison as comparison_plots
from dlrunner.reporting.plots import training as plots
from dlrunner.reporting.terminal import comparison as looks
from dlrunner.reporting.terminal.pairwise import pairs_frame
from tests.comparison.test_importance import make_row, random_search
from tests.fake_runs import write_run, write_seeds
from tests.reporting.test_plots import assert_is_png


@pytest.fixture(autouse=True)
def coarse_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plots.STYLE, "figure.dpi", 50)  # to be fast


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn."""
    figures: list[Figure] = []
    save = plots.save

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "save", keep)
    return figures


def two_optimizers(here: Path, adamw: Sequence[float], sgd: Sequence[float], **more: Any) -> Comparison:
    write_seeds(here / "runs", adamw, {"optim": "adamw"}, **more)
    write_seeds(here / "runs", sgd, {"optim": "sgd"}, **more)
    return compare(gather(["runs/*"])[0])


# The verdict in words


@pytest.mark.parametrize(
    ("adamw", "sgd", "said"),
    [
        (
            [0.80, 0.81, 0.82],
            [0.90, 0.91, 0.93],
            "optim=adamw is better than optim=sgd: valid/rmse lower by 0.103 "
            "(95 % interval 0.089 to 0.118, 3 pairs of seeds)",
        ),
        (
            [0.80, 0.90, 0.70],
            [0.81, 0.80, 0.85],
            "no significant difference with 3 seeds: optim=adamw has valid/rmse lower by 0.02 than optim=sgd "
            "(95 % interval -0.291 to 0.331, 3 pairs of seeds); seeds required for a difference of this size: about 311",
        ),
        (
            [0.8],
            [0.9],
            "no test with one seed: optim=adamw has valid/rmse lower by 0.1 than optim=sgd; run both with more seeds",
        ),
        ([0.8], [0.8], "optim=adamw and optim=sgd have the same valid/rmse; one seed each"),
        (
            [0.8, 0.9],
            [0.8, 0.9],
            "no difference between optim=adamw and optim=sgd: valid/rmse is equal in 2 pairs of seeds",
        ),
        (
            [0.80, 0.81, 0.85],
            [0.90, 0.92],
            "optim=adamw is better than optim=sgd: valid/rmse lower by 0.105 "
            "(95 % interval 0.0415 to 0.169, 2 pairs of seeds, 1 unpaired dropped)",
        ),
        (
            [0.80, 0.90],
            [0.81, 0.91],
            "no significant difference with 2 and 2 runs: optim=adamw has valid/rmse lower by 0.01 than optim=sgd "
            "(95 % interval -0.294 to 0.314, Welch's, over 2 and 2 runs: fewer than two pairs of equal seed, or all "
            "differ by as much); runs of each required for a difference of this size: about 786",
        ),
    ],
)
def test_the_verdict_is_a_sentence(adamw: list[float], sgd: list[float], said: str, here: Path) -> None:
    assert looks.verdict_sentence(two_optimizers(here, adamw, sgd)) == said


def test_the_verdict_follows_the_direction_of_the_metric(here: Path) -> None:
    found = two_optimizers(here, [0.1, 0.2], [0.8, 0.9], metric="valid/accuracy", higher_is_better=True)
    assert (looks.verdict_sentence(found) or "").startswith(
        "optim=sgd is better than optim=adamw: valid/accuracy higher by 0.7 "
    )


def test_welchs_interval_is_named(here: Path) -> None:
    for optim, seeds in (("adamw", (0, 1)), ("sgd", (2, 3, 4))):
        for seed in seeds:
            write_run(here / "runs" / f"{optim}{seed}", 0.8 + seed / 100, {"optim": optim, "seed": seed})
    said = looks.verdict_sentence(compare(gather(["runs/*"])[0])) or ""
    assert "Welch's, over 2 and 3 runs: fewer than two pairs of equal seed" in said


def three_optimizers(here: Path) -> Comparison:
    """Two are alike; the third is worse in every seed."""
    for optim, values in (("sgd", [0.90, 0.91, 0.93]), ("adam", [0.80, 0.82, 0.81]), ("adamw", [0.81, 0.80, 0.82])):
        write_seeds(here / "runs", values, {"optim": optim})
    return compare(gather(["runs/*"])[0])


def test_of_three_groups_it_is_said_which_ones_the_best_is_better_than(here: Path) -> None:
    found = three_optimizers(here)
    assert looks.verdict_sentence(found) is None
    assert list(looks.sentences(found, [])) == [
        "optim=adam is better than optim=sgd (Holm's correction for 3 tests, 5 %)",
        "no significant difference between optim=adam and optim=adamw (Holm's correction for 3 tests, 5 %)",
    ]


def test_a_group_that_is_better_over_the_seeds_that_both_have_is_never_called_equal(here: Path) -> None:
    for optim, values in (
        ("sgd", [2.0, 2.1, 2.2, 1.5, 1.6]),
        ("adam", [1.0, 1.1, 1.2, 0.5, 0.6]),  # the best mean, by its last two seeds
        ("adamw", [0.99, 1.0898, 1.1902]),  # the best in each seed that it has
    ):
        write_seeds(here / "runs", values, {"optim": optim})
    found = compare(gather(["runs/*"])[0])
    assert [group.label for group in found.groups] == ["optim=adam", "optim=adamw", "optim=sgd"]
    said = list(looks.sentences(found, []))
    assert "optim=adamw is better than optim=adam over pairs of equal seed (Holm's correction for 3 tests, 5 %)" in said
    assert not any("no significant difference" in each for each in said)
    assert said[-1] == "note: the groups were not run with the same seed: part of a difference of means is theirs"


def test_pairs_are_a_compact_table_and_in_json_with_all_digits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = three_optimizers(here)
    looks.print_comparison(found, looks.groups_frame(found), [], top=10)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "differences of pairs (p by Holm's method over 3 tests)" in lines
    assert "A B A - B 95 % interval g p test" in lines
    row = next(line for line in lines if line.startswith("optim=adam optim=sgd"))
    assert row.startswith("optim=adam optim=sgd -0.103 -0.141 to -0.0654")
    pair = next(each for each in json.loads(looks.as_json(found, []))["pairs"] if each["worse"] == "optim=sgd")
    first, second = [0.80, 0.82, 0.81], [0.90, 0.91, 0.93]
    if pair["better"] == "optim=adamw":
        first = [0.81, 0.80, 0.82]
    assert pair["p"] == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue)


def test_a_pair_is_named_by_the_settings_that_distinguish_its_groups() -> None:
    rows = [
        make_row(value + seed / 100, {"model": model, "optim.lr": lr, "epochs": epochs, "seed": seed})
        for model, lr, epochs, value in (("net", 0.1, 3, 0.9), ("dot", 0.2, 3, 0.8), ("dot", 0.2, 4, 0.5))
        for seed in range(3)
    ]
    found = compare(rows)
    assert found.settings == ("model", "optim.lr", "epochs")
    assert pairs_frame(found, 0)["A"].tolist()[0] == "model=dot epochs=4"  # the rate follows from the model


def test_of_many_pairs_those_with_the_best_group_are_shown(here: Path) -> None:
    rows = [make_row(lr + seed / 100, {"optim.lr": float(lr), "seed": seed}) for lr in range(9) for seed in range(3)]
    found = compare(rows)
    assert len(pairs_frame(found, 0)) == 36
    frame = pairs_frame(found, 0, most=15)
    assert frame["A"].tolist() == ["optim.lr=0.0"] * 8


def test_groups_of_different_validation_rows_have_a_column_and_sentences_of_their_own(here: Path) -> None:
    for valid in (0.1, 0.2):
        for optim, value in (("adamw", 0.8), ("sgd", 0.9)):
            write_seeds(here / "runs", [value, value + 0.01], {"optim": optim, "data.valid": valid})
    found = compare(gather(["runs/*"])[0])
    assert looks.groups_frame(found)["validation set"].tolist() == ["1", "1", "2", "2"]
    first, second, note = looks.sentences(found, [])
    assert first.startswith("optim=adamw is better than optim=sgd in validation set 1 ")
    assert second.startswith("optim=adamw is better than optim=sgd in validation set 2 ")
    assert "2 different sets of rows" in note
    assert [group["validation_set"] for group in json.loads(looks.as_json(found, []))["groups"]] == [1, 1, 2, 2]


# Tables


def test_the_table_has_a_row_per_group_with_mean_std_and_interval(here: Path) -> None:
    frame = looks.groups_frame(two_optimizers(here, [0.80, 0.81, 0.82], [0.9, 0.9, 0.9], others={"valid/mae": 0.5}))
    assert list(frame) == ["optim", "n", "valid/rmse", "std", "low", "high", "valid/mae", "valid/loss", "seconds"]
    assert frame.iloc[0].tolist()[:4] == ["adamw", 3, pytest.approx(0.81), pytest.approx(0.01)]


def test_the_table_of_runs_names_seeds_and_folders(here: Path) -> None:
    frame = looks.runs_frame(two_optimizers(here, [0.82, 0.80], [0.9, 0.9]))
    assert frame["seed"].tolist() == ["1", "0", "0", "1"]
    assert frame["valid/rmse"].tolist() == [0.80, 0.82, 0.9, 0.9]
    assert all(Path(run).is_dir() for run in frame["run"])


def test_a_sort_reads_numbers_as_numbers_and_puts_null_last(here: Path) -> None:
    for place, clip in enumerate([10.0, None, 9.0, 0.5]):
        write_run(here / "runs" / str(place), 0.8 + place, {"trainer.clip": clip}, training_seconds=float(place))
    frame = looks.groups_frame(compare(gather(["runs/*"])[0]))
    assert looks.sort(frame, "clip")["trainer.clip"].tolist() == ["0.5", "9.0", "10.0", "null"]
    assert looks.sort(frame, "-clip")["trainer.clip"].tolist() == ["10.0", "9.0", "0.5", "null"]
    assert looks.sort(frame, "-seconds")["seconds"].tolist() == [3, 2, 1, 0]
    with pytest.raises(ConfigError, match=r"--sort: there is no 'secondz' among these runs; did you mean seconds\?"):
        looks.sort(frame, "secondz")


def test_a_table_of_500_groups_prints_its_first_rows_and_the_number_of_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = compare([make_row(0.8 + i, {"optim.lr": float(i)}) for i in range(500)])
    looks.print_comparison(found, looks.groups_frame(found), [LeftOut(f"job {i}", "failed") for i in range(90)], top=10)
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 25
    assert "… 490 more; --top 500 shows all, --csv FILE writes all" in out
    assert "skipped: job 4: failed\nskipped: 85 more" in out


def test_markdown_survives_bars_in_names_and_has_the_verdict() -> None:
    rows = [make_row(value, {"model.encoder": path}) for path, value in (("a|b.csv", 0.8), ("c.csv", 0.9))]
    lines = looks.markdown(compare(rows), looks.groups_frame(compare(rows)), []).splitlines()
    assert lines[2].startswith("| a\\|b.csv | 1 | 0.8000 |")
    assert lines[-1].startswith("no test with one seed")


def test_json_has_groups_runs_and_verdict_and_no_nan(here: Path) -> None:
    found = two_optimizers(here, [0.80, 0.82], [0.9])
    content = json.loads(looks.as_json(found, [LeftOut("x", "failed")]))
    first, second = content["groups"]
    assert (first["settings"], first["n"], first["mean"]) == ({"optim": "adamw"}, 2, pytest.approx(0.81))
    assert second["interval"] == [None, None]
    assert [run["seed"] for run in first["runs"]] == [0, 1]
    assert (content["verdict"]["method"], content["verdict"]["is_significant"]) == ("none", False)
    assert content["skipped"] == [{"name": "x", "reason": "failed"}]


def test_a_table_is_read_back_from_csv_as_it_was_written(here: Path) -> None:
    frame = looks.groups_frame(two_optimizers(here, [0.80, 0.82], [0.9]))
    again = pd.read_csv(StringIO(frame.to_csv(index=False)))
    np.testing.assert_allclose(again["valid/rmse"], frame["valid/rmse"], rtol=1e-12)


# Pictures


def curves_of(axes: Axes, colour: str) -> int:
    return sum(line.get_color() == colour for line in axes.lines)


def test_curves_have_a_thick_mean_over_thin_runs(here: Path, drawn: list[Figure]) -> None:
    found = two_optimizers(here, [0.80, 0.82, 0.84], [0.9])
    assert comparison_plots.curves(found, here / "c.png") == 0
    assert_is_png(here / "c.png")
    (axes,) = drawn[0].axes
    thick = [line for line in axes.lines if line.get_linewidth() > 2]
    assert [len(axes.lines), len(thick)] == [5, 2]
    mean = next(line for line in thick if line.get_color() == comparison_plots.COLOURS[0])
    assert np.asarray(mean.get_ydata()) == pytest.approx([0.92, 0.82])
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["optim=adamw: 0.8200", "optim=sgd: 0.9000"]


def test_a_seed_that_was_run_twice_counts_once_in_the_mean_curve(here: Path, drawn: list[Figure]) -> None:
    for name, seed, value in (("a", 0, 1.0), ("b", 0, 1.0), ("c", 1, 2.0)):
        write_run(here / "runs" / name, value, {"seed": seed})
    write_run(here / "runs" / "without", 2.0, {"seed": 1}, history=[])
    assert comparison_plots.curves(compare(gather(["runs/*"])[0]), here / "c.png") == 1
    (axes,) = drawn[0].axes
    (mean,) = [line for line in axes.lines if line.get_linewidth() > 2]
    assert np.asarray(mean.get_ydata()) == pytest.approx([1.6, 1.5])


def test_of_many_groups_the_best_eight_are_coloured_as_in_the_title(here: Path, drawn: list[Figure]) -> None:
    def history(i: int) -> list[dict[str, Any]]:
        return [{"epoch": e, "valid/rmse": 1e4 if i == 499 else i + 1 / e} for e in (1, 2, 3)]

    rows = [make_row(float(i), {"optim.lr": float(i)}, history=history(i)) for i in range(500)]
    comparison_plots.curves(compare(rows), here / "c.png")
    assert_is_png(here / "c.png")
    (axes,) = drawn[0].axes
    assert axes.get_title(loc="left") == "valid/rmse by epoch: the best 8 of 500 groups"
    assert curves_of(axes, comparison_plots.LIGHT_GREY) == 492 + 1
    assert {line.get_color() for line in axes.lines} == {comparison_plots.LIGHT_GREY, *comparison_plots.COLOURS}
    assert axes.get_ylim()[1] < 1000


def test_runs_without_a_history_are_counted_and_no_history_at_all_is_refused(here: Path) -> None:
    write_run(here / "runs" / "a", 0.8, {"optim.lr": 0.1})
    write_run(here / "runs" / "b", 0.9, {"optim.lr": 0.2}, history=[])
    found = compare(gather(["runs/*"])[0])
    assert comparison_plots.curves(found, here / "c.png") == 1
    with pytest.raises(ConfigError, match="seconds is not recorded by epoch in any of these runs"):
        comparison_plots.curves(compare(gather(["runs/*"])[0], metric="seconds"), here / "d.png")


def test_intervals_are_drawn_over_the_runs_with_the_best_of_each_set_marked(here: Path, drawn: list[Figure]) -> None:
    for valid in (0.1, 0.2):
        for optim, value in (("adamw", 0.8), ("sgd", 0.9)):
            write_seeds(here / "runs", [value, value + 0.01], {"optim": optim, "data.valid": valid})
    found = compare(gather(["runs/*"])[0])
    assert comparison_plots.intervals(found, here / "i.png") == 0
    assert_is_png(here / "i.png")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [group.label for group in found.groups]
    bars = [bar for bar in axes.containers if isinstance(bar, ErrorbarContainer)]
    colours = [bar.lines[0].get_color() for bar in bars]
    assert colours == [plots.GREEN, plots.BLUE, plots.GREEN, plots.BLUE]
    ends = [sorted(bar.lines[2][0].get_segments()[0][:, 0]) for bar in bars]
    assert ends == [pytest.approx([group.estimate.low, group.estimate.high]) for group in found.groups]


def test_of_many_groups_the_first_intervals_are_drawn_and_the_others_counted(here: Path) -> None:
    rows = [make_row(float(i), {"optim.lr": float(i)}) for i in range(40)]
    assert comparison_plots.intervals(compare(rows), here / "i.svg") == 10


@pytest.mark.parametrize(("name", "start"), [("c.svg", b"<?xml"), ("c.pdf", b"%PDF")])
def test_a_plot_has_the_format_of_its_suffix_and_is_reproducible(name: str, start: bytes, here: Path) -> None:
    found = two_optimizers(here, [0.80, 0.82], [0.9])
    contents = []
    for _ in range(2):
        comparison_plots.curves(found, here / name)
        contents.append((here / name).read_bytes())
    assert contents[0].startswith(start)
    assert contents[0] == contents[1]


def test_a_latex_table_is_escaped_and_has_the_best_mean_of_each_set_in_bold(here: Path) -> None:
    for valid in (0.1, 0.2):
        for path, value in (("a_b%.csv", 2e-5), ("c&d", 0.9)):
            settings = {"model.encoder": path, "data.valid": valid}
            for seed in (0, 1):
                name = f"{valid}{seed}{path[0]}"
                write_run(here / "runs" / name, value * (1 + seed / 10), {**settings, "seed": seed})
    lines = latex_table(compare(gather(["runs/*"])[0])).splitlines()
    assert lines[:6] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{8 runs, averaged over seed. Groups between two lines validated on the same rows.}",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"data.valid & model.encoder & $n$ & valid/rmse, mean $\pm$ std & 95\,\% interval \\",
    ]
    assert lines[7].startswith(r"0.1 & a\_b\%.csv & 2 & $\mathbf{2.1 \times 10^{-5}} \pm 1.4 \times 10^{-6}$ & $[8.3 ")
    assert lines[8] == r"0.1 & c\&d & 2 & $0.9450 \pm 0.0636$ & $[0.3732,\ 1.5168]$ \\"
    assert lines[9] == r"\midrule"
    assert lines[-3:] == [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    assert sum("mathbf" in line for line in lines) == 2


def test_a_row_of_a_latex_table_never_begins_with_a_bracket(here: Path) -> None:
    for number, layers in enumerate(([200, 100], [100])):
        write_run(here / "runs" / str(number), 0.9, {"model.layers": layers})
    lines = latex_table(compare(gather(["runs/*"])[0])).splitlines()
    assert sum("{[}" in line for line in lines) == 2
    assert not any(line.startswith("[") for line in lines), "it would be the argument of the line break before"


@pytest.mark.parametrize("name", ["$\\frac{1$", "_hidden", "七人の侍", "a" * 300])
def test_hostile_settings_are_drawn_as_they_are(name: str, here: Path, drawn: list[Figure]) -> None:
    rows = [
        make_row(
            float(i % 3),
            {"data.path": f"{name}{i % 2}", "model": name + str(i % 3)},
            history=[{"epoch": 1, "valid/rmse": 1.0}],
        )
        for i in range(9)
    ]
    comparison_plots.curves(compare(rows), here / "c.png")
    comparison_plots.importance(importance(rows), here / "i.png")
    assert_is_png(here / "c.png")
    assert_is_png(here / "i.png")


@pytest.mark.parametrize(("name", "scale"), [("optim.lr", "log"), ("model.factors", "linear"), ("optim", "linear")])
def test_the_most_important_setting_is_drawn_on_the_scale_that_fits(
    name: str, scale: str, here: Path, drawn: list[Figure]
) -> None:
    found = importance(random_search(lambda s: float(s[name] == "sgd") if name == "optim" else math.log10(s[name])))
    comparison_plots.importance(found, here / "i.png")
    assert_is_png(here / "i.png")
    bars, values = drawn[0].axes
    assert values.get_xlabel() == name
    assert values.get_xscale() == scale
    assert next(label.get_text() for label in bars.get_yticklabels()) == name
    assert "seed (noise)" in [label.get_text() for label in bars.get_yticklabels()]
    assert values.get_title(loc="left").startswith("Best (green): ")
    assert plots.GREEN in {line.get_color() for line in values.lines}


def test_importance_is_printed_with_the_noise_floor() -> None:
    lines = list(looks.importance_sentences(importance(random_search(lambda s: float(s["optim"] == "sgd")))))
    assert lines[1].split()[0] == "optim"
    assert next(line for line in lines if "seed" in line).endswith("noise floor")
    assert lines[-1] == "best: optim = adam (means within one standard error of the best)"
