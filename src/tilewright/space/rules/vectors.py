"""Machines with vector registers: each reduction in register tiles, or row by row along memory.

A sketch is one structure for every reduction of the kernel. What a structure can be is read off the
machine: lanes and registers bound the tile, threads ask for an outermost loop with work for each,
and an operand that is not contiguous along the lanes has to be brought into vector order somewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import prod

import numpy as np

from tilewright.cost.contraction import IRREGULAR, Contraction, least, moving_cycles
from tilewright.cost.contraction import best as best_tiles
from tilewright.cost.core import VectorCore
from tilewright.cost.step import SHUFFLED_STRIDE
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr
from tilewright.ir.stmt import Alloc, Block, For, Kernel, Stmt
from tilewright.space import nests
from tilewright.space.apply import Application, ByRows, Choice, Tiled
from tilewright.space.context import Context
from tilewright.space.dot import Dot, dots, grouped, widened
from tilewright.space.idle import priced, skip
from tilewright.space.knob import Knob
from tilewright.space.likely import likely
from tilewright.space.parts import Form, forms
from tilewright.space.plan import Decision, Plan
from tilewright.space.program import Surroundings, TiledProgram, tiled_program
from tilewright.space.rule import rule
from tilewright.space.rules import contraction, instructions, pointwise, rows, unmatched, writeback
from tilewright.space.rules.dots import recentred
from tilewright.space.sketch import Sketch, Variant
from tilewright.space.stages import Stage, stage_of
from tilewright.space.strides import Access
from tilewright.space.tiling import SHALLOWEST, Structure, TilingSpace, structures, tiling_space, value_of

#: Structures whose best tile is estimated slower than the best of all by this factor are left out.
HOPELESS = 2.0
#: Tiles (pairs of a vector loop and row loops) and sketches of a kernel at most.
MOST_TILES, MOST_SKETCHES = 6, 48
#: Rows shorter than this get a second row loop in the tile.
FEW_ROWS = 16
#: Steps of a reduction from which on it may be cut into blocks.
LONG_REDUCTION = 256
#: Vectors worked on side by side where there is no tile.
SIDE_BY_SIDE = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Option:
    """One way to do one reduction; no point of it is estimated at less than ``cycles``.

    ``tiling`` is None for a reduction done by rows. ``likely`` are the numbers among which a default is looked for. ``first``
    says it is the first of its way to do the arithmetic: it stays where there are too many.
    """

    stage: Stage
    tiling: TilingSpace | None
    cycles: float
    likely: Callable[[], Mapping[str, np.ndarray] | None] | None = None
    first: bool = False

    @property
    def name(self) -> str:
        if self.tiling:
            return f"{self.stage.output.name}: {self.tiling.structure}"
        return f"{self.stage.output.name}: along {_along(self.stage)}"

    @property
    def undivided(self) -> str:
        """The option but for the loop that is divided among threads."""
        return str(replace(self.tiling.structure, lead=None, parallel=False)) if self.tiling else self.name

    @property
    def mapping(self) -> str:
        """Loops on the rows and lanes of the vector instructions."""
        on = " x ".join(self.tiling.structure.tiled) if self.tiling else f"along {_along(self.stage)}"
        return f"{self.stage.output.name}: {on}"


@rule
def vector_nests(context: Context) -> Iterator[Sketch]:
    """Every combination of the options of the kernel's reductions, most promising first."""
    if context.machine.vector_bits == 0:
        return
    for label, kernel in [("", context), *recentred(context)]:
        for form in forms(kernel):
            for chosen in _chosen(form):
                made = _sketch(form.context, chosen)
                form_of = "; ".join(t for t in (label, form.label) if t)
                yield replace(made, name="; ".join(t for t in (form_of, made.name) if t), parts=(form_of, *made.parts))


def _chosen(form: Form) -> list[tuple[Option, ...]]:
    """An option for each reduction there is something to decide for, in every combination that is kept."""
    consumed = _chooses(form)
    named = zip(form.reductions, _prefixes(form.reductions), strict=True)
    options = [list(_options(form.context, s, p, s is consumed)) for s, p in named]
    found = _combinations([o for o in options if o])
    return [c for c in found if _compatible(c)] or found[:1]


