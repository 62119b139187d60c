"""Symbolic programs of tiled reductions: the scheduled loops with knobs in their extents.

The tiled nest is built from the levels of its space by substituting ``start + own part`` for every
loop variable. A packed operand appears in its physical order, one dimension for each part of its
layout, because the width of a panel is a knob.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Call, LoopKind, Span, Stmt, Store, Window
from tilewright.space.dot import Dot, walked_by
from tilewright.space.levels import ceil_div, starts, wrap
from tilewright.space.result_block import ResultBlock
from tilewright.space.rules.contraction import dimension_loops, reduction_order
from tilewright.space.stages import Stage
from tilewright.space.strides import Access
from tilewright.space.tiling import TilingSpace, value_of


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What stands around a reduction: its initial value, and the element-wise nest that takes its result.

    ``at`` maps the reduction's spatial loops to the epilogue's, which takes blocks of the result that are computed inside so many
    ``levels`` of the tiling (0: it takes tiles).
    """

    init: Store | None
    epilogue: Stage | None
    at: Mapping[str, str]
    levels: int = 0


@dataclass(frozen=True, slots=True)
class TiledProgram:
    """``before``: copies into panels ahead of everything; ``nest``: the tiles; ``arguments``: those stored otherwise."""

    before: tuple[Stmt, ...]
    nest: tuple[Stmt, ...]
    arguments: Mapping[str, Buffer]


@dataclass(frozen=True, slots=True)
class _Panel:
    """An operand in vector order: physical buffer, and for each dimension what indexes it.

    ``roles`` has ("index", d): the d-th logical index; ("loop", n): a loop that shares the vector's dimension;
    ("panel", ""): number of the panel; ("lane", ""): element within it. For an instruction that sums groups of steps
    also ("group", d): the d-th logical index in groups; ("step", d): the part inside a group; ("register", ""): the
    register of the panel that a lane is of.
    """

    source: Access
    buffer: Buffer
    roles: tuple[tuple[str, str], ...]
    placement: str


def tiled_program(space: TilingSpace, around: Surroundings, taken: set[str]) -> TiledProgram:
    """The symbolic program of ``space``; new buffers get names not in ``taken``."""
    return _Builder(space, around, taken).build()


