"""Charts as inline SVG: curves by epoch with bands, and parallel coordinates.

Python computes all positions and texts; the script only moves a marker to the pointer or the slider. Small charts are
440 units wide: readable on a phone of 390 pixels, and a desktop shows two in a row.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from dlrunner.reporting.html.page import grouped
from dlrunner.reporting.html.scale import Scale, distinct_texts

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40
"""Margins of curves."""
MOST_DIGITS = 7
"""Longer texts at the vertical axis are narrowed to the room that there is."""
NUM_COLOURS = 8
NUM_STEPS = 8
"""Steps of the color ramp from the best to the worst job."""
MOST_POINTS = 240
"""Maximum points of a curve; longer ones are thinned out."""
WIDE_HEIGHT, WIDE_TOP, WIDE_BOTTOM = 320, 40, 22
"""Of parallel coordinates."""
MOST_MARKED = 30
"""Curves of at most this number of points show each."""
FEW_POINTS = 10
"""Charts of fewer points have no slider: the pointer and the table of epochs reach all of them."""
MOST_LETTERS = 18
"""Maximum length of a label of an axis."""
MOST_NAME = 120
"""Maximum length of a curve's name in the text of its values."""


@dataclass(frozen=True)
class Curve:
    """Values by epoch; with a band, from the lowest to the highest of several runs."""

    name: str
    values: Mapping[float, float]
    """By epoch; finite."""
    band: Mapping[float, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Axis:
    """One of the parallel coordinates: a position from 0 (bottom) to 1 for each job, and its tick labels."""

    name: str
    positions: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def curves(
    title: str,
    lines: Sequence[Curve],
    reference: tuple[str, float] | None = None,
    is_focused: bool = False,
    best: float | None = None,
) -> str:
    """Draw curves by epoch; empty if no curve has two points.

    Args:
        title: of the chart.
        lines: the curves, each in its own colour.
        reference: name and value of a horizontal line, such as a published value.
        is_focused: the first quarter of the epochs may be outside of the plot, so that the ends are distinguishable.
        best: the best epoch, which is marked on the first curve.
    """
    lines = [line for line in lines if line.values]
    epochs = _thinned(sorted({epoch for line in lines for epoch in line.values}))
    if len(epochs) < 2:
        return ""
    start = epochs[0] + (epochs[-1] - epochs[0]) / 4 if is_focused and len(epochs) >= 8 else epochs[0]
    scale = _scale(lines, start, reference)
    xs = [_across(epoch, epochs) for epoch in epochs]
    at = dict(zip(epochs, xs, strict=True))

    def y(value: float) -> float:
        return _round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scale.position(value))

    marks = [_points(index, line, at, scale, y) for index, line in reversed(list(enumerate(lines)))]
    drawn = [*_bands(lines, at, y), *_lines(lines, at, y)]
    frame = _frame(scale, epochs)
    is_reference_drawn = reference is not None and scale.low <= reference[1] <= scale.high
    if reference is not None and is_reference_drawn:
        frame += f'<path class="reference" d="M{LEFT} {y(reference[1])}H{WIDTH - RIGHT}"/>'
    size = f"{WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}"
    width, height = size.split()
    # The nested drawing clips the curves.
    box = f'x="{LEFT}" y="{TOP}" width="{width}" height="{height}" viewBox="{LEFT} {TOP} {size}"'
    about = f"{title} by epoch: " + "; ".join(_course(line) for line in lines)
    about += f"; {reference[0]}: {grouped(reference[1])}" if reference is not None else ""
    if best is not None and (best_y := _within(lines[0].values.get(best), scale, y)) and best in at:
        about += f"; best epoch: {best:g}"
        marks.append(_best_mark(best, at[best], best_y))
    drawing = _svg(WIDTH, HEIGHT, about, f"{frame}<svg {box}>{''.join(drawn)}</svg>{''.join(marks)}")
    values = [[_value_text(line, e) if e in line.values else "-" for line in lines] for e in epochs]
    heads = [shorter(line.name, MOST_NAME) for line in lines]
    named = [[f"{head} {text}" for head, text in zip(heads, row, strict=True) if text != "-"] for row in values]
    entries = [(f"line s{index % NUM_COLOURS}", line.name, values[-1][index]) for index, line in enumerate(lines)]
    if reference is not None:
        beyond = "" if is_reference_drawn else ", outside of the plot"
        entries.append(("reference", reference[0], f"{grouped(reference[1])}{beyond}"))
    chart = {
        "x": xs,
        "y": [[_within(line.values.get(e), scale, y) for e in epochs] for line in lines],
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "texts": [f"epoch {e:g}: {'; '.join(row)}" for e, row in zip(epochs, named, strict=True)],
        "values": values if len(entries) > 1 else [],
    }
    legend = _legend(entries if len(entries) > 1 else [])
    return _figure(title, chart, f"{legend}{drawing}", len(epochs) - 1, "epoch")


