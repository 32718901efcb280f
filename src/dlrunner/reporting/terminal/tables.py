"""Tables for the terminal: a run, the ranking of a sweep, claims."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlrunner.claims.claims import describe_finding, describe_flags
from dlrunner.reporting.terminal.fitting import Fitted, fitted, heading_widths
from dlrunner.reporting.terminal.progress import header_line, metric_value, number, row_line, shown_columns
from dlrunner.runs.listing import ListedRun
from dlrunner.runs.reader import FinishedRun, member_folders, read_history, shorter
from dlrunner.runs.tags import read_tags
from dlrunner.system import terminal

if TYPE_CHECKING:
    import pandas as pd

MOST_RANKED = 20
"""Number of jobs of a large sweep that are printed; results.csv has all."""

SAME_VALIDATION_ROWS = ("seed", "optim", "model", "schedule", "trainer", "epochs", "batch_size")
"""Settings, with their sections, that no task chooses its validation rows by."""

MOST_DECIMALS = 10
"""Of a number that is printed with all its digits."""


def console() -> Console:
    """Return a console that breaks no lines in files and pipes."""
    interactive = terminal.console(soft_wrap=True)
    return interactive if interactive.is_terminal else terminal.console(soft_wrap=True, width=200)


def print_sentence(text: str, style: str = "", indent: int = 0) -> None:
    """Print a sentence; on a terminal it wraps at words, and further lines are indented."""
    out = console()
    if out.is_terminal:
        text = textwrap.fill(
            text, out.width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
    out.print(Text(text), style=style)


def print_frame(
    frame: pd.DataFrame,
    title: str | None = None,
    digits: bool = False,
    settings: Collection[str] = (),
    optional: Sequence[str] = (),
    elsewhere: str = "",
) -> None:
    """Print a table of results, and which columns there was no room for.

    Args:
        frame: the table.
        title: a line above it.
        digits: numbers have all their digits, as in a file.
        settings: columns that share one where there is no room.
        optional: columns that are left out where there is no room, the most important first.
        elsewhere: where to find all of them.
    """
    from pandas.api.types import is_numeric_dtype

    numeric = {str(name) for name in frame.columns if is_numeric_dtype(frame[name])}
    names = [str(name) for name in frame.columns]
    columns = [[_plain(value) for value in frame.iloc[:, place]] for place in range(len(names))]
    texts = [
        _with_digits(column) if digits else [_cell(name, value) for value in column]
        for name, column in zip(names, columns, strict=True)
    ]
    rows = [
        ["" if _is_missing(value) else text for value, text in zip(values, shown, strict=True)]
        for values, shown in zip(zip(*columns, strict=True), zip(*texts, strict=True), strict=True)
    ]
    found = fitted(names, rows, console().width, settings, optional) if optional else Fitted(names, rows, [])
    print_table(found.names, found.rows, numeric, title)
    if found.common:
        print_sentence(f"… the others: {found.common}", indent=2)
    if found.left_out:
        print_sentence(f"… no room for {', '.join(found.left_out)}{elsewhere and f'; {elsewhere}'}", indent=2)


def _with_digits(column: Sequence[Any]) -> list[str]:
    """Return numbers with as many decimals as one of them needs; of other values, and beyond MOST_DECIMALS, `number`.

    >>> _with_digits([0.25, 1234567.5, "a"]), _with_digits([1 / 3])
    (['0.25', '1234567.50', 'a'], ['0.3333'])
    >>> _with_digits([1.583077e30])
    ['1.583077e+30']
    """
    import numpy as np

    floats = [value for value in column if isinstance(value, float) and math.isfinite(value)]
    if any(abs(each) >= 1e16 for each in floats):  # beyond a float's digits
        return [f"{each:.7g}" if isinstance(each, float) and math.isfinite(each) else number(each) for each in column]
    needed = max((len(np.format_float_positional(each, trim="-").partition(".")[2]) for each in floats), default=0)
    if needed > MOST_DECIMALS:
        return list(map(number, column))
    return [
        f"{each:.{needed}f}" if isinstance(each, float) and math.isfinite(each) else number(each) for each in column
    ]


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[str] = (), title: str | None = None
) -> None:
    """Print rows of texts as a table, numeric columns right-aligned; texts are not interpreted as markup."""
    out = console()
    table = Table(title=title and Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    names = [terminal.visible(name) for name in columns]
    cells = [[terminal.visible(cell) for cell in row] for row in rows]
    widths = heading_widths(names, cells, out.width)
    for place, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in numeric else "left"
        table.add_column(Text(names[place]), justify=justify, width=widths[place] if widths else None)
    for texts in cells:
        table.add_row(*map(Text, texts))
    out.print(table)


def print_outcome(path: Path, is_new: bool = False) -> None:
    """Print the result of a run and the next commands; a new run has already printed its audit warnings."""
    run = FinishedRun.read(path)
    summary = run.summary or {}
    out = console()
    metric = summary.get("metric")
    if metric:
        best = (summary.get("data") or {}).get("best_achievable")
        name, value = metric["name"], metric_value(summary, metric["name"], metric["value"])
        known = f" (best achievable: {metric_value(summary, name, best)})" if best else ""
        out.print(
            Text(f"\n{name} {value} after epoch {metric['epoch']}{known}"),
            style="bold",
        )
    print_claim(summary)
    for finding in () if is_new else summary.get("audit") or ():
        print_sentence(f"warning: {describe_finding(finding)} [{finding['flag']}]", "yellow", indent=9)
    if (summary.get("data") or {}).get("source") == "synthetic":
        print_sentence("warning: synthetic data: the results do not apply to real data", "yellow", indent=9)
    shown = shorter(path)
    out.print(Text(f"run      {shown}"))
    plots = sorted(file.name for file in (path / "plots").glob("*.[ps][nv]g"))
    if plots:
        out.print(Text(f"plots    {shown}/plots/"))
        print_sentence(f"         {', '.join(plots)}", indent=9)
    if (path / "report.html").exists():
        out.print(Text(f"report   {shown}/report.html"))
    lines = [f"next     dlrun show {shown}"]
    if (path / "task.pt").exists():
        lines.append(f"         dlrun predict {shown} --help")
    width = terminal.terminal_width() or math.inf
    if max(map(len, lines)) > width and path.resolve().parent.parent == Path("runs").resolve():
        lines = [line.replace(str(shown), ListedRun(path).id) for line in lines]
    for line in lines:
        out.print(Text(line))


def print_claim(summary: Mapping[str, Any]) -> None:
    """Print the verdict on the claim of a run, if it has one."""
    if claim := summary.get("claim"):
        word = claim["verdict"]
        style = "green" if word.startswith("reached") else "red" if word.startswith("missed") else "yellow"
        published = metric_value(summary, claim["metric"], claim["published"])
        text = f"claim    {claim['metric']} {published} ({claim['source']}): {word}"
        print_sentence(text, style, indent=9)
        if flags := describe_flags(claim):
            print_sentence(f"warnings {flags}", indent=9)


def print_run(path: Path) -> None:
    """Print a run: `dlrun show RUN`."""
    run = FinishedRun.read(path)
    out = console()
    out.print(Text(f"{shorter(run.path)}"), style="bold")
    out.print(Text(f"command  dlrun {' '.join(run.overrides)}"))
    out.print(Text(f"status   {run.status}"))
    for title, text in read_tags(run.path).lines:
        print_sentence(f"{title:<9}{text}", indent=9)
    summary = run.summary or {}
    if error := summary.get("error"):
        print_sentence(f"error    {error}", "red", indent=9)
    data = summary.get("data")
    if data:
        rows = ", ".join(f"{count:,} {name}" for name, count in data.get("rows", {}).items())
        print_sentence(f"data     {data.get('name')} {data.get('release')} ({data.get('source')}): {rows}", indent=9)
    if members := summary.get("members"):
        name = (summary.get("metric") or {}).get("name")
        mean = " ± ".join(metric_value(summary, name, members[each]) for each in ("mean", "std"))
        out.print(Text(f"members  {len(members['seeds'])} seeds, {mean} each"))
    if summary.get("seconds") is not None:
        memory = (summary.get("peak_memory_mb") or {}).get("host")
        cost = f"{summary['seconds']:.1f} s, {memory:.0f} MB" if memory else f"{summary['seconds']:.1f} s"
        out.print(Text(f"cost     {cost} on {summary.get('device')} in {summary.get('precision')}"))
    history = run.history
    if not history and (members := member_folders(run.path)):
        history = read_history(members[0])
        out.print("epochs of the first member:")
    if history:
        columns = shown_columns(history[0], terminal.terminal_width())
        out.print(Text("\n" + header_line(columns)), style="bold")
        for row in history:
            out.print(Text(row_line(row, columns)))
    if run.status == "done":
        print_outcome(run.path)


def print_ranking(results: pd.DataFrame, folder: Path) -> None:
    """Print the jobs of a sweep, best first, and the failed ones."""
    from pandas import DataFrame

    if results.empty:
        return
    done = results[results["status"] == "done"]
    shown = list(results.columns[2 : list(results.columns).index("metric")])
    shown = [c for c in shown if not c.startswith(("train/", "valid/loss"))]
    if not done.empty:
        names = list(dict.fromkeys(done["metric"]))
        sets = _validation_sets(done, folder)
        signs = done["higher_is_better"].map(lambda higher: -1.0 if higher else 1.0)
        values = sum(done[name].where(done["metric"] == name, 0.0) for name in names) * signs  # each by its own metric
        keys = {"metric": done["metric"].map(names.index), "set": sets, "value": values}
        order = DataFrame(keys).sort_values(list(keys)).index
        ranked = done.loc[order, [*shown, "seconds"]]
        within = ""
        if sets.nunique() > 1:
            ranked.insert(0, "validation set", sets + 1)
            within = " within each set of validation rows: others are not comparable"
        best = f", the best {MOST_RANKED} of {len(ranked)}" if len(ranked) > MOST_RANKED else ""
        if best and (within or len(names) > 1):
            best = f", the first {MOST_RANKED} of {len(ranked)}"
        swept = _swept(done)
        title = f"\nranking by {', by '.join(names)}{within}{best}"
        print_frame(
            ranked.head(MOST_RANKED),
            title,
            settings=swept,
            optional=["seconds", "best epoch", *(c for c in shown if c not in ("best epoch", *names, *swept))],
            elsewhere="results.csv has all",
        )
        _print_means(done)
    failed = results[results["status"] != "done"]
    for row in failed.head(MOST_RANKED).to_dict("records"):
        settings = " ".join(f"{name}={row[name]}" for name in _swept(results))
        reason = row["error"] if isinstance(row["error"], str) else row["status"]
        print_sentence(f"job {row['job']} {row['status']}: {settings}: {reason}", "red", indent=2)
    if len(failed) > MOST_RANKED:
        console().print(Text(f"… {len(failed) - MOST_RANKED} more are not done"), style="red")
    console().print(Text(f"{len(done)} of {len(results)} jobs done\nresults  {shorter(folder)}/results.csv"))


def _swept(results: pd.DataFrame) -> list[str]:
    """Return the swept settings: the columns between the status and the metrics."""
    between = results.columns[2 : list(results.columns).index("metric")]
    return [name for name in between if "/" not in name and not name.startswith("best ")]


def _validation_sets(done: pd.DataFrame, folder: Path) -> pd.Series[int]:
    """Return the validation set of each job; the runs are read only where a setting differs that can change it.

    Runs that cannot be read (deleted meanwhile) are a set of their own.
    """
    from pandas import Series

    from dlrunner.comparison.collect import Row, read_row
    from dlrunner.comparison.jobs import moved
    from dlrunner.comparison.validation import validation_sets
    from dlrunner.errors import ConfigError

    names = [name for name in _swept(done) if name.partition(".")[0] not in SAME_VALIDATION_ROWS]
    rows: dict[Any, Row] = {}
    if any(done[name].nunique(dropna=False) > 1 for name in names):
        for job, path in done["folder"].items():
            with suppress(ConfigError):
                rows[job] = read_row(moved(folder, path) or Path(path))
    found = dict(zip(rows, validation_sets(list(rows.values()), averaged=()), strict=True))
    unknown = max(found.values(), default=-1) + 1
    return Series([found.get(job, unknown) for job in done.index], done.index)


def print_interrupted() -> None:
    """Print what to do after an interruption."""
    print("interrupted: the same command resumes", file=sys.stderr)


def _print_means(done: pd.DataFrame) -> None:
    """Print mean, standard deviation and interval over seeds and folds, for each combination of the other settings."""
    from dlrunner.comparison.groups import FOLD, REPEATS
    from dlrunner.comparison.statistics import estimate

    settings = _swept(done)
    repeated = [column for column in settings if column in REPEATS and done[column].nunique() > 1]
    if not repeated:
        return
    others = [column for column in settings if column not in repeated]
    groups = done.groupby(others, sort=False, dropna=False) if others else [((), done)]
    for key, rows in groups:
        name = rows["metric"].iloc[0]
        by_fold = rows.groupby(FOLD, sort=False)[name].mean() if len(repeated) == len(REPEATS) else rows[name]
        values = by_fold.dropna().tolist()  # the runs of a fold are not independent: its seeds are averaged first
        if not values:
            continue
        label = " ".join(f"{column}={value}" for column, value in zip(others, key, strict=True))
        over = " and ".join(_few(column, list(rows[column].unique())) for column in repeated)
        found = estimate(values)
        result = f"{name} {number(found.mean)}"
        if found.n > 1:
            result += f" ± {number(found.sd)}, 95 % interval {number(found.low)} to {number(found.high)}"
        print_sentence(f"{label}{': ' if label else ''}over {over}: {result}", indent=2)


def _few(column: str, values: Sequence[Any]) -> str:
    """List a few values, or count many."""
    return f"{column} {', '.join(map(str, values))}" if len(values) <= 10 else f"{len(values)} of {column}"


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        console().print(Text(f"{name:<{width}}  {value}"))


def seconds_text(seconds: float) -> str:
    """Format a duration: of short ones hundredths of a second.

    >>> seconds_text(0.26), seconds_text(208.318)
    ('0.26', '208.3')
    """
    return f"{seconds:.{2 if seconds < 10 else 1}f}"


def _cell(name: str, value: Any) -> str:
    return seconds_text(value) if name == "seconds" and isinstance(value, float) else number(value)


def _is_missing(value: Any) -> bool:
    from pandas import NA

    return value is None or value is NA or (isinstance(value, float) and value != value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
