"""The error for unusable image data."""

from tokbench.errors import UserError


class DataError(UserError):
    """The image data cannot be used; the message is one line with the cause and the fix."""
