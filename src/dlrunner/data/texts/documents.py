"""Users' texts: folders, archives, files with a text a line, columns of tables."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import lzma
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from dlrunner.data.core.cache import cache_dir, sha256_of, write_whole
from dlrunner.data.core.folders import check_parts, counted, hidden_notes, is_hidden, labels_and_parts, skipped_notes
from dlrunner.data.core.row_locations import Part, RowLocations
from dlrunner.data.core.source import ARCHIVES, ArchiveOrFolder, Unreadable
from dlrunner.data.core.unpacking import open_compressed
from dlrunner.data.tables.dialect import IN_UTF_8, check_encoding, decoded, encoding_of, encodings_to_try
from dlrunner.data.tables.files import STANDARD_INPUT, SUFFIXES, suffix_of
from dlrunner.data.tables.inference import Hints, infer
from dlrunner.data.tables.raw import RawTable
from dlrunner.data.tables.rows import without_missing
from dlrunner.data.tables.source import TableFile
from dlrunner.data.tables.table import Reading, load_schema, read_open_table
from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import not_found, user_path

LINES = (".txt", ".tokens", ".text")
MISSING = "the text is missing"
"""The reason of a row of a table without a text."""
TABLES = tuple(suffix for suffix in SUFFIXES if suffix not in LINES)


@dataclass(frozen=True)
class Documents:
    """Texts that are found but not read yet."""

    place: RowLocations
    """Where they are; of a table also its rows."""
    digest: str
    """Of the texts in their order."""
    names: Sequence[str]
    table: pd.DataFrame
    """The columns of a table besides that of the texts; no columns otherwise."""
    texts: Callable[[], Sequence[str]]
    column: str | None = None
    """Of the table, with the texts."""
    labels: Sequence[str] | None = None
    """Of documents in a folder: the class folder that each stands in."""
    label_notes: tuple[str, ...] = ()
    """On the labels."""
    parts: Sequence[str | None] | None = None
    """Of documents in folders named train, valid, test: train, valid, test, or None; None where there is no train/."""
    notes: tuple[str, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()
    """Number and reason of the texts that cannot be read, where they are kept: they are empty."""


@dataclass(frozen=True)
class Wanted:
    """What is read of a user's texts, and how."""

    column: str | None = None
    """Of the table, with the texts; by default its only column of texts, or one named `text`."""
    default: str | None = None
    """Likewise, if the table has it."""
    target: Sequence[str] = ()
    """Columns that are not the texts; a single one holds names of classes."""
    needs_target: bool = False
    """A row without a target is bad."""
    query: str | None = None
    """SQL that selects the table, instead of a path."""
    reading: Reading = field(default_factory=Reading)
    setting: str = "data.text"
    """The name of `column` in messages."""
    fallback: Reading = field(default_factory=Reading)
    """For prediction: how the training texts were read, tried where a text is not UTF-8 or a table has one column."""
    keep_bad: bool = False
    """For prediction: texts that cannot be read stay, empty; else they are left out, or the first one is an error."""

    @property
    def encodings(self) -> list[str | None]:
        """In which files are read, the first one that fits; None: the one that their bytes show."""
        return [encoding] if (encoding := self.reading.encoding) else encodings_to_try(self.fallback.encoding)

    @property
    def names_columns(self) -> bool:
        """Whether a column is named: plain text is then a table."""
        return self.column is not None or bool(self.target)


