"""What of a Gemmini is neither its array nor its memories: the bus to main memory and the queues of its controllers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, NamedTuple

from tilewright.util.errors import MachineError


def check_whole(least: int = 1, **sizes: Any) -> None:
    """MachineError that names the first of ``sizes`` that is no whole number from ``least`` on."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise MachineError(f"a Gemmini with {name} = {value!r}", hint=f"{name} is a whole number, {least} or more")


@dataclass(frozen=True, slots=True)
class Control:
    """Bus and largest request in bytes, requests outstanding; entries of the controllers' queues and of their parts of the
    reservation station; sets of statistics of the normalisation unit, 0 where there is none; registers between a unit of the array and
    the next, beyond one (the generator's ``tile_latency``). By default the generator's default configuration.

    MachineError for a number below 1, a bus that is no power of two, and a largest request that is no multiple of it.
    """

    dma_bytes: int = 16
    dma_max_bytes: int = 64
    dma_requests: int = 16
    load_queue: int = 8
    store_queue: int = 2
    execute_queue: int = 8
    load_entries: int = 8
    store_entries: int = 4
    execute_entries: int = 16
    norm_stats: int = 0
    tile_latency: int = 0

    def __post_init__(self) -> None:
        for name, value in self.parameters().items():
            check_whole(int(name not in ("norm_stats", "tile_latency")), **{name: value})
        if self.dma_bytes & (self.dma_bytes - 1) or self.dma_max_bytes % self.dma_bytes:
            raise MachineError(
                f"a bus of {self.dma_bytes} bytes with requests of at most {self.dma_max_bytes}: not a Gemmini",
                hint="the bus is a power of two, the largest request a multiple of it",
            )

    def parameters(self) -> dict[str, int]:
        """All by name, as a machine has them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def dma(self) -> dict[str, Any]:
        """What every move costs besides its size: cycles to main memory, bytes a cycle, requests on their way."""
        return {"latency": 60, "bandwidth": self.dma_bytes, "asynchronous": True, "in_flight": self.dma_requests}

    def row(self, dim: int, size: int, lines: int) -> int:
        """Elements of ``size`` bytes that a row of a move has at most: blocks of ``dim`` in the largest request whose rows ``lines`` hold,
        one at least."""
        return max(1, min(self.dma_max_bytes // (dim * size), lines // dim)) * dim


class Lines(NamedTuple):
    """How many lines of ``dim`` elements the two memories have."""

    spad: int
    acc: int


#: The default one's.
CONTROL = Control()