def _chooses(form: Form) -> Stage | None:
    """The largest reduction with an element-wise nest of its own that takes the result: where that runs is a choice.

    Of this one only: there is a program for each place.
    """
    found = [(s, e[0].name) for s in form.reductions if (e := _consumed(form.context, s)) is not None]
    takers = [name for _, name in found]
    return max((s for s, name in found if takers.count(name) == 1), key=lambda s: s.volume, default=None)


def _compatible(chosen: tuple[Option, ...]) -> bool:
    """Whether no operand is brought into the order of one reduction while another one wants it in its own."""
    packed = [name for o in chosen if o.tiling for name, _ in o.tiling.structure.packing]
    return len(packed) == len(set(packed))


def _prefixes(reductions: Sequence[Stage]) -> list[str]:
    """What the knobs of each reduction begin with: nothing where there is only one."""
    names = [s.output.name for s in reductions]
    unique = [n if names.count(n) == 1 else f"{n}_{k}" for k, n in enumerate(names)]
    return [f"{n}_" for n in unique] if len(names) > 1 else [""] * len(names)


def _combinations(options: list[list[Option]]) -> list[tuple[Option, ...]]:
    """All combinations; where there are too many, costly reductions keep more of their options than cheap ones."""
    options = [sorted(o, key=lambda x: (not x.first, x.cycles)) for o in options]
    while prod(map(len, options)) > MOST_SKETCHES:
        weight = [o[0].cycles / len(o) if len(o) > 1 else float("inf") for o in options]
        options[int(np.argmin(weight))].pop()
    return sorted(product(*options), key=lambda c: sum(o.cycles for o in c))


def _options(context: Context, stage: Stage, prefix: str, consumed: bool) -> Iterator[Option]:
    core = context.core(stage)
    along = rows.cycles(stage, core) / context.threads
    usable = [] if context.dividing else dots(context.base.kernel, context.machine, stage)
    ways = [_plain(context, stage, core), *(g for d in usable if (g := _grouped(context, stage, d, core)))]
    least = min([along, *(c for way in ways for _, c in way.structures)], default=float("inf"))
    if along <= HOPELESS * least:
        yield Option(stage, None, along, first=True)
    for way in ways:
        for n, (structure, cycles) in enumerate(way.structures):
            if cycles <= HOPELESS * least or (n == 0 and len(ways) > 1):
                yield replace(_tiled(context, stage, structure, way, prefix, cycles, consumed), first=n == 0)


@dataclass(frozen=True, slots=True)
class Way:
    """How the multiply-adds of a reduction are done: structures with the least cycles they may take, best first.

    ``problem`` is what a tile does of it on ``core``.
    """

    core: VectorCore
    problem: Contraction
    structures: list[tuple[Structure, float]]


def _tiled(context: Context, stage: Stage, structure: Structure, way: Way, prefix: str, cycles: float, consumed: bool) -> Option:
    order = contraction.reduction_order(stage, _last_vector_operand(stage, structure.vector))
    space = tiling_space(stage, structure, way.core, prefix, order[-1] if order else None, consumed)
    return Option(stage, space, cycles, partial(likely, space, way.problem, way.core, context.threads))


def _plain(context: Context, stage: Stage, core: VectorCore) -> Way:
    """Multiply-adds of single elements."""
    problem = contraction.problem_of(stage, context.constants, context.dividing)
    tiles = _tiles(problem, stage, core)
    packings = {vector: _packings(context, stage, vector) for vector, _ in tiles}
    return Way(core, problem, _structures(context, stage, problem, core, tiles, packings))


