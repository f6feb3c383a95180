"""Images that were found but have no classes yet: which classes there are may depend on the models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tokbench.data.errors import UnlabelledError
from tokbench.data.image_set import ImageSet
from tokbench.data.labelling import Labelled, Labelling
from tokbench.data.labels import recognise
from tokbench.data.names import in_utf8
from tokbench.data.readers import Reader

__all__ = ["FoundImages"]


@dataclass(frozen=True, eq=False)
class FoundImages:
    """Images without their classes.

    Attributes:
        names: Of the images, in order.
        reader: Decodes the image at a position.
        ignored: How many files were left out, by their suffix.
        classes: Gives the class of each image, from what is known of the classes.
        kind: The name of the set; empty for how the images give their classes.
    """

    names: tuple[str, ...]
    reader: Reader
    ignored: Mapping[str, int]
    classes: Callable[[Labelling], Labelled]
    kind: str = ""

    def with_classes(self, labelling: Labelling) -> ImageSet:
        """The image set.

        Args:
            labelling: With the outputs and names of the models.

        Raises:
            DataError: A label means no class, or some images have a known class and others none.
        """
        names = tuple(map(in_utf8, self.names))
        try:
            labelled = self.classes(labelling)
        except UnlabelledError as error:
            return ImageSet("unlabelled", names, (-1,) * len(names), None, self.reader, self.ignored, str(error))
        kind = self.kind or labelled.kind
        name, classes = recognise(kind, labelled.labels) if labelled.imagenet else (kind, None)
        return ImageSet(
            name,
            names,
            labelled.labels,
            classes,
            self.reader,
            self.ignored,
            class_names=labelled.class_names,
            class_count=labelled.class_count,
            notes=labelled.notes,
        )
