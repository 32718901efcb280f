"""Plots of collaborative filtering: predictions, item biases and item factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from dlrunner.data.core.splitting import TRAIN
from dlrunner.data.ratings.dataset import RatingsTable
from dlrunner.plot import Plot
from dlrunner.reporting.plots.elements import density
from dlrunner.reporting.plots.labels import place_labels
from dlrunner.reporting.plots.number_format import number_tick
from dlrunner.reporting.plots.training import (
    BLUE,
    GREY,
    INK,
    PALE_BLUES,
    RED,
    conditional_means,
    principal_components,
    save,
    shorten,
    styled,
)
from dlrunner.row_blocks import blocks_of, occurrences

Predict = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]

MOST_IN_TABLE, MOST_IN_MAP = 15, 50
"""Users and items of the cross table, items of the map."""
MOST_STARS, MOST_HEXAGONS = 21, 100
"""With more distinct ratings, or more rows of hexagons to have one on each, they are drawn as real numbers."""
MOST_ITEMS = 2000
"""Number of most rated items for the components: the factors of rarely rated items are noise."""


def predictions(ratings: NDArray[np.float32], outputs: NDArray[np.float32], folder: Path) -> Plot:
    """Draw predictions.svg: validation ratings against their predictions, and both distributions."""
    known = np.isfinite(ratings) & np.isfinite(outputs)
    y, x = ratings[known].astype(np.float64), outputs[known].astype(np.float64)
    with styled():
        figure = Figure(figsize=(7.4, 6.8))
        grid = figure.add_gridspec(
            2, 2, width_ratios=(6, 1), height_ratios=(1.15, 6), hspace=0.03, wspace=0.03,
            left=0.085, right=0.985, bottom=0.095, top=0.95,
        )  # fmt: skip
        axes = figure.add_subplot(grid[1, 0])
        above = figure.add_subplot(grid[0, 0], sharex=axes)
        right = figure.add_subplot(grid[1, 1], sharey=axes)
        distinct = np.unique(y)
        step = float(np.diff(distinct).min()) if len(distinct) > 1 else 1.0
        are_few = len(distinct) <= MOST_STARS and _rows_of_hexagons(distinct, step) <= MOST_HEXAGONS
        low, high = _limits(x, y, 0.6 * step if are_few else 0.03 * float(np.ptp(distinct)))
        drawn = None
        if len(x):
            size, bottom, top = (45, 26), low, high
            if are_few:  # each has a row of hexagons: matplotlib's grid has a second lattice between the rows
                size = 30, _rows_of_hexagons(distinct, step)
                bottom, top = float(distinct[0]), float(distinct[0]) + 2 * step * size[1]
            drawn = density(axes, x, y, size=size, extent=(low, high, bottom, top))
        if are_few:
            right.barh(distinct, [np.sum(y == rating) for rating in distinct], height=0.8 * step, color=BLUE)
        else:
            right.hist(y, bins=45, range=(low, high), orientation="horizontal", color=BLUE)
        above.hist(x, bins=90, range=(low, high), color=BLUE)
        above.set_title("Ratings and their predictions (validation)")
        axes.axline((low, low), slope=1, color=INK, linewidth=1, linestyle="--", label="rating = prediction")
        centres, means = conditional_means(x, y)
        axes.plot(
            centres,
            means,
            "o-",
            color=RED,
            markersize=4,
            linewidth=1.5,
            label="mean rating at that prediction",
        )
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="prediction", ylabel="rating")
        above.legend(*axes.get_legend_handles_labels(), loc="upper left", borderaxespad=0)  # where nothing is covered
        rmse = f"{np.sqrt(np.mean((x - y) ** 2)):.4f}" if len(x) else "-"
        figure.text(0.985, 0.925, f"RMSE\n{rmse}", ha="right", va="center", fontsize=13, fontweight="bold")
        figure.text(0.985, 0.882, f"{len(x):,} ratings", ha="right", va="center", fontsize=9)
        for margin in (above, right):
            margin.grid(False)
            margin.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
            for spine in margin.spines.values():
                spine.set_visible(False)
        if drawn is not None:
            bar = figure.add_axes((0.79, 0.04, 0.18, 0.014))
            figure.colorbar(drawn, cax=bar, orientation="horizontal", format=FuncFormatter(number_tick))
            bar.text(-0.06, 0.5, "ratings per cell", transform=bar.transAxes, ha="right", va="center", fontsize=8)
            bar.tick_params(labelsize=8, which="both", length=2)
        return Plot(
            save(figure, folder / "predictions.svg"),
            "Predictions on the validation rows",
            f"Density plot of {len(x):,} validation ratings by prediction, with both distributions; RMSE {rmse}.",
        )


def cross_table(table: RatingsTable, predict: Predict, folder: Path) -> Plot:
    """Draw cross_table.svg: the users with most ratings by the items with most, rated and predicted.

    Args:
        table: all ratings; those of other rows than the training rows are outlined.
        predict: the model's ratings of pairs of codes (users, items).
        folder: of the PNG.
    """
    users = _most(occurrences(table.users, len(table.user_ids)), MOST_IN_TABLE)
    items = _most(occurrences(table.items, len(table.item_ids)), MOST_IN_TABLE)
    rated, is_unseen = _block(table, users, items)
    predicted = predict(np.repeat(users, len(items)), np.tile(items, len(users))).reshape(rated.shape)
    with styled():
        figure = Figure(figsize=(max(9, 2.6 + 0.62 * len(items)), 2.6 + 0.42 * len(users)), layout="constrained")
        axes = figure.add_subplot()
        norm = Normalize(float(table.ratings.min()), float(table.ratings.max()))
        colours = np.where(np.isnan(rated)[..., None], 0.97, PALE_BLUES(norm(np.nan_to_num(rated))))
        edges = (np.arange(len(each) + 1) - 0.5 for each in (items, users))
        axes.pcolormesh(*edges, colours, edgecolors="white", linewidth=1)  # an image would be drawn in 150 MB
        axes.invert_yaxis()
        for (row, column), rating in np.ndenumerate(rated):
            shown = f"{predicted[row, column]:.1f}"
            if np.isnan(rating):
                axes.text(column, row, shown, ha="center", va="center", color="#767676", style="italic", fontsize=9)
                continue
            axes.text(column, row - 0.14, f"{rating:g}", ha="center", va="center", weight="bold")
            axes.text(column, row + 0.28, shown, ha="center", va="center", fontsize=7.5)
            if is_unseen[row, column]:
                frame = Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, fill=False, edgecolor=RED, linewidth=2)
                axes.add_patch(frame)
        for text in axes.texts:
            text.set_in_layout(False)  # 225 cells need no room of their own: a quarter of the time
        titles = [shorten(table.titles[item], 26) for item in items]
        axes.set_xticks(range(len(items)), titles, parse_math=False)
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        names = [shorten(str(table.user_ids[user]), 14) for user in users]
        axes.set_yticks(range(len(users)), names, parse_math=False)
        axes.set_ylabel("user")
        axes.grid(False)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_title("The users with most ratings and the most rated items", pad=24)
        axes.annotate(
            "bold: rating; beneath it: prediction; outlined: not trained on; grey italics: not rated, prediction alone",
            (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=GREY,
        )  # fmt: skip
        return Plot(
            save(figure, folder / "cross_table.svg"),
            "The users with most ratings and the most rated items: ratings and predictions",
            f"Table of {len(users)} users by {len(items)} items: the rating, if there is one, and the prediction.",
        )


def item_biases(
    biases: NDArray[np.floating[Any]], titles: Sequence[str], counts: NDArray[np.integer[Any]], folder: Path
) -> Plot:
    """Draw item_biases.svg: the items that are rated better, and worse, than their factors and users explain.

    Args:
        biases: one per item.
        titles: of the items.
        counts: training ratings of each item; items with fewer than 20 count only where items are few.
        folder: of the PNG.
    """
    biases = np.nan_to_num(np.asarray(biases, dtype=np.float64).reshape(-1)[: len(titles)])
    threshold = bias_threshold(counts)
    enough = np.flatnonzero(counts >= threshold)
    order = enough[np.argsort(-biases[enough], kind="stable")]
    num_best, num_worst = min(12, (len(order) + 1) // 2), min(12, len(order) // 2)
    chosen = np.concatenate([order[:num_best], order[len(order) - num_worst :]])
    positions = np.arange(len(chosen)) + 0.7 * (np.arange(len(chosen)) >= num_best)
    with styled():
        figure = Figure(figsize=(9, 1.5 + 0.25 * max(len(chosen), 4)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(positions, biases[chosen], color=[BLUE] * num_best + [RED] * num_worst, height=0.74)
        for position, item in zip(positions, chosen, strict=True):
            is_positive = biases[item] >= 0
            axes.annotate(
                f"{counts[item]:,}", (biases[item], position), (4 if is_positive else -4, 0),
                textcoords="offset points", ha="left" if is_positive else "right", va="center", fontsize=8, color=GREY,
            )  # fmt: skip
        axes.set_yticks(positions, [shorten(titles[item], 44) for item in chosen], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.margins(x=0.09)
        axes.set_ylim((positions[-1] if len(positions) else 0) + 0.7, -0.7)
        axes.set_xlabel(f"bias (number of training ratings next to it; items with at least {threshold:,})")
        axes.set_title("Items rated better and worse than the rest of the model explains", x=0)
        return Plot(
            save(figure, folder / "item_biases.svg"),
            "Items with the highest and the lowest bias",
            "Two bar charts of item biases: the highest, and the lowest.",
        )


def item_components(
    factors: NDArray[np.floating[Any]], titles: Sequence[str], counts: NDArray[np.integer[Any]], folder: Path
) -> Plot:
    """Draw item_components.svg: the items at both ends of the first three principal components of the factors.

    Args:
        factors: [items, factors].
        titles: of the items.
        counts: training ratings of each item.
        folder: of the PNG.
    """
    items, scores, fractions = _components(factors, titles, counts, 3)
    with styled():
        figure = Figure(figsize=(max(4.4 * len(fractions), 6), 5.4), layout="constrained")
        figure.suptitle(
            f"Principal components of the item factors ({len(items):,} most rated items)",
            x=0.01, ha="left", fontsize=11, fontweight="bold",
        )  # fmt: skip
        for component, fraction in enumerate(fractions):
            axes = figure.add_subplot(1, len(fractions), component + 1)
            order = np.argsort(-scores[:, component], kind="stable")
            num_each = min(8, len(order) // 2)
            chosen = np.concatenate([order[:num_each], order[len(order) - num_each :]])
            values = scores[chosen, component]
            rows = np.arange(len(chosen)) + 0.8 * (np.arange(len(chosen)) >= num_each)
            axes.barh(rows, values, height=0.72, color=[BLUE if value >= 0 else RED for value in values])
            for row, item, value in zip(rows, items[chosen], values, strict=True):
                axes.annotate(
                    shorten(titles[item], 28), (0, row), (-5 if value >= 0 else 5, 0), textcoords="offset points",
                    ha="right" if value >= 0 else "left", va="center", fontsize=8.5, parse_math=False,
                )  # fmt: skip
            reach = 1.05 * max(float(np.abs(values).max(initial=0)), 1e-9)
            axes.set_xlim(-reach, reach)
            axes.set_ylim((rows[-1] if len(rows) else 0) + 0.7, -0.7)
            axes.axvline(0, color=GREY, linewidth=0.8)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.locator_params(axis="x", nbins=5)
            title = f"Component {component + 1}: {fraction:.0%} of the variance"
            axes.set_title(title, fontweight="normal", fontsize=10)
        return Plot(
            save(figure, folder / "item_components.svg"),
            "Items at both ends of the principal components of the item factors",
            "For each of the first principal components, the items with the largest and with the smallest scores.",
        )


def item_map(
    factors: NDArray[np.floating[Any]],
    titles: Sequence[str],
    counts: NDArray[np.integer[Any]],
    folder: Path,
) -> Plot:
    """Draw item_map.svg: the most rated items on the first two principal components of the factors.

    Args:
        factors: [items, factors]; of one factor, the training ratings stand in for the second component.
        titles: of the items.
        counts: training ratings of each item.
        folder: of the PNG.
    """
    items, scores, fractions = _components(factors, titles, counts, 2)
    items, scores = items[:MOST_IN_MAP], scores[:MOST_IN_MAP]
    ratings = counts[items].astype(np.float64)
    x, y = scores[:, 0], scores[:, 1] if scores.shape[1] > 1 else ratings
    with styled():
        figure = Figure(figsize=(11, 8.5))
        axes = figure.add_axes((0.1, 0.07, 0.88, 0.875))  # room for ticks such as -0.00006
        sizes = 12 + 130 * ratings / max(ratings.max(initial=1), 1)
        axes.scatter(x, y, s=sizes, color=BLUE, alpha=0.55, linewidths=0)
        axes.margins(x=0.12, y=0.05)
        axes.set_title(f"The {len(items)} most rated items by their factors; the larger, the more ratings")
        axes.set_xlabel(f"component 1 ({fractions[0]:.0%} of the variance)")
        second = f"component 2 ({fractions[1]:.0%} of the variance)" if len(fractions) > 1 else "training ratings"
        axes.set_ylabel(second)
        place_labels(figure, axes, np.stack([x, y], axis=1), [shorten(titles[item], 30) for item in items], sizes)
        return Plot(
            save(figure, folder / "item_map.svg"),
            "The most rated items on the first two principal components",
            "Scatter plot of items on the first two principal components of their factors, labelled with titles.",
        )


def bias_threshold(counts: NDArray[np.integer[Any]]) -> int:
    """Return how many ratings an item needs to be shown: 20, or the most that leaves 24 items, but at least 1.

    >>> bias_threshold(np.full(30, 50)), bias_threshold(np.arange(30)), bias_threshold(np.array([3, 0]))
    (20, 6, 1)
    """
    ordered = np.sort(counts)[::-1]
    reached = int(ordered[23]) if len(ordered) >= 24 else 0
    return max(1, min(20, reached))


def _components(
    factors: NDArray[np.floating[Any]], titles: Sequence[str], counts: NDArray[np.integer[Any]], number: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the most rated items, most rated first, with their scores and the fractions of the variance."""
    items = _most(counts[: len(titles)], MOST_ITEMS)
    return items, *principal_components(factors[items], number)


