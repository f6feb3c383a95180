"""What a run reports its progress to."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Who shows the progress of a run; its methods return at once."""

    def announce(self, text: str) -> None:
        """A step of unknown length begins."""

    def planned(self, kind: str, total: int) -> None:
        """So many measurements of a kind begin."""

    def measuring(self, kind: str, key: str) -> None:
        """One of them begins."""

    def measured(self, kind: str, count: int = 1) -> None:
        """So many of them have ended."""


class Silent:
    """An observer that shows nothing."""

    def announce(self, text: str) -> None:
        """See `Observer`."""

    def planned(self, kind: str, total: int) -> None:
        """See `Observer`."""

    def measuring(self, kind: str, key: str) -> None:
        """See `Observer`."""

    def measured(self, kind: str, count: int = 1) -> None:
        """See `Observer`."""
