"""The schedule a kernel gets without tuning.

Rules in order: element-wise producers are inlined; each reduction gets the tiling that the
analytical estimate finds cheapest among all candidates, with its epilogue fused at write-back; what
is left is vectorised along memory and divided among cores. Everything is done through schedule
primitives, so the result comes with a trace and a proof for each step, and nothing here knows a
target: sizes and rates come from the machine's declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from math import prod

from tilewright.cost.core import VectorCore, vector_core
from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Binary, Const, Var
from tilewright.ir.stmt import Alloc, For, Kernel, LoopKind, Stmt
from tilewright.schedule.nest import trip_count
from tilewright.schedule.schedule import Schedule
from tilewright.space import normal
from tilewright.space.rules import contraction, instructions, pointwise, rows, tile, writeback
from tilewright.space.rules.contraction import Tiling
from tilewright.space.stages import Stage, stage_of, stages
from tilewright.util.errors import ScheduleError

#: Overlap that is still cheaper than a second pass over memory, when a stage is computed slice by slice.
RECOMPUTED = 1.25


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen for one reduction of the program, for people to read.

    ``mapping`` is the instruction and which loops ride on its axes ("" where plain loops do),
    ``tile`` the register tile, ``cycles`` the estimate for one core.
    """

    output: str
    mapping: str
    tile: str
    cycles: float

    def __str__(self) -> str:
        return f"{self.output}: {', '.join(t for t in (self.mapping, self.tile) if t)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule and the decisions behind it.

    ``refused`` says which rules a primitive refused, and why: what they were meant for runs as it was before them.
    """

    schedule: Schedule
    decisions: tuple[Decision, ...]
    refused: tuple[str, ...] = ()


def default_schedule(
    kernel: Kernel, machine: Machine | None = None, *, threads: int | None = None, constants: Iterable[str] = ()
) -> Schedule:
    """Schedule ``kernel`` for ``machine`` (default: this host) by rules and estimates, without running anything.

    ``constants`` are arguments whose contents are known before the kernel runs (weights): their
    layout may be changed, which shows in the arguments of the result's kernel. A stage that no rule
    fits runs as written, among them loops over symbolic ranges: bind sizes first
    (:func:`tilewright.ir.stmt.specialize`). IRTypeError for rectangular nests on buffers of symbolic shape.
    """
    return plan(kernel, machine, threads=threads, constants=constants).schedule


def plan(kernel: Kernel, machine: Machine | None = None, *, threads: int | None = None, constants: Iterable[str] = ()) -> Plan:
    """:func:`default_schedule` together with what was decided."""
    machine = machine or Machine.host()
    if machine.vector_bits == 0:
        return _on_instructions(kernel, machine)
    rules = _Default(Schedule(kernel, machine), machine, threads or machine.cores, frozenset(constants))
    rules.run()
    return Plan(rules.sch, tuple(rules.decisions), tuple(rules.refused))


def _on_instructions(kernel: Kernel, machine: Machine) -> Plan:
    """The largest contraction goes onto an instruction; everything else stays as written."""
    contractions = [s for s in stages(kernel) if s.is_reduction]
    for s in sorted(contractions, key=lambda s: -s.volume):
        found = instructions.map_contraction(kernel, machine, s.output.name)
        if found is not None:
            sch, mapping = found
            return Plan(sch, (Decision(s.output.name, f"{mapping.target.name}: {mapping}", "", 0.0),))
    return Plan(Schedule(kernel, machine), ())


@dataclass(slots=True)
class _Default:
    sch: Schedule
    machine: Machine
    threads: int
    constants: frozenset[str]
    decisions: list[Decision] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def run(self) -> None:
        self.sch.simplify(keep_loops=False)
        self.attempt("separating nests", partial(normal.separate_nests, self.sch))
        self.attempt("accumulating", partial(normal.accumulate_apart, self.sch))
        self.attempt("inlining", self.inline_pointwise)
        self.attempt("splitting", self.split_divided)
        self.spread_layouts()
        by_rows = False
        for s in [s for s in stages(self.sch.kernel) if s.is_reduction]:
            tiling = contraction.choose(s, self.core(s), self.threads, self.constants)
            along = rows.cycles(s, self.core(s))
            if along < (tiling.cycles if tiling else float("inf")):
                by_rows = True
                self.decisions.append(Decision(s.output.name, "", f"lanes along {rows.horizontal_loop(s)}", along))
            elif tiling:
                on = instructions.vector_mapping(self.sch.kernel, self.machine, s.output.name, tiling.vector, tiling.row)
                if self.attempt(f"tile {tiling} of {s.output.name}", partial(self.reduction, s.output.name, tiling)):
                    self.decisions.append(Decision(s.output.name, on, str(tiling), tiling.cycles))
        if by_rows:
            self.attempt("rows", self.rows)
        for s in stages(self.sch.kernel):
            if not s.opaque and s.loops and not s.is_reduction and not s.is_scheduled:
                self.attempt(f"vectors of {s.output.name}", partial(pointwise.apply, self.sch, s, self.core(s), self.threads))
        self.sch.simplify(keep_loops=False)

    def attempt(self, what: str, rule: Callable[[], None]) -> bool:
        """Apply ``rule`` as a whole, or, when one of its primitives refuses, not at all."""
        kernel, trace = self.sch.kernel, self.sch.trace
        try:
            rule()
        except ScheduleError as error:
            self.sch.kernel, self.sch.trace = kernel, trace
            self.refused.append(f"{what}: {error.message}")
            return False
        return True

    def inline_pointwise(self) -> None:
        """Local element-wise results that are read once for each element are computed where they are read."""
        for b in st.allocated(self.sch.kernel):
            every = stages(self.sch.kernel)
            writers = [s for s in every if b.name in st.written_buffers(s.root)]
            readers = [s for s in every if b.name in st.read_buffers(s.root)]
            if len(writers) == 1 and len(readers) == 1 and _reads_once(readers[0], writers[0], b):
                self.sch.inline(b.name)

    def split_divided(self) -> None:
        """Loops that indices divide by a constant (``k // 32``, ``k % 32``) become two loops, and the indices affine."""
        for s in stages(self.sch.kernel):
            for loop, factor in _divisors(s).items():
                self.sch.split(loop, factor)
        self.sch.simplify(keep_loops=False)

    def spread_layouts(self) -> None:
        """Local buffers take the layout of the arguments they are computed from or into."""
        layouts = {b.name: b for b in self.sch.kernel.args if b.layout is not None}
        todo = [b for b in st.allocated(self.sch.kernel) if b.layout is None and b.rank > 1]
        every = stages(self.sch.kernel)
        while True:
            found = next(((b, n) for b in todo for s in every for n in _beside(s, b) if n in layouts), None)
            if found is None:
                return
            b, neighbour = found
            self.sch.layout(b.name, str(layouts[neighbour].layout))
            layouts[b.name] = layouts[neighbour]
            todo.remove(b)

    def rows(self) -> None:
        """Nests that reduce along memory, and what can share their rows."""
        rows.merge_rows(self.sch)
        rows.localize_rows(self.sch)
        for root in [s for s in self.sch.kernel.body.stmts if isinstance(s, For)]:
            inner = [n for n in tile.nests(root) if not n.is_scheduled]
            if len(inner) < 2 and not any(n.is_reduction for n in inner):
                continue  # a single element-wise nest is treated as a whole
            for n in inner:
                if n.is_reduction:
                    self.attempt(f"lanes of {n.output.name}", partial(rows.reduce_row, self.sch, n, self.core(n)))
                else:
                    self.attempt(f"vectors of {n.output.name}", partial(pointwise.apply, self.sch, n, self.core(n), 1))
            serial = not any(f.kind is LoopKind.PARALLEL for f in st.loops(root))
            if (
                self.threads > 1
                and serial
                and rows.is_row(root)
                and sum(n.volume for n in inner) * root_trips(root) >= pointwise.PARALLEL_ELEMENTS
            ):
                self.sch.parallel(root.name)

    def core(self, s: Stage) -> VectorCore:
        return vector_core(self.machine, s.output.dtype)

    def reduction(self, name: str, tiling: Tiling) -> None:
        """Tile the reduction that computes buffer ``name`` together with its initialisation and epilogue."""
        every = stages(self.sch.kernel)
        found = next((s for s in every if s.is_reduction and s.output.name == name), None)
        if found is None or found.store is None:
            return
        packed = self.pack(found, tiling)
        if writeback.epilogue(self.sch, name) is None:
            name, *_ = self.sch.apply("cache_write", name, None, found.output.memory, later_reads=False)
        epilogue = writeback.epilogue(self.sch, name)
        if epilogue is None:
            raise ScheduleError(f"{name}: its tiles cannot be written back element by element")
        nest, at = epilogue
        threads = self.threads if tiling.parallel else 1
        dims = {n: d for d, i in enumerate(found.store.indices) for n in ex.free_vars(i)}
        loops = tile.tile_output(self.sch, nest, tiling, at)
        self.sch.compute_at(name, loops)
        self.sch.simplify(keep_loops=False)
        self.finish(name, tiling, dims, packed)
        self.slice_producers(name)
        if threads > 1:
            self.parallelize(name)

    def slice_producers(self, name: str) -> None:
        """Padding moves into the outermost loops around the tiles where their iterations use slices of their own:
        a slice is still in cache when it is read."""
        roots = [s for s in self.sch.kernel.body.stmts if isinstance(s, For) and _holds_tile(s, name)]
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
            work = sum(c.volume * root_trips(r) for c, r in zip(slices, loops, strict=False))
            if len(slices) == len(loops) and not any(c.opaque for c in slices) and work <= RECOMPUTED * s.volume:
                self.sch = trial
                for c in slices:
                    pointwise.apply(self.sch, c, self.core(c), 1)
        self.sch.simplify(keep_loops=False)

    def parallelize(self, name: str) -> None:
        """Divide the outermost loops around the tiles of ``name`` among cores."""
        for s in self.sch.kernel.body.stmts:
            if isinstance(s, For) and _holds_tile(s, name):
                self.sch.parallel(s.name)

    def finish(self, name: str, tiling: Tiling, dims: dict[str, int], packed: str) -> None:
        tiles = [b for b in st.allocated(self.sch.kernel) if _is_copy(b, name)]
        vector = dims[tiling.vector]
        lanes_last = Layout(tuple((d, 1) for d in [*(d for d in range(tiles[0].rank) if d != vector), vector])) if tiles else None
        for b in tiles:
            self.sch.set_memory(b.name, "reg")
            if vector != b.rank - 1:
                self.sch.layout(b.name, str(lanes_last))
        local = {b.name for b in tiles}
        for nest in list(tile.nests(self.sch.kernel.body)):
            touched = st.written_buffers(nest.root) | st.read_buffers(nest.root)
            if touched & local:
                tile.finish_nest(self.sch, nest, tiling, dims, local, packed)

    def pack(self, stage: Stage, tiling: Tiling) -> str:
        """Give a constant vector operand the panel layout; returns the name of the packed operand."""
        name = ""
        for a in stage.reads():
            if not a.moved_by(tiling.vector):
                continue
            name = a.buffer.name
            layout = contraction.panel_layout(a, stage, tiling)
            if layout is None:
                continue
            if name in self.constants:
                self.sch.layout(name, str(layout))
            elif contraction.wants_packing(a, stage, tiling):
                self.copy_into_panels(a.buffer, layout)
        return name

    def copy_into_panels(self, source: Buffer, layout: Layout) -> None:
        """Lay out an operand in panels: where its only reader is the contraction, its producer writes them; else they are copied."""
        every = stages(self.sch.kernel)
        readers = [s for s in every if source.name in st.read_buffers(s.root)]
        if source in st.allocated(self.sch.kernel) and len(readers) == 1:
            self.sch.layout(source.name, str(layout))
        elif not any(source.name in st.written_buffers(s.root) for s in readers):
            self.sch.cache_read(source.name, None, source.memory, str(layout))


def _is_copy(b: Buffer, name: str) -> bool:
    return b.name == name or (b.name.startswith(name + "_") and b.name[len(name) + 1 :].isdigit())


def _holds_tile(s: Stmt, name: str) -> bool:
    """Whether a tile of buffer ``name`` lives inside ``s``."""
    return any(isinstance(t, Alloc) and _is_copy(t.buffer, name) for t in st.walk(s))


def _reads_once(reader: Stage, writer: Stage, b: Buffer) -> bool:
    """Whether ``writer`` is element-wise and ``reader`` loads every element of ``b`` in exactly one iteration."""
    if writer.store is None or reader.store is None or writer.store.op is not None or writer.is_init:
        return False
    loads = [ld for ld in ex.loads(reader.store.value) if ld.buffer.name == b.name]
    plain = all(isinstance(i, Var) for i in (*writer.store.indices, *(i for ld in loads for i in ld.indices)))
    return len(loads) == 1 and plain and writer.volume == reader.volume == prod(b.static_shape)


def _divisors(s: Stage) -> dict[str, int]:
    """Loops of the stage whose variable is divided by a constant that divides the extent.

    Not those that walk the result of a reduction: its tiles follow one loop in each dimension.
    """
    out: dict[str, int] = {}
    splittable = s.loops.keys() - (set(s.spatial) if s.is_reduction else set())
    for a in [] if s.store is None else [s.store.indices, *(ld.indices for ld in ex.loads(s.store.value))]:
        for e in (n for i in a for n in ex.walk(i)):
            if isinstance(e, Binary) and e.op in ("//", "%") and isinstance(e.a, Var) and isinstance(e.b, Const) and e.a.name in splittable:
                factor = int(e.b.value)
                if 1 < factor < s.loops[e.a.name] and s.loops[e.a.name] % factor == 0:
                    out.setdefault(e.a.name, factor)
    return out


def _beside(s: Stage, b: Buffer) -> list[str]:
    """Other buffers of the same rank that the stage uses together with ``b``."""
    if s.opaque:
        return []
    used = [s.output, *(a.buffer for a in s.reads())]
    return [u.name for u in used if u.rank == b.rank and u.name != b.name] if any(u.name == b.name for u in used) else []


def root_trips(f: For) -> int:
    """Iterations of a loop (1 when they are not constant)."""
    return trip_count(f) or 1
