"""Memories that a program fills itself, as an analytical model sees them: what an access costs, how many fit a cycle.

A rate is a number or a function of the machine's parameters. It is written with plain operators, so the
parameters may be numbers (one machine), arrays (a population of machines), tensors or formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tilewright.util.errors import MachineError

Rate = float | Callable[[Mapping[str, Any]], Any]

#: What stays when the next tile overlaps the present one. RESIDENT: all they share. STREAMED: what they share
#: when the innermost loop moves a window (a line buffer); after any other step the tile is fetched anew.
RESIDENT, STREAMED = "resident", "streamed"


@dataclass(frozen=True, slots=True)
class Storage:
    """One level of explicit memory.

    ``energy`` is picojoules for a word read or written; it is paid for whole ``line`` s of words. ``words_per_cycle``
    is what one instance handles, reads and writes together (None: never the limit), or reads alone where ``writes_per_cycle`` gives
    writes a port of their own. ``words`` is the capacity of one instance (None: unlimited), ``word_bytes`` the size of a word.
    ``double_buffered``: the next contents come in while the present ones are used; otherwise what is inside waits.
    """

    name: str
    energy: Rate
    words_per_cycle: Rate | None = None
    words: Rate | None = None
    word_bytes: int = 1
    line: Rate = 1
    reuse: str = RESIDENT
    writes_per_cycle: Rate | None = None
    double_buffered: bool = True

    def __post_init__(self) -> None:
        if self.reuse not in (RESIDENT, STREAMED):
            raise MachineError(f"storage {self.name} has no reuse {self.reuse!r}", hint=f"one of {RESIDENT}, {STREAMED}")
        if self.word_bytes < 1:
            raise MachineError(f"storage {self.name} has words of {self.word_bytes} bytes", hint="word_bytes >= 1")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Levels of memory, outermost first, around arithmetic that costs ``arithmetic`` picojoules an operation.

    ``step_cycles``: how long one iteration of all loops in time takes, its units side by side. ``parameters`` names what rates depend on.
    """

    name: str
    levels: tuple[Storage, ...]
    arithmetic: Rate
    parameters: tuple[str, ...] = ()
    step_cycles: Rate = 1

    def __post_init__(self) -> None:
        names = [s.name for s in self.levels]
        if not names or len(set(names)) < len(names):
            raise MachineError(
                f"hierarchy {self.name} has levels {', '.join(names) or 'none'}", hint="one level or more, each with its own name"
            )

    def rate(self, rate: Rate, parameters: Mapping[str, Any]) -> Any:
        """The value of ``rate`` for ``parameters``; MachineError names one that is missing."""
        if not callable(rate):
            return rate
        if missing := [p for p in self.parameters if p not in parameters]:
            raise MachineError(
                f"hierarchy {self.name} needs the parameter {missing[0]!r}", hint=f"parameters: {', '.join(self.parameters)}"
            )
        return rate(parameters)
