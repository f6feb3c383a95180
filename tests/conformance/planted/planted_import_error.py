"""imports: a name is imported that is not there."""

from tokbench import Context, Downsampler, Tokens, register, select_largest  # noqa: F401
