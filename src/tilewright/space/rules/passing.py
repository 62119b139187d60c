"""Values that pass through a memory whose transfers do the arithmetic: nests without a contraction on an accelerator.

``y[i] = f(a[i] + b[i])`` needs no unit that computes where transfers widen, add, scale or saturate what they move: the terms come in one
after the other, each added to what is there, and the rest happens on the way out. Which part of a value is held in which memory is
found by asking for the moves: whatever the machine declares. A structure is the loop that is walked in blocks, a knob the size of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import gcd, prod

from tilewright.hw import Machine, Memory
from tilewright.hw.memory import SCRATCHPAD
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Binary, Const, Expr, Intrinsic, Load, Var, compare
from tilewright.ir.printer import expr_text
from tilewright.ir.stmt import Alloc, Kernel, LoopKind, Stmt, Store
from tilewright.ir.types import DType
from tilewright.schedule.primitives.split_sum import terms
from tilewright.schedule.schedule import Schedule
from tilewright.space.blocks import counts
from tilewright.space.context import Context
from tilewright.space.knob import Knob
from tilewright.space.levels import ceil_div, wrap
from tilewright.space.plan import Decision, Plan
from tilewright.space.sketch import Sketch
from tilewright.space.stages import Stage
from tilewright.space.tiling import value_of
from tilewright.space.unmoved import unmoved
from tilewright.util.errors import ScheduleError

#: Structures of a kernel with several such nests.
MOST = 16


@dataclass(frozen=True, slots=True)
class Passing:
    """One nest: ``value``, a part of what it stores, is held in ``memory`` as ``dtype``, block by block.

    ``dims`` are the dimensions of the result as they lie in memory, and ``order`` the loops that walk them, outermost first; those before
    ``cut`` stay around the blocks, and ``cut`` is walked in blocks of ``knob`` times ``unit`` iterations. ``layout`` is how a block lies.
    """

    stage: Stage
    value: Expr
    memory: Memory
    dtype: DType
    dims: tuple[int, ...]
    layout: Layout
    cut: int
    unit: int
    knob: Knob

    @property
    def walked(self) -> tuple[str | None, ...]:
        """The loop that walks each dimension, as they lie in memory."""
        assert self.stage.store is not None  # eligible stages have one
        index = [self.stage.store.indices[d] for d in self.dims]
        return tuple(i.name if isinstance(i, Var) else None for i in index)

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(n for n in self.walked if n is not None)

    @property
    def loop(self) -> str:
        return self.order[self.cut]

    @property
    def extent(self) -> int:
        return self.stage.loops[self.loop]

    @property
    def held(self) -> Expr:
        """Iterations of the loop that is cut in a whole block."""
        return ex.binary("min", value_of(self.knob) * self.unit, ex.idx(self.extent))

    @property
    def box(self) -> tuple[Expr, ...]:
        """A block, dimensions as they lie in memory."""
        size = {n: ex.idx(1) for n in self.order[: self.cut]} | {self.loop: self.held}
        return tuple(ex.idx(1) if n is None else size.get(n, ex.idx(self.stage.loops[n])) for n in self.walked)

    @property
    def bytes(self) -> Expr:
        """Bytes of a block, whole lines."""
        total: Expr = ex.idx(self.dtype.nbytes)
        for e in self.layout.physical_shape(self.box):
            total = total * e
        return total

    @property
    def name(self) -> str:
        """The structure, for people and records."""
        return f"{expr_text(self.value)} through {self.memory.name}; blocks {self.loop}"


def sketches(context: Context) -> Iterator[Sketch]:
    """The ways to have the nests of the kernel done by transfers; none where one of them cannot be."""
    machine = context.machine
    if any(u.count > 1 and u.parent is None for u in machine.units):
        return  # several units share main memory: blocks would have to be divided among them
    every = [list(_passings(context, s)) if _eligible(s) else [] for s in context.stages]
    # What the host computes before or after it also finishes: the elements are in its caches.
    for chosen in _choices(every) if every else ():
        yield _sketch(context, chosen)


def _choices(every: Sequence[Sequence[Passing]]) -> Iterator[Sequence[Passing]]:
    """One of each; where there are more than :data:`MOST` ways, so many of them, in which every nest varies."""
    total = prod(len(ways) for ways in every)
    if total <= MOST:
        yield from product(*every)
        return
    # Steps of the golden ratio spread over what varies slowly; without a common divisor they also go through all that varies fast.
    step = next(s for s in range((total * 618 + 500) // 1000, total) if gcd(s, total) == 1)
    for n in range(MOST):
        at, chosen = n * step % total, []
        for ways in reversed(every):  # of many nests there are more ways than machine integers
            at, way = divmod(at, len(ways))
            chosen.append(ways[way])
        yield chosen[::-1]


def _eligible(s: Stage) -> bool:
    """Whether a nest computes every element once, from something, by arithmetic."""
    if s.store is None or s.store.op is not None or not s.loops or s.is_scheduled:
        return False
    walked = [i.name for i in s.store.indices if isinstance(i, Var)]
    once = sorted(s.loops) == sorted(walked) and all(isinstance(i, (Var, Const)) for i in s.store.indices)
    computes = any(isinstance(e, (Binary, Intrinsic)) and e.dtype.kind != ty.INDEX for e in ex.walk(s.store.value))
    return once and computes and s.output.name not in {a.buffer.name for a in s.reads()}


def _passings(context: Context, s: Stage) -> Iterator[Passing]:
    """The structures for the largest part of the value, in the first memory, for which there are moves in and out."""
    assert s.store is not None  # eligible stages have one
    parts = [e for e in dict.fromkeys(ex.walk(s.store.value)) if ex.loads(e) and e.dtype.kind != ty.INDEX]
    for (memory, dtype), value in product(_memories(context.machine), parts):
        ways = list(_cuts(context, s, value, memory, dtype))
        if ways and _moved(context, ways[0]):
            yield from ways
            return


def _memories(machine: Machine) -> list[tuple[Memory, DType]]:
    """Memories that transfers fill from main memory, and the elements that they bring there."""
    main = machine.main_memory.name
    arrays = [o for t in machine.transfers if t.instruction and t.src == main for o in t.instruction.operands if o.memory == t.dst]
    found = dict.fromkeys((o.memory, o.dtype) for o in arrays if o.shape)
    return [(m, d) for name, d in found if (m := machine.memory(name)).kind == SCRATCHPAD and m.parent == main and m.line % d.nbytes == 0]


def _cuts(context: Context, s: Stage, value: Expr, memory: Memory, dtype: DType) -> Iterator[Passing]:
    """Blocks along every loop, as long as one of one tile fits."""
    assert s.store is not None  # eligible stages have one
    lies = s.output.layout.dims if s.output.layout else tuple((d, 1) for d in range(s.output.rank))
    if len(lies) != s.output.rank:
        return  # blocks of blocks
    dims = tuple(d for d, _ in lies)
    order = [i.name for d in dims if isinstance(i := s.store.indices[d], Var)]
    layout = Layout(((len(dims) - 1, memory.line // dtype.nbytes), *((d, 1) for d in range(len(dims)))))
    tile = _tile(context.machine, memory, len(order))
    for cut, (n, unit) in enumerate(zip(order, tile, strict=True)):
        unit = min(unit, s.loops[n])
        knob = Knob(f"{n}_tiles", counts(-(-s.loops[n] // unit), False))
        p = Passing(s, value, memory, dtype, dims, layout, cut, unit, knob)
        if memory.bytes is None or int(ex.evaluate(p.bytes, {knob.name: 1})) <= memory.bytes:
            yield p


def _tile(machine: Machine, memory: Memory, rank: int) -> list[int]:
    """Elements along each loop that one transfer to main memory moves."""
    ends = [t.instruction for t in machine.transfers_between(memory.name, machine.main_memory.name) if t.instruction]
    whole = [i for i in ends if not any(a.is_reduction for a in i.axes)]
    largest = max(([a.extent for a in i.axes] for i in whole), key=prod, default=[])
    return [1] * max(rank - len(largest), 0) + largest[max(len(largest) - rank, 0) :]


def _moved(context: Context, p: Passing) -> bool:
    """Whether declared transfers bring in the terms and do the rest on the way out."""
    try:
        made = _applied(context.base.copy(), p, {p.knob.name: 1}).kernel
    except ScheduleError:
        return False  # no sum of this type
    return not unmoved(context.machine, made, inwards=True)


def _sketch(context: Context, chosen: Sequence[Passing]) -> Sketch:
    knobs = tuple(p.knob for p in chosen if len(p.knob.values) > 1)
    fits = tuple(compare("<=", p.bytes, ex.idx(p.memory.bytes)) for p in chosen if p.memory.bytes is not None)
    steps = partial(_apply, context, chosen)
    decisions = tuple(Decision(p.stage.output.name, p.name, "") for p in chosen)
    name = "; ".join(map(str, decisions))
    return Sketch(name, knobs, fits, partial(_program, context, chosen), steps, lambda values: Plan(steps(values), decisions), name)


# --- one point ------------------------------------------------------------------------------


def _apply(context: Context, chosen: Sequence[Passing], values: Mapping[str, int]) -> Schedule:
    sch = context.base.copy()
    for p in chosen:
        _applied(sch, p, values)
    sch.simplify(keep_loops=False)
    return sch


def _applied(sch: Schedule, p: Passing, values: Mapping[str, int]) -> Schedule:
    """Blocks of the part that is held: its terms one after the other, then what is made of it."""
    part, first = sch.apply("outline", p.stage.name, expr_text(p.value), str(p.dtype))
    if len(terms(p.value, Buffer(part, p.dtype, ()))) > 1:
        sch.split_sum(first)
    if p.order != tuple(p.stage.loops):
        sch.reorder(*p.order)
    if p.dims != tuple(sorted(p.dims)):
        sch.permute(part, list(p.dims))
    size = int(ex.evaluate(p.held, values))
    around = p.order[p.cut - 1] if p.cut else None
    if size < p.extent:
        around, *_ = sch.apply("split", p.loop, size, "clip")
    if around is not None:
        sch.compute_at(part, around)
    sch.set_memory(part, p.memory.name)
    sch.layout(part, str(p.layout))
    return sch


# --- the symbolic program -------------------------------------------------------------------


def _program(context: Context, chosen: Sequence[Passing]) -> Kernel:
    """The kernel with these nests in blocks, knobs in their extents."""
    new = {id(p.stage.root): _nest(p) for p in chosen}
    kernel = context.base.kernel
    body = st.block(*(new.get(id(s), s) for s in kernel.body.stmts))
    return kernel.with_(body=body, sizes=tuple(p.knob.var for p in chosen if len(p.knob.values) > 1))


def _nest(p: Passing) -> Stmt:
    s = p.stage
    assert s.store is not None  # eligible stages have one
    block = Var(f"{p.loop}_block")
    size = value_of(p.knob) * p.unit
    around = [(f"{n}_block", ex.idx(s.loops[n]), LoopKind.SERIAL) for n in p.order[: p.cut]]
    around.append((block.name, ceil_div(ex.idx(-(-p.extent // p.unit)), value_of(p.knob)), LoopKind.SERIAL))
    left = ex.binary("min", size, ex.idx(p.extent) - block * size)
    start: dict[str, Expr] = {n: Var(f"{n}_block") for n in p.order[: p.cut]} | {p.loop: block * size}
    held = Buffer(f"{s.output.name}_part", p.dtype, p.box, p.memory.name, p.layout)

    def nest(suffix: str, target: Load, value: Expr, op: str | None = None) -> Stmt:
        """Over a block; loops of ``suffix``. A load of the held part without indices is of the element that the loops are at."""
        own = {n: Var(f"{n}_{suffix}") for n in p.order[p.cut :]}
        at: dict[str, Expr] = {n: start.get(n, ex.idx(0)) + own[n] if n in own else start[n] for n in p.order}
        mine = Load(held, tuple(own.get(n or "", ex.idx(0)) for n in p.walked))

        def placed(e: Expr) -> Expr:
            return ex.transform(e, lambda x: mine if isinstance(x, Load) and x.buffer is held else None)

        to, value = (ex.substitute(e, at) for e in (target, value))
        to = placed(to)
        assert isinstance(to, Load)  # loads are placed as loads
        loops = [(v.name, left if n == p.loop else ex.idx(s.loops[n]), LoopKind.SERIAL) for n, v in own.items()]
        return wrap(loops, Store(to.buffer, to.indices, placed(value), op))

    here = Load(held, ())
    ins = [nest(f"in{n}", here, t, "+" if n else None) for n, t in enumerate(terms(p.value, held))]
    rest = ex.transform(s.store.value, lambda e: here if e == p.value else None)
    return wrap(around, Alloc(held), *ins, nest("out", Load(s.store.buffer, s.store.indices), rest))
