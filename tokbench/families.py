"""Families of models: what differs in size only is compared in one chart."""

import re

from tokbench.model_names import place_of
from tokbench.names import EMBEDDED_MODELS

SIZE = re.compile(r"_(tiny|xsmall|small|medium|base|large|huge|giant|gigantic)(?=_|$)")
"""The size in timm's names of ViTs: `deit_tiny_patch16_224`, `vit_base_patch16_clip_224.openai`."""

WIDTH = re.compile(r"_\d+$")
"""The width in the names of tokbench's own models: `digits_deit_32`."""


def family_of(model: str) -> str:
    """The family of a model, as the name without the size: `deit_patch16_224` for `deit_tiny_patch16_224`.

    Another patch size, resolution, distillation or tag of the weights is another family. The names of tokbench's own
    models end with their width, unless they are the widest of their family. A model from a place, `hf-hub:user/name`,
    is a family of its own.
    """
    if model in EMBEDDED_MODELS:
        return WIDTH.sub("", model)
    if place_of(model):
        return model
    return SIZE.sub("", model, count=1)
