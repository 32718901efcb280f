"""Plots of training: losses and metrics by epoch, learning-rate range tests; and the style of all plots."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from dlrunner.files.atomic import readable_os_errors, write_atomic
from dlrunner.plot import TRAINING_CURVES, Plot
from dlrunner.reporting.plots.number_format import number_tick, short_number

BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
"""Okabe and Ito's colours (2008), which colour-blind readers can distinguish."""
INK, GREY, PALE = "#222222", "#6b6b6b", "#e3e3e3"

BLUES = LinearSegmentedColormap.from_list("blues", ["#cfe2ef", "#8fc1de", "#3a8bbd", "#0a5688", "#08294a"])
"""From pale to dark: legible in black and white, and the palest is visible on white."""
PALE_BLUES = LinearSegmentedColormap.from_list("pale blues", ["#f3f8fc", "#c3dcec", "#6aabd2"])
"""Dark text is legible on all of it."""

STYLE: dict[str, Any] = {
    "figure.figsize": (9, 4),
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.size": 10,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY]),
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "dlrunner",  # random ids otherwise
    "pdf.fonttype": 42,  # text stays text
}

OTHER_SCRIPTS = (
    *(
        "Noto Sans CJK JP",
        "Noto Sans CJK SC",
        "Noto Sans JP",
        "WenQuanYi Zen Hei",
        "IPAGothic",
        "Hiragino Sans",
    ),
    *(
        "Yu Gothic",
        "Microsoft YaHei",
        "Malgun Gothic",
        "Arial Unicode MS",
        "Noto Sans Devanagari",
        "Noto Sans Thai",
    ),
)
"""Fonts for scripts that are missing from DejaVu Sans; those that are installed are used."""

IMAGE_DPI = 150
"""Of images inside vector files: what is rasterized is sharp on paper too."""

_more_formats: ContextVar[Collection[str]] = ContextVar("more_formats", default=())

MOST_MARKERS = 30
"""Beyond this number of epochs lines have no markers."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of all plots; a glyph that no font has becomes a box, without a warning."""
    installed = set(fontManager.get_font_names())
    families = ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]
    style: Any = {**STYLE, "font.family": families}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support", category=UserWarning)
        yield


def training_curves(history: Sequence[Mapping[str, Any]], folder: Path) -> Plot:
    """Draw losses.svg: the losses, the validation metrics, and the learning rate where it changes.

    Args:
        history: one row per epoch; the first key `valid/<name>` other than `valid/loss` is the monitored metric.
        folder: of the plot.
    """
    epochs = np.array([row["epoch"] for row in history], dtype=np.float64)
    keys = dict.fromkeys(key for row in history for key in row if key.startswith("valid/"))
    metrics = [key for key in keys if key != "valid/loss"][:3]
    rates = _rates(history)
    with styled():
        figure = Figure(figsize=(9, 4.9 if rates is not None else 4), layout="constrained")
        heights = (3.4, 1) if rates is not None else (1,)
        grid = figure.add_gridspec(len(heights), 2 if metrics else 1, height_ratios=heights)
        left = figure.add_subplot(grid[0, 0])
        for key, name, colour in (("train/loss", "train", BLUE), ("valid/loss", "validation", RED)):
            values = _column(history, key)
            if np.isfinite(values).any():
                _line(left, epochs, values, colour, f"{name}, last {_last(values)}")
        left.set_title("Loss")
        _scale_loss(left)
        if left.lines:
            left.legend()
        else:
            left.text(0.5, 0.5, "no finite loss", ha="center", color=GREY, transform=left.transAxes)
        if metrics:
            right = grid[0, 1].subgridspec(len(metrics), 1, height_ratios=[1.8] + [1] * (len(metrics) - 1))
            for index, (key, colour) in enumerate(zip(metrics, (GREEN, PURPLE, ORANGE), strict=False)):
                axes = figure.add_subplot(right[index])
                values = _column(history, key)
                _line(axes, epochs, values, colour)
                axes.set_title(f"{key}: {_last(values)}", parse_math=False)
                _epoch_axis(axes, epochs, is_lowest=index == len(metrics) - 1)
        _epoch_axis(left, epochs)
        if rates is not None:
            axes = figure.add_subplot(grid[1, :])
            for group in rates.T:
                _line(axes, epochs, group, GREY)
            axes.set_title("Learning rate at the end of the epoch" + (", by group" if rates.shape[1] > 1 else ""))
            positive = rates[rates > 0]
            if positive.size == np.isfinite(rates).sum() and positive.max() > 20 * positive.min():
                log_axis(axes, "y", num_ticks=4)
            else:
                axes.yaxis.set_major_locator(MaxNLocator(3))
                axes.yaxis.set_major_formatter(FuncFormatter(number_tick))
            _epoch_axis(axes, epochs)
        caption = "Loss and metrics by epoch"
        last = [f"{key} {_last(_column(history, key))}" for key in ("train/loss", *keys)]
        alt = f"Line plots over {len(epochs)} epochs; at the end {', '.join(last)}."
        return Plot(save(figure, folder / TRAINING_CURVES), caption, alt)


