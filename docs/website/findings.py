"""The first page: what was found, with the table and the command behind each finding."""

from __future__ import annotations

from pathlib import Path

from website.source import Source

FINDINGS = "findings.md"


def pages(source: Source) -> dict[str, str]:
    """The first page."""
    written = Path(__file__).parents[1] / FINDINGS
    return {"index.md": written.read_text(encoding="utf-8")}
