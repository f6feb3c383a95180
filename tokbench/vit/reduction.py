"""Check the tokens that a method returns, and trim padding."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

import torch

from tokbench.downsampler import Downsampler, DownsamplerError
from tokbench.tokens import Tokens


def check_result(method: Downsampler, before: Tokens, after: Tokens, count: int, depth: int) -> None:
    """Check the result of a reduction, by shapes and types only: reading values would stall a GPU.

    Args:
        method: The method.
        before: The tokens that it received.
        after: The tokens that it returned; with presence, all tokens that it received are among them.
        count: The number of patch tokens that its `count` promises.
        depth: The block's index, for the message.

    Raises:
        DownsamplerError: The result violates the contract; the message says how.
    """

    def fail(what: str) -> NoReturn:
        raise DownsamplerError(f"{method.name or type(method).__name__} at depth {depth}: {what}")

    if not isinstance(after, Tokens):
        fail(f"forward returned {type(after).__name__}, expected Tokens")
    batch, _, dim = before.x.shape
    n = after.n_patches
    if after.x.shape != (batch, before.n_prefix + n, dim) or after.owner.shape != before.owner.shape:
        expected = (batch, before.n_prefix + n, dim)
        fail(f"x is {tuple(after.x.shape)} with size {tuple(after.size.shape)}; expected x {expected}")
    if after.size.shape != (batch, n) or after.size.dtype != before.size.dtype:
        fail(f"size is {after.size.dtype} of {tuple(after.size.shape)}; expected {before.size.dtype} of {(batch, n)}")
    if after.owner.dtype != before.owner.dtype:
        fail(f"owner is {after.owner.dtype}; expected {before.owner.dtype}")
    if after.layout is not None and after.layout[0] * after.layout[1] != n:
        fail(f"a layout of {after.layout[0]}x{after.layout[1]} does not match {n} patch tokens")
    if after.valid is not None and not method.adaptive:
        fail("valid is set, but the class does not declare adaptive = True")
    if after.valid is not None and (after.valid.shape != (batch, n) or after.valid.dtype != torch.bool):
        fail(f"valid is {after.valid.dtype} of {tuple(after.valid.shape)}; expected torch.bool of {(batch, n)}")
    if before.rotary is not None and (after.rotary is None or after.rotary.shape != (batch, n)):
        fail("rotary is lost: derive the tokens from the given ones by select, merge, mix, append or replace")
    if after.x.dtype != before.x.dtype:
        fail(f"x is {after.x.dtype}; expected {before.x.dtype}")
    if after.presence is not None:
        if not method.training:
            fail("presence is set, which is for training only: forward removes tokens")
        if after.presence.shape != (batch, n) or not after.presence.is_floating_point():
            fail(f"presence is {after.presence.dtype} of {tuple(after.presence.shape)}; expected floats, {(batch, n)}")
        if n != before.n_patches or after.valid is not None:
            fail(f"presence comes with {n} patch tokens for {before.n_patches}; expected all of them, and no mask")
        return
    if before.presence is not None:
        fail("presence is lost: in training, derive the tokens from the given ones by select, replace or stay")
    if not method.adaptive and n != count:
        fail(f"returned {n} patch tokens, count() says {count}")
    if method.adaptive and n > before.n_patches:
        fail(f"returned {n} patch tokens for {before.n_patches}")


def reduced(tokens: Tokens) -> bool:
    """Whether any reduction has taken place; before the first one, all sizes are 1."""
    fewer = tokens.n_patches < tokens.grid[0] * tokens.grid[1]
    return fewer or tokens.valid is not None or tokens.presence is not None


def trim(tokens: Tokens) -> Tokens:
    """Trim the batch to its longest image, with padding last; drop the mask if no padding is left."""
    valid = tokens.valid
    if valid is None:
        return tokens
    # Padding represents no patches, and no patch belongs to it.
    lost = ~valid.gather(1, tokens.owner.clamp_min(0))
    tokens = dataclasses.replace(tokens, size=tokens.size * valid, owner=tokens.owner.masked_fill(lost, -1))
    shortest, longest = torch.stack(valid.sum(dim=1).aminmax()).tolist()  # the host waits for both at once
    # Also where nothing is trimmed: gaps that other images of the batch keep would move an image's tokens.
    order = valid.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    tokens = tokens.select(order[:, :longest])
    return dataclasses.replace(tokens, valid=None) if shortest == longest else tokens
