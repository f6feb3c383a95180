"""The site, built once from the repository's results and a second machine's, and a browser to open it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from website.build import build_site
from website.source import Source, read_source

ROOT = Path(__file__).parents[2]
OTHER = "contributed/other-cpu-2026-01-01"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's results, and a run of the digits that another machine measured, whose last record is lost."""
    folder = shutil.copytree(ROOT / "results", tmp_path_factory.mktemp("website") / "results")
    other = shutil.copytree(ROOT / "tests/stored/digits", folder / OTHER)
    environment = json.loads((other / "environment.json").read_text())
    (other / "environment.json").write_text(json.dumps({**environment, "device_name": "Other <CPU>"}))
    lines = (other / "records.jsonl").read_text().splitlines(keepends=True)
    (other / "records.jsonl").write_text("".join(lines[:-1]))
    return folder


@pytest.fixture(scope="session")
def source(results: Path) -> Source:
    return read_source(results)


@pytest.fixture(scope="session")
def site(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(results, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as run:
        started = run.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


class Opened:
    """A page of the site opened from disk without a network, with its messages and requests."""

    def __init__(self, browser: Any, site: Path, width: int = 1280, scheme: str = "light") -> None:
        viewport = {"width": width, "height": 900}
        self.site = site
        self.context = browser.new_context(offline=True, viewport=viewport, color_scheme=scheme)
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def go(self, path: str) -> None:
        """Open a page, as in `leaderboard.html#q=tome`."""
        self.page.goto("about:blank")  # otherwise a change of the address after the # loads nothing
        self.page.goto(f"{self.site.as_uri()}/{path}")
        self.page.wait_for_load_state("load")


@pytest.fixture
def open_site(browser: Any, site: Path) -> Iterator[Callable[..., Opened]]:
    """Open a window: `open_site(width=390, scheme="dark")`."""
    opened: list[Opened] = []

    def opener(**settings: Any) -> Opened:
        opened.append(Opened(browser, site, **settings))
        return opened[-1]

    yield opener
    for one in opened:
        one.context.close()
