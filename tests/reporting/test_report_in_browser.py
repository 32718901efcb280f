"""Reports in a headless Chromium: they render without complaint or request, and sorting and hovering work."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlrunner.plot import Plot
from dlrunner.reporting.html import claims, run, sweep
from dlrunner.reporting.plots import training as plots
from tests.fake_runs import write_run, write_sweep
from tests.reporting import browser as browsers
from tests.reporting.browser import Browser
from tests.reporting.pages import EVIL
from tests.reporting.test_report import COMPARED, render, rows
from tests.reporting.test_sweep_report import planted, verdicts, write_claims

pytestmark = pytest.mark.skipif(browsers.find() is None, reason="needs Chromium: apt-get install chromium")

READOUT = "document.querySelector('figure output').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def page_of_a_run(folder: Path) -> Path:
    file = folder / "run.html"
    file.write_text(
        render(
            summary={"status": "done", "metric": {"name": "valid/rmse", "value": 0.2}, "best": {"epoch": 4}},
            history=rows(12),
            config={"optim": {"lr": 0.1}},
            overrides=["task=collab"],
            changed={"optim.lr": "0.01"},
            annotated_texts={"Texts": [{"title": "a", "words": ["fine", "dull"], "weights": [0.9, -0.4]}]},
        )
    )
    return file


def assert_quiet(browser: Browser) -> None:
    """Assert that nothing was complained of, and nothing but the page itself was asked for."""
    assert browser.complaints() == []
    assert len(browser.requests()) == 1, browser.requests()
    assert not [event for event in browser.events if event["method"] == "Page.javascriptDialogOpening"]


def column(browser: Browser, number: int, table: str = "table.rows") -> list[str]:
    """Return the texts of a column of the first such table, from 1."""
    found: list[str] = browser.ask(
        f"[...document.querySelectorAll('{table} tbody tr td:nth-child({number})')].map((cell) => cell.textContent)"
    )
    return found


def test_the_browser_reports_errors_and_requests(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('so'); undefined_name()</script>")
    browser.open(file)
    assert len(browser.complaints()) >= 2
    assert any("127.0.0.1" in url for url in browser.requests())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_all_reports_render_within_the_window_and_without_errors(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    folder = write_claims(tmp_path / "runs" / "claims" / "mine", verdicts([]))
    for file in (page_of_a_run(tmp_path), sweep.write(planted(tmp_path)), claims.write(folder)):
        browser.open(file, width, scheme=scheme)
        assert browser.ask("document.documentElement.scrollWidth") <= width, file.name
        assert browser.ask("document.querySelector('main').offsetHeight") > 500
        paper = browser.ask("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 27)"), "the style is in force"
        assert (
            browser.ask("[...document.querySelectorAll('img, svg:not(svg svg)')].filter((e) => !e.clientWidth).length")
            == 0
        )
        assert_quiet(browser)


def test_hovering_over_a_curve_shows_the_values_of_the_nearest_epoch(browser: Browser, tmp_path: Path) -> None:
    browser.open(page_of_a_run(tmp_path))
    assert browser.ask(READOUT) == "epoch 12: train/loss 0.0833; valid/loss 0.1000"
    left, top, width, height = browser.place("figure svg.plot")
    browser.hover(left + width * 58 / 440, top + height / 2)
    assert browser.ask(READOUT) == "epoch 1: train/loss 1.0000; valid/loss 1.2000"
    browser.hover(left + width * (58 + 370 * 4.1 / 11) / 440, top + height / 2)
    assert browser.ask(READOUT) == "epoch 5: train/loss 0.2000; valid/loss 0.2400"
    assert browser.ask("document.querySelectorAll('figure:first-of-type circle.dot').length") == 2
    legend = browser.ask("[...document.querySelectorAll('figure:first-of-type li')].map((item) => item.textContent)")
    assert legend == ["train/loss 0.2000", "valid/loss 0.2400"]
    assert browser.ask("document.querySelector('figcaption').textContent") == "Loss epoch 5"
    assert_quiet(browser)


def test_the_keyboard_moves_along_a_curve_and_sorts(browser: Browser, tmp_path: Path) -> None:
    browser.open(page_of_a_run(tmp_path))
    browser.ask("document.querySelector('figure input').focus()")
    browser.press("ArrowLeft")
    assert browser.ask(READOUT) == "epoch 11: train/loss 0.0909; valid/loss 0.1091"
    assert "epoch 11" in browser.ask("document.querySelector('figure input').getAttribute('aria-valuetext')")
    browser.press("Home")
    assert browser.ask(READOUT).startswith("epoch 1:")
    for _ in range(20):
        browser.press("Tab")
        if browser.ask("document.activeElement.closest('th')?.textContent") == "valid/loss":
            break
    browser.press("Enter")
    assert column(browser, 1)[:2] == ["12", "11"]
    assert_quiet(browser)


def test_a_click_on_a_heading_sorts_by_value_and_another_reverses_the_order(browser: Browser, tmp_path: Path) -> None:
    browser.open(sweep.write(planted(tmp_path)))
    jobs = "div[aria-label=Jobs] table"
    assert column(browser, 1, jobs) == ["0", "1", "2", "3", "4", "5", "6", "7", "8"]
    browser.click("div[aria-label=Jobs] th:nth-child(6) button")  # the metric
    assert column(browser, 6, jobs)[:2] == ["0.8000", "0.8200"]
    assert browser.ask("document.querySelector('div[aria-label=Jobs] th:nth-child(6)').ariaSort") == "ascending"
    browser.click("div[aria-label=Jobs] th:nth-child(6) button")
    assert column(browser, 6, jobs)[:2] == ["1.1200", "1.1000"]
    assert column(browser, 6, jobs)[-1] == "-", "what is not known stays last"
    assert browser.ask("document.querySelector('div[aria-label=Jobs] th:nth-child(6)').ariaSort") == "descending"
    browser.click("div[aria-label=Jobs] th:nth-child(3) button")  # the optimizer, a word
    assert column(browser, 3, jobs)[:5] == ["adam", "adam", "adam", "adam", "sgd"]
    assert_quiet(browser)


def test_columns_are_sorted_by_their_number_of_missing_values(browser: Browser, tmp_path: Path) -> None:
    columns = [
        {"name": name, "type": "number", "use": "continuous", "missing": missing, "example": "1"}
        for name, missing in (("a", 4821), ("b", 123_456), ("c", 57), ("d", 0))
    ]
    (tmp_path / "run.html").write_text(render(history=rows(2), summary={**COMPARED, "data": {"columns": columns}}))
    browser.open(tmp_path / "run.html")
    table = "div[aria-label^=How] table"
    for expected in (["", "57", "4,821", "123,456"], ["123,456", "4,821", "57", ""]):
        browser.ask(f"document.querySelector('{table} th:nth-child(3) button').click()")  # it may be folded
        assert column(browser, 3, table) == expected
    assert_quiet(browser)


def test_hovering_over_parallel_coordinates_shows_the_nearest_job(browser: Browser, tmp_path: Path) -> None:
    browser.open(sweep.write(planted(tmp_path)))
    figure = "figure:has(.jobs)"
    left, top, width, _ = browser.place(f"{figure} svg.plot")
    x, y = browser.ask(
        f"(() => {{ const c = JSON.parse(document.querySelector('{figure}').dataset.chart);"
        " return [c.x.at(-1), c.paths.at(-1).at(-1)]; })()"
    )
    box = browser.ask(f"document.querySelector('{figure} svg.plot').viewBox.baseVal.width")
    browser.hover(left + x * width / box, top + y * width / box)
    told = browser.ask(f"document.querySelector('{figure} output').textContent")
    assert told == "job 7: optim=sgd optim.lr=0.01 seed=1: valid/rmse 1.1200"
    assert browser.ask(f"document.querySelectorAll('{figure} path.on').length") == 1
    assert_quiet(browser)


def test_without_javascript_everything_is_readable(browser: Browser, tmp_path: Path) -> None:
    browser("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(sweep.write(planted(tmp_path)))
        assert_quiet(browser)
    finally:
        browser("Emulation.setScriptExecutionDisabled", value=False)
    assert len(column(browser, 1, "div[aria-label=Jobs] table")) == 9
    assert browser.ask("document.querySelectorAll('button').length") == 0
    assert browser.ask("document.querySelector('figure input').checkVisibility()") is False
    assert browser.ask(READOUT).startswith("epoch 3: optim=adam")


def test_markup_in_names_and_texts_does_nothing(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "evil.html"
    file.write_bytes(
        run.render(
            title=EVIL,
            summary={"status": EVIL, "error": EVIL, "metric": {"name": EVIL, "value": 1}, "data": {"terms": EVIL}},
            history=rows(3, **{f"valid/{EVIL}": 0.5}),
            config={EVIL: EVIL},
            overrides=[EVIL],
            plots=[],
            notes=[EVIL],
            annotated_texts={EVIL: [{"title": EVIL, "words": [EVIL], "weights": [1.0]}]},
            changed={EVIL: EVIL},
        )
    )
    browser.open(file)
    left, top, width, height = browser.place("figure:nth-of-type(3) svg.plot")
    browser.hover(left + width / 2, top + height / 2)
    assert EVIL in browser.ask("document.querySelector('figure:nth-of-type(3) output').textContent")
    assert browser.ask("document.querySelectorAll('img').length") == 0
    assert browser.ask("document.title") == EVIL
    assert_quiet(browser)


def test_a_report_can_be_printed(browser: Browser, tmp_path: Path) -> None:
    browser.open(sweep.write(planted(tmp_path)))
    assert base64.b64decode(browser("Page.printToPDF")["data"]).startswith(b"%PDF")
    browser("Emulation.setEmulatedMedia", media="print")
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser("Emulation.setEmulatedMedia", media="")


def test_a_printed_run_has_at_most_four_pages(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    drawn = plots.training_curves(rows(30), tmp_path / "plots")
    shown = [Plot(drawn.path.rename(tmp_path / "plots" / "0.svg"), "0")]
    for number in range(1, 7):
        copy = tmp_path / "plots" / f"{number}.svg"
        copy.write_bytes(shown[0].path.read_bytes())
        shown.append(Plot(copy, str(number)))
    file = tmp_path / "run.html"
    columns = [{"name": f"column{number}", "type": "number", "use": "continuous"} for number in range(40)]
    file.write_text(
        render(
            summary={**COMPARED, "data": {"name": "flats.csv", "columns": columns}},
            history=rows(30, **{"valid/mae": 0.5, "valid/r2": 0.5}),
            config={f"setting{number}": number for number in range(200)},
            changed={"setting3": "2"},
            plots=shown,
        )
    )
    browser.open(file)
    printed = base64.b64decode(browser("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 4
    browser("Emulation.setEmulatedMedia", media="print")
    visible = "[...document.querySelectorAll('h2')].filter((e) => e.checkVisibility()).map((e) => e.textContent)"
    headings = browser.ask(visible)
    assert {"Curves", "Plots", "Configuration"} <= set(headings)
    assert not {"Epochs", "Columns"} & set(headings), "a heading of folded content alone is not printed"
    browser("Emulation.setEmulatedMedia", media="")


def test_a_printed_run_with_many_metrics_and_plots_has_four_pages_and_no_broken_headings(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "plots").mkdir()
    drawn = plots.training_curves(rows(3), tmp_path / "plots")
    copies = [tmp_path / "plots" / f"{number}.svg" for number in range(9)]
    for copy in copies:
        copy.write_bytes(drawn.path.read_bytes())
    metrics = {f"valid/{name}": 0.5 for name in ("pinball_loss", "coverage", "interval_width", "mae", "r2")}
    history = [row | {"lr": 1e-3, "seconds": 1.0, "examples_per_second": 100.0} for row in rows(3, **metrics)]
    file = tmp_path / "run.html"
    shown = [Plot(copy, copy.stem) for copy in copies]
    file.write_text(render(summary=COMPARED, history=history, config={"seed": 1}, changed={}, plots=shown))
    browser.open(file)
    printed = base64.b64decode(browser("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 4
    browser("Emulation.setEmulatedMedia", media="print")
    browser("Emulation.setDeviceMetricsOverride", width=711, height=1000, deviceScaleFactor=1, mobile=False)
    too_wide = "[...document.querySelectorAll('table')].filter((e) => e.getBoundingClientRect().right > innerWidth)"
    assert browser.ask(f"{too_wide}.length") == 0
    # Each word of a heading, from one possible break to the next, is on one line.
    broken = """[...document.querySelectorAll('.rows th')].flatMap((head) => {
        const texts = document.createTreeWalker(head, NodeFilter.SHOW_TEXT), found = [];
        while (texts.nextNode()) {
            const range = document.createRange();
            range.selectNodeContents(texts.currentNode);
            if (range.getClientRects().length > 1 && !/\\s/.test(range.toString().trim())) found.push(range.toString());
        }
        return found;
    })"""
    assert browser.ask(broken) == []
    browser("Emulation.setEmulatedMedia", media="")


def test_a_long_title_does_not_widen_the_page_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(render(title="tabular: " + "data.path=_a_long_folder_" * 8, summary=COMPARED))
    browser.open(file, 390)
    assert browser.ask("document.documentElement.scrollWidth") <= 390


def test_vector_plots_follow_the_scheme_and_run_no_script(browser: Browser, tmp_path: Path) -> None:
    drawn = plots.training_curves(rows(3), tmp_path)
    text = drawn.path.read_text()
    drawn.path.write_text(
        text.replace("</svg>", "<script>document.title='evil'; fetch('http://127.0.0.1:9')</script></svg>")
    )
    file = tmp_path / "run.html"
    file.write_text(render(plots=[drawn]))
    style = "getComputedStyle(document.querySelector('figure img'))"
    for scheme, shown in (("light", "none"), ("dark", "invert(0.9) hue-rotate(180deg)")):
        browser.open(file, scheme=scheme)
        assert browser.ask(f"{style}.filter") == shown
        assert browser.ask(f"{style}.backgroundColor") == "rgba(0, 0, 0, 0)"
        assert browser.ask("document.querySelector('figure img').naturalWidth") > 500, "it is drawn"
        assert browser.ask("document.title") == "a run"
        assert_quiet(browser)


def test_wide_and_long_content_is_not_cut_in_print(browser: Browser, tmp_path: Path) -> None:
    parent = tmp_path / "runs" / "collab"
    runs = [
        write_run(
            parent / f"{number}-{number:08x}",
            0.5 + number / 100,
            {
                "data.path": f"/a/rather/long/path/number/{number}.csv",
                **{f"model.setting{i}": number for i in range(4)},
            },
            others={f"valid/metric{i}": 0.1234 for i in range(6)},
        )
        for number in range(60)
    ]
    file = sweep.write(write_sweep(tmp_path / "runs" / "sweeps" / "mine", runs, failed=["no " * 50]))
    browser.open(file, 700, scheme="dark")
    hidden = "[...document.querySelectorAll('.wide')].filter((e) => e.scrollHeight > e.clientHeight + 1).length"
    assert browser.ask(hidden) > 0, "on a screen the long table scrolls"
    browser("Emulation.setEmulatedMedia", media="print")
    assert browser.ask(hidden) == 0
    assert browser.ask("document.documentElement.scrollWidth") <= 700
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser("Emulation.setEmulatedMedia", media="")


def test_hovering_shows_the_value_next_to_a_published_line(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "claim.html"
    claim = {"metric": "valid/rmse", "published": 0.3, "verdict": "reached"}
    file.write_text(render(summary={"claim": claim}, history=rows(12)))
    browser.open(file)
    figure = "figure:nth-of-type(2)"
    left, top, width, height = browser.place(f"{figure} svg.plot")
    browser.hover(left + width * 58 / 440, top + height / 2)
    legend = browser.ask(f"[...document.querySelectorAll('{figure} li')].map((item) => item.textContent)")
    assert legend == ["valid/rmse 1.1000", "published 0.3000"]
    assert browser.ask(f"document.querySelector('{figure} figcaption').textContent") == "valid/rmse epoch 1"
    assert_quiet(browser)
