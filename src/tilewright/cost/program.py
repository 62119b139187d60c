"""A scheduled program as the cost models see it: loops, statements, and what each statement touches.

Reading happens once per program. Loop extents become formulas over the knobs, indices become
linear forms over the loops, first logical and then, through the buffer's layout, physical.
Calls of instructions are read through their semantics: their loops appear below the call's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tilewright.cost.formula import Formula, Graph
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load
from tilewright.ir.stmt import Alloc, Call, For, If, Kernel, LoopKind, Stmt, Store, While, Window


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """A loop; ``trips`` is its number of iterations. ``position`` is the program order of loops."""

    name: str
    trips: Formula
    kind: LoopKind
    unit: str | None
    position: int


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """An index: sum of coefficient * loop, plus parts that are only partly linear.

    ``floors`` are quotients ``inner // divisor`` (with coefficient) whose divisor does not divide the
    inner coefficients. ``irregular`` loops move the index in an unknown way (gathers).
    """

    coefficients: Mapping[Loop, Formula] = field(default_factory=dict)
    constant: Formula | None = None
    floors: tuple[tuple[Formula, Linear, Formula], ...] = ()
    irregular: frozenset[Loop] = frozenset()
    #: Loops on which the index depends.
    loops: frozenset[Loop] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loops", self.irregular.union(self.coefficients, *(f.loops for _, f, _ in self.floors)))


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """What a statement does to one place of a buffer.

    ``logical`` and ``physical`` hold one form per dimension, ``shape`` and ``extents`` the matching
    sizes (the physical ones with padding). ``reads`` and ``writes`` count occurrences.
    """

    buffer: Buffer
    logical: tuple[Linear, ...]
    shape: tuple[Formula, ...]
    physical: tuple[Linear, ...]
    extents: tuple[Formula, ...]
    reads: int
    writes: int
    #: Loops that move the access.
    loops: frozenset[Loop] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loops", frozenset().union(*(f.loops for f in self.logical)))

    @property
    def itemsize(self) -> int:
        return self.buffer.dtype.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """An innermost statement: a store, or one store of an instruction's semantics.

    ``loops`` are all loops around it, outermost first, ``fresh`` of which are around the allocation of what it
    stores to. ``guarded`` when an ``if`` may skip it.
    """

    store: Store
    loops: tuple[Loop, ...]
    accesses: tuple[Access, ...]
    position: int
    fresh: int = 0
    guarded: bool = False
    instruction: str | None = None

    @property
    def target(self) -> Access:
        """The access that stores."""
        return next(a for a in self.accesses if a.writes)

    @property
    def reduction(self) -> tuple[Loop, ...]:
        """Loops over which a reduction is summed: they do not move its result, nor make a new one."""
        moving = self.target.loops
        return tuple(x for x in self.loops[self.fresh :] if x not in moving) if self.store.op else ()


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """``statements`` in program order, ``allocations`` with the loops around them, over one formula graph."""

    kernel: Kernel
    graph: Graph
    statements: tuple[Statement, ...]
    allocations: Mapping[str, tuple[Loop, ...]]


def read(kernel: Kernel, graph: Graph | None = None, ranges: Mapping[str, tuple[int, int]] | None = None) -> Program:
    """``kernel`` (knobs are its ``sizes``, or any free variables of extents) as a :class:`Program`.

    ``ranges`` bound knobs: smallest and largest value. Programs that are read into one ``graph`` share what they have in common.
    """
    graph = graph or Graph()
    reader = _Reader(graph, {name: graph.var(name, *bounds) for name, bounds in (ranges or {}).items()})
    reader.visit(kernel.body, (), _Scope({}, {}, {}), False, None)
    return Program(kernel, graph, tuple(reader.statements), reader.allocations)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What names mean: loops, sizes bound by a call, and windows bound to a callee's parameters."""

    loops: Mapping[str, Loop]
    sizes: Mapping[str, Expr]
    windows: Mapping[str, Window]


