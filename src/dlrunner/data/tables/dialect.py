"""The dialect of a delimited text file: encoding, separator, lines before the header, names of the columns."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrunner.data.tables.formats import MISSING
from dlrunner.errors import ConfigError, DataError

SEPARATORS = (",", ";", "\t", "|")
HEAD = 2**20
"""Bytes that are looked at to find the separator."""
LONGEST_LINE = 2**28
"""Bytes."""
RECORDS = 200
COMMENTS = ("#", "%", "//")
NO_SEPARATOR = "\x1f"
"""Of a file of one column, whose texts may hold any separator."""
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
KINDS = (
    (b"PK\x03\x04", "a zip or Excel file"),
    (b"\xd0\xcf\x11\xe0", "an Excel file"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x1f\x8b", "packed by gzip"),
    (b"BZh", "packed by bzip2"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd"),
    (b"%PDF", "a PDF"),
)
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?")
UNIT = re.compile(r"\(.*\)|\[.*\]|%")
NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Dialect:
    """How a delimited text file is parsed."""

    separator: str
    names: tuple[str, ...]
    """Of the columns: without blanks at their ends, each once."""
    skipped_lines: int = 0
    """Before the header: Excel's `sep=;`, comments."""
    blank_after_separator: bool = False
    """Each separator is followed by a blank, which belongs to it."""
    notes: tuple[str, ...] = ()
    longest_line: int = LONGEST_LINE
    """Bytes. DuckDB reads 16 times as many at once."""


IN_UTF_8 = "save it as UTF-8, or train with data.encoding (cp1252 is usual for files of Excel on Windows)"
"""What to do about a text in another encoding."""


def encoding_of(head: bytes) -> str:
    """Return the encoding that the first four bytes show: by a byte order mark, or the zeros of UTF-16; else UTF-8.

    >>> encoding_of("id".encode("utf-16-le")), encoding_of(b"id,v")
    ('utf-16-le', 'utf-8')
    """
    if (marked := next((encoding for mark, encoding in BOMS if head.startswith(mark)), None)) is not None:
        return marked
    zeros = "".join("01"[byte == 0] for byte in head[:4])
    return {"0101": "utf-16-le", "1010": "utf-16-be"}.get(zeros, "utf-8")


def encodings_to_try(of_training: str | None) -> list[str | None]:
    """Return the encodings in which a new file is tried, the first one first; None: the one that its bytes show.

    Texts in an encoding of 7 bits are valid UTF-8 too, with other characters: this one is tried first.

    >>> encodings_to_try(None), encodings_to_try("cp1252"), encodings_to_try("iso-2022-jp")
    ([None], [None, 'cp1252'], ['iso-2022-jp', None])

    Args:
        of_training: the encoding of the training files, if it was set.
    """
    if of_training is None:
        return [None]
    is_of_7_bits = check_encoding(of_training).startswith(("iso2022", "hz", "utf-7"))
    return [of_training, None] if is_of_7_bits else [None, of_training]


def decoded(content: bytes, encoding: str, errors: str = "strict") -> str:
    """Return a text without its byte order mark, which most decoders leave in front of the first word.

    >>> decoded(b"\\xff\\xfea\\0", "utf-16-le"), decoded(b"\\xef\\xbb\\xbfa", "utf-8")
    ('a', 'a')
    """
    return content.decode(encoding, errors).removeprefix("\ufeff")


def kind_of(head: bytes) -> str | None:
    """Return what a file is by its first bytes, whatever its name says; None for a text.

    >>> kind_of(b"PAR1..."), kind_of(b"id,v")
    ('a Parquet file', None)
    """
    start = head.lstrip()[:14].lower()
    if start.startswith((b"<html", b"<!doctype html")):
        return "a web page (HTML)"
    return next((kind for mark, kind in KINDS if head.startswith(mark)), None)


