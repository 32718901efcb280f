"""Run folders that are damaged, or come from somebody who means harm, and every verb that reads them.

Each verb ends with a sentence, or does its work where the damage does not matter; nothing in a folder is executed, no
link leads out of it, nothing is written beside it.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.hostile.harness import ArchiveOrFolder, Done, Failure, check, shared_value
from tests.hostile.samples import FILES, TRAINED, WITHOUT_PAGES, write_samples

COUNT = 200
LONGEST = 30.0
MEMORY = 16 * 2**30
"""Bytes of addresses that a command may use: a bomb that is believed ends there."""

PASSWORDS = Path("/etc/passwd")
TOUCH = "touch ../neighbour/executed"

ANSWERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "ratings": (("predict", "{run}", "--user", "1"),),
    "ensemble": (("predict", "{run}", "--user", "1"),),
    "export": (("predict", "{run}", "--user", "1"),),
    "table": (("predict", "{run}", "table.csv"),),
    "sales": (("predict", "{run}", "sales/test.csv"),),
    "language": (("generate", "{run}", "w1 w2", "--words", "5"), ("predict", "{run}", "w1 w2 w3")),
    "texts": (("predict", "{run}", "w1 w2 w3"),),
    "pictures": (("explain", "{run}", "pictures/a/0.png"), ("predict", "{run}", "pictures/a/0.png")),
    "sweep": (),
}
"""What each kind of run can be asked."""


def attempt(number: int, rng: random.Random, place: ArchiveOrFolder, shared: Path) -> Iterator[Failure]:
    """Damage a folder in one or two ways, and ask it all that can be asked."""
    kind = list(ANSWERS)[number % len(ANSWERS)]
    name: str = shared_value(shared, kind, lambda folder: _trained(folder, kind))
    place.fill(shared / kind / "place" / "work")
    run, whole = place.work / name, place.work / "whole"
    shutil.copytree(run, whole, symlinks=True)
    (place.work / "evil.py").write_text(f"import os\nos.system({TOUCH!r})\n")
    place.canary.write_text("the neighbour's secret 7391")
    place.remember()
    where = kind
    for _ in range(rng.choice((1, 1, 2))):
        where += f"; {_damage(rng, run)}"
    before = _seen(place.work, run)
    report = ("report", name)
    asked = [*(("show", name), ("compare", name, "whole"), report), *rng.sample(_verbs(kind, name), 2)]
    for words in asked if kind != "sweep" else asked[1:]:
        done = place.run(*words, longest=LONGEST, before=_limit_memory)
        yield from check(done, (0, 1, 2), where)
        yield from _disclosed(done, run, f"{where}: `dlrun {' '.join(words)}`")
        if done.status == 124:  # the other verbs would take as long
            break
    if changed := sorted(path for path, _ in _seen(place.work, run) ^ before if not path.endswith("-explained.png")):
        yield Failure("outside", f"{where}: {', '.join(changed)[:300]}")
    if (place.neighbour / "executed").exists():
        yield Failure("outside", f"{where}: a command from the folder was executed")
    for failure in place.left(place.work):
        yield Failure(failure.fault, f"{where}: {failure.text}")


def _verbs(kind: str, name: str) -> list[tuple[str, ...]]:
    if kind == "sweep":
        return [("compare", name), ("compare", name, "--csv", "-")]
    answers = [tuple(word.format(run=name) for word in words) for words in ANSWERS[kind]]
    return [*answers, *answers, ("diff", name, "whole"), ("diff", "whole", name), ("export", name), ("replay", name)]


def _trained(folder: Path, kind: str) -> str:
    """Train a run of one kind, and return its folder's name."""
    place = ArchiveOrFolder(folder / "place")
    place.work.mkdir()
    write_samples(place.work)
    data = {"ensemble": "ratings", "export": "ratings", "sweep": "ratings"}.get(kind, kind)
    for path in place.work.iterdir():
        if path.name not in FILES[data]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    more = {"ensemble": ("ensemble=2",), "sweep": ("optim.lr=0.01,0.02",)}.get(kind, ())
    words = [*TRAINED[data], "epochs=1", *more, *(() if kind == "ratings" else WITHOUT_PAGES)]
    commands = [
        ["-m", *words] if kind == "sweep" else words,
        *([["export", "runs/latest"]] if kind == "export" else []),
    ]
    for command in commands:
        done = place.run(*command)
        assert done.status == 0, done.describe()
    if kind == "sweep":
        (found,) = (path for path in (place.work / "runs" / "sweeps").iterdir() if path.is_dir())
    else:
        found = (place.work / "runs" / "latest").resolve()
    return str((found / "export" if kind == "export" else found).relative_to(place.work))


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _seen(work: Path, run: Path) -> set[tuple[str, tuple[int, int] | None]]:
    """Return what lies beside a run folder, with sizes and times of change."""
    found: set[tuple[str, tuple[int, int] | None]] = set()
    for place, folders, files in os.walk(work):
        folders[:] = [name for name in folders if Path(place, name) != run and name != "__pycache__"]
        for name in files:
            status = Path(place, name).lstat()
            if name != ".lock":
                found.add((str(Path(place, name).relative_to(work)), (status.st_size, status.st_mtime_ns)))
        found |= {(str(Path(place, name).relative_to(work)), None) for name in folders}
    return found


