"""Applying a point of the space: the primitives, in order, for chosen structures and numbers.

Element-wise producers are inlined first; each reduction gets the tiling chosen for it, with its
epilogue fused at write-back, or is done row by row; what is left is vectorised along memory and
divided among cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import partial

from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Layout
from tilewright.ir.stmt import For, Kernel
from tilewright.schedule.nest import trip_count
from tilewright.schedule.schedule import Schedule
from tilewright.space import normal
from tilewright.space.default import _Default, _is_copy
from tilewright.space.levels import cut
from tilewright.space.rules import contraction, pointwise, rows, tile, writeback
from tilewright.space.rules.contraction import Tiling, reduction_order
from tilewright.space.stages import Stage, stage_of, stages
from tilewright.space.tiling import TilingSpace
from tilewright.util.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class Tiled:
    """The reduction runs in register tiles: a structure and the values of its knobs."""

    space: TilingSpace
    values: Mapping[str, int]

    def of(self, e: ex.Expr) -> int:
        """An expression of the knobs as a number."""
        return int(ex.evaluate(e, self.values))


@dataclass(frozen=True, slots=True)
class ByRows:
    """The reduction runs along memory, row by row, in ``partials`` registers; ``merged`` with the nests of its rows."""

    partials: int = rows.PARTIALS
    merged: bool = True


Choice = Tiled | ByRows | None


def prepared(kernel: Kernel, machine: Machine, threads: int, constants: frozenset[str]) -> Schedule:
    """``kernel`` in the form that rules expect."""
    rules = _Default(Schedule(kernel, machine), machine, threads, constants)
    rules.sch.simplify(keep_loops=False)
    rules.attempt("separating nests", partial(normal.separate_nests, rules.sch))
    rules.attempt("accumulating", partial(normal.accumulate_apart, rules.sch))
    rules.attempt("inlining", rules.inline_pointwise)
    rules.attempt("splitting", rules.split_divided)
    rules.spread_layouts()
    return rules.sch


@dataclass(slots=True)
class Application(_Default):
    """One point being applied: ``choices`` by the buffer that a reduction computes, ``vectors`` side by side elsewhere."""

    choices: Mapping[str, Choice] = field(default_factory=dict)
    vectors: int = pointwise.UNROLLED_VECTORS

    def run(self) -> None:
        """Apply all choices to the prepared kernel; ``refused`` says which could not be."""
        for s in [s for s in stages(self.sch.kernel) if s.is_reduction]:
            choice = self.choices.get(s.output.name)
            if isinstance(choice, Tiled):
                self.attempt(f"tiles {choice.space.structure} of {s.output.name}", partial(self.tiled, s.output.name, choice))
        along = [c for c in self.choices.values() if isinstance(c, ByRows)]
        if along:
            self.attempt("rows", partial(self.along_rows, along[0]))
        for s in stages(self.sch.kernel):
            if not s.opaque and s.loops and not s.is_reduction and not s.is_scheduled:
                self.attempt(f"vectors of {s.output.name}", partial(self.elementwise, s, self.threads))
        self.sch.simplify(keep_loops=False)

    def elementwise(self, s: Stage, threads: int) -> None:
        """Vectors along memory, the outermost loop divided among cores."""
        pointwise.apply(self.sch, s, self.core(s), threads, vectors=self.vectors)

    def along_rows(self, choice: ByRows) -> None:
        """Nests that reduce along memory, and what can share their rows."""
        if choice.merged:
            rows.merge_rows(self.sch)
            rows.localize_rows(self.sch)
        for root in [s for s in self.sch.kernel.body.stmts if isinstance(s, For)]:
            inner = list(tile.nests(root))
            if not any(rows.horizontal_loop(n) for n in inner if n.is_reduction):
                continue
            for n in inner:
                if n.is_reduction:
                    reduce = partial(rows.reduce_row, self.sch, n, self.core(n), choice.partials)
                    self.attempt(f"lanes of {n.output.name}", reduce)
                else:
                    self.attempt(f"vectors of {n.output.name}", partial(self.elementwise, n, 1))
            long = sum(n.volume for n in inner) * (trip_count(root) or 1) >= pointwise.PARALLEL_ELEMENTS
            if self.threads > 1 and rows.is_row(root) and long:
                self.sch.parallel(root.name)

    def tiled(self, name: str, choice: Tiled) -> None:
        """Tile the reduction that computes buffer ``name`` together with its initialisation and epilogue."""
        stage = next(s for s in stages(self.sch.kernel) if s.is_reduction and s.output.name == name)
        space, structure = choice.space, choice.space.structure
        self.store_packed(stage, choice)
        if writeback.epilogue(self.sch, name) is None:
            name, *_ = self.sch.apply("cache_write", name, None, stage.output.memory, later_reads=False)
        epilogue = writeback.epilogue(self.sch, name)
        if epilogue is None:
            raise ScheduleError(f"{name}: its tiles cannot be written back element by element")
        nest, at = epilogue
        panels = [operand for operand, how in structure.packing if how == "panel"]
        position = space.block_level(structure.vector)
        levels = [(level.loop, choice.of(level.chunk)) for level in space.levels]
        inside = [n for n in nest.loops if n not in at.values()]
        around = cut(self.sch, at, levels, inside, frozenset([position] if panels else []))
        self.sch.compute_at(name, around.around)
        for operand in panels:
            self.pack_inside(stage, choice, operand, around.at_level[position])
        self.sch.simplify(keep_loops=False)
        self.finish_tiles(stage, name, choice)
        self.slice_producers(name)
        if structure.parallel:
            self.parallelize(name)

    def store_packed(self, stage: Stage, choice: Tiled) -> None:
        """Operands stored or copied in vector order before the reduction starts."""
        reads = {a.buffer.name: a for a in stage.reads()}
        for operand, how in choice.space.structure.packing:
            layout = contraction.panel_layout(reads[operand], stage, self.sizes(choice))
            if layout is not None and how == "ahead":
                self.sch.layout(operand, str(layout))
            elif layout is not None and how == "copy":
                self.copy_into_panels(reads[operand].buffer, layout)

    def pack_inside(self, stage: Stage, choice: Tiled, operand: str, loops: list[str]) -> None:
        """Copy the part of an operand that one block of the vector loop reads, inside that loop."""
        access = next(a for a in stage.reads() if a.buffer.name == operand)
        layout = contraction.panel_layout(access, stage, self.sizes(choice))
        if layout is None:
            return
        for loop in loops:
            _, *copy = self.sch.apply("cache_read", operand, loop, access.buffer.memory, str(layout))
            nest = stage_of(st.find_loop(self.sch.kernel, copy[0])) if copy else None
            if nest is not None and not nest.opaque:
                pointwise.apply(self.sch, nest, self.core(nest), 1)

    def sizes(self, choice: Tiled) -> Tiling:
        """The tile as the layout rules see it."""
        structure, size = choice.space.structure, choice.space.size
        row = structure.rows[-1] if structure.rows else None
        width = choice.of(size[structure.vector].var)
        return Tiling(structure.vector, row, width, choice.of(size[row].var) if row else 1, (), None, 0.0)

    def finish_tiles(self, stage: Stage, name: str, choice: Tiled) -> None:
        """Tiles into registers; each nest over a tile ordered, vectorised, unrolled."""
        structure = choice.space.structure
        dims = {n: (d, c) for d, loops in enumerate(contraction.dimension_loops(stage.target(), stage) or ()) for n, c in loops.items()}
        tiles = [b for b in st.allocated(self.sch.kernel) if _is_copy(b, name)]
        vector, _ = dims[structure.vector]
        for b in tiles:
            self.sch.set_memory(b.name, "reg")
            if vector != b.rank - 1:
                self.sch.layout(b.name, str(Layout(tuple((d, 1) for d in [*(d for d in range(b.rank) if d != vector), vector]))))
        local = {b.name for b in tiles}
        moved = [a.buffer.name for a in stage.reads() if a.moved_by(structure.vector)]
        unroll = choice.of(choice.space.unroll.var) if choice.space.unroll and len(choice.space.unroll.values) > 1 else 1
        for nest in list(tile.nests(self.sch.kernel.body)):
            if (st.written_buffers(nest.root) | st.read_buffers(nest.root)) & local:
                self.finish_nest(nest, structure.tiled, dims, local, moved[-1] if moved else "", unroll)

    def finish_nest(
        self, nest: Stage, tiled: tuple[str, ...], dims: Mapping[str, tuple[int, int]], local: Set[str], packed: str, unroll: int
    ) -> None:
        """Reductions outside, then rows, the vector loop innermost."""
        own = _tile_loops(nest, dims, local)
        inner = [own[n] for n in tiled if n in own]
        reductions = reduction_order(nest, packed) if nest.reduction else []
        others = [n for n in nest.loops if n not in inner and n not in reductions]
        order = [*others, *reductions, *inner]
        if order != list(nest.loops) and len(order) > 1:
            self.sch.reorder(*order)
        if tiled[-1] in own:
            self.sch.vectorize(own[tiled[-1]])
        for n in tiled[:-1]:
            if n in own:
                self.sch.unroll(own[n])
        if reductions and unroll > 1:
            _, steps = self.sch.apply("split", reductions[-1], unroll)
            self.sch.unroll(steps)


def _tile_loops(nest: Stage, dims: Mapping[str, tuple[int, int]], local: Set[str]) -> dict[str, str]:
    """The nest's loop that walks each dimension of a tile buffer it stores to or loads from, by the reduction's loops."""
    found: dict[str, str] = {}
    for a in (nest.target(), *nest.reads()):
        if a.buffer.name not in local:
            continue
        for loop, (d, coefficient) in dims.items():
            i = a.indices[d]
            zero = dict.fromkeys(ex.free_vars(i), 0)
            start = ex.evaluate(i, zero)
            own = [n for n in zero if n in nest.loops and ex.evaluate(i, {**zero, n: 1}) - start == coefficient]
            if own:
                found.setdefault(loop, own[0])
    return found
