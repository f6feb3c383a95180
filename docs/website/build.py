"""Builds the site: collects the pages from the docs and the generators, and runs MkDocs over them (`make site`)."""

from __future__ import annotations

import importlib
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from website.documents import documents
from website.source import Source, read_source

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "mkdocs.yml"
STATIC = Path(__file__).parent / "static"
DATATABLES = ROOT / "tokbench/report/html/vendor/datatables.js"
GENERATORS = ("findings", "leaderboard", "claims", "methods", "families", "runs")
"""Modules of this package with a function `pages(source) -> dict[str, str]`: path below the site's folder -> text."""


def build_site(results: Path, output: Path) -> Path:
    """Build the site.

    Args:
        results: The folder of results.
        output: Where the folders `pages`, the Markdown, and `site`, the site, are written; both are replaced.

    Returns:
        The site's folder.

    Raises:
        UserError: A run is damaged.
        SystemExit: MkDocs found something wrong with a page, for example a broken link.
    """
    folder, site = output / "pages", output / "site"
    config = load_config(str(CONFIG), docs_dir=str(_empty(folder)), site_dir=str(_empty(site)), strict=True)
    pages = {**documents(ROOT / "docs", config.repo_url or ""), **generated(read_source(results))}
    for path, text in pages.items():
        _write(folder / path, text)
    for images, place in ((ROOT / "docs", "docs"), (results / "maps", "maps")):
        _copy_pictures(images, folder / place)
    shutil.copytree(STATIC, folder / "static", ignore=shutil.ignore_patterns("README.md"))
    shutil.copy(DATATABLES, folder / "static/vendor")
    config.nav = list(navigation(config.nav or [], pages))
    try:
        build(config)
    except Abort as error:
        sys.exit(f"the site is not built: {error}")
    return site


def generated(source: Source) -> dict[str, str]:
    """The pages of all generators."""
    pages: dict[str, str] = {}
    for name in GENERATORS:
        pages |= importlib.import_module(f"{__package__}.{name}").pages(source)
    return pages


def navigation(entries: list[Any], pages: Mapping[str, str]) -> Iterator[Any]:
    """The navigation, with a folder (`methods/`) replaced by its pages, its index first."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
            continue
        ((title, below),) = entry.items()
        if isinstance(below, str) and below.endswith("/"):
            inside = [page for page in pages if page.startswith(below) and page.endswith(".md")]
            below = sorted(inside, key=lambda page: (not page.endswith("/index.md"), page))
        elif isinstance(below, list):
            below = list(navigation(below, pages))
        yield {title: below}


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _copy_pictures(folder: Path, place: Path) -> None:
    """Copy a folder's pictures, if there is such a folder."""
    for file in sorted(folder.glob("*")):
        if file.suffix in (".png", ".webp", ".svg"):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place / file.name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(build_site(ROOT / "results", ROOT / "build") / "index.html")
