"""Where the host must wait: at the end, before it or a command uses what commands under way write, or writes what they read, and before
a move adds to what moves under way bring: these are begun in order, but main memory may answer in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.codegen.commands.program import Branch, Command, Fence, Host, Item, Loop, Pointer, Tile, Word
from tilewright.hw import Machine
from tilewright.ir.stmt import read_buffers, written_buffers


@dataclass(frozen=True, slots=True)
class _Way:
    """Arrays that commands under way read and write, and memories that moves fill; ``busy`` when there are any commands."""

    reading: frozenset[str] = frozenset()
    writing: frozenset[str] = frozenset()
    filling: frozenset[str] = frozenset()
    busy: bool = False

    def with_(self, other: _Way) -> _Way:
        return _Way(self.reading | other.reading, self.writing | other.writing, self.filling | other.filling, self.busy or other.busy)

    def allows(self, reads: frozenset[str], writes: frozenset[str]) -> bool:
        """Whether these accesses need not wait. Of commands, those that write are done in their order."""
        return not (reads & self.writing or writes & self.reading)


_IDLE = _Way()


def unordered(machine: Machine) -> frozenset[str]:
    """The moves of which several may be on their way at once."""
    return frozenset(t.name for t in machine.transfers if t.instruction is not None and t.asynchronous and t.in_flight != 1)


def fenced(items: tuple[Item, ...], machine: Machine, known: Mapping[str, Word]) -> tuple[Item, ...]:
    """The program with fences where they are needed, and at its end where commands may be under way."""
    out, way = _Fences(known, unordered(machine)).block(items, _IDLE)
    return (*out, Fence()) if way.busy else out


class _Fences:
    def __init__(self, known: Mapping[str, Word], unordered: frozenset[str]):
        self.words, self.unordered = known, unordered
        #: Loops (by identity) that start in a state: each is asked for several times by those around it.
        self.made: dict[tuple[int, _Way], tuple[Loop, _Way]] = {}

    def block(self, items: tuple[Item, ...], way: _Way) -> tuple[tuple[Item, ...], _Way]:
        out: list[Item] = []
        for i in items:
            match i:
                case Command():
                    reads, writes = self.command(i)
                    fills, adds = self.filled(i)
                    if not way.allows(reads, writes) or adds & way.filling:
                        out.append(Fence())
                        way = _IDLE
                    way = way.with_(_Way(reads, writes, fills, True))
                    out.append(i)
                case Host():
                    reads, writes = _host(i)
                    if not way.allows(reads, writes) or writes & way.writing:
                        out.append(Fence())
                        way = _IDLE
                    out.append(i)
                case Loop():
                    if self.loop(i, way)[0] != i and self.loop(i, _IDLE)[0] == i:
                        out.append(Fence())  # once, instead of in every iteration
                        way = _IDLE
                    made, way = self.loop(i, way)
                    out.append(made)
                case Branch():
                    then, one = self.block(i.then, way)
                    orelse, other = self.block(i.orelse, way)
                    out.append(Branch(i.cond, then, orelse))
                    way = one.with_(other)
                case Fence():
                    out.append(i)
                    way = _IDLE
                case _:
                    out.append(i)
        return tuple(out), way

    def loop(self, i: Loop, way: _Way) -> tuple[Loop, _Way]:
        """An iteration starts as busy as the one before left off."""
        key = id(i), way
        if key not in self.made:
            start = way
            body, after = self.block(i.body, start)
            while (more := start.with_(after)) != start:
                start = more
                body, after = self.block(i.body, start)
            self.made[key] = Loop(i.var, i.lo, i.hi, body, i.step), way.with_(after)
        return self.made[key]

    def command(self, c: Command) -> tuple[frozenset[str], frozenset[str]]:
        """The arrays that a command reads, and those that it writes."""
        roles = {o.name: o.role for o in self.words[c.word].instruction.operands}
        pointers = [(o.base, roles[n]) for n, o in c.operands if isinstance(o, Pointer)]
        return frozenset(b for b, r in pointers if r == "in"), frozenset(b for b, r in pointers if r != "in")

    def filled(self, c: Command) -> tuple[frozenset[str], frozenset[str]]:
        """The memories that a move replaces lines of, and those that it adds to. Additions may come in any order."""
        instruction = self.words[c.word].instruction
        if instruction.name not in self.unordered:
            return frozenset(), frozenset()
        tiles = [(o.memory, instruction.operand(n).role) for n, o in c.operands if isinstance(o, Tile)]
        return frozenset(m for m, r in tiles if r == "out"), frozenset(m for m, r in tiles if r == "inout")


def _host(i: Host) -> tuple[frozenset[str], frozenset[str]]:
    stored, loaded = written_buffers(i.kernel.body), read_buffers(i.kernel.body)
    names = {b.name: name for b, name in zip(i.kernel.args, i.args, strict=True)}
    return frozenset(n for b, n in names.items() if b in loaded), frozenset(n for b, n in names.items() if b in stored)
