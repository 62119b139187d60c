"""The order of issue at the edges of a program, where nothing else hides latencies.

What runs before the array has work and after its last product is what small programs consist of. There the commands are written
out with their numbers and put in the order in which a simple model of the declared costs starts them: loads by what is needed
first, computations as their operands arrive and so that the first results are complete early, stores as soon as they can.
Short programs are such an edge as a whole; of longer ones it is what comes before and after the loop over steps, with its first and its
last iteration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.codegen.commands.program import Command, Host, Item, Let, Loop, Pointer, Tile, Word, walk
from tilewright.codegen.commands.written import COMPUTE, LOAD, STORE, WrittenOut, number
from tilewright.hw import Instruction, Machine, Steps, Transfer
from tilewright.ir import expr as ex
from tilewright.ir.expr import Const

#: Commands that an edge has at most: what the host's code grows by, and what takes no time to order.
LARGEST = 384


def ordered(items: tuple[Item, ...], machine: Machine, known: Mapping[str, Word]) -> tuple[Item, ...]:
    """``items``, with setters but without fences, and the commands at both ends in the order that starts and ends soonest.

    Unchanged where host work or a loop form is among them, or where state, or an argument both loaded and stored, ties commands together.
    """
    if any(isinstance(i, Host) or (isinstance(i, Command) and known[i.word].form is not None) for i in walk(items)):
        return items
    edge = _Edge(machine, known)
    if (whole := edge.commands(items, {})) is not None:
        return edge.order(whole) or items
    loops = [n for n, i in enumerate(items) if isinstance(i, Loop) and isinstance(i.lo, Const) and isinstance(i.hi, Const)]
    if not loops:
        return items
    at = max(loops, key=lambda n: sum(1 for _ in walk((items[n],))))
    loop = items[at]
    assert isinstance(loop, Loop) and isinstance(loop.lo, Const) and isinstance(loop.hi, Const)
    lo, hi = int(loop.lo.value), int(loop.hi.value)
    last = lo + (hi - lo - 1) // loop.step * loop.step
    if last <= lo + loop.step:
        return items
    before, after = items[:at], items[at + 1 :]
    head = edge.commands((*before, Let(loop.var, ex.idx(lo)), *loop.body), {})
    if head is not None and (first := edge.order(head)) is not None:
        before, lo = first, lo + loop.step
    tail = edge.commands((Let(loop.var, ex.idx(last)), *loop.body, *after), {})
    if tail is not None and (end := edge.order(tail, _set_once(items, known))) is not None:
        after, hi = end, last
    return (*before, Loop(loop.var, ex.idx(lo), ex.idx(hi), loop.body, loop.step), *after)


def _set_once(items: tuple[Item, ...], known: Mapping[str, Word]) -> dict[str, Command]:
    """The setters of states that a program sets in one way only, to numbers."""
    found: dict[str, set[Command]] = {}
    for i in walk(items):
        if isinstance(i, Command) and (state := known[i.word].instruction.sets) is not None:
            found.setdefault(state, set()).add(i)
    one = {state: next(iter(ways)) for state, ways in found.items() if len(ways) == 1}
    return {state: c for state, c in one.items() if all(isinstance(o, Const) for _, o in c.operands)}


@dataclass(slots=True)
class _Node:
    """Commands of one controller that stay together; ``rank`` orders those of a controller that could start at the same time."""

    kind: str
    commands: list[Command]
    cycles: float
    latency: float
    rank: int
    reads: set[tuple[str, int]] = field(default_factory=set)
    writes: set[tuple[str, int]] = field(default_factory=set)
    waits: int = 0
    ready: float = 0.0
    then: set[int] = field(default_factory=set)


class _Edge(WrittenOut):
    def __init__(self, machine: Machine, known: Mapping[str, Word]):
        super().__init__(machine, known, LARGEST)
        self.transfers: dict[str, Transfer] = {t.instruction.name: t for t in machine.transfers if t.instruction is not None}

    def order(self, commands: Sequence[Command], given: Mapping[str, Command] | None = None) -> tuple[Item, ...] | None:
        """The commands in the order of their estimated starts, after setters ``given`` by state; None where they must stay as they are."""
        split = self.split(commands)
        if split is None:
            return None
        setters, work = split
        known = {**(given or {}), **setters}
        # Which lines a command takes depends on what is set.
        if any(n.state not in known for c in work for n in self.words[c.word].instruction.needs):
            return None
        out: list[Item] = []
        for c in self._started(self.nodes(work, known)):
            for state in [s for s in setters if self.needs(c, s)]:
                out.append(setters.pop(state))
            out.append(c)
        return (*out, *setters.values())

    def nodes(self, work: Sequence[Command], setters: Mapping[str, Command]) -> list[_Node]:
        """The commands as nodes that wait for each other; in the order of the program."""
        out: list[_Node] = []
        for c in work:
            kind, word = self.kind(c), self.words[c.word]
            emit = word.instruction.emit
            follows = isinstance(emit, Steps) and word.encoding != emit.steps[0]
            if kind == COMPUTE and follows and (before := [n for n in out if n.kind == COMPUTE]):
                node = before[-1]
                node.commands.append(c)
            else:
                node = _Node(kind, [c], 0.0, self._latency(word.instruction), len(out))
                out.append(node)
            node.cycles += self._cycles(c, word)
            self._touched(c, word.instruction, setters, node)
        self._link(out)
        return out

    def _latency(self, i: Instruction) -> float:
        return self.transfers[i.name].latency if i.name in self.transfers else i.latency

    def _cycles(self, c: Command, word: Word) -> float:
        i = word.instruction
        if i.name in self.transfers:
            tile = next(o for _, o in c.operands if isinstance(o, Tile))
            pointer = next(n for n, o in c.operands if isinstance(o, Pointer))
            rows, cols = number(tile.rows), number(tile.cols)
            return max(rows, rows * cols * i.operand(pointer).dtype.nbytes / (self.transfers[i.name].bandwidth or 1))
        return i.cycles() / (len(i.emit.steps) if isinstance(i.emit, Steps) else 1)

    def _touched(self, c: Command, i: Instruction, setters: Mapping[str, Command], node: _Node) -> None:
        """Adds the lines that a command reads and writes. What it adds to counts as both."""
        for n, o in c.operands:
            if isinstance(o, Tile):
                role, lines = i.operand(n).role, self.lines_of(i, n, o, setters)
                node.reads |= lines if role != "out" else set()
                node.writes |= lines if role != "in" else set()

    def _link(self, nodes: Sequence[_Node]) -> None:
        writer: dict[tuple[str, int], int] = {}
        readers: dict[tuple[str, int], set[int]] = {}
        store = None
        for n, node in enumerate(nodes):
            before = {writer[x] for x in node.reads | node.writes if x in writer}
            for x in node.writes:
                before |= readers.pop(x, set())
                writer[x] = n
            for x in node.reads:
                readers.setdefault(x, set()).add(n)
            if node.kind == STORE:
                before |= {store} if store is not None else set()
                store = n
            before.discard(n)
            node.waits = len(before)
            for b in before:
                nodes[b].then.add(n)
        _rank(nodes)

    def _started(self, nodes: Sequence[_Node]) -> list[Command]:
        """A list schedule: of what could start, the soonest; each controller does one thing at a time."""
        free = {LOAD: 0.0, COMPUTE: 0.0, STORE: 0.0}
        ready = [n for n in nodes if not n.waits]
        out: list[Command] = []
        while ready:
            node = min(ready, key=lambda n: (max(free[n.kind], n.ready), n.kind != LOAD, n.rank))
            ready.remove(node)
            out += node.commands
            end = free[node.kind] = max(free[node.kind], node.ready) + node.cycles
            for place in node.then:
                later = nodes[place]
                # Only what another controller waits for takes its way through memory; the array adds in the order of issue.
                late = later.kind != node.kind and (later.reads & node.writes)
                later.ready = max(later.ready, end + (node.latency if late else 0))
                later.waits -= 1
                if not later.waits:
                    ready.append(later)
        return out


def _rank(nodes: Sequence[_Node]) -> None:
    """Loads in the order in which computations read them, in these the order of their words; computations by the store they precede."""
    place = {id(n): k for k, n in enumerate(nodes)}
    for n in reversed(nodes):
        users = [nodes[k] for k in n.then]
        if n.kind == COMPUTE:
            stores = [u.rank for u in users if u.kind == STORE]
            further = [u.rank for u in users if u.kind == COMPUTE]
            n.rank = min([*stores, *further], default=len(nodes)) if stores or further else len(nodes)
        elif n.kind == STORE:
            n.rank = place[id(n)]
    # Computations of one rank keep their order: ready ones are compared in the order in which they became ready, which may differ.
    for n in nodes:
        if n.kind == COMPUTE:
            n.rank = n.rank * len(nodes) + place[id(n)]
    for n in nodes:
        if n.kind == LOAD:
            uses = [k for k in n.then if nodes[k].kind == COMPUTE]
            n.rank = _first_use(n, nodes[min(uses)], min(uses)) if uses else len(nodes) * 1000 + place[id(n)]


def _first_use(load: _Node, user: _Node, place: int) -> int:
    """Where the first computation that reads what ``load`` brings does so: its place, then the word of it."""
    written = {(m, line) for m, line in load.writes}
    for n, c in enumerate(user.commands):
        if any(isinstance(o, Tile) and (o.memory, number(o.row)) in written for _, o in c.operands):
            return place * 1000 + n
    return place * 1000
