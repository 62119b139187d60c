"""Applying a point of the space: the primitives, in order, for chosen structures and numbers.

Each reduction gets the tiling chosen for it, with its epilogue fused at write-back, or is done row by
row; what is left is vectorised along memory and divided among cores. A choice that a primitive
refuses is left out as a whole, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tilewright.cost.core import VectorCore, vector_core
from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.stmt import Alloc, Block, For, LoopKind, Stmt
from tilewright.schedule.nest import trip_count
from tilewright.space.attempts import Attempts
from tilewright.space.levels import Cut, cut
from tilewright.space.rules import contraction, dots, pointwise, rows, tile, unmatched, writeback
from tilewright.space.stages import Stage, stage_of, stages
from tilewright.space.strides import Access
from tilewright.space.tiling import TilingSpace, value_of
from tilewright.util.errors import ScheduleError

#: Overlap that is still cheaper than a second pass over memory, when a stage is computed slice by slice.
RECOMPUTED = 1.25


@dataclass(frozen=True, slots=True)
class Tiled:
    """The reduction runs in register tiles: a structure and the values of its knobs."""

    space: TilingSpace
    values: Mapping[str, int]

    def of(self, e: ex.Expr) -> int:
        """An expression of the knobs as a number."""
        return int(ex.evaluate(e, self.values))

    @property
    def levels(self) -> list[tuple[str, int]]:
        """Loops and chunks of the levels, outermost first."""
        return [(level.loop, self.of(level.chunk)) for level in self.space.levels]

    @property
    def around(self) -> int:
        """How many of the levels are around the nest that consumes the result."""
        return self.space.around(self.values)

    @property
    def unroll(self) -> int:
        """Steps of the innermost reduction loop in one go."""
        return self.of(value_of(self.space.unroll)) if self.space.unroll else 1


@dataclass(frozen=True, slots=True)
class ByRows:
    """The reduction runs along memory, row by row, in ``partials`` registers."""

    partials: int = rows.PARTIALS


Choice = Tiled | ByRows
#: Loops and chunks, outermost first.
Levels = list[tuple[str, int]]


@dataclass(slots=True)
class Application(Attempts):
    """One point being applied: ``choices`` by the outermost loop of each reduction, ``vectors`` side by side elsewhere.

    ``within`` is the loop whose body is scheduled (None: the whole kernel), ``kept`` are loops that stay even where they
    run once. ``loose`` are the outermost loops that no rule understands, ``abreast`` the vectors of a step below them.
    ``undone`` are the reductions whose choice was refused.
    """

    machine: Machine = field(kw_only=True)
    threads: int = field(kw_only=True)
    choices: Mapping[str, Choice] = field(kw_only=True)
    vectors: int = field(kw_only=True, default=pointwise.UNROLLED_VECTORS)
    within: str | None = field(kw_only=True, default=None)
    kept: tuple[str, ...] = field(kw_only=True, default=())
    loose: tuple[str, ...] = field(kw_only=True, default=())
    abreast: int = field(kw_only=True, default=unmatched.VECTORS)
    undone: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Apply all choices to the prepared kernel."""
        for s in [s for s in stages(self.body) if s.is_reduction]:
            choice = self.choices.get(s.name)
            if isinstance(choice, Tiled):
                what = f"tiles {choice.space.structure} of {s.output.name}"
                if not self.attempt(what, partial(self.tiled, s, choice)):
                    self.undone.add(s.name)
        along = [c for c in self.choices.values() if isinstance(c, ByRows)]
        if along:
            self.attempt("rows", partial(self.along_rows, along[0]))
        for s in stages(self.body):
            if not s.opaque and s.loops and not s.is_reduction and not s.is_scheduled:
                self.attempt(f"vectors of {s.output.name}", partial(self.elementwise, s, self.threads))
        if self.loose:
            unmatched.apply(self, self.loose, self.machine, self.threads, self.abreast)
        self.simplify()

    @property
    def body(self) -> Block:
        """The nests that are scheduled."""
        return self.sch.kernel.body if self.within is None else st.find_loop(self.sch.kernel, self.within).body

    def simplify(self) -> None:
        """Loops that run once go."""
        self.sch.simplify(keep_loops=list(self.kept) if self.kept else False)

    def core(self, s: Stage) -> VectorCore:
        """The machine's core for the element type of ``s``."""
        return vector_core(self.machine, s.output.dtype)

    def elementwise(self, s: Stage, threads: int) -> None:
        """Vectors along memory, the outermost loop divided among cores."""
        pointwise.apply(self.sch, s, self.core(s), threads, vectors=self.vectors)

    def along_rows(self, choice: ByRows) -> None:
        """Nests that reduce along memory, and what can share their rows."""
        rows.merge_rows(self.sch, self.within)
        rows.localize_rows(self.sch)
        for root in [s for s in self.body.stmts if isinstance(s, For)]:
            if not rows.share_rows(root):
                continue  # a single element-wise nest is treated as a whole
            for n in [n for n in rows.nests_of(root) if not n.is_scheduled]:
                if n.is_reduction:
                    reduce = partial(rows.reduce_row, self.sch, n, self.core(n), choice.partials)
                    self.attempt(f"lanes of {n.output.name}", reduce)
                else:
                    self.attempt(f"vectors of {n.output.name}", partial(self.elementwise, n, 1))
            serial = not any(f.kind is LoopKind.PARALLEL for f in st.loops(root))
            long = rows.work(root) >= pointwise.PARALLEL_ELEMENTS
            if self.threads > 1 and serial and rows.is_row(root) and long:
                self.sch.parallel(rows.divided_rows(self.sch, root.name, self.threads))

    # --- tiles ------------------------------------------------------------------------------

    def tiled(self, stage: Stage, choice: Tiled) -> None:
        """Tile a reduction together with its initialisation and epilogue."""
        space, structure, name = choice.space, choice.space.structure, stage.output.name
        others = frozenset(b.name for b in st.allocated(self.sch.kernel)) - {name}
        self.store_packed(stage, choice)
        panels = [operand for operand, how in structure.packing if how == "panel"]
        keep = frozenset([space.block_level(structure.vector)] if panels else [])
        if 0 < choice.around < len(choice.levels):
            tiles, at_level = self.in_blocks(stage, choice, keep)
        else:
            name, around = self.tiles(stage, choice.levels, keep, structure.depth, choice.around > 0)
            tiles, at_level = [name], around.at_level
        for operand in panels:
            self.pack_inside(stage, choice, operand, at_level[space.block_level(structure.vector)])
        self.simplify()
        self.finish_tiles(stage, tiles, others, choice)
        self.slice_producers(tiles, others)
        if structure.parallel:
            self.parallelize(tiles, others)

    def tiles(self, stage: Stage, levels: Levels, keep: frozenset[int], depth: str | None, consumed: bool) -> tuple[str, Cut]:
        """Tile the nests of ``body``, with what consumes the result if it is ``consumed`` on the tile; returns the tiles' buffer too."""
        if depth or self.continues(stage):
            return self.partial_tiles(stage, levels, keep, depth)
        return self.whole_tiles(stage, levels, keep, consumed)

    def continues(self, stage: Stage) -> bool:
        """Whether the loop around the nests goes on with sums that were begun before it."""
        return self.within is not None and not any(s.is_init and s.output.name == stage.output.name for s in stages(self.body))

    def in_blocks(self, stage: Stage, choice: Tiled, keep: frozenset[int]) -> tuple[list[str], dict[int, list[str]]]:
        """Cut the nest that consumes the result by the levels around it, and compute a block of the result, in tiles, inside them.

        Returns the tiles' buffers, one for each copy of the nests, and the loops of all levels.
        """
        name, levels, outer = stage.output.name, choice.levels, choice.around
        found = writeback.epilogue(self.body, name)
        if found is None:
            raise ScheduleError(f"{name}: it is not consumed element by element")
        nest, at = found
        around = cut(self.sch, at, levels[:outer], [n for n in nest.loops if n not in at.values()], keep)
        self.sch.compute_at(name, around.around)
        tiles: list[str] = []
        at_level = {n: list(loops) for n, loops in around.at_level.items()}
        self.sch.simplify(keep_loops=[*self.kept, *(n for loops in at_level.values() for n in loops)])
        for block in (replace(self, within=loop) for loop in around.around):
            own = next(s for s in stages(block.body) if s.is_reduction)
            names = _renamed(stage, own)
            there = [n for n in range(outer, len(levels)) if levels[n][0] in names]
            kept = frozenset(k for k, n in enumerate(there) if n in keep)
            depth = names.get(stage_depth) if (stage_depth := choice.space.structure.depth) else None
            made, inside = block.tiles(own, [(names[levels[n][0]], levels[n][1]) for n in there], kept, depth, False)
            tiles.append(made)
            for k, loops in inside.at_level.items():
                at_level.setdefault(there[k], []).extend(loops)
            for s in [s for s in stages(block.body) if not s.opaque and s.loops and not s.is_scheduled]:
                self.elementwise(s, 1)  # what begins the block, and what consumes it
        return tiles, at_level

    def whole_tiles(self, stage: Stage, levels: Levels, keep: frozenset[int], consumed: bool) -> tuple[str, Cut]:
        """Tile the nest that takes the result and compute tiles inside it, from initialisation on; returns the tiles' buffer too.

        That nest is what follows in the program if tiles are ``consumed`` there, else one that stores the result.
        """
        name = stage.output.name
        if not consumed or writeback.epilogue(self.body, name) is None:
            name, *_ = self.sch.apply("cache_write", name, self.within, stage.output.memory, later_reads=False)
        epilogue = writeback.epilogue(self.body, name)
        if epilogue is None:
            raise ScheduleError(f"{name}: its tiles cannot be written back element by element")
        nest, at = epilogue
        around = cut(self.sch, at, levels, [n for n in nest.loops if n not in at.values()], keep)
        self.sch.compute_at(name, around.around)
        return name, around

    def partial_tiles(self, stage: Stage, levels: Levels, keep: frozenset[int], depth: str | None) -> tuple[str, Cut]:
        """Tile the reduction itself: each tile starts from the partial sums of the blocks of the reduction before it."""
        loops = {n: n for n in stage.loops if n not in stage.reduction or n == depth}
        around = cut(self.sch, loops, levels, [n for n in stage.loops if n not in loops], keep)
        made = [self.sch.apply("cache_write", stage.output.name, loop, "reg")[0] for loop in around.around]
        return made[0], around

    def store_packed(self, stage: Stage, choice: Tiled) -> None:
        """Operands stored or copied in vector order before the reduction starts."""
        reads = {a.buffer.name: a for a in stage.reads()}
        for operand, how in choice.space.structure.packing:
            layout = self.packed_layout(reads[operand], stage, choice)
            if layout is not None and how == "ahead":
                self.sch.layout(operand, str(layout))
            elif layout is not None and how == "copy":
                self.copy_into_panels(reads[operand].buffer, layout)

    def copy_into_panels(self, source: Buffer, layout: Layout) -> None:
        """Lay out an operand in panels: where its only reader is the contraction, its producer writes them; else they are copied."""
        every = stages(self.sch.kernel)
        readers = [s for s in every if source.name in st.read_buffers(s.root)]
        if source in st.allocated(self.sch.kernel) and len(readers) == 1:
            self.sch.layout(source.name, str(layout))
        elif not any(source.name in st.written_buffers(s.root) for s in readers):
            self.sch.cache_read(source.name, None, source.memory, str(layout))

    def pack_inside(self, stage: Stage, choice: Tiled, operand: str, loops: list[str]) -> None:
        """Copy the part of an operand that one block of the vector loop reads, inside that loop."""
        access = next(a for a in stage.reads() if a.buffer.name == operand)
        layout = self.packed_layout(access, stage, choice)
        if layout is None:
            return
        for loop in loops:
            _, *copy = self.sch.apply("cache_read", operand, loop, access.buffer.memory, str(layout))
            nest = stage_of(st.find_loop(self.sch.kernel, copy[0])) if copy else None
            if nest is not None and not nest.opaque:
                pointwise.apply(self.sch, nest, self.core(nest), 1)

    def packed_layout(self, access: Access, stage: Stage, choice: Tiled) -> Layout | None:
        """The physical order in which the tile reads ``access``."""
        structure = choice.space.structure
        dot = structure.dot
        width = choice.of(choice.space.size[structure.vector].var)
        panels = contraction.panel_layout(access, stage, structure.vector, width)
        return panels if dot is None else dots.packed_layout(access, dot, panels)

    def finish_tiles(self, stage: Stage, names: Sequence[str], others: frozenset[str], choice: Tiled) -> None:
        """Tiles into registers; each nest over a tile ordered, vectorised, unrolled."""
        structure = choice.space.structure
        assert stage.store is not None  # only reductions are tiled
        dims = {n: d for d, i in enumerate(stage.store.indices) for n in ex.free_vars(i)}
        tiles = _tiles(self.body, names, others)
        vector = dims[structure.vector]
        for b in tiles:
            self.sch.set_memory(b.name, "reg")
            if vector != b.rank - 1:
                self.sch.layout(b.name, str(Layout(tuple((d, 1) for d in [*(d for d in range(b.rank) if d != vector), vector]))))
        local = {b.name for b in tiles}
        moved = [a.buffer.name for a in stage.reads() if a.moved_by(structure.vector)]
        packed = moved[-1] if moved else ""

        def of_tile() -> list[Stage]:
            return [n for n in tile.nests(self.body) if (st.written_buffers(n.root) | st.read_buffers(n.root)) & local]

        def update(nest: Stage) -> dots.Update | None:
            loops = tile.tile_loops(nest, dims, local)
            found = [loops[n] for n in structure.tiled if n in loops]
            whole = structure.dot is not None and nest.is_reduction and structure.vector in loops
            return dots.Update.of(structure.dot, stage, nest, found) if whole and structure.dot else None

        if structure.dot:
            for u in [u for nest in of_tile() if (u := update(nest)) is not None]:
                dots.separate_rest(self.sch, u)
            self.simplify()
        for nest in of_tile():
            if (u := update(nest)) is not None and u.whole:
                dots.issue(self.sch, u, packed, choice.unroll)
            else:
                tile.finish_nest(self.sch, nest, structure.tiled, dims, local, packed, choice.unroll)
                for step in nest.reduction if structure.streamed else ():
                    self.sch.unroll(step)

    # --- around tiles -----------------------------------------------------------------------

    def slice_producers(self, names: Sequence[str], others: frozenset[str]) -> None:
        """Padding moves into the outermost loops around the tiles where their iterations use slices of their own:
        a slice is still in cache when it is read."""
        roots = [s for s in self.sch.kernel.body.stmts if isinstance(s, For) and _tiles(s, names, others)]
        for s in stages(self.sch.kernel):
            if s.store is None or s.is_reduction or s.is_scheduled or s.output.name not in {b.name for b in st.allocated(self.sch.kernel)}:
                continue
            readers = [t for t in self.sch.kernel.body.stmts if s.output.name in st.read_buffers(t)]
            loops = [r for r in roots if any(r is t for t in readers)]
            if not loops or len(loops) != len(readers):
                continue
            trial = self.sch.copy()
            try:
                moved = trial.apply("compute_at", s.output.name, [r.name for r in loops])
            except ScheduleError:
                continue  # used outside the loops, or not computed element by element: it stays a stage of its own
            slices = [stage_of(st.find_loop(trial.kernel, n)) for n in moved]
            work = sum(c.volume * (trip_count(r) or 1) for c, r in zip(slices, loops, strict=False))
            if len(slices) == len(loops) and not any(c.opaque for c in slices) and work <= RECOMPUTED * s.volume:
                self.sch = trial
                for c in slices:
                    pointwise.apply(self.sch, c, self.core(c), 1)
        self.simplify()

    def parallelize(self, names: Sequence[str], others: frozenset[str]) -> None:
        """Divide the outermost loops around the tiles called ``names`` among cores."""
        refusals: list[ScheduleError] = []
        roots = [s for s in self.sch.kernel.body.stmts if isinstance(s, For) and _tiles(s, names, others)]
        for s in roots:
            try:
                self.sch.parallel(s.name)
            except ScheduleError as error:
                # A remainder of one block, whose outermost loop walks blocks of the reduction: it runs on one core.
                refusals.append(error)
        if refusals and len(refusals) == len(roots):
            raise refusals[0]


def _tiles(s: Stmt, names: Sequence[str], others: frozenset[str]) -> list[Buffer]:
    """Tiles of a result that live in ``s``: buffers ``names`` and copies of them in remainders, not ``others`` called alike."""
    found = [t.buffer for t in st.walk(s) if isinstance(t, Alloc) and t.buffer.name not in others]
    return [b for b in found if any(b.name == n or (b.name.startswith(n + "_") and b.name[len(n) + 1 :].isdigit()) for n in names)]


def _renamed(stage: Stage, copy: Stage) -> dict[str, str]:
    """Loops of ``copy``, which computes a part of the result of ``stage``, by those of ``stage``."""
    pairs = zip(stage.target().indices, copy.target().indices, strict=True)
    spatial = {a.name: b.name for a, b in pairs if isinstance(a, ex.Var) and isinstance(b, ex.Var)}
    return {**spatial, **dict(zip(stage.reduction, copy.reduction, strict=True))}