def detect(head: str, path: Path, separator: str | None = None, skip_bad: bool = False) -> Dialect:
    """Return the dialect of a file.

    Args:
        head: its first lines; the last one may be cut.
        path: for messages.
        separator: given by the user.
        skip_bad: leave out a second header row; by default it is an error.

    Raises:
        DataError: the file is empty, its first row holds values and no names, or it has a second header row.
    """
    lines = list(io.StringIO(head, newline=""))  # those of DuckDB: str.splitlines knows more ends of lines
    skipped = 0
    if lines and (match := re.fullmatch(r"\s*sep=(.)\s*", lines[0], re.IGNORECASE | re.DOTALL)):
        separator = separator or match[1]
        skipped = 1
    skipped += _num_comments(lines[skipped:])
    if not "".join(lines[skipped:]).strip():
        raise DataError(f"{path} is empty")
    if separator is None and _has_row_names_of_r(lines[skipped:]):
        raise DataError(
            f"{path}: its values are separated by blanks, and row names stand in front of them, as R's write.table "
            "writes them: write.csv(x, FILE, row.names=FALSE) writes a table that can be read"
        )
    parsed = {each: _records(lines[skipped:], each) for each in ([separator] if separator else SEPARATORS)}
    titles = {each: num_titles([fields for _, fields in records], each) for each, records in parsed.items()}
    chosen = max(parsed, key=lambda each: _fit([fields for _, fields in parsed[each]], titles[each]))
    records = parsed[chosen][titles[chosen] :]
    notes = []
    if titles[chosen]:
        notes.append(f"the lines above the header are left out: {', '.join(filter(None, parsed[chosen][0][1]))[:80]}")
    first, *others = [fields for _, fields in records]
    has_second = is_second_header(others)
    if has_second:
        notes.append(second_header_note(others[0], path, skip_bad))
    skipped += records[int(has_second)][0]
    names, changed = unique_names([name.strip().removeprefix("\ufeff") for name in first])
    if holds_values(names, others):
        shown = ", ".join(names[:5])
        raise DataError(
            f"{path}: its first row ({shown}) holds values, not the names of columns; add a line of names at the top"
        )
    if len(names) == 1 and separator is None and any(len(record) > 1 for record in others):
        chosen = NO_SEPARATOR  # texts with commas, not in quotation marks
    fields = [field for record in [first, *others] for field in record[1:]]
    blanks = bool(fields) and all(field.startswith(" ") or not field for field in fields)
    if blanks:  # the quotation marks of a name after a blank are still there
        names = [name[1:-1].replace('""', '"') if re.fullmatch(r'".+"', name) else name for name in names]
    return Dialect(chosen, tuple(names), skipped, blanks, (*notes, *changed))


def num_titles(records: Sequence[Sequence[str]], separator: str = ";") -> int:
    """Return the number of records above the header: a title alone in its row, rows of blanks.

    >>> num_titles([["Sales 2023", "", ""], ["", "", ""], ["date", "item", "amount"], ["2023-01-05", "a", "5"]])
    2
    """
    width = Counter(len(record) for record in records[1:]).most_common(1)[0][0] if len(records) > 1 else 0
    for number, record in enumerate(records[:10]):
        is_padded = len(record) == width > 2
        is_alone = len(record) == 1 and all(len(each) == width for each in records[number + 2 :])
        is_alone = is_alone and width > (2 if separator == "," else 1)
        if not (is_padded or is_alone) or any(field.strip() for field in record[1:]):
            return number if number + 1 < len(records) else 0
        if number == 0 and not any(field.strip() for field in record):
            return 0  # a header without names
    return 0


def is_second_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row below the header belongs to it: units, or names below merged cells.

    It has no number or date, and other text where all rows below it have numbers or dates: in two columns, or a unit in
    brackets in one.

    >>> is_second_header([["", "kg", "cm"], ["a", "1.5", "2"], ["b", "2", "3"]])
    True
    >>> is_second_header([["a", "unknown", ""], ["b", "2", "c"]]), is_second_header([["a", "NA", "-"], ["b", "2", "5"]])
    (False, False)
    """
    if len(rows) < 3 or not any(field.strip() for field in rows[0]):
        return False
    second, *others = [[field.strip() for field in row] for row in rows]
    if any(_is_value(field) for field in second):
        return False
    words = []
    for number, field in enumerate(second):
        known = [row[number] for row in others if len(row) > number and row[number] not in ("", *MISSING)]
        if field not in ("", *MISSING) and len(known) > 1 and all(map(_is_value, known)):
            words.append(field)
    return len(words) > 1 or any(UNIT.fullmatch(word) for word in words)


def _is_value(field: str) -> bool:
    return bool(NUMBER.fullmatch(field) or DATE.fullmatch(field))


def second_header_note(row: Sequence[str], path: Path, skip_bad: bool) -> str:
    """Return a note on a second header row that is left out.

    Raises:
        DataError: it is not to be left out.
    """
    shown = ", ".join(field.strip() for field in row)[:80]
    if skip_bad:
        return f"a second header row is left out (data.skip_bad): {shown}"
    raise DataError(
        f"{path}: the row below the header ({shown}) holds no values: units, or a second row of names? One "
        "row of names is read: remove the other one (data.skip_bad=true leaves out the second)"
    )


def holds_values(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether what stands where names are expected is a row of values.

    >>> holds_values(["5.1", "0.2", "setosa"], [["4.9", "0.2", "setosa"]])
    True
    >>> holds_values(["country", "1990", "1991"], [["DEU", "79.4", "80.0"]])
    False
    """
    numbers = [i for i, name in enumerate(names) if NUMBER.fullmatch(name)]
    dates = [i for i, name in enumerate(names) if DATE.fullmatch(name)]
    if any(rows and all(len(row) > i and DATE.fullmatch(row[i].strip()) for row in rows) for i in dates):
        return True
    if len(numbers) == len(names):
        return not _is_scale(names) or (
            names[0] != "0" and not re.fullmatch(r"(19|20)\d\d", names[0]) and len(names) < 8
        )
    rows = [row for row in rows if len(row) == len(names) and [field.strip() for field in row] != list(names)]
    if len(names) == 1 or not rows:
        return False
    if len(numbers) > 1 and not _is_scale([names[i] for i in numbers]):
        of_numbers = [bool(NUMBER.fullmatch(row[i].strip())) for row in rows for i in numbers]
        if sum(of_numbers) > len(of_numbers) / 2:
            return True
    words = [i for i, name in enumerate(names) if i not in numbers and not name.startswith("Unnamed: ")]
    repeated = [i for i in words if any(row[i].strip() == names[i] for row in rows)]
    return len(repeated) * 2 >= len(words) > 0 and len(repeated) > 0


