"""Footprint, reuse and traffic of a scheduled program, over symbolic loop extents.

The cache model is fully associative and all-or-nothing: what one iteration of a loop touches (all
accesses together) either fits a memory, and then stays for the next iteration, or does not, and
then every iteration fetches again. Reuse is between neighbouring iterations (a window walked inside out, whose data returns two iterations
later, counts as reused earlier than it is). Reuse across a run of loops that do not move an access spans
only the innermost of them: the data is touched all the time (stationarity). For one access,
with F(l) the lines fetched while loops l and inwards run and U(l) its distinct lines,

    F(l) = F(l+1) * U(l)/U(l+1)   if the working set between two uses fits,   F(l+1) * trips(l)   otherwise.

Everything is a :class:`~tilewright.cost.formula.Formula`: evaluate with ints, arrays or tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright.cost.footprint import Footprint, footprint
from tilewright.cost.formula import Formula, Graph
from tilewright.cost.program import Access, Loop, Program, Statement, read
from tilewright.cost.tape import Tape
from tilewright.hw import Machine
from tilewright.hw.memory import CACHE, MAIN, REGISTER
from tilewright.ir.stmt import Kernel

NONE, MULTIPLE_READ, SERIAL = 0, 1, 2


class Footprints:
    """The footprints of an access under ``loops``: of all from number n inwards, made when first asked for (registers' never are).

    Loops that do not move the access change nothing.
    """

    __slots__ = ("_access", "_graph", "_line", "_loops", "_made", "_way")

    def __init__(self, g: Graph, a: Access, loops: Sequence[Loop], line: int, way: int):
        self._graph, self._access, self._loops, self._line, self._way = g, a, loops, line, way
        self._made: dict[int, Footprint] = {}

    def __getitem__(self, level: int) -> Footprint:
        """Of loop number ``level`` and those inside it; of one iteration for the number of loops, or -1."""
        loops, moving = self._loops, self._access.loops
        if level < 0:
            level += len(loops) + 1
        while level < len(loops) and loops[level] not in moving:
            level += 1
        if (known := self._made.get(level)) is None:
            active = frozenset(x for x in loops[level:] if x in moving)
            known = self._made[level] = footprint(self._graph, self._access, active, self._line, self._way)
        return known


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """One access of one statement. ``footprints[l]`` is what it touches while loops l and inwards run (last: one iteration).

    ``earlier`` is the nearest earlier use of the same buffer in program order.
    """

    statement: Statement
    access: Access
    footprints: Footprints
    earlier: Use | None

    @property
    def loops(self) -> tuple[Loop, ...]:
        return self.statement.loops

    def shared(self, other: Use) -> int:
        """How many loops around the two uses are the same."""
        same = [a is b for a, b in zip(self.loops, other.loops, strict=False)]
        return same.index(False) if False in same else len(same)


@dataclass(frozen=True, slots=True, eq=False)
class Reuse:
    """How an access meets its data again.

    ``multiple`` is a condition: a loop with more than one iteration repeats the same data (otherwise, if ``serial``,
    another statement touched it before). Distances are iterations of the statement and bytes of all accesses between
    two uses; ``count`` the uses.
    """

    multiple: Formula
    serial: bool
    iterations: Formula
    nbytes: Formula
    count: Formula


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Loops around a use, the outermost of them number ``number``: by how much they multiply what is fetched, if the
    ``between`` bytes from one iteration to the next fit and its own find ``room`` (``growth``), or not (``trips``)."""

    number: int
    between: Formula
    room: Formula
    growth: Formula
    trips: Formula


@dataclass(slots=True, eq=False)
class Analysis:
    """Symbolic footprints of a program whose memories move lines of ``line`` bytes.

    Buffers in the memories ``inner`` (registers) take no room in the others. In memories of one core, lines a
    multiple of ``way`` bytes apart compete for the same places (0: addresses do not matter).
    """

    program: Program
    line: int
    inner: frozenset[str] = frozenset()
    way: int = 0
    uses: tuple[Use, ...] = ()
    _of: dict[Statement, tuple[Use, ...]] = field(default_factory=dict)
    _bodies: dict[Loop | None, Formula] = field(default_factory=dict)
    _levels: dict[Use, tuple[_Level, ...]] = field(default_factory=dict)
    _fetched: dict[tuple[Use, Formula, Formula], Formula] = field(default_factory=dict)

    def __post_init__(self) -> None:
        last: dict[str, Use] = {}
        for s in self.program.statements:
            uses = (Use(s, a, Footprints(self.graph, a, s.loops, self.line, self.way), last.get(a.buffer.name)) for a in s.accesses)
            self._of[s] = tuple(uses)
            last.update({u.access.buffer.name: u for u in self._of[s]})
        self.uses = tuple(u for uses in self._of.values() for u in uses)

    @property
    def graph(self) -> Graph:
        return self.program.graph

    def of(self, statement: Statement) -> tuple[Use, ...]:
        """The uses of one statement."""
        return self._of[statement]

    def iterations(self, loops: Sequence[Loop]) -> Formula:
        """Product of the trips of ``loops``."""
        return self.graph.product(x.trips for x in loops)

    def working_set(self, loop: Loop | None) -> Formula:
        """Bytes in lines that one iteration of ``loop`` touches (None: the whole program), registers excluded."""
        if loop not in self._bodies:
            largest: dict[str, Formula] = {}
            for u in self.uses:
                if u.access.buffer.memory in self.inner or (loop is not None and loop not in u.loops):
                    continue
                lines = u.footprints[0 if loop is None else u.loops.index(loop) + 1].lines
                name = u.access.buffer.name
                largest[name] = self.graph.max(largest[name], lines) if name in largest else lines
            self._bodies[loop] = self.graph.sum(largest.values()) * self.line
        return self._bodies[loop]

    def between(self, use: Use, level: int) -> Formula:
        """Bytes touched between two uses of the same data in neighbouring iterations of loop ``level``."""
        return self.working_set(use.loops[self._innermost(use, level)])

    def _innermost(self, use: Use, level: int) -> int:
        """The innermost of the loops from ``level`` inwards that do not move ``use`` (``level`` itself if it does)."""
        moving = use.access.loops
        if use.loops[level] not in moving:
            while level + 1 < len(use.loops) and use.loops[level + 1] not in moving:
                level += 1
        return level

    def fetched(self, use: Use, capacity: Formula | float, places: Formula | float = math.inf) -> Formula:
        """Lines that enter a memory of ``capacity`` bytes for ``use`` in one run of the program, empty at first.

        ``places``: bytes of a memory where addresses choose the place; there, lines of a use may evict one another before.
        """
        key = use, self.graph.lift(capacity), self.graph.lift(places)
        if key not in self._fetched:
            self._fetched[key] = self._fetch(*key)
        return self._fetched[key]

    def _fetch(self, use: Use, capacity: Formula, places: Formula) -> Formula:
        g = self.graph
        shared = use.shared(use.earlier) if use.earlier is not None else -1
        lines = use.footprints[-1].lines
        if shared == len(use.loops):
            lines = self._after_earlier(use, shared, lines, capacity)
        for level in self.levels(use, shared):
            kept = g.both(g.le(level.between, capacity), g.le(level.room, places))
            lines = lines * g.where(kept, level.growth, level.trips)
            if level.number == shared:
                lines = self._after_earlier(use, shared, lines, capacity)
        return lines

    def levels(self, use: Use, shared: int) -> tuple[_Level, ...]:
        """The loops around ``use``, innermost first; neighbours that do not move it are one, except across level ``shared``."""
        if use in self._levels:
            return self._levels[use]
        found: list[_Level] = []
        moving, inside = use.access.loops, len(use.loops)
        while inside:
            outer = inside - 1
            if use.loops[outer] not in moving:
                while outer and outer != shared and use.loops[outer - 1] not in moving:
                    outer -= 1
            growth = self.graph.div(use.footprints[outer].lines, use.footprints[inside].lines)
            room = use.footprints[self._innermost(use, outer) + 1].room * self.line
            found.append(_Level(outer, self.between(use, outer), room, growth, self.iterations(use.loops[outer:inside])))
            inside = outer
        self._levels[use] = tuple(found)
        return self._levels[use]

    def _after_earlier(self, use: Use, level: int, lines: Formula, capacity: Formula) -> Formula:
        """Lines still to be fetched after an earlier statement touched the buffer under the same loops."""
        assert use.earlier is not None
        g = self.graph
        around = self.working_set(use.loops[level - 1] if level else None)
        rest = g.max(use.footprints[level].lines - use.earlier.footprints[level].lines, 0)
        return g.where(g.le(around, capacity), g.min(rest, lines), lines)

    def reuse(self, use: Use) -> Reuse:
        """The nearest reuse of an access: the innermost loop that repeats its data, else an earlier statement."""
        g = self.graph
        zero = g.const(0)
        multiple, iterations, nbytes, count = zero, zero, zero, g.const(1)
        if use.earlier is not None:
            shared = use.shared(use.earlier)
            iterations = self.iterations(use.loops[shared:])
            nbytes = self.working_set(use.loops[shared - 1] if shared else None)
            count = g.const(2)
        moving = use.access.loops
        for level, x in enumerate(use.loops):
            if x in moving:
                continue
            repeats = x.trips > 1
            multiple = g.where(repeats, 1, multiple)
            iterations = g.where(repeats, self.iterations(use.loops[level + 1 :]), iterations)
            nbytes = g.where(repeats, self.working_set(x), nbytes)
            count = g.where(repeats, x.trips, count)
        return Reuse(multiple, use.earlier is not None, iterations, nbytes, count)


@dataclass(frozen=True, slots=True, eq=False)
class AccessReport:
    """Evaluated figures of one access; sequences run from the whole program (0) to one iteration (last).

    Values are numbers, arrays or tensors, as the environment's. ``traffic`` is bytes moved into each cache
    from the next memory, in one run of the program from empty caches.
    """

    statement: int
    buffer: str
    reads: int
    writes: int
    loops: tuple[str, ...]
    iterations: tuple[Any, ...]
    elements: tuple[Any, ...]
    nbytes: tuple[Any, ...]
    lines: tuple[Any, ...]
    reuse: Any
    reuse_iterations: Any
    reuse_bytes: Any
    reuse_count: Any
    traffic: Mapping[str, Any]


def registers(machine: Machine) -> frozenset[str]:
    """Names of the machine's register memories."""
    return frozenset(m.name for m in machine.memories if m.kind == REGISTER)


def line_bytes(machine: Machine) -> int:
    """Bytes of a cache line (1 on machines without caches)."""
    return max((m.line for m in machine.memories if m.kind == CACHE), default=1)


def analyse(
    program: Kernel,
    env: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    capacities: Mapping[str, float] | None = None,
    line: int | None = None,
) -> list[AccessReport]:
    """Footprint, reuse and traffic of every access of ``program``, in program order.

    ``env`` binds its knobs to ints, arrays of one length, or tensors. Memories are the caches of ``machine``
    or ``capacities`` (name to bytes); lines are the machine's unless given.
    """
    sizes = dict(capacities or {})
    if machine is not None:
        sizes |= {m.name: m.bytes for m in machine.memories if m.bytes and m.kind not in (MAIN, REGISTER)}
    a = Analysis(read(program), line or (line_bytes(machine) if machine else 1), registers(machine) if machine else frozenset())
    rows = [_formulas(a, u, sizes) for u in a.uses]
    values = iter(Tape([f for row in rows for f in row])(env or {}))
    return [_report(u, sizes, [next(values) for _ in row]) for u, row in zip(a.uses, rows, strict=True)]


def _formulas(a: Analysis, u: Use, sizes: Mapping[str, float]) -> list[Formula]:
    g, r = a.graph, a.reuse(u)
    levels = range(len(u.loops) + 1)
    kind = g.where(r.multiple, MULTIPLE_READ, SERIAL if r.serial else NONE)
    return [
        *(a.iterations(u.loops[n:]) for n in levels),
        *(u.footprints[n].elements for n in levels),
        *(u.footprints[n].lines for n in levels),
        *(kind, r.iterations, r.nbytes, r.count),
        *(a.fetched(u, c) * a.line for c in sizes.values()),
    ]


def _report(u: Use, sizes: Iterable[str], values: list[Any]) -> AccessReport:
    n = len(u.loops) + 1
    iterations, elements, lines, rest = values[:n], values[n : 2 * n], values[2 * n : 3 * n], values[3 * n :]
    return AccessReport(
        u.statement.position,
        u.access.buffer.name,
        u.access.reads,
        u.access.writes,
        tuple(x.name for x in u.loops),
        tuple(iterations),
        tuple(elements),
        tuple(e * u.access.itemsize for e in elements),
        tuple(lines),
        rest[0],
        rest[1],
        rest[2],
        rest[3],
        dict(zip(sizes, rest[4:], strict=True)),
    )
