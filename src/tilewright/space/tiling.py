"""Structures of a register-tiled reduction and their knobs.

A structure says which loop rides on the lanes, which loops are the rows of the register tile, where
operands are brought into vector order, and which loop comes first (and is divided among cores).
Everything else is a number: tile sizes, and into how many blocks the tiles of a loop are grouped so
that a block's operands stay in a private cache while it is worked on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from tilewright.cost.core import VectorCore
from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr, Var, compare
from tilewright.space.dot import Dot
from tilewright.space.knob import Knob
from tilewright.space.levels import Level, ceil_div
from tilewright.space.rules.contraction import PARALLEL_CYCLES
from tilewright.space.stages import Stage

#: Work lost to a last block that is not full, at most 1 / SLACK of the whole.
SLACK = 8
#: Vectors side by side in a tile of several rows.
MOST_VECTORS = 8
#: Iterations of a block of the reduction at least, about.
SHALLOWEST = 32
#: Steps of a block of the reduction that run in one go where no loop is the row of a tile.
STREAMED = (1, 2, 4, 8, 16)
#: Iterations for each thread from which on it does not matter that they do not divide.
ENOUGH = 4
#: Values of "steps of the innermost reduction loop in one go".
UNROLLS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Structure:
    """One structural alternative of a tiled reduction; loops by the stage's names.

    ``rows`` are the unrolled loops of the tile, outermost first (none to two of them). ``packing`` says of
    operands how they come into vector order: "ahead" (the argument is stored that way), "copy" (before
    everything) or "panel" (inside the loop over blocks of the vector loop). ``lead`` is the outermost loop.
    ``depth`` is the reduction loop that is cut into blocks (None: none): the tile then starts from the partial
    sums of the block before, and initialisation and epilogue are passes of their own. ``dot`` is the instruction
    that sums several steps in each lane (None: one multiply-add a step).
    """

    vector: str
    rows: tuple[str, ...]
    packing: tuple[tuple[str, str], ...] = ()
    lead: str | None = None
    parallel: bool = False
    depth: str | None = None
    dot: Dot | None = None

    @property
    def streamed(self) -> bool:
        """Whether a few steps of the reduction run in one go, inside the loop over tiles: rows of memory are read along."""
        return self.depth is not None and not self.rows and self.dot is None

    @property
    def tiled(self) -> tuple[str, ...]:
        """Loops with a part in the tile, outermost first."""
        return (*self.rows, self.vector)

    @property
    def extras(self) -> tuple[str, ...]:
        """What is done beside the tiles while the kernel runs."""
        copies = tuple(f"{how} {name}" for name, how in self.packing if how != "ahead")
        return copies + ((f"blocks of {self.depth}",) if self.depth else ())

    def __str__(self) -> str:
        parts = [f"{' x '.join(self.tiled)}", *(f"{how} {name}" for name, how in self.packing)]
        parts += [f"parallel {self.lead}"] if self.parallel else []
        parts += [str(self.dot)] if self.dot else []
        return ", ".join([*parts, *([f"blocks of {self.depth}"] if self.depth else [])])


@dataclass(frozen=True, slots=True)
class TilingSpace:
    """The knobs of a structure for one stage.

    ``size`` and ``blocks`` give for each tiled loop the knob of its extent in the tile and of the number
    of blocks its tiles are grouped into; ``tiles`` and ``each`` the number of tiles in all and of a block.
    ``levels`` are the loops around the tile, outermost first. ``epilogue`` says outside how many of them, counted from the tile, the
    element-wise nest runs that consumes the result (None: there is none, or no choice). 0: on the tile, before it is stored.
    """

    stage: Stage
    structure: Structure
    knobs: tuple[Knob, ...]
    constraints: tuple[Expr, ...]
    size: Mapping[str, Knob]
    blocks: Mapping[str, Knob]
    tiles: Mapping[str, Expr]
    each: Mapping[str, Expr]
    unroll: Knob | None
    levels: tuple[Level, ...]
    depth: Knob | None = None
    epilogue: Knob | None = None

    def around(self, values: Mapping[str, int]) -> int:
        """How many of the levels are around the nest that consumes the result: all of them, none, or as the knob says."""
        if self.epilogue is None:
            return 0 if self.depth else len(self.levels)
        return len(self.levels) - values.get(self.epilogue.name, self.epilogue.values[0])

    def block_level(self, loop: str) -> int:
        """The number of the level that walks the blocks of a tiled loop."""
        return next(n for n, level in enumerate(self.levels) if level.loop == loop)


def tiling_space(
    stage: Stage, structure: Structure, core: VectorCore, prefix: str, inner: str | None, consumed: bool = False
) -> TilingSpace:
    """Knobs, constraints and levels of ``structure``.

    ``inner`` is the innermost reduction loop, if it may be unrolled; ``consumed`` says that an element-wise nest takes the result.
    """
    size, blocks = {}, {}
    for number, loop in enumerate(structure.tiled):
        label = _label(structure, number)
        sizes = _sizes(stage.loops[loop], core, loop == structure.vector, bool(structure.rows))
        if structure.dot and loop == structure.vector:
            sizes = tuple(s for s in sizes if s % structure.dot.lanes == 0)  # the rest of a row runs without the instruction
        size[loop] = Knob(f"{prefix}{label}", sizes)
        blocks[loop] = Knob(f"{prefix}{label}_blocks", _block_counts(stage.loops[loop], size[loop].values))
    depth = _depth_knob(stage, structure, f"{prefix}depth_blocks")
    if (depth and (structure.streamed or inner == structure.depth)) or (structure.dot and inner == structure.dot.loop):
        inner = None  # a stream and an instruction take all steps in one go; a peeled last block would not be a multiple of them
    unroll = Knob(f"{prefix}unroll", tuple(u for u in UNROLLS if stage.loops[inner] % u == 0)) if inner else None
    order = [structure.vector, *reversed(structure.rows)]
    vectors = ceil_div(size[structure.vector].var, ex.idx(core.lanes))
    rows: Expr = ex.idx(1)
    for n in structure.rows:
        rows = rows * size[n].var
    # Beside the tile: a vector for each of its columns (one is enough where it is used once), and a broadcast.
    beside = ex.binary("min", vectors, (rows - 1) * vectors + 1) if structure.rows else ex.idx(1)
    fits = compare("<=", vectors * rows + beside + 1, ex.idx(core.registers))
    tiles = {n: ceil_div(ex.idx(stage.loops[n]), size[n].var) for n in order}
    each = {n: ceil_div(tiles[n], value_of(blocks[n])) for n in order}
    grouped = [c for n in order if len(blocks[n].values) > 1 for c in _balanced(tiles[n], each[n], blocks[n].var)]
    levels = _levels(stage, structure, size, blocks, each)
    if depth and structure.depth:
        whole = ex.idx(stage.loops[structure.depth])
        chunk = ceil_div(whole, value_of(depth))
        grouped += [compare(">=", value_of(depth), 2), *_balanced(whole, chunk, depth.var)]
        if structure.dot and structure.dot.loop == structure.depth:
            grouped.append(compare("==", chunk % structure.dot.steps, 0))
        at = next(n for n, level in enumerate(levels) if level.loop == structure.vector)
        levels = (*levels[: at + 1], Level(structure.depth, value_of(depth), chunk, f"{structure.depth}_block"), *levels[at + 1 :])
    epilogue = _epilogue_knob(structure, levels, f"{prefix}epilogue") if consumed else None
    # In this order what is still to be known of earlier knobs is little: diagrams of valid points stay small.
    knobs = [*(size[n] for n in order), epilogue, *(blocks[n] for n in order), depth, unroll]
    return TilingSpace(
        stage,
        structure,
        tuple(k for k in knobs if k and (len(k.values) > 1 or k in size.values())),
        (fits, *grouped, *_divided(stage, structure, size, blocks, each), *(_distinct(levels, epilogue) if epilogue else ())),
        size,
        blocks,
        tiles,
        each,
        unroll,
        levels,
        depth,
        epilogue,
    )


def _epilogue_knob(structure: Structure, levels: tuple[Level, ...], name: str) -> Knob:
    """Outside how many of ``levels`` the result may be consumed, one value for each level of tiles that has all its sums.

    A register tile has, and a block of tiles, whose size the numbers of blocks decide (the whole result is a block, too). With the
    reduction in blocks it is what they add to, or everything.
    """
    if structure.depth is None:
        return Knob(name, (0, len(structure.tiled)))
    complete = next(n for n, level in enumerate(levels) if level.loop == structure.depth)
    return Knob(name, tuple(sorted({len(levels) - complete, len(levels)})))


def _distinct(levels: tuple[Level, ...], epilogue: Knob) -> Iterator[Expr]:
    """Between two places where the result may be consumed there are several iterations: else they are the same."""
    for inner, outer in pairwise(epilogue.values):
        trips: Expr = ex.idx(1)
        for level in levels[len(levels) - outer : len(levels) - inner]:
            trips = trips * level.trips
        yield ex.logical("or", compare("!=", epilogue.var, outer), compare(">=", trips, 2))


def _depth_knob(stage: Stage, structure: Structure, name: str) -> Knob | None:
    """Into how many blocks the reduction is cut: few and long ones, or, for a stream, as short as the rows read side by side."""
    if structure.depth is None:
        return None
    extent = stage.loops[structure.depth]
    if not structure.streamed:
        return Knob(name, _block_counts(extent, (SHALLOWEST,)))
    inside = prod(stage.loops[n] for n in stage.reduction if n != structure.depth)
    return Knob(name, tuple(sorted({-(-extent // s) for s in STREAMED if s * inside <= STREAMED[-1]} - {1})))


def _label(structure: Structure, number: int) -> str:
    """Knob names: the vector loop's "width", the inner row loop's "rows", the outer one's "rows2"."""
    from_inside = len(structure.rows) - number
    return "width" if from_inside == 0 else "rows" if from_inside == 1 else f"rows{from_inside}"


