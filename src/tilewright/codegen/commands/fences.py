"""Where the host must wait: at the end, and before it or a command uses what commands under way write, or writes what they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.codegen.commands.program import Branch, Command, Fence, Host, Item, Loop, Pointer, Word
from tilewright.ir.stmt import read_buffers, written_buffers


@dataclass(frozen=True, slots=True)
class _Way:
    """Arrays that commands under way read and write; ``busy`` when there are any commands."""

    reading: frozenset[str] = frozenset()
    writing: frozenset[str] = frozenset()
    busy: bool = False

    def with_(self, other: _Way) -> _Way:
        return _Way(self.reading | other.reading, self.writing | other.writing, self.busy or other.busy)

    def allows(self, reads: frozenset[str], writes: frozenset[str]) -> bool:
        """Whether these accesses need not wait. Of commands, those that write are done in their order."""
        return not (reads & self.writing or writes & self.reading)


_IDLE = _Way()


def fenced(items: tuple[Item, ...], known: Mapping[str, Word]) -> tuple[Item, ...]:
    """The program with fences where they are needed, and at its end where commands may be under way."""
    out, way = _Fences(known).block(items, _IDLE)
    return (*out, Fence()) if way.busy else out


class _Fences:
    def __init__(self, known: Mapping[str, Word]):
        self.words = known

    def block(self, items: tuple[Item, ...], way: _Way) -> tuple[tuple[Item, ...], _Way]:
        out: list[Item] = []
        for i in items:
            match i:
                case Command():
                    reads, writes = self.command(i)
                    if not way.allows(reads, writes):
                        out.append(Fence())
                        way = _IDLE
                    way = way.with_(_Way(reads, writes, True))
                    out.append(i)
                case Host():
                    reads, writes = _host(i)
                    if not way.allows(reads, writes) or writes & way.writing:
                        out.append(Fence())
                        way = _IDLE
                    out.append(i)
                case Loop():
                    # An iteration starts as busy as the one before left off.
                    after, start = self.block(i.body, way)[1], way
                    while (more := start.with_(after)) != start:
                        start = more
                        after = self.block(i.body, start)[1]
                    out.append(Loop(i.var, i.lo, i.hi, self.block(i.body, start)[0], i.step))
                    way = way.with_(after)
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

    def command(self, c: Command) -> tuple[frozenset[str], frozenset[str]]:
        """The arrays that a command reads, and those that it writes."""
        roles = {o.name: o.role for o in self.words[c.word].instruction.operands}
        pointers = [(o.base, roles[n]) for n, o in c.operands if isinstance(o, Pointer)]
        return frozenset(b for b, r in pointers if r == "in"), frozenset(b for b, r in pointers if r != "in")


def _host(i: Host) -> tuple[frozenset[str], frozenset[str]]:
    stored, loaded = written_buffers(i.kernel.body), read_buffers(i.kernel.body)
    names = {b.name: name for b, name in zip(i.kernel.args, i.args, strict=True)}
    return frozenset(n for b, n in names.items() if b in loaded), frozenset(n for b, n in names.items() if b in stored)
