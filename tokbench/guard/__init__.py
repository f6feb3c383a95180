"""What a method must leave as it was: functions, settings of the process, and the plain model.

All methods of a comparison run in one process on one copy of the weights. A method that changes either, by a patched
function or by weights that it fuses in `setup`, would change the numbers of all others. So both are compared with a
snapshot after each method has run, and put back.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokbench.guard.model import Untouched
from tokbench.guard.surroundings import Surroundings

__all__ = ["MethodChangedError", "Surroundings", "Untouched", "check_unchanged"]


class MethodChangedError(RuntimeError):
    """A method has changed something that other rows depend on.

    Attributes:
        restored: Whether all of it could be put back.
    """

    def __init__(self, message: str, *, restored: bool) -> None:
        """Create the error."""
        super().__init__(message)
        self.restored = restored


def check_unchanged(surroundings: Surroundings, models: Iterable[Untouched] = ()) -> None:
    """Raise if something was changed since the snapshots were taken; it is put back first.

    Args:
        surroundings: Of this process.
        models: The plain models on the device.

    Raises:
        MethodChangedError: Names what was changed, and says whether all of it could be put back.
    """
    models = list(models)
    changed = surroundings.restore() + [change for model in models for change in model.restore()]
    same = all(model.answers_as_before() for model in models)
    if same and not changed:
        return
    what = changed[0] if changed else "what the plain model computes"
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    raise MethodChangedError(f"the method changed {what}{more}, which other rows depend on", restored=same)
