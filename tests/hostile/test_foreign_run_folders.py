"""Run folders that came from elsewhere, or were damaged: a sentence that names the file, and nothing is executed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import dlrunner
from dlrunner.files.plain_data import check_yaml
from dlrunner.runs.reader import FinishedRun
from tests.conftest import Dlrun
from tests.hostile.conftest import WORDS

DEEP = "[" * 100_000 + "]" * 100_000
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


def verbs(run: Path) -> list[tuple[str, ...]]:
    name = str(run)
    return [
        ("show", name),
        ("report", name),
        ("diff", name, name),
        ("compare", name, name),
        ("predict", name, "--user", "1"),
        ("export", name, "--out", "exported"),
        ("replay", name),
    ]


def told(dlrun: Dlrun, *words: str) -> tuple[int, str]:
    """Return the status and what was said, which is one sentence and no traceback."""
    status, _, err = dlrun(*words)
    assert "Traceback" not in err, (words, err)
    assert "DLRUNNER_TRACEBACK" not in err, (words, err)
    return status, err


def test_foreign_files_in_members_are_passed_over(dlrun: Dlrun, ensemble: Path) -> None:
    (ensemble / "members" / ".DS_Store").write_bytes(b"\0\1")
    (ensemble / "members" / "Icon\r").mkdir()
    (ensemble / "members" / "²").mkdir()
    for words in verbs(ensemble):
        if words[0] != "compare":
            assert told(dlrun, *words)[0] == 0, words
    history = dlrunner.load(ensemble).history
    assert history["member"].tolist() == [0, 1]


def test_a_member_that_is_gone_is_missed(dlrun: Dlrun, ensemble: Path) -> None:
    (ensemble / "members" / "1" / "last.pt").unlink()
    (ensemble / "members" / "1").rename(ensemble / "members" / "7")
    status, err = told(dlrun, "predict", str(ensemble), "--user", "1")
    assert status == 2
    assert "members/1 has no last.pt" in err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", DEEP),
        ("metrics.jsonl", '{"epoch": 1, "valid/rmse": "high"}\n'),
        ("metrics.jsonl", '{"epoch": "one"}\n'),
        ("metrics.jsonl", '{"epoch": 1, "lr": [{}]}\n'),
        ("metrics.jsonl", "\ufffd\ud800".encode("utf-8", "surrogatepass")),
        ("summary.json", DEEP),
        ("config.yaml", DEEP),
        ("config.yaml", BOMB),
        ("config.yaml", "task: !!python/object/apply:os.system ['touch executed']"),
        ("config.yaml", "task: !!python/name:os.system ''"),
        ("overrides.yaml", "- !!python/object/apply:pathlib.Path [a]"),
        ("overrides.yaml", DEEP),
    ],
)
def test_a_damaged_file_is_named_by_every_verb(dlrun: Dlrun, run: Path, name: str, content: str | bytes) -> None:
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.monotonic()
    for words in verbs(run):
        status, err = told(dlrun, *words)
        assert status == 2, words
        assert f"{name} is damaged" in err, words
    assert time.monotonic() - started < 10
    assert not Path("executed").exists()


def test_a_members_damaged_history_is_named(dlrun: Dlrun, ensemble: Path) -> None:
    for content in (DEEP, '{"epoch": 1, "valid/rmse": "x"}\n', "[1]\n"):
        for member in ("0", "1"):
            (ensemble / "members" / member / "metrics.jsonl").write_text(content)
        for verb in ("show", "report", "replay"):
            status, err = told(dlrun, verb, str(ensemble))
            assert status == 2
            assert "metrics.jsonl is damaged" in err


def values(rng: np.random.Generator) -> list[Any]:
    """Return values of every kind, in an order of their own."""
    every: list[Any] = ["text", 5, -1.5, [1], ["a"], {"a": {"b": 1}}, {"value": "x"}, None, True, [[]], ""]
    return [every[place] for place in rng.permutation(len(every))]


@pytest.mark.slow  # hundreds of damaged files; the commonest damages are tested below
@pytest.mark.parametrize("file", ["summary.json", "config.yaml"])
def test_any_value_in_any_section_is_read_or_told(dlrun: Dlrun, run: Path, file: str) -> None:
    whole = yaml.safe_load((run / file).read_text())  # JSON is YAML
    rng, deadline = np.random.default_rng(0), time.monotonic() + 20
    for key in whole:
        for value in values(rng)[:5]:
            (run / file).write_text(json.dumps({**whole, key: value}))  # JSON is YAML
            for words in verbs(run)[:4]:
                status, _ = told(dlrun, *words)
                assert status in (0, 2), (key, value, words)
            if time.monotonic() > deadline:
                return


def test_a_foreign_schedule_that_is_none_is_told(dlrun: Dlrun, run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    for target in ("Field", "dlrunner.errors.did_you_mean", "Curves", "dlrunner.schedules.Any", "", "."):
        (run / "config.yaml").write_text(yaml.safe_dump({**config, "schedule": {"_target_": target}}))
        for verb in (["predict", str(run), "--user", "1"], ["export", str(run)], ["replay", str(run)]):
            status, err = told(dlrun, *verb)
            assert status == 2
            assert "schedule" in err


def test_a_damaged_weight_file_of_an_export_is_told(dlrun: Dlrun, run: Path) -> None:
    assert dlrun("export", str(run), "--out", "exported")[0] == 0
    state = json.loads(Path("exported/state.json").read_text())
    file = Path("exported/model.safetensors")
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    import hashlib

    for cut in (0, 4, 8, *rng.integers(9, len(whole), 5)):
        file.write_bytes(whole[: int(cut)])
        status, err = told(dlrun, "predict", "exported", "--user", "1")
        assert status == 2
        assert "is damaged" in err
        state["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()  # whoever damaged it knows this
        Path("exported/state.json").write_text(json.dumps(state))
        status, err = told(dlrun, "predict", "exported", "--user", "1")
        assert status == 1
        assert "model.safetensors is damaged" in err


def test_rerun_is_advised_only_where_it_helps(dlrun: Dlrun, run: Path) -> None:
    (run / "last.pt").write_bytes(b"junk")
    for verb in (["predict", str(run), "--user", "1"], ["export", str(run)], ["replay", str(run)]):
        status, err = told(dlrun, *verb)
        assert status == 1
        assert "last.pt is damaged" in err
        assert "rerun=true" not in err


def test_a_damaged_run_json_does_not_bar_a_rerun(dlrun: Dlrun, run: Path) -> None:
    assert dlrun(*WORDS)[0] == 0
    first = (run.parents[1] / "latest").resolve()
    assert dlrun(*WORDS, "rerun=true")[0] == 0
    second = (run.parents[1] / "latest").resolve()
    assert first != second
    (second / "run.json").write_text(DEEP)
    status, err = told(dlrun, *WORDS)
    assert status == 2
    assert "run.json is damaged; move the folder" in err
    assert told(dlrun, *WORDS, "rerun=true")[0] == 0


def test_a_replay_goes_elsewhere_where_its_place_cannot_be_written(
    dlrun: Dlrun, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    make = tempfile.mkdtemp

    def refused(suffix: str | None = None, prefix: str | None = None, dir: Any = None) -> str:
        if dir is not None:
            raise OSError(30, "Read-only file system", str(dir))
        return str(make(suffix, prefix, dir))

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    status, out, err = dlrun("replay", str(run))
    assert status == 0, err
    assert "replay: identical" in out


def test_a_folder_without_permission_is_told(dlrun: Dlrun, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_dir, read_text = Path.is_dir, Path.read_text

    def barred(path: Path, *words: Any, **more: Any) -> Any:
        if path.name in ("config.yaml", "metrics.jsonl"):
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *words, **more)

    def all_barred(path: Path) -> bool:
        if path.resolve() == run:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    for name, instead in (("read_text", barred), ("is_dir", all_barred)):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, instead)
            for words in verbs(run):
                status, err = told(dlrun, *words)
                assert status in (1, 2), words
                assert "Permission denied" in err, words


def test_aliases_count_as_what_they_stand_for() -> None:
    check_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: &d {x: 1}, y: 2}\ne: *d")
    started = time.monotonic()
    with pytest.raises(ValueError, match="more than 200,000 values"):
        check_yaml(BOMB)
    assert time.monotonic() - started < 1


def test_a_run_folder_may_lie_under_a_name_that_is_not_utf8(dlrun: Dlrun, run: Path) -> None:
    moved = run.rename(run.with_name("a\udcff-00000000"))
    for words in verbs(moved):
        if words[0] != "compare":
            assert told(dlrun, *words)[0] == 0, words
    assert "\\udcff" in (moved / "report.html").read_text()
    assert FinishedRun.read(moved).status == "done"
