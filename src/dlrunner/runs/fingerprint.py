"""A digest of the code that can change results: when it changes, finished runs are stale.

Plots, reports, help texts and docstrings are left out: a new colour is not a reason to train again.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlrunner.data.core.cache import cache_dir, write_sealed
from dlrunner.data.core.checked import read_sealed
from dlrunner.runs.plugin_files import checked_files

PACKAGE = Path(__file__).parents[1]

INCLUDED = (
    "classification_metrics",
    "config",
    "data",
    "encoder_file",
    "execution/follow",
    "execution/initial_weights",
    "execution/member",
    "execution/run",
    "execution/stages",
    "metrics",
    "model",
    "models",
    "regression_metrics",
    "row_blocks",
    "schedules",
    "system",
    "task",
    "tasks",
    "training",
)
"""Modules, or folders of modules, that can change what a run trains or measures."""

EXCLUDED = (
    "config/conf_files.py",
    "config/schema.py",  # the settings it accepts are in the signature
    "config/source_signatures.py",
    "config/suggestions.py",
    "system/machine.py",
    "system/signals.py",
    "system/terminal.py",
    "tasks/*/*predictor.py",
    "tasks/*/inputs.py",
    "tasks/image/grad_cam.py",
    "tasks/language/generation.py",
    "tasks/tabular/analysis.py",
    "tasks/tabular/partial_dependence.py",
    "training/lr_finder.py",
)
"""Patterns of the modules in these folders that only validate, display or predict."""


def code_digest(plugins: Sequence[str] = (), also: Sequence[str] = (), package: Path = PACKAGE) -> str:
    """Return the sha256 of the source that can change results, including all of the user's plugin modules.

    Args:
        plugins: names of modules, which count with their packages and the modules next to them that they import.
        also: additional modules or folders of the package.
        package: the folder of the package.

    Raises:
        ConfigError: a plugin's file was edited after this process had imported it.
    """
    digest = hashlib.sha256()
    for name in sorted({*INCLUDED, *also}):
        digest.update(_digest(package, name))
    for folder, file, content in checked_files(plugins):
        _add(digest, file.relative_to(folder), content)
    return digest.hexdigest()


@functools.cache  # the code this process has loaded, even if the files are edited while it runs
def _digest(package: Path, name: str) -> bytes:
    """Return the digest of a module or a folder; parsing all of them takes 0.3 s, so it is cached by their content."""
    module = package / f"{name}.py"
    found = (file.relative_to(package) for file in sorted((package / name).rglob("*.py")))
    files = (
        [module.relative_to(package)]
        if module.is_file()
        else [file for file in found if not any(map(file.match, EXCLUDED))]
    )
    contents = {file: (package / file).read_bytes() for file in files}
    key = hashlib.sha256(f"{sys.version}\0".encode() + Path(__file__).read_bytes())
    for file, content in contents.items():
        _add(key, file, content)
    memory = cache_dir() / "code" / f"{key.hexdigest()[:32]}.sha256"
    known = read_sealed(memory)
    if known is not None:
        return known
    digest = hashlib.sha256()
    for file, content in contents.items():
        _add(digest, file, without_docstrings(content))
    with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
        write_sealed(memory, digest.digest())
    return digest.digest()


def _add(digest: hashlib._Hash, name: Path, content: bytes) -> None:
    digest.update(name.as_posix().encode() + b"\0" + content + b"\0")


def without_docstrings(source: bytes) -> bytes:
    r"""Return a module's source without docstrings.

    >>> without_docstrings(b'def double(x):\n    "Return 2x."\n    return 2 * x  # exact\n')
    b'def double(x):\n    return 2 * x  # exact\n'
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # being edited, or not Python: include all of it
        return source
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    kept, end = [], 0
    for first, last in _spans(tree.body):
        assert last.end_lineno is not None
        assert last.end_col_offset is not None
        kept.append(source[end : starts[first.lineno - 1] + first.col_offset].rstrip(b" \t"))
        end = starts[last.end_lineno - 1] + last.end_col_offset
        if not kept[-1] or kept[-1].endswith(b"\n"):  # remove its lines and the empty ones below
            following = _EMPTY_LINES.match(source, end)
            end = following.end() if following else end
    return b"".join([*kept, source[end:]])


_EMPTY_LINES = re.compile(rb"(?:[ \t]*\r?\n)+")


def _spans(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    """Yield the first and the last statement of each part to leave out, in source order."""
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node, node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _spans(node.body)