def _is_scale(names: Sequence[str]) -> bool:
    """Return whether numbers are names of columns: years, wavelengths, 0 1 2 …, each as far from the last one."""
    numbers = [float(name.replace(",", ".")) for name in names]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    if len(numbers) == 2 and not all(name.isdigit() for name in names):
        return False
    return bool(steps) and steps[0] != 0 and all(abs(step - steps[0]) <= 0.1 * abs(steps[0]) for step in steps)


def unique_names(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return distinct names of columns, and notes on those that were changed; an empty name is `Unnamed: N`.

    >>> unique_names(["a", "", "a"])
    (['a', 'Unnamed: 1', 'a.1'], ["2 columns are named a: the second one is called 'a.1'"])
    """
    names: list[str] = []
    notes = []
    for number, name in enumerate(given):
        name = name or f"Unnamed: {number}"
        new, count = name, 0
        while new in names or (count and new in given):
            count += 1
            new = f"{name}.{count}"
        if new != name:
            notes.append(f"{count + 1} columns are named {name}: the {_ordinal(count + 1)} one is called {new!r}")
        names.append(new)
    return names, notes


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _has_row_names_of_r(lines: Sequence[str]) -> bool:
    """Return whether values are separated by blanks, and each row has one more than the header: its name.

    >>> _has_row_names_of_r(['"x" "y"', '"1" 5.1 "a b"', '"2" 4.9 "c"', '"3" 4.'])
    True
    >>> _has_row_names_of_r(["x y", "1 2 3", "2 3 4", "3"])
    False
    """
    complete = lines[:20] if len(lines) > 20 else lines[:-1]  # the last one may be cut
    text = "".join(complete)
    if (
        len(complete) < 3
        or not all(line.startswith('"') for line in complete)
        or any(map(text.__contains__, SEPARATORS))
    ):
        return False
    header, *rows = (next(csv.reader([line], delimiter=" ")) for line in complete)
    return all(len(row) == len(header) + 1 for row in rows)


def _num_comments(lines: Sequence[str]) -> int:
    """Return the number of comments and blank lines above the header; a header may begin with # itself."""
    count = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith(COMMENTS)), len(lines))
    if count in (0, len(lines)) or not lines[count - 1].startswith("#"):
        return count
    header, row = lines[count - 1], lines[count]
    separator = max(SEPARATORS, key=header.count)
    is_wide = header.count(separator) == row.count(separator) > 0
    has_numbers = any(NUMBER.fullmatch(field.strip()) for field in row.split(separator))
    return count - 1 if is_wide and (has_numbers or header[1:2].isalpha()) else count


def _records(lines: Sequence[str], separator: str) -> list[tuple[int, list[str]]]:
    """Return the first records that are not blank, each with the number of lines before it."""
    csv.field_size_limit(2 * HEAD)  # the head may be one long text
    reader = csv.reader(iter(lines), delimiter=separator)
    records: list[tuple[int, list[str]]] = []
    start = 0
    try:
        for record in reader:
            if (record and any(field.strip() for field in record)) or (records and record):
                records.append((start, record))
            start = reader.line_num
            if len(records) > RECORDS:
                break
    except csv.Error as error:  # a NUL
        if not records:
            raise DataError(f"a table cannot be read: {error}") from None
    return records


def _fit(records: Sequence[Sequence[str]], num_skipped: int) -> tuple[float, bool, int]:
    """Return how well a separator fits.

    Returns:
        the fraction of records with as many fields as the header, whether no title stands above it, and its fields.
    """
    records = records[num_skipped:]
    width = len(records[0]) if records else 0
    if width < 2:
        return 0.0, num_skipped == 0, width
    others = records[1:] or records
    same = sum(len(record) == width for record in others) / len(others)
    return (same if same > 0.5 else same / 2), num_skipped == 0, width


def check_separator(separator: str) -> None:
    """Check that a separator is one character that can separate fields.

    Raises:
        ConfigError: it is not.
    """
    if len(separator) != 1 or separator in '"\r\n\0':
        raise ConfigError(f"data.separator: {separator!r} is not one character such as , ; | or a tab")


def check_encoding(name: str) -> str:
    """Return the standard name of an encoding.

    Raises:
        ConfigError: there is none of this name.
    """
    try:
        "".encode(name)  # base64 is a codec too, but not of texts
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ConfigError(f"data.encoding: {name!r} is not an encoding; usual ones are utf-8, cp1252, utf-16") from None
