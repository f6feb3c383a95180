"""Images, logits and weights of small models, and the methods to put into them."""

import torch
from torch import Tensor, nn

from tokbench.registry import discover

METHODS = discover()[0]
AT = "stages(at=1-2)"


def images(batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module, seed: int = 0) -> Tensor:
    with torch.inference_mode():
        return model(images(seed=seed))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
