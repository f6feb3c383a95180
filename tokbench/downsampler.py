"""The interface of a method: what it declares, what it receives, and what it returns.

A method is a `Downsampler`: an `nn.Module` whose forward turns `Tokens` with N patch tokens into `Tokens` with fewer.
Information about the surrounding block comes in a `Context`, filled only with the fields declared in `needs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from tokbench.context import Context
from tokbench.names import SITES, Site
from tokbench.tokens import Tokens


class DownsamplerError(RuntimeError):
    """A method violates the contract: a bug in the method, which fails only its own rows."""


class Reduction(Protocol):
    """What a method does to the tokens: `Downsampler.forward`, or what stands in for it during calibration."""

    def __call__(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """See `Downsampler.forward`."""
        ...


@dataclass(frozen=True)
class Geometry:
    """The model and the schedule, for methods that create weights or otherwise depend on them.

    Attributes:
        dim: D, the number of channels of a token.
        heads: H.
        depths: The depths of all reductions.
        grid: (h, w) of the image's patches.
        counts: The patch tokens left after each reduction, in the order of `depths`.
        targets: The K of each reduction if every earlier one left exactly its own K, in the order of `depths`; `counts`
            if not given. The two differ for a method whose `count` is not K.
        blocks: The number of blocks of the model; those up to the last reduction if not given.
    """

    dim: int
    heads: int
    depths: tuple[int, ...]
    grid: tuple[int, int]
    counts: tuple[int, ...]
    targets: tuple[int, ...] = ()
    blocks: int = 0

    def __post_init__(self) -> None:
        """Fill in what was not given."""
        object.__setattr__(self, "targets", self.targets or self.counts)
        object.__setattr__(self, "blocks", self.blocks or self.depths[-1] + 1)


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    venue: str
    year: int
    arxiv: str | None = None


@dataclass(frozen=True)
class Claim:
    """A published number.

    Attributes:
        model: The model as the source names it.
        regime: `off-the-shelf` or `fine-tuned`.
        gmacs: Billions of multiply-accumulates per image.
        top1: ImageNet-1k top-1 in percent.
        source: Paper and table, figure or file.
        schedule: In the notation of `--schedule`, if the source says enough to compare it with a measured row.
        keep: The fraction that each reduction keeps, if the schedule takes one.
        params: The method's parameters, as shown in the table; the others have their defaults.
    """

    model: str
    regime: Literal["off-the-shelf", "fine-tuned"]
    gmacs: float
    top1: float
    source: str
    schedule: str = ""
    keep: float | None = None
    params: str = ""


class Downsampler(nn.Module, ABC):
    """A method that turns N patch tokens into fewer.

    Constructor arguments are the method's parameters. Each has a type, a default and a description; a ValueError raised
    in the constructor is shown to the user as an input error. An instance may set `site`, `needs`, `proportional`,
    `stochastic`, `trained`, `calibrated`, `adaptive` and `ignores_keep` from its parameters.

    Attributes:
        name: The method's name, set by `register`.
        site: Where in a block the method acts by default.
        sites: Where in a block it can act.
        needs: The names of the Context fields that it reads.
        proportional: Whether later attention adds log(size) to its logits (ToMe's proportional attention).
        stochastic: Whether it reads `context.noise`, and is therefore measured with several seeds.
        trained: Whether it needs fine-tuned weights.
        calibrated: Whether its constants are set from unlabelled images by `calibrate` before it is used.
        adaptive: Whether the number of tokens left differs between images.
        ignores_keep: Whether it decides itself how many tokens to keep, whatever K is.
        schedule: The published schedule, in the notation of `--schedule`; None means `stages(at=3-6-9)`.
        paper: Where it was published.
        claims: Published numbers, to be shown next to the measured ones.
    """

    name: str = ""
    site: Site = "after_attention"
    sites: tuple[Site, ...] = SITES
    needs: frozenset[str] = frozenset()
    proportional: bool = False
    stochastic: bool = False
    trained: bool = False
    calibrated: bool = False
    adaptive: bool = False
    ignores_keep: bool = False
    schedule: str | None = None
    paper: Paper | None = None
    claims: tuple[Claim, ...] = ()

    def __init__(self) -> None:
        """Create a method without parameters. A method with parameters has its own `__init__`, which calls this one."""
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """Reduce the patch tokens.

        Args:
            tokens: N patch tokens.
            keep: K < N, how many patch tokens to keep.
            context: Information about the block: the fields declared in `needs`, and noise.

        Returns:
            Tokens with `count(keep, N, ...)` patch tokens and unchanged prefix tokens.
        """

    def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """What training does in place of `forward`; by default `forward` itself.

        A method whose choice of tokens has no useful gradient can keep all tokens in training, and return how far each
        is present (`Tokens.stay`). Later attention and pooling count a token with its presence, so that tokens with
        presence 0 have no influence on the others, as if they had been removed.

        Args:
            tokens: N patch tokens; with presence if there was a reduction before.
            keep: K, as `forward` would receive it: of the tokens that the schedule leaves until here.
            context: As for `forward`. Randomness may come from torch's global generator, which training seeds.

        Returns:
            All N patch tokens with presence, and at least one in each image that is present; or what `forward` returns.
        """
        return self(tokens, keep, context)

    def loss(self, after: Sequence[Tokens]) -> Tensor | None:
        """The method's own term of the training loss.

        Args:
            after: The output tokens of the blocks in `depths`, one for each.

        Returns:
            A scalar that is added to the other terms with weight 1, or None.
        """
        return None

    def count(
        self,
        keep: int,
        n_patches: int,
        depth: int,
        layout: tuple[int, int] | None,
    ) -> int:
        """How many patch tokens are returned if `keep` of `n_patches` are requested; `keep` unless overridden.

        Args:
            keep: K.
            n_patches: N.
            depth: The block's index.
            layout: (h, w) of the present patch tokens if they form a grid, else None.
        """
        return keep

    def layout_after(
        self,
        keep: int,
        layout: tuple[int, int] | None,
    ) -> tuple[int, int] | None:
        """The grid (h, w) of the returned patch tokens; None unless the method keeps them on a grid."""
        return None

    def setup(self, geometry: Geometry) -> None:
        """Create weights and anything else that depends on the model; called once, before the first image."""

    def calibrate(self, run: Callable[[Reduction], None]) -> None:
        """Set constants from unlabelled images; only for methods that declare `calibrated`.

        The constants belong into the method's state dict, as buffers or as PyTorch's extra state, so that they are
        saved with it.

        Args:
            run: Sends all images through the model, batch by batch, with the given function in place of `forward`. It
                may be called several times.
        """
        raise NotImplementedError(f"{type(self).__name__} declares calibrated = True, but has no calibrate")

    def __call__(self, tokens: Tokens, keep: int, context: Context) -> Tokens:  # narrows nn.Module's
        """Run `forward` with the module's hooks."""
        result: Tokens = super().__call__(tokens, keep, context)
        return result
