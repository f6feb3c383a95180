"""The built site is complete: every link leads somewhere, and nothing is loaded from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from website.build import CONFIG, navigation

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Elements that load something when a page is opened."""


class Page(HTMLParser):
    """The links, loaded files and anchors of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        target = values.get("href" if tag == "a" else LOADING.get(tag, ""))
        if target and values.get("rel") not in ("canonical", "edit"):
            (self.links if tag == "a" else self.loaded).append(target)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(pages: dict[Path, Page], site: Path) -> None:
    broken, checked = [], 0
    for file, page in pages.items():
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            checked += 1
            is_view = target == site / "leaderboard.html"  # what follows its # is no anchor
            known = pages[target].anchors if target in pages and not is_view else None
            if not target.is_file() or (parts.fragment and known is not None and unquote(parts.fragment) not in known):
                broken.append(f"{file.relative_to(site)}: {link}")
    assert broken == []
    assert checked > 20 * len(pages)


def test_pages_load_nothing_from_the_network(pages: dict[Path, Page]) -> None:
    loaded = [target for page in pages.values() for target in page.loaded]
    assert len(loaded) > 3 * len(pages)
    assert [target for target in loaded if urlsplit(target).scheme not in ("", "data") or target.startswith("//")] == []


def test_every_page_can_be_reached(pages: dict[Path, Page], site: Path) -> None:
    reached, waiting = set(), [site / "index.html"]
    while waiting:
        file = waiting.pop()
        if file in reached or file not in pages:
            continue
        reached.add(file)
        waiting += [(file.parent / unquote(urlsplit(link).path)).resolve() for link in pages[file].links]
    assert set(pages) - reached == set()


def test_every_document_is_in_the_navigation() -> None:
    """A page that is left out could not be found."""
    listed = CONFIG.read_text(encoding="utf-8")
    documents = {f"docs/{file.name}" for file in (CONFIG.parent / "docs").glob("*.md")} - {"docs/findings.md"}
    assert {name for name in documents if name not in listed} == set()


def test_a_folder_in_the_navigation_stands_for_its_pages() -> None:
    entries = yaml.safe_load("- Home: index.md\n- Methods: methods/\n- More:\n    - a.md\n")
    pages = dict.fromkeys(
        ["index.md", "methods/tome.md", "methods/index.md", "methods/x.webp", "methods/evit.md", "a.md"], ""
    )
    assert list(navigation(entries, pages)) == [
        {"Home": "index.md"},
        {"Methods": ["methods/index.md", "methods/evit.md", "methods/tome.md"]},
        {"More": ["a.md"]},
    ]
