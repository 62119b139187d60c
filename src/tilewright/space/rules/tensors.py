"""Machines whose arithmetic is an instruction on tiles: the largest contraction is mapped, and its tiles held in blocks.

The levels of the tiling are read off the declaration: one for each memory that software manages on
the way from main memory to the instruction's operands, bound to the parallel unit that owns it
where there are several. A knob says how many instruction tiles along an axis a memory holds at
once; what they need together must fit. On a GPU this gives blocks for the multiprocessors, blocks
for the warps, and the fragments of one instruction; on a systolic array scratchpad and accumulator
blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from tilewright.hw import Instruction, Machine, Memory, Unit
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var, compare
from tilewright.ir.stmt import Alloc, For, Kernel, LoopKind, Stmt, Store
from tilewright.mapping import Mapping as Placed
from tilewright.mapping import operator_of
from tilewright.schedule.schedule import Schedule
from tilewright.space import parts
from tilewright.space.context import Context
from tilewright.space.diagram import Diagram
from tilewright.space.knob import Knob
from tilewright.space.levels import Level, cut, starts, trips, wrap
from tilewright.space.plan import Decision, Plan
from tilewright.space.rule import rule
from tilewright.space.rules import explicit, fragments, instructions, passing
from tilewright.space.sketch import Sketch
from tilewright.space.stages import Stage, stages
from tilewright.space.tiling import value_of
from tilewright.util.errors import MappingError, ScheduleError, SpaceError

#: Mappings that become sketches, cheapest first.
MOST_MAPPINGS = 6
#: Points of a sketch among which a default is looked for, at most.
DRAWN = 1 << 14
#: Steps of the instruction in a part of a reduction at least.
FEWEST_STEPS = 4
MANAGED = ("scratchpad", "register")


@dataclass(frozen=True, slots=True)
class Nest:
    """The nest of instruction tiles in the packed kernel.

    ``spatial`` and ``reduction`` are the loops around a tile with their trips; ``tile`` the instruction's own
    loops; ``store`` the update.
    """

    kernel: Kernel
    spatial: Mapping[str, int]
    reduction: Mapping[str, int]
    tile: tuple[For, ...]
    store: Store

    @property
    def root(self) -> str:
        return next(iter({**self.spatial, **self.reduction}), self.tile[0].name)


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """One managed memory on the way to the operands: which operands it holds, and the unit that runs its blocks."""

    memory: Memory
    operands: tuple[str, ...]
    unit: Unit | None


@rule
def instruction_tiles(context: Context) -> Iterator[Sketch]:
    """One sketch for each of the cheapest mappings of the largest contraction onto an instruction."""
    if context.machine.vector_bits:
        return
    for stage in sorted((s for s in context.stages if s.is_reduction), key=lambda s: -s.volume):
        every = _cheapest(context, stage.output.name, "all")
        direct = list(explicit.sketches(context, stage.output.name, every, MOST_MAPPINGS))
        if direct:
            yield from direct
            return
        found = _mappings(context, stage.output.name)
        if found:
            for instruction, mapping in found:
                yield _sketch(context, stage.output.name, instruction, mapping)
            for label, form, output in _in_parts(context, stage, found[0][1]):
                for instruction, mapping in _mappings(form, output):
                    yield _sketch(form, output, instruction, mapping, label)
            return
    through = list(passing.sketches(context))
    yield from through
    if not through:
        yield Sketch("as written", (), (), context.base.kernel, lambda _: context.base.copy(), likely=list)


def _cheapest(context: Context, output: str, orders: str = "auto") -> list[tuple[Instruction, Placed]]:
    """All mappings of the contraction into ``output`` with operands in ``orders``, cheapest first."""
    try:
        op = operator_of(context.base.kernel, at=output)
    except MappingError:
        return []
    every = [(i, m) for i in context.machine.instructions if i.operands and not i.sets for m in instructions.mappings_of(op, i, orders)]
    return [every[n] for n in np.argsort(instructions.mapping_cycles(context.machine, every), kind="stable")] if every else []


def _mappings(context: Context, output: str) -> list[tuple[Instruction, Placed]]:
    """The cheapest mappings whose steps the machine admits with one tile in each block."""
    out: list[tuple[Instruction, Placed]] = []
    for instruction, mapping in _cheapest(context, output):
        try:
            _apply(context, output, mapping, {})
        except (ScheduleError, MappingError):
            continue  # a constraint of the instruction (alignment, state) refuses this one
        out.append((instruction, mapping))
        if len(out) == MOST_MAPPINGS:
            break
    return out


def _in_parts(context: Context, stage: Stage, mapping: Placed) -> Iterator[tuple[str, Context, str]]:
    """The kernel with its reduction cut into as many parts as there are units for, where tiles of ``mapping`` are too few for all units:
    how it is called, its context, and the partial results."""
    nest = _nest(context, _mapped(context, stage.output.name, mapping).kernel, mapping)
    tiles, steps = prod(nest.spatial.values()), prod(nest.reduction.values())
    units = max((u.count for u in context.machine.units if u.parent is None), default=1)
    longest = max(stage.reduction, key=lambda n: stage.loops[n])
    count = max((p for p in range(2, steps // FEWEST_STEPS + 1) if stage.loops[longest] % p == 0 and tiles * p <= units), default=1)
    if count == 1:
        return
    sch = context.base.copy()
    try:
        _, partial_results, *_ = parts.apart(sch, stage, longest, count)
    except ScheduleError:
        return  # a value that reads the result, or sums whose order matters
    label = f"{parts.described(stage, longest, count)}; "
    yield label, replace(context, base=sch, stages=tuple(stages(sch.kernel))), partial_results


def _mapped(context: Context, output: str, mapping: Placed) -> Schedule:
    sch = context.base.copy()
    sch.apply("map_onto", output, mapping.target.name, str(mapping).split("[")[0].strip())
    return sch


def _nest(context: Context, kernel: Kernel, mapping: Placed) -> Nest:
    """Where the tiles are in the packed kernel."""
    tile = mapping.steps(context.machine, context.base.kernel)[-1]["arguments"]["loop"]
    path = _path(kernel.body, tile)
    own = st.loops(st.find_loop(kernel, tile))
    store = next(s for s in st.walk(own[-1]) if isinstance(s, Store))
    used = {n for i in store.indices for n in ex.free_vars(i)}
    around = {f.name: trips(f) for f in path}
    spatial = {n: e for n, e in around.items() if n in used}
    return Nest(kernel, spatial, {n: e for n, e in around.items() if n not in used}, tuple(own), store)


def _path(s: Stmt, loop: str) -> list[For]:
    """The loops around ``loop``."""
    for t in st.substmts(s):
        if isinstance(t, For) and t.name == loop:
            return []
        if any(isinstance(x, For) and x.name == loop for x in st.walk(t)):
            return [*([t] if isinstance(t, For) else []), *_path(t, loop)]
    return []


def memory_levels(machine: Machine, operands: Mapping[str, str], result: str) -> list[MemoryLevel]:
    """Managed memories from main memory inwards to those of ``operands`` (buffer: memory).

    Sources pass through all of them; the result is kept in its own and drained to main memory.
    """
    reached: dict[str, list[str]] = {}
    for name, memory in operands.items():
        for m in [machine.memory(memory)] if name == result else machine.path(memory):
            if m.kind in MANAGED:
                reached.setdefault(m.name, []).append(name)
    levels = sorted(reached, key=lambda n: -machine.memory(n).level)
    return [MemoryLevel(machine.memory(n), tuple(reached[n]), _unit(machine, machine.memory(n))) for n in levels]


def _unit(machine: Machine, memory: Memory) -> Unit | None:
    """The units, more than one, that share what lies outside ``memory``: blocks in it are divided among them."""
    outside = memory.parent or machine.main_memory.name
    for u in machine.units:
        shared = u.memory or (machine.main_memory.name if u.parent is None else None)
        if u.count > 1 and shared == outside:
            return u
    return None


# --- knobs ----------------------------------------------------------------------------------


def _knobs(levels: Sequence[Sequence[MemoryLevel]], nest: Nest) -> dict[tuple[int, str], Knob]:
    """For each level and loop the number of tiles a block holds."""
    out: dict[tuple[int, str], Knob] = {}
    for n, group in enumerate(levels):
        for loop, extent in {**nest.spatial, **nest.reduction}.items():
            out[n, loop] = Knob(f"{loop}_{group[0].memory.name}", tuple(d for d in range(1, extent + 1) if extent % d == 0))
    return out


def _grouped(levels: Sequence[MemoryLevel]) -> list[list[MemoryLevel]]:
    """Memories side by side (scratchpad and accumulator) form one level of the tiling."""
    out: list[list[MemoryLevel]] = []
    for level in levels:
        if out and out[-1][0].memory.level == level.memory.level:
            out[-1].append(level)
        else:
            out.append([level])
    return out


def _elements(buffer: Buffer, indices: Sequence[Expr], held: Mapping[str, Expr]) -> tuple[Expr, ...]:
    """The shape of the block of ``buffer`` that ``held`` tiles of each loop touch."""
    shape: list[Expr] = []
    for i, extent in zip(indices, buffer.shape, strict=True):
        outer = [n for n in ex.free_vars(i) if n in held]
        shape.append(held[outer[0]] if outer else extent)
    return tuple(shape)


def _bytes(buffer: Buffer, shape: Sequence[Expr]) -> Expr:
    total: Expr = ex.idx(buffer.dtype.nbytes)
    for s in shape:
        total = total * s
    return total


def _held(nest: Nest, knobs: Mapping[tuple[int, str], Knob], n: int, last: int) -> dict[str, Expr]:
    """Tiles of each loop that a memory of level ``n`` holds for one unit: of the result its own block, of the reduction the level's."""
    spatial = {loop: value_of(knobs[last, loop]) for loop in nest.spatial}
    return {**spatial, **{loop: value_of(knobs[n, loop]) for loop in nest.reduction}}


