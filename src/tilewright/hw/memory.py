"""Memories: where data lives, how much fits, how fast it moves."""

from __future__ import annotations

from dataclasses import dataclass

#: What a memory is to the program: MAIN holds arguments, CACHE is filled by hardware, SCRATCHPAD
#: and REGISTER are filled by transfers that the program issues.
MAIN, CACHE, SCRATCHPAD, REGISTER = "main", "cache", "scratchpad", "register"
KINDS = (MAIN, CACHE, SCRATCHPAD, REGISTER)
CHIP = "chip"


@dataclass(frozen=True, slots=True)
class Memory:
    """One level of a machine's memory tree.

    ``bytes`` is the capacity of one instance (None: unlimited). ``level`` counts from the
    arithmetic outwards: 0 is next to the units. ``parent`` is the memory it is filled from
    (None only for main memory). ``per`` names the unit that owns an instance (``"core"``) or
    ``"chip"`` when all units share one. ``bandwidth`` is what one instance delivers towards the
    units, in ``bandwidth_unit``: ``"B/cycle"`` of the machine's clock or ``"B/s"``; 0 means unknown.
    ``latency`` is in cycles, ``line`` the bytes moved at least, ``alignment`` the bytes to which
    addresses must be aligned (1: none), ``energy`` picojoules per byte accessed (0: unknown),
    ``banks`` the number of independently addressable banks (of vector registers: the parts in which
    arithmetic takes a whole one; part of a register costs as much less), ``buffers`` 2 when half of it is
    being filled while the other half is in use.
    """

    name: str
    kind: str
    bytes: int | None
    level: int
    parent: str | None = None
    bandwidth: float = 0.0
    bandwidth_unit: str = "B/cycle"
    latency: float = 0.0
    line: int = 1
    alignment: int = 1
    per: str = CHIP
    energy: float = 0.0
    banks: int = 1
    buffers: int = 1
    note: str = ""

    def bytes_per_cycle(self, clock_hz: float) -> float:
        """Bandwidth of one instance in bytes per clock cycle (0: unknown)."""
        return self.bandwidth if self.bandwidth_unit == "B/cycle" else self.bandwidth / clock_hz

    def bytes_per_second(self, clock_hz: float) -> float:
        """Bandwidth of one instance in bytes per second (0: unknown)."""
        return self.bandwidth * clock_hz if self.bandwidth_unit == "B/cycle" else self.bandwidth
