"""The symbolic program of a chain in blocks of rows.

Every nest is made as it would be for the whole kernel; then the loops around a block, which all of them have, become
one, and local buffers shrink to the block. Where a softmax sees its row in blocks of keys, the nests are those that
the primitive makes of the whole kernel.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, Store
from tilewright.space import nests
from tilewright.space.chains import chain_of
from tilewright.space.knob import Knob
from tilewright.space.levels import Level, ceil_div, wrap
from tilewright.space.program import Surroundings, TiledProgram, tiled_program
from tilewright.space.rules import chain_steps, pointwise, writeback
from tilewright.space.rules.chain_steps import Blocks, Link
from tilewright.space.stages import stage_of, stages
from tilewright.space.tiling import TilingSpace, value_of
from tilewright.util.errors import ScheduleError


def program(blocks: Blocks, knobs: tuple[Knob, ...]) -> Kernel:
    """The kernel with ``knobs`` as its sizes."""
    if blocks.keys is None:
        return _Builder(blocks, None, range(0)).build(knobs)
    return _Builder(*in_keys(blocks)).build(knobs)


def in_keys(blocks: Blocks) -> tuple[Blocks, For, range]:
    """The chain with its softmax in blocks of keys, the loop over them, and the positions of the stages inside.

    ScheduleError when the primitives refuse, or a nest without tiles reads an argument by key.
    """
    start = blocks.start.copy()
    loop, *tail = chain_steps.over_keys(start, start.kernel.body, blocks)
    top = [s for s in start.kernel.body.stmts if not isinstance(s, Alloc) and not (isinstance(s, For) and s.name in tail)]
    at = next(n for n, s in enumerate(top) if isinstance(s, For) and s.name == loop)
    keys = top[at]
    assert isinstance(keys, For)
    trips = -(-blocks.every[blocks.peak].loops[blocks.every[blocks.peak].reduction[-1]] // (blocks.keys or 1))
    inside = []
    for s in stages(keys.body):
        inside.append(replace(s, loops={loop: trips, **s.loops}))
    every = (*map(stage_of, top[:at]), *inside, *map(stage_of, top[at + 1 :]))
    chain = chain_of(every, {b.name for b in st.allocated(start.kernel)})
    if chain is None or len(chain.links) != len(blocks.links):
        raise ScheduleError("the nests in blocks of keys are no chain")
    links = []
    for x, n in zip(blocks.links, chain.links, strict=True):
        store, old = every[n].store, x.stage.store
        assert store is not None and old is not None  # contractions
        vector = next(i.name for i, o in zip(store.indices, old.indices, strict=True) if o == Var(x.vector) and isinstance(i, Var))
        batch = tuple(s.own[n] for s in chain.batch)
        links.append(replace(x, position=n, stage=every[n], row=chain.row.own[n], vector=vector, batch=batch))
    return replace(blocks, start=start, every=every, chain=chain, links=tuple(links)), keys, range(at, at + len(inside))


class _Builder:
    """``keys`` is the loop over blocks of keys around the stages at ``inside`` (None: there is none)."""

    def __init__(self, blocks: Blocks, keys: For | None, inside: range):
        self.keys, self.inside = keys, inside
        self.blocks, self.context, self.chain, self.every = blocks, blocks.context, blocks.chain, blocks.every
        self.taken = self.context.names() | {b.name for b in st.all_buffers(blocks.start.kernel)}
        self.block: Expr = value_of(blocks.block)
        row = self.chain.row.loop
        self.number = Var(f"{row}_of_blocks")
        self.batch = {own: Var(s.loop) for s in self.chain.batch for own in s.own.values()}
        self.rows = set(self.chain.row.own.values())
        self.trips = ceil_div(ex.idx(self.every[-1].loops[row]), self.block)

    def build(self, knobs: tuple[Knob, ...]) -> Kernel:
        kernel = self.blocks.start.kernel
        tiles: dict[int, TiledProgram] = {}
        covered: set[int] = set()
        for x in self.blocks.links:
            at, used, around = self.surroundings(x)
            tiles[at] = tiled_program(self.space(x), around, self.taken)
            covered |= used
        parts: list[list[Stmt]] = [[], [], []]  # before the loop over keys, in it, after it
        run: list[int] = []
        for n in self.chain.members:
            if run and (n in tiles or self.part(run[0]) != self.part(n)):
                parts[self.part(run[0])] += self.by_rows(run)
                run = []
            if n in tiles:
                parts[self.part(n)] += map(self.unwrapped, tiles[n].nest)
            elif n not in covered:
                run.append(n)
        parts[self.part(run[0]) if run else 0] += self.by_rows(run)
        before = [t for x in tiles.values() for t in x.before]
        for n, s in enumerate(self.every):
            if n not in self.chain.members:
                before.append(nests.elementwise(s, self.context.core(s), self.context.threads, ex.idx(pointwise.UNROLLED_VECTORS)))
        whole = self.around(self.local_buffers(parts))
        declared = [s for s in kernel.body.stmts if isinstance(s, Alloc) and s.buffer.name not in self.chain.local]
        stored = {n: b for x in tiles.values() for n, b in x.arguments.items()}
        body = Block((*declared, *before, whole))
        return kernel.with_(args=tuple(stored.get(b.name, b) for b in kernel.args), body=body, sizes=tuple(k.var for k in knobs))

    # --- nests --------------------------------------------------------------------------------

    def part(self, position: int) -> int:
        """0 before the loop over keys (or without one), 1 inside it, 2 after it."""
        return (position >= self.inside.start) + (position >= self.inside.stop) if self.keys else 0

    def space(self, x: Link) -> TilingSpace:
        loops = x.stage.loops
        around = [Level(n, ex.idx(loops[n]), ex.idx(1), f"{n}_each") for n in x.batch]
        around.append(Level(x.row, self.trips, self.block, f"{x.row}_block"))
        if self.keys is not None:
            around.append(Level(self.keys.name, ex.idx(loops[self.keys.name]), ex.idx(1), f"{self.keys.name}_each"))
        return x.space(x.stage, x.vector, x.row, tuple(around), self.block)

    def surroundings(self, x: Link) -> tuple[int, set[int], Surroundings]:
        """Where the tiles of a contraction stand, the stages they take in, and what those are."""
        name, own = x.stage.output.name, x.position
        inits = [n for n in range(own) if self.every[n].is_init and self.every[n].output.name == name and self.part(n) == self.part(own)]
        body = self.keys.body if self.keys is not None and own in self.inside else self.blocks.start.kernel.body
        found = writeback.epilogue(body, name) if inits else None
        last = next((n for n, s in enumerate(self.every) if found and s.root is found[0].root), None)
        used = {own, *inits[-1:], *([last] if last is not None else [])}
        first = self.every[inits[-1]].store if inits else None
        around = Surroundings(first, found[0] if found else None, found[1] if found else {n: n for n in x.stage.spatial})
        return (last if last is not None else own), used, around

    def unwrapped(self, nest: Stmt) -> Stmt:
        """A nest of tiles without the loops around a block."""
        while isinstance(nest, For) and nest.name.endswith(("_each", "_block")):
            own = nest.name.rsplit("_", 1)[0]
            if own in self.batch:
                nest = st.substitute(nest.body, {nest.name: self.batch[own]})
            elif own in self.rows:
                nest = st.substitute(nest.body, {nest.name: self.number})
            elif self.keys is not None and own == self.keys.name:
                nest = st.substitute(nest.body, {nest.name: self.keys.var})
            else:
                break
            nest = nest.stmts[0] if isinstance(nest, Block) and len(nest.stmts) == 1 else nest
        return nest

    def by_rows(self, members: list[int]) -> list[Stmt]:
        """Neighbouring stages without tiles, merged row by row."""
        if not members:
            return []
        kernel = self.blocks.start.kernel
        body = Block(tuple(self.every[n].root for n in members))
        used = {n for s in body.stmts for n in st.read_buffers(s) | st.written_buffers(s)}
        elsewhere = {b for n in self.chain.members if n not in members for b in _buffers(self.every[n].root)}
        own = [b for b in st.allocated(kernel) if b.name in used]
        private = [b for b in own if b.name not in elsewhere]
        args = (*kernel.args, *(b for b in own if b.name in elsewhere))
        sizes = (self.keys.var,) if self.keys is not None else ()
        merged = nests.by_rows(kernel.with_(args=args, sizes=sizes, body=Block((*map(Alloc, private), *body.stmts))), True)
        cores = {str(s.output.dtype): self.context.core(s) for s in self.every}
        partials = value_of(self.blocks.partials)
        out: list[Stmt] = []
        for root in merged.body.stmts:
            if isinstance(root, For):
                stage = stage_of(root)
                plain = not stage.opaque and not stage.is_reduction
                width = ex.idx(pointwise.UNROLLED_VECTORS)
                nest = (
                    nests.elementwise(stage, cores[str(stage.output.dtype)], 1, width)
                    if plain
                    else nests.row_nest(root, cores, 1, partials, width, self.taken)
                )
                out.append(self.in_block(nest))
        return out

    def in_block(self, nest: Stmt) -> Stmt:
        """A nest over all rows as one over the rows of a block."""

        def loop(s: Stmt) -> Stmt | None:
            if not isinstance(s, For):
                return None
            if s.name in self.batch:
                return st.substitute(s.body, {s.name: self.batch[s.name]})
            if s.name in self.rows:
                body = st.substitute(s.body, {s.name: self.number * self.block + s.var})
                assert isinstance(body, Block)  # a block maps to a block
                return replace(s, lo=ex.idx(0), hi=self.block, body=body)
            return None

        return st.map_stmts(nest, loop)

    # --- the block ----------------------------------------------------------------------------

    def local_buffers(self, parts: list[list[Stmt]]) -> list[Stmt]:
        """The nests of a block with local buffers that hold one block (of rows, and of keys)."""
        written = [{n for s in part for n in _buffers(s)} for part in parts]
        nested = {s.buffer.name for part in parts for t in part for s in st.walk(t) if isinstance(s, Alloc)}
        small = {
            b.name: self.shrunk(b) for b in st.allocated(self.blocks.start.kernel) if b.name in self.chain.local and b.name not in nested
        }
        first: dict[str, Expr] = {self.number.name: ex.idx(0), **{s.loop: ex.idx(0) for s in self.chain.batch}}

        def at(indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return tuple(ex.substitute(i, first) for i in indices)

        def load(e: Expr) -> Expr | None:
            return Load(small[e.buffer.name], at(e.indices)) if isinstance(e, Load) and e.buffer.name in small else None

        def store(s: Stmt) -> Stmt | None:
            inside = isinstance(s, Store) and s.buffer.name in small
            return replace(s, buffer=small[s.buffer.name], indices=at(s.indices)) if isinstance(s, Store) and inside else None

        moved = [[st.map_stmts(st.map_exprs(s, lambda e: ex.transform(e, load)), store) for s in part] for part in parts]
        only = {n for n in small if n in written[1] and n not in written[0] | written[2]}
        body = [*(Alloc(b) for n, b in small.items() if n not in only and n in set().union(*written)), *moved[0]]
        if self.keys is not None:
            trips = ex.idx(self.every[self.inside.start].loops[self.keys.name])
            body.append(wrap([(self.keys.name, trips, LoopKind.SERIAL)], *(Alloc(small[n]) for n in small if n in only), *moved[1]))
        return [*body, *moved[2]]

    def shrunk(self, b: Buffer) -> Buffer:
        shape = list(b.shape)
        for s in self.chain.batch:
            shape[s.dims[b.name]] = ex.idx(1)
        shape[self.chain.row.dims[b.name]] = self.block
        return b.with_(shape=tuple(shape))

    def around(self, inside: list[Stmt]) -> Stmt:
        """The loops around a block."""
        loops: list[tuple[str, Expr, LoopKind]] = []
        for n in self.blocks.order:
            kind = LoopKind.PARALLEL if n == self.blocks.lead else LoopKind.SERIAL
            own = n == self.chain.row.loop
            loops.append((self.number.name if own else n, self.trips if own else ex.idx(self.every[-1].loops[n]), kind))
        return wrap(loops, *inside)


def _buffers(s: Stmt) -> set[str]:
    return st.read_buffers(s) | st.written_buffers(s)