def lr_range(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float | None,
    path: Path,
) -> Path:
    """Draw a learning-rate range test (Smith, 2017, https://arxiv.org/abs/1506.01186).

    Args:
        rates: learning rates, one per step, rising.
        losses: the loss of each step.
        smoothed: the same, smoothed.
        suggestion: the rate to mark.
        path: of the PNG.
    """
    x, raw, smooth = (_finite(np.asarray(each, dtype=np.float64)) for each in (rates, losses, smoothed))
    with styled():
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(x, raw, color=BLUE, alpha=0.3, linewidth=0.9, label="loss of a step")
        axes.plot(x, smooth, color=BLUE, linewidth=2.2, marker="o" if len(x) == 1 else None, label="smoothed")
        log_axis(axes, "x")
        low, high = _robust_limits(smooth)
        axes.set_ylim(low, high)
        axes.set(title="Learning-rate range test", xlabel="learning rate", ylabel="loss")
        if suggestion is not None and suggestion > 0:
            axes.axvline(suggestion, color=RED, linestyle="--", linewidth=1.3)
            known = np.isfinite(smooth) & np.isfinite(x) & (x > 0)
            if known.any():
                at = np.interp(np.log(suggestion), np.log(x[known]), smooth[known])
                axes.plot([suggestion], [at], "o", color=RED, markersize=7, label=f"suggestion {suggestion:.2g}")
        axes.legend(loc="lower left")
        return save(figure, path)


@contextmanager
def also_as(formats: Collection[str]) -> Iterator[None]:
    """Write each chart, which is an SVG, in these formats too, next to it: for papers; trackers show only pixels."""
    token = _more_formats.set(formats)
    try:
        yield
    finally:
        _more_formats.reset(token)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format of the path's suffix, a chart (SVG) also as `also_as` says; return the path."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if not axis.get_label_text():  # else a place is found for it, from all tick labels, in each pass of the layout
            axis.set_label_coords(0, 0)
    more = [f".{each}" for each in sorted(_more_formats.get()) if each != "svg"] if path.suffix == ".svg" else []
    for suffix in (*more, path.suffix):  # an SVG's background is removed: it is the last one
        file, content = path.with_suffix(suffix), _WRITERS[suffix](figure)
        with readable_os_errors(file):
            write_atomic(file, content)
    return path


def _as_png(figure: Figure) -> bytes:
    """Return a PNG; the canvas itself draws once where `savefig` draws twice."""
    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)  # type: ignore[no-untyped-call]
    return drawn.getvalue()


def _as_svg(figure: Figure) -> bytes:
    """Return a transparent SVG, the same each time, whose texts are text; what is rasterized in it is an image."""
    figure.dpi = IMAGE_DPI
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dlrunner"}):
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return drawn.getvalue().encode("utf-8", "replace")  # half a surrogate pair in a title


def _as_pdf(figure: Figure) -> bytes:
    """Return a PDF, the same each time."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="pdf", dpi=IMAGE_DPI, metadata={"CreationDate": None})
    return drawn.getvalue()


_WRITERS = {".png": _as_png, ".svg": _as_svg, ".pdf": _as_pdf}


def shorten(title: str, width: int) -> str:
    """Cut a title to a number of columns, on one line; the year in brackets goes first.

    >>> shorten("Matrix, The (1999)", 20), shorten("Matrix, The (1999)", 12), shorten("Matrix, The (1999)", 6)
    ('Matrix, The (1999)', 'Matrix, The', 'Matri…')
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(title)).split())
    if _num_columns(text) <= width:
        return text
    text = re.sub(r"\s*\(\d{4}\)$", "", text)
    if _num_columns(text) <= width:
        return text
    while _num_columns(text) > width - 1:
        text = text[:-1] if len(text) < 2 * width else text[: 2 * width - 1]
    return text.rstrip(" ,.-") + "…"