@dataclass(slots=True)
class _Reader:
    graph: Graph
    knobs: Mapping[str, Formula]
    statements: list[Statement] = field(default_factory=list)
    allocations: dict[str, tuple[Loop, ...]] = field(default_factory=dict)
    count: int = 0

    def visit(self, s: Stmt, around: tuple[Loop, ...], scope: _Scope, guarded: bool, instruction: str | None) -> None:
        match s:
            case For():
                loop = self.loop(s, scope)
                inside = _Scope({**scope.loops, s.name: loop}, scope.sizes, scope.windows)
                self.visit(s.body, (*around, loop), inside, guarded, instruction)
            case Store():
                self.statements.append(self.statement(s, around, scope, guarded, instruction))
            case Alloc():
                self.allocations.setdefault(s.buffer.name, around)
            case Call():
                windows = {p.name: self.resolved(w, scope) for p, w in zip(s.kernel.args, s.args, strict=True)}
                sizes = {v.name: ex.substitute(e, scope.sizes) for v, e in zip(s.kernel.sizes, s.sizes, strict=True)}
                callee = _Scope(scope.loops, {**scope.sizes, **sizes}, windows)
                self.visit(s.kernel.body, around, callee, guarded, s.kernel.instruction or instruction)
            case _:
                inner = guarded or isinstance(s, (If, While))
                for c in st.substmts(s):
                    self.visit(c, around, scope, inner, instruction)

    def loop(self, f: For, scope: _Scope) -> Loop:
        """A loop's extent; where it depends on outer loops (a triangle) those stand at their middle."""
        length = ex.substitute(f.extent, scope.sizes) if scope.sizes else f.extent
        around = ex.free_vars(length) & scope.loops.keys()
        middle = {n: (scope.loops[n].trips - 1) * 0.5 for n in around}
        extent = self.graph.expr(length, {**self.knobs, **middle})
        self.count += 1
        return Loop(f.name, self.graph.max(extent, 0) if extent.lo < 0 else extent, f.kind, f.unit, self.count)

    def statement(self, s: Store, around: tuple[Loop, ...], scope: _Scope, guarded: bool, instruction: str | None) -> Statement:
        found: dict[tuple[str, tuple[Expr, ...]], list[int]] = {}
        buffers: dict[str, Buffer] = {}
        target = self.place(s.buffer, s.indices, scope)
        for (buffer, indices), write in [(target, True), *(((b, i), False) for b, i in self.loads(s, scope))]:
            counts = found.setdefault((buffer.name, indices), [0, 0])
            counts[1 if write else 0] += 1
            buffers[buffer.name] = buffer
        if s.op:
            found[target[0].name, target[1]][0] += 1
        accesses = tuple(self.access(buffers[n], i, scope.loops, *c) for (n, i), c in found.items())
        fresh = len(self.allocations.get(target[0].name, ()))
        return Statement(s, around, accesses, len(self.statements), fresh, guarded, instruction)

    def loads(self, s: Store, scope: _Scope) -> Iterator[tuple[Buffer, tuple[Expr, ...]]]:
        for e in st.own_exprs(s):
            for ld in ex.loads(e):
                yield self.place(ld.buffer, ld.indices, scope)

    def place(self, buffer: Buffer, indices: tuple[Expr, ...], scope: _Scope) -> tuple[Buffer, tuple[Expr, ...]]:
        """Buffer and indices in terms of the caller, for accesses inside a callee."""
        if scope.sizes:
            indices = tuple(ex.substitute(i, scope.sizes) for i in indices)
        window = scope.windows.get(buffer.name)
        return (buffer, indices) if window is None else (window.buffer, window.element(indices))

    def resolved(self, w: Window, scope: _Scope) -> Window:
        """A window of a window is a window of the outer buffer."""
        outer = scope.windows.get(w.buffer.name)
        if outer is None:
            return w
        spans = iter(w.indices)
        parts: list[Expr | st.Span] = []
        for o in outer.indices:
            inner = next(spans) if isinstance(o, st.Span) else None
            if not isinstance(o, st.Span):
                parts.append(o)
            elif isinstance(inner, st.Span):
                parts.append(st.Span(o.lo + inner.lo * o.step, inner.extent, o.step * inner.step))
            elif inner is not None:
                parts.append(o.lo + inner * o.step)
        return Window(outer.buffer, tuple(parts))

    def access(self, b: Buffer, indices: tuple[Expr, ...], loops: Mapping[str, Loop], reads: int, writes: int) -> Access:
        logical = tuple(linear(self.graph, i, loops, self.knobs) for i in indices)
        shape = tuple(self.graph.expr(e, self.knobs) for e in b.shape)
        if b.layout is None:
            return Access(b, logical, shape, logical, shape, reads, writes)
        physical = tuple(linear(self.graph, i, loops, self.knobs) for i in b.layout.physical_index(indices))
        extents = tuple(self.graph.expr(e, self.knobs) for e in b.physical_shape())
        return Access(b, logical, shape, physical, extents, reads, writes)


