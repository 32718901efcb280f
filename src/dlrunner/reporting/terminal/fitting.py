"""Tables that fit the terminal: columns that have no room are left out instead of being cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
"""Characters between two columns."""

LEAST_SETTINGS = 24
"""Characters of a column that holds several settings."""

SETTINGS = "settings"


@dataclass(frozen=True)
class Fitted:
    """The part of a table that fits."""

    names: list[str]
    rows: list[list[str]]
    left_out: list[str]
    """Names of columns for which there was no room."""
    common: str = ""
    """Settings that most rows have, which the column of settings leaves out."""


def fitted(
    names: Sequence[str], rows: Sequence[Sequence[str]], width: int, settings: Collection[str], optional: Sequence[str]
) -> Fitted:
    """Return a table without the optional columns that it has no room for.

    Where it does not fit without all of them, the settings share one column, the last, which wraps at spaces and leaves
    out what most rows have.

    >>> found = fitted(["a.x", "b", "rmse", "mae"], [["1", "2", "0.5", "0.4"]], 12, ["a.x", "b"], ["mae"])
    >>> found.names, found.left_out
    (['a.x', 'b', 'rmse'], ['mae'])
    >>> fitted(["a.x", "b", "rmse", "mae"], [["1", "2", "0.5", "0.4"]], 10, ["a.x", "b"], ["mae"]).rows
    [['0.5', 'a.x=1 b=2']]

    Args:
        names: of the columns.
        rows: their texts.
        width: characters of a line.
        settings: the columns that may share one.
        optional: the columns that may be left out, the most important first.
    """
    here = [name for name in optional if name in names]
    own = [name for name in names if name in settings]
    sizes = {name: narrowest(name, [row[at] for row in rows]) for at, name in enumerate(names)}
    for count in range(len(here), -1, -1):
        kept = [name for name in names if name not in here[count:]]
        if _total([sizes[name] for name in kept]) <= width:
            return _only(names, rows, kept, here[count:])
    if len(own) < 2:
        return _only(names, rows, [name for name in names if name not in here], here)
    words = [[f"{name}={row[names.index(name)]}" for name in own] for row in rows]
    common = [word for column in zip(*words, strict=True) if (word := _most(column)) is not None]
    shared = [" ".join(word for word in each if word not in common) for each in words]
    longest = max((cell_len(word) for text in shared for word in text.split()), default=0)
    of_settings = max(min(LEAST_SETTINGS, max(map(cell_len, shared), default=0)), min(longest, width // 2))
    for count in range(len(here), -1, -1):
        kept = [name for name in names if name not in here[count:] and name not in own]
        if count == 0 or _total([*(sizes[name] for name in kept), of_settings]) <= width:
            break
    found = _only(names, rows, kept, here[count:])
    lines = [[*row, text] for row, text in zip(found.rows, shared, strict=True)]
    return Fitted([*found.names, SETTINGS], lines, found.left_out, " ".join(common))


def narrowest(name: str, cells: Sequence[str]) -> int:
    """Return the width of a column whose heading wraps at spaces."""
    heading = max(map(cell_len, name.split()), default=0)
    return max([heading, *map(cell_len, cells)])


def heading_widths(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return widths with which headings wrap instead of cells; None where none have to, or where that is not enough."""
    columns = [[row[at] for row in rows] for at in range(len(names))]
    least = [narrowest(name, cells) for name, cells in zip(names, columns, strict=True)]
    most = [max(size, cell_len(name)) for size, name in zip(least, names, strict=True)]
    if _total(most) <= width or _total(least) > width:
        return None
    spare = width - _total(least)
    for at, size in enumerate(most):
        if size - least[at] <= spare:
            spare -= size - least[at]
            least[at] = size
    return least


def _most(words: Sequence[str]) -> str | None:
    """Return the word that more than half are.

    >>> _most(["a", "b", "a"]), _most(["a", "b"])
    ('a', None)
    """
    word, count = Counter(words).most_common(1)[0]
    return word if 2 * count > len(words) > 1 else None


def _total(sizes: Sequence[int]) -> int:
    return sum(sizes) + GAP * (len(sizes) - 1)


def _only(names: Sequence[str], rows: Sequence[Sequence[str]], kept: Sequence[str], left_out: Sequence[str]) -> Fitted:
    places = [at for at, name in enumerate(names) if name in kept]
    ordered = [name for name in names if name in left_out]
    return Fitted([names[at] for at in places], [[row[at] for at in places] for row in rows], ordered)
