"""What a method can read about the block in which it acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch import Tensor

Field = Literal["keys", "keys_unrotated", "values", "attention", "cls_attention", "received", "update"]
FIELDS: tuple[Field, ...] = get_args(Field)


class UndeclaredFieldError(AttributeError):
    """A method read a field of its context that it did not declare in `needs`."""


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
