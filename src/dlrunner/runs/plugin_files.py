"""The source files of a user's plugins, and whether they are still those that this process has imported."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlrunner.errors import ConfigError

INSTALLED = ("site-packages", "dist-packages")
"""Folders of libraries: what an installed plugin imports there has versions."""

IMPORT = re.compile(rb"^[ \t]*(?:import[ \t]+([^#;\n]+)|from[ \t]+(\w[\w.]*)[ \t]+import\b)", re.MULTILINE)

_imported_as: dict[Path, tuple[importlib.machinery.ModuleSpec, bytes]] = {}
"""Of each file that was imported: the spec of its module, which a reload replaces, and the content."""


def search_working_directory() -> None:
    """Let plugins be found in the working directory too."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def checked_files(plugins: Sequence[str]) -> list[tuple[Path, Path, bytes]]:
    """Return the files of plugins: for each the folder that it counts from, its path, and its content.

    The content of those that this process has imported is remembered at the first call, right after the import.

    Raises:
        ConfigError: one of them was edited since, so that its content is not what runs in this process.
    """
    if not plugins:
        return []
    search_working_directory()
    found = list(_with_imports(plugins))
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    loaded = {spec.origin: spec for spec in specs if spec is not None}
    for _, file, content in found:
        spec = loaded.get(str(file))
        if spec is None:
            continue
        known, before = _imported_as.get(file, (None, b""))
        if known is not spec:
            _imported_as[file] = spec, content
        elif before != content:
            raise ConfigError(
                f"plugins: {file.name} was edited after it had been imported; start again (a notebook: restart Python)"
            )
    return found


def _with_imports(plugins: Sequence[str]) -> Iterator[tuple[Path, Path, bytes]]:
    """Yield the modules of plugins and those next to them that they import, with their packages as a whole.

    Each is the folder that it counts from, its file, and the content.
    """
    named = [str(plugin).partition(".")[0] for plugin in plugins]
    missing, next_to, found = list(named), set[Path](), set[str]()
    while missing:
        name = missing.pop(0)
        if name in found or not (name in named or any(_is_in(home, name) for home in next_to)):
            continue
        found.add(name)
        spec = _spec(name)
        folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
        origin = Path(spec.origin) if spec and spec.origin and not folders else None
        files = [(folder, file) for folder in folders for file in sorted(folder.rglob("*.py"))]
        files += [(origin.parent, origin)] if origin and origin.suffix == ".py" and origin.exists() else []
        homes = {folder.parent for folder in folders} | ({origin.parent} if origin else set())
        if name in named:
            next_to |= {home for home in homes if home.name not in INSTALLED}
        elif not homes & next_to:
            continue  # of a library, or of Python
        for folder, file in files:
            content = file.read_bytes()
            yield folder, file, content
            missing += [each for each in _imported(content) if each not in found]


def _is_in(folder: Path, module: str) -> bool:
    return (folder / f"{module}.py").exists() or (folder / module).is_dir()


def _imported(source: bytes) -> list[str]:
    r"""Return the top names of the modules that a module imports; other lines that look like an import count too.

    Parsing would take a second for a plugin that is part of a large package.

    >>> _imported(b"import os.path, torch as t\nif True:\n    from helper import scale\nfrom . import own\n")
    ['os', 'torch', 'helper']
    """
    names = []
    for modules, module in IMPORT.findall(source):
        names += [module] if module else [each.split()[0] for each in modules.split(b",") if each.strip()]
    return list(dict.fromkeys(name.partition(b".")[0].decode(errors="replace") for name in names))


def _spec(plugin: Any) -> importlib.machinery.ModuleSpec | None:
    """Find a module; a name that is not one is refused later, at import."""
    try:
        return importlib.util.find_spec(plugin)
    except (ImportError, ValueError, TypeError, AttributeError):
        return None
