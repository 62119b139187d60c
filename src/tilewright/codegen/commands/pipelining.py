"""Software pipelining: while the array works on one tile, the next one is loaded and the results of the one before are stored.

The loops over tiles become one loop over steps. In step ``t`` the loads of step ``t + 1`` and the stores of step ``t - 1`` are spread
evenly between the computations of step ``t``, so that no controller's queue holds up the others: the host issues in order. This needs
two places for each buffer, used in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from tilewright.codegen.commands.placing import Place
from tilewright.codegen.commands.program import Branch, Command, Host, Item, Let, Loop, Operand, Pointer, Tile, Word, walk
from tilewright.codegen.commands.setting import Needed
from tilewright.hw import Instruction
from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Var
from tilewright.ir.simplify import Simplifier

LOAD, COMPUTE, STORE, HOST = "load", "compute", "store", "host"


def pipelined(
    items: tuple[Item, ...], known: Mapping[str, Word], places: Mapping[str, Place], memories: Mapping[str, str], fixed: set[str]
) -> tuple[Item, ...]:
    """``items`` with every nest of tiles that has the form pipelined.

    ``memories`` are those of the buffers in ``places``; moves of memories in ``fixed`` stay where they are.
    """
    single = {memories[n] for n, p in places.items() if p.around and p.copies == 1}
    alternating = set(memories.values()) - single - fixed
    kinds = _Kinds(known)
    out: list[Item] = []
    for i in items:
        nest = _nest(i, kinds) if isinstance(i, Loop) else None
        if nest is None:
            out.append(i)
            continue
        # Loads before the loops are of use to all steps: those of the first step can go before them.
        start = len(out)
        while start and (isinstance(out[start - 1], Needed) or (kinds.of(out[start - 1]) == {LOAD} and _flat(out[start - 1]))):
            start -= 1
        once = tuple(out[start:])
        out = out[:start] + list(_Pipeline(nest, kinds, alternating, once).items())
    return tuple(out)


class _Kinds:
    """What commands do: bring data in, work inside, take results out."""

    def __init__(self, known: Mapping[str, Word]):
        self.words = known

    def lead(self, nest: _Nest) -> int:
        """Computations that take as long as it takes until loaded data can be used, twice for what waits in front of it."""
        instructions: dict[str, list[Instruction]] = {}
        for c in walk((*nest.computes, *(i for g in nest.before for i in g.items))):
            if isinstance(c, Command):
                instructions.setdefault(self.command(c), []).append(self.words[c.word].instruction)
        latency = max((i.latency for i in instructions.get(LOAD, ())), default=0)
        return ceil(2 * latency / min(i.cycles() for i in instructions[COMPUTE]))

    def of(self, i: Item) -> set[str]:
        return {self.command(c) for c in walk((i,)) if isinstance(c, Command)} | (
            {HOST} if any(isinstance(h, Host) for h in walk((i,))) else set()
        )

    def command(self, c: Command) -> str:
        if self.words[c.word].form is not None:
            return HOST  # as host work, what the hardware unrolls stays where it is
        written = {o.name for o in self.words[c.word].instruction.operands if o.role != "in"}
        outside = [n for n, o in c.operands if isinstance(o, Pointer)]
        return COMPUTE if not outside else STORE if written & set(outside) else LOAD


@dataclass(frozen=True, slots=True)
class _Group:
    """Nests of one kind. They run in the steps in which ``at`` holds: the first or the last of the loops inside theirs."""

    kind: str
    items: tuple[Item, ...]
    level: int

    @property
    def memories(self) -> set[str]:
        return {o.memory for c in walk(self.items) if isinstance(c, Command) for _, o in c.operands if isinstance(o, Tile)}


@dataclass(frozen=True, slots=True)
class _Nest:
    """Loops over tiles, outer first, and what they hold: before the computations, those, and after them."""

    loops: tuple[Loop, ...]
    before: tuple[_Group, ...]
    computes: tuple[Item, ...]
    after: tuple[_Group, ...]


def _nest(loop: Loop, kinds: _Kinds) -> _Nest | None:
    """``loop`` as a nest of tiles; None if it has another form, or what it stores is also loaded."""
    loops: list[Loop] = []
    before: list[_Group] = []
    after: list[_Group] = []
    body: tuple[Item, ...] = (loop,)
    while True:
        inner = [n for n, i in enumerate(body) if isinstance(i, Loop) and {LOAD, COMPUTE} <= kinds.of(i)]
        if len(inner) != 1:
            break
        at = inner[0]
        level = len(loops)
        if loops:
            before.append(_Group(LOAD, body[:at], level))
            after.insert(0, _Group(STORE, body[at + 1 :], level))
        f = body[at]
        assert isinstance(f, Loop)
        if any(ex.free_vars(e) & {g.var for g in loops} for e in (f.lo, f.hi)):
            return None
        loops.append(f)
        body = f.body
    if inner or not loops:
        return None
    computing = [n for n, i in enumerate(body) if COMPUTE in kinds.of(i)]
    if not computing:
        return None
    before.append(_Group(LOAD, body[: computing[0]], len(loops)))
    computes = body[computing[0] : computing[-1] + 1]
    after.insert(0, _Group(STORE, body[computing[-1] + 1 :], len(loops)))
    for group in (*before, *after):
        if any(kinds.of(i) - {group.kind} or not (isinstance(i, Needed) or _flat(i)) for i in group.items):
            return None
    if any(kinds.of(i) - {COMPUTE} for i in computes):
        return None
    # Demands go before the step, for all of it: those of moves that are in no loop of their own must not change from tile to tile.
    names = {f.var for f in loops}
    demands = [i for g in (*before, *after) for i in g.items if isinstance(i, Needed)]
    if any(ex.free_vars(v) & names for i in demands for _, v in i.values):
        return None
    pointers = {
        kind: {o.base for g in groups for c in walk(g.items) if isinstance(c, Command) for _, o in c.operands if isinstance(o, Pointer)}
        for kind, groups in ((LOAD, before), (STORE, after))
    }
    if pointers[LOAD] & pointers[STORE]:
        return None
    return _Nest(tuple(loops), tuple(g for g in before if g.items), computes, tuple(g for g in after if g.items))


def _flat(i: Item) -> bool:
    """Whether ``i`` is a perfect nest of loops of steps of 1, with constant loop bounds inside, around commands."""
    names: set[str] = set()
    while isinstance(i, Loop):
        if i.step != 1 or any(ex.free_vars(e) & names for e in (i.lo, i.hi)):
            return False
        names.add(i.var)
        loops = [j for j in i.body if isinstance(j, (Loop, Branch))]
        if not loops:
            return True
        if len(i.body) != 1:
            return False
        i = loops[0]
    return isinstance(i, Command)


def _trips(loops: Sequence[Loop]) -> Expr:
    total: Expr = ex.idx(1)
    for f in loops:
        span = f.hi - f.lo
        total = total * (span if f.step == 1 else (span + (f.step - 1)) // f.step)
    return total


class _Pipeline:
    def __init__(self, nest: _Nest, kinds: _Kinds, alternating: set[str], once: tuple[Item, ...]):
        self.nest, self.kinds, self.once = nest, kinds, once
        self.step = "_".join(f.var for f in nest.loops) + "_step"
        ahead = [g for g in nest.before if g.memories <= alternating]
        behind = [g for g in nest.after if g.memories <= alternating]
        self.ahead, self.behind = ahead, behind
        self.now_before = [g for g in nest.before if g not in ahead]
        self.now_after = [g for g in nest.after if g not in behind]

    def items(self) -> tuple[Item, ...]:
        steps = _simple(_trips(self.nest.loops))
        t = Var(self.step)
        body = (
            *self._now(self.now_before, first=True),
            *self._woven(t, steps),
            *self._now(self.now_after, first=False),
        )
        return (
            *self._at(ex.idx(0), "", tuple(i for g in reversed(self.ahead) for i in g.items)),
            *self.once,
            Loop(self.step, ex.idx(0), steps, self._at(t, "", body)),
            *self._at(steps - 1, "", tuple(i for g in self.behind for i in g.items)),
        )

    def _at(self, t: Expr, suffix: str, body: tuple[Item, ...]) -> tuple[Item, ...]:
        """``body`` in step ``t``: the variables of the tiles' loops are bound to what they are there."""
        lets = []
        for f, value in self._values(t):
            if any(f.var + suffix in _used(i) for i in body):
                lets.append(Let(f.var + suffix, value))
        return (*lets, *body)

    def _values(self, t: Expr) -> list[tuple[Loop, Expr]]:
        out = []
        for n, f in enumerate(self.nest.loops):
            inside = _trips(self.nest.loops[n + 1 :])
            count = t // inside if n == 0 else t // inside % _trips((f,))
            out.append((f, _simple(f.lo + count * f.step)))
        return out

    def _edge(self, level: int, suffix: str, first: bool) -> Expr | None:
        """Whether all loops inside ``level`` are at their first (or last) iteration."""
        cond: Expr | None = None
        for f in self.nest.loops[level:]:
            if _simple(_trips((f,))) == ex.idx(1):
                continue
            var = Var(f.var + suffix)
            c = ex.compare("==", var, f.lo) if first else ex.compare(">=", var + f.step, f.hi)
            cond = c if cond is None else ex.logical("and", cond, c)
        return cond

    def _now(self, groups: Sequence[_Group], first: bool) -> tuple[Item, ...]:
        """Groups that stay in their step, guarded where their loops are not the innermost."""
        out: list[Item] = []
        for g in groups:
            cond = self._edge(g.level, "", first)
            out += g.items if cond is None else (Branch(cond, g.items),)
        return tuple(out)

    def _woven(self, t: Expr, steps: Expr) -> tuple[Item, ...]:
        """The computations of step ``t``, with stores of steps before and loads of steps to come among them.

        What belongs to an outer loop moves by one of its iterations, spread over the steps inside.
        """
        parts: list[_Part] = []
        demands: list[Item] = []
        shifts: dict[str, Expr] = {}
        storing = {m for g in self.behind for m in g.memories}
        for g in (*self.behind, *reversed(self.ahead)):
            inside = _simple(_trips(self.nest.loops[g.level :]))
            if g.kind == STORE:
                suffix, shift, guard = f"_last{g.level}", inside * -1, ex.compare(">=", t, inside)
            elif not g.memories & storing:
                suffix, shift, guard = f"_next{g.level}", inside, ex.compare("<", t, steps - inside)
            else:
                # Where the stores make room only at the end of the outer iteration, loads wait for its last step.
                suffix, shift, inside = "_next", ex.idx(1), ex.idx(1)
                guard = ex.compare("<", t, steps - 1)
                edge = self._edge(g.level, suffix, first=True)
                guard = guard if edge is None else ex.logical("and", guard, edge)
            shifts[suffix] = shift
            for i in g.items:
                if isinstance(i, Needed):
                    demands.append(i)
                else:
                    nest = substituted(i, {f.var: Var(f.var + suffix) for f in self.nest.loops})
                    parts.append(_Part(nest, guard, _simple(t % inside), inside))
        if not parts:
            return self.nest.computes
        woven = _weave(self.nest.computes, parts, self.step, self.kinds.lead(self.nest))
        for suffix, shift in shifts.items():
            woven = self._at(_simple(t + shift), suffix, woven)
        return (*demands, *woven)