def _structures(
    context: Context,
    stage: Stage,
    problem: Contraction,
    core: VectorCore,
    tiles: list[tuple[str, tuple[str, ...]]],
    packings: Mapping[str, list[tuple[tuple[str, str], ...]]],
) -> list[tuple[Structure, float]]:
    """Structures of ``tiles`` with the cycles of the busiest thread at least; of equals the simplest first."""
    listed = [s for t in tiles for s in structures(stage, [t], packings, context.threads, core)]
    listed += [d for s in listed if s.tiled == listed[0].tiled and (d := _deep(stage, s)) is not None]
    parts = prod(stage.loops[n] for n in context.dividing & stage.loops.keys())
    bounded = [(s, _least(problem, core, s) * parts * _share(stage, s, context.threads)) for s in listed]
    return sorted(bounded, key=lambda x: (x[1], len(x[0].extras)))


def _least(problem: Contraction, core: VectorCore, s: Structure) -> float:
    """Cycles of a structure at least: its tiles, and bringing operands into vector order."""
    copied = frozenset(name for name, how in s.packing if how != "ahead")
    moved = moving_cycles(problem, core, s.vector, copied if s.dot is None else frozenset())
    return least(problem, core, s.vector, s.rows, frozenset(name for name, _ in s.packing), not s.streamed) + moved