def find_documents(path: Path | None, wanted: Wanted | None = None) -> Documents:
    """Return the documents of a folder or archive of .txt files, a file with a text a line, or a table.

    Args:
        path: the folder, archive, file, glob of part files, or `-` for standard input.
        wanted: what is read, and how.

    Raises:
        ConfigError: there is no such file or column.
        DataError: it holds no text, or a text cannot be read.
    """
    wanted = wanted or Wanted()
    if path is None:
        return _documents_of_table(None, wanted)
    if str(path) == STANDARD_INPUT:
        copy = _standard_input(".csv" if wanted.names_columns else ".txt")
        given = Path("standard input")
        if not wanted.names_columns:
            return _documents_of_lines(copy, wanted, given)
        found = _documents_of_table(copy, wanted)
        return replace(found, place=replace(found.place, place=given))
    if not path.exists():
        if not glob.has_magic(str(path)):
            raise ConfigError(f"data.path: {not_found(path, 'file or folder')}")
        if path.suffix.lower() in LINES and not wanted.names_columns:
            raise ConfigError(f"data.path: {path}: only tables may come in parts; give the folder of the texts")
        return _documents_of_table(path, wanted)
    if path.is_dir() or (path.name.lower().endswith(ARCHIVES) and suffix_of(path.with_suffix("")) is None):
        return _documents_below(path, wanted)
    suffix = next((each for each in map(str.lower, reversed(path.suffixes)) if each in (*TABLES, *LINES)), None)
    if suffix in TABLES or (wanted.names_columns and suffix_of(path)):
        return _documents_of_table(path, wanted)
    if suffix in LINES or not path.suffixes:
        return _documents_of_lines(path, wanted)
    raise ConfigError(
        f"data.path: {path} is not a folder, and its name has neither the suffix of a table ({', '.join(TABLES)}) "
        f"nor that of a file with one text per line ({', '.join(LINES)})"
    )


def _documents_below(path: Path, wanted: Wanted) -> Documents:
    """Return the documents of a user's folder or archive: .txt files, or the part files of a table."""
    place, encoding = ArchiveOrFolder(path), wanted.reading.encoding
    encodings = wanted.encodings
    listing = place.listing()
    visible = [name for name in listing.names if not is_hidden(name)]
    texts = [name for name in listing.names if name.lower().endswith(".txt")]
    names = [name for name in texts if not is_hidden(name)]
    tables = [name for name in visible if Path(name).suffix.lower() not in LINES and suffix_of(Path(name))]
    if tables and path.is_dir() and (not names or wanted.names_columns):
        return _documents_of_table(path, wanted)
    others = sorted(set(visible) - set(names))
    notes = [f"not used, not a .txt file: {counted(others, 'file')}"] if others else []
    notes += [*hidden_notes([name for name in texts if is_hidden(name)], "text"), *skipped_notes(listing.skipped)]
    notes += place.damage_notes(wanted.keep_bad or wanted.reading.skip_bad)
    _check_settings(path, wanted)
    if not names:
        raise DataError(". ".join([f"{path} holds no texts (files that end in .txt)", *notes]))
    if not wanted.keep_bad:
        check_parts(names, listing.skipped, path)
    problems: dict[str, str] = {}
    if wanted.keep_bad or wanted.reading.skip_bad:
        problems = _problems(place, names, encodings)
    if problems and not wanted.keep_bad:
        names = [name for name in names if name not in problems]
        name, reason = next(iter(problems.items()))
        if not names:
            raise DataError(f"{path}: {name} {reason}; no other file is left")
        notes.append(f"{len(problems):,} of {len(problems) + len(names):,} files are left out: {name} {reason}")
    chosen = set(names)
    found = documents_in(place, chosen.__contains__, "folder of texts", encodings, problems if wanted.keep_bad else {})
    bad = tuple((row, problems[name]) for row, name in enumerate(found.names) if name in problems)
    digest = f"{found.digest} {encoding}" if encoding else found.digest
    return replace(found, digest=digest, notes=tuple(notes), problems=bad)


def _problems(place: ArchiveOrFolder, names: Sequence[str], encodings: Sequence[str | None]) -> dict[str, str]:
    """Return which files are not texts, with the reason."""
    found = {}
    for name, content in zip(names, place.contents(names), strict=True):
        try:
            _decoded(content, "", encodings)
        except DataError as error:
            found[name] = str(error).strip()
    return found


def documents_in(
    place: ArchiveOrFolder,
    wanted: Callable[[str], bool],
    key: str,
    encodings: Sequence[str | None] = (None,),
    empty: Mapping[str, str] | None = None,
) -> Documents:
    """Return the documents in the files of a folder or archive; their folders are their labels.

    Args:
        place: the folder or archive.
        wanted: tells by its path which file is a document.
        key: of what is remembered about them in the cache: one for each `wanted`.
        encodings: of the files, in the order in which they are tried; None: UTF-8.
        empty: files that are not read: their texts are empty.
    """
    names = sorted(name for name in place.names() if wanted(name))
    if not names:
        raise DataError(f"{place.path} holds no texts (files that end in .txt)")
    labels, parts, label_notes = labels_and_parts(names)

    def texts() -> Sequence[str]:
        return [
            "" if name in (empty or {}) else _decoded(content, f"{place.path}: {name}", encodings)
            for name, content in zip(names, place.contents(names), strict=True)
        ]

    return Documents(
        RowLocations(place.path),
        place.digest_where(wanted, key),
        names,
        pd.DataFrame(index=range(len(names))),
        texts,
        labels=labels,
        label_notes=tuple(label_notes),
        parts=parts,
    )