def _bands(lines: Sequence[Curve], at: Mapping[float, float], y: Callable[[float], float]) -> Iterator[str]:
    for index, line in enumerate(lines):
        if line.band:
            upper = [f"{x} {y(line.band[e][1])}" for e, x in at.items() if e in line.band]
            lower = [f"{x} {y(line.band[e][0])}" for e, x in reversed(list(at.items())) if e in line.band]
            yield f'<path class="band s{index % NUM_COLOURS}" d="M{"L".join([*upper, *lower])}Z"/>'


def _lines(lines: Sequence[Curve], at: Mapping[float, float], y: Callable[[float], float]) -> Iterator[str]:
    for index, line in reversed(list(enumerate(lines))):  # the first one is on top
        points = [f"{x} {y(line.values[e])}" for e, x in at.items() if e in line.values]
        yield f'<path class="line s{index % NUM_COLOURS}" d="M{"L".join(points)}{"h0" * (len(points) == 1)}"/>'


def _points(index: int, line: Curve, at: Mapping[float, float], scale: Scale, y: Callable[[float], float]) -> str:
    """Mark the points of a short curve: lines of no length with round ends, of which those at the edge are whole."""
    if sum(e in line.values for e in at) > MOST_MARKED:
        return ""
    within = [f"M{x} {at_y}h0" for e, x in at.items() if (at_y := _within(line.values.get(e), scale, y))]
    return f'<path class="line points s{index % NUM_COLOURS}" d="{"".join(within)}"/>'


def _best_mark(epoch: float, x: float, y: float) -> str:
    """Draw a ring around the best epoch, with its number."""
    anchor = "e" if x > WIDTH - 110 else "m" if x > LEFT + 60 else ""
    text_y = y + 22 if y < TOP + 40 else y - 12
    ring = f'<circle class="best" cx="{x}" cy="{y}" r="6"/>'
    return f'{ring}<text class="halo {anchor}" x="{x}" y="{_round(text_y)}">best: epoch {epoch:g}</text>'


def _scale(lines: Sequence[Curve], start: float, reference: tuple[str, float] | None) -> Scale:
    """Choose the scale of curves by their values from an epoch on."""
    values = [value for line in lines for epoch, value in line.values.items() if epoch >= start]
    values += [edge for line in lines for epoch, edges in line.band.items() if epoch >= start for edge in edges]
    low, high = min(values), max(values)
    # A reference far away would flatten the curves: it is drawn only if it is near them.
    if reference is not None and low - (high - low) <= reference[1] <= high + (high - low):
        low, high = min(low, reference[1]), max(high, reference[1])
    return Scale.of(low, high)


def _within(value: float | None, scale: Scale, y: Callable[[float], float]) -> float | None:
    return None if value is None or not scale.low <= value <= scale.high else y(value)


def _across(epoch: float, epochs: Sequence[float]) -> float:
    return _round(LEFT + (WIDTH - LEFT - RIGHT) * (epoch - epochs[0]) / (epochs[-1] - epochs[0]))


def _frame(scale: Scale, epochs: Sequence[float]) -> str:
    """Draw grid and tick labels."""
    parts = []
    for value, text in scale.ticks():
        y = _round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scale.position(value))
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        narrow = f' textLength="{LEFT - 8}" lengthAdjust="spacingAndGlyphs"' if len(text) > MOST_DIGITS else ""
        parts.append(f'<text class="e" x="{LEFT - 6}" y="{_round(y + 4)}"{narrow}>{text}</text>')
    for epoch in _whole_ticks(epochs):
        parts.append(f'<text class="m" x="{_across(epoch, epochs)}" y="{HEIGHT - BOTTOM + 17}">{epoch:g}</text>')
    parts.append(f'<text class="m" x="{(WIDTH + LEFT - RIGHT) / 2:g}" y="{HEIGHT - 6}">epoch</text>')
    return "".join(parts)


