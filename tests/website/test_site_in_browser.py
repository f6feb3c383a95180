"""The site in a real browser, opened from disk: it fits, prints, is accessible and needs no network."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from conftest import Opened

Open = Callable[..., Opened]

PAPER_WIDTH = 718  # pixels of A4 within its margins
MOST_BYTES = 3_000_000  # of the first page


@pytest.fixture(scope="module")
def representative(site: Path) -> list[str]:
    """Every page at the top, and the first page of each folder."""
    folders = {folder for file in site.rglob("*.html") if (folder := file.parent) != site}
    pages = [file for file in sorted(site.glob("*.html")) if file.name != "404.html"]
    pages += [sorted(folder.glob("*.html"))[0] for folder in sorted(folders)]
    return [file.relative_to(site).as_posix() for file in pages]


def too_wide(opened: Opened, pages: list[str]) -> list[str]:
    """The pages whose content is wider than the window."""
    found = []
    for path in pages:
        opened.go(path)
        content, window = widths(opened)
        if content > window:
            found.append(f"{path}: {content} pixels")
    return found


def widths(opened: Opened) -> tuple[int, int]:
    """Width of the content and of the window."""
    found = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return found[0], found[1]


def test_no_page_is_wider_than_a_telephone_or_needs_a_network(open_site: Open, site: Path) -> None:
    opened = open_site(width=390, scheme="dark")
    pages = set(site.rglob("*.html")) - {site / "404.html"}  # a server shows that one, at any address
    assert too_wide(opened, sorted(file.relative_to(site).as_posix() for file in pages)) == []
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert len(opened.requests) > 100


def test_no_page_is_wider_than_a_desktop_s_window(open_site: Open, representative: list[str]) -> None:
    assert too_wide(open_site(width=1280), representative) == []


def violations(opened: Opened, path: str, **options: Any) -> list[tuple[str, str]]:
    """What axe-core finds on a page, each with the first element that it concerns."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    opened.go(path)
    found = axe.Axe().run(opened.page, options=options).response
    assert len(found["passes"]) >= 1
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]]


def test_axe_finds_nothing(open_site: Open, representative: list[str]) -> None:
    opened = open_site()
    assert {path: found for path in representative if (found := violations(opened, path))} == {}


@pytest.mark.parametrize("path", ["index.html", "leaderboard.html", "docs/adding-a-method.html"])
def test_dark_colours_have_contrast(path: str, open_site: Open) -> None:
    assert violations(open_site(scheme="dark"), path, runOnly=["color-contrast"]) == []


def test_pages_print_dark_on_white_within_the_paper(open_site: Open, representative: list[str]) -> None:
    opened = open_site(width=PAPER_WIDTH, scheme="dark")
    for path in representative:
        opened.go(path)
        opened.page.emulate_media(media="print", color_scheme="dark")
        content, window = widths(opened)
        assert content <= window, path
        colour = opened.page.eval_on_selector(".md-content p, .md-content li", "one => getComputedStyle(one).color")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 100, path
        assert not opened.page.locator(".md-header").is_visible()
        opened.page.emulate_media(media="screen", color_scheme="dark")


def test_the_first_page_is_small(open_site: Open) -> None:
    opened = open_site()
    opened.go("index.html")
    files = {Path(unquote(urlsplit(url).path)) for url in opened.requests if url.startswith("file:")}
    sizes = {file.name: file.stat().st_size for file in files}
    assert "index.html" in sizes
    assert any(name.endswith(".css") for name in sizes)
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_the_search_works_from_disk_and_by_keyboard(open_site: Open) -> None:
    opened = open_site()
    opened.go("index.html")
    opened.page.keyboard.press("s")
    opened.page.keyboard.type("parquet")
    opened.page.wait_for_selector(".md-search-result__item")
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_url("**/docs/*.html*")
    assert "parquet" in opened.page.locator(".md-content").inner_text()


def test_tables_that_are_too_wide_can_be_scrolled_by_keyboard(open_site: Open) -> None:
    opened = open_site(width=390)
    opened.go("index.html")
    box = opened.page.locator(".md-typeset__scrollwrap[tabindex='0']").first
    box.focus()
    before = box.evaluate("element => element.scrollLeft")
    opened.page.keyboard.press("ArrowRight")
    opened.page.wait_for_function(
        "([element, before]) => element.scrollLeft > before", arg=[box.element_handle(), before]
    )
