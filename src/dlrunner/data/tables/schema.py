"""How each column of a table is read: its type and format, as a value that can be stored, edited and used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from dlrunner.data.tables.formats import DateFormat, NumberFormat, date_format, format_problem, literal, missing
from dlrunner.errors import DataError, did_you_mean

Type = Literal["text", "integer", "number", "date", "time", "boolean"]
TRUE, FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")
"""Values of a column of booleans, in lower case; only true and false make a column one."""


@dataclass(frozen=True)
class Column:
    """One column: how its strings become values."""

    name: str
    type: Type = "text"
    """An integer is a number that was whole in every row; other rows may have fractions. A time (of day) is read
    as the minutes since midnight."""
    verbatim: bool = False
    """Texts and ids keep every character; other texts lose blanks at their ends."""
    format: str | None = None
    """Of dates."""
    decimal: str = "."
    thousands: str | None = None
    before: str = ""
    after: str = ""
    """Units before and after numbers."""

    @property
    def number_format(self) -> NumberFormat:
        """The format of its numbers."""
        return NumberFormat(self.decimal, self.thousands, self.before, self.after)  # type: ignore[arg-type]

    @property
    def date_format(self) -> DateFormat:
        """The format of its dates."""
        assert self.format is not None
        return date_format(self.format)

    def described(self) -> str:
        """Describe type and format.

        >>> Column("when", "date", format="%d/%m/%Y").described(), Column("x", "number", decimal=",").described()
        ('date, %d/%m/%Y', 'number, decimal comma')
        """
        if self.type == "time":
            return "time of day"
        details = self.format if self.type == "date" else self.number_format.description()
        return f"{self.type}, {details}" if details else self.type

    def value(self, text: str) -> str:
        """Return the SQL expression of the value of a string; NULL where it is missing or has another format.

        Args:
            text: the SQL expression of the string.
        """
        if self.type == "text":
            return f"CASE WHEN trim({text}) <> '' THEN {text} END" if self.verbatim else f"nullif({trimmed(text)}, '')"
        text = trimmed(text)
        if self.type == "boolean":
            true, false = (", ".join(map(literal, words)) for words in (TRUE, FALSE))
            return f"CASE WHEN lower({text}) IN ({true}) THEN true WHEN lower({text}) IN ({false}) THEN false END"
        if self.type == "date":
            return self.date_format.value(text)
        if self.type == "time":
            return f"clock_minutes({text})"
        return f"bounded({self.number_format.value(text)})"

    def bad(self, text: str) -> str:
        """Return the SQL condition that a string is there, but not of this type and format."""
        if self.type == "text":
            return "false"
        value = trimmed(text)
        return f"(({self.value(text)}) IS NULL AND NOT {missing(value)})"


def whole_as_text(number: str) -> str:
    """Return the SQL expression of a float as a date is written: 20200131.0 was 20200131.

    Of Excel's days and of seconds the fraction counts; NaN and numbers without a BIGINT are no dates.
    """
    is_whole = f"{number} % 1 = 0 AND abs({number}) < 1e18"
    return f"CASE WHEN {is_whole} THEN CAST(CAST({number} AS BIGINT) AS VARCHAR) ELSE CAST({number} AS VARCHAR) END"


def trimmed(text: str) -> str:
    """Return the SQL expression of a string without blanks at its ends."""
    return f"trim({text})"


@dataclass(frozen=True)
class Statistics:
    """What was found in a column of the table that a schema was inferred from."""

    num_missing: int = 0
    num_distinct: int = 0
    example: str = ""
    num_bad: int = 0
    """Values that have another format than nearly all others."""
    bad_example: str = ""
    doubt: str | None = None
    """What about it could be read in two ways, and the setting that says which."""
    note: str | None = None
    """How it is read, where this is worth knowing and nothing is in doubt."""
    ambiguous: bool = False
    """It must not be used before the doubt is settled."""


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in order; `found` only where the schema was inferred from this very table."""

    columns: tuple[Column, ...]
    found: Mapping[str, Statistics] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Column:
        return next(each for each in self.columns if each.name == name)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [each.name for each in self.columns]

    def state(self) -> list[dict[str, Any]]:
        """Return plain values, without what is as by default."""
        usual = asdict(Column(""))
        return [
            {k: v for k, v in asdict(each).items() if k in ("name", "type") or v != usual[k]} for each in self.columns
        ]

    @classmethod
    def from_state(cls, state: Sequence[Mapping[str, Any]]) -> Schema:
        """Return the schema of a `state`.

        Raises:
            DataError: an entry, or its value, is unknown.
        """
        columns = []
        known = {each.name for each in fields(Column)}
        for entry in state:
            if not isinstance(entry, Mapping) or "name" not in entry:
                raise DataError(f"a schema lists columns with a name and a type, not {entry!r}")
            for key in entry:
                if key not in known:
                    raise DataError(f"column {entry['name']}: {key!r} is unknown; {did_you_mean(str(key), known)}")
            column = Column(**{**entry, "name": str(entry["name"])})
            if column.type not in get_args(Type):
                raise DataError(
                    f"column {column.name}: the type is one of {', '.join(get_args(Type))}, not {column.type!r}"
                )
            if column.type == "date" and not column.format:
                raise DataError(f"column {column.name}: a date needs a format, such as '%d/%m/%Y' or 'ISO 8601'")
            if column.format is not None and (problem := format_problem(column.format)):
                raise DataError(f"column {column.name}: {problem}")
            if column.decimal == column.thousands:
                raise DataError(f"column {column.name}: decimal and thousands are both {column.decimal!r}")
            if column.decimal not in (".", ",") or column.thousands not in (None, ".", ",", " ", "'"):
                raise DataError(f"column {column.name}: decimal is . or , and thousands one of . , ' or a blank")
            columns.append(column)
        if len({each.name for each in columns}) < len(columns):
            raise DataError("a schema names a column twice")
        return cls(tuple(columns))

    def with_column(self, column: Column) -> Schema:
        """Return the schema with a column replaced."""
        return replace(self, columns=tuple(column if each.name == column.name else each for each in self.columns))
