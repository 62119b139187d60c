"""What the loop commands expand to: the same mvin, preload, compute and mvout a program could issue itself.

The hardware walks five small machines side by side (bias, A, B, execute, store) and double-buffers: successive loops use
alternate halves of the scratchpad, and of the accumulator once a loop has stored its result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.isa import Command
from tilewright.util.errors import ExecutionError


@dataclass(frozen=True, slots=True)
class Expansion:
    """The primitive commands of one loop, by the machine that issues them.

    ``execute[n]`` may be issued once ``needs[n] = (a, b)`` loads of A and of B have been, and all of the bias;
    ``store[n]`` once ``after[n]`` executes have been. ``a_k`` and ``b_k`` say how far along k each load is: the one that is
    behind goes first. ``idle``, where it is not empty, says how many cycles the machine spends on nothing before ``execute[n]``.
    """

    bias: tuple[Command, ...]
    a: tuple[Command, ...]
    b: tuple[Command, ...]
    execute: tuple[Command, ...]
    store: tuple[Command, ...]
    needs: tuple[tuple[int, int], ...] = ()
    after: tuple[int, ...] = ()
    a_k: tuple[int, ...] = ()
    b_k: tuple[int, ...] = ()
    idle: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Command]:
        """An order a program could have: loads, executes, stores."""
        for part in (self.bias, self.a, self.b, self.execute, self.store):
            yield from part


@dataclass(slots=True)
class Loops:
    """The configuration registers of the loop commands, and which halves the next loop uses."""

    configuration: Configuration
    latched: dict[type, Command] = field(default_factory=dict)
    spad_half: int = 0
    acc_half: int = 0

    def configure(self, command: Command) -> None:
        """Keeps a configuration command for the next loop."""
        self.latched[type(command)] = command

    def get(self, *kinds: type) -> list:  # type: ignore[type-arg]
        """The latched commands of these classes; ExecutionError naming the first that was never set."""
        for kind in kinds:
            if kind not in self.latched:
                raise ExecutionError(f"the loop starts before any {kind.__name__}", hint=f"issue {kind.__name__} first")
        return [self.latched[kind] for kind in kinds]

    def halves(self, a_half: int, b_half: int, spad: int, acc: int, stores: bool) -> tuple[int, int, int]:
        """Start of A, end of B, start of C in rows, for a loop of so many rows; then on to the other halves."""
        c = self.configuration
        for name, rows, room in (("scratchpad", spad, c.spad_rows // 2), ("accumulator", acc, c.acc_rows // 2)):
            if rows > room:
                raise ExecutionError(
                    f"the loop takes {rows} rows of the {name}, of which double buffering leaves {room}",
                    hint="make its tile smaller and loop around it",
                )
        half = c.spad_rows // 2
        a, b = (pinned - 1 if pinned else self.spad_half for pinned in (a_half, b_half))
        start = self.acc_half * (c.acc_rows // 2)
        self.spad_half ^= 1
        self.acc_half ^= stores
        return a * half, (b + 1) * half, start