@functools.cache
def _standard_input(suffix: str) -> Path:
    """Return a copy of standard input, which can be read once, in the cache."""
    content = sys.stdin.buffer.read()
    copy = cache_dir() / "standard-input" / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    write_whole(copy, content)
    return copy


def _check_settings(path: Path, wanted: Wanted) -> None:
    """Check that no setting of tables is given for other texts.

    Raises:
        ConfigError: one is.
    """
    if wanted.column is not None:
        raise ConfigError(f"{wanted.setting}: {path} is not a table: each .txt file or line in it is a text")
    for name in ("schema", "date_format", "decimal", "thousands"):
        if getattr(wanted.reading, name) is not None:
            raise ConfigError(f"data.{name}: {path} is not a table")


def _documents_of_lines(path: Path, wanted: Wanted, file: Path | None = None) -> Documents:
    """Return the documents of a file with a text a line; `file` is its name in messages."""
    file = file or path
    _check_settings(file, wanted)
    try:
        with open_compressed(path) as stream:
            content = stream.read()
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{file} is damaged or cannot be read ({error})") from None
    lines, problems = _lines(content, file, wanted.encodings)
    if not problems and not any(line.strip() for line in lines):
        raise DataError(f"{file} is empty")
    numbers, notes = list(range(1, len(lines) + 1)), []
    digest = " ".join(filter(None, [sha256_of(path), wanted.reading.encoding]))
    if problems and not wanted.keep_bad:
        row, reason = problems[0]
        where = f"{file}, line {row + 1} {reason}"
        if not wanted.reading.skip_bad:
            raise DataError(f"{where}; {len(problems):,} such line(s) in all (data.skip_bad=true leaves them out)")
        notes.append(f"{len(problems):,} of {len(lines):,} lines are left out (data.skip_bad): {where}")
        bad, problems = {row for row, _ in problems}, []
        numbers = [number for number in numbers if number - 1 not in bad]
        lines, digest = [lines[number - 1] for number in numbers], f"{digest} {len(bad)}"
        if not any(line.strip() for line in lines):
            raise DataError(f"{where}; no other line is left")
    unread = {row + 1 for row, _ in problems}
    if empty := [n for n, line in zip(numbers, lines, strict=True) if not line.strip() and n not in unread]:
        notes.append(f"{len(empty):,} of {len(lines):,} lines are empty (line {empty[0]}): texts without words")
    place = RowLocations(file, (Part(path, 1, noun="line"),), np.array(numbers) - 1)
    names = place.all_short(len(lines))
    table = pd.DataFrame(index=range(len(lines)))
    return Documents(place, digest, names, table, lambda: lines, notes=tuple(notes), problems=tuple(problems))


def _lines(content: bytes, path: Path, encodings: Sequence[str | None]) -> tuple[list[str], list[tuple[int, str]]]:
    """Return the lines of a file, and which of them are not text; these are empty."""
    for encoding in encodings:
        name = check_encoding(encoding) if encoding else encoding_of(content[:4])
        with contextlib.suppress(UnicodeDecodeError):
            text = decoded(content, name)
            break
    else:
        if name not in ("utf-8", "utf-8-sig"):
            raise DataError(f"{path} is not text in {name}")
        text = decoded(content, name, errors="surrogateescape")
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if text.isascii() and "\0" not in text:
        return lines, []
    problems = [(row, reason) for row, line in enumerate(lines) if (reason := _problem_of(line))]
    for row, _ in problems:
        lines[row] = ""
    return lines, problems


def _problem_of(line: str) -> str | None:
    if "\0" in line:
        return "contains a NUL character"
    try:
        line.encode()
    except UnicodeEncodeError:
        return f"is not text in UTF-8: {IN_UTF_8}"
    return None