def _share(stage: Stage, s: Structure, threads: int) -> float:
    """Part of the work of the busiest thread at least."""
    if not s.parallel:
        return 1.0
    trips = stage.loops[s.lead] if s.lead and s.lead not in s.tiled else threads
    return -(-trips // threads) / trips


def _grouped(context: Context, stage: Stage, dot: Dot, plain: VectorCore) -> Way | None:
    """Groups of steps in each lane; None where an operand cannot be brought into groups."""
    packings = [tuple(p for p in c if p[1] != "as it is") for c in product(*_group_placements(context, stage, dot))]
    problem, core = widened(contraction.problem_of(stage, context.constants), dot), dot.core(plain)
    tiles = _tiles(problem, stage, core, dot.vector)
    if not packings or not tiles:
        return None
    listed = _structures(context, stage, problem, core, tiles, {dot.vector: packings})
    return Way(core, problem, [(replace(s, dot=dot), c) for s, c in listed])


def _group_placements(context: Context, stage: Stage, dot: Dot) -> list[list[tuple[str, str]]]:
    """Where the operand with lanes and the one without may be brought into groups of steps."""
    out: list[list[tuple[str, str]]] = []
    for a in stage.reads():
        name, as_it_is = a.buffer.name, a.buffer.name == dot.narrow and grouped(a, dot)
        written = any(name in st.written_buffers(s.root) for s in context.stages if s.root is stage.root)
        if as_it_is or (contraction.dimension_loops(a, stage) is None and name == dot.wide):
            out.append([(name, "as it is")] if as_it_is else [])
        elif name in context.constants:
            out.append([(name, "ahead")])
        else:
            out.append([] if written else [(name, how) for how in (("copy", "panel") if name == dot.wide else ("copy",))])
    return out


def _deep(stage: Stage, structure: Structure) -> Structure | None:
    """The structure with its reduction in blocks: long ones, so that what a block reads stays in a nearer cache, or a stream of rows."""
    order = contraction.reduction_order(stage, _last_vector_operand(stage, structure.vector))
    inside = prod(stage.loops[n] for n in order[1:])
    if not structure.rows and not structure.packing:
        fits = inside <= contraction.SIDE_BY_SIDE and stage.loops[order[0]] * inside >= 2 * contraction.SIDE_BY_SIDE
    else:
        fits = len(structure.rows) == 1 and stage.loops[order[0]] * inside >= LONG_REDUCTION and stage.loops[order[0]] >= 2 * SHALLOWEST
    return replace(structure, depth=order[0]) if fits else None


def _along(stage: Stage) -> str:
    """The reduction loop that runs in lanes when the stage is done by rows."""
    return rows.horizontal_loop(stage) or stage.reduction[-1]


def _last_vector_operand(stage: Stage, vector: str) -> str:
    moved = [a.buffer.name for a in stage.reads() if a.moved_by(vector)]
    return moved[-1] if moved else ""


def _tiles(problem: Contraction, stage: Stage, core: VectorCore, lanes: str | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """Pairs of a vector loop (``lanes`` if one is named) and the row loops of a tile, those that may be fastest first."""
    if not problem.spatial:
        return []
    ranked = best_tiles(problem, core)
    if lanes is not None:
        ranked = ranked.where(ranked.vector == problem.spatial.index(lanes))
    loops: list[tuple[str, tuple[str, ...]]] = [
        (problem.spatial[v], (problem.spatial[r],) if r >= 0 else ()) for v, r in zip(ranked.vector, ranked.row, strict=True)
    ]
    best = list(dict.fromkeys(loops))[:MOST_TILES]
    second: list[tuple[str, tuple[str, ...]]] = [
        (v, (o, *r)) for v, r in best if r and stage.loops[r[0]] <= FEW_ROWS for o in _beside(stage, problem, v, r[0])
    ]
    return best + second[:MOST_TILES]


def _beside(stage: Stage, problem: Contraction, vector: str, row: str) -> list[str]:
    """The loop next to ``row`` in the result, as a second row loop."""
    own = abs(stage.target().stride(row) or 0)
    others = [n for n in problem.spatial if n not in (vector, row) and problem.loops[n] > 1]
    return sorted(others, key=lambda n: abs(abs(stage.target().stride(n) or 0) - own))[:1]


def _packings(context: Context, stage: Stage, vector: str) -> list[tuple[tuple[str, str], ...]]:
    """Where each operand of the vector loop may be brought into vector order."""
    moved = {a.buffer.name: a for a in stage.reads() if a.moved_by(vector)}
    choices = [_placements(context, a, stage, vector) for a in moved.values()]
    return [tuple(p for p in combination if p[1] != "as it is") for combination in product(*choices)]


def _placements(context: Context, a: Access, stage: Stage, vector: str) -> list[tuple[str, str]]:
    name = a.buffer.name
    dims = contraction.dimension_loops(a, stage)
    if dims is None or not any(vector in d for d in dims):
        return [(name, "as it is")]
    if name in context.constants:
        return [(name, "ahead")]
    written = any(name in st.written_buffers(s.root) for s in context.stages if s.root is stage.root)
    # What is read once, in rows along memory, is summed there in less time than it is copied.
    once = stage.volume <= prod(a.buffer.static_shape) and rows.horizontal_loop(stage) is not None
    how = [] if written or once else ["copy", "panel"]
    if abs(a.stride(vector) or IRREGULAR) <= SHUFFLED_STRIDE or not how:
        how.append("as it is")
    return [(name, h) for h in how]


# --- sketches -------------------------------------------------------------------------------


def _sketch(context: Context, options: tuple[Option, ...]) -> Sketch:
    tiled = [o.tiling for o in options if o.tiling]
    untiled = _untiled(context, options)
    others = untiled.usual()
    knobs = [*(k for t in tiled for k in t.knobs), *others]
    name = "; ".join(o.name for o in options) or ("as written, in lanes" if all(s.opaque for s in context.stages) else "element by element")
    structural = tuple(t.epilogue for t in tiled if t.epilogue and len(t.epilogue.values) > 1)
    constraints = tuple(c for t in tiled for c in t.constraints)
    applied = partial(_applied, context, options, untiled)
    plan = partial(_plan, context, options, applied)
    made = partial(_program, context, options, untiled, tuple(knobs), structural)

    def program(variant: Variant) -> Kernel:
        return priced(context.stages, partial(made, variant))

    return Sketch(
        name,
        tuple(knobs),
        constraints,
        lambda: program(tuple(k.values[0] for k in structural)),
        lambda values: applied(values).sch,
        plan,
        "; ".join(o.mapping for o in options),
        tuple(e for t in tiled for e in t.structure.extras),
        partial(_likely, options, {k.name: v for k, v in others.items()}),
        sum(o.cycles for o in options),
        tuple(o.undivided for o in options),
        tuple(o.tiling.structure.lead if o.tiling else None for o in options),
        structural,
        program,
    )


def _likely(options: tuple[Option, ...], others: Mapping[str, int]) -> list[Mapping[str, np.ndarray]] | None:
    """Where a default is looked for: knobs of each tiling, the ``others`` at the values that are always good. None: nowhere."""
    found: list[Mapping[str, np.ndarray]] = [{n: np.array([v]) for n, v in others.items()}] if others else []
    for o in options:
        values = o.likely() if o.likely else {}
        if values is None:
            return None
        found += [values] if values else []
    return found


@dataclass(frozen=True, slots=True)
class Untiled:
    """Knobs of everything but tiles.

    ``partials``: registers of partial results of reductions along memory (None: nothing runs by rows). ``vectors``: side by
    side in element-wise nests. ``abreast``: the same below loops that no rule understands.
    """

    partials: Knob | None
    vectors: Knob
    abreast: Knob

    def usual(self) -> dict[Knob, int]:
        """Those that leave a choice, each with the value that is taken without tuning."""
        every = ((self.partials, rows.PARTIALS), (self.vectors, pointwise.UNROLLED_VECTORS), (self.abreast, unmatched.VECTORS))
        return {k: v for k, v in every if k and len(k.values) > 1}


def _untiled(context: Context, options: tuple[Option, ...]) -> Untiled:
    along, alone = [o for o in options if not o.tiling], all(s.opaque for s in context.stages)
    longest = max((rows.row_length(o.stage) // context.core(o.stage).lanes for o in along), default=0)
    return Untiled(
        Knob("partials", tuple(v for v in SIDE_BY_SIDE if v <= max(longest, 1))) if along else None,
        Knob("vectors", SIDE_BY_SIDE if len(along) == len(options) and not alone else (pointwise.UNROLLED_VECTORS,)),
        Knob("abreast", SIDE_BY_SIDE if unmatched.roots(context.base.kernel) else (unmatched.VECTORS,)),
    )


def _applied(context: Context, options: tuple[Option, ...], untiled: Untiled, values: Mapping[str, int]) -> Application:
    def number(knob: Knob) -> int:
        return int(ex.evaluate(value_of(knob), values))

    partials = number(untiled.partials) if untiled.partials else 1
    choices: dict[str, Choice] = {o.stage.name: Tiled(o.tiling, values) if o.tiling else ByRows(partials) for o in options}
    application = Application(
        context.base.copy(),
        machine=context.machine,
        threads=context.threads,
        choices=choices,
        vectors=number(untiled.vectors),
        loose=unmatched.roots(context.base.kernel),
        abreast=number(untiled.abreast),
    )
    application.run()
    skip(application, context.stages)
    return application


def _plan(
    context: Context, options: tuple[Option, ...], applied: Callable[[Mapping[str, int]], Application], values: Mapping[str, int]
) -> Plan:
    done = applied(values)
    decisions = tuple(_decision(context, o, values) for o in options if o.stage.name not in done.undone)
    return Plan(done.sch, decisions, (*context.refused, *done.refused))


def _decision(context: Context, option: Option, values: Mapping[str, int]) -> Decision:
    """What people are told about one reduction."""
    name, tiling = option.stage.output.name, option.tiling
    if tiling is None:
        return Decision(name, "", f"lanes along {_along(option.stage)}")
    structure = tiling.structure
    row = structure.rows[-1] if structure.rows else None
    on = structure.dot.mapping if structure.dot else ""
    on = on or instructions.vector_mapping(context.base.kernel, context.machine, name, structure.vector, row)
    size = {n: int(ex.evaluate(tiling.size[n].var, values)) for n in structure.tiled}
    return Decision(name, on, " x ".join(f"{n}:{s}" for n, s in size.items()))


def _program(
    context: Context, options: tuple[Option, ...], untiled: Untiled, knobs: tuple[Knob, ...], structural: tuple[Knob, ...], variant: Variant
) -> Kernel:
    """The whole kernel: tiles where there are tilings, the other nests by rows or element by element."""
    places = {k.name: v for k, v in zip(structural, variant, strict=True)}
    kernel, taken = context.base.kernel, context.names()
    tiles: dict[int, TiledProgram] = {}
    covered: set[int] = set()
    for o in options:
        if o.tiling:
            at, used, around = _surroundings(context, o.tiling, o.tiling.around(places))
            tiles[at] = tiled_program(o.tiling, around, taken)
            covered |= used
    arguments = {n: b for t in tiles.values() for n, b in t.arguments.items()}
    # Merging sees the other nests only; what tiles read and write are arguments to them.
    touched = {n for c in covered for n in st.read_buffers(context.stages[c].root) | st.written_buffers(context.stages[c].root)}
    outer = [s for s in kernel.body.stmts if isinstance(s, Alloc) and s.buffer.name in touched]
    rest = tuple(s for s in kernel.body.stmts if s not in outer and not any(s is context.stages[n].root for n in covered))
    seen = kernel.with_(args=(*kernel.args, *(s.buffer for s in outer)), body=Block(rest))
    merged = nests.by_rows(seen, any(not o.tiling for o in options))
    others = {s.name: s for s in merged.body.stmts if isinstance(s, For)}
    cores = {str(s.output.dtype): context.core(s) for s in context.stages if not s.opaque}
    body: list[Stmt] = []
    for n, stage in enumerate(context.stages):
        if n in tiles:
            body += [*tiles[n].before, *tiles[n].nest]
        elif n not in covered and isinstance(stage.root, For) and stage.root.name in others:
            body.append(_other(context, others[stage.root.name], cores, untiled, taken))
        elif n not in covered and not isinstance(stage.root, For):
            body.append(stage.root)
    used_names = {n for s in body for n in st.read_buffers(s) | st.written_buffers(s)}
    allocs = [s for s in (*outer, *merged.body.stmts) if isinstance(s, Alloc) and s.buffer.name in used_names]
    args = tuple(arguments.get(b.name, b) for b in kernel.args)
    return kernel.with_(args=args, body=Block((*allocs, *body)), sizes=tuple(k.var for k in knobs))


def _other(context: Context, root: For, cores: Mapping[str, VectorCore], untiled: Untiled, taken: set[str]) -> Stmt:
    """A nest without tiles."""
    stage, width = stage_of(root), value_of(untiled.vectors)
    if not stage.opaque and not stage.is_reduction:
        return nests.elementwise(stage, cores[str(stage.output.dtype)], context.threads, width)
    if root.name in unmatched.roots(context.base.kernel) and not (untiled.partials and rows.share_rows(root)):
        found = unmatched.allowed(context.base.kernel, context.machine, context.threads)
        return unmatched.program(root, context.machine, found, value_of(untiled.abreast))
    count: Expr = value_of(untiled.partials) if untiled.partials else ex.idx(rows.PARTIALS)
    return nests.row_nest(root, cores, context.threads, count, width, taken)


def _consumed(context: Context, stage: Stage) -> tuple[Stage, dict[str, str]] | None:
    """The element-wise nest that takes the result of ``stage``, and its loops by those of ``stage``."""
    return writeback.epilogue(context.base.kernel.body, stage.output.name)


def _surroundings(context: Context, tiling: TilingSpace, around: int) -> tuple[int, set[int], Surroundings]:
    """Where the tiles stand, which stages they take in inside ``around`` of their levels, and what those are."""
    every, stage = list(context.stages), tiling.stage
    own = next(n for n, s in enumerate(every) if s is stage)
    name = stage.output.name
    if tiling.depth and not around:
        return own, {own}, Surroundings(None, None, {n: n for n in stage.spatial})
    inits = [n for n in range(own) if every[n].is_init and every[n].output.name == name]
    init = inits[-1] if inits else None
    found = _consumed(context, stage) if around else None
    last = next((n for n, s in enumerate(every) if found and s.root is found[0].root), None)
    used = {own, *([init] if init is not None else []), *([last] if last is not None else [])}
    surroundings = Surroundings(
        every[init].store if init is not None else None,
        found[0] if found else None,
        found[1] if found else {n: n for n in stage.spatial},
        around if found and around < len(tiling.levels) else 0,
    )
    return (last if last is not None else own), used, surroundings
