"""The report's page in a real browser: charts, sorting and filtering work, nothing is fetched or executed."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stored_results import REFERENCE, write_plan

from tokbench.report.html.page import render_page
from tokbench.results import PlannedRow, Results, load
from tokbench.results.plan import read_plan

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
HOSTILE = (
    "<script>window.__x = 1</script><img src=x onerror='window.__x = 1'>&lt;img src=x onerror='window.__x = 1'&gt;\""
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as run:
        started = run.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the embedded suite, with a picture."""
    results = shutil.copytree(REFERENCE, tmp_path_factory.mktemp("report") / "embedded")
    Image.new("RGB", (900, 300), "orange").save(results / "tokens.png")
    file = results / "report.html"
    file.write_text(render_page(load(results)), encoding="utf-8")
    return file


class Opened:
    """A page opened without a network, with its console messages, errors and requests."""

    def __init__(self, browser: Any, file: Path, width: int = 1280, **settings: Any) -> None:
        viewport = {"width": width, "height": 900}
        self.context = browser.new_context(offline=True, viewport=viewport, **settings)
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("#rows-table.dataTable")

    def draw(self) -> None:
        """Scroll to every chart, so that it is drawn."""
        for chart in self.page.query_selector_all(".chart"):
            chart.scroll_into_view_if_needed()
            chart.wait_for_selector("svg.main-svg")

    def column(self, name: str, part: str = "textContent") -> list[str]:
        """The texts of a column from top to bottom."""
        place = self.page.eval_on_selector_all(
            "#rows-table th", "(heads, n) => heads.findIndex(h => h.title === n)", name
        )
        script = f"(rows, place) => rows.map(row => row.cells[place].{part})"
        texts: list[str] = self.page.eval_on_selector_all("#rows-table tbody tr", script, place)
        return texts

    def numbers(self, name: str) -> list[float]:
        """A column's exact numbers; the texts are rounded."""
        return [float(text) if text else -math.inf for text in self.column(name, "dataset.order")]

    def click_heading(self, name: str, order: str = "") -> None:
        """Click a heading and wait for the order that this gives, by default the original one."""
        self.page.click(f"#rows-table th[title={name}]")
        state = f"[aria-sort={order}]" if order else ":not([aria-sort])"
        self.page.wait_for_selector(f"#rows-table th[title={name}]{state}")

    def show_all_rows(self) -> None:
        self.page.select_option("#rows .dt-length select", "-1")


@pytest.fixture(scope="module")
def opened(browser: Any, written: Path) -> Iterator[Opened]:
    """A page whose charts are not drawn yet. The tests leave its rows in their order, unfiltered, 30 to a page."""
    one = Opened(browser, written)
    yield one
    one.context.close()


@pytest.fixture(scope="module")
def wide(browser: Any, written: Path) -> Iterator[Opened]:
    """A page in a wide, light window, with all charts drawn."""
    one = Opened(browser, written)
    one.draw()
    yield one
    one.context.close()


@pytest.fixture(scope="module")
def narrow(browser: Any, written: Path) -> Iterator[Opened]:
    """A page in a narrow, dark window, with all charts drawn. The tests leave it dark."""
    one = Opened(browser, written, 390, color_scheme="dark")
    one.draw()
    yield one
    one.context.close()


