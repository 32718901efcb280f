"""Pictures of tables show the numbers they were given, and hold up on hostile names and broken values."""

from __future__ import annotations

import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray

from dlrunner.reporting.plots import class_curves, classes, regression, tabular
from dlrunner.reporting.plots import training as plots

NAN, INF = np.nan, np.inf
NAMES = ["$\\frac{1$", "snake_^{", "<script>", "七人の侍", "", "a\nb\tc\x00", "long " * 99, "\ud800"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep every figure instead of saving it, which is what takes time."""
    figures: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        width, height = figure.get_size_inches()
        assert 4 < width < 16
        assert 1.9 < height < 15
        return path

    for module in (tabular, classes, class_curves, regression):
        monkeypatch.setattr(module, "save", save)
    return figures


@pytest.fixture
def saved(drawn: list[Figure], monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep every figure and save it too, with few pixels."""
    monkeypatch.setitem(plots.STYLE, "figure.dpi", 40)
    keep = tabular.save  # type: ignore[attr-defined]

    def save(figure: Figure, path: Path) -> Path:
        plots.save(figure, keep(figure, path))
        assert ElementTree.fromstring(path.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
        return path

    for module in (tabular, classes, class_curves, regression):
        monkeypatch.setattr(module, "save", save)
    return drawn


def texts(figure: Figure) -> list[str]:
    found = [each.get_text() for each in figure.findobj(Text) if isinstance(each, Text) and each.get_visible()]
    return [text for text in found if text]


def bars(axes: Axes) -> list[float]:
    """The lengths of the horizontal bars, from the top down."""
    found = [each for each in axes.patches if isinstance(each, Rectangle)]
    return [each.get_width() for each in sorted(found, key=lambda each: each.get_y())]


def ticks(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def dots(axes: Axes) -> NDArray[np.float64]:
    (found,) = [each for each in axes.collections if isinstance(each, PathCollection)]
    return np.asarray(found.get_offsets(), dtype=np.float64)


def many(number: int) -> list[str]:
    return [NAMES[i % len(NAMES)] for i in range(number)]


def test_predictions_tell_rows_errors_and_the_median(drawn: list[Figure], tmp_path: Path) -> None:
    truth = np.array([100.0, 200.0, 400.0, 800.0, 1e6])
    predicted = np.array([110.0, 220.0, 360.0, 880.0, NAN])
    assert regression.predictions(truth, predicted, tmp_path, name="$Sales$", log=True).path.name == "predictions.svg"
    said = "\n".join(texts(drawn[0]))
    assert "$Sales$: validation rows and their predictions" in said
    assert "4 rows\n1 more without a finite value\nRMSE 46.1\nRMSPE 0.1\n" in said + "\n"
    assert "Relative error, median +10.00%" in said
    axes, beside = drawn[0].axes[:2]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] < 100 < 880 < axes.get_xlim()[1]
    assert np.sum(np.asarray(axes.collections[0].get_array())) == 4
    assert sum(each.get_height() for each in beside.patches if isinstance(each, Rectangle)) == 4


def test_predictions_on_ordinary_axes_show_errors_in_the_unit_of_the_target(
    drawn: list[Figure], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=3000)
    regression.predictions(truth, truth - 0.25, tmp_path, name="y")
    said = texts(drawn[0])
    assert "Error, median −0.25" in said
    assert "3,000 rows\nRMSE 0.25" in said  # no RMSPE where truths are not positive
    mean = next(line for line in drawn[0].axes[0].lines if line.get_label() == "mean truth at that prediction")
    x, y = np.asarray(mean.get_xdata(), dtype=float), np.asarray(mean.get_ydata(), dtype=float)
    np.testing.assert_allclose(y - x, 0.25)


def test_relative_errors_are_clipped_to_one_hundred_percent(drawn: list[Figure], tmp_path: Path) -> None:
    regression.predictions(np.full(9, 1.0), np.full(9, 50.0), tmp_path, name="y", log=True)
    beside = drawn[0].axes[1]
    filled = [each for each in beside.patches if isinstance(each, Rectangle) and each.get_height()]
    assert [each.get_height() for each in filled] == [9]
    assert filled[0].get_x() + filled[0].get_width() == pytest.approx(1)
    assert "and beyond" in beside.get_xlabel()


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize("log", [False, True])
def test_predictions_bear_any_numbers(log: bool, tmp_path: Path) -> None:
    for truth, predicted in (
        ([], []),
        ([3], [4]),
        ([0, 0], [0, 0]),
        ([NAN, INF, 1], [1, 1, NAN]),
        ([-1, 2, 0, 5e37], [NAN, 2.5, -3, 1e-30]),
        ([7] * 50, [7] * 50),
    ):
        pair = np.array(truth, np.float32), np.array(predicted, np.float32)
        regression.predictions(*pair, tmp_path, name=NAMES[len(truth) % 8], log=log)


def test_a_confusion_matrix_counts_rows_by_truth_and_prediction(drawn: list[Figure], tmp_path: Path) -> None:
    truth = np.array([0, 0, 0, 1, 2, 2, -1, 1])
    probabilities = np.eye(3)[[0, 0, 1, 1, 0, 2, 0, 0]]
    probabilities[-1, 0] = NAN  # neither this row nor the one without a class counts
    assert classes.classes(truth, probabilities, ["a", "b", "$c"], tmp_path).path.name == "confusion.svg"
    (axes,) = drawn[0].axes
    cells = {each.get_position(): each.get_text().split("\n")[0] for each in axes.texts}
    assert [[cells[column, row] for column in range(3)] for row in range(3)] == [list("210"), list("010"), list("101")]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array())[0], [2 / 3, 1 / 3, 0])
    assert "66.7% of 6 validation rows are correct" in texts(drawn[0])
    assert ticks(axes) == ["a", "b", "$c"]


