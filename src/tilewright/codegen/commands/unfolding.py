"""Short programs as values and what is done with them, without an order and without places.

A program of moves and computations is written out; whatever a move brings into a memory, or computations add up there, becomes a
:class:`Piece` with a place of its own, so that nothing waits only because a line is used again. What is loaded twice is loaded once.
What remains is what must come before what, and anything that has it in another order computes the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilewright.codegen.commands.program import Command, Fence, Host, Item, Operand, Pointer, Program, Tile, Word, walk, words
from tilewright.codegen.commands.written import COMPUTE, LOAD, STORE, WrittenOut, number
from tilewright.hw import Machine, Steps
from tilewright.ir import expr as ex

Line = tuple[str, int]


@dataclass(slots=True)
class Piece:
    """Lines of a memory that keep their distances: ``lines`` of them from ``first`` on, read as these operands. ``loaded``: a move
    brings them.
    """

    memory: str
    first: int
    lines: int
    read_as: set[str] = field(default_factory=set)
    loaded: bool = False


@dataclass(slots=True)
class Node:
    """A move or a computation. ``pieces`` are those of its tiles, by operand. ``after`` are nodes that must be issued before.

    ``sums``: of computations that add to the same tile in any order, the first replaces what is there (-1: as they are). ``move``: which
    move of the program it is, or is a part of.
    """

    kind: str
    word: Word
    operands: dict[str, Operand]
    pieces: dict[str, int] = field(default_factory=dict)
    after: set[int] = field(default_factory=set)
    sums: int = -1
    move: int = -1


@dataclass(frozen=True, slots=True)
class Unfolded:
    """``setters`` by state come before the first node that needs them; ``fixed`` memories have no room for all pieces at once."""

    program: Program
    machine: Machine
    known: Mapping[str, Word]
    nodes: tuple[Node, ...]
    pieces: tuple[Piece, ...]
    setters: Mapping[str, Command]
    fixed: frozenset[str]

    def of(self, kind: str) -> list[int]:
        """The numbers of the nodes of a kind, in the order of the program."""
        return [n for n, node in enumerate(self.nodes) if node.kind == kind]

    def held(self, n: int) -> tuple[object, ...] | None:
        """What a computation leaves in the units: the next one with the same need not bring it. None where nothing stays."""
        emit = self.nodes[n].word.instruction.emit
        if not isinstance(emit, Steps) or not emit.again:
            return None
        return emit.held, self.nodes[n].operands[emit.held], self.nodes[n].pieces.get(emit.held)

    def commands(self, n: int, places: Sequence[int], again: bool, first: bool) -> tuple[Command, ...]:
        """The words of a node with its pieces at ``places``; ``again``: what it holds is in the units; ``first`` of its sums."""
        node, i = self.nodes[n], self.nodes[n].word.instruction
        steps = (i.emit.again if again else i.emit.steps) if isinstance(i.emit, Steps) else (node.word.encoding,)
        values = {name: self._placed(o, node.pieces.get(name), places) for name, o in node.operands.items()}
        if node.sums >= 0:
            values["accumulate"] = ex.idx(0 if first else 1)
        out = []
        for w in steps:
            asked = dict.fromkeys(b.value.partition(".")[0] for b in (*w.rs1, *w.rs2) if isinstance(b.value, str))
            out.append(Command(f"{i.name}.{w.name}" if isinstance(i.emit, Steps) else i.name, tuple((a, values[a]) for a in asked)))
        return tuple(out)

    def _placed(self, o: Operand, piece: int | None, places: Sequence[int]) -> Operand:
        if piece is None or not isinstance(o, Tile):
            return o
        return replace(o, row=ex.idx(number(o.row) + places[piece] - self.pieces[piece].first))

    def needs(self, n: int) -> list[str]:
        """The states that a node needs."""
        return [need.state for need in self.nodes[n].word.instruction.needs if need.state in self.setters]

    def issued(self, items: Sequence[Item]) -> Program:
        """The program that issues ``items``."""
        return replace(self.program, body=(*items, Fence()))


def unfold(program: Program, machine: Machine, most: int, cuts: Mapping[int, int] | None = None, anew: bool = True) -> Unfolded | None:
    """``program`` unfolded; None if it has more than ``most`` commands, host work, or state that changes, or if commands
    depend on each other in other ways than through lines of memories.

    ``cuts``: move number n of the program is cut into several, of so many lines side by side, so that what a load brings is there sooner,
    and a store can begin with what is complete.
    """
    known = words(machine)
    body = program.body[:-1] if program.body and isinstance(program.body[-1], Fence) else program.body
    if any(isinstance(i, (Host, Fence)) for i in walk(body)):
        return None
    out = WrittenOut(machine, known, most)
    flat = out.commands(body, {})
    split = out.split(flat) if flat is not None else None
    if split is None:
        return None
    setters, work = split
    return _Unfolding(program, machine, known, out, setters).made(_cut(out, setters, work, cuts or {}), anew)


def _cut(
    out: WrittenOut, setters: Mapping[str, Command], work: Sequence[Command], cuts: Mapping[int, int]
) -> Iterator[tuple[Command, int]]:
    """``work`` with cut moves, and the number of the move that each is, or is a part of; -1 for computations.

    Loads of the same have the same number: cut alike, they are still loads of the same.
    """
    numbers: dict[object, int] = {}
    for c in work:
        if out.kind(c) == COMPUTE:
            yield c, -1
            continue
        what = (c.word, *((o.rows, o.cols) if isinstance(o, Tile) else (n, o) for n, o in c.operands))
        move = numbers.setdefault(what, len(numbers))
        for part in out.narrower(c, cuts[move], setters) if move in cuts else [c]:
            yield part, move


class _Unfolding:
    def __init__(self, program: Program, machine: Machine, known: Mapping[str, Word], out: WrittenOut, setters: Mapping[str, Command]):
        self.program, self.machine, self.known, self.out, self.setters = program, machine, known, out, setters
        self.nodes: list[Node] = []
        #: By node: the versions of lines it reads, writes, and adds to.
        self.reads: list[dict[str, list[int]]] = []
        self.version: dict[Line, int] = {}
        self.lines: list[Line] = []
        self.parent: list[int] = []
        self.writers: list[list[int]] = []
        self.readers: list[list[int]] = []
        self.previous: dict[int, int] = {}

    def made(self, work: Iterable[tuple[Command, int]], anew: bool) -> Unfolded | None:
        for node in self._nodes(work):
            if not self._enter(node):
                return None
        pieces = self._pieces()
        if pieces is None:
            return None
        fixed = self._fixed(pieces) if anew else {p.memory for p in pieces}
        self._link(fixed)
        merged = self._without_copies(pieces, fixed)
        if self._stored_twice():
            return None
        return Unfolded(self.program, self.machine, self.known, tuple(merged), tuple(pieces), self.setters, frozenset(fixed))

    def _nodes(self, work: Iterable[tuple[Command, int]]) -> list[Node]:
        """One for each instruction, with all its operands."""
        out: list[Node] = []
        held: dict[str, Operand] = {}
        for c, move in work:
            word = self.known[c.word]
            i, emit = word.instruction, word.instruction.emit
            if isinstance(emit, Steps):
                if word.encoding in (emit.steps[0], *emit.again[:1]):
                    out.append(Node(COMPUTE, word, {}))
                    if word.encoding != emit.steps[0]:
                        out[-1].operands[emit.held] = held[i.name]
                out[-1].operands |= dict(c.operands)
                if emit.held in out[-1].operands:
                    held[i.name] = out[-1].operands[emit.held]
            else:
                out.append(Node(self.out.kind(c), word, dict(c.operands), move=move))
        return out

    # Versions of lines

    def _new(self, line: Line, n: int) -> int:
        v = len(self.lines)
        if line in self.version:
            self.previous[v] = self.version[line]
        self.version[line] = v
        self.lines.append(line)
        self.parent.append(v)
        self.writers.append([n])
        self.readers.append([])
        return v

    def _root(self, v: int) -> int:
        while self.parent[v] != v:
            self.parent[v] = v = self.parent[self.parent[v]]
        return v

    def _join(self, versions: Sequence[int]) -> None:
        for v in versions[1:]:
            self.parent[self._root(v)] = self._root(versions[0])

    def _enter(self, node: Node) -> bool:
        """Adds a node; False where it reads what was never written."""
        n = len(self.nodes)
        self.nodes.append(node)
        touched: dict[str, list[int]] = {}
        i = node.word.instruction
        tiles = [(name, o, i.operand(name).role) for name, o in node.operands.items() if isinstance(o, Tile)]
        replaces = "accumulate" in node.operands and node.operands["accumulate"] == ex.idx(0)
        for name, o, role in sorted(tiles, key=lambda t: t[2] != "in"):
            lines = sorted(self.out.lines_of(i, name, o, self.setters))
            if role == "out" or (role == "inout" and replaces):
                # What was written and not read yet is filled before something is laid over it.
                fresh = [x for x in lines if x not in self.version or self.readers[self.version[x]] or role == "inout"]
                for x in lines:
                    if x not in fresh:
                        self.writers[self.version[x]].append(n)
                for x in fresh:
                    self._new(x, n)
                versions = [self.version[x] for x in lines]
            else:
                if any(x not in self.version for x in lines):
                    return False
                versions = [self.version[x] for x in lines]
                for v in versions:
                    (self.readers if role == "in" else self.writers)[v].append(n)
            self._join(versions)
            touched[name] = versions
        self.reads.append(touched)
        return True

    # Pieces

    def _pieces(self) -> list[Piece] | None:
        """Joined lines; None where a piece would hold a line twice."""
        members: dict[int, list[int]] = {}
        for v in range(len(self.lines)):
            members.setdefault(self._root(v), []).append(v)
        number_of: dict[int, int] = {}
        out: list[Piece] = []
        for root, versions in members.items():
            lines = [self.lines[v][1] for v in versions]
            if len(set(lines)) < len(lines):
                return None
            number_of[root] = len(out)
            out.append(Piece(self.lines[versions[0]][0], min(lines), max(lines) - min(lines) + 1))
        for node, touched in zip(self.nodes, self.reads, strict=True):
            for name, versions in touched.items():
                node.pieces[name] = number_of[self._root(versions[0])]
                piece = out[node.pieces[name]]
                if node.kind == COMPUTE:
                    piece.read_as.add(name)
                piece.loaded |= node.kind == LOAD
        return out

    def _fixed(self, pieces: Sequence[Piece]) -> set[str]:
        """Memories in which the pieces do not fit beside each other."""
        total: dict[str, int] = {}
        for p in pieces:
            total[p.memory] = total.get(p.memory, 0) + p.lines
        room = {m: (self.machine.memory(m).bytes or 0) // self.machine.memory(m).line for m in total}
        return {m for m, lines in total.items() if lines > room[m]}

    # Dependences

    def _link(self, fixed: set[str]) -> None:
        seen: set[tuple[object, ...]] = set()
        for v, line in enumerate(self.lines):
            writers = self.writers[v]
            uses = tuple(writers), tuple(self.readers[v]), line[0] in fixed and self.previous.get(v)
            if uses in seen:
                continue  # another line of the same tiles
            seen.add(uses)
            adding = [n for n in writers if self.nodes[n].kind == COMPUTE]
            alike = len({self._tile(n) for n in adding}) <= 1
            # Sums come in any order; what a load wrote comes before them.
            for k, n in enumerate(writers):
                self.nodes[n].after |= {m for m in writers[:k] if not alike or m not in adding or n not in adding}
            if alike and len(adding) == len(writers) and adding and self._replaces(adding[0]):
                for n in adding:
                    self.nodes[n].sums = v if self.nodes[n].sums < 0 else self.nodes[n].sums
            for n in self.readers[v]:
                self.nodes[n].after |= set(writers)
            if line[0] in fixed and v in self.previous:
                earlier = {*self.writers[self.previous[v]], *self.readers[self.previous[v]]}
                for n in writers:
                    self.nodes[n].after |= earlier
        for n, node in enumerate(self.nodes):
            node.after.discard(n)

    def _tile(self, n: int) -> tuple[object, ...]:
        node = self.nodes[n]
        return next((name, o) for name, o in node.operands.items() if node.word.instruction.operand(name).role == "inout")

    def _replaces(self, n: int) -> bool:
        return self.nodes[n].operands.get("accumulate") == ex.idx(0)

    def _without_copies(self, pieces: Sequence[Piece], fixed: set[str]) -> list[Node]:
        """Nodes without the loads of what another piece already holds."""
        written: dict[int, list[int]] = {}
        for n, node in enumerate(self.nodes):
            for name, p in node.pieces.items():
                if node.word.instruction.operand(name).role != "in":
                    written.setdefault(p, []).append(n)
        same: dict[int, int] = {}
        original: dict[object, int] = {}
        for p, loads in written.items():
            if pieces[p].memory in fixed or any(self.nodes[n].kind != LOAD for n in loads):
                continue
            content = (pieces[p].memory, *((self.nodes[n].word.instruction.name, *self._content(n, pieces[p])) for n in loads))
            same[p] = original.setdefault(content, p)
        gone = {n: m for p, q in same.items() if p != q for n, m in zip(written[p], written[q], strict=True)}
        kept = [n for n in range(len(self.nodes)) if n not in gone]
        place = {n: k for k, n in enumerate(kept)}
        out: list[Node] = []
        for n in kept:
            node = self.nodes[n]
            for name, p in node.pieces.items():
                if same.get(p, p) != p:
                    o = node.operands[name]
                    assert isinstance(o, Tile)
                    node.operands[name] = replace(o, row=ex.idx(number(o.row) - pieces[p].first + pieces[same[p]].first))
                    node.pieces[name] = same[p]
            node.after = {place[gone.get(m, m)] for m in node.after}
            out.append(node)
        return out

    def _content(self, n: int, piece: Piece) -> tuple[object, ...]:
        return tuple(
            (name, number(o.row) - piece.first, o.rows, o.cols) if isinstance(o, Tile) else (name, o)
            for name, o in self.nodes[n].operands.items()
        )

    def _stored_twice(self) -> bool:
        starts = [o for node in self.nodes if node.kind == STORE for o in node.operands.values() if isinstance(o, Pointer)]
        return len(set(starts)) < len(starts)
