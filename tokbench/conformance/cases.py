"""Test inputs for methods: tokens that form clusters, the attention between them, and a small ViT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from tokbench.conformance.result import SkipError
from tokbench.conformance.subject import Subject
from tokbench.context import FIELDS, Context
from tokbench.downsampler import Downsampler, Geometry, Reduction
from tokbench.schedule import Schedule, planned_counts
from tokbench.tokens import Tokens
from tokbench.vit.adapters import TimmViT
from tokbench.vit.attention import AttentionProbe, Heads, log_size_bias
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import calibrate
from tokbench.vit.noise import uniform

M = TypeVar("M", bound=torch.nn.Module)

HEADS, WIDTH = 4, 8
DIM = HEADS * WIDTH
DEPTHS = (1, 2)  # not 0: methods that act before a block need a previous block
BLOCKS = 4  # includes one block after the last reduction
SPREAD = 0.4  # standard deviation of tokens around their cluster centre; centres have 1
CALIBRATION = 9  # seed of the tokens and images that methods are calibrated on, unlike those of the checks
SMALL: dict[str, Any] = {
    "img_size": 24,
    "patch_size": 4,
    "embed_dim": DIM,
    "depth": BLOCKS,
    "num_heads": HEADS,
    "num_classes": 5,
}
SHARPNESS = 2.0  # a factor of the logits of the attention


@dataclass(frozen=True)
class Case:
    """A set of tokens to reduce.

    Attributes:
        grid: (h, w) of the image's patches.
        keep: K.
        prefix: P.
        batch: B.
        dtype: Type of the tokens and of the method's weights.
        device: Device of the tokens and of the method.
        scale: A factor of the tokens.
    """

    grid: tuple[int, int] = (6, 6)
    keep: int = 16
    prefix: int = 1
    batch: int = 3
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    scale: float = 1.0

    @property
    def n(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"N={self.n}, K={self.keep}, {self.prefix} prefix tokens, {self.batch} images, {dtype}"

    def tokens(self, seed: int = 0) -> Tokens:
        """Tokens in a few clusters, different for each seed and image; the same numbers for every dtype."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        clusters = max(2, self.n // 4)
        member = torch.randint(clusters, (self.batch, self.n), generator=generator)
        centres = normal(self.batch, clusters, DIM)
        patches = centres.gather(1, member[..., None].expand(-1, -1, DIM)) + SPREAD * normal(self.batch, self.n, DIM)
        x = self.scale * torch.cat([normal(self.batch, self.prefix, DIM), patches], dim=1)
        return Tokens.from_sequence(x.to(self.device, self.dtype), self.grid, self.prefix)

    def method(self, subject: Subject, seed: int = 0) -> Downsampler:
        """The method, set up for two reductions, with perturbed weights."""
        with seeded(seed):
            method = subject.create()
            schedule = Schedule.explicit((self.keep, max(1, self.keep // 2)), DEPTHS)
            counts = planned_counts(schedule, method, BLOCKS, self.grid)
            method.setup(Geometry(DIM, HEADS, DEPTHS, self.grid, counts))
        method = perturbed(method, seed).to(self.device, self.dtype).eval()
        if method.calibrated:
            method.calibrate(partial(self._run, method))
        return method

    def _run(self, method: Downsampler, reduction: Reduction) -> None:
        """Reduce the tokens that a method is calibrated on."""
        tokens = self.tokens(CALIBRATION)
        reduction(tokens, self.keep, context_of(method, tokens))


def context_of(
    method: Downsampler,
    tokens: Tokens,
    *,
    fields: frozenset[str] = frozenset(FIELDS),
    seed: int = 0,
    ids: Tensor | None = None,
    noise: Callable[[], Tensor] | None = None,
) -> Context:
    """A context as a block would provide it, from the tokens' attention to each other after a layer norm.

    Args:
        method: The method, which decides whether attention is proportional.
        tokens: N patch tokens.
        fields: The fields to fill in; by default all, so that only the check `undeclared` depends on `needs`.
        seed: Seed of the noise.
        ids: (B,) the images' ids; None numbers them from 0.
        noise: Replaces the default noise.
    """
    x, n, depth = tokens.x, tokens.n_patches, DEPTHS[0]
    wide = torch.promote_types(x.dtype, torch.float32)
    normed = F.layer_norm(x.to(wide), (DIM,))
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(3, DIM, DIM, generator=generator, dtype=torch.float64).to(x.device, wide) / DIM**0.5
    q, k, v = ((normed @ part).unflatten(2, (HEADS, WIDTH)).transpose(1, 2).to(x.dtype) for part in maps)
    scale = SHARPNESS / WIDTH**0.5
    logits = (q * scale) @ k.mT
    bias = log_size_bias(tokens, proportional=method.proportional)
    matrix = (logits if bias is None else logits + bias).softmax(dim=3)
    filled = AttentionProbe(fields)(Heads(q, k, v, scale, bias, matrix), tokens.n_prefix)
    images = torch.arange(x.shape[0], device=x.device) if ids is None else ids
    return Context(
        depth=depth,
        depths=DEPTHS,
        stage=0,
        noise=noise or (lambda: uniform(seed, images, depth, n)),
        update=F.gelu(tokens.patches) if "update" in fields else None,
        **filled,
    )


def reduced(subject: Subject, case: Case, method: Downsampler | None = None) -> tuple[Tokens, Tokens]:
    """The tokens before and after one reduction."""
    with described(case), torch.no_grad():
        method = method or case.method(subject)
        before = case.tokens()
        return before, method(before, case.keep, context_of(method, before))


@dataclass(frozen=True)
class Recorded:
    """One reduction inside a model."""

    before: Tokens
    keep: int
    depth: int
    after: Tokens


def plain_vit() -> TimmViT:
    """A small ViT with absolute positions and a class token."""
    return VisionTransformer(**SMALL)


def rotary_vit() -> TimmViT:
    """A small ViT with rotary positions only, and a class token."""
    return Eva(**SMALL, global_pool="token", use_abs_pos_emb=False, use_rot_pos_emb=True)


def pooling_vit() -> TimmViT:
    """A small ViT that pools by attention, without a class token."""
    return VisionTransformer(**SMALL, global_pool="map", class_token=False)


def model_of(
    subject: Subject,
    *,
    site: str | None = None,
    seed: int = 0,
    keep: float = 0.5,
    make: Callable[[], TimmViT] = plain_vit,
) -> DownsampledViT:
    """A small ViT with the method in two blocks; `seed` changes only the method's weights."""
    with seeded(0):
        vit = perturbed(make(), 0, std=0.2)
    with seeded(seed):
        model = DownsampledViT(vit, subject.create(), Schedule.stages(keep, DEPTHS), site=site)
    assert model.downsampler is not None
    perturbed(model.downsampler, seed)
    calibrate(model.eval(), images(CALIBRATION))
    return model


def images(seed: int = 0, batch: int = 3) -> Tensor:
    """Random images (B, 3, 24, 24) for the small ViT."""
    return torch.randn(batch, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


def logits_of(model: DownsampledViT, pixels: Tensor, ids: Tensor | None = None) -> Tensor:
    """A model's logits; skips the check if the method fails in a model, which `second_stage` reports."""
    try:
        with torch.inference_mode():
            return model(pixels, ids)  # type: ignore[no-any-return]
    except Exception as error:
        raise SkipError("the method fails in a model: see 'second_stage'") from error


def reductions_of(model: DownsampledViT, pixels: Tensor) -> tuple[Tensor, list[Recorded]]:
    """A model's logits, and the reductions inside the model."""
    reductions: list[Recorded] = []
    assert model.downsampler is not None

    def record(_: object, given: tuple[Tokens, int, Context], after: Tokens) -> None:
        reductions.append(Recorded(given[0], given[1], given[2].depth, after))

    hook = model.downsampler.register_forward_hook(record)
    try:
        return model(pixels), reductions
    finally:
        hook.remove()


def perturbed(module: M, seed: int, std: float = 0.1) -> M:
    """Add noise to every parameter: many start as 0 or 1, which could hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=std)
    return module


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, and restore its state afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def described(what: object) -> Iterator[None]:
    """Add a description of the input to any exception."""
    try:
        yield
    except Exception as error:
        error.add_note(f"with {what}")
        raise