def linear(g: Graph, e: Expr, loops: Mapping[str, Loop], knobs: Mapping[str, Formula]) -> Linear:
    """``e`` as a linear form over ``loops``; what is not linear is kept apart or marked irregular."""
    match e:
        case ex.Const():
            return Linear(constant=g.const(int(e.value)))
        case ex.Var():
            return Linear({loops[e.name]: g.const(1)}) if e.name in loops else Linear(constant=g.expr(e, knobs))
        case ex.Cast():
            return linear(g, e.a, loops, knobs)
        case ex.Binary(op="+" | "-" | "*" | "//" | "%"):
            a, b = linear(g, e.a, loops, knobs), linear(g, e.b, loops, knobs)
            found = _combined(g, e.op, a, b)
            if found is not None:
                return found
        case ex.Binary(op="min" | "max") | ex.Where():
            moving = [x for s in (e.a, e.b) if (x := linear(g, s, loops, knobs)).loops]
            if len(moving) == 1:
                return moving[0]  # a clamp: moves like what it clamps
    inside = ex.free_vars(e).union(*(ex.free_vars(ld) for ld in ex.loads(e)))
    moved = frozenset(loops[n] for n in inside if n in loops)
    return Linear(irregular=moved) if moved or any(True for _ in ex.loads(e)) else Linear(constant=g.expr(e, knobs))


def _combined(g: Graph, op: str, a: Linear, b: Linear) -> Linear | None:
    """``a op b``, if that is linear."""
    if not a.loops and not b.loops and a.constant is not None and b.constant is not None:
        return Linear(constant=g.binary(op, a.constant, b.constant))
    if op in ("+", "-"):
        return _sum(g, a, b, 1 if op == "+" else -1)
    if op == "*" and not a.loops and a.constant is not None:
        a, b = b, a
    if b.loops or b.constant is None:
        return None
    if op == "*":
        return _scaled(a, b.constant)
    return _quotient(g, a, b.constant) if op == "//" else _remainder(g, a, b.constant)


def _sum(g: Graph, a: Linear, b: Linear, sign: int) -> Linear:
    if sign < 0:
        b = _scaled(b, g.const(-1))
    terms = dict(a.coefficients)
    for x, c in b.coefficients.items():
        terms[x] = terms[x] + c if x in terms else c
    constants = [c for c in (a.constant, b.constant) if c is not None]
    return Linear(terms, g.sum(constants) if constants else None, a.floors + b.floors, a.irregular | b.irregular)


def _scaled(a: Linear, k: Formula) -> Linear:
    return Linear(
        {x: c * k for x, c in a.coefficients.items()},
        None if a.constant is None else a.constant * k,
        tuple((c * k, inner, d) for c, inner, d in a.floors),
        a.irregular,
    )


def _divided(g: Graph, a: Linear, d: Formula) -> tuple[dict[Loop, Formula], Linear]:
    """Coefficients of ``a / d`` where d divides, and the rest of ``a``."""
    whole = {x: q for x, c in a.coefficients.items() if (q := g.quotient(c, d)) is not None}
    rest = {x: c for x, c in a.coefficients.items() if x not in whole}
    return whole, Linear(rest, a.constant, a.floors, a.irregular)


def _quotient(g: Graph, a: Linear, d: Formula) -> Linear:
    whole, rest = _divided(g, a, d)
    floors = ((g.const(1), rest, d),) if rest.loops - rest.irregular else ()
    return Linear(whole, None, floors, a.irregular)


def _remainder(g: Graph, a: Linear, d: Formula) -> Linear:
    """What is left after whole multiples of d; the caller's extent bounds its values."""
    _, rest = _divided(g, a, d)
    return rest


def expressions(value: Expr) -> Iterator[Expr]:
    """Nodes of a statement's value that compute (indices of loads are addressing, not arithmetic)."""
    yield value
    if not isinstance(value, Load):
        for c in ex.children(value):
            yield from expressions(c)