def _documents_of_table(path: Path | None, wanted: Wanted) -> Documents:
    """Return the documents of a table, which is read as the training texts were where it cannot be read otherwise."""
    first, *others = wanted.encodings
    try:
        return _texts_of_table(path, replace(wanted, reading=replace(wanted.reading, encoding=first)))
    except DataError:
        if not others:
            raise
        as_trained = replace(wanted.fallback, encoding=others[0])
        return _texts_of_table(path, replace(wanted, reading=as_trained, fallback=Reading()))


def _texts_of_table(path: Path | None, wanted: Wanted) -> Documents:
    reading = wanted.reading
    ids = [name for name in (wanted.column, wanted.default, *wanted.target) if name is not None]
    file = TableFile(None if path is None else str(path), wanted.query, reading, ids=ids)
    notes: tuple[str, ...] = ()
    with file.open() as raw:
        if len(raw.names) == 1 and wanted.fallback.separator:
            as_trained = replace(reading, separator=wanted.fallback.separator)
            return _texts_of_table(path, replace(wanted, reading=as_trained, fallback=Reading()))
        column = wanted.column
        if column is None and wanted.default in raw.names:
            column = wanted.default
        elif column is None:
            column = _text_column(raw, wanted)
            notes = (f"texts are read from the column {column}",)
        elif column not in raw.names:
            raise ConfigError(
                f"{wanted.setting}: {raw.place} has no column {column!r}; {did_you_mean(column, raw.names)}"
            )
        # Names of classes keep their look; several targets are 0 and 1, or true and false.
        classes = wanted.target if len(wanted.target) == 1 else ()
        table = read_open_table(raw, reading, text=[column, *classes], totals=False)
    table = table.checked(wanted.target, reading.skip_bad)
    labels = {name: table.frame[name].str.strip() for name in classes if name in table.frame}
    table = replace(table, frame=table.frame.assign(**labels))
    problems: list[tuple[int, str]] = []
    if wanted.keep_bad:
        missing = np.flatnonzero(table.frame[column].isna())
        problems = [(int(row), f"{table.rows.short(int(row))}: {MISSING}") for row in missing]
    else:
        targets = [name for name in wanted.target if name in table.frame] if wanted.needs_target else []
        needed = {column: "text", **{name: f"target {name}" for name in targets}}
        table = without_missing(table, needed, reading.skip_bad)
    texts = table.frame[column].fillna("").tolist()
    names = table.rows.all_short(len(texts))
    digest = " ".join(filter(None, [file.identity().sha256, column, "verbatim", reading.separator, reading.encoding]))
    if reading.skip_bad:
        digest += f" {hashlib.sha256(table.positions.tobytes()).hexdigest()}"
    others = table.frame.drop(columns=[column])
    return Documents(
        table.rows, digest, names, others, lambda: texts, column, notes=(*table.notes, *notes), problems=tuple(problems)
    )


def _text_column(raw: RawTable, wanted: Wanted) -> str:
    given = wanted.reading.schema
    schema = infer(raw, Hints()) if given is None else load_schema(user_path(given))
    texts = [each.name for each in schema.columns if each.type == "text" and each.name not in wanted.target]
    if len(texts) == 1:
        return texts[0]
    if "text" in texts:
        return "text"
    raise ConfigError(
        f"{wanted.setting}: is missing: which column of {raw.place} holds the texts? It has {', '.join(raw.names)}"
    )


def _decoded(content: bytes, place: str, encodings: Sequence[str | None]) -> str:
    if isinstance(content, Unreadable):
        raise DataError(f"{place} {content.reason}")
    for encoding in dict.fromkeys(encodings):
        name = check_encoding(encoding) if encoding else encoding_of(content[:4])
        try:
            text = decoded(content, name)
            break
        except UnicodeDecodeError as error:
            problem = f"is not text in {encoding or 'UTF-8'} (byte {error.start}){'' if encoding else f': {IN_UTF_8}'}"
    else:
        raise DataError(f"{place} {problem}")
    if "\0" in text:
        raise DataError(f"{place} contains a NUL character (at {text.index(chr(0))}); is it text?")
    return text
