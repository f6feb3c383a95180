"""The contract of a method: what it declares, what it is told, and what it gives back.

A method is a `Downsampler`: an `nn.Module` whose forward turns `Tokens` with N patch tokens into `Tokens` with fewer.
What it may know of the surrounding block comes in a `Context`, filled only with the fields it declared in `needs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from tokbench.names import SITES, Site
from tokbench.tokens import Tokens

Field = Literal["keys", "values", "attention", "cls_attention", "received"]
FIELDS: tuple[Field, ...] = get_args(Field)


class UndeclaredFieldError(AttributeError):
    """A method asked its context for a field that is not in its `needs`."""


class DownsamplerError(RuntimeError):
    """A method broke its contract: a bug in the method, which costs its own rows only."""


class Context:
    """What the block around a reduction knows.

    At the sites `after_attention` and `after_block` the attention is this block's, at `before_block` the block's
    before. It is the attention as it ran: masked, and with log(size) in its logits where the method is proportional.
    """

    def __init__(
        self,
        *,
        depth: int,
        depths: Sequence[int],
        stage: int,
        noise: Tensor | Callable[[], Tensor],
        keys: Tensor | None = None,
        values: Tensor | None = None,
        attention: Tensor | None = None,
        cls_attention: Tensor | None = None,
        received: Tensor | None = None,
    ) -> None:
        """Describe one reduction.

        Args:
            depth: The block's index, from 0.
            depths: The depths of all reductions, this one's included.
            stage: This reduction's position in `depths`.
            noise: (B, N), or a function that computes it when it is first wanted.
            keys: See the properties for these and the following.
            values: -
            attention: -
            cls_attention: -
            received: -
        """
        self.depth = depth
        self.depths = tuple(depths)
        self.stage = stage
        self._noise = noise
        self._asked = {
            "keys": keys,
            "values": values,
            "attention": attention,
            "cls_attention": cls_attention,
            "received": received,
        }

    @property
    def noise(self) -> Tensor:
        """(B, N), uniform in [0, 1), keyed by (seed, image, depth): the only randomness a method may use."""
        return self._noise() if callable(self._noise) else self._noise

    @property
    def keys(self) -> Tensor:
        """(B, N, Dh), the patch tokens' keys, mean over heads."""
        return self._field("keys")

    @property
    def values(self) -> Tensor:
        """(B, H, N, Dh), the patch tokens' values."""
        return self._field("values")

    @property
    def attention(self) -> Tensor:
        """(B, H, P+N, P+N), the attention matrix after softmax; its rows (queries) sum to one."""
        return self._field("attention")

    @property
    def cls_attention(self) -> Tensor:
        """(B, N), the class token's attention to each patch token, mean over heads."""
        return self._field("cls_attention")

    @property
    def received(self) -> Tensor:
        """(B, N), the attention that each patch token receives, summed over heads and all P+N queries."""
        return self._field("received")

    def _field(self, name: Field) -> Tensor:
        value = self._asked[name]
        if value is None:
            raise UndeclaredFieldError(
                f"context.{name} was not declared: write needs = frozenset({{{name!r}}}) in the method's class"
            )
        return value


@dataclass(frozen=True)
class Geometry:
    """What a method with weights, or with one schedule more, must know before it is built.

    Attributes:
        dim: D, the width of a token.
        heads: H.
        depths: The depths of all reductions.
        grid: (h, w) of the image's patches.
        counts: The patch tokens left after each reduction, in the order of `depths`.
    """

    dim: int
    heads: int
    depths: tuple[int, ...]
    grid: tuple[int, int]
    counts: tuple[int, ...]


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
        gmacs: Billions of multiply-accumulates for an image.
        top1: ImageNet-1k top-1 in percent.
        source: Paper and table, figure or file.
        schedule: As `--schedule` takes it, where the source says enough to stand beside a measured row.
        keep: The fraction that a reduction leaves, where the schedule takes one.
        params: The method's parameters, as the table shows them; those left out have their defaults.
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

    Constructor arguments are the method's parameters: typed, defaulted and documented; a ValueError raised there is
    shown to the user as their mistake. `needs`, `proportional`, `stochastic` and `trained` may be set by an instance
    from its parameters.

    Attributes:
        name: What users call the method; set by `register`.
        site: Where in a block the method acts unless the user says otherwise.
        sites: Where in a block it may act.
        needs: The names of the Context's fields that it reads.
        proportional: Whether later attention adds log(size) to its logits (ToMe's proportional attention).
        stochastic: Whether it reads `context.noise`, and so is measured over several seeds.
        trained: Whether it means nothing without fine-tuning.
        adaptive: Whether the count differs from image to image.
        schedule: The published schedule, as `--schedule` takes it; None: `stages(at=3-6-9)`.
        paper: Where it was published.
        claims: Published numbers, to be set beside what is measured.
    """

    name: str = ""
    site: Site = "after_attention"
    sites: tuple[Site, ...] = SITES
    needs: frozenset[str] = frozenset()
    proportional: bool = False
    stochastic: bool = False
    trained: bool = False
    adaptive: bool = False
    schedule: str | None = None
    paper: Paper | None = None
    claims: tuple[Claim, ...] = ()

    def __init__(self) -> None:
        """A method without parameters; others write their own and call this."""
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """Reduce the patch tokens.

        Args:
            tokens: N patch tokens.
            keep: K < N, how many to leave.
            context: What the block knows, as far as `needs` declares it.

        Returns:
            Tokens with `count(keep, N, ...)` patch tokens, the prefix tokens untouched.
        """

    def count(
        self,
        keep: int,
        n_patches: int,
        depth: int,
        layout: tuple[int, int] | None,
    ) -> int:
        """How many patch tokens come out when `keep` of `n_patches` are asked for; `keep` unless overridden.

        Args:
            keep: K.
            n_patches: N.
            depth: The block's index.
            layout: (h, w) of the present patch tokens while they lie on a grid.
        """
        return keep

    def layout_after(
        self,
        keep: int,
        layout: tuple[int, int] | None,
    ) -> tuple[int, int] | None:
        """The grid (h, w) that the tokens lie on afterwards; None unless the method keeps one."""
        return None

    def setup(self, geometry: Geometry) -> None:
        """Create weights, or whatever else depends on the model; called once, before the first image."""

    def __call__(self, tokens: Tokens, keep: int, context: Context) -> Tokens:  # narrows nn.Module's
        """Run `forward` with the module's hooks."""
        result: Tokens = super().__call__(tokens, keep, context)
        return result
