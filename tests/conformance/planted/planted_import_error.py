"""imports: an imported name does not exist."""

from tokbench import Context, Downsampler, Tokens, register, select_largest  # noqa: F401
