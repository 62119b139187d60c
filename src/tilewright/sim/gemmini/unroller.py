"""The order in which the loop machines issue: five of them per loop, two loops at a time, one command a cycle.

Stores go before executes, executes before loads; of A and B the one that is behind along k; all as far as the reservation
station has room. The host configures the next loop but one when a loop has issued everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.sim.gemmini.expansion import Expansion
from tilewright.sim.gemmini.isa import Command

if TYPE_CHECKING:
    from tilewright.sim.gemmini.cycles import Cycles

#: The machines by priority, with the controller they issue to.
MACHINES = {"store": "store", "execute": "execute", "bias": "load", "a": "load", "b": "load"}
CONCURRENT = 2


@dataclass(slots=True)
class Machine:
    """One loop machine: the loop it is at, its position there, and when it issued last."""

    loop: int = 0
    at: int = 0
    last: dict[int, int] = field(default_factory=dict)


class Unroller:
    """Progress of all machines through a batch of loops."""

    def __init__(self, model: Cycles, loops: list[tuple[Expansion, int]], now: int):
        self.model, self.host = model, now
        self.loops = [e for e, _ in loops]
        self.commands = [n for _, n in loops]
        self.parts = {name: [getattr(e, name) for e in self.loops] for name in MACHINES}
        self.machines = {name: Machine() for name in MACHINES}
        self.configured: list[int] = []
        for _ in range(CONCURRENT):
            self._configure(now)

    def _configure(self, now: int) -> None:
        """The host issues the commands of the next loop from ``now`` on."""
        if len(self.configured) < len(self.loops):
            each = 1 + self.model.timing.gap
            self.host = max(self.host, now) + self.commands[len(self.configured)] * each
            self.configured.append(self.host)

    def _advance(self) -> None:
        """Moves machines that are through with a loop to the next one; a finished loop makes room for another."""
        while through := [m for n, m in self.machines.items() if m.loop < len(self.configured) and m.at >= len(self.parts[n][m.loop])]:
            for m in through:
                done, m.loop, m.at = m.loop, m.loop + 1, 0
                if all(other.loop > done for other in self.machines.values()):
                    self._configure(max(other.last.get(done, 0) for other in self.machines.values()) + 2)

    def _issued(self, name: str, loop: int) -> int:
        """How many commands of a loop a machine has issued."""
        m = self.machines[name]
        return len(self.parts[name][loop]) if m.loop > loop else m.at if m.loop == loop else 0

    def _may(self, name: str, m: Machine) -> bool:
        """Whether the commands this one builds on have been issued."""
        loop = self.loops[m.loop]
        if name == "store":
            return self._issued("execute", m.loop) >= loop.after[m.at]
        if name == "execute":
            a, b = loop.needs[m.at]
            ready = self._issued("a", m.loop) >= a and self._issued("b", m.loop) >= b
            return ready and self._issued("bias", m.loop) == len(loop.bias)
        return True

    def _behind(self, name: str) -> bool:
        """Of A and B: whether the other one goes first."""
        a, b = self.machines["a"], self.machines["b"]
        if a.loop != b.loop:
            return (a.loop > b.loop) == (name == "a")
        if a.loop >= len(self.configured):
            return False
        a_k, b_k = self.loops[a.loop].a_k, self.loops[b.loop].b_k
        if a.at >= len(a_k) or b.at >= len(b_k):
            return False
        return (a_k[a.at] > b_k[b.at] or b.at == 0) == (name == "a")

    def next(self, now: int) -> tuple[str, int] | None:
        """The machine that can issue first, and when; None at the end."""
        self._advance()
        best: tuple[int, int, int] | None = None
        chosen = ""
        for priority, (name, unit) in enumerate(MACHINES.items()):
            m = self.machines[name]
            if m.loop >= len(self.configured) or not self._may(name, m):
                continue
            start = self.configured[m.loop] + self.model.timing.loop if m.at == 0 else 0
            if name == "execute" and (idle := self.loops[m.loop].idle):
                start = max(start, m.last.get(m.loop, 0)) + idle[m.at]
            rank = (self.model.room(unit, max(now, start)), min(priority, 3), int(name in "ab" and self._behind(name)))
            if best is None or rank < best:
                best, chosen = rank, name
        return (chosen, best[0]) if best else None

    def take(self, name: str) -> Command:
        """The next command of a machine."""
        m = self.machines[name]
        command: Command = self.parts[name][m.loop][m.at]
        m.at += 1
        return command


def unroll(model: Cycles, loops: list[tuple[Expansion, int]], now: int) -> int:
    """Issues a batch of loops, each with the number of commands the host spends on it; returns the cycle after the last."""
    if not loops:
        return now
    state = Unroller(model, loops, now)
    while (choice := state.next(now)) is not None:
        name, cycle = choice
        m = state.machines[name]
        now = model.issue(state.take(name), cycle)
        m.last[m.loop] = now
        now += 1
    return now
