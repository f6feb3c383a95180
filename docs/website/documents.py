"""The pages of `docs/`, with their links to other files of the repository rewritten."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from website.findings import FINDINGS

FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")


def documents(folder: Path, repo_url: str) -> dict[str, str]:
    """The pages of the site that are written by hand.

    Args:
        folder: The repository's `docs/`.
        repo_url: Where the repository can be read, as in https://host/owner/name; empty if nowhere.

    Returns:
        Markdown, by its path below the site's folder: `docs/data.md`.
    """
    found = {
        file.name: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.md")) if file.name != FINDINGS
    }
    return {f"docs/{name}": rewrite_links(text, frozenset(found), repo_url) for name, text in found.items()}


def rewrite_links(text: str, pages: frozenset[str], repo_url: str) -> str:
    """A page of `docs/` with each link to a file that is not on the site turned into one to the repository.

    Without an address of the repository, such a link becomes its text and the file's path.

    Args:
        text: Markdown. Blocks of code stay as they are.
        pages: The names of the pages in `docs/`.
        repo_url: As for `documents`.
    """

    def rewritten(link: re.Match[str]) -> str:
        target, _, anchor = link["target"].partition("#")
        if not target or ":" in target or target in pages:
            return link[0]
        path = posixpath.normpath(posixpath.join("docs", target))
        if repo_url:
            return f"[{link['text']}]({repo_url.rstrip('/')}/blob/main/{path}{anchor and '#' + anchor})"
        plain = link["text"].replace("`", "")
        return f"`{path}`" if plain.rstrip("/") in (path, target) else f"{link['text']} (`{path}`)"

    parts = FENCE.split(text)
    return "".join(part if part.lstrip().startswith("```") else LINK.sub(rewritten, part) for part in parts)