def _sizes(extent: int, core: VectorCore, lanes: bool, rows: bool) -> tuple[int, ...]:
    if lanes:
        most = MOST_VECTORS if rows else core.registers - 2
        return tuple(sorted({min(u * core.lanes, extent) for u in range(1, most + 1)}))
    return tuple(range(1, min(extent, core.registers - 2) + 1))


def _block_counts(extent: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Few blocks, and as many as there are tiles."""
    most = -(-extent // sizes[0])
    few = {*range(1, 9), 12, 16, 24, 32, 48, 64}
    return tuple(sorted({n for n in few if n <= most} | {-(-extent // s) for s in sizes}))


def _balanced(tiles: Expr, each: Expr, blocks: Var) -> tuple[Expr, Expr]:
    """No block is empty, and the last one is not much smaller than the others."""
    return compare("<", (blocks - 1) * each, tiles), compare("<=", blocks * each * SLACK, tiles * (SLACK + 1))


def _divided(
    stage: Stage, structure: Structure, size: Mapping[str, Knob], blocks: Mapping[str, Knob], each: Mapping[str, Expr]
) -> list[Expr]:
    """A parallel loop has more than one iteration; with a reduction in blocks inside it, more than one full one."""
    lead = structure.lead or ""
    if not structure.parallel or lead not in blocks or len(blocks[lead].values) == 1:
        return []
    full = ex.idx(stage.loops[lead]) // (each[lead] * size[lead].var)
    return [compare(">=", full if structure.depth else blocks[lead].var, 2)]


def _levels(
    stage: Stage, structure: Structure, size: Mapping[str, Knob], blocks: Mapping[str, Knob], each: Mapping[str, Expr]
) -> tuple[Level, ...]:
    """Loops every operand walks; blocks of panels; the other loops; blocks of rows; then the tiles of a block."""
    reads = stage.reads()
    others = [n for n in stage.spatial if n not in structure.tiled and stage.loops[n] > 1]
    shared = [n for n in others if all(a.moved_by(n) for a in reads)]
    rest = [n for n in others if n not in shared]

    def whole(loop: str) -> Level:
        return Level(loop, ex.idx(stage.loops[loop]), ex.idx(1), f"{loop}_each")

    def block(loop: str) -> Level:
        return Level(loop, value_of(blocks[loop]), each[loop] * size[loop].var, f"{loop}_block")

    def tile(loop: str) -> Level:
        return Level(loop, each[loop], size[loop].var, f"{loop}_tile")

    vector, rows = structure.vector, structure.rows
    out = [*map(whole, shared), block(vector), *map(whole, rest), *map(block, rows), tile(vector), *map(tile, rows)]
    lead = next((n for n, level in enumerate(out) if level.loop == structure.lead), 0)
    return (out[lead], *out[:lead], *out[lead + 1 :])


def value_of(knob: Knob) -> Expr:
    """The knob, or the only value it has."""
    return knob.var if len(knob.values) > 1 else ex.idx(knob.values[0])


def structures(
    stage: Stage,
    pairs: list[tuple[str, tuple[str, ...]]],
    packings: Mapping[str, list[tuple[tuple[str, str], ...]]],
    threads: int,
    core: VectorCore,
) -> list[Structure]:
    """Every combination of a tile's loops, the packings of its vector loop and, on several threads, the outermost loop."""
    out = []
    for vector, rows in pairs:
        leads = leading(stage, vector, rows, threads, core)
        for packing in packings[vector]:
            out += [Structure(vector, rows, packing, lead, threads > 1 and lead is not None) for lead in leads]
    return out


def leading(stage: Stage, vector: str, rows: tuple[str, ...], threads: int, core: VectorCore) -> list[str | None]:
    """Loops that may be outermost: those with work for every thread. [None]: one thread, the order stays."""
    if threads == 1 or prod(stage.loops.values()) / core.lanes / core.fma_per_cycle < PARALLEL_CYCLES:
        return [None]
    reads = stage.reads()
    shared = [n for n in stage.spatial if n not in (*rows, vector) and stage.loops[n] >= threads and all(a.moved_by(n) for a in reads)]
    if shared and (stage.loops[shared[0]] % threads == 0 or stage.loops[shared[0]] >= ENOUGH * threads):
        return [shared[0]]
    units = {vector: core.lanes}
    wide = [n for n in stage.spatial if stage.loops[n] // units.get(n, 1) >= threads]
    return list(dict.fromkeys([*shared[:1], *wide])) or [None]
