"""Pictures hold up on hostile titles, tiny tables and broken histories."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from numpy.typing import NDArray

from dlrunner.data.core.splitting import TEST, TRAIN, VALID
from dlrunner.data.ratings.dataset import RatingsTable
from dlrunner.plot import Plot
from dlrunner.reporting.plots import collab, elements, images, segmentation, training_time
from dlrunner.reporting.plots import training as plots

TITLES = [
    "$\\frac{1$",
    "snake_case_^{",
    "<script>alert(1)</script>",
    "七人の侍 (1954)",
    "Сталкер",
    "",
    "a\nb\tc\x00",
    "long " * 99,
]


@pytest.fixture(autouse=True)
def coarse_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plots.STYLE, "figure.dpi", 50)  # to be fast
    monkeypatch.setattr(plots, "_more_formats", ContextVar("more_formats", default=("png",)))  # pixels can be checked


def assert_is_png(drawn: Path | Plot) -> NDArray[Any]:
    path = drawn.path if isinstance(drawn, Plot) else drawn
    if path.suffix == ".svg":
        assert ElementTree.fromstring(path.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n")
    pixels = np.asarray(imread(path.with_suffix(".png")))
    assert 100 < pixels.shape[0] < 700
    assert 250 < pixels.shape[1] < 800
    colours = (pixels[::3, ::3, :3] * 255).astype(np.int64) @ np.array([65536, 256, 1])
    assert len(np.unique(colours)) > 5
    return pixels


def make_table(num_users: int, num_items: int, share: float = 0.7) -> RatingsTable:
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((num_users, num_items)) < share)
    ratings = (rng.integers(1, 11, len(users)) / 2).astype(np.float32)
    return RatingsTable(
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        ratings=ratings,
        times=None,
        split=np.sort(rng.random(len(users)) < 0.2).astype(np.int8),
        user_ids=[f"$user_{i}$" for i in range(num_users)],
        item_ids=list(range(num_items)),
        titles=[TITLES[i % len(TITLES)] for i in range(num_items)],
    )


def rows(num_epochs: int, **others: Any) -> list[dict[str, Any]]:
    return [
        {
            "epoch": e,
            "train/loss": 1 / e,
            "valid/loss": 1.2 / e,
            "valid/rmse": 1.1 / e,
            "valid/mae": 1 / e,
            "lr": 0.1,
            **others,
        }
        for e in range(1, num_epochs + 1)
    ]


def height(plot: Plot) -> int:
    return int(assert_is_png(plot).shape[0])


def test_principal_components_find_planted_directions() -> None:
    rng = np.random.default_rng(1)
    directions, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    planted = rng.normal(size=(50, 2))
    planted, _ = np.linalg.qr(planted - planted.mean(axis=0))  # orthonormal columns of mean zero
    matrix = planted * (4.0, 1.0) @ directions.T + rng.normal(size=6)
    scores, shares = plots.principal_components(matrix, 3)
    assert shares == pytest.approx([16 / 17, 1 / 17, 0], abs=1e-9)
    for place, size in enumerate((4.0, 1.0)):
        assert abs(scores[:, place] @ planted[:, place]) == pytest.approx(size)


def test_the_largest_loading_of_a_component_is_positive_whatever_the_sign_of_the_factors() -> None:
    line = np.linspace(-1, 1, 9)[:, None] * np.array([0.1, -2.0, 0.3])
    scores, _ = plots.principal_components(line, 1)
    again, _ = plots.principal_components(line[::-1], 1)
    assert scores[0, 0] > 0  # the first row is positive in the second column, whose loading is the largest
    np.testing.assert_allclose(scores, again[::-1], atol=1e-12)


def test_principal_components_of_constant_factors_are_zero() -> None:
    scores, shares = plots.principal_components(np.ones((4, 3)), 3)
    assert not scores.any()
    assert shares.tolist() == [0, 0, 0]


def test_the_threshold_for_biases_falls_only_where_items_are_few() -> None:
    assert collab.bias_threshold(np.full(24, 100)) == 20
    assert collab.bias_threshold(np.array([100] * 23 + [7, 7, 3])) == 7
    assert collab.bias_threshold(np.array([100, 2, 0])) == 1


def test_cross_table_shows_as_many_users_and_items_as_there_are(tmp_path: Path) -> None:
    asked: list[int] = []

    def predict(users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        asked.append(len(users))
        assert users.max() < 3
        return (users + items).astype(np.float32)

    few = height(collab.cross_table(make_table(3, 4), predict, tmp_path))
    assert asked == [12]

    many = collab.cross_table(make_table(30, 9), lambda u, i: np.full(len(u), 3, np.float32), tmp_path)
    assert height(many) > few


def test_cross_table_shows_the_most_rated_and_marks_ratings_that_were_not_trained_on() -> None:
    table = RatingsTable(
        users=np.array([0, 1, 1, 1, 0, 2, 2]),
        items=np.array([0, 1, 2, 0, 1, 1, 0]),
        ratings=np.array([1, 3, 4, 5, 2, 0.5, 4.5], np.float32),
        times=None,
        split=np.array([TRAIN, TRAIN, TRAIN, TRAIN, VALID, VALID, TEST], np.int8),
        user_ids=[10, 11, 12],
        item_ids=[20, 21, 22],
        titles=["a", "b", "c"],
    )
    rated, is_unseen = collab._block(table, np.array([1, 2]), np.array([1, 0]))
    np.testing.assert_array_equal(rated, [[3, 5], [0.5, 4.5]])
    assert is_unseen.tolist() == [[False, False], [True, True]]
    assert collab._most(np.array([2, 5, 5, 1]), 3).tolist() == [1, 2, 0]


@pytest.mark.parametrize(("num_items", "num_factors"), [(2, 1), (8, 5), (60, 1)])
def test_plots_of_items_handle_few_items_few_factors_and_any_title(
    num_items: int, num_factors: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(num_items, num_factors)).astype(np.float32)
    titles = [TITLES[i % len(TITLES)] for i in range(num_items)]
    counts = rng.integers(0, 50, num_items)
    assert_is_png(collab.item_components(factors, titles, counts, tmp_path))
    assert_is_png(collab.item_map(factors, titles, counts, tmp_path))
    assert_is_png(collab.item_biases(factors[:, 0], titles, counts, tmp_path))


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e4])
def test_the_axes_of_the_map_of_items_have_their_titles(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(collab, "save", save)
    factors = np.random.default_rng(0).normal(size=(30, 2)) * [1, 0.7] * scale
    collab.item_map(factors.astype(np.float32), [str(i) for i in range(30)], np.arange(30), tmp_path)
    figures[0].draw_without_rendering()
    title = figures[0].axes[0].yaxis.label.get_window_extent()
    assert title.x0 >= 0, "it is not cut"


def test_constant_biases_and_factors_are_drawn(tmp_path: Path) -> None:
    titles = [str(i) for i in range(30)]
    counts = np.zeros(30, dtype=np.int64)
    assert_is_png(collab.item_biases(np.zeros(30, np.float32), titles, counts + 50, tmp_path))
    assert_is_png(collab.item_components(np.ones((30, 4), np.float32), titles, counts, tmp_path))
    assert_is_png(collab.item_map(np.ones((30, 4), np.float32), titles, counts, tmp_path))


@pytest.mark.parametrize(
    "draw_ratings",
    [lambda rng: rng.integers(1, 11, 2000) / 2, lambda rng: rng.normal(size=2000), lambda rng: np.full(3, 4.0)],
    ids=["half stars", "continuous", "all the same"],
)
def test_predictions_are_drawn_for_stars_and_for_real_numbers(
    draw_ratings: Callable[[np.random.Generator], NDArray[np.float64]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    ratings = draw_ratings(rng).astype(np.float32)
    outputs = (ratings + rng.normal(size=len(ratings))).astype(np.float32)
    outputs[0] = np.nan
    assert_is_png(collab.predictions(ratings, outputs, tmp_path))


@pytest.mark.parametrize("odd", [99_999_999, np.nextafter(np.float32(3), np.float32(4))], ids=["a code", "rounding"])
def test_one_odd_rating_makes_no_more_cells(odd: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    density = elements.density

    def kept(*data: Any, size: tuple[int, int], **others: Any) -> PolyCollection:
        sizes.append(size)
        assert np.prod(size) < 10_000, "they would not fit into memory"
        return density(*data, size=size, **others)

    monkeypatch.setattr(collab, "density", kept)
    ratings = np.array([1, 2, 3, 4, 5] * 20, dtype=np.float32)
    for values in (ratings, np.append(ratings, np.float32(odd))):
        assert_is_png(collab.predictions(values, values + np.float32(0.1), tmp_path))
    assert sizes == [(30, 4), (45, 26)]


@pytest.mark.parametrize("num_epochs", [0, 1, 300])
def test_training_curves_are_drawn_for_any_number_of_epochs(num_epochs: int, tmp_path: Path) -> None:
    path = plots.training_curves(rows(num_epochs), tmp_path).path
    assert path.name == "losses.svg"
    assert_is_png(path)


def test_training_curves_handle_missing_and_infinite_values(tmp_path: Path) -> None:
    history = rows(3, **{"train/loss": math.nan, "valid/loss": None, "valid/rmse": math.inf, "valid/$\\x{$": 1e-9})
    del history[1]["lr"]
    assert_is_png(plots.training_curves(history, tmp_path))


def test_a_long_run_has_its_metric_by_hours(tmp_path: Path) -> None:
    history = [{"epoch": epoch, "valid/rmse": 2 / epoch, "seconds": 3600.0} for epoch in (1, 2, 3)]
    plot = training_time.metric_by_time(history, "valid/rmse", tmp_path)
    assert plot is not None
    assert_is_png(plot.path)
    assert plot.alt == "Line plot of valid/rmse: 2 after 1.0, 1 after 2.0, 0.6667 after 3.0 hours."
    history[1]["valid/rmse"] = math.inf
    plot = training_time.metric_by_time(history, "valid/rmse", tmp_path)
    assert plot is not None
    assert plot.alt == "Line plot of valid/rmse: 2 after 1.0, 0.6667 after 3.0 hours."
    short = [{**row, "seconds": 1.0} for row in history]
    assert training_time.metric_by_time(short, "valid/rmse", tmp_path) is None
    assert training_time.metric_by_time([], "valid/rmse", tmp_path) is None


def test_plots_of_a_run_are_written_in_another_format_too(tmp_path: Path) -> None:
    with plots.also_as({"pdf"}):
        assert plots.training_curves(rows(3), tmp_path).path.name == "losses.svg"
    assert (tmp_path / "losses.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "losses.pdf").unlink()
    with plots.also_as({"svg"}):
        plots.training_curves(rows(3), tmp_path)
    assert [file.name for file in tmp_path.glob("losses.*")] == ["losses.svg"]


def test_a_learning_rate_that_changes_gets_its_own_panel(tmp_path: Path) -> None:
    constant = height(plots.training_curves(rows(4, lr=[0.1, 0.1]), tmp_path))
    changing = rows(4)
    changing[2]["lr"] = 0.01
    assert height(plots.training_curves(changing, tmp_path)) > constant
    assert plots._rates(rows(4, lr=[0.1, 0.01])) is not None


def test_the_limits_of_a_range_test_ignore_a_diverged_loss() -> None:
    smooth = np.concatenate([np.full(30, 2.3), np.linspace(2.3, 1.0, 40), np.geomspace(1.0, 1e9, 20), [np.nan]])
    low, high = plots._robust_limits(smooth)
    assert 0.5 < low < 1.0
    assert 2.3 < high < 3.5


def test_range_tests_are_drawn_with_and_without_a_suggestion(tmp_path: Path) -> None:
    rates = np.geomspace(1e-6, 1, 50).tolist()
    losses = [2.0] * 40 + [math.inf] * 10
    assert_is_png(plots.lr_range(rates, losses, losses, 3e-4, tmp_path / "range.png"))
    assert_is_png(plots.lr_range([], [], [], None, tmp_path / "empty.png"))


def test_images_have_their_file_names_below(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    for module in (images, segmentation):
        monkeypatch.setattr(module, "save", save)
    pixels, codes = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    long = f"a/{'very/' * 9}long_$name$.png"
    images.sheet([pixels] * 2, [np.zeros((8, 8), np.float32)] * 2, [("x.png", "a", "b", 0.9)] * 2, tmp_path / "a.png")
    segmentation.with_masks(
        "T", [("99% correct", long, pixels, codes, codes)], ["sky"], pixels[0, :1], tmp_path / "b.png"
    )
    written = [[text.get_text() for text in figure.findobj(Text)] for figure in figures]
    assert written[0].count("x.png") == 2
    assert next(text for text in written[1] if text.endswith("long_$name$.png")).startswith("…")


def test_titles_are_cut_to_columns_and_lose_their_year_first() -> None:
    assert plots.shorten("Heat (1995)", 11) == "Heat (1995)"
    assert plots.shorten("Heat (1995)", 10) == "Heat"
    assert plots.shorten("一二三四五六", 7) == "一二三…"
    assert plots.shorten("a\n b\x00c\ud800", 20) == "a b c"


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    plots.training_curves(rows(2), tmp_path)
    assert dict(matplotlib.rcParams) == before