def test_all_charts_are_drawn_without_errors_or_requests(wide: Opened, reference: Results) -> None:
    charts = wide.page.locator(".chart")
    assert charts.count() >= 5
    assert wide.page.locator(".chart:has(svg.main-svg)").count() == charts.count()
    # The charts have points.
    assert wide.page.locator("#compute .scatterlayer .points path").count() >= len(reference.table) / 3
    assert wide.page.eval_on_selector("#pictures img", "image => image.naturalWidth") == 900
    assert wide.messages == []
    assert [url for url in wide.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_charts_are_only_drawn_near_the_window(opened: Opened) -> None:
    charts = opened.page.locator(".chart")
    assert opened.page.locator(".chart:has(svg.main-svg)").count() < charts.count()


def test_clicking_a_heading_sorts_by_number(opened: Opened, reference: Results) -> None:
    opened.show_all_rows()
    table = reference.table
    for name in ("latency_ms", "gmacs", "delta_top1"):
        measured = sorted(table[name])
        assert opened.numbers(name) != pytest.approx(measured)
        opened.click_heading(name, "ascending")
        assert opened.numbers(name) == pytest.approx(measured)
        opened.click_heading(name, "descending")
        assert opened.numbers(name) == pytest.approx(measured[::-1])
    # Sorting as text would give another order.
    texts = [text.split()[0] for text in opened.column("delta_top1")]
    assert texts != sorted(texts, reverse=True)
    opened.click_heading("delta_top1")
    assert opened.numbers("delta_top1") == pytest.approx(table["delta_top1"].tolist())
    opened.page.select_option("#rows .dt-length select", "30")


def test_typing_filters(opened: Opened, reference: Results) -> None:
    table = reference.table
    wanted = table["params"].str.contains("kmeans").sum()
    assert 0 < wanted < len(table)
    opened.page.locator("#rows input[type=search]").fill("kmeans")
    assert len(opened.column("method")) == wanted
    assert all("kmeans" in text for text in opened.column("method"))
    opened.page.locator("#rows input[type=search]").fill("nothing is called so")
    assert opened.page.locator("#rows-table tbody tr").inner_text().startswith("No matching")
    opened.page.locator("#rows input[type=search]").fill("")
    assert len(opened.column("method")) == 30


def test_hidden_columns_can_be_shown(opened: Opened, reference: Results) -> None:
    assert opened.page.locator("#rows-table th[title=images_per_s]").count() == 0
    opened.page.locator("#rows .columns").click()
    opened.page.locator(".dt-button-collection").get_by_text("img/s", exact=True).click()
    assert opened.page.locator("#rows-table th[title=images_per_s]").is_visible()
    assert opened.numbers("images_per_s") == pytest.approx(reference.table["images_per_s"][:30].tolist())


@pytest.mark.parametrize("window", ["wide", "narrow"])
def test_the_page_fits_the_window(request: pytest.FixtureRequest, window: str) -> None:
    one = request.getfixturevalue(window)
    assert one.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wider = (
        "charts => charts.filter(c => c.querySelector('.main-svg').getBoundingClientRect().width > innerWidth).length"
    )
    assert one.page.eval_on_selector_all(".chart", wider) == 0
    assert one.messages == []


def test_the_button_switches_between_dark_and_light(narrow: Opened) -> None:
    page = narrow.page
    ground = "getComputedStyle(document.body).backgroundColor"
    text = "getComputedStyle(document.querySelector('#compute .xtitle')).fill"
    dark = page.evaluate(ground), page.evaluate(text)
    page.click("#theme")
    light = page.evaluate(ground), page.evaluate(text)
    assert light[0] == "rgb(255, 255, 255)"
    assert sum(brightness(dark[0])) < 120 < 600 < sum(brightness(dark[1]))
    assert sum(brightness(light[1])) < 200
    page.click("#theme")
    assert (page.evaluate(ground), page.evaluate(text)) == dark


def brightness(colour: str) -> list[float]:
    return [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def test_the_printed_page_has_all_charts_and_rows(browser: Any, written: Path, reference: Results) -> None:
    one = Opened(browser, written, color_scheme="dark")
    one.page.evaluate("""() => addEventListener('beforeprint', () => {
        const drawings = [...document.querySelectorAll('.chart .main-svg')];
        window.printed = {
            charts: document.querySelectorAll('.chart:has(.main-svg)').length,
            widest: Math.max(...drawings.map(drawing => drawing.getBoundingClientRect().width)),
            rows: document.querySelectorAll('#rows-table tbody tr').length,
            dark: document.documentElement.classList.contains('dark'),
        };
    })""")
    assert one.page.pdf(format="A4").startswith(b"%PDF")
    printed = one.page.evaluate("window.printed")
    assert printed["charts"] == one.page.locator(".chart").count()
    assert printed["widest"] <= 703  # A4 within margins of 12 mm
    assert printed["rows"] == len(reference.table)
    assert not printed["dark"]
    # Afterwards the view is restored.
    assert one.page.evaluate("document.documentElement.classList.contains('dark')")
    assert len(one.column("method")) == 30
    widths = "charts => charts.map(c => c.querySelector('.main-svg').getBoundingClientRect().width - c.clientWidth)"
    assert all(abs(difference) < 1 for difference in one.page.eval_on_selector_all(".chart", widths))
    assert one.messages == []
    one.context.close()


def test_hostile_names_are_shown_but_not_executed(browser: Any, tmp_path: Path) -> None:
    results = shutil.copytree(REFERENCE, tmp_path / "results")
    plan = read_plan(results)
    long = HOSTILE + "n" * 1_000  # many times the width of the window

    def changed(row: PlannedRow) -> PlannedRow:
        if row.id.method == "grid_pooling":
            return replace(row, id=replace(row.id, method=long))
        return replace(row, failed=long) if row.id.method == "random_selection" else row

    suite = plan.suite.model_copy(update={"description": long})
    write_plan(results, replace(plan, suite=suite, rows=tuple(map(changed, plan.rows))))
    file = tmp_path / "report.html"
    file.write_text(render_page(load(results)), encoding="utf-8")
    one = Opened(browser, file)
    one.draw()
    assert HOSTILE in one.page.locator("#rows-table tbody").text_content()
    one.click_heading("method", "ascending")
    one.page.locator("#rows input[type=search]").fill("onerror")
    assert len(one.column("method")) >= 3
    for width in (1280, 390):
        one.page.set_viewport_size({"width": width, "height": 900})
        one.page.locator("#compute .points path").first.hover(force=True)
        one.page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        one.page.wait_for_timeout(100)
        assert one.page.evaluate("window.__x") is None
    assert one.messages == []
    assert [url for url in one.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    one.context.close()
