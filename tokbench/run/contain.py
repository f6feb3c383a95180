"""Running a method's code so that whatever it does costs its own rows only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tokbench.data.errors import DataError
from tokbench.errors import NotExportableError, UnwritableError, describe_with_place, printable
from tokbench.guard import MethodChangedError
from tokbench.isolation import EndedError, ends_the_run, step
from tokbench.names import PLAIN
from tokbench.registry import method_class
from tokbench.sources import comes_with_tokbench

T = TypeVar("T")


class MethodFailedError(Exception):
    """A method's code has failed; the message is one line.

    Attributes:
        error: What it raised.
    """

    def __init__(self, error: BaseException) -> None:
        """Describe the error; three kinds of it are our own, and say everything."""
        own = isinstance(error, EndedError | MethodChangedError | NotExportableError)
        super().__init__(printable(str(error)) if own else describe_with_place(error))
        self.error = error

    @property
    def ended(self) -> bool:
        """Whether it ended the process, so that trying again would end the next one too."""
        return isinstance(self.error, EndedError)

    @property
    def skipped(self) -> bool:
        """Whether it only cannot be exported to a runtime, which is no failure of the method."""
        return isinstance(self.error, NotExportableError)

    @property
    def spoiled(self) -> bool:
        """Whether it changed something that could not be put back."""
        return isinstance(self.error, MethodChangedError) and not self.error.restored


def is_built_in(method: str) -> bool:
    """Whether a method comes with tokbench, whose tests show that it changes nothing that others depend on."""
    return method == PLAIN or comes_with_tokbench(method_class(method))


def contained(name: str, work: Callable[[], T], check: Callable[[], None] | None) -> T:
    """Run a method's code, and put back what it changed.

    Args:
        name: What is done, unlike anything else in the run: "macs of tome at keep 0.5 in deit_tiny_patch16_224".
        work: The code.
        check: Puts back what the code has changed, and raises if there was anything; None for tokbench's own methods.

    Raises:
        MethodFailedError: It raised something, changed something, or an earlier process ended in it.
        KeyboardInterrupt: The user pressed Ctrl-C.
        DataError: The image data cannot be used.
        UnwritableError: A file of results cannot be written.
    """
    try:
        with step(name):
            try:
                result = work()
            finally:
                if check is not None:
                    check()
    except BaseException as error:  # a method may be anybody's code: it may raise SystemExit
        if isinstance(error, DataError | UnwritableError) or ends_the_run(error):
            raise
        raise MethodFailedError(error) from error
    return result
