"""Opening Parquet files, whose parts may have columns of different types."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from dlrunner.data.core.row_locations import Part
from dlrunner.data.tables.dialect import unique_names
from dlrunner.data.tables.partitions import check_names, values_of
from dlrunner.data.tables.raw import RawTable, from_arrow, local_times
from dlrunner.errors import DataError


def open_parquet(
    stack: contextlib.ExitStack,
    files: Sequence[Path],
    place: Path,
    skip_bad: bool = False,
    keys: Sequence[str] = (),
) -> RawTable:
    """Open Parquet files with the same columns; an index that pandas wrote is a column.

    Args:
        stack: closes what is opened.
        files: one, or several.
        place: for messages.
        skip_bad: leave out files whose content is damaged, with a note.
        keys: columns in the names of folders.

    Raises:
        DataError: a file is damaged, the columns of two differ, or a key is one of them.
    """
    import pyarrow.dataset
    import pyarrow.parquet

    left_out: list[str] = []
    read = list(files)
    try:
        dataset = pyarrow.dataset.dataset([str(file) for file in files], format="parquet")
        schema = dataset.schema
        for file in files[1:]:
            if sorted(pyarrow.parquet.read_schema(file).names) != sorted(schema.names):
                raise DataError(f"{file} has other columns than {files[0]}")
        try:
            table = None if differ_in_types(files) else dataset.to_table()
        except (pa.ArrowException, OSError):
            table = None
        if table is None:
            tables, left_out = _sound_parquet(files, skip_bad)
            read = list(tables)
            table = _joined([each.select(schema.names) for each in tables.values()], place)
    except pa.ArrowException as error:
        raise DataError(f"{place} is damaged or cannot be read: {str(error).splitlines()[0][:200]}") from None
    names = ["index" if name.startswith("__index_level_") else name for name in schema.names]
    check_names(keys, names, place)
    names, notes = unique_names([*names, *keys])
    rows = [pyarrow.parquet.read_metadata(each).num_rows for each in read]
    for key, values in zip(keys, zip(*(values_of(each, keys) for each in read), strict=True), strict=True):
        repeated = [pa.repeat(pa.scalar(value, pa.string()), count) for value, count in zip(values, rows, strict=True)]
        table = table.append_column(key, pa.chunked_array(repeated))
    raw = from_arrow(stack, table.rename_columns([f"c{i}" for i in range(len(names))]), names, place, first_row=1)
    raw.notes += [*notes, *left_out]
    if len(read) > 1:
        raw.parts = lambda: [Part(each, 1, count) for each, count in zip(read, rows, strict=True)]
    return raw


def _sound_parquet(files: Sequence[Path], skip_bad: bool) -> tuple[dict[Path, pa.Table], list[str]]:
    """Return the content of the files that can be read, and a note on the others."""
    import pyarrow.parquet

    tables, problems = {}, []
    for file in files:
        try:
            tables[file] = pyarrow.parquet.read_table(file)
        except (pa.ArrowException, OSError) as error:
            problems.append(f"{file} is damaged or cannot be read: {str(error).splitlines()[0][:200]}")
    if problems and not skip_bad:
        raise DataError(problems[0])
    if not tables:
        raise DataError(f"{problems[0]}; no other file is left")
    if not problems:
        return tables, []
    return tables, [f"{len(problems):,} of {len(files):,} files are left out (data.skip_bad): {problems[0]}"]


def differ_in_types(files: Sequence[Path]) -> bool:
    """Tell whether a column has not the same type in all of some Parquet files.

    Read together, all would be cast to the types of the first: 007 to 7, and a time to that of a zone.
    """
    import pyarrow.parquet

    try:
        schemas = [pyarrow.parquet.read_schema(file) for file in files]
    except (pa.ArrowException, OSError):
        return False  # the reason is given when they are read
    types = [dict(zip(each.names, each.types, strict=True)) for each in schemas]
    return any(each != types[0] for each in types[1:])


def _joined(tables: Sequence[pa.Table], place: Path) -> pa.Table:
    """Return part files as one table, in which each column has a type that holds the values of all parts as they are.

    Raises:
        DataError: there is none.
    """
    names = tables[0].column_names
    mixed = {name for name in names if len({table.schema.field(name).type for table in tables}) > 1}
    tables = [
        pa.table([_plain(table.column(name)) if name in mixed else table.column(name) for name in names], names=names)
        for table in tables
    ]
    try:
        return pa.concat_tables(_of_one_type(tables), promote_options="permissive")
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0][:200]
        raise DataError(
            f"{place}: its parts have types that do not go together, write them with one: {reason}"
        ) from None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a column as a type that goes together with others."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_float32(kind):  # 0.1 in 32 bits is 0.1, as it would be written
        return column.cast(pa.string()).cast(pa.float64())
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("ms"))
    return local_times(column)


def _of_one_type(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return part files where a column that is text in one of them is text in all: whole numbers keep their digits."""
    fields = [field for table in tables for field in table.schema]
    texts = {field.name for field in fields if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)}
    types = {name: {field.type for field in fields if field.name == name} for name in texts}
    mixed = [name for name, found in types.items() if len(found) > 1 and all(_is_simple(each) for each in found)]
    for name in mixed:
        number = tables[0].column_names.index(name)
        tables = [table.set_column(number, name, table.column(name).cast(pa.string())) for table in tables]
    return list(tables)


def _is_simple(kind: pa.DataType) -> bool:
    """Tell whether values of a type are as strings what a text file would hold."""
    types = pa.types
    checks = (types.is_integer, types.is_string, types.is_large_string, types.is_null)
    return any(check(kind) for check in checks)


def check_parquet(file: Path) -> Path:
    """Return a Parquet file whose schema can be read.

    Raises:
        DataError: it cannot.
    """
    import pyarrow.parquet

    try:
        pyarrow.parquet.read_schema(file)
    except pa.ArrowException as error:
        raise DataError(f"{file} is damaged or cannot be read: {str(error).splitlines()[0][:200]}") from None
    return file


def has_zones(file: Path) -> bool:
    """Tell whether a Parquet file has times of a zone other than UTC."""
    import pyarrow.parquet

    try:
        fields = pyarrow.parquet.read_schema(file)
    except (pa.ArrowException, OSError):
        return False  # the reason is given when it is read
    return any(pa.types.is_timestamp(field.type) and field.type.tz not in (None, "UTC") for field in fields)