def test_two_classes_get_a_reliability_diagram_with_the_rows_of_each_bin(drawn: list[Figure], tmp_path: Path) -> None:
    p = np.array([0.05, 0.05, 0.32, 0.36, 0.36, 0.98])
    truth = np.array([0, 1, 0, 1, 0, 1])
    classes.classes(truth, np.stack([1 - p, p], axis=1), ["no", "yes"], tmp_path)
    _, above, below = drawn[0].axes
    points = np.stack([np.asarray(each) for each in above.lines[1].get_data()], axis=1)
    np.testing.assert_allclose(points, [[0.05, 0.5], [1.04 / 3, 1 / 3], [0.98, 1]])
    assert [each.get_text() for each in below.texts] == ["2", "3", "1"]


def test_curves_start_at_nothing_and_end_at_all_rows(drawn: list[Figure], tmp_path: Path) -> None:
    p = np.array([0.1, 0.4, 0.35, 0.8])
    truth = np.array([0, 0, 1, 1])
    plot = class_curves.curves(truth[:, None] == [0, 1], np.stack([1 - p, p], axis=1), ["no", "yes"], tmp_path)
    roc, pr = drawn[0].axes
    line = [np.asarray(each) for each in roc.lines[0].get_data()]
    np.testing.assert_allclose(line, [[0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1]])
    recall = np.asarray(pr.lines[0].get_xdata(), dtype=float)
    assert (recall[0], recall[-1]) == (0, 1)
    assert "ROC AUC 0.7500, yes against no" in texts(drawn[0])
    assert "yes 0.7500" in plot.alt


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(("rows", "number"), [(0, 2), (1, 2), (5, 3), (60, 9)])
def test_curves_and_precision_bear_any_shape(rows: int, number: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((rows, number))
    probabilities[:1] = NAN
    truth = rng.integers(0, number, rows)
    class_curves.curves(truth[:, None] == np.arange(number), probabilities, many(number), tmp_path)
    classes.by_class(truth, probabilities, many(number), tmp_path)


def test_many_classes_become_the_most_confused_pairs(drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([np.full(9, 3), np.full(6, 4), rng.integers(5, 40, 300)])
    guess = np.concatenate([np.full(9, 7), np.full(6, 8), rng.integers(5, 40, 300)])
    classes.classes(truth, np.eye(40)[guess], [f"class {i}" for i in range(40)], tmp_path)
    (axes,) = drawn[0].axes
    assert bars(axes)[:2] == [9, 6]
    assert ticks(axes)[:2] == ["class 3 predicted as class 7", "class 4 predicted as class 8"]
    assert len(bars(axes)) == 20
    assert "100.0% of its rows" in texts(drawn[0])


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(("rows", "number"), [(0, 2), (0, 0), (1, 2), (5, 1), (30, 3), (30, 30)])
def test_classes_handle_any_shape(rows: int, number: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((rows, number))
    probabilities[:1] = INF
    classes.classes(rng.integers(-1, number + 1, rows), probabilities, many(number), tmp_path)


def test_classes_without_an_error_or_with_a_single_class_present_are_drawn(saved: list[Figure], tmp_path: Path) -> None:
    classes.classes(np.zeros(5, int), np.eye(25)[np.zeros(5, int)], many(25), tmp_path)
    assert "all rows are predicted correctly" in texts(saved[0])
    classes.classes(np.zeros(5, int), np.full((5, 2), 0.5), ["a", "b"], tmp_path)
    assert "AUC" not in "".join(texts(saved[1]))


def test_intervals_tell_how_many_truths_are_within(drawn: list[Figure], tmp_path: Path) -> None:
    truth = np.array([1.0, 2.0, 3.0, 9.0])
    quantiles = np.stack([np.zeros(4), truth.clip(max=4), np.full(4, 5.0)], axis=1)
    regression.intervals(truth, quantiles, [0.1, 0.5, 0.9], tmp_path, name="y")
    assert "y: quantiles of 4 validation rows; 75.0% of the rows are within the 80% interval" in texts(drawn[0])
    below, rows = drawn[0].axes
    assert [each.get_text() for each in below.texts] == ["0.0%", "75.0%", "75.0%"]
    outside = rows.lines[2]
    assert np.asarray(outside.get_ydata()).tolist() == [9]


def test_observed_fractions_have_the_same_intervals_in_all_plots_and_at_0_and_1_a_width(
    drawn: list[Figure], tmp_path: Path
) -> None:
    expected = [scipy.stats.binomtest(hits, 20).proportion_ci(method="wilson") for hits in (0, 20)]
    quantiles = np.stack([np.zeros(20), np.full(20, 9.0)], axis=1)
    regression.intervals(np.arange(1.0, 5, 0.2), quantiles, [0.1, 0.9], tmp_path, name="y")
    p = np.repeat([0.05, 0.95], 20)
    classes.classes((p > 0.5).astype(int), np.stack([1 - p, p], axis=1), ["no", "yes"], tmp_path)
    for axes in (drawn[0].axes[0], drawn[1].axes[1]):
        (bars,) = [each for each in axes.collections if isinstance(each, LineCollection)]
        found = [sorted(segment[:, 1]) for segment in bars.get_segments()]
        np.testing.assert_allclose(found, [[each.low, each.high] for each in expected], atol=1e-4)


@pytest.mark.usefixtures("saved")
def test_plots_of_numbers_bear_any_numbers(tmp_path: Path) -> None:
    for truth, predicted in (([], []), ([3], [4]), ([0, 0], [0, 0]), ([NAN, 1, 2], [1, INF, 2]), ([7] * 50, [7] * 50)):
        y, x = np.array(truth, np.float32), np.array(predicted, np.float32)
        regression.residuals(y, x, tmp_path, name=NAMES[len(truth) % 8])
        regression.intervals(y, np.stack([x, x], axis=1), [0.2, 0.7], tmp_path, name=NAMES[len(truth) % 8])
    numbers = regression.Dependence(NAMES[0], [1.0, 2.0], np.ones((2, 1)), [1.5])
    categories = regression.Dependence(NAMES[1], NAMES, np.ones((len(NAMES), 1)))
    regression.partial_dependence([numbers, categories], tmp_path, what=NAMES[2])
    regression.partial_dependence([], tmp_path, what="y")
    several = regression.Dependence("x", [1.0, 2.0], np.ones((2, 2)), [])
    regression.partial_dependence([several] * 7, tmp_path, what="probability", curves=NAMES[:2])


def test_labels_are_sorted_by_frequency_with_precision_and_recall(drawn: list[Figure], tmp_path: Path) -> None:
    truth = np.array([[0, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0]])
    probabilities = np.array([[0.9, 0.9, 0.1], [0.1, 0.9, 0.2], [0.5, 0.4, 0.3], [0.9, NAN, 0.4]])
    assert classes.labels(truth, probabilities, ["rare", "usual", "never said"], tmp_path).path.name == "labels.svg"
    (axes,) = drawn[0].axes
    assert ticks(axes) == ["usual  (3)", "never said  (2)", "rare  (1)"]
    precision, recall = (np.asarray(line.get_xdata(), dtype=float) for line in axes.lines[:2])
    np.testing.assert_allclose(precision, [1, NAN, 1 / 3])
    np.testing.assert_allclose(recall, [2 / 3, 0, 1])
    assert texts(drawn[0]).count("predicted for no row") == 1


def test_at_most_thirty_labels_are_drawn(drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes.labels(rng.integers(0, 2, (50, 200)), rng.random((50, 200)), many(200), tmp_path)
    assert len(ticks(drawn[0].axes[0])) == 30
    assert any("the 30 most frequent of 200 labels" in text for text in texts(drawn[0]))


@pytest.mark.usefixtures("saved")
def test_labels_handle_any_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes.labels(rng.integers(0, 2, (20, 8)), rng.random((20, 8)), NAMES, tmp_path)
    for rows, number in ((0, 0), (0, 3), (1, 1)):
        classes.labels(np.ones((rows, number), int), np.full((rows, number), NAN), many(number), tmp_path)


def test_errors_by_level_are_the_lengths_of_the_bars(drawn: list[Figure], tmp_path: Path) -> None:
    groups = [
        ("DayOfWeek", ["1", "2", "3"], np.array([0.3, 0.1, NAN]), np.array([1234, 5, 0])),
        ("$Promo", ["no", "yes"], np.array([0.2, 0.15]), np.array([10, 20])),
    ]
    assert tabular.error_by(groups, tmp_path, metric="rmspe", overall=0.18).path.name == "error_by.svg"
    first, second = drawn[0].axes
    assert bars(first) == [0.3, 0.1, 0]
    assert bars(second) == [0.2, 0.15]
    assert ticks(first) == ["1", "2", "3"]
    assert [each.get_text() for each in first.texts] == ["1,234", "5", "no value, 0"]
    assert first.get_xlim() == second.get_xlim()
    for axes, name in ((first, "DayOfWeek"), (second, "$Promo")):
        assert axes.get_title(loc="left") == name
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [list(np.asarray(line.get_xdata())) for line in dashed] == [[0.18, 0.18]]
    assert "rmspe by category (dashed: 0.18 over all rows)" in texts(drawn[0])


def test_errors_of_categories_of_few_rows_are_left_out_and_counted(drawn: list[Figure], tmp_path: Path) -> None:
    groups = [
        ("city", ["Bonn", "Köln", "Ulm", "Rom"], np.array([0.1, 9.0, 0.2, 5.0]), np.array([50, 3, 10, 9])),
        ("few", ["a", "b"], np.array([0.3, 0.4]), np.array([2, 3])),
    ]
    tabular.error_by(groups, tmp_path, metric="rmse", overall=0.2, fewest=10)
    first, second = drawn[0].axes
    assert (ticks(first), bars(first)) == (["Bonn", "Ulm"], [0.1, 0.2])
    assert first.get_xlabel() == "rmse (2 of fewer than 10 rows left out)"
    assert (ticks(second), second.get_xlabel()) == (["a", "b"], "rmse"), "nothing else is left"


def test_of_many_categories_the_fifteen_worst_are_drawn_and_it_says_so(drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    errors = rng.random(1115)
    errors[7] = INF
    groups = [(f"column {i}", [str(j) for j in range(1115)], errors, np.arange(1115)) for i in range(5)]
    days = ("Day", [str(j) for j in range(1, 32)], errors[:31], np.arange(31))
    tabular.error_by([*groups[:3], days, groups[4]], tmp_path, metric="rmse", overall=0.5)
    assert len(drawn[0].axes) == 4
    worst = next(axes for axes in drawn[0].axes if axes.get_title(loc="left") == "column 0: 15 worst of 1,115")
    finite = np.where(np.isfinite(errors), errors, -1)
    assert bars(worst) == sorted(finite, reverse=True)[:15]
    assert ticks(worst)[0] == str(finite.argmax())
    assert [len(bars(axes)) for axes in drawn[0].axes if axes.get_title(loc="left") == "Day"] == [31]


@pytest.mark.usefixtures("saved")
def test_errors_by_level_bear_any_input(tmp_path: Path) -> None:
    def group(errors: list[float]) -> tuple[str, list[str], NDArray[np.float64], NDArray[np.int64]]:
        number = len(errors)
        return NAMES[number % 8], many(number), np.array(errors), np.arange(number)

    tabular.error_by([], tmp_path, metric=NAMES[0], overall=0.1)
    tabular.error_by([group([]), group([NAN]), group([0, 0, 0])], tmp_path, metric=NAMES[6], overall=NAN)
    tabular.error_by([group([NAN] * 20 + [INF] * 20), group([-1, 1])], tmp_path, metric="", overall=INF)
    tabular.error_by([group([0])], tmp_path, metric="m", overall=0)


def test_the_largest_errors_are_written_as_numbers_are(drawn: list[Figure], tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "Store": [12345, 7],
            "Date": pd.Series([pd.Timestamp("2015-06-20"), pd.NaT]),
            "$Temperature": [21.5, NAN],
            "Holiday": ["none", "x\ny" + "z" * 90],
            "truth": [12345.0, 100.0],
            "prediction": [2345.0, 130.0],
            "error": [-10000.0, 30.0],
        }
    )
    assert tabular.largest_errors(table, tmp_path).path.name == "largest_errors.svg"
    written = {each.get_text(): each for each in drawn[0].texts}
    assert {"12345", "2015-06-20", "–", "21.5", "12,345", "−10,000", "30", "$Temperature"} <= set(written)
    assert any(text.startswith("x yzz") and text.endswith("…") for text in written)
    assert written["12,345"].get_horizontalalignment() == written["truth"].get_horizontalalignment() == "right"
    assert written["none"].get_horizontalalignment() == "left"
    assert written["truth"].get_fontweight() == "bold"
    assert written["12,345"].get_fontweight() == "normal"
    ends = [written[text].get_window_extent().x1 for text in ("truth", "12,345", "100")]
    assert np.ptp(ends) < 1.5  # pixels


def test_nothing_in_a_table_overlaps_or_is_cut_off(drawn: list[Figure], tmp_path: Path) -> None:
    wide = pd.DataFrame([[f"column {i} row {j} " * 3 for i in range(16)] for j in range(20)])
    tabular.largest_errors(wide, tmp_path)
    assert len(drawn[0].texts) == 10 * (15 + 1) + 1
    assert any("(16 columns in all)" in text for text in texts(drawn[0]))
    boxes = [each.get_window_extent() for each in drawn[0].texts]
    width, height = drawn[0].get_size_inches() * drawn[0].dpi
    assert min(box.x0 for box in boxes) > 0 < min(box.y0 for box in boxes)
    assert max(box.x1 for box in boxes) < width
    assert max(box.y1 for box in boxes) < height
    first_row = sorted((box for box in boxes if abs(box.y0 - boxes[1].y0) < 2), key=lambda box: box.x0)
    assert len(first_row) == 10
    assert all(left.x1 < right.x0 for left, right in pairwise(first_row))


def test_tables_of_errors_bear_any_cell(saved: list[Figure], tmp_path: Path) -> None:
    tabular.largest_errors(pd.DataFrame(), tmp_path)
    tabular.largest_errors(pd.DataFrame({"truth": [], "prediction": [], "error": []}), tmp_path)
    assert "no row to draw" in texts(saved[1])
    odd: list[Any] = [1, NAN, INF, None, "$x", pd.NaT, 1e300, np.array([1, 2]), True, datetime.date(2020, 1, 1)]
    tabular.largest_errors(pd.DataFrame(dict.fromkeys(NAMES[:7], odd)), tmp_path)
    typed = {
        "c": pd.Categorical(["x", None]),
        "i": pd.array([1, None], dtype="Int64"),
        "d": pd.Series([pd.Timestamp("2020-01-01 12:30", tz="UTC"), pd.NaT]),
        "truth": [1e20, -INF],
        "prediction": np.array([0.123456, 1e-9], np.float32),
        "error": [NAN, NAN],
    }
    tabular.largest_errors(pd.DataFrame(typed), tmp_path)
    assert {"1e20", "−inf", "0.1235", "1e−9"} <= set(texts(saved[3]))


def test_importance_is_sorted_and_at_most_thirty_columns_are_drawn(drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rises, deviations = rng.normal(size=100), rng.random(100)
    rises[:2] = NAN, INF
    names = [f"column {i}" for i in range(100)]
    assert tabular.importance(names, rises, deviations, tmp_path, metric="$rmse").path.name == "importance.svg"
    (axes,) = drawn[0].axes
    best = 2 + np.argsort(-rises[2:])[:30]
    np.testing.assert_allclose(bars(axes), rises[best])
    assert ticks(axes) == [names[i] for i in best]
    whiskers = axes.containers[1].get_children()[-1]
    ends = np.array([path.vertices[:, 0] for path in whiskers.get_paths()])  # type: ignore[attr-defined]
    np.testing.assert_allclose(ends, np.stack([rises - deviations, rises + deviations], axis=1)[best])
    assert [each.xy[0] for each in axes.texts] == ends[:, 1].tolist()  # type: ignore[attr-defined]  # beyond the whisker
    said = texts(drawn[0])
    assert "How much worse it predicts when one column is shuffled (the 30 that matter most of 100)" in said
    assert any(text.startswith("$rmse: how much worse") for text in said)


def test_importance_names_the_base_that_outputs_are_added_to(drawn: list[Figure], tmp_path: Path) -> None:
    plot = tabular.importance(
        ["store", "history_base"], np.array([0.1, 2.0]), np.zeros(2), tmp_path, metric="m", base="history_base"
    )
    assert "outputs are added to history_base" in plot.caption
    assert ticks(drawn[0].axes[0]) == ["history_base (base of outputs)", "store"]


def test_importance_bears_any_input(saved: list[Figure], tmp_path: Path) -> None:
    tabular.importance([], np.zeros(0), np.zeros(0), tmp_path, metric=NAMES[0])
    tabular.importance(many(8), np.full(8, NAN), np.full(8, INF), tmp_path, metric=NAMES[6])
    assert texts(saved[1]).count("no value") == 8
    tabular.importance(["a", "b"], np.zeros(2), np.zeros(2), tmp_path, metric="m")


def test_embeddings_lie_on_their_principal_components(drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 6)).astype(np.float32)
    months = [str(i) for i in range(1, 13)]
    shuffled = rng.permutation(12)
    tables = [
        ("Month", [months[i] for i in shuffled], vectors[shuffled]),
        ("State", [f"state {i}" for i in range(12)], vectors),
        ("Flag", ["no", "yes"], vectors[:2, :1]),
    ]
    assert tabular.embeddings(tables, tmp_path).path.name == "embeddings.svg"
    month, state, flag = drawn[0].axes
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(centred)
    scores = left[:, :2] * singular[:2]
    np.testing.assert_allclose(np.abs(dots(state)), np.abs(scores), atol=1e-5)
    share = singular[0] ** 2 / np.sum(singular**2)
    assert state.get_xlabel() == f"component 1 ({share:.0%} of the variance)"
    assert {each.get_text() for each in state.texts} == {f"state {i}" for i in range(12)}
    line = np.stack([np.asarray(month.lines[0].get_xdata()), np.asarray(month.lines[0].get_ydata())], axis=1)
    np.testing.assert_allclose(np.abs(line), np.abs(scores), atol=1e-5)  # joined from January to December
    assert all(len(np.asarray(each.get_xdata())) == 2 for each in state.lines)  # from labels to points, at most
    assert flag.get_xlabel() == "component 1 (100% of the variance)"
    assert dots(flag)[:, 1].tolist() == [1, 2]


def test_every_label_lies_inside_the_axes_and_none_covers_another(drawn: list[Figure], tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(31, 4))
    tabular.embeddings([("Day", [f"day {i}" for i in range(31)], vectors)], tmp_path)
    (axes,) = drawn[0].axes
    frame = axes.get_window_extent()
    boxes = [each.get_window_extent() for each in axes.texts]
    assert len(boxes) == 31
    for place, box in enumerate(boxes):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.shrunk(0.9, 0.9).overlaps(other) for other in boxes[:place])


def test_of_many_categories_all_points_are_drawn_and_some_named(drawn: list[Figure], tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(600, 3))
    tabular.embeddings([("Store", [str(i) for i in range(600)], vectors)], tmp_path)
    (axes,) = drawn[0].axes
    assert len(dots(axes)) == 600
    assert len(axes.texts) == len({each.get_text() for each in axes.texts}) == 40
    assert axes.get_title(loc="left") == "Store: 40 of 600 named"
    assert all(len(np.asarray(each.get_xdata())) == 2 for each in axes.lines)  # identifiers are not joined


def test_embeddings_are_laid_out_without_being_drawn_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws, draw = list[Figure](), Figure.draw

    def count(figure: Figure, renderer: Any) -> None:
        draws.append(figure)
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", count)
    tabular.embeddings([("State", [f"state {i}" for i in range(5)], np.eye(5, 3))], tmp_path)
    assert len(draws) == 1


def test_no_place_is_looked_for_where_an_axis_has_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, boxes = set[str](), Axis._get_tick_boxes_siblings  # type: ignore[attr-defined]

    def count(axis: Axis, renderer: Any) -> Any:
        labels.add(axis.get_label_text())
        return boxes(axis, renderer)

    monkeypatch.setattr(Axis, "_get_tick_boxes_siblings", count)
    tabular.importance(["a", "b"], np.ones(2), np.zeros(2), tmp_path, metric="rmse")
    assert len(labels) == 1
    assert "" not in labels


def test_embeddings_bear_any_input(saved: list[Figure], tmp_path: Path) -> None:
    tabular.embeddings([], tmp_path)
    vectors = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    vectors[0], vectors[1, 0] = NAN, INF
    tables: list[tuple[str, list[str], NDArray[np.floating[Any]]]] = [
        ("", [], np.zeros((0, 3))),
        (NAMES[6], ["x"], np.zeros((1, 3))),
        (NAMES[0], ["1", "2", "3"], np.ones((3, 2))),
        (NAMES[5], NAMES, vectors),
        ("a fifth", ["x"], np.zeros((1, 1))),
    ]
    tabular.embeddings(tables, tmp_path)
    assert len(saved[1].axes) == 4
    assert len(dots(saved[1].axes[3])) == 6
    tabular.embeddings([("a", ["x", "y"], np.zeros((2, 0))), ("b", ["x"], np.full((1, 3), NAN))], tmp_path)
    assert texts(saved[2]).count("no category to draw") == 2


@pytest.mark.usefixtures("saved")
def test_ordinary_plots_are_saved_under_their_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.exp(rng.normal(size=500))
    p = rng.random((90, 2))
    regression.predictions(y, y * 1.1, tmp_path, name="y", log=True)
    classes.classes(rng.integers(0, 2, 90), p / p.sum(axis=1, keepdims=True), ["no", "yes"], tmp_path)
    tabular.error_by([("Promo", ["0", "1"], p[0], np.ones(2, int))] * 3, tmp_path, metric="rmse", overall=0.4)
    tabular.embeddings([("Store", [str(i) for i in range(90)], p)], tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == [
        "confusion.svg",
        "embeddings.svg",
        "error_by.svg",
        "predictions.svg",
    ]


def test_points_that_lie_far_from_each_other_are_picked() -> None:
    points = np.concatenate([np.zeros((50, 2)), [[9.0, 0.0], [-9.0, 0.0]]])
    picked = tabular._spread(points, 3).tolist()
    assert {50, 51} < set(picked)
    assert len(tabular._spread(points, 10)) == 10


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    tabular.importance(["a"], np.ones(1), np.ones(1), tmp_path, metric="m")
    assert dict(matplotlib.rcParams) == before
