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


def kept_probabilities(weights: dict[str, list], x: list[list[float]]) -> list[float]:
    """π_i[0] of DynamicViT's network for each token of one image; weights by name, without the network's prefix."""
    dim = len(x[0])
    gain, shift = weights["inner.0.weight"], weights["inner.0.bias"]
    z = [[gelu(v) for v in linear(weights, "inner.1", normed(token, gain, shift))] for token in x]
    everywhere = [sum(row[c] for row in z) / len(z) for c in range(dim // 2, dim)]
    result = []
    for row in z:
        hidden = [gelu(v) for v in linear(weights, "outer.0", row[: dim // 2] + everywhere)]
        hidden = [gelu(v) for v in linear(weights, "outer.2", hidden)]
        result.append(softmax(linear(weights, "outer.4", hidden))[0])
    return result


def predictor_weights(state: dict[str, Tensor], stage: int) -> dict[str, list]:
    """The weights of one stage's network in the state of a method that has one in each."""
    prefix = f"predictors.{stage}."
    return {name[len(prefix) :]: value.tolist() for name, value in state.items() if name.startswith(prefix)}
