"""The errors for unusable image data."""

from tokbench.errors import UserError, escaped


class DataError(UserError):
    """The image data cannot be used; the message is one line with the cause and the fix."""

    def __init__(self, message: str) -> None:
        """Keep the message on one line, whatever the names of files in it contain."""
        super().__init__(escaped(message))


class UnlabelledError(DataError):
    """Images have no labels; the message is one line with the cause and how to give them some."""
