"""Reports of runs: complete, small, the same each time, and nothing in them is markup that came from outside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from dlrunner.errors import ConfigError
from dlrunner.plot import Plot
from dlrunner.reporting.html import answer, charts, page, run
from dlrunner.reporting.html.charts import Curve
from dlrunner.reporting.html.scale import Scale
from dlrunner.reporting.plots import training as plots
from tests.conftest import Dlrun
from tests.fake_runs import write_run
from tests.reporting.pages import EVIL, SCRIPT, assert_harmless

PNG = b"\x89PNG\r\n\x1a\n"


def rows(num_epochs: int, **others: Any) -> list[dict[str, Any]]:
    return [
        {"epoch": e, "train/loss": 1 / e, "valid/loss": 1.2 / e, "valid/rmse": 1.1 / e, "lr": 0.1 / e, **others}
        for e in range(1, num_epochs + 1)
    ]


def render(**given: Any) -> str:
    empty: dict[str, Any] = {"title": "a run", "summary": {}, "history": [], "config": {}, "overrides": []}
    return run.render(**{**empty, "plots": [], "notes": [], **given}).decode()


def test_nothing_from_outside_is_markup_in_a_report(tmp_path: Path) -> None:
    picture = plots.training_curves(rows(1), tmp_path).path.rename(tmp_path / '"><script>.svg')
    html = render(
        title=EVIL,
        summary={
            "status": EVIL,
            "error": EVIL,
            "metric": {"name": EVIL, "value": EVIL, "epoch": EVIL},
            "best": {"epoch": EVIL, EVIL: EVIL},
            "members": {"seeds": [1], "mean": EVIL, "std": EVIL},
            "claim": {"metric": EVIL, "published": EVIL, "value": EVIL, "verdict": EVIL, "source": EVIL},
            "data": {"name": EVIL, "terms": EVIL, "rows": {EVIL: 1}, "best_achievable": EVIL, "sha256": EVIL},
            **dict.fromkeys(("device", "precision", "seed", "seconds", "code", "finished"), EVIL),
            "versions": {EVIL: EVIL},
            "git": {"commit": EVIL},
            "peak_memory_mb": {EVIL: 1},
            "audit": [{"flag": EVIL, "message": EVIL}],
            "baselines": {EVIL: {EVIL: EVIL}},
        },
        history=[*rows(2, **{f"valid/{EVIL}": 0.5}), {"epoch": EVIL, "train/loss": EVIL, "lr": EVIL}],
        config={EVIL: [EVIL], "data": {EVIL: {EVIL: EVIL}}, "choices": {"task": EVIL}},
        overrides=[EVIL],
        plots=[Plot(picture, EVIL, EVIL), Plot(tmp_path / "<script>", EVIL)],
        notes=[EVIL],
        annotated_texts={EVIL: [{"title": EVIL, "words": [EVIL, EVIL], "weights": [1.0, 0.0]}]},
        changed={EVIL: EVIL},
    )
    assert_harmless(html)
    assert html.count("<img") == 1
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 40


def test_a_page_with_an_undefined_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="verdicts"):
        page.render("claims.html.j2", title="claims")


def test_style_and_script_are_allowed_by_their_digests_and_nothing_else_is() -> None:
    html = render()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';img-src data:;")
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_charts_replace_the_plot_of_the_same_curves_and_every_plot_has_an_alternative_text(tmp_path: Path) -> None:
    losses = plots.training_curves(rows(2), tmp_path)
    html = render(plots=[losses])
    alt = "Line plots over 2 epochs; at the end train/loss 0.5000, valid/loss 0.6000, valid/rmse 0.5500"
    assert f'<img alt="{alt}' in html
    assert "<figcaption>Loss and metrics by epoch</figcaption>" in html
    html = render(plots=[Plot(losses.path.rename(tmp_path / "a.svg"), "A caption alone")])
    assert '<img alt="A caption alone" src="data:image/svg+xml;base64,' in html
    (tmp_path / "b.png").write_bytes(PNG)
    assert '<img alt="b" src="data:image/png;base64,iVBOR' in render(plots=[Plot(tmp_path / "b.png", "b")])
    assert '<figcaption aria-hidden="true">A caption alone' in html, "a screen reader says it once"
    html = render(plots=[losses, Plot(tmp_path / "absent.png", "")], history=rows(3))
    assert "<img" not in html
    assert "absent.png (file not found)" in html
    assert 'role="img" aria-label="valid/rmse by epoch: valid/rmse from 1.1000 to 0.3667"' in html
    assert "epoch 3: train/loss 0.3333; valid/loss 0.4000" in html


def test_a_plot_is_an_image_by_its_suffix_and_its_content(tmp_path: Path) -> None:
    for name, content in (("a.svg", PNG), ("b.png", b"<svg/>"), ("c.html", b"<svg/>"), ("d.svg", b"<html/>")):
        (tmp_path / name).write_bytes(content)
        html = render(plots=[Plot(tmp_path / name, "a")])
        assert f"{name} (not an image)" in html
        assert "<img" not in html


def test_the_same_plot_is_the_same_file_and_its_texts_are_text(tmp_path: Path) -> None:
    first = plots.training_curves(rows(3), tmp_path).path.read_bytes()
    assert plots.training_curves(rows(3), tmp_path).path.read_bytes() == first
    assert b">valid/rmse: 0.3667</text>" in first
    assert len(first) < 60_000
    assert not list(tmp_path.glob("*.png"))


def test_a_report_is_small_enough_to_mail(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1_500_000))
    html = render(plots=[Plot(tmp_path / f"{name}.png", name) for name in ("one", "two")], history=rows(50))
    assert len(html.encode()) < 3_000_000
    assert html.count("<img") == 1
    assert "two.png (too large to embed)" in html


def test_a_report_of_many_epochs_is_small_and_shows_the_last_one() -> None:
    html = render(history=rows(5000))
    assert len(html.encode()) < 3_000_000
    assert "epoch 5000: " in html


def test_of_very_many_epochs_the_table_has_every_nth_the_best_and_the_last() -> None:
    many = {f"valid/metric{i}": 0.123456 for i in range(12)}
    html = render(history=rows(20_000, **many), summary={"best": {"epoch": 7002}})
    assert len(html.encode()) < 3_000_000
    assert "every 20th epoch; metrics.jsonl has all of them" in html
    for epoch in (1, 7002, 20_000):
        assert f'<td class="n">{epoch}</td>' in html, epoch
    assert '<td class="n">2</td>' not in html


def test_an_ensemble_names_the_member_of_its_curves_and_marks_no_epoch(tmp_path: Path) -> None:
    summary: dict[str, Any] = {"best": {"epoch": 2}, "members": {"seeds": [0, 1, 2], "mean": 0.9, "std": 0.1}}
    folder = write_run(tmp_path / "a-00000000", 0.8, history=[], **summary)
    for number in range(3):
        (folder / "members" / str(number)).mkdir(parents=True)
        lines = [json.dumps({**row, "valid/rmse": number + row["valid/rmse"]}) for row in rows(3)]
        (folder / "members" / str(number) / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    html = run.write(folder).read_text()
    assert ">Curves of member 2</h2>" in html
    assert ">Epochs of member 2</h2>" in html
    assert "One of 3 members; the results above are of the members&#39; average" in html
    assert "valid/rmse from 3.1000 to 2.3667" in html
    assert '<tr class="best">' not in html


def test_only_a_report_of_synthetic_data_has_a_warning() -> None:
    assert "synthetic" in render(summary={"data": {"name": "MovieLens", "source": "synthetic"}})
    assert "synthetic" not in render(summary={"data": {"name": "MovieLens", "source": "real"}})


COMPARED: dict[str, Any] = {
    "purpose": "Predict price",
    "data": {"name": "flats.csv"},
    "metric": {"name": "valid/rmse", "value": 50191.3, "epoch": 5, "higher_is_better": False},
    "metrics": {"valid/rmse": {"unit": "EUR", "format": ""}},
    "baselines": {"mean": {"valid/rmse": 100382.6}, "trees": {"valid/rmse": 47776.9}},
}


def test_the_head_has_the_question_the_result_next_to_the_baselines_and_a_verdict() -> None:
    html = render(title="tabular: a-00000000", summary=COMPARED)
    assert "<h1>Predict price of flats.csv</h1>" in html
    assert '<p class="soft">tabular: a-00000000</p>' in html
    assert '<div class="big">50,191 EUR</div>' in html
    assert "Behind the baseline trees: valid/rmse 50,191 EUR against 47,777 EUR, 5.1 % higher." in html
    bars = re.findall(r'<th scope="row">([^<]*)</th><td class="n">[^<]*</td><td><svg[^>]*><rect width="([^"]*)"', html)
    assert bars == [("trees", "47.6"), ("this run", "50.0"), ("mean", "100.0")], "the best first"
    assert "<h1>a run</h1>" in render(summary={**COMPARED, "purpose": None}), "of an older version"


@pytest.mark.parametrize(
    ("value", "others", "higher_is_better", "said"),
    [
        (
            2.1,
            {"a": 2.33, "b": 7.0},
            False,
            "Better than every baseline; the best is a: m 2.100 against 2.330, 9.9 % l",
        ),
        (0.9, {"a": 0.8}, True, "Better than the baseline a: m 0.9000 against 0.8000, 12.5 % higher."),
        (0.7, {"a": 0.8, "b": None}, True, "Behind the baseline a: "),
        (0.8, {"a": 0.8}, True, "No better than the baseline a: "),
        (-2.0, {"a": -1.0}, False, "Better than the baseline a: m -2.000 against -1.000."),
        (0.72, {"a": 0.18}, True, "Better than the baseline a: m 0.7200 against 0.1800."),
        (None, {"a": 0.8}, True, ""),
        (0.8, {}, True, ""),
    ],
)
def test_the_verdict_compares_with_the_best_baseline(
    value: float | None, others: dict[str, float | None], higher_is_better: bool, said: str
) -> None:
    metric = {"name": "m", "value": value, "higher_is_better": higher_is_better}
    sentence = answer.verdict({"metric": metric, "baselines": {name: {"m": other} for name, other in others.items()}})
    assert sentence.startswith(said)
    assert bool(sentence) == bool(said)


def test_an_equal_result_has_no_rate() -> None:
    summary = {"metric": {"name": "m", "value": 0.8, "higher_is_better": True}, "baselines": {"a": {"m": 0.8}}}
    assert answer.verdict(summary) == "No better than the baseline a: m 0.8000 against 0.8000."


def test_the_head_of_a_run_with_tta_has_each_metric_with_and_without_it() -> None:
    metric = {"name": "valid/accuracy", "value": 0.8674, "epoch": 3, "higher_is_better": True}
    final = {"valid/accuracy": 0.8674, "valid/log_loss": 0.485}
    single = {"valid/accuracy": 0.8625, "valid/log_loss": 0.51}
    summary = {"metric": metric, "final": final, "tta": {"num_views": 5, "single_view_metrics": single}}
    page = render(summary=summary, history=rows(3))
    assert "with TTA (5 views)" in page
    assert "valid/log_loss 0.4850 (single view: 0.5100)" in page
    old = {**summary, "tta": {"num_views": 5, "single_view": 0.8625}}
    assert "single view" not in render(summary=old, history=rows(3))


def test_the_verdict_names_the_times_if_the_run_took_much_longer() -> None:
    metric = {"name": "m", "value": 0.9, "higher_is_better": True}
    summary = {"metric": metric, "training_seconds": 30.0, "baselines": {"a": {"m": 0.8, "seconds": 9.0}}}
    assert answer.verdict(summary).endswith("higher; the baseline took 9.0 s, this run 30.0 s.")
    fast = {**summary, "baselines": {"a": {"m": 0.8, "seconds": 0.37}}}
    assert answer.verdict(fast).endswith("the baseline took 0.4 s, this run 30.0 s."), "not 0 s"
    assert answer.verdict({**summary, "training_seconds": 17.0}).endswith("higher.")


def test_what_is_of_little_interest_is_folded() -> None:
    columns = [{"name": "a", "type": "number", "use": "continuous"}]
    html = render(history=rows(13), config={"seed": 1}, summary={"data": {"columns": columns}}, changed={})
    folded = re.findall(r"<details><summary>([^<]*)</summary>", html)
    assert folded == ["13 rows", "1 columns, as they were read", "all settings"]
    assert "<details>" not in render(history=rows(12))


def test_short_curves_show_their_points_and_the_best_epoch_is_marked() -> None:
    html = render(history=rows(5), summary={"metric": {"name": "valid/rmse"}, "best": {"epoch": 4}})
    assert html.count('class="line points') == 4, "two losses, a metric, the rate"
    assert html.count(">best: epoch 4</text>") == 1
    assert "from 1.1000 to 0.2200; best epoch: 4" in html
    assert "line points" not in render(history=rows(31))
    assert "<input" not in html, "five points need no slider"
    assert "<input" in render(history=rows(10))


def test_a_report_has_metrics_claim_and_overrides() -> None:
    html = render(
        summary={
            "status": "done",
            "metric": {"name": "valid/rmse", "value": 0.87654321, "epoch": 5, "higher_is_better": False},
            "best": {"epoch": 4, "valid/rmse": 0.8699},
            "claim": {
                "metric": "valid/rmse",
                "published": 0.8774,
                "value": 0.8765,
                "verdict": "reached",
                "source": "X",
            },
            "data": {"name": "MovieLens", "terms": "no commercial use"},
            "seconds": 83.2,
            "peak_memory_mb": {"host": 1234.5},
            "git": {"commit": "abc123", "dirty": True},
        },
        history=rows(5),
        config={"optim": {"lr": 0.005}, "phases": [{"epochs": 1}], "choices": {"task": "collab", "optim": "sgd"}},
        overrides=["task=collab", "optim.betas=[0.9, 0.99]"],
        changed={"optim.lr": "0.01", "optim": "adamw"},
    )
    for said in (
        "0.8765",
        "lower is better",
        "best: 0.8699 after epoch 4",
        '<div class="card good">',
        "0.8774",
        "no commercial use",
        "dlrun task=collab &#39;optim.betas=[0.9, 0.99]&#39;",
        "optim:\n<mark>  lr: 0.005  # default: 0.01</mark>\n",
        "<mark>  optim: sgd  # default: adamw</mark>\n",
        "phases: [{epochs: 1}]\n",
        "published <span>0.8774</span>",
        "from 1.1000 to 0.2200; published: 0.8774",
        "1 min 23 s",
        "1,234 MB on the host",
        "abc123 with uncommitted changes",
    ):
        assert said in html, said
    assert html.count('<tr class="best"><td class="n">4</td>') == 1
    assert '<div class="card bad">' in render(summary={"claim": {"verdict": "missed by 0.1"}})
    far = render(summary={"claim": {"metric": "valid/rmse", "published": 9.0}}, history=rows(5))
    assert "published <span>9.0000, outside of the plot</span>" in far
    assert 'class="reference" d="M58' not in far
    not_comparable = render(summary={"claim": {"verdict": "not comparable: other data"}})
    assert '<div class="card ">' in not_comparable


def test_without_known_defaults_the_overrides_are_marked() -> None:
    html = render(config={"seed": 1, "epochs": 2}, overrides=["seed=1"])
    assert "<mark>seed: 1  # typed</mark>\nepochs: 2\n" in html
    assert "Highlighted: what was typed." in html
    assert "<mark>" not in render(config={"seed": 1}, overrides=["seed=1"], changed={})


def test_a_report_of_a_failed_run_has_the_error() -> None:
    assert "This run failed: the loss is not finite" in render(
        summary={"status": "failed", "error": "the loss is not finite", "data": None, "metric": None}
    )


def test_missing_values_are_omitted_and_one_epoch_has_no_chart() -> None:
    assert "data-chart" not in render(history=rows(1)).replace(SCRIPT, "")
    history = rows(4)
    history[1]["valid/rmse"], history[2]["valid/rmse"] = None, float("inf")
    html = render(history=history)
    assert "valid/rmse by epoch: valid/rmse from 1.1000 to 0.2750" in html
    assert "nan" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL).lower()


def test_a_run_and_the_verb_write_the_same_page_within_two_seconds(ratings_csv: Path, dlrun: Dlrun, here: Path) -> None:
    assert dlrun("task=collab", "data.path=my.csv", "epochs=3", "optim.lr=1e-3")[0] == 0
    file = here / "runs" / "latest" / "report.html"
    written = file.read_bytes()
    file.unlink()
    started = time.process_time()
    status, out, _ = dlrun("report", "runs/latest")
    assert time.process_time() - started < 2
    assert status == 0
    assert "report.html" in out
    assert file.read_bytes() == written
    html = written.decode()
    assert_harmless(html)
    assert "<h1>Predict the ratings of my.csv</h1>" in html
    assert "lr: 0.001  # default: 0.01</mark>" in html
    assert "path: my.csv  # default: null</mark>" in html
    assert "<figcaption>Predictions on the validation rows</figcaption>" in html


def test_a_film_title_with_markup_is_text(here: Path, dlrun: Dlrun) -> None:
    lines = [
        f"{user},<script>alert({item})</script>,{(user * item) % 5 + 1}" for user in range(12) for item in range(9)
    ]
    (here / "my.csv").write_text("\n".join(["user,item,rating", *lines]))
    name = "'data.path=\"<script>alert(1).csv\"'".strip("'")
    (here / "my.csv").rename(here / "<script>alert(1).csv")
    assert dlrun("task=collab", name, "epochs=2")[0] == 0
    html = Path("runs/latest/report.html").read_text()
    assert_harmless(html)
    assert "&lt;script&gt;alert(1).csv" in html


def test_a_failed_run_has_a_report(here: Path, dlrun: Dlrun, ratings_csv: Path) -> None:
    words = ("optim=sgd", "model=dot", "optim.lr=1e20", "batch_size=2000", "schedule=constant")
    status, _, _ = dlrun("task=collab", "data.path=my.csv", "epochs=3", *words)
    assert status == 1
    (report,) = Path("runs/collab").glob("*/report.html")
    assert "This run failed: " in report.read_text()


def test_a_folder_of_an_older_version_has_a_report_with_all_its_plots(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a-00000000", 0.9, {"optim.lr": 0.1})
    (folder / "plots").mkdir()
    (folder / "plots" / "item_map.png").write_bytes(PNG)
    html = run.write(folder).read_text()
    assert html.count("<img") == 1
    assert '<img alt="Item map"' in html
    assert "lr: 0.1  # typed" in html


def test_texts_of_a_plot_come_from_report_json_or_from_its_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a-00000000", 0.9)
    (folder / "plots").mkdir()
    (folder / "plots" / "mask.png").write_bytes(PNG)
    kept: dict[str, Any] = {"notes": [], "annotated_texts": {}, "changed": None}
    for shown, caption, alt in (
        (
            {"plots": [{"file": "mask.png", "caption": "Masks <1>", "alt": "Six masks."}]},
            "Masks &lt;1&gt;",
            "Six masks.",
        ),
        ({"plots": [{"file": "mask.png", "caption": "Masks"}]}, "Masks", "Masks"),
        ({"pictures": ["mask.png"]}, "Mask", "Mask"),  # as older versions wrote it
    ):
        (folder / "report.json").write_text(json.dumps({**kept, **shown}))
        html = run.write(folder).read_text()
        assert f'<img alt="{alt}" src' in html
        assert f">{caption}</figcaption>" in html


def test_a_damaged_or_hostile_report_json_reads_nothing_beyond_the_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a-00000000", 0.9)
    secret = plots.training_curves(rows(2), tmp_path).path.rename(tmp_path / "secret.svg")
    kept: dict[str, Any] = {"notes": [], "annotated_texts": {}, "changed": None}
    for name in (f"../../{secret.name}", {"file": f"../../{secret.name}", "caption": "a"}):
        (folder / "report.json").write_text(json.dumps({**kept, "plots": [name]}))
        assert "<img" not in run.write(folder).read_text()
    kept["plots"] = []
    unequal = {**kept, "annotated_texts": {"T": [{"title": "a", "words": ["b"], "weights": [1.0, 2.0]}]}}
    for damaged in (
        "{",
        "[]",
        '{"notes": 1}',
        *map(json.dumps, ({**kept, "annotated_texts": {"T": [1]}}, unequal, {**kept, "plots": [1]})),
    ):
        (folder / "report.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"report\.json is damaged"):
            run.write(folder)


@pytest.mark.parametrize(
    "damage", [{"metric": "x"}, {"audit": [{}]}, {"claim": [1]}, {"data": "x"}, {"baselines": {"a": 1}}]
)
def test_a_damaged_summary_is_reported(tmp_path: Path, damage: dict[str, Any]) -> None:
    folder = write_run(tmp_path / "a-00000000", 0.9)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, **damage}))
    with pytest.raises(ConfigError, match=r"summary\.json is damaged"):
        run.write(folder)


def test_a_weight_that_is_not_a_number_highlights_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a-00000000", 0.9)
    text = {"title": "a", "words": ["fine", "dull"], "weights": [float("nan"), -1.0]}
    kept: dict[str, Any] = {"plots": [], "notes": [], "annotated_texts": {"Texts": [text]}, "changed": None}
    (folder / "report.json").write_text(json.dumps(kept))
    html = run.write(folder).read_text()
    assert '<p class="annotated">fine <mark class="against w10" title="-1.00">dull</mark></p>' in html


def test_the_verb_refuses_what_it_cannot_report(here: Path, dlrun: Dlrun) -> None:
    (here / "empty").mkdir()
    for words, said in (
        (["absent"], "there is no folder absent"),
        (["empty"], "neither a run folder nor a folder of a sweep or claims"),
        (["empty", "--out", "no/where.html"], "--out: there is no folder no"),
    ):
        status, _, err = dlrun("report", *words)
        assert (status, said in err) == (2, True), err


def test_scales_are_logarithmic_for_a_wide_range_of_values() -> None:
    assert Scale.of(1e-4, 1.0).is_log
    assert not Scale.of(0.5, 1.0).is_log
    assert not Scale.of(-1.0, 1.0).is_log
    flat = Scale.of(0.0, 0.0)
    assert flat.position(0.0) == 0.5


def test_long_curves_are_thinned_and_keep_their_last_epoch() -> None:
    drawn = charts.curves("loss", [Curve("loss", {float(e): 1 / e for e in range(1, 10_001)})])
    assert len(drawn) < 40_000
    assert "epoch 10000: loss 1.0e-04" in drawn