def _most(counts: NDArray[np.integer[Any]], number: int) -> NDArray[np.int64]:
    """Return the codes with the largest counts, largest first."""
    return np.argsort(-counts, kind="stable")[:number].astype(np.int64)


def _block(
    table: RatingsTable, users: NDArray[np.int64], items: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the ratings of some users and items (NaN if unrated), and a mask of those not trained on."""
    row_of = np.full(len(table.user_ids), -1)
    row_of[users] = np.arange(len(users))
    column_of = np.full(len(table.item_ids), -1)
    column_of[items] = np.arange(len(items))
    rated = np.full((len(users), len(items)), np.nan)
    is_unseen = np.zeros(rated.shape, dtype=bool)
    for block in blocks_of(len(table.users)):
        rows, columns = row_of[table.users[block]], column_of[table.items[block]]
        inside = (rows >= 0) & (columns >= 0)
        rated[rows[inside], columns[inside]] = table.ratings[block][inside]
        is_unseen[rows[inside], columns[inside]] = table.split[block][inside] != TRAIN
    return rated, is_unseen


def _limits(x: NDArray[np.float64], y: NDArray[np.float64], margin: float) -> tuple[float, float]:
    """Return the limits of both axes: all ratings, and all but the most extreme predictions."""
    if not len(x):
        return 0.0, 1.0
    low = min(float(y.min()), float(np.quantile(x, 0.001))) - margin
    return low, max(float(y.max()), float(np.quantile(x, 0.999))) + margin


def _rows_of_hexagons(distinct: NDArray[np.float64], step: float) -> int:
    """Return how many rows of hexagons, two steps apart, reach over ratings that are multiples of a step.

    >>> _rows_of_hexagons(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 1.0)
    4
    """
    return max(1, math.ceil((distinct[-1] - distinct[0]) / (2 * step) + 1e-9) + 1) if len(distinct) else 1