def _disclosed(done: Done, run: Path, where: str) -> Iterator[Failure]:
    """Tell whether what lies outside the folder was shown."""
    pages = [
        path for path in run.rglob("*") if path.suffix in (".html", ".md") and path.is_file() and not path.is_symlink()
    ]
    shown = "\n".join([done.out, done.err, *(page.read_text(errors="replace") for page in pages)])
    secrets = ("the neighbour's secret 7391", PASSWORDS.read_text()[:30])
    for secret in secrets:
        if secret in shown or base64.b64encode(secret.encode()).decode().rstrip("=")[:-1] in shown:
            yield Failure("outside", f"{where}: shows what a link leads to")


Damage = Callable[[random.Random, Path], str]
"""Changes a file, or adds to a folder, and returns what it did."""


def _damage(rng: random.Random, run: Path) -> str:
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink() and path.name != ".lock")
    if rng.random() < 0.12 or not files:
        return rng.choice(FOREIGN)(rng, run)
    # Small text files matter most: they are read first, and by every verb.
    path = rng.choice([file for file in files if rng.random() < (1.0 if file.suffix in PARSED else 0.4)] or files)
    damage = rng.choice([*ANY_FILE, *PARSED.get(path.suffix, []) * 3])
    return f"{path.relative_to(run)}: {damage(rng, path)}"


def _truncate(rng: random.Random, path: Path) -> str:
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    path.write_bytes(content[:at])
    return f"truncated to {at} bytes"


def _empty(rng: random.Random, path: Path) -> str:
    path.write_bytes(b"")
    return "emptied"


def _noise(rng: random.Random, path: Path) -> str:
    path.write_bytes(rng.randbytes(rng.choice((1, 100, 5000))))
    return "random bytes"


def _flip(rng: random.Random, path: Path) -> str:
    content = bytearray(path.read_bytes() or b"x")
    for _ in range(rng.choice((1, 20))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    return "flipped bits"


def _remove(rng: random.Random, path: Path) -> str:
    path.unlink()
    return "removed"


def _folder(rng: random.Random, path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def _link(rng: random.Random, path: Path) -> str:
    up = "../" * 12
    target = rng.choice(
        (str(PASSWORDS), up + "etc/passwd", path.name, "nosuch", str(_root(path) / "neighbour" / "canary"))
    )
    path.unlink()
    path.symlink_to(target)
    return f"a link to {target}"


def _pipe(rng: random.Random, path: Path) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a named pipe"


def _zeros(rng: random.Random, path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(300 * 2**20)
    return "300 MiB of zeros"


def _encoded(rng: random.Random, path: Path) -> str:
    encoding = rng.choice(("utf-16", "utf-8-sig", "latin-1"))
    path.write_bytes((path.read_text(errors="replace") + "\n# ü").encode(encoding, errors="replace"))
    return f"encoded as {encoding}"


STRANGE: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        10**30,
        10**400,
        1e308,
        float("nan"),
        float("inf"),
        -0.0,
        "",
        "abc",
        "1",
        [],
        {},
        [[[]]],
        {"a": 1},
    ),
    *(
        [1, 2, 3],
        ["x"],
        [None],
        {"_target_": "os.system"},
        "../../../x",
        "../neighbour/x",
        "/etc/passwd",
        "os.system",
        "~x/y",
    ),
    *(
        "\x1b[31mred",
        "\x1b]0;t\x07",
        "<script>alert(1)</script>",
        "=1+1",
        "\u202e",
        "ü" * 2000,
        "${oc.env:HOME}",
        "a\nb",
        "\udcff",
    ),
    *(
        "evil",
        ["evil"],
        "evil.X",
        {"x": {"_target_": "evil.X"}},
        "real",
        "2024-13-45",
        2**63,
        [1e400],
        {"": ""},
        {"a.b": {"": 0}},
    ),
)


def _changed_value(rng: random.Random, path: Path) -> str:
    """Put something else in the place of one value in a JSON or YAML file."""
    text = path.read_text(errors="replace")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    number = rng.randrange(len(lines)) if lines else 0
    try:
        content: Any = yaml.safe_load(lines[number]) if path.suffix == ".yaml" else json.loads(lines[number])
    except (ValueError, IndexError, yaml.YAMLError):
        return _empty(rng, path)
    places = list(_places(content))
    value = rng.choice(STRANGE)
    if not places or rng.random() < 0.1:
        content, said = value, "all"
    else:
        within, key = rng.choice(places)
        if rng.random() < 0.15:
            del within[key]
            said, value = str(key), "nothing"
        else:
            within[key], said = value, str(key)
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(content, allow_unicode=False))
    else:
        lines[number] = json.dumps(content)
        path.write_text("\n".join(lines) + "\n")
    return f"{said} is {value!r:.60}"


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every value of a nested structure, as its container and its key."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(pairs):
        yield content, key
        yield from _places(value)


