"""A comparison as a LaTeX table (booktabs), for a thesis or a paper."""

from __future__ import annotations

import math
import re

from dlrunner.comparison.collect import shown
from dlrunner.comparison.groups import Comparison, Group
from dlrunner.reporting.terminal.progress import number

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "…": r"\ldots{}",
    "[": "{[}",  # at the start of a row it would be the argument of the line break before
}


def escaped(text: str) -> str:
    r"""Return a text as LaTeX prints it: one line, special characters escaped.

    >>> escaped("data.id_column=50%"), escaped("a\\b")
    ('data.id\\_column=50\\%', 'a\\textbackslash{}b')
    """
    return "".join(_SPECIAL.get(character, character) for character in re.sub(r"\s+", " ", text))


def latex_table(comparison: Comparison) -> str:
    """Return a row per group, best first: settings, number of runs, mean ± std, 95 % interval of the mean.

    The best mean of each validation set is bold; the sets are separated by a line. The caption says what was averaged
    over. Needs the packages booktabs and, for other scripts than Latin, a Unicode engine.
    """
    names = [escaped(name) for name in comparison.settings]
    has_intervals = any(group.estimate.n > 1 for group in comparison.groups)
    measures = "mean $\\pm$ std" if has_intervals else "value"
    heading = f"{escaped(comparison.metric)}, {measures}" if comparison.metric else measures
    header = [*names, "$n$", *([] if comparison.metric else ["metric"]), heading]
    header += ["95\\,\\% interval"] if has_intervals else []
    lines = [
        *(r"\begin{table}", r"\centering", f"\\caption{{{_caption(comparison)}}}"),
        f"\\begin{{tabular}}{{{'l' * len(names)}r{'' if comparison.metric else 'l'}r{'r' if has_intervals else ''}}}",
        *(r"\toprule", _line(header), r"\midrule"),
    ]
    ranked = comparison.metric is not None and len({row.task for row in comparison.rows}) == 1
    previous = None
    for group in comparison.groups:
        if previous is not None and group.validation_set != previous:
            lines.append(r"\midrule")
        is_best = ranked and group.validation_set != previous
        previous = group.validation_set
        cells = [escaped(shown(value, group.cuts)) for value in group.settings.values()]
        cells += [str(group.estimate.n), *([] if comparison.metric else [escaped(group.metric)])]
        cells += [_mean(group, is_best), *([_interval(group)] if has_intervals else [])]
        lines.append(_line(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _caption(comparison: Comparison) -> str:
    over = f", averaged over {' and '.join(comparison.averaged)}" if comparison.averaged else ""
    sets = ". Groups between two lines validated on the same rows" if comparison.num_validation_sets > 1 else ""
    return escaped(f"{len(comparison.rows)} runs{over}{sets}.")


def _mean(group: Group, is_best: bool) -> str:
    found = group.estimate
    mean = _number(found.mean)
    text = f"\\mathbf{{{mean}}}" if is_best else mean
    return f"${text} \\pm {_std(found.sd, found.mean)}$" if math.isfinite(found.sd) else f"${text}$"


def _std(sd: float, mean: float) -> str:
    return f"{sd:.4f}" if 1e-4 <= sd < 1e-3 <= abs(mean) else _number(sd)


def _interval(group: Group) -> str:
    found = group.estimate
    return f"$[{_number(found.low)},\\ {_number(found.high)}]$" if math.isfinite(found.low) else ""


def _number(value: float) -> str:
    """Format a number for math mode.

    >>> _number(0.87462), _number(-2e-05)
    ('0.8746', '-2.0 \\\\times 10^{-5}')
    """
    mantissa, _, exponent = number(float(value)).partition("e")
    return f"{mantissa} \\times 10^{{{int(exponent)}}}" if exponent else mantissa


def _line(cells: list[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
