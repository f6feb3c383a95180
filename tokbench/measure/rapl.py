"""The energy counters of a CPU's packages (RAPL), as Linux shows them under /sys/class/powercap."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
ZONE = "intel-rapl:[0-9]*"  # AMD's counters have this name too
PACKAGE = "package"  # the name of a whole processor; its cores and its memory controller have zones of their own


class PackageEnergy:
    """The joules that all packages of the machine have used since it was made.

    Each counter starts again at 0 when it reaches its maximum, after minutes at full load: read it more often.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        """Find the counters.

        Args:
            root: The folder with the zones.

        Raises:
            FileNotFoundError: There are none.
            OSError: They cannot be read.
        """
        zones = [zone for zone in sorted(root.glob(ZONE)) if _text(zone / "name").startswith(PACKAGE)]
        if not zones:
            raise FileNotFoundError(root / ZONE)
        self._files = [zone / "energy_uj" for zone in zones]
        self._ranges = [int(_text(zone / "max_energy_range_uj")) for zone in zones]
        self._last = [int(_text(file)) for file in self._files]
        self._microjoules = 0

    def read(self) -> float:
        """Joules since this object was made, of all packages together.

        Raises:
            OSError: A counter cannot be read.
        """
        for number, file in enumerate(self._files):
            now = int(_text(file))
            # Modulo, so that a counter that has started again gives a small number and not a negative one.
            self._microjoules += (now - self._last[number]) % self._ranges[number]
            self._last[number] = now
        return self._microjoules / 1e6


def _text(file: Path) -> str:
    return file.read_text(encoding="ascii").strip()
