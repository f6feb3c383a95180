"""Random tokens, and what to expect of them."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

from tokbench import Tokens

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**31)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def integers(generator, low, high, *shape):
    return torch.randint(low, high, shape, generator=generator)


@st.composite
def any_tokens(draw, masked=None):
    """Tokens as after some earlier reduction, in float64, to be compared with loops over Python floats."""
    batch, n, prefix = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(0, 2))
    grid = draw(st.tuples(st.integers(1, 3), st.integers(2, 4)))
    g = rng(draw(SEEDS))
    has_mask = draw(st.booleans()) if masked is None else masked
    return Tokens(
        x=torch.randn(batch, prefix + n, 3, generator=g, dtype=torch.float64),
        size=integers(g, 1, 5, batch, n).float(),
        owner=integers(g, -1, n, batch, grid[0] * grid[1]),
        grid=grid,
        layout=draw(st.sampled_from([None, (1, n)])),
        valid=integers(g, 0, 2, batch, n).bool() if has_mask else None,
    )