@dataclass(frozen=True, slots=True)
class _Part:
    """Share number ``share`` of ``shares`` of the iterations of a perfect nest, when ``guard`` holds."""

    nest: Item
    guard: Expr
    share: Expr
    shares: Expr

    def loops(self) -> tuple[Loop, ...]:
        out, i = [], self.nest
        while isinstance(i, Loop):
            out.append(i)
            i = i.body[0]
        return tuple(out)

    def start(self, share: Expr) -> Expr:
        """The iterations in the shares before this one."""
        return _simple(share * _trips(self.loops()) // self.shares)

    def count(self) -> Expr:
        """How many times its commands run."""
        return ex.where(self.guard, _simple(self.start(self.share + 1) - self.start(self.share)), ex.idx(0))

    def run(self, number: Expr) -> tuple[Item, ...]:
        """The commands of one of its iterations."""
        number = number + self.start(self.share)
        loops = self.loops()
        body = loops[-1].body if loops else (self.nest,)
        for n in range(len(loops) - 1, -1, -1):
            f = loops[n]
            inside = _trips(loops[n + 1 :])
            value = number // inside if n == 0 else number // inside % _trips((f,))
            at = _simple(f.lo + value)
            body = (Let(f.var, at), *body)
        return body


def _weave(computes: tuple[Item, ...], parts: Sequence[_Part], name: str, lead: int) -> tuple[Item, ...]:
    """``computes`` with the iterations of ``parts``, in order, spread evenly over all but the last ``lead`` of them (at most half)."""
    total: Expr = ex.idx(0)
    starts: list[Expr] = []
    lets: list[Let] = []
    for n, p in enumerate(parts):
        starts.append(total)
        lets.append(Let(f"{name}_end{n}", _simple(total + p.count())))
        total = Var(lets[-1].var)
    if len(computes) != 1 or not isinstance(computes[0], Loop):
        return (*(i for p in parts for i in (Branch(p.guard, (p.nest,)),)), *computes)
    path: list[Loop] = []
    i: Item = computes[0]
    while isinstance(i, Loop) and not any(ex.free_vars(e) & {f.var for f in path} for e in (i.lo, i.hi)):
        path.append(i)
        inner = [j for j in i.body if isinstance(j, Loop)]
        if len(i.body) != 1 or not inner:
            break
        i = inner[0]
    # The last moves are issued some time before the step ends, as the next one waits for them.
    position: Expr = ex.idx(0)
    for f in path:
        position = position * _trips((f,)) + ((Var(f.var) - f.lo) // f.step if f.step != 1 else Var(f.var) - f.lo)
    amount = _simple(_trips(path))
    number = Var(f"{name}_move")
    choice: tuple[Item, ...] = parts[-1].run(_simple(number - starts[-1]))
    for p, start, end in reversed(list(zip(parts[:-1], starts[:-1], starts[1:], strict=True))):
        choice = (Branch(ex.compare("<", number, end), p.run(_simple(number - start)), choice),)
    busy = _simple(ex.binary("max", amount - lead, (amount + 1) // 2))
    lo, hi = (_simple(ex.binary("min", x * total // busy, total)) for x in (position, position + 1))
    inserted = Loop(number.name, lo, hi, choice)
    body: tuple[Item, ...] = (inserted, *path[-1].body)
    for f in reversed(path):
        body = (Loop(f.var, f.lo, f.hi, body, f.step),)
    return (*lets, *body)


def _simple(e: Expr) -> Expr:
    return Simplifier().expr(e)


def _used(i: Item) -> set[str]:
    return {v for j in walk((i,)) for e in expressions(j) for v in ex.free_vars(e)}


def expressions(i: Item) -> tuple[Expr, ...]:
    """The expressions of an item itself."""
    match i:
        case Command():
            return tuple(e for _, o in i.operands for e in _parts_of(o))
        case Loop():
            return (i.lo, i.hi)
        case Let():
            return (i.value,)
        case Branch():
            return (i.cond,)
        case Host():
            return i.sizes
        case Needed():
            return tuple(e for _, e in i.values)
    return ()


def _parts_of(o: Operand) -> tuple[Expr, ...]:
    match o:
        case Pointer():
            return (o.offset,)
        case Tile():
            return (o.row, o.rows, o.cols)
    return (o,)


def substituted(i: Item, env: Mapping[str, Expr]) -> Item:
    """``i`` with other expressions for free variables."""

    def expr(e: Expr) -> Expr:
        return ex.substitute(e, env)

    def operand(o: Operand) -> Operand:
        match o:
            case Pointer():
                return Pointer(o.base, expr(o.offset))
            case Tile():
                return Tile(o.memory, expr(o.row), expr(o.rows), expr(o.cols))
        return expr(o)

    match i:
        case Command():
            return Command(i.word, tuple((n, operand(o)) for n, o in i.operands))
        case Loop():
            return Loop(i.var, expr(i.lo), expr(i.hi), tuple(substituted(j, env) for j in i.body), i.step)
        case Needed():
            return Needed(i.state, tuple((n, expr(v)) for n, v in i.values))
    return i
