"""The interface of a method: what it declares, what it receives, and what it returns.

A method is a `Downsampler`: an `nn.Module` whose forward turns `Tokens` with N patch tokens into `Tokens` with fewer.
Information about the surrounding block comes in a `Context`, filled only with the fields declared in `needs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor, nn

from tokbench.names import SITES, Site
from tokbench.tokens import Tokens

Field = Literal["keys", "keys_unrotated", "values", "attention", "cls_attention", "received", "update"]
FIELDS: tuple[Field, ...] = get_args(Field)


class UndeclaredFieldError(AttributeError):
    """A method read a field of its context that it did not declare in `needs`."""


class DownsamplerError(RuntimeError):
    """A method violates the contract: a bug in the method, which fails only its own rows."""


class Context:
    """What a method can read about the block in which it acts.

    B images, H heads, P prefix tokens (the class token is the first), N patch tokens, D channels, Dh of them per head.
    At the sites `after_attention` and `after_block` the fields come from this block, at `before_block` from the
    previous block. The attention is the one that really ran: padding is masked, and the logits include log(size) if
    the method is proportional.

    The model fills in only the fields that the method declares in `needs`. To call a method without a model, as in a
    test, create a Context yourself and pass the fields that the method reads.
    """

    def __init__(
        self,
        *,
        depth: int,
        depths: Sequence[int],
        stage: int,
        noise: Tensor | Callable[[], Tensor],
        keys: Tensor | None = None,
        keys_unrotated: Tensor | None = None,
        values: Tensor | None = None,
        attention: Tensor | None = None,
        cls_attention: Tensor | None = None,
        received: Tensor | None = None,
        update: Tensor | None = None,
    ) -> None:
        """Create the context of one reduction.

        Args:
            depth: The block's index, from 0.
            depths: The depths of all reductions, including this one.
            stage: This reduction's position in `depths`, from 0.
            noise: (B, N), uniform in [0, 1), or a function that returns it when `noise` is read.
            keys: (B, N, Dh), the patch tokens' keys, mean over heads, after the model's key normalisation if it has
                one; without the prefix tokens. They are the keys that attention uses: in a model with rotary positions
                they are rotated, so that two patches with the same content have different keys.
            keys_unrotated: (B, N, Dh), the same before rotation; equal to `keys` in models without rotary positions.
            values: (B, H, N, Dh), the patch tokens' values, per head, as attention mixes them: before the output
                projection; without the prefix tokens.
            attention: (B, H, P+N, P+N), the attention matrix after the softmax, per head, for all tokens including
                the prefix; row i is query i and sums to 1. Needing it rules out the fused attention kernel.
            cls_attention: (B, N), the class token's row of the attention matrix, mean over heads, restricted to the
                patch tokens: the softmax runs over all P+N tokens, and the share that goes to the prefix tokens,
                the class token itself included, is left out and not renormalised, so a row sums to less than 1.
            received: (B, N), the attention that each patch token receives: the column sum of the attention matrix
                over all P+N queries (prefix tokens and the token itself included, padding excluded), summed over
                heads, not averaged.
            update: (B, N, D), what the last layer before the method added to the patch tokens, after LayerScale: the
                attention at `after_attention`, the MLP at the other two sites. The tokens before that layer are the
                patch tokens minus the update.
        """
        self.depth = depth
        self.depths = tuple(depths)
        self.stage = stage
        self._noise = noise
        self._fields = {
            "keys": keys,
            "keys_unrotated": keys_unrotated,
            "values": values,
            "attention": attention,
            "cls_attention": cls_attention,
            "received": received,
            "update": update,
        }

    @property
    def noise(self) -> Tensor:
        """(B, N), uniform in [0, 1), a function of (seed, image, depth): the only randomness a method may use."""
        return self._noise() if callable(self._noise) else self._noise

    @property
    def keys(self) -> Tensor:
        """(B, N, Dh), the patch tokens' keys, mean over heads."""
        return self._field("keys")

    @property
    def keys_unrotated(self) -> Tensor:
        """(B, N, Dh), the patch tokens' keys before rotation, mean over heads."""
        return self._field("keys_unrotated")

    @property
    def values(self) -> Tensor:
        """(B, H, N, Dh), the patch tokens' values, per head, before the output projection."""
        return self._field("values")

    @property
    def attention(self) -> Tensor:
        """(B, H, P+N, P+N), the attention matrix after the softmax, per head; each row (a query) sums to 1."""
        return self._field("attention")

    @property
    def cls_attention(self) -> Tensor:
        """(B, N), the class token's attention to each patch token, mean over heads; a row sums to less than 1."""
        return self._field("cls_attention")

    @property
    def received(self) -> Tensor:
        """(B, N), the attention that each patch token receives, summed over heads and over all P+N queries."""
        return self._field("received")

    @property
    def update(self) -> Tensor:
        """(B, N, D), what the last layer before the method, attention or MLP, added to the patch tokens."""
        return self._field("update")

    def _field(self, name: Field) -> Tensor:
        value = self._fields[name]
        if value is None:
            raise UndeclaredFieldError(
                f"context.{name} is not available: declare needs = frozenset({{{name!r}}}) in the method's class, "
                f"or, if you create the Context yourself, pass {name}=..."
            )
        return value


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
