"""Better orders of short programs, by the cycle model: what is issued when, and which bank holds what.

A short program is unfolded into what must come before what. An order of its computations then gives the rest: loads come in the order of
first use, stores as their sums are complete, and the host issues what has room in the reservation station. The search is
over orders of computations, banks, loads that come earlier than that, and loads and stores cut into narrower ones; the cycle model
judges each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import permutations
from math import inf

import numpy as np

from tilewright.codegen.commands import Command, Pointer, Program, Tile
from tilewright.codegen.commands.unfolding import Unfolded, unfold
from tilewright.codegen.commands.written import COMPUTE, LOAD, STORE, number
from tilewright.hw import Machine
from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.cycles import EXECUTE, SHORTEST, Cycles
from tilewright.sim.gemmini.generated import starts, timed
from tilewright.sim.gemmini.memory_timing import Timing
from tilewright.sim.gemmini.words import decode

#: Commands of a program that is written out: what the host's code grows by, and what can be tried often.
LARGEST = 2048
#: Kinds of nodes with their controllers, by who goes first.
_UNITS = ((STORE, "store"), (COMPUTE, EXECUTE), (LOAD, "load"))

#: Banks are numbered modulo those that there are.
BANKS = 8
#: Lines side by side that a move may bring or take: those are not cut.
WIDEST = 4

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Reordered:
    """A program, its cycles on the model, and how many orders were tried."""

    program: Program
    cycles: int
    tried: int


def reordered(program: Program, machine: Machine, *, trials: int, timing: Timing | None = None, seed: int = 0) -> Reordered | None:
    """The fastest of ``program`` and ``trials`` (at least 2) orders of it; None for programs that cannot be unfolded, or are too long.

    The same ``seed`` gives the same result.
    """
    unfolded = unfold(program, machine, LARGEST)
    if unfolded is None or not unfolded.of(COMPUTE):
        return None
    search = _Search(program, machine, unfolded, timing or Timing(in_flight=Configuration.of(machine).requests))
    best, cycles = search.best(trials, np.random.default_rng(seed))
    before = timed(program, machine, timing).cycles
    if before <= cycles:
        return Reordered(program, before, search.tried)
    judge = search.judge(best)
    assert judge is not None  # it was tried
    judge.run(best)
    return Reordered(judge.u.issued(judge.items), int(cycles), search.tried)


@dataclass(frozen=True, slots=True)
class Order:
    """``computes`` by their numbers in the program. ``banks`` of pieces, and by how much loads come earlier than by first use, by their
    places in that order. Moves that are ``cut``, by their numbers in the program, and to how many lines. ``anew``: places are given anew.
    """

    computes: tuple[int, ...]
    banks: Pairs = ()
    ahead: Pairs = ()
    cut: Pairs = ()
    anew: bool = True


class _Search:
    def __init__(self, program: Program, machine: Machine, unfolded: Unfolded, timing: Timing):
        self.program, self.machine, self.timing = program, machine, timing
        self.plain = _Judge(unfolded, timing)
        self.judges: dict[tuple[bool, Pairs], _Judge | None] = {(True, ()): self.plain}
        self.tried = 0

    def judge(self, o: Order) -> _Judge | None:
        """What runs orders with these cuts; None where the cuts cannot be."""
        key = o.anew, o.cut
        if key not in self.judges:
            unfolded = unfold(self.program, self.machine, LARGEST, dict(o.cut), o.anew)
            self.judges[key] = _Judge(unfolded, self.timing) if unfolded is not None else None
        return self.judges[key]

    def cycles(self, order: Order, limit: float = inf) -> float:
        """Of the program in this order; infinite where they are more than ``limit``."""
        judge = self.judge(order)
        self.tried += 1
        return judge.run(order, limit) if judge is not None else inf

    def best(self, trials: int, rng: np.random.Generator) -> tuple[Order, float]:
        """Orders sorted by what the computations share, then the best with parts of it changed: with places as they are, and anew."""
        own = Order(tuple(range(len(self.plain.computes))), anew=False)
        orders = [tuple(o) for o in self.plain.sorted_orders()]
        first = [Order(o) for o in orders[: max(1, trials // 3)]]
        best = inf, first[0]
        for o in first:
            best = min(best, (self.cycles(o, best[0]), o), key=lambda found: found[0])
        leaders = [(self.cycles(own), own), best]
        while self.tried < trials:
            turn = self.tried % 2
            cycles, order = leaders[turn]
            near = self._near(order, rng)
            if (c := self.cycles(near, cycles)) <= cycles:
                leaders[turn] = c, near
        cycles, order = min(leaders, key=lambda found: found[0])
        return order, cycles

    def _near(self, o: Order, rng: np.random.Generator) -> Order:
        judge = self.judge(o)
        assert judge is not None  # it was the best
        choice = rng.random()
        if choice < 0.5:
            return replace(o, computes=tuple(judge.legal(_moved(o.computes, rng))))
        if choice < 0.7 and o.anew:
            loaded = sum(p.loaded for p in judge.u.pieces)
            return replace(o, banks=_with(o.banks, int(rng.integers(loaded)), int(rng.integers(BANKS))))
        if choice < 0.85:
            return replace(o, ahead=_with(o.ahead, int(rng.integers(len(judge.loads))), int(rng.integers(-4, 5))))
        return replace(o, cut=self._cut(o, judge, rng))

    def _cut(self, o: Order, judge: _Judge, rng: np.random.Generator) -> Pairs:
        """Other widths for a few of the first loads, or of the last stores: nothing hides those. They gain together or not at all."""
        edge = judge.first_loads(o) if rng.random() < 0.6 else judge.last_stores(o)
        start, count = int(rng.geometric(0.6)) - 1, int(rng.geometric(0.4))
        width = int(rng.integers(1, WIDEST + 1))
        return tuple(sorted({**dict(o.cut), **dict.fromkeys(edge[start : start + count], width)}.items()))


def _with(values: Pairs, key: int, value: int) -> Pairs:
    return tuple(sorted({**dict(values), key: value}.items()))


def _moved(order: Sequence[int], rng: np.random.Generator) -> list[int]:
    """``order`` with a part of it elsewhere."""
    size = len(order)
    length = min(size, 1 << int(rng.integers(0, max(1, size.bit_length() - 1))))
    start = int(rng.integers(0, size - length + 1))
    part, rest = order[start : start + length], [*order[:start], *order[start + length :]]
    to = int(rng.integers(0, len(rest) + 1))
    return [*rest[:to], *part, *rest[to:]]


class _Judge:
    """Runs orders of the computations of one program on the cycle model; ``items`` are the commands of the last."""

    def __init__(self, u: Unfolded, timing: Timing):
        self.u, self.timing = u, timing
        self.configuration = Configuration.of(u.machine)
        self.computes, self.loads, self.stores = u.of(COMPUTE), u.of(LOAD), u.of(STORE)
        self.users: list[list[int]] = [[] for _ in u.nodes]
        for n, node in enumerate(u.nodes):
            for m in sorted(node.after):
                self.users[m].append(n)
        self.before = self._computes_before()
        self.starts = starts(u.program)
        #: By node: what it needs set, and a number for what it leaves in the units (-1: nothing stays).
        self.needs = [u.needs(n) for n in range(len(u.nodes))]
        numbers: dict[object, int] = {None: -1}
        self.held = [numbers.setdefault(u.held(n) if node.kind == COMPUTE else None, len(numbers)) for n, node in enumerate(u.nodes)]
        #: Cycles that the array takes for a node at least.
        self.busy = [max(SHORTEST, self._rows(n)) if node.kind == COMPUTE else 0 for n, node in enumerate(u.nodes)]
        self.decoded: dict[tuple[int, ...], tuple[tuple[Command, isa.Command], ...]] = {}
        self.items: list[Command] = []

    def _computes_before(self) -> list[set[int]]:
        """For each computation those that must come before it, through moves between them too."""
        reach: list[set[int]] = []
        place = {n: k for k, n in enumerate(self.computes)}
        for node in self.u.nodes:  # in the order of the program
            reach.append(set().union(*({place[m]} if m in place else reach[m] for m in node.after)))
        return [reach[n] for n in self.computes]

    # Orders

    def sorted_orders(self) -> list[list[int]]:
        """The order of the program, and orders by what computations share: moves that bring or take it, then tiles.

        The first of those grow along all sources at once, evenly or in proportion: what is there is used with all that is there, so
        that every load makes work.
        """
        names = sorted({name for n in self.computes for name in self.u.nodes[n].pieces})
        coarse, fine = ({name: self._shared(name, moves) for name in names} for moves in (True, False))
        sources = [coarse[name] for name in names if not self._written(name)]
        proportional = [[k / (max(keys) + 1) for k in keys] for keys in sources]
        grown = [[max(at) for at in zip(*keys, strict=True)] for keys in (sources, proportional)]
        keys = [[g, *(fine[x] for x in inner)] for inner in permutations(names) for g in grown]
        keys += [[*(coarse[x] for x in outer), *(fine[x] for x in inner)] for outer in permutations(names) for inner in permutations(names)]
        out = [list(range(len(self.computes)))]
        for by in keys:
            joined = list(zip(*by, strict=True))
            order = self.legal(self._shortest_earlier(sorted(out[0], key=joined.__getitem__)))
            if order not in out:
                out.append(order)
        return out

    def _written(self, name: str) -> bool:
        return any(
            node.word.instruction.operand(name).role != "in" for node in (self.u.nodes[n] for n in self.computes) if name in node.pieces
        )

    def _shared(self, name: str, moves: bool) -> list[int]:
        """Numbers for computations, the same where operand ``name`` is: the tile, or with ``moves`` what brings or takes it."""
        seen: dict[object, int] = {}
        out = []
        for n in self.computes:
            node = self.u.nodes[n]
            piece = node.pieces.get(name)
            key: object = piece, node.operands.get(name)
            if moves:
                near = [m for m in (*node.after, *self.users[n]) if self.u.nodes[m].kind != COMPUTE]
                key = min((m for m in near if piece in self.u.nodes[m].pieces.values()), default=-1)
            out.append(seen.setdefault(key, len(seen)))
        return out

    def _shortest_earlier(self, order: list[int]) -> list[int]:
        """Of neighbours that share what stays in the units, the last is one that takes long: the next one's comes in meanwhile."""
        out = list(order)
        start = 0
        for k in range(1, len(out) + 1):
            if k == len(out) or self._held(out[k]) != self._held(out[k - 1]):
                longest = max(range(start, k), key=lambda x: (self._rows(self.computes[out[x]]), x))
                out[longest], out[k - 1] = out[k - 1], out[longest]
                start = k
        return out

    def _held(self, compute: int) -> int:
        return self.held[self.computes[compute]]

    def _rows(self, n: int) -> int:
        node = self.u.nodes[n]
        written = [o for name, o in node.operands.items() if isinstance(o, Tile) and node.word.instruction.operand(name).role != "in"]
        return max((number(o.rows) for o in written), default=0)

    def legal(self, order: Sequence[int]) -> list[int]:
        """``order`` with what must come earlier moved there."""
        if not any(self.before):
            return list(order)
        place = {n: k for k, n in enumerate(order)}
        waits = {n: len(self.before[n]) for n in order}
        then: dict[int, list[int]] = {n: [] for n in order}
        for n in order:
            for m in self.before[n]:
                then[m].append(n)
        ready = [place[n] for n in order if not waits[n]]
        heapify(ready)
        out = []
        while ready:
            n = order[heappop(ready)]
            out.append(n)
            for m in then[n]:
                waits[m] -= 1
                if not waits[m]:
                    heappush(ready, place[m])
        return out

    # One order

    def run(self, order: Order, limit: float = inf) -> float:
        """The cycles of the program in this order; infinite when its moves wait for each other, or where it takes more than ``limit``.

        The array goes through the rows that are left, then the last sums drain and are stored: as soon as that is too late, it stops.
        """
        u, nodes, timing = self.u, self.u.nodes, self.timing
        computes = [self.computes[n] for n in order.computes]
        left = sum(self.busy[n] for n in computes)
        last = self.configuration.passage + timing.drain + timing.memory + timing.write - self.busy[computes[-1]]
        loads, stores = self._moves(computes, dict(order.ahead))
        places = _Places(u, dict(order.banks))
        queues = {STORE: stores, COMPUTE: computes, LOAD: loads}
        at = dict.fromkeys(queues, 0)
        model = Cycles(self.configuration, self.timing)
        setters = dict(u.setters)
        issued: set[int] = set()
        begun: set[int] = set()
        held = -1
        self.items = []
        now = 0
        while len(issued) < len(nodes):
            heads = [(kind, unit, queues[kind][at[kind]]) for kind, unit in _UNITS if at[kind] < len(queues[kind])]
            ready = [(model.room(unit, now), k, kind, n) for k, (kind, unit, n) in enumerate(heads) if nodes[n].after <= issued]
            if not ready:  # a load that comes ahead overwrites what a computation needs that waits for a load behind it
                return inf
            now, _, kind, n = min(ready)
            for p in nodes[n].pieces.values():
                places.place(p)
            at[kind] += 1
            issued.add(n)
            again = kind == COMPUTE and self.held[n] == held >= 0
            held = self.held[n] if kind == COMPUTE else held
            for c, word in (*self._setting(n, setters), *self._issued(n, places.lines, again, nodes[n].sums not in begun)):
                self.items.append(c)
                now = max(model.issue(word, now), now + self.timing.gap) + 1
            begun.add(nodes[n].sums)
            left -= self.busy[n]
            if model.slot[1] + left + last > limit:
                return inf
        return model.end

    def _moves(self, order: Sequence[int], ahead: dict[int, int]) -> tuple[list[int], list[int]]:
        """Loads in the order of first use, some ``ahead`` of it, and stores in that of last sums."""
        nodes = self.u.nodes
        place = {n: 2 * k for k, n in enumerate(order)}
        never = 2 * len(order)
        rank: dict[int, int] = {}
        for n in reversed(self.loads):
            uses = [place[m] + self._late(n, m) if m in place else rank.get(m, never) for m in self.users[n]]
            rank[n] = min(uses, default=never)
        done = {n: max((place.get(m, 0) for m in nodes[n].after), default=0) for n in self.stores}
        loads = sorted(self.loads, key=lambda n: (rank[n], n))
        turn = {n: k for k, n in enumerate(loads)}
        # Half a place more than the distance: then it is before what was there.
        loads.sort(key=lambda n: turn[n] - 1.5 * ahead.get(turn[n], 0))
        return self._after(loads), self._after(sorted(self.stores, key=lambda n: (done[n], n)))

    def first_loads(self, o: Order) -> list[int]:
        """The numbers of the loads in this order."""
        return self._numbers(self._moves([self.computes[n] for n in o.computes], dict(o.ahead))[0])

    def last_stores(self, o: Order) -> list[int]:
        """The numbers of the stores in this order, the last first."""
        return self._numbers(self._moves([self.computes[n] for n in o.computes], dict(o.ahead))[1][::-1])

    def _numbers(self, moves: Sequence[int]) -> list[int]:
        return list(dict.fromkeys(self.u.nodes[n].move for n in moves))

    def _after(self, moves: list[int]) -> list[int]:
        """``moves`` with those that others among them build on before those."""
        out: dict[int, None] = {}

        def add(n: int) -> None:
            for m in sorted(self.u.nodes[n].after & own):
                if m not in out:
                    add(m)
            out[n] = None

        own = set(moves)
        for n in moves:
            if n not in out:
                add(n)
        return list(out)

    def _late(self, load: int, user: int) -> int:
        """1 where another operand, which stays in the units, is needed first."""
        held = self.u.held(user)
        return int(held is None or held[2] not in self.u.nodes[load].pieces.values())

    def _setting(self, n: int, setters: dict[str, Command]) -> list[tuple[Command, isa.Command]]:
        """What sets the state that a node needs, taken from ``setters``."""
        return [(c, self._decoded(c)) for c in [setters.pop(s) for s in self.needs[n] if s in setters]]

    def _issued(self, n: int, lines: Sequence[int], again: bool, first: bool) -> tuple[tuple[Command, isa.Command], ...]:
        """The words of a node with its pieces at ``lines``, as commands and for the model; the same for the same places."""
        key = n, again, first, *(lines[p] for p in self.u.nodes[n].pieces.values())
        if key not in self.decoded:
            self.decoded[key] = tuple((c, self._decoded(c)) for c in self.u.commands(n, lines, again, first))
        return self.decoded[key]

    def _decoded(self, c: Command) -> isa.Command:
        encoding = self.u.known[c.word].encoding
        values: dict[str, int] = {}
        for name, o in c.operands:
            if isinstance(o, Tile):
                values |= {f"{name}.address": number(o.row), f"{name}.rows": number(o.rows), f"{name}.cols": number(o.cols)}
            elif isinstance(o, Pointer):
                values[f"{name}.address"] = self.starts[o.base] + number(o.offset)
            else:
                values[name] = number(o)
        return decode(encoding.funct7, *encoding.registers(values))


