"""Names of models that are places: a repository of the Hugging Face hub, or a folder."""

import hashlib
import re

HUB, FOLDER = "hf-hub", "local-dir"
SOURCES = (HUB, FOLDER)
"""Before the colon, as timm writes them: `hf-hub:user/name`, `local-dir:/data/my-model`."""


def place_of(model: str) -> tuple[str, str] | None:
    """The source and the place in it; None for the name of an architecture."""
    source, colon, place = model.partition(":")
    return (source, place) if colon and source in SOURCES else None


def file_stem(model: str) -> str:
    """The name for the beginning of a file's name; one with a path gets a hash, so that no two become one."""
    safe = re.sub(r"[^\w.+-]+", "_", model)
    if safe == model:
        return model
    return f"{safe[-60:].strip('._')}-{hashlib.sha256(model.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