class _Builder:
    def __init__(self, space: TilingSpace, around: Surroundings, taken: set[str]):
        self.space, self.around, self.taken = space, around, taken
        self.stage, self.structure = space.stage, space.structure
        self.width: Expr = space.size[self.structure.vector].var
        self.start = starts(space.levels)
        reads = {a.buffer.name: a for a in self.stage.reads()}
        self.panels = [p for name, how in self.structure.packing if (p := self.panel(reads[name], how)) is not None]
        name = f"{self.stage.output.name}_block"
        self.block = ResultBlock.of(space, around.levels, self.fresh(name)) if around.levels else None

    def build(self) -> TiledProgram:
        assert self.stage.store is not None  # only reductions are tiled
        store = self.stage.store
        target = store.buffer
        shape = tuple(self.tile_extent(i) for i in store.indices)
        tile = Buffer(self.fresh(f"{target.name}_tile"), target.dtype, shape, "reg")
        inside: dict[str, Expr] = {n: Var(n) if n in self.structure.tiled else ex.idx(0) for n in self.stage.spatial}
        own = tuple(ex.substitute(i, inside) if ex.free_vars(i) else ex.idx(0) for i in store.indices)
        env = self.environment("")
        if self.structure.dot:
            update = self.issues(self.structure.dot, tile, own, env)
        else:
            value = self.read_panels(ex.substitute(store.value, env), env)
            update = self.tile_loops("", Store(tile, own, value, store.op), self.reductions())
        first = Store(tile, own, self.around.init.value if self.around.init and not self.structure.depth else Load(*self.result("")))
        body: list[Stmt] = [Alloc(tile), self.renamed(self.tile_loops("", first, []), "_first"), update, self.last(tile, own)]
        local = [p for p in self.panels if p.placement == "panel"]
        loops = self.kinds()
        position = self.space.block_level(self.structure.vector) + 1
        for n in range(len(loops), -1, -1):
            if n and n == self.around.levels:
                body = self.in_block(body)
            if n == position:
                body = [*(s for p in local for s in (Alloc(p.buffer), self.copy(p))), *body]
            body = [wrap(loops[n - 1 : n], *body)] if n else body
        (whole,) = body
        copied = [s for p in self.panels if p.placement == "copy" for s in (Alloc(p.buffer), self.copy(p))]
        arguments = {p.source.buffer.name: p.buffer for p in self.panels if p.placement == "ahead"}
        return TiledProgram(tuple(copied), (whole,), arguments)

    def in_block(self, tiles: list[Stmt]) -> list[Stmt]:
        """The tiles of a block of the result, and what becomes of it."""
        block, epilogue, init = self.block, self.around.epilogue, self.around.init
        assert block is not None and epilogue is not None  # blocks are made for it
        first = [block.started(init)] if init is not None and self.structure.depth else []
        return [Alloc(block.buffer), *first, *tiles, block.consumed(epilogue, self.around.at)]

    def result(self, suffix: str) -> tuple[Buffer, tuple[Expr, ...]]:
        """Where the element of a tile belongs that the loops called by ``suffix`` are at: in a block, or in the whole result."""
        assert self.stage.store is not None
        if self.block is not None:
            return self.block.buffer, self.block.tile(self.structure.tiled, suffix)
        env = self.environment(suffix)
        return self.stage.store.buffer, tuple(ex.substitute(i, env) for i in self.stage.store.indices)

    # --- loops ------------------------------------------------------------------------------

    def kinds(self) -> list[tuple[str, Expr, LoopKind]]:
        """The loops around the tile; the outermost is parallel if the structure says so."""
        first = LoopKind.PARALLEL if self.structure.parallel else LoopKind.SERIAL
        return [(level.name, level.trips, first if n == 0 else LoopKind.SERIAL) for n, level in enumerate(self.space.levels)]

    def environment(self, suffix: str) -> dict[str, Expr]:
        """Each spatial loop as start of the tile plus the part inside it."""
        env = dict(self.start)
        for n in self.structure.tiled:
            env[n] = env[n] + Var(n + suffix)
        for n in self.stage.spatial:
            env.setdefault(n, ex.idx(0))
        if self.structure.depth:
            env[self.structure.depth] = env[self.structure.depth] + Var(self.structure.depth)
        if (dot := self.structure.dot) is not None:
            env[dot.loop] = self.start.get(dot.loop, ex.idx(0)) + Var(dot.loop) * dot.steps
        if (factor := self.unrolled()) is not None:
            inner = self.reductions()[-2][0]
            env[inner] = Var(inner) * factor + Var(f"{inner}_unrolled")
        return env

    def unrolled(self) -> Expr | None:
        return value_of(self.space.unroll) if self.space.unroll and len(self.space.unroll.values) > 1 else None

    def reductions(self) -> list[tuple[str, Expr, LoopKind]]:
        packed = self.panels[-1].source.buffer.name if self.panels else ""
        order = reduction_order(self.stage, packed)
        chunks = {level.loop: level.chunk for level in self.space.levels}
        kind = LoopKind.UNROLL if self.structure.streamed else LoopKind.SERIAL
        loops = [(n, chunks.get(n, ex.idx(self.stage.loops[n])), kind) for n in order]
        if (dot := self.structure.dot) is not None:
            loops = [(n, ceil_div(e, ex.idx(dot.steps)) if n == dot.loop else e, kind) for n, e, kind in loops]
        if self.space.unroll and (factor := self.unrolled()) is not None:
            last = order[-1]
            loops[-1:] = [(last, loops[-1][1] // factor, LoopKind.SERIAL), (f"{last}_unrolled", factor, LoopKind.UNROLL)]
        return loops

    def issues(self, dot: Dot, tile: Buffer, own: tuple[Expr, ...], env: Mapping[str, Expr]) -> Stmt:
        """The nest of the tile's instructions: a register of the result, a group of steps and its register of groups each."""
        reads = {a.buffer.name: a for a in self.stage.reads()}
        panels = {p.source.buffer.name: p for p in self.panels}
        register = Var(f"{dot.vector}_register")
        lanes = Span(register * dot.lanes, ex.idx(dot.lanes))
        windows = {dot.slots[0]: Window(tile, tuple(lanes if i == Var(dot.vector) else i for i in own))}
        for slot, name in zip(dot.slots[1:], (dot.wide, dot.narrow), strict=True):
            a, p = reads[name], panels.get(name)
            indices = tuple(ex.substitute(i, env) for i in a.indices)
            if p is None:
                steps = walked_by(a, dot.loop)
                parts = tuple(Span(i, ex.idx(dot.steps)) if d == steps else i for d, i in enumerate(indices))
                windows[slot] = Window(a.buffer, parts)
            else:
                windows[slot] = Window(p.buffer, tuple(self.panel_index(p, n, indices, env) for n in range(len(p.roles))))
        kernel = dot.instruction.kernel
        call = Call(kernel, (), tuple(windows[b.name] for b in kernel.args))
        rows = [(n, self.space.size[n].var, LoopKind.UNROLL) for n in self.structure.rows]
        return wrap([*self.reductions(), *rows, (register.name, self.width // dot.lanes, LoopKind.UNROLL)], call)

    def tile_loops(self, suffix: str, body: Stmt, outside: Sequence[tuple[str, Expr, LoopKind]]) -> Stmt:
        rows = [(n + suffix, self.space.size[n].var, LoopKind.UNROLL) for n in self.structure.rows]
        return wrap([*outside, *rows, (self.structure.vector + suffix, self.width, LoopKind.VECTOR)], body)

    def renamed(self, nest: Stmt, suffix: str) -> Stmt:
        """A nest over the tile with loops of its own."""
        env: dict[str, Expr] = {n: Var(n + suffix) for n in self.structure.tiled}

        def loop(s: Stmt) -> Stmt | None:
            return replace(s, var=Var(s.name + suffix)) if isinstance(s, st.For) and s.name in env else None

        return st.map_stmts(st.substitute(nest, env), loop)

    def last(self, tile: Buffer, own: tuple[Expr, ...]) -> Stmt:
        """The epilogue on the tile, or its plain write-back."""
        assert self.stage.store is not None
        store, epilogue = self.stage.store, self.around.epilogue
        suffix = "_last"
        env = self.environment(suffix)
        mine = tuple(ex.substitute(i, {n: Var(n + suffix) for n in self.structure.tiled}) for i in own)
        if epilogue is None or epilogue.store is None or self.block is not None:
            return self.tile_loops(suffix, Store(*self.result(suffix), Load(tile, mine)), [])
        theirs = {self.around.at[n]: e for n, e in env.items() if n in self.around.at}
        out = epilogue.store
        value = ex.transform(out.value, lambda e: Load(tile, mine) if isinstance(e, Load) and e.buffer.name == store.buffer.name else None)
        more = [n for n in epilogue.loops if n not in theirs]  # loops over which the result is spread
        env = {**{n: Var(n + suffix) for n in more}, **theirs}
        written = Store(out.buffer, tuple(ex.substitute(i, env) for i in out.indices), ex.substitute(value, env), out.op)
        return self.tile_loops(suffix, written, [(n + suffix, ex.idx(epilogue.loops[n]), LoopKind.SERIAL) for n in more])

    def tile_extent(self, index: Expr) -> Expr:
        """Elements of the result that a tile covers in the dimension of ``index``."""
        if isinstance(index, Var):
            return self.space.size[index.name].var if index.name in self.space.size else ex.idx(1)
        names = ex.free_vars(index)
        last = {n: self.space.size[n].var - 1 if n in self.space.size else ex.idx(0) for n in names}
        return ex.substitute(index, last) - ex.substitute(index, dict.fromkeys(names, ex.idx(0))) + 1

    # --- panels -----------------------------------------------------------------------------

    def panel(self, a: Access, placement: str) -> _Panel | None:
        """The physical form of an operand in panels (dimensions around, panels, reduction dimensions, lanes)."""
        dims, dot = dimension_loops(a, self.stage), self.structure.dot
        vector = self.structure.vector
        if dot and a.buffer.name == dot.narrow:
            return self.groups(a, placement, dot)
        if dims is None or not any(vector in d for d in dims):
            return None
        v = next(d for d, loops in enumerate(dims) if vector in loops)
        order = reduction_order(self.stage, a.buffer.name)
        inside = sorted((d for d, n in enumerate(dims) if set(n) & set(order)), key=lambda d: order.index(next(iter(dims[d]))))
        beside = [d for d in range(len(dims)) if d != v and d not in inside]
        shared = sorted((n for n in dims[v] if n != vector), key=lambda n: -dims[v][n])
        roles = [("index", str(d)) for d in beside] + [("loop", n) for n in shared] + [("panel", "")]
        roles += [*(("index", str(d)) for d in inside), ("lane", "")]
        if dot:
            steps = str(walked_by(a, dot.loop))
            inner = [("step", steps), ("lane", "")] if dot.steps_first else [("lane", ""), ("step", steps)]
            roles = [*(("group", steps) if r == ("index", steps) else r for r in roles[:-1]), ("register", ""), *inner]
        name = a.buffer.name if placement == "ahead" else self.fresh(f"{a.buffer.name}_panels")
        shape = tuple(self.panel_extent(role, a, placement, dims) for role in roles)
        return _Panel(a, Buffer(name, a.buffer.dtype, shape, a.buffer.memory), tuple(roles), placement)

    def groups(self, a: Access, placement: str, dot: Dot) -> _Panel:
        """The operand that goes to all lanes, a group of steps together."""
        steps = str(walked_by(a, dot.loop))
        roles = [("group" if str(d) == steps else "index", str(d)) for d in range(len(a.indices))]
        roles.append(("step", steps))
        name = a.buffer.name if placement == "ahead" else self.fresh(f"{a.buffer.name}_groups")
        shape = tuple(self.panel_extent(role, a, "", ()) for role in roles)
        return _Panel(a, Buffer(name, a.buffer.dtype, shape, a.buffer.memory), tuple(roles), placement)

    def panel_extent(self, role: tuple[str, str], a: Access, placement: str, dims: Sequence[Mapping[str, int]]) -> Expr:
        kind, what = role
        if (dot := self.structure.dot) is not None:
            sizes = {"lane": ex.idx(dot.lanes), "register": self.width // dot.lanes, "step": ex.idx(dot.steps)}
            if kind in sizes:
                return sizes[kind]
            if kind == "group":
                return ceil_div(a.buffer.shape[int(what)], ex.idx(dot.steps))
        if kind == "lane":
            return self.width
        local = placement == "panel"
        if kind == "panel":
            return (self.space.each if local else self.space.tiles)[self.structure.vector]
        if kind == "loop":
            return ex.idx(1 if local and what in self.outside() else self.stage.loops[what])
        fixed = local and set(dims[int(what)]) and set(dims[int(what)]) <= self.outside()
        return ex.idx(1) if fixed else a.buffer.shape[int(what)]

    def outside(self) -> set[str]:
        """Loops fixed where panels inside the loop over blocks of the vector loop are made."""
        before = self.space.levels[: self.space.block_level(self.structure.vector)]
        tiled = {level.loop for level in self.space.levels[len(before) :]}
        return {level.loop for level in before} - tiled

    def read_panels(self, value: Expr, env: Mapping[str, Expr]) -> Expr:
        """``value`` (loops already substituted by ``env``) with packed operands read through their panels."""
        by_name = {p.source.buffer.name: p for p in self.panels}

        def read(e: Expr) -> Expr | None:
            if not isinstance(e, Load) or e.buffer.name not in by_name:
                return None
            p = by_name[e.buffer.name]
            return Load(p.buffer, tuple(self.panel_index(p, n, e.indices, env) for n in range(len(p.roles))))

        return ex.transform(value, read)

    def panel_index(self, p: _Panel, dim: int, indices: tuple[Expr, ...], env: Mapping[str, Expr]) -> Any:
        """Index of one dimension of the panels for a read inside the tile (a span for an instruction's own dimensions)."""
        (kind, what), vector, extent = p.roles[dim], self.structure.vector, p.buffer.shape[dim]
        if (dot := self.structure.dot) is not None:
            match kind:
                case "lane" | "step":
                    return Span(ex.idx(0), extent)
                case "register":
                    return Var(f"{vector}_register")
                case "group":
                    return self.start.get(dot.loop, ex.idx(0)) // dot.steps + Var(dot.loop)
        if kind == "lane":
            return Var(vector)  # tiles begin at panels
        if kind == "panel":
            block = Var(f"{vector}_block") * self.space.each[vector]
            return Var(f"{vector}_tile") if p.placement == "panel" else block + Var(f"{vector}_tile")
        if isinstance(extent, ex.Const) and extent.value == 1:
            return ex.idx(0)
        return env[what] if kind == "loop" else indices[int(what)]

    def copy(self, p: _Panel) -> Stmt:
        """The nest that fills the panels: panels outside, lanes innermost."""
        suffix = f"_{p.buffer.name}"
        own: list[Expr] = []
        loops: list[tuple[str, Expr, LoopKind]] = []
        for n, extent in enumerate(p.buffer.shape):
            single = isinstance(extent, ex.Const) and extent.value == 1
            own.append(ex.idx(0) if single else Var(f"d{n}{suffix}"))
            if not single:
                loops.append((f"d{n}{suffix}", extent, LoopKind.SERIAL))
        # Sources are read along the lanes, or along memory, whatever lies inside that in the panels.
        along = ("lane", "") if ("lane", "") in p.roles else ("index", str(p.source.buffer.rank - 1))
        lanes = p.roles.index(along) if along in p.roles else len(p.roles) - 1
        loops.sort(key=lambda x: x[0] == f"d{lanes}{suffix}")
        if loops and loops[-1][0] == f"d{lanes}{suffix}":
            loops[-1] = (*loops[-1][:2], LoopKind.VECTOR)
        if self.structure.parallel and p.placement == "copy" and len(loops) > 1:
            loops[0] = (*loops[0][:2], LoopKind.PARALLEL)
        return wrap(loops, Store(p.buffer, tuple(own), Load(p.source.buffer, self.source_index(p, own))))

    def source_index(self, p: _Panel, own: Sequence[Expr]) -> tuple[Expr, ...]:
        """Where the element at physical index ``own`` of the panels comes from."""
        vector, env = self.structure.vector, dict[str, Expr]()
        indices = list(p.source.indices)
        outside = self.environment("") if p.placement == "panel" else {}
        panel = lane = ex.idx(0)
        plain: dict[int, Expr] = {}
        dot = self.structure.dot
        for role, i, extent in zip(p.roles, own, p.buffer.shape, strict=True):
            kind, what = role
            fixed = isinstance(extent, ex.Const) and extent.value == 1
            if kind == "panel":
                panel = i
            elif kind == "lane":
                lane = lane + i
            elif kind == "register" and dot:
                lane = lane + i * dot.lanes
            elif kind in ("group", "step") and dot:
                plain[int(what)] = plain.get(int(what), ex.idx(0)) + (i * dot.steps if kind == "group" else i)
            elif kind == "loop":
                env[what] = outside.get(what, ex.idx(0)) if fixed else i
            else:
                plain[int(what)] = ex.substitute(indices[int(what)], outside) if fixed and p.placement == "panel" else i
        first = Var(f"{vector}_block") * self.space.levels[self.space.block_level(vector)].chunk if p.placement == "panel" else ex.idx(0)
        env[vector] = first + panel * self.width + lane
        return tuple(plain[d] if d in plain else ex.substitute(e, env) for d, e in enumerate(indices))

    def fresh(self, wanted: str) -> str:
        name, n = wanted, 0
        while name in self.taken:
            n += 1
            name = f"{wanted}_{n}"
        self.taken.add(name)
        return name