def _deep(rng: random.Random, path: Path) -> str:
    depth, (left, right) = rng.choice((100, 2_000, 100_000)), rng.choice((("[", "]"), ('{"a":', "}")))
    inner = left * depth + ("1" if ":" in left else "") + right * depth
    path.write_text(rng.choice((inner, f'{{"status": "done", "epoch": 1, "final": {inner}}}')))
    return f"nested {depth:,} deep"


def _tag(rng: random.Random, path: Path) -> str:
    tag = rng.choice(
        (
            f'!!python/object/apply:os.system ["{TOUCH}"]',
            "!!python/name:os.system",
            "!!python/module:evil",
            "!nosuch 1",
            "!!binary x",
            "!!int x",
            "!!set {a, b}",
        )
    )
    text = path.read_text(errors="replace")
    path.write_text(rng.choice((f"x: {tag}\n{text}", tag, f"{text}\nmodel: {tag}\n")))
    return f"the tag {tag.split()[0]}"


def _aliases(rng: random.Random, path: Path) -> str:
    levels = rng.choice((6, 9, 30))
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    where = rng.choice(("\n".join(lines), "a: &a [*a]", "a: &a {b: *a}"))
    path.write_text(f"{path.read_text(errors='replace')}\n{where}\n")
    return f"aliases of aliases, {levels} levels"


def _twice(rng: random.Random, path: Path) -> str:
    text = path.read_text(errors="replace")
    path.write_text(text + text)
    return "its content twice"


class _Executes:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (TOUCH,)


def _pickled(rng: random.Random, path: Path) -> str:
    path.write_bytes(pickle.dumps({"model": _Executes(), "identity": {}}))
    return "a pickle that executes"


def _pickled_inside(rng: random.Random, path: Path) -> str:
    _rezip(path, lambda name, content: pickle.dumps(_Executes(), protocol=2) if name.endswith("data.pkl") else content)
    return "a checkpoint whose pickle executes"


def _bomb(rng: random.Random, path: Path) -> str:
    _rezip(path, lambda name, content: bytes(200 * 2**20) if "/data/" in name else content, most=2)
    return "a checkpoint that unpacks to 400 MiB"


