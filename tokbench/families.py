"""Families of models: what differs in size only is compared in one chart."""

import re

from tokbench.model_names import place_of
from tokbench.names import EMBEDDED_MODELS

SIZE = re.compile(r"_(tiny|xsmall|small|medium|base|large|huge|giant|gigantic)(?=_|$)")
"""The size in timm's names of ViTs: `deit_tiny_patch16_224`, `vit_base_patch16_clip_224.openai`."""


def family_of(model: str) -> str:
    """The family of a model, as the name without the size: `deit_patch16_224` for `deit_tiny_patch16_224`.

    Another patch size, resolution, distillation or tag of the weights is another family. The models that come with
    tokbench are one family, named after the widest. A model from a place, `hf-hub:user/name`, is a family of its own.
    """
    if model in EMBEDDED_MODELS:
        return EMBEDDED_MODELS[0]
    if place_of(model):
        return model
    return SIZE.sub("", model, count=1)
