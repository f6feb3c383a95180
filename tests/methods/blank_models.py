"""Models for counting MACs, which do not depend on the weights."""

import timm
import torch
from timm.models.vision_transformer import VisionTransformer


def blank(name: str) -> VisionTransformer:
    """A model with all parameters zero: MACs do not depend on them, and drawing random ones is slow."""
    with torch.device("meta"):
        vit = timm.create_model(name, pretrained=False)
    vit = vit.to_empty(device="cpu").eval()
    for parameter in vit.parameters():
        torch.nn.init.zeros_(parameter)
    return vit