def _rezip(path: Path, change: Callable[[str, bytes], bytes], most: int = 1_000_000) -> None:
    """Write the files of a zip archive again, some of them changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):
        contents = {"x/data.pkl": b"", "x/data/0": b""}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            made = change(name, content) if most else content
            most -= made is not content
            archive.writestr(name, made)


def _tensors(rng: random.Random, path: Path) -> str:
    """Change one entry of a checkpoint."""
    try:
        state: Any = torch.load(path, weights_only=True)
    except Exception:
        return _noise(rng, path)
    places = list(_places(state))
    if not places:
        return _empty(rng, path)
    within, key = rng.choice(places)
    values: list[Any] = [
        None,
        "x",
        1,
        -1,
        10**20,
        float("nan"),
        [],
        {},
        torch.zeros(0),
        torch.zeros(3, 3),
        torch.ones(2, dtype=torch.int64),
    ]
    old = within[key]
    if isinstance(old, torch.Tensor) and old.is_floating_point():
        values += [torch.full_like(old, float("nan")), old.double(), old.half(), old[..., None], old.to_sparse()] * 2
    value = rng.choice(values)
    within[key] = value
    torch.save(state, path)
    return f"{key} is {value if not isinstance(value, torch.Tensor) else f'{value.dtype} {tuple(value.shape)}'}"[:100]


def _safetensors(rng: random.Random, path: Path) -> str:
    content = path.read_bytes()
    header = rng.choice(
        (
            struct.pack("<Q", 2**60),
            struct.pack("<Q", 2**63),
            struct.pack("<Q", 10) + b'{"a":[[[[[',
            struct.pack("<Q", 3) + b"\xff\xfe\xfd",
            struct.pack("<Q", 2) + b"[]",
            struct.pack("<Q", 2) + b"{}",
        )
    )
    path.write_bytes(header + content[len(header) :])
    return f"the header {header[:20]!r}"


def _array(rng: random.Random, path: Path) -> str:
    with io.BytesIO() as file:
        file.write(b"\x89PNG\r\n\x1a\n" + rng.randbytes(100))
        path.write_bytes(file.getvalue())
    return "the start of a PNG"


ANY_FILE: list[Damage] = [_truncate, _empty, _noise, _flip, _remove, _folder, _link, _zeros, _pipe]
PARSED: dict[str, list[Damage]] = {
    ".json": [_changed_value, _changed_value, _changed_value, _deep, _encoded, _twice],
    ".jsonl": [_changed_value, _changed_value, _changed_value, _deep, _encoded, _twice],
    ".yaml": [_changed_value, _changed_value, _changed_value, _deep, _tag, _aliases, _encoded],
    ".pt": [_pickled, _pickled_inside, _bomb, _tensors, _tensors],
    ".safetensors": [_safetensors],
    ".csv": [_encoded, _twice],
    ".png": [_array],
}


def _foreign_members(rng: random.Random, run: Path) -> str:
    (run / "members").mkdir(exist_ok=True)
    name = rng.choice((".DS_Store", "x", "-1", "99999999999999999999", "0 (copy)", "..."))
    if rng.random() < 0.5:
        (run / "members" / name).write_text("x")
    else:
        (run / "members" / name).mkdir(exist_ok=True)
    return f"members/{name} is added"


def _foreign_plot(rng: random.Random, run: Path) -> str:
    (run / "plots").mkdir(exist_ok=True)
    name = rng.choice(("passwd", "a.png", "z.svg", "<b>.png", "\x1b[31m.png", "t.html"))
    path = run / "plots" / name
    if rng.random() < 0.5:
        path.symlink_to(rng.choice((str(PASSWORDS), str(_root(run) / "neighbour" / "canary"))))
    else:
        path.write_bytes(rng.choice((b"<script>alert(1)</script>", rng.randbytes(100), PASSWORDS.name.encode())))
    return f"plots/{name} is added"


def _foreign_folder_link(rng: random.Random, run: Path) -> str:
    name = rng.choice(("plots", "export", "members", "trackers", "jobs"))
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    target = rng.choice(("/etc", "../" * 12 + "etc", os.path.relpath(_root(run) / "neighbour", run)))
    path.symlink_to(target, target_is_directory=True)
    return f"{name} is a link to {target}"


def _foreign_files(rng: random.Random, run: Path) -> str:
    name = rng.choice(
        (
            "cycle-99999.pt",
            "cycle-x.pt",
            "model.safetensors",
            "state.safetensors",
            "results.csv",
            "claims.json",
            "sweep.json",
        )
    )
    (run / name).write_bytes(rng.choice((b"", b"{}", rng.randbytes(50))))
    return f"{name} is added"


def _root(run: Path) -> Path:
    """Return the folder in which the working directory and its neighbour lie."""
    return next(parent for parent in run.parents if (parent / "neighbour").is_dir())


FOREIGN: list[Damage] = [_foreign_members, _foreign_plot, _foreign_folder_link, _foreign_files]