class _Places:
    """Lines for pieces, given when they are first loaded: those read as different operands in different banks, one after the other in
    turn, so that what arrives seldom meets what is read. ``chosen`` banks, by the order of first loads, are taken as they are.
    """

    def __init__(self, u: Unfolded, chosen: dict[int, int]):
        self.u, self.chosen = u, chosen
        self.lines = [p.first for p in u.pieces]
        self.given: set[int] = set()
        self.loads = -1
        self.used: dict[str, list[int]] = {}
        self.uses: dict[str, list[list[str]]] = {}
        self.turns: dict[tuple[str, int], int] = {}
        for name in {p.memory for p in u.pieces} - u.fixed:
            memory, mine = u.machine.memory(name), [p for p in u.pieces if p.memory == name]
            size = (memory.bytes or 0) // memory.line // memory.banks
            # With half of it free there is always a bank with room; else it is one bank.
            spread = max(p.lines for p in mine) <= size // 2 and sum(p.lines for p in mine) <= size * memory.banks // 2
            self.used[name] = [0] * (memory.banks if spread else 1)
            self.uses[name] = [list(use) for use in sorted({tuple(sorted(p.read_as)) for p in mine})]

    def place(self, p: int) -> None:
        """Gives piece ``p`` its lines; nothing if it has some."""
        piece = self.u.pieces[p]
        if p in self.given or piece.memory in self.u.fixed:
            return
        memory, used, uses = self.u.machine.memory(piece.memory), self.used[piece.memory], self.uses[piece.memory]
        banks = len(used)
        size = (memory.bytes or 0) // memory.line // banks
        use, share = uses.index(sorted(piece.read_as)), max(1, banks // len(uses))
        turn = self.turns[piece.memory, use] = self.turns.get((piece.memory, use), -1) + 1
        order = [(use * share + (turn + k) % share) % banks for k in range(share)]
        if piece.loaded:
            self.loads += 1
            order.insert(0, self.chosen.get(self.loads, order[0]) % banks)
        bank = next(b for b in (*order, *range(banks)) if used[b] + piece.lines <= size)
        self.given.add(p)
        self.lines[p] = bank * size + used[bank]
        used[bank] += piece.lines
