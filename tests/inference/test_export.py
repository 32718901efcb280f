"""Exports: a folder with the same predictions as the run, bit for bit, and a complete model card."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

import dlrunner
from dlrunner.data.images.loaders import normalised
from dlrunner.errors import ConfigError
from dlrunner.inference import export as exporting
from dlrunner.inference import onnx as graphs
from dlrunner.inference import portable
from dlrunner.inference.models import load_models, predictor_of
from dlrunner.reporting.model_card import Card, escaped, fenced
from dlrunner.runs.checkpoints import load_weights_file
from dlrunner.runs.reader import FinishedRun
from tests.conftest import Dlrun
from tests.small_runs import KINDS, SmallRuns, new_flats

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="needs onnx and onnxruntime: pip install 'dlrunner[onnx]'",
)


@pytest.fixture
def export(runs: SmallRuns, dlrun: Dlrun, here: Path) -> Callable[..., Path]:
    """Export a run of some kind into the working directory."""

    def exported(kind: str, *words: str, out: str = "out") -> Path:
        status, printed, err = dlrun("export", str(runs[kind]), "--out", out, *words)
        assert status == 0, printed + err
        return here / out

    return exported


def inputs_of(kind: str, run: Path, here: Path) -> Any:
    """Return inputs for the predictor of a run of this kind."""
    if kind.startswith(("ratings", "several", "choices")):
        state = load_weights_file(run / "task.pt")["task"]
        users, items = [*state["user_ids"][:30], -1], [*state["item_ids"][:30], -1]
        return pd.DataFrame({"user": users, "item": items})
    if kind == "sales":
        days = pd.date_range("2015-09-01", periods=10).strftime("%Y-%m-%d")
        columns = {"Store": 1, "DayOfWeek": 2, "Promo": 1, "StateHoliday": "0", "SchoolHoliday": 0, "Open": 1}
        return pd.DataFrame({"Date": days, **columns})
    if kind == "pictures":
        pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 50, 3), np.uint8)
        return [Image.fromarray(each) for each in pixels]
    if kind.startswith(("texts", "language")):
        words = load_weights_file(run / "task.pt")["task"]["words"]
        return [" ".join(words[5 : 5 + length]) for length in (3, 30, 90)]
    return new_flats()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_folder_predicts_as_the_run_does_bit_for_bit(
    kind: str, runs: SmallRuns, export: Callable[..., Path], here: Path
) -> None:
    folder = export(kind)
    _, state, models = load_models(FinishedRun.read(runs[kind]))
    _, again, restored = load_models(FinishedRun.read(folder))
    assert same(state, again)
    assert len(models) == len(restored) == (2 if kind.startswith("several") else 1)
    for model, other in zip(models, restored, strict=True):
        weights, others = model.state_dict(), other.state_dict()
        assert list(weights) == list(others)
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    inputs = inputs_of(kind, runs[kind], here)
    answer = dlrunner.load(runs[kind]).predict(inputs)
    pd.testing.assert_frame_equal(dlrunner.load(folder).predict(inputs), answer, check_exact=True)
    assert len(answer) == len(inputs)


def same(left: Any, right: Any) -> bool:
    """Return whether two states are equal, including types."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(bits(left), bits(right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right or (left != left and right != right))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor, so that nan equals nan."""
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else torch.tensor(tensor.shape)


def test_a_state_of_any_tensors_and_plain_values_comes_back_exactly(here: Path) -> None:
    state: dict[Any, Any] = {
        "tensors": [torch.arange(3), torch.tensor(True), torch.tensor([1.5], dtype=torch.bfloat16), torch.zeros(0, 2)],
        "floats": [0.1, -0.0, math.inf, -math.inf, math.nan, 1e-320, 5e300],
        "ints": [0, -(2**70), True, False, None],
        "texts": ["", "ä\n\x00", "$tensor"],
        "pair": (1, (2.0, [3])),
        "marks": {"$tensor": "0", "$float": 1},
        3: {"a": {}, 2.5: "b", None: []},
    }
    portable.write(here, state, [nn.Linear(1, 1)], {"signature": "x"})
    again, count = portable.read_state(here)
    assert count == 1
    assert same(state, again)
    assert math.copysign(1, again["floats"][1]) == -1
    with pytest.raises(ConfigError, match="a PosixPath"):
        portable.write(here, {"place": Path("a")}, [], {})


