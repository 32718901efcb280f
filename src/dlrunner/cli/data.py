"""`dlrun data`: how a user's table is read, and the published data sets."""

from __future__ import annotations

import argparse
import os

from dlrunner.cli.conf_paths import file_to_write
from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.reporting.terminal.columns import column_lines
from dlrunner.system.terminal import wrapped


def data(arguments: argparse.Namespace) -> int:
    """Describe a table, list the published data sets, download one whose publisher permits it, or generate one."""
    if arguments.action == "describe":
        return _describe(arguments)
    for option in ("save", "query", "date_format", "decimal", "thousands", "separator", "encoding"):
        if getattr(arguments, option) is not None:
            raise ConfigError(f"--{option.replace('_', '-')}: is an option of `dlrun data describe FILE`")
    from dlrunner.data.core import source as files
    from dlrunner.data.core.published import published

    data_dir = user_path(os.environ.get("DLRUNNER_DATA", "data"))
    known = published(arguments.plugins)
    if arguments.action == "get":
        if arguments.name not in known:
            near = did_you_mean(arguments.name or "", known)
            raise ConfigError(f"there is no data set {arguments.name!r}; {near}")
        release = known[arguments.name]
        if release.generator:
            from dlrunner.data.core.synthetic import generate

            location = generate(release, data_dir)
        else:
            location = files.download(release, data_dir)
        print(f"{arguments.name}: {location.path}")
        return 0
    origin = "DLRUNNER_DATA" if "DLRUNNER_DATA" in os.environ else "the default; set by DLRUNNER_DATA"
    print(f"data folder: {data_dir} ({origin})\n")
    for release in known.values():
        found = files.find(data_dir, [release])
        where = str(found[1].path) if found else "not found"
        if not found:
            where += (
                f"; dlrun data get {release.name}"
                if release.url or release.generator
                else f"; put {release.archives[0]}{release.suffix} there"
            )
        sha256 = found[1].sha256(release.layouts[0]) if found else release.sha256_of_layout or "-"
        facts = {
            release.name: release.title,
            "  where": where,
            "  sha256": f"{sha256} ({release.layouts[0]})",
            "  home": release.home,
            "  terms": release.terms,
        }
        width = max(map(len, facts))
        for name, value in facts.items():
            print(wrapped(f"{name:<{width}}  {value}", width + 2))
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    """Print how each column of a table is read, and save that as a schema."""
    from dlrunner.data.tables.description import describe_columns
    from dlrunner.data.tables.table import Reading, dump_schema, read_table
    from dlrunner.files.atomic import readable_os_errors, write_atomic

    if (arguments.name is None) == (arguments.query is None):
        problem = "is missing" if arguments.name is None else "and --query exclude each other"
        raise ConfigError(f"FILE: {problem}: dlrun data describe sales.csv")
    out = file_to_write(arguments.save) if arguments.save else None
    reading = Reading(
        None, arguments.date_format, arguments.decimal, arguments.thousands, arguments.separator, arguments.encoding
    )
    table = read_table(arguments.name, reading, query=arguments.query)
    print(f"{table.place}: {len(table.frame):,} rows, {len(table.schema.columns):,} columns")
    uses = dict.fromkeys(table.schema.names, "")
    for line in column_lines(describe_columns(table.schema, uses), most=2000):
        print(line)
    for note in table.notes:
        print(f"note: {note}")
    if out is not None:
        with readable_os_errors(out):
            write_atomic(out, dump_schema(table.schema).encode())
        print(f"schema: {out} (edit it, then train with data.schema={out})")
    return 0


def data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dlrun data`."""
    parser.add_argument(
        "action", nargs="?", choices=["describe", "get"], help="describe a table, or download or generate a release"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the table's file, or the release")
    parser.add_argument("--query", metavar="SQL", help="a SELECT over files, instead of a file")
    parser.add_argument("--save", metavar="YAML", help="write how the table is read, for data.schema")
    parser.add_argument("--date-format", metavar="FORMAT", help="of its dates, such as %%d/%%m/%%Y")
    parser.add_argument("--decimal", choices=[".", ","], metavar="SIGN", help="point or comma of its numbers")
    parser.add_argument("--thousands", choices=[".", ",", " ", "'"], metavar="SIGN", help="separator of thousands")
    parser.add_argument("--separator", metavar="SIGN", help="of its columns")
    parser.add_argument("--encoding", metavar="NAME", help="of its text, such as cp1252")
    parser.add_argument(
        "--plugins", nargs="*", default=[], metavar="MODULE", help="your own modules that define RELEASES"
    )