def parallel(title: str, axes: Sequence[Axis], ranks: Sequence[float], texts: Sequence[str], remark: str) -> str:
    """Draw a line per job through one axis per setting and the metric.

    Empty with fewer than two jobs or settings: the table of groups shows one setting better.

    Args:
        title: of the chart.
        axes: the settings, and last the metric.
        ranks: of each job, from 0 (best) to 1 (worst): its colour. The jobs come best first.
        texts: a description of each job.
        remark: shown below the title.
    """
    if len(axes) < 3 or len(texts) < 2:
        return ""
    gap = max(120, min(300, 1000 // len(axes)))
    width = gap * (len(axes) - 1) + 200
    xs = [_round(110 + gap * index) for index in range(len(axes))]
    height = WIDE_HEIGHT - WIDE_TOP - WIDE_BOTTOM

    def y(position: float) -> float:
        return _round(WIDE_TOP + height * (1 - position))

    rows = [[y(axis.positions[job]) for axis in axes] for job in range(len(texts))]
    jobs = "".join(
        f'<path class="q{min(NUM_STEPS - 1, int(rank * NUM_STEPS))}" d="M'
        + "L".join(f"{x} {position}" for x, position in zip(xs, row, strict=True))
        + '"/>'
        for row, rank in reversed(list(zip(rows, ranks, strict=True)))  # the best is on top
    )
    parts = [f'<g class="jobs{" few" if len(texts) <= 60 else ""}">{jobs}</g>']
    for index, (axis, x) in enumerate(zip(axes, xs, strict=True)):
        parts.append(f'<path class="axis" d="M{x} {WIDE_TOP}V{WIDE_TOP + height}"/>')
        name = f'<text class="halo name m" x="{x}" y="{20 if index % 2 else 12}">{escape(shorter(axis.name))}</text>'
        parts.append(name)
        # The labels of the last axis are on its right, where there are no lines.
        kind, label_x = ("halo", x + 7) if index == len(axes) - 1 else ("halo e", x - 7)
        for position, text in axis.ticks:
            parts.append(f'<text class="{kind}" x="{label_x}" y="{y(position) + 4:.1f}">{escape(shorter(text))}</text>')
    steps = "".join(f'<rect class="q{i}" x="{i * 10}" width="10" height="10"/>' for i in range(NUM_STEPS))
    ramp = f'<svg class="ramp" viewBox="0 0 80 10" preserveAspectRatio="none" aria-hidden="true">{steps}</svg>'
    about = f"{title}: {len(texts)} jobs over {', '.join(axis.name for axis in axes)}. The best is {texts[0]}"
    drawing = _svg(width, WIDE_HEIGHT, about, "".join(parts), is_fixed=True)
    content = f'<p class="soft">{escape(remark)}<br>best {ramp} worst</p>{_scrolling(drawing, title)}'
    return _figure(title, {"x": xs, "paths": rows, "texts": list(texts)}, content, 0, "job, from the best to the worst")


def axis_of(name: str, values: Sequence[Any]) -> Axis:
    """Return the axis of a setting: numbers by their value, words in order, missing values at the bottom.

    Args:
        name: of the setting.
        values: one per job: a number, a word, or None.
    """
    known = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(known) == len(values) and len(set(known)) > 1:
        scale = Scale.of(min(known), max(known), is_exact=True)
        distinct = sorted(set(known))
        ticks = scale.ticks()
        if len(distinct) <= 6:
            ticks = list(zip(distinct, distinct_texts(distinct, 4), strict=True))
        return Axis(name, [scale.position(v) for v in known], _apart([(scale.position(v), text) for v, text in ticks]))
    words = sorted({value for value in values if isinstance(value, str)}, reverse=True)
    rising: list[Any] = [*([None] if None in values else []), *words, *sorted(set(known))]
    step = 1 / max(1, len(rising) - 1)
    positions = {value: index * step if len(rising) > 1 else 0.5 for index, value in enumerate(rising)}
    ticks = [(position, "-" if value is None else str(value)) for value, position in positions.items()]
    return Axis(name, [positions[value] for value in values], _apart(ticks))


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Remove overlapping ticks."""
    kept: list[tuple[float, str]] = []
    for position, text in sorted(ticks):
        if not kept or position - kept[-1][0] > 0.05:
            kept.append((position, text))
    return kept


def strip(metric: str, values: Sequence[float], reference: float, about: str) -> str:
    """Draw the values of seeds as dots over an axis, and a published value as a vertical line.

    Args:
        metric: name of the axis.
        values: one per seed.
        reference: the published value.
        about: description for screen readers.
    """
    scale = Scale.of(min([*values, reference]), max([*values, reference]), is_linear=True)

    def x(value: float) -> float:
        return _round(20 + (WIDTH - 40) * scale.position(value))

    parts = [f'<path class="axis" d="M20 44H{WIDTH - 20}"/>']
    for value, text in scale.ticks():
        parts.append(f'<path class="axis" d="M{x(value)} 44v5"/><text class="m" x="{x(value)}" y="62">{text}</text>')
    parts.append(f'<text class="m" x="{WIDTH // 2}" y="78">{escape(shorter(metric, 40))}</text>')
    anchor = "m" if 60 < x(reference) < WIDTH - 60 else "" if x(reference) <= 60 else "e"
    parts.append(f'<path class="published" d="M{x(reference)} 18V44"/>')
    parts.append(f'<text class="name {anchor}" x="{x(reference)}" y="12">published</text>')
    parts += [f'<circle class="dot s0" cx="{x(value)}" cy="33" r="5"/>' for value in values]
    box = f'viewBox="0 0 {WIDTH} 82" width="{WIDTH}" height="82"'
    drawing = f'<svg class="strip" {box} role="img" aria-label="{escape(about)}">{"".join(parts)}</svg>'
    return f'<div class="chart">{drawing}</div>'


def shorter(text: str, most: int = MOST_LETTERS) -> str:
    """Shorten a name from the left: the end is most informative."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _value_text(line: Curve, epoch: float) -> str:
    low, high = line.band.get(epoch, (0.0, 0.0))
    value = grouped(line.values[epoch])
    return f"{value} ({grouped(low)} to {grouped(high)})" if high > low else value


def _course(line: Curve) -> str:
    """Describe a curve as text."""
    first, last = min(line.values), max(line.values)
    if first == last:
        return f"{line.name} {grouped(line.values[first])} after epoch {first:g}"
    ends = f"from {grouped(line.values[first])} to {grouped(line.values[last])}"
    lowest, highest = (choose(line.values, key=line.values.__getitem__) for choose in (min, max))
    extremes = [
        f"{word} {grouped(line.values[epoch])} after epoch {epoch:g}"
        for word, epoch in (("lowest", lowest), ("highest", highest))
        if epoch not in (first, last)
    ]
    return ", ".join([f"{line.name} {ends}", *extremes])


def _figure(title: str, chart: Mapping[str, Any], content: str, index: int, slider: str) -> str:
    data = escape(json.dumps(chart, separators=(",", ":"), ensure_ascii=False))
    texts = chart["texts"]
    # If the legend shows the values, the text is for screen readers only, and the caption shows the epoch.
    is_in_legend = bool(chart.get("values"))
    epoch = f" <span>{escape(texts[index].partition(':')[0])}</span>" if is_in_legend else ""
    heard = ' class="heard"' if is_in_legend else ""
    moved = (
        f'<input type="range" min="0" max="{len(texts) - 1}" step="1" value="{index}" '
        f'aria-label="{escape(f"{title}: {slider}")}" hidden>'
    )
    return (
        f'<figure class="chart" data-chart="{data}"><figcaption>{escape(title)}{epoch}</figcaption>{content}'
        f"{moved if 'paths' in chart or len(texts) >= FEW_POINTS else ''}"
        f'<output aria-live="off"{heard}>{escape(texts[index])}</output></figure>'
    )


def _svg(width: int, height: int, about: str, content: str, is_fixed: bool = False) -> str:
    size = f' width="{width}" height="{height}"' if is_fixed else ""
    box = f'viewBox="0 0 {width} {height}"{size}'
    return f'<svg class="plot" {box} role="img" aria-label="{escape(about)}">{content}</svg>'


def _scrolling(drawing: str, label: str) -> str:
    """Wrap a wide drawing in a box that scrolls, also by keyboard."""
    return f'<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0">{drawing}</div>'


def _legend(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return the legend: each line with its value at the marker."""
    items = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="{kind}" d="M1 5H25"/></svg>'
        f"{escape(name)} <span>{escape(value)}</span></li>"
        for kind, name, value in entries
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def _thinned(epochs: Sequence[float]) -> list[float]:
    """Keep every n-th epoch, and the last."""
    step = max(1, math.ceil(len(epochs) / MOST_POINTS))
    return [*epochs[:-1:step], *epochs[-1:]]


def _whole_ticks(epochs: Sequence[float]) -> list[float]:
    span = epochs[-1] - epochs[0]
    step = next((s for p in range(12) for s in (1 * 10**p, 2 * 10**p, 5 * 10**p) if span / s <= 8), 10**12)
    first = bisect.bisect_left(range(0, math.ceil(epochs[-1]) + 1, step), epochs[0]) * step
    return [float(e) for e in range(first, math.floor(epochs[-1]) + 1, step)]


def _round(value: float) -> float:
    return round(value, 1)
