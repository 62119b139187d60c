"""Transfers: how data moves between two memories, declared like instructions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.hw.availability import Requires
from tilewright.hw.emit import Emit
from tilewright.hw.instruction import Instruction, instruction
from tilewright.hw.state import Need, State
from tilewright.util.errors import MachineError


@dataclass(frozen=True, slots=True)
class Transfer:
    """Movement from memory ``src`` to ``dst``.

    ``granularity`` is the smallest move in bytes, ``most`` the largest one request moves (None: no
    limit), ``latency`` the cycles before the first byte arrives, ``bandwidth`` bytes per cycle (0:
    the slower of the two memories), ``energy`` picojoules per byte, ``asynchronous`` whether it proceeds while the
    issuing unit computes, ``in_flight`` how many requests (runs of neighbours in main memory) may be outstanding (None: any
    number). ``instruction`` is the instruction that does it; None where hardware
    does (caches) or plain loads and stores do (registers).
    """

    src: str
    dst: str
    granularity: int = 1
    most: int | None = None
    latency: float = 0.0
    bandwidth: float = 0.0
    energy: float = 0.0
    asynchronous: bool = False
    instruction: Instruction | None = None
    note: str = ""
    in_flight: int | None = None

    @property
    def name(self) -> str:
        return self.instruction.name if self.instruction else f"{self.src}->{self.dst}"

    def cycles(self, nbytes: int) -> float:
        """Cycles to move ``nbytes`` at the declared bandwidth, latency once; padding to the granularity counts."""
        moved = -(-nbytes // self.granularity) * self.granularity
        return self.latency + (moved / self.bandwidth if self.bandwidth else 0.0)


def transfer(
    *,
    name: str | None = None,
    granularity: int = 1,
    most: int | None = None,
    latency: float = 0.0,
    bandwidth: float = 0.0,
    energy: float = 0.0,
    asynchronous: bool = False,
    needs: Need | State | str | tuple[Need | State | str, ...] = (),
    requires: Requires | None = None,
    unit: str | None = None,
    emit: Emit | None = None,
    note: str = "",
    in_flight: int | None = None,
    replaces: bool = False,
    around: tuple[tuple[str, int], ...] = (),
) -> Callable[[Callable[..., Any]], Transfer]:
    """Declares a transfer by its semantics: ``dst[i, j] = src[i, j]`` with both operands annotated.

    Operands without dimensions are settings (a scale): what they hold is state, not data that moves. Costs are as in
    :class:`Transfer`, ``replaces`` and ``around`` as in :class:`~tilewright.hw.Instruction`.
    MachineError unless exactly one operand is written and one array read.
    """

    def declare(fn: Callable[..., Any]) -> Transfer:
        scope = sys._getframe(1).f_locals
        semantics = instruction(
            name=name,
            needs=needs,
            requires=requires,
            latency=latency,
            unit=unit,
            emit=emit,
            note=note,
            scope=scope,
            replaces=replaces,
            around=around,
        )
        instr = semantics(fn)
        written = [o for o in instr.operands if o.role != "in"]
        read = [o for o in instr.operands if o.role == "in" and o.shape]
        if len(written) != 1 or len(read) != 1:
            raise MachineError(
                f"transfer {instr.name} must write one operand and read one, not {len(written)} and {len(read)}",
                hint="dst[i, j] = src[i, j]",
                location=instr.loc,
            )
        return Transfer(
            read[0].memory, written[0].memory, granularity, most, latency, bandwidth, energy, asynchronous, instr, note, in_flight
        )

    return declare
