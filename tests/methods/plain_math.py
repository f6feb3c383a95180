"""What the tests of several methods share: random tensors, contexts, and formulas on lists of floats."""

import math

import torch
from torch import Tensor

from tokbench import Context, Tokens


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def at(stage: int) -> Context:
    return Context(depth=1 + stage, depths=(1, 2), stage=stage, noise=torch.empty(0))


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def gelu(value: float) -> float:
    return 0.5 * value * (1 + math.erf(value / math.sqrt(2)))


def merged(size: list[float], seed: int = 5, dim: int = 6) -> Tokens:
    """Three images with tokens that already represent several patches."""
    tokens = Tokens.from_sequence(noisy(3, 1 + int(sum(size)), dim, seed=seed).double(), (1, int(sum(size))))
    owner = [k for k, patches in enumerate(size) for _ in range(int(patches))]
    return tokens.merge(torch.tensor(owner).expand(3, -1), len(size))


def normed(token: list[float], gain: list[float], shift: list[float]) -> list[float]:
    mean = sum(token) / len(token)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in token) / len(token) + 1e-5)
    return [(v - mean) / deviation * g + b for v, g, b in zip(token, gain, shift, strict=True)]


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def context_of(keys: Tensor, depth: int) -> Context:
    return Context(depth=depth, depths=(depth,), stage=0, noise=torch.zeros(0), keys=keys)


def linear(weights: dict[str, list], name: str, x: list[float]) -> list[float]:
    rows = weights[f"{name}.weight"]
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + bias
        for row, bias in zip(rows, weights.get(f"{name}.bias", [0.0] * len(rows)), strict=True)
    ]
