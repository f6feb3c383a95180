"""The pages of `docs/`, which are written for GitHub, made ready for the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from pathlib import Path

from website.findings import FINDINGS

FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
CODE = re.compile(r"`[^`\n]+`")
# A list may follow a line of text on GitHub; MkDocs wants an empty line between them.
LIST_BELOW_TEXT = re.compile(r"^((?![-*] |\d+\. )[^\s|].*\n)(?=(?:[-*]|\d+\.) )", re.MULTILINE)


def documents(folder: Path, repo_url: str) -> dict[str, str]:
    """The pages of the site that are written by hand.

    Args:
        folder: The repository's `docs/`.
        repo_url: Where the repository can be read, as in https://host/owner/name; empty if nowhere.

    Returns:
        Markdown, by its path below the site's folder: `docs/data.md`.
    """
    files = [file for file in sorted(folder.glob("*.md")) if file.name != FINDINGS]
    names = [file.name for file in files]
    return {f"docs/{file.name}": for_site(file.read_text(encoding="utf-8"), names, repo_url) for file in files}


def for_site(text: str, pages: Collection[str], repo_url: str) -> str:
    """A page of `docs/` as MkDocs reads it.

    A link to a file that is not on the site becomes one to the repository; without an address of the repository, it
    becomes its text and the file's path. Blocks of code stay as they are.

    Args:
        text: Markdown as GitHub reads it.
        pages: The names of the pages in `docs/`.
        repo_url: As for `documents`.
    """

    def linked(link: re.Match[str]) -> str:
        target, hash_sign, anchor = link["target"].partition("#")
        if not target or ":" in target or target in pages:
            return link[0]
        path = posixpath.normpath(posixpath.join("docs", target))
        if repo_url:
            return f"[{link['text']}]({repo_url.rstrip('/')}/blob/main/{path}{hash_sign}{anchor})"
        plain = link["text"].replace("`", "").rstrip("/")
        return f"`{path}`" if plain in (path, target.rstrip("/")) else f"{link['text']} (`{path}`)"

    def converted(part: str) -> str:
        part = CODE.sub(lambda code: code[0].replace("\\|", "|"), part)  # GitHub wants pipes in tables escaped
        return LINK.sub(linked, LIST_BELOW_TEXT.sub(r"\1\n", part))

    return "".join(part if part.lstrip().startswith("```") else converted(part) for part in FENCE.split(text))
