"""Methods to test the backbone with, and a plain reference of its forward pass."""

import dataclasses
import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokbench import Context, Downsampler, Geometry, Tokens

SITES = ("before_block", "after_attention", "after_block")
FIELDS = ("keys", "values", "attention", "cls_attention", "received", "update")


def images(batch: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor) -> bool:
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=1e-5, atol=1e-5)


# Methods to test with


class Toy(Downsampler):
    """Selects or merges by a simple rule, and records its arguments."""

    def __init__(self, kind: str = "select", proportional: bool = False, needs: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.name = f"toy_{kind}"
        self.kind, self.proportional, self.needs = kind, proportional, frozenset(needs)
        self.contexts: list[Context] = []
        self.given: list[Tokens] = []
        self.keeps: list[int] = []
        self.geometries: list[Geometry] = []

    def setup(self, geometry: Geometry) -> None:
        self.geometries.append(geometry)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.contexts.append(context)
        self.given.append(tokens)
        self.keeps.append(keep)
        if self.kind == "merge":  # neighbours, into groups of equal size, as far as possible
            group = torch.arange(tokens.n_patches) * keep // tokens.n_patches
            return tokens.merge(group.expand(tokens.size.shape), keep)
        if self.kind == "noise":
            return tokens.select(context.noise.topk(keep).indices.sort().values)
        return tokens.select(tokens.patches[..., 0].topk(keep).indices.sort().values)


def reduce_plainly(
    kind: str, x: list[Tensor], size: list[float], keep: int, prefix: int
) -> tuple[list[Tensor], list[float]]:
    """The reduction of `Toy`, for one image's list of vectors."""
    patches = x[prefix:]
    if kind == "select":
        best = sorted(range(len(patches)), key=lambda i: -float(patches[i][0]))[:keep]
        return x[:prefix] + [patches[i] for i in sorted(best)], [size[i] for i in sorted(best)]
    merged, sizes = [], []
    for k in range(keep):
        group = [i for i in range(len(patches)) if i * keep // len(patches) == k]
        sizes.append(sum(size[i] for i in group))
        merged.append(sum(size[i] * patches[i] for i in group) / sizes[-1])
    return x[:prefix] + merged, sizes


# The reference forward pass


@dataclasses.dataclass
class Inside:
    """One image's attention in one block, per head, and what its two layers added to the tokens."""

    keys: Tensor  # (H, n, Dh)
    values: Tensor  # (H, n, Dh)
    matrix: Tensor  # (H, n, n)
    updates: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # (n, D), by the site that reads them


def attend_plainly(attention: nn.Module, x: Tensor, bias: Tensor) -> tuple[Tensor, Inside]:
    """Explicit softmax attention, head by head, of x (n, D) with bias (n) on each key."""
    width, heads = attention.num_heads * attention.head_dim, attention.num_heads
    weight = attention.qkv.weight
    offset = attention.qkv.bias if attention.qkv.bias is not None else weight.new_zeros(3 * width)
    outputs, inside = [], []
    for h in range(heads):
        lines = [
            slice(part * width + h * attention.head_dim, part * width + (h + 1) * attention.head_dim)
            for part in range(3)
        ]
        q, k, v = (x @ weight[line].T + offset[line] for line in lines)
        q, k = attention.q_norm(q), attention.k_norm(k)
        logits = q @ k.T / math.sqrt(attention.head_dim) + bias
        exponentials = (logits - logits.max(dim=1, keepdim=True).values).exp()
        matrix = exponentials / exponentials.sum(dim=1, keepdim=True)
        outputs.append(matrix @ v)
        inside.append((k, v, matrix))
    out = attention.proj(attention.norm(torch.cat(outputs, dim=1)))
    return out, Inside(*(torch.stack(part) for part in zip(*inside, strict=True)))


def run_plainly(
    vit: VisionTransformer, image: Tensor, site: str, keeps: dict[int, int], kind: str, proportional: bool
) -> tuple[Tensor, list[Inside], list[int]]:
    """Logits of one image, each block's attention, and the patch tokens after each block."""
    prefix = vit.num_prefix_tokens
    rows = list(vit.norm_pre(vit._pos_embed(vit.patch_embed(image[None])))[0])
    size = [1.0] * (len(rows) - prefix)
    inside, leaving = [], []
    for depth, block in enumerate(vit.blocks):

        def act(
            here: str, rows: list[Tensor], size: list[float], depth: int = depth
        ) -> tuple[list[Tensor], list[float]]:
            if here == site and depth in keeps and keeps[depth] < len(size):
                return reduce_plainly(kind, rows, size, keeps[depth], prefix)
            return rows, size

        rows, size = act("before_block", rows, size)
        x = torch.stack(rows)
        bias = torch.tensor([0.0] * prefix + [math.log(s) if proportional else 0.0 for s in size], dtype=x.dtype)
        update, seen = attend_plainly(block.attn, block.norm1(x), bias)
        inside.append(seen)
        seen.updates["after_attention"] = block.ls1(update)
        rows, size = act("after_attention", list(x + block.ls1(update)), size)
        x = torch.stack(rows)
        seen.updates["after_block"] = seen.updates["before_block"] = block.ls2(block.mlp(block.norm2(x)))
        rows, size = act("after_block", list(x + seen.updates["after_block"]), size)
        leaving.append(len(size))
    x = vit.norm(torch.stack(rows))
    if vit.global_pool == "avg":
        mass = [1.0] * prefix * vit.pool_include_prefix + size
        x = x[0 if vit.pool_include_prefix else prefix :]
        pooled = sum(m * row for m, row in zip(mass, x, strict=True)) / sum(mass)
    else:
        pooled = x[0]
    return vit.head(vit.fc_norm(pooled)), inside, leaving
