"""Contractions on instructions that address memories the program fills: blocks loaded straight from the arrays.

A structure is the order of the loops over blocks and, for each operand, the loop inside which its box is loaded: in every
block, or once for a loop around them, which takes a larger box and moves fewer bytes. How many instruction tiles a block holds
along each loop is a knob; what is held together must fit. The nest that reads the result (scaling, activation, narrowing)
runs block by block, right after the sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import permutations, product

from tilewright.hw import Instruction, Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import compare
from tilewright.ir.stmt import Kernel
from tilewright.mapping import Mapping as Placed
from tilewright.schedule.schedule import Schedule
from tilewright.space.blocks import Blocks, Held, operands_of, walks_of
from tilewright.space.blocks_program import program
from tilewright.space.context import Context
from tilewright.space.plan import Decision, Plan
from tilewright.space.rules import windows, writeback
from tilewright.space.sketch import Sketch
from tilewright.space.stages import stages
from tilewright.space.unmoved import unmoved
from tilewright.util.errors import MappingError, ScheduleError, SpaceError


def sketches(context: Context, output: str, found: list[tuple[Instruction, Placed]], most: int) -> Iterator[Sketch]:
    """The sketches of at most ``most`` mappings of the contraction into ``output``; none where operands need packing."""
    every: list[list[Blocks]] = []
    short: list[str] = []
    for instruction, mapping in found:
        structures = list(_structures(context, instruction, mapping))
        missing = [m for b in structures if (m := _missing(context.machine, b))]
        short += missing
        if structures and len(missing) < len(structures):
            every.append([b for b in structures if not _missing(context.machine, b)])
    reduced = [s for s in every if _windows_move(context, output, s[-1])] if _windowed(context, output) is not None else []
    every, windowed = reduced or every, bool(reduced)
    packings = [_packed(context, s[0]) for s in every]
    taken = 0
    for structures, packed in zip(every, packings, strict=True):
        # Packing costs: what another mapping loads from where it lies is not copied first.
        fused = None if any(p < packed for p in packings) else windowed or _fused(context, output, structures[-1])
        if fused is not None:
            kept = [b for b in structures if not (windowed and b.even)]
            yield from (_sketch(context, output, replace(b, fused=fused, windowed=windowed)) for b in kept)
            taken += 1
        if taken == most:
            return
    if short and not every:
        raise SpaceError(f"{context.kernel.name}: {short[-1]}", hint=f"declare it larger on {context.machine.name}, or split the kernel")


def _packed(context: Context, b: Blocks) -> frozenset[str]:
    """Operands that are copied in main memory before they can be loaded."""
    return frozenset(s.buffer.name for s in b.sources if s.packed and s.buffer.name not in context.constants)


def _fused(context: Context, output: str, b: Blocks) -> bool | None:
    """Whether transfers can do what follows the contraction, on the way out or, of what it adds, on the way in.

    None when the instruction refuses these operands.
    """
    try:
        for fused in (True, False):
            done = _apply(context, output, replace(b, fused=fused), dict.fromkeys((k.name for k in b.knobs), 1)).kernel
            if not unmoved(context.machine, done, into=output if fused else None):
                return fused
    except ScheduleError:
        return None  # a requirement of the instruction refuses how the operands lie
    return True


def _windows_move(context: Context, output: str, b: Blocks) -> bool:
    """Whether the kernel ends in windows of the contraction's result that transfers can reduce on the way out."""
    found = _windowed(context, output)
    with suppress(ScheduleError):
        assert found is not None  # the caller has seen to it
        tried = replace(b, windowed=True)
        whole = {w.knob.name: w.knob.values[-1] for n, w in b.walks.items() if found.steps.get(n, (1, 1)) != (1, 1)}
        values = {k.name: whole.get(k.name, 1) for k in b.knobs}
        return not unmoved(context.machine, _apply(context, output, tried, values).kernel, into=output)
    return False


def _windowed(context: Context, output: str) -> windows.Windowed | None:
    """The windows that the kernel reduces the contraction to, if it does."""
    sch = context.base.copy()
    with suppress(ScheduleError):
        sch.seed(output)
    with suppress(ScheduleError):
        return windows.folded(sch, output)
    return None


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
        result, *sources = operands_of(context.machine, instruction, mapping)
        walks = walks_of(instruction, mapping, frozenset[str]().union(*(s.outside for s in sources)))
    except MappingError:
        return
    main = context.machine.main_memory.name
    if any(o.memory.kind != "scratchpad" or o.memory.parent != main for o in (result, *sources)) or _divided(context.machine):
        return
    if result.packed or result.outside:
        return  # results go straight to where they belong
    spatial = [n for n, w in walks.items() if not w.reduction and w.tiles > 1]
    rest = [n for n, w in walks.items() if not w.reduction and w.tiles == 1]
    inner = len(spatial) + len(rest) + sum(w.reduction for w in walks.values())
    # Loops that move the same operands stay together: which of them is outermost changes little.
    kinds = dict.fromkeys(tuple(s.moved_by(n) for s in sources) for n in spatial)
    for kind in permutations(kinds):
        around = (*rest, *sorted(spatial, key=lambda n: kind.index(tuple(s.moved_by(n) for s in sources))))
        depths = []
        for s in sources:
            # Loaded anew in every block; or kept by the loops, further in, that do not move it; or loaded once.
            outer = max((d + 1 for d, n in enumerate(around) if s.moved_by(n)), default=0)
            kept = {inner, outer if outer < len(around) else inner, 0}
            depths.append([inner] if s.outside else sorted(kept))
        for loaded in product(*depths):
            b = Blocks(instruction, mapping, walks, result, tuple(sources), around, loaded)
            yield b
            if (even := b.evened()) is not None:
                yield even


