"""What is wrong with the data a user named."""

from tokbench.errors import UserError


class DataError(UserError):
    """The user's mistake, or the data's: one line that names the cause and the mend."""
