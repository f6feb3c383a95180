"""Images that could not be decoded, in this run or an earlier one: they are left out of all rows."""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.data.loading import Unreadable, check_unreadable
from tokbench.data.sets import ImageSet
from tokbench.results.store import UNREADABLE_IMAGE, RecordWriter


@dataclass(frozen=True, eq=False)
class LostImages:
    """The images of a set that could not be decoded.

    Attributes:
        images: The set.
        records: Where they are written down.
    """

    images: ImageSet
    records: RecordWriter

    def all(self) -> list[Unreadable]:
        """Each with the reason."""
        found = {name: self.records.get(*self._place(name)) or {} for name in self.images.names}
        return [Unreadable(name, str(record["reason"])) for name, record in found.items() if record.get("reason")]

    def add(self, image: Unreadable) -> None:
        """Write one down.

        Raises:
            DataError: More than 1 % of the images cannot be decoded.
        """
        self.records.add(*self._place(image.name), {"reason": image.reason})
        self.check()

    def check(self) -> None:
        """Stop a run that has lost more than 1 % of its images.

        Raises:
            DataError: Names the first of them.
        """
        check_unreadable(self.all(), len(self.images))

    def try_again(self) -> frozenset[int]:
        """Decode them again; the positions of those that still cannot be."""
        lost = {image.name for image in self.all()}
        still = set()
        for position, name in enumerate(self.images.names):
            if name in lost and self._decodes(position):
                self.records.add(*self._place(name), {"reason": ""})
            elif name in lost:
                still.add(position)
        return frozenset(still)

    def _decodes(self, position: int) -> bool:
        try:
            self.images.reader.read(position)
        except Exception:  # decoders raise almost any exception on a damaged file
            return False
        return True

    def _place(self, name: str) -> tuple[str, str]:
        return UNREADABLE_IMAGE, f"{self.images.identity}/{name}"