def _divided(machine: Machine) -> bool:
    """Whether several units share main memory, so that blocks would have to be divided among them."""
    return any(u.count > 1 and u.parent is None for u in machine.units)


def _sketch(context: Context, output: str, b: Blocks) -> Sketch:
    held = b.footprints()
    fits = [compare("<=", total, ex.idx(n)) for m, total in held.items() if (n := context.machine.memory(m).bytes)]
    if b.windowed and (found := _windowed(context, output)) is not None:
        fits += found.fits(b.walks)
    return Sketch(
        f"{output}: {b.name}",
        b.knobs,
        tuple(fits),
        partial(_program, context, output, b),
        lambda values: _apply(context, output, b, values),
        lambda values: Plan(_apply(context, output, b, values), (Decision(output, b.name, ""),)),
        mapping=f"{output}: {b.instruction.name}: {str(b.mapping).split('[')[0].strip()}",
        extras=tuple(f"{s.hardware} stays" for s, d in zip(b.sources, b.loaded, strict=True) if d < len(b.around)),
        held=tuple(held.items()),
    )


def _program(context: Context, output: str, b: Blocks) -> Kernel:
    """The symbolic program of ``b``; arrays known ahead of time are packed then."""
    base = context.base.copy()
    if b.fused:
        with suppress(ScheduleError):
            base.seed(output)
    if not b.windowed:
        return program(base.kernel, b, context.constants)
    reduced = windows.folded(base, output)
    return program(base.kernel, replace(b, walks=reduced.walked(b.walks)), context.constants, reduced)


# --- one point ------------------------------------------------------------------------------


def _apply(context: Context, output: str, b: Blocks, values: Mapping[str, int]) -> Schedule:
    """Blocks, boxes of the operands in their memories, instruction tiles."""
    sch = context.base.copy()
    name = output
    if b.fused:
        with suppress(ScheduleError):
            sch.seed(name)  # what the epilogue adds, if it does, the sums start from
    around: dict[str, str] = {}
    held = {n: int(ex.evaluate(w.held, values)) for n, w in b.walks.items()}
    if b.windowed:
        around |= windows.blocks(sch, windows.folded(sch, name), b.walks, held, b.order)
    else:
        name = _written_back(sch, context, b, name, held, around)
    if around:
        sch.compute_at(name, list(around.values())[-1])
    sch.set_memory(name, b.result.memory.name)
    sch.layout(name, str(b.result.layout))
    _turn(sch, name, b.result)
    inside = _blocks(sch, {n: n for n in b.reductions}, held, b, around, [n for n in b.walks if not b.walks[n].reduction])
    for source, depth in zip(b.sources, b.loaded, strict=True):
        _load(sch, context, source, _loop_at(b, around, depth))
    _tiles(sch, b, {n: inside.get(n, n) for n in b.walks})
    sch.simplify(keep_loops=False)
    return sch


def _written_back(sch: Schedule, context: Context, b: Blocks, name: str, held: Mapping[str, int], around: dict[str, str]) -> str:
    """Cut the nest that writes the sums back into blocks; the name of the sums."""
    if not b.fused or writeback.epilogue(sch.kernel.body, name) is None:
        name = sch.apply("cache_write", name, None, context.machine.main_memory.name, later_reads=False)[0]
    found = writeback.epilogue(sch.kernel.body, name)
    if found is None:
        raise ScheduleError(f"{name}: its blocks cannot be written back element by element")
    nest, at = found
    _blocks(sch, {n: at[n] for n in b.order if n in at}, held, b, around, [n for n in nest.loops if n not in at.values()])
    return name


def _load(sch: Schedule, context: Context, o: Held, loop: str | None) -> None:
    """The box of an operand that ``loop`` uses, in its memory."""
    name = o.buffer.name
    if o.packed is None and _is_padding(sch, name):
        made = sch.apply("compute_at", name, loop) if loop else (_writer(sch, name),)
        sch.set_memory(name, o.memory.name)
        sch.layout(name, str(o.layout))
        _turn(sch, name, o)
        sch.overlay(made[0])
        return
    if o.packed is not None:
        local = any(b.name == name for b in st.allocated(sch.kernel))
        if local or name in context.constants:
            sch.layout(name, str(o.packed))
        else:
            name = sch.apply("cache_read", name, None, context.machine.main_memory.name, str(o.packed))[0]
    box, *_ = sch.apply("cache_read", name, loop, o.memory.name, str(o.layout))
    _turn(sch, box, o)


def _is_padding(sch: Schedule, name: str) -> bool:
    """Whether ``name`` is a local array that is an argument with constants around it, made for one reader."""
    writers = [s for s in stages(sch.kernel) if name in st.written_buffers(s.root)]
    if len(writers) != 1 or writers[0].store is None or not any(b.name == name for b in st.allocated(sch.kernel)):
        return False
    value = writers[0].store.value
    return isinstance(value, ex.Where) and isinstance(value.a, ex.Load) and isinstance(value.b, ex.Const)


def _writer(sch: Schedule, name: str) -> str:
    return next(s.name for s in stages(sch.kernel) if name in st.written_buffers(s.root))


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