def _num_columns(text: str) -> int:
    """Count columns: Chinese, Japanese and Korean letters are two wide."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], colour: str, label: str | None = None) -> None:
    """Draw a curve; isolated points, and all points of few epochs, get markers."""
    finite = np.isfinite(y)
    gap = np.concatenate([[False], finite, [False]])
    alone = finite & ~gap[:-2] & ~gap[2:]
    points = np.flatnonzero(finite if len(x) <= MOST_MARKERS else alone)
    marks: dict[str, Any] = {"marker": "o", "markevery": points.tolist()} if len(points) else {}
    axes.plot(x, y, color=colour, label=label, **marks)


def _epoch_axis(axes: Axes, epochs: NDArray[np.float64], is_lowest: bool = True) -> None:
    """Mark whole epochs only."""
    if len(epochs):
        span = epochs[-1] - epochs[0]
        axes.set_xlim(epochs[0] - min(0.5, 0.03 * span or 0.5), epochs[-1] + (0.03 * span or 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    if is_lowest:
        axes.set_xlabel("epoch")
    else:
        axes.tick_params(labelbottom=False)


def _scale_loss(axes: Axes) -> None:
    """Take a logarithmic axis where the losses span more than a factor of 30."""
    values = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines]
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.zeros(0)
    if finite.size and finite.min() > 0 and finite.max() > 30 * finite.min():
        log_axis(axes, "y")


def log_axis(axes: Axes, which: str, num_ticks: int = 8) -> None:
    """Make an axis logarithmic, with its powers of ten in short notation."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(numticks=num_ticks))
    axis.set_major_formatter(FuncFormatter(number_tick))
    axis.set_minor_formatter(NullFormatter())


def _rates(history: Sequence[Mapping[str, Any]]) -> NDArray[np.float64] | None:
    """Return the learning rates [epochs, groups], or None if they are constant."""
    rows = [np.atleast_1d(np.asarray(row.get("lr"), dtype=np.float64)) for row in history]
    if len(rows) < 2:
        return None
    width = max(len(row) for row in rows)
    rates = np.full((len(rows), width), np.nan)
    for index, row in enumerate(rows):
        rates[index, : len(row)] = row
    distinct = np.unique(rates, axis=1)
    finite = distinct[np.isfinite(distinct)]
    return distinct if finite.size and finite.max() > finite.min() * (1 + 1e-6) else None


def _column(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """Return a column as numbers; what is missing or infinite is NaN, a gap in the curve."""
    return _finite(np.array([np.nan if row.get(key) is None else float(row[key]) for row in history]))


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _last(values: NDArray[np.float64]) -> str:
    """Write the last value that is a number."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "no value"
    return f"{finite[-1]:.4f}" if 1e-3 <= abs(finite[-1]) < 1e5 else short_number(float(finite[-1]))


def _robust_limits(smooth: NDArray[np.float64]) -> tuple[float, float]:
    """Return limits that show the descent and the minimum, not how far the loss diverged."""
    finite = smooth[np.isfinite(smooth)]
    if not finite.size:
        return 0.0, 1.0
    lowest = int(finite.argmin())
    low, high = float(finite[lowest]), float(max(finite[: lowest + 1].max(), np.quantile(finite, 0.4)))
    span = max(high - low, 0.02 * abs(low), 1e-6)
    return low - 0.15 * span, high + 0.35 * span


def conditional_means(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of x and of y in 20 groups of equal size, ordered by x."""
    order = np.argsort(x, kind="stable")
    groups = [group for group in np.array_split(order, min(20, max(1, len(x) // 20))) if len(group)]
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])


def principal_components(
    matrix: NDArray[np.floating[Any]], number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scores [rows, components] and fractions of the variance; a component's largest loading is positive.

    >>> scores, fractions = principal_components(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]), 1)
    >>> scores[:, 0].tolist(), fractions.tolist()
    ([-2.0, 0.0, 2.0], [1.0])
    """
    centred = np.nan_to_num(np.asarray(matrix, dtype=np.float64))
    centred = centred - centred.mean(axis=0)
    # Of the small matrix of columns: a fraction of the time of a singular value decomposition of all rows.
    variances, directions = np.linalg.eigh(centred.T @ centred)
    variances, directions = np.maximum(variances[::-1], 0), directions.T[::-1]
    number = min(number, *matrix.shape)
    loadings = directions[:number]
    largest = loadings[np.arange(number), np.abs(loadings).argmax(axis=1)]
    scores = centred @ (loadings * np.where(largest < 0, -1.0, 1.0)[:, None]).T
    total = float(np.sum(variances))
    fractions = variances[:number] / total if total > 0 else np.zeros(number)
    return scores, fractions