def test_tied_weights_are_written_once_and_tied_again(here: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Embedding(7, 3), nn.Linear(3, 7)
            self.decoder.weight = self.encoder.weight

    model, other = Tied(), Tied()
    portable.write(here, {}, [model], {"signature": "0f"})
    with safe_open(here / "model.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["decoder.bias", "decoder.weight"]
        assert file.metadata()["tied:encoder.weight"] == "decoder.weight"
        assert file.metadata()["signature"] == "0f"
    portable.read_weights(other, here / "model.safetensors")
    assert torch.equal(other.encoder.weight, model.encoder.weight)
    assert other.decoder.weight is other.encoder.weight


def test_a_run_with_early_stopping_exports_its_best_weights(runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    shutil.copytree(runs["classes"], here / "run")
    best = load_weights_file(here / "run" / "best.pt")
    best["model"]["head.bias"] += 1  # so that it differs from last.pt
    torch.save(best, here / "run" / "best.pt")
    assert dlrun("export", "run")[0] == 0
    assert torch.equal(dlrunner.load("run/export").model.state_dict()["head.bias"], best["model"]["head.bias"])


def test_the_command_line_uses_and_shows_an_exported_folder(
    runs: SmallRuns, export: Callable[..., Path], dlrun: Dlrun
) -> None:
    folder = export("numbers")
    new_flats().to_csv("new.csv", index=False)
    answers = [dlrun("predict", str(place), "new.csv") for place in (runs["numbers"], folder)]
    assert answers[0][0] == 0
    assert answers[0][:2] == answers[1][:2]
    status, out, _ = dlrun("show", str(folder))
    assert status == 0
    assert "valid/rmse" in out
    status, _, err = dlrun("predict", str(folder), "new.csv", "--checkpoint", "best.pt")
    assert status == 2
    assert "was exported: it has no best.pt" in err


def test_an_export_contains_no_local_paths(runs: SmallRuns, export: Callable[..., Path]) -> None:
    assert '"path"' in (runs["ratings"] / "summary.json").read_text()
    folder = export("ratings")
    assert str(runs.folder) not in (folder / "config.yaml").read_text()
    assert '"path"' not in (folder / "summary.json").read_text()


EXPORTABLE = [kind for kind in KINDS if "qrnn" not in kind]


def test_the_preprocessing_of_images_is_in_the_export(export: Callable[..., Path]) -> None:
    state = json.loads((export("pictures") / "state.json").read_text())["state"]
    assert (state["decoded"], state["size"], state["fit"]) == (32, 32, "crop")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    by_hand = ((pixels / 255 - state["mean"]) / state["std"]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalised(torch.from_numpy(pixels), 32).numpy(), by_hand, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize("kind", EXPORTABLE)
def test_a_graph_computes_what_torch_computes(kind: str, runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    import onnxruntime

    status, out, err = dlrun("export", str(runs[kind]), "--out", "out", "--onnx")
    assert status == 0, out + err
    assert "(tolerance 1e-04)" in out
    card = (here / "out" / "README.md").read_text()
    assert "compared with torch by onnxruntime" in card
    checked, state, models = load_models(FinishedRun.read(runs[kind]))
    predictor = predictor_of(checked)(state, models)
    assert predictor.output_formula in card
    assert bool(predictor.output_formula) == ("target" in state)
    files = sorted((here / "out").glob("*.onnx"))
    assert len(files) == len(models)
    for file, model in zip(files, models, strict=True):
        runtime = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for rows in (2, 33):  # batch sizes and text lengths that were not used in the export
            examples = {name: each.values for name, each in predictor.examples(rows).items()}
            with torch.no_grad():
                expected = model.graph().eval()(*examples.values()).numpy()
            given = {each.name: examples[each.name].numpy() for each in runtime.get_inputs()}
            (found,) = runtime.run(None, given)
            assert len(found) == rows
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize("kind", ["texts", "texts by gru"])
def test_the_graph_of_a_text_classifier_computes_what_the_classifier_does(kind: str, runs: SmallRuns) -> None:
    checked, state, (model,) = load_models(FinishedRun.read(runs[kind]))
    predictor = predictor_of(checked)(state, [model])
    words, lengths = (each.values for each in predictor.examples(40).values())
    assert words.shape[1] > 70  # more than one sequence of bptt words
    with torch.no_grad():
        torch.testing.assert_close(
            model.graph().eval()(words, lengths), model(words, lengths).outputs, rtol=1e-5, atol=1e-6
        )


@needs_onnx
def test_a_model_without_a_graph_is_reported_and_the_rest_is_exported(
    runs: SmallRuns, dlrun: Dlrun, here: Path
) -> None:
    status, out, err = dlrun("export", str(runs["language by qrnn"]), "--out", "out", "--onnx")
    assert status == 1
    assert "no ONNX graph; all other files were written: a qrnn loops over the words in Python" in err
    assert "model.safetensors" in out
    assert not list(here.glob("out/*.onnx"))
    assert "There is no ONNX graph: a qrnn loops" in (here / "out" / "README.md").read_text()
    assert dlrunner.load("out").metrics == dlrunner.load(runs["language by qrnn"]).metrics


@needs_onnx
def test_a_graph_that_differs_is_refused_and_none_is_left(
    runs: SmallRuns, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dlrun("export", str(runs["ratings"]), "--out", "out", "--onnx")[0] == 0
    assert (here / "out" / "model.onnx").exists()
    made = graphs._exported

    def of_other_weights(module: nn.Module, examples: Any) -> bytes:
        changed: Any = module
        changed.users.weight.data += 1e-2
        content = made(changed, examples)
        changed.users.weight.data -= 1e-2
        return content

    monkeypatch.setattr(graphs, "_exported", of_other_weights)
    status, _, err = dlrun("export", str(runs["ratings"]), "--out", "out", "--onnx")
    assert status == 1
    assert "from torch, in units of the output (at most 1e-04 is allowed)" in err
    assert not (here / "out" / "model.onnx").exists()


@needs_onnx
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_graph_that_returns_nan_is_refused(place: int, runs: SmallRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    checked, state, (model,) = load_models(FinishedRun.read(runs["ratings"]))
    found = [1e-7, 1e-7, 1e-7]
    found[place] = math.nan
    monkeypatch.setattr(graphs, "_difference", lambda *given: found.pop(0))
    with pytest.raises(graphs.NoGraphError, match="differs by nan from torch"):
        graphs.graph_of(model, predictor_of(checked)(state, [model]))


@needs_onnx
def test_an_export_without_a_graph_leaves_no_older_one(export: Callable[..., Path]) -> None:
    assert (export("ratings", "--onnx") / "model.onnx").exists()
    assert not (export("ratings") / "model.onnx").exists()


def test_without_onnxruntime_nothing_is_written(
    runs: SmallRuns, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.inference.onnx.find_spec", lambda name: None)
    status, _, err = dlrun("export", str(runs["ratings"]), "--out", "out", "--onnx")
    assert status == 2
    assert "--onnx needs onnx and onnxruntime: pip install 'dlrunner[onnx]'" in err
    assert not (here / "out").exists()


def test_the_card_has_data_terms_metric_and_audit_flags(runs: SmallRuns, export: Callable[..., Path]) -> None:
    card = (export("ratings") / "README.md").read_text()
    summary = json.loads((runs["ratings"] / "summary.json").read_text())
    _, _, (model,) = load_models(FinishedRun.read(runs["ratings"]))
    assert "trained on synthetic data" in card
    for expected in (
        "# collab: svdpp",
        "- name: MovieLens",
        f"- sha256: {summary['data']['sha256']}",
        "- terms: generated",
        f"valid/rmse **{summary['metric']['value']:.4f}**",
        f"| valid/mae | {summary['final']['valid/mae']:.4f} |",
        f"- parameters: {sum(each.numel() for each in model.parameters()):,}",
        "- factors: 50",
        f"- signature: {summary['signature']}",
        f"torch {escaped(version('torch'))}",
        'predictor = dlrunner.load("path/to/this/folder")\npredictor.recommend(user=1, top=5)',
        "dlrun task=collab data.source=synthetic epochs=1 batch_size=512",
        "Best achievable on this synthetic data:",
    ):
        assert expected in card, expected
    assert summary["audit"]
    for finding in summary["audit"]:
        assert f"- {escaped(finding['flag'])}: {escaped(finding['message'])}" in card
    for name in (path.name for path in Path("out").iterdir() if path.name != "README.md"):
        assert f"- `{name}`: " in card


def test_the_card_of_real_data_has_no_false_warnings(export: Callable[..., Path]) -> None:
    card = (export("numbers") / "README.md").read_text()
    assert "synthetic" not in card
    assert "The data audit found no problems" in card
    assert "terms: unknown" in card


def card_of(**summary: Any) -> str:
    return Card(
        summary=summary, config={"choices": {"task": "t|1", "model": "<b>"}, "plugins": ["mine"]},
        overrides=["data.target='a`b'"], task="m.T", model="m.M", settings={"names": ["*a*"]}, parameters=[1, 1],
        example="", limits=["it [links](http://x) <img src=x>"], files=["model-0.onnx"],
    ).markdown()  # fmt: skip


def test_names_from_users_are_escaped_in_the_card() -> None:
    card = card_of(
        data={
            "name": "# my | table\n## heading",
            "release": "own",
            "terms": "<script>alert(1)</script>",
            "rows": {"_x_": 3},
        },
        metric={"name": "valid/`f`", "value": 0.5},
        final={"a|b": 1.0},
    )
    for expected in (
        "# t\\|1: &lt;b&gt;\n",
        "- name: \\# my \\| table \\#\\# heading\n",
        "- terms: &lt;script&gt;alert\\(1\\)&lt;/script&gt;\n",
        "- \\_x\\_: 3\n",
        "valid/\\`f\\` **0.5000**",
        "| a\\|b | 1.0000 |\n",
        "- names: \\['\\*a\\*'\\]\n",
        "- it \\[links\\]\\(http://x\\) &lt;img src=x&gt;\n",
        "plugins=['mine']",
        "It imports mine, which is not in this folder.",
        "- `model-0.onnx`: the model as an ONNX graph",
        "in each of 2 members, whose predictions are averaged",
    ):
        assert expected in card, expected
    assert fenced("a\n```\nb", "sh").startswith("````sh\n")
    assert [escaped(text) for text in ("- a", "1. a", "0.5", "-5")] == ["\\- a", "1\\. a", "0.5", "-5"]


def test_the_card_has_the_claim_and_its_verdict() -> None:
    claim = {
        "metric": "valid/rmse", "published": 0.81, "value": 0.85, "verdict": "missed by 0.04", "source": "a *paper*",
        "flags": ["validates-on-test"], "undeclared": ["validates-on-test"],
    }  # fmt: skip
    expected = "Published: valid/rmse 0.8100 (a \\*paper\\*); this run: missed by 0.04 (warning: validates-on-test "
    assert expected in card_of(data={"source": "real"}, claim=claim)


def changed(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]), "model.safetensors is damaged"),
        ("state.safetensors", lambda content: content[:100], "state.safetensors is damaged"),
        ("state.json", lambda content: content[:-9], "state.json is damaged, or was not written by `dlrun export`"),
        ("state.json", lambda content: b"[]", "state.json is damaged, or was not written by `dlrun export`"),
        ("state.json", lambda content: b'{"format": 99}', "has format 99"),
        ("config.yaml", lambda content: b"a: [", "is damaged"),
        (
            "config.yaml",
            lambda content: content.replace(b"factors: 50", b"factors: 51"),
            "model.safetensors does not hold the weights of this run's model",
        ),
        (
            "state.json",
            lambda content: content.replace(b'"models": 1', b'"models": 2'),
            "state.json is damaged, or was not written by `dlrun export`",
        ),
    ],
)
def test_a_damaged_export_is_refused(
    name: str, change: Callable[[bytes], bytes], message: str, export: Callable[..., Path]
) -> None:
    folder = export("ratings")
    changed(folder, name, change)
    with pytest.raises(ConfigError) as raised:
        dlrunner.load(folder)
    assert message in str(raised.value)


def test_files_of_another_export_are_refused(export: Callable[..., Path]) -> None:
    folder, other = export("ratings"), export("ratings by dot", out="other")
    shutil.copy(other / "state.safetensors", folder / "state.safetensors")
    (folder / "state.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"state\.safetensors is damaged"):
        dlrunner.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        dlrunner.load(folder)


def test_a_folder_with_other_content_is_left_alone(
    runs: SmallRuns, export: Callable[..., Path], dlrun: Dlrun, here: Path
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "README.md").write_text("mine")
    (here / "file").write_text("mine")
    export("ratings by dot", out="other")
    for out, message in (
        ("mine", "--out: mine has other content"),
        ("file", "--out: file is a file; give a new folder"),
        ("other", "--out: other has the export of another run"),
    ):
        status, _, err = dlrun("export", str(runs["ratings"]), "--out", out)
        assert status == 2
        assert message in err
    assert (here / "mine" / "README.md").read_text() == "mine"
    export("ratings by dot", out="other")  # the same run again


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"code": "0" * 64}, "of other code"),
        ({"data": {"name": "MovieLens", "sha256": "0" * 64}}, "of other data"),
        ({"finished": "2026-01-01T00:00:00+00:00"}, "it finished at 2"),
    ],
)
def test_the_export_of_another_run_with_the_same_settings_is_left_alone(
    changed: dict[str, Any], message: str, runs: SmallRuns, dlrun: Dlrun, export: Callable[..., Path], here: Path
) -> None:
    card = (export("ratings") / "README.md").read_bytes()
    shutil.copytree(runs["ratings"], here / "run")
    summary = json.loads((here / "run" / "summary.json").read_text())
    (here / "run" / "summary.json").write_text(json.dumps({**summary, **changed}))
    status, _, err = dlrun("export", "run", "--out", "out")
    assert status == 2
    assert f"--out: out has the export of another run ({message}" in err
    assert (here / "out" / "README.md").read_bytes() == card
    assert dlrun("export", "run")[0] == 0
    (here / "run" / "export").rename(here / "other")
    assert dlrun("export", "run", "--out", "other")[0] == 0


def test_an_interrupted_export_is_replaced(
    runs: SmallRuns, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, *given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place, words in (("out", ["--out", "out"]), ("run/export", [])):
        shutil.copytree(runs["ratings"], here / "run", dirs_exist_ok=True)
        summary = json.loads((here / "run" / "summary.json").read_text())
        with monkeypatch.context() as patch:
            patch.setattr(portable, "write", full)
            status, _, err = dlrun("export", "run", *words)
        assert status == 1
        assert "the disk is full" in err
        assert not (here / place).exists()
        (here / place).mkdir()
        portable.begin(here / place, exporting._identity(summary))  # as an earlier version left it
        for name in ("config.yaml", "overrides.yaml", "summary.json"):
            shutil.copy(here / "run" / name, here / place)
        (here / place / ".model.safetensors.4711471147114711").write_bytes(b"begun")
        own = (".gitattributes", "model_int8.onnx", "model-fp16.onnx", "models.safetensors")
        for name in own:
            (here / place / name).write_text("mine")
        with pytest.raises(ConfigError, match=f"{place} contains an interrupted export; export it again"):
            dlrunner.load(place)
        assert dlrun("export", "run", *words)[0] == 0
        assert not list((here / place).glob(".model*"))
        assert all((here / place / name).read_text() == "mine" for name in own)
        assert dlrunner.load(place).metrics == dlrunner.load("run").metrics


def test_the_default_folder_is_not_reported_as_an_option(runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    shutil.copytree(runs["ratings"], here / "run")
    (here / "run" / "export").mkdir()
    (here / "run" / "export" / "mine").write_text("mine")
    status, _, err = dlrun("export", "run")
    assert (status, err) == (2, "dlrun: run/export has other content; name a folder with --out\n")


def test_only_a_finished_run_can_be_exported(
    runs: SmallRuns, export: Callable[..., Path], dlrun: Dlrun, here: Path
) -> None:
    folder = export("ratings")
    status, _, err = dlrun("export", str(folder))
    assert status == 2
    assert "was exported already" in err
    shutil.copytree(runs["ratings"], here / "killed")
    (here / "killed" / "summary.json").unlink()
    status, _, err = dlrun("export", "killed")
    assert status == 2
    assert "killed is killed or still running; only a finished run can be exported" in err
    assert dlrun("export", "nowhere")[0] == 2


def test_by_default_the_export_is_in_the_run_folder(runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    shutil.copytree(runs["ratings"], here / "run")
    status, out, _ = dlrun("export", "run")
    assert status == 0
    assert out.splitlines()[-1] == 'in Python: import dlrunner; predictor = dlrunner.load("run/export")'
    assert not list((here / "run" / "export").glob("*.pt"))
    assert (here / "run" / "export" / "state.json").exists()
