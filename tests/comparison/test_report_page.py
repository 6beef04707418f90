"""The report in a headless Chromium: light and dark, on a phone, sorted, with rows hidden, printed."""

import base64
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from synthetic import make_record, make_study, write_records

from mtlrun.cli.main import dispatch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]
NAMES = ["equal", "mgda", "dwa", "pcgrad", "cagrad", "famo"]
COLUMN = "[...document.querySelector('table').tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[{}].{})"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of six methods, one of which diverged for one seed, and single-task networks."""
    folder = tmp_path_factory.mktemp("report")
    records = make_study({name: 0.8 + number / 100 for number, name in enumerate(NAMES)})
    records += make_study({"single": 0.78}, key="model")
    records[3] = make_record(0, weighting="mgda", status="diverged", error="<script>alert(1)</script>")
    write_records(folder / "outputs", records)
    assert dispatch(["report", str(folder / "outputs"), "-o", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(shared, page):
    show(shared, page, width=1200, scheme="light")
    yield shared
    assert shared.errors == []
    assert shared.evaluate("performance.getEntriesByType('resource').length") == 0  # nothing was loaded


def show(browser, page, *, width, scheme):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.call("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(f"file://{Path(page).resolve()}")
    browser.wait_for("document.readyState === 'complete' && document.querySelector('.controls') !== null")


def brightness(browser, expression):
    """Return the brightness, from 0 to 255, of a color rgb(r, g, b)."""
    return browser.evaluate(f"{expression}.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 3")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_in_dark(browser, page, scheme):
    show(browser, page, width=1200, scheme=scheme)
    paper, ink, picture = (
        brightness(browser, f"getComputedStyle(document.querySelector('{selector}')).{name}")
        for selector, name in (("body", "backgroundColor"), ("body", "color"), ("figure svg", "fill"))
    )
    assert (paper > 200) == (scheme == "light")
    assert abs(paper - ink) > 150
    assert abs(paper - picture) > 150


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_the_page_is_never_wider_than_its_window(browser, page, width):
    show(browser, page, width=width, scheme="light")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    if width < 400:  # what is wide can be scrolled in its place
        assert browser.evaluate(
            "[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
        )


def test_rows_are_sorted_by_any_column_and_with_the_keyboard(browser):
    titles = browser.evaluate("[...document.querySelector('table').tHead.rows[0].cells].map(cell => cell.textContent)")
    place = titles.index("left accuracy ↑")
    head = f"document.querySelector('table').tHead.rows[0].cells[{place}]"
    before = browser.evaluate(COLUMN.format(0, "textContent"))
    values = browser.evaluate(COLUMN.format(place, "dataset.sort").replace("=> row.", "=> +row."))
    browser.evaluate(f"{head}.querySelector('button').focus()")
    for expected, state in ((sorted(values), "ascending"), (sorted(values, reverse=True), "descending")):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13,
                     text="\r")  # fmt: skip
        browser.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)
        assert browser.evaluate(f"{head}.getAttribute('aria-sort')") == state
        assert browser.evaluate(COLUMN.format(place, "dataset.sort").replace("=> row.", "=> +row.")) == expected
    browser.evaluate(f"{head}.querySelector('button').click()")
    assert browser.evaluate("document.querySelectorAll('[aria-sort]').length") == 0
    assert browser.evaluate(COLUMN.format(0, "textContent")) == before


def test_rows_are_hidden_and_come_back(browser):
    every = browser.evaluate(COLUMN.format(0, "dataset.text"))
    assert set(NAMES) <= set(every)
    hide = "document.querySelector('table [aria-label^=\"Hide mgda\"]').click()"
    browser.evaluate(hide)
    assert browser.evaluate(COLUMN.format(0, "dataset.text")) == [name for name in every if name != "mgda"]
    assert browser.evaluate("document.activeElement.textContent") == "Show all rows (1 hidden)"
    browser.evaluate(
        "(() => { const field = document.querySelector('.controls input'); field.value = 'GRAD';"
        " field.dispatchEvent(new Event('input')) })()"
    )
    assert set(browser.evaluate(COLUMN.format(0, "dataset.text"))) == {"pcgrad", "cagrad"}
    browser.evaluate("document.activeElement.click()")
    assert browser.evaluate(COLUMN.format(0, "dataset.text")) == every


def test_everything_is_named_for_who_does_not_see_it(browser):
    lacking = """[...document.querySelectorAll('{}')].filter(part => !({})).map(part => part.outerHTML.slice(0, 99))"""
    for selector, condition in {
        "table": "part.caption && part.caption.textContent.trim()",
        "thead th": "part.scope === 'col'",
        "tbody th": "part.scope === 'row'",
        "button": "part.getAttribute('aria-label') || part.textContent.trim()",
        "input": "part.closest('label')",
        "svg": "part.getAttribute('role') === 'img' && part.getAttribute('aria-label')",
        "section": "document.getElementById(part.getAttribute('aria-labelledby'))",
    }.items():
        assert browser.evaluate(f"document.querySelectorAll('{selector}').length") > 0
        assert browser.evaluate(lacking.format(selector, condition)) == []


def test_it_prints(browser):
    printed = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.evaluate("getComputedStyle(document.querySelector('.controls')).display") == "none"
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