def _constraints(groups: Sequence[Sequence[MemoryLevel]], nest: Nest, knobs: Mapping[tuple[int, str], Knob]) -> list[Expr]:
    """Blocks divide the blocks around them, units are enough, and what is held together fits."""
    out: list[Expr] = []
    accesses = {ld.buffer.name: (ld.buffer, ld.indices) for ld in ex.loads(nest.store.value)}
    accesses[nest.store.buffer.name] = (nest.store.buffer, nest.store.indices)
    side_by_side: Expr = ex.idx(1)
    for n in range(1, len(groups)):
        for loop in {**nest.spatial, **nest.reduction}:
            if len(knobs[n, loop].values) > 1:
                out.append(compare("==", value_of(knobs[n - 1, loop]) % value_of(knobs[n, loop]), 0))
        blocks: Expr = ex.idx(1)
        for loop in nest.spatial:
            blocks = blocks * (value_of(knobs[n - 1, loop]) // value_of(knobs[n, loop]))
        if (unit := groups[n][0].unit) is not None:
            out.append(compare("<=", blocks, ex.idx(unit.count)))
            side_by_side = side_by_side * blocks
    for n, group in enumerate(groups):
        held = _held(nest, knobs, n, len(groups) - 1)
        for level in group:
            used: Expr = ex.idx(0)
            for name in level.operands:
                used = used + _bytes(accesses[name][0], _elements(*accesses[name], held))
            if level.memory.bytes is not None and ex.free_vars(used):
                out.append(compare("<=", used * side_by_side, ex.idx(level.memory.bytes)))
    return out


# --- sketches -------------------------------------------------------------------------------


def _operands(nest: Nest, mapping: Placed) -> dict[str, str]:
    """Memory of each packed buffer of the nest."""
    placed = {o.hardware.name: o.memory for o in mapping.physical().operands}
    view = mapping.target.view
    loads = ex.loads(nest.store.value)
    return {
        nest.store.buffer.name: placed[view.output.name],
        **{ld.buffer.name: placed[hard.name] for hard, ld in zip(view.sources, loads, strict=True)},
    }


def _sketch(context: Context, output: str, instruction: Instruction, mapping: Placed, label: str = "") -> Sketch:
    nest = _nest(context, _mapped(context, output, mapping).kernel, mapping)
    groups = _grouped(memory_levels(context.machine, _operands(nest, mapping), nest.store.buffer.name))
    knobs = _knobs(groups, nest)
    taken = _taken(context, output, mapping, nest)
    chosen = tuple(k for k in knobs.values() if len(k.values) > 1)
    constraints = tuple(_constraints(groups, nest, knobs))
    text = f"{label}{output}: {instruction.name}: {str(mapping).split('[')[0].strip()}"

    def plan(values: Mapping[str, int]) -> Plan:
        shown = f"{instruction.name}: {str(mapping).split('[')[0].strip()}"
        return Plan(_apply(context, output, mapping, values), (Decision(output, shown, ""),))

    return Sketch(
        text,
        chosen,
        constraints,
        partial(_program, nest, groups, knobs, chosen, taken),
        lambda values: plan(values).schedule,
        plan,
        mapping=text,
        likely=partial(_likely, chosen, constraints),
    )


def _likely(knobs: tuple[Knob, ...], constraints: tuple[Expr, ...]) -> Sequence[Mapping[str, np.ndarray]] | None:
    """Where a default is looked for: all points, or as many as are drawn; the estimate of all of them is one evaluation."""
    if not knobs:
        return []
    try:
        diagram = Diagram(knobs, constraints)
    except SpaceError:
        return None
    points = diagram.enumerate(DRAWN) if diagram.size <= DRAWN else diagram.sample(DRAWN, np.random.default_rng(0))
    return [{k.name: points[:, n] for n, k in enumerate(knobs)}]


def _levels(nest: Nest, groups: Sequence[Sequence[MemoryLevel]], knobs: Mapping[tuple[int, str], Knob]) -> tuple[list[Level], list[int]]:
    """Loops around a tile: blocks of the result at every level, then blocks of the reduction, then single tiles.

    The second part of the result: for each memory level the number of the last loop outside its copies.
    """
    left: dict[str, Expr] = {n: ex.idx(e) for n, e in {**nest.spatial, **nest.reduction}.items()}
    out: list[Level] = []
    inside: list[int] = []

    def walk(loops: Mapping[str, int], n: int) -> None:
        for loop in loops:
            held = value_of(knobs[n, loop])
            out.append(Level(loop, left[loop] // held, held, f"{loop}_{groups[n][0].memory.name}_block"))
            left[loop] = held

    for n in range(len(groups)):
        walk(nest.spatial, n)
    for n in range(len(groups)):
        walk(nest.reduction, n)
        inside.append(len(out) - 1)
    out += [Level(loop, left[loop], ex.idx(1), f"{loop}_tile") for loop in {**nest.spatial, **nest.reduction}]
    return out, inside


def _apply(context: Context, output: str, mapping: Placed, values: Mapping[str, int]) -> Schedule:
    """Map, block, copy operands into their memories, and put the instruction in; missing knobs are 1."""
    sch = _mapped(context, output, mapping)
    nest = _nest(context, sch.kernel, mapping)
    where = _operands(nest, mapping)
    groups = _grouped(memory_levels(context.machine, where, nest.store.buffer.name))
    knobs = _knobs(groups, nest)
    env = {k.name: values.get(k.name, 1) for k in knobs.values()}
    levels, inside = _levels(nest, groups, knobs)
    chunks = [(level.loop, int(ex.evaluate(level.chunk, env))) for level in levels]
    result = len(groups) * len(nest.spatial) - 1
    around: dict[int, list[str]] = {}
    loops = {n: n for n in {**nest.spatial, **nest.reduction}}
    name, tile = nest.store.buffer.name, [f.name for f in nest.tile]
    keep = frozenset(n for n in (result, *inside) if n >= 0)
    if (taken := _taken(context, output, mapping, nest)) is not None:
        around = _on_fragments(sch, nest, taken, chunks, result + 1, keep, where[name])
    elif levels:
        around = cut(sch, loops, chunks, tile, keep).at_level
    if taken is None and any(name in level.operands for group in groups for level in group):
        sch.apply("cache_write", name, _first(around, result), where[name])
    current = {n: n for n in where if n != name}
    for n, group in enumerate(groups):
        for level in group:
            for source in (x for x in level.operands if x != name):
                current[source] = sch.apply("cache_read", current[source], _first(around, inside[n]), level.memory.name)[0]
    for n in range(len(groups) * len(nest.spatial)):
        unit = _kind(n, nest, groups)[1]
        for loop in around.get(n, []) if unit else ():
            sch.bind(loop, unit)
    sch.apply("tensorize", nest.tile[0].name, mapping.target.name)
    sch.simplify(keep_loops=False)
    return sch


def _taken(context: Context, output: str, mapping: Placed, nest: Nest) -> fragments.Taken | None:
    """The element-wise nest that takes the result, if it can do that on the instruction's registers."""
    memory = context.machine.memory(_operands(nest, mapping)[nest.store.buffer.name])
    return fragments.taken(context.base.kernel, nest.kernel, output, nest.store, memory) if nest.spatial else None


def _on_fragments(
    sch: Schedule, nest: Nest, taken: fragments.Taken, chunks: list[tuple[str, int]], outer: int, keep: frozenset[int], memory: str
) -> dict[int, list[str]]:
    """Cut the nest that takes the result by the first ``outer`` levels, and compute its part of the result inside, by the others."""
    walked = fragments.brought(sch, taken)
    at = {i.name: walked[d] for d, i in enumerate(nest.store.indices) if isinstance(i, Var) and i.name in nest.spatial}
    others = [n for n in taken.inner(walked) if n not in at.values()]
    around = cut(sch, at, chunks[:outer], others, keep).at_level
    name = nest.store.buffer.name
    sch.compute_at(name, around[outer - 1])
    sch.set_memory(name, memory)
    sch.set_memory(taken.result.name, memory)
    loops = {n: n for n in {**nest.spatial, **nest.reduction}}
    within = cut(sch, loops, chunks[outer:], [f.name for f in nest.tile], frozenset(n - outer for n in keep if n >= outer))
    return {**around, **{outer + n: found for n, found in within.at_level.items()}}


def _first(at_level: Mapping[int, list[str]], number: int) -> str | None:
    """The loop of a level; None stands for the whole kernel."""
    return at_level[number][0] if at_level.get(number) else None


def _program(
    nest: Nest,
    groups: Sequence[Sequence[MemoryLevel]],
    knobs: Mapping[tuple[int, str], Knob],
    chosen: Sequence[Knob],
    taken: fragments.Taken | None,
) -> Kernel:
    """The packed kernel, tiles in blocks: copies at each level, the instruction's loops unrolled, fragments ``taken`` or stored."""
    levels, inside = _levels(nest, groups, knobs)
    result = len(groups) * len(nest.spatial) - 1
    body: list[Stmt] = []
    before: dict[int, list[Stmt]] = {}
    value, target = nest.store.value, nest.store.buffer
    for ld in ex.loads(nest.store.value):
        source, outside = ld.buffer, -1
        for n, group in enumerate(groups):
            for level in (lv for lv in group if ld.buffer.name in lv.operands):
                shape = _elements(ld.buffer, ld.indices, _held(nest, knobs, n, len(groups) - 1))
                held = ld.buffer.with_(name=f"{ld.buffer.name}_{level.memory.name}", shape=shape, memory=level.memory.name, layout=None)
                origin = _origin(ld.indices, levels[outside + 1 : inside[n] + 1])
                before.setdefault(inside[n], []).extend([Alloc(held), _copy(held, source, origin, shape, f"_{held.name}")])
                source, outside = held, inside[n]
        local = tuple(ex.substitute(i, _inner(nest, levels[outside + 1 :])) for i in ld.indices)
        value = ex.transform(value, lambda e, ld=ld, to=Load(source, local): to if e == ld else None)  # type: ignore[misc]
    holder = next((lv for g in groups for lv in g if target.name in lv.operands), None)
    first, last = list[Stmt](), list[Stmt]()
    indices, own = nest.store.indices, target
    if holder is not None:
        shape = _elements(target, indices, _held(nest, knobs, 0, len(groups) - 1))
        own = target.with_(name=f"{target.name}_{holder.memory.name}", shape=shape, memory=holder.memory.name, layout=None)
        origin = _origin(indices, levels[: result + 1])
        first = [Alloc(own), fragments.first(taken, own, shape) if taken else _copy(own, target, origin, shape, "_first")]
        last = [fragments.last(taken, own, origin, shape) if taken else _copy(target, own, origin, shape, "_last", out=True)]
    local = tuple(ex.substitute(i, _inner(nest, levels[result + 1 :] if holder else levels)) for i in indices)
    body = [wrap([(f.name, f.extent, LoopKind.UNROLL) for f in nest.tile], Store(own, local, value, nest.store.op))]
    for n in range(len(levels) - 1, -2, -1):
        body = [*(first if n == result else []), *before.get(n, []), *body, *(last if n == result else [])]
        if n >= 0:
            kind, unit = _kind(n, nest, groups)
            body = [For(Var(levels[n].name), ex.idx(0), levels[n].trips, st.Block(tuple(body)), kind, 1, unit)]

    def replaced(s: Stmt) -> Stmt | tuple[Stmt, ...] | None:
        if taken and isinstance(s, Alloc) and s.buffer.name in (taken.result.name, taken.packed.name):
            return ()
        if not isinstance(s, For) or s.name not in {nest.root, *(taken.roots if taken else ())}:
            return None
        return tuple(body) if s.name == (taken.stage.name if taken else nest.root) else ()

    out = st.map_stmts(nest.kernel.body, replaced)
    assert isinstance(out, st.Block)  # a block is mapped to a block
    return nest.kernel.with_(body=out, sizes=tuple(k.var for k in chosen))


def _inner(nest: Nest, levels: Sequence[Level]) -> dict[str, Expr]:
    """The loops around a tile as walked by ``levels`` only."""
    return {**{n: ex.idx(0) for n in {**nest.spatial, **nest.reduction}}, **starts(levels)}


def _origin(indices: Sequence[Expr], levels: Sequence[Level]) -> tuple[Expr, ...]:
    """The first element of a block that ``levels`` walk to."""
    start = starts(levels)
    return tuple(ex.substitute(i, {n: start.get(n, ex.idx(0)) for n in ex.free_vars(i)}) for i in indices)


def _copy(to: Buffer, source: Buffer, origin: Sequence[Expr], shape: Sequence[Expr], suffix: str, out: bool = False) -> Stmt:
    """Move a block of ``shape`` between its own buffer and ``origin`` of the other one."""
    own = [ex.idx(0) if isinstance(e, ex.Const) and e.value == 1 else Var(f"d{n}{suffix}") for n, e in enumerate(shape)]
    loops = [(v.name, e, LoopKind.SERIAL) for v, e in zip(own, shape, strict=True) if isinstance(v, Var)]
    there = tuple(o + v for o, v in zip(origin, own, strict=True))
    return wrap(loops, Store(to, there, Load(source, tuple(own))) if out else Store(to, tuple(own), Load(source, there)))


def _kind(number: int, nest: Nest, groups: Sequence[Sequence[MemoryLevel]]) -> tuple[LoopKind, str | None]:
    """Blocks of the result run on the unit of their memory."""
    level = number // max(len(nest.spatial), 1)
    unit = groups[level][0].unit if level < len(groups) and nest.spatial else None
    return (LoopKind.BIND, unit.name) if unit is not None else (LoopKind.SERIAL, None)
