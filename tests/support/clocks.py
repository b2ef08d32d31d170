"""The clocks of a machine under test, to be set as its owner might."""

from __future__ import annotations

from dataclasses import dataclass

from sealpack.runtime.clock import Reading
from support.world import T0


@dataclass
class Clocks:
    """The site's clocks, in seconds: wall (None: unreadable), since boot, and which boot."""

    wall: float | None = T0 + 10
    up: float = 5
    boot: str = "first"

    def read(self) -> Reading:
        """What the machine reads."""
        wall = None if self.wall is None else int(self.wall * 1000)
        return Reading(wall, int(self.up * 1000), self.boot)

    def run(self, seconds: float) -> None:
        """Let time pass, on the wall and since boot."""
        self.up += seconds
        if self.wall is not None:
            self.wall += seconds

    def at(self, wall: float) -> None:
        """Run until the wall shows that."""
        assert self.wall is not None
        self.run(wall - self.wall)

    def reboot(self) -> None:
        """Start the machine anew."""
        self.boot, self.up = self.boot + "'", 3
