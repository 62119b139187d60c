"""Contractions on instructions that address memories the program fills: blocks loaded straight from the arrays.

A structure is the order of the loops over blocks and, for each operand, the loop inside which its box is loaded: in every
block, or once for a loop around them, which takes a larger box and moves fewer bytes. How many instruction tiles a block holds
along each loop is a knob; what is held together must fit. The nest that reads the result (scaling, activation, narrowing)
runs block by block, right after the sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import permutations, product

from tilewright.hw import Instruction, Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import compare
from tilewright.mapping import Mapping as Placed
from tilewright.schedule.schedule import Schedule
from tilewright.space.blocks import Blocks, Held, operands_of, walks_of
from tilewright.space.blocks_program import program
from tilewright.space.context import Context
from tilewright.space.plan import Decision, Plan
from tilewright.space.rules import writeback
from tilewright.space.sketch import Sketch
from tilewright.util.errors import MappingError, ScheduleError, SpaceError


def sketches(context: Context, output: str, found: list[tuple[Instruction, Placed]], most: int) -> Iterator[Sketch]:
    """The sketches of at most ``most`` mappings of the contraction into ``output``; none where operands need packing."""
    taken = 0
    short: list[str] = []
    for instruction, mapping in found:
        structures = []
        for b in _structures(context, instruction, mapping):
            missing = _missing(context.machine, b)
            short += [missing] if missing else []
            structures += [] if missing else [b]
        try:
            if structures:
                _apply(context, output, structures[-1], dict.fromkeys((k.name for k in structures[-1].knobs), 1))
        except ScheduleError:
            continue  # a requirement of the instruction refuses how the operands lie
        yield from (_sketch(context, output, b) for b in structures)
        taken += bool(structures)
        if taken == most:
            return
    if short and not taken:
        raise SpaceError(f"{context.kernel.name}: {short[-1]}", hint=f"declare it larger on {context.machine.name}, or split the kernel")


def _missing(machine: Machine, b: Blocks) -> str | None:
    """What is wrong when not even blocks of one tile fit."""
    least = {k.name: 1 for k in b.knobs}
    for name, total in b.footprints().items():
        room, needed = machine.memory(name).bytes, int(ex.evaluate(total, least))
        if room is not None and needed > room:
            return f"blocks of one tile of {b.instruction.name} take {needed} bytes of memory {name}, which has {room}"
    return None


def _structures(context: Context, instruction: Instruction, mapping: Placed) -> Iterator[Blocks]:
    """Orders of the spatial loops over blocks, and loops around which operands are loaded, that differ in what moves."""
    try:
        walks = walks_of(instruction, mapping)
        result, *sources = operands_of(context.machine, instruction, mapping)
    except MappingError:
        return
    main = context.machine.main_memory.name
    if any(o.memory.kind != "scratchpad" or o.memory.parent != main for o in (result, *sources)) or _divided(context.machine):
        return
    spatial = [n for n, w in walks.items() if not w.reduction and w.tiles > 1]
    rest = [n for n, w in walks.items() if not w.reduction and w.tiles == 1]
    summed = sum(w.reduction for w in walks.values())
    seen = set()
    for order in permutations(spatial) if len(spatial) <= 3 else [tuple(spatial)]:
        around = (*rest, *order)
        depths = []
        for s in sources:
            # Loaded anew inside the last loop that moves it and each one further out that does; a loop that does not move it keeps it.
            inner = len(around) + summed
            outer = max((d + 1 for d, n in enumerate(around) if s.moved_by(n)), default=0)
            depths.append(sorted({inner, outer if outer < len(around) else inner, 0}))
        for loaded in product(*depths):
            b = Blocks(instruction, mapping, walks, result, tuple(sources), around, loaded)
            if (key := (b.order, b.loaded)) not in seen:
                seen.add(key)
                yield b


def _divided(machine: Machine) -> bool:
    """Whether several units share main memory, so that blocks would have to be divided among them."""
    return any(u.count > 1 and u.parent is None for u in machine.units)


def _sketch(context: Context, output: str, b: Blocks) -> Sketch:
    held = b.footprints()
    fits = [compare("<=", total, ex.idx(n)) for m, total in held.items() if (n := context.machine.memory(m).bytes)]
    return Sketch(
        f"{output}: {b.name}",
        b.knobs,
        tuple(fits),
        partial(program, context.base.kernel, b),
        lambda values: _apply(context, output, b, values),
        lambda values: Plan(_apply(context, output, b, values), (Decision(output, b.name, ""),)),
        mapping=f"{output}: {b.instruction.name}: {str(b.mapping).split('[')[0].strip()}",
        extras=tuple(f"{s.hardware} stays" for s, d in zip(b.sources, b.loaded, strict=True) if d < len(b.around)),
    )


# --- one point ------------------------------------------------------------------------------


def _apply(context: Context, output: str, b: Blocks, values: Mapping[str, int]) -> Schedule:
    """Blocks, boxes of the operands in their memories, instruction tiles."""
    sch = context.base.copy()
    name = output
    if writeback.epilogue(sch.kernel.body, name) is None:
        name = sch.apply("cache_write", name, None, context.machine.main_memory.name, later_reads=False)[0]
    found = writeback.epilogue(sch.kernel.body, name)
    if found is None:
        raise ScheduleError(f"{output}: its blocks cannot be written back element by element")
    around: dict[str, str] = {}
    nest, at = found
    held = {n: int(ex.evaluate(w.held, values)) for n, w in b.walks.items()}
    _blocks(sch, {n: at[n] for n in b.order if n in at}, held, b, around, [n for n in nest.loops if n not in at.values()])
    if around:
        sch.compute_at(name, list(around.values())[-1])
    sch.set_memory(name, b.result.memory.name)
    if b.result.layout:
        sch.layout(name, str(b.result.layout))
    _turn(sch, name, b.result)
    inside = _blocks(sch, {n: n for n in b.reductions}, held, b, around, [n for n in b.walks if not b.walks[n].reduction])
    for source, depth in zip(b.sources, b.loaded, strict=True):
        layout = str(source.layout) if source.layout else None
        box, *_ = sch.apply("cache_read", source.buffer.name, _loop_at(b, around, depth), source.memory.name, layout)
        _turn(sch, box, source)
    _tiles(sch, b, {n: inside.get(n, n) for n in b.walks})
    sch.simplify(keep_loops=False)
    return sch


def _turn(sch: Schedule, box: str, o: Held) -> None:
    """The dimensions of a box in the order in which the instruction names them."""
    if o.order != tuple(range(len(o.order))):
        sch.permute(box, list(o.order))


def _blocks(
    sch: Schedule, loops: Mapping[str, str], held: Mapping[str, int], b: Blocks, around: dict[str, str], rest: list[str]
) -> dict[str, str]:
    """Cut ``loops`` (the nest's by the contraction's) into blocks, blocks outside; returns the loops inside a block."""
    inside = dict(loops)
    cut: dict[str, str] = {}
    for n, loop in loops.items():
        if held[n] < b.walks[n].extent:
            cut[n], inside[n] = sch.split(loop, held[n], "clip")
    if cut:
        around |= cut
        order = [*cut.values(), *(f for f in (*rest, *inside.values()) if _has(sch, f))]
        if len(order) > 1:
            sch.reorder(*order)
    return inside


def _has(sch: Schedule, loop: str) -> bool:
    return any(f.name == loop for f in st.loops(sch.kernel))


def _loop_at(b: Blocks, around: Mapping[str, str], depth: int) -> str | None:
    """The innermost loop over blocks among the first ``depth``; None where none of them has more than one block."""
    return next((around[n] for n in reversed(b.around[:depth]) if n in around), None)


def _tiles(sch: Schedule, b: Blocks, loops: Mapping[str, str]) -> None:
    """Instruction tiles inside a block."""
    outer: dict[str, str] = {}
    tile: dict[str, str] = {}
    for n, w in b.walks.items():
        if w.axis is None:
            outer[n] = loops[n]
        elif w.tiles > 1:
            outer[n], tile[n] = sch.split(loops[n], w.tile, "clip")
        else:
            tile[n] = loops[n]
    walked = [n for n in b.within if n in outer]
    axes = [n for t in b.mapping.target.axes for n, w in b.walks.items() if w.axis == t]
    sch.reorder(*(outer[n] for n in walked), *(tile[n] for n in axes))
    sch.tensorize(tile[axes[0]], b.instruction.name)
