"""What a section of the page consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tokbench.report.html.grid import Grid


@dataclass(frozen=True)
class Chart:
    """A figure as JSON that is safe inside a script element, with its height in pixels."""

    name: str
    figure: Markup
    height: int


@dataclass(frozen=True)
class LabelledText:
    """A text with a label."""

    label: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI."""

    name: str
    data: str


@dataclass(frozen=True)
class Section:
    """A section of the page, with any of these parts, shown in this order.

    Attributes:
        name: The anchor of links to it.
        title: Its heading.
        lead: What it shows and how to read it.
        charts: Figures.
        grid: A table.
        items: Labelled lines of text.
        summary: If not empty, the items are folded, and this text opens them.
        pictures: Pictures.
        commands: Shell commands, or the content of a file.
    """

    name: str
    title: str
    lead: str = ""
    charts: tuple[Chart, ...] = ()
    grid: Grid | None = None
    items: tuple[LabelledText, ...] = ()
    summary: str = ""
    pictures: tuple[Picture, ...] = ()
    commands: tuple[LabelledText, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.items or self.charts or (self.grid and self.grid.rows) or self.pictures or self.commands)


@dataclass(frozen=True)
class RunPart:
    """The part of the page about one run.

    Attributes:
        sections: Its sections.
        facts: The main facts.
        missing: What is not measured yet; empty if nothing.
        command: Measures what is missing.
        name: The anchor of links to it.
        title: Its heading; empty for the page's own part, which has none.
    """

    sections: Sequence[Section]
    facts: Sequence[LabelledText] = ()
    missing: Sequence[str] = ()
    command: str = ""
    name: str = ""
    title: str = ""
