"""The symbolic program of a contraction in blocks: what its schedule makes, with the knobs in the extents.

The last block of a loop and its last tile are clipped, as in the schedule, so that products of trips are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var, Where
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, Store
from tilewright.space.blocks import Blocks, Held, Walk
from tilewright.space.levels import ceil_div, wrap
from tilewright.space.rules import writeback
from tilewright.space.rules.windows import Windowed
from tilewright.space.stages import Stage, stages
from tilewright.space.tiling import value_of


def program(kernel: Kernel, b: Blocks, constants: Set[str] = frozenset(), reduced: Windowed | None = None) -> Kernel:
    """``kernel`` with the contraction of ``b`` in blocks; every other nest that has no part in them stays as it is.

    Operands that are packed in main memory are copied there first, unless they are among ``constants``. What leaves a block is
    ``reduced``, if anything.
    """
    return _Program(kernel, b, constants, reduced).made()


class _Program:
    def __init__(self, kernel: Kernel, b: Blocks, constants: Set[str], reduced: Windowed | None):
        self.kernel, self.b, self.constants, self.reduced = kernel, b, constants, reduced
        self.update = next(s for s in stages(kernel) if s.is_reduction and s.output.name == b.result.buffer.name)
        found = writeback.epilogue(kernel.body, b.result.buffer.name) if b.fused and reduced is None else None
        self.last = found[0] if found else None
        self.first = next((s for s in stages(kernel) if s.store is not None and s.output == b.result.buffer and s.store.op is None), None)

    def made(self) -> Kernel:
        b = self.b
        own = b.result.buffer.with_(name=f"{b.result.buffer.name}_blocks", **self._placed(b.result, len(b.order)))
        boxes: dict[str, Buffer] = {}
        at: dict[int, list[Stmt]] = {}
        for source, depth in zip(b.sources, b.loaded, strict=True):
            box = source.buffer.with_(name=f"{source.buffer.name}_{source.memory.name}", **self._placed(source, depth))
            boxes[source.hardware] = box
            at.setdefault(depth, []).extend([Alloc(box), self._copy(box, source, depth)])
        body: list[Stmt] = [self._tiles(own, boxes)]
        for depth in range(len(b.around), -1, -1):
            if depth == len(b.order):
                body = [Alloc(own), self._start(own), *at.get(depth, []), *body, self._finish(own)]
            else:
                body = [*at.get(depth, []), *body]
            if depth:
                w = b.walks[b.around[depth - 1]]
                body = [For(_block(w), ex.idx(0), w.blocks, Block(tuple(body)))]
        gone = [s.root for s in (self.update, self.last, self.first) if s is not None]
        gone += [s.root for s in (self.reduced.start, self.reduced.nest)] if self.reduced is not None else []
        gone += [made.root for s in b.sources if s.packed is None and (made := self._padding(s)) is not None]
        body = [*(c for s in b.sources if s.packed and s.buffer.name not in self.constants for c in self._packed(s)), *body]
        local = self.last is not None or self.reduced is not None

        def replaced(s: Stmt) -> Stmt | tuple[Stmt, ...] | None:
            if any(s is g or s == g for g in gone) and isinstance(s, For):
                return tuple(body) if s == self.update.root else ()
            return () if local and isinstance(s, Alloc) and s.buffer.name == b.result.buffer.name else None

        out = st.map_stmts(self.kernel.body, replaced)
        assert isinstance(out, Block)  # a block is mapped to a block
        return self.kernel.with_(body=out, sizes=tuple(k.var for k in b.knobs))

    # --- parts ------------------------------------------------------------------------------

    def _placed(self, o: Held, depth: int) -> dict[str, object]:
        return {"shape": o.shape(self.b.extents(depth)), "memory": o.memory.name, "layout": o.layout}

    def _left(self, loop: str, depth: int) -> Expr:
        """Iterations of ``loop`` in the block that the first ``depth`` loops chose."""
        w = self.b.walks[loop]
        if loop not in self.b.around[:depth]:
            return ex.idx(w.extent)
        if w.windows is not None:
            return w.held  # where the next block begins again
        size = value_of(w.knob) * w.tile
        return ex.binary("min", size, ex.idx(w.extent) - _block(w) * size)

    def _start_of(self, loop: str, depth: int) -> Expr:
        w = self.b.walks[loop]
        return _block(w) * (value_of(w.knob) * w.tile) if loop in self.b.around[:depth] else ex.idx(0)

    def _origin(self, o: Held, depth: int) -> list[Expr]:
        """The first element of a box in the program's array."""
        out = []
        for i in o.index:
            at: Expr = ex.idx(i.const)
            for v, c in i.terms.items():
                assert isinstance(v, Var)  # loops only
                at = at + self._start_of(v.name, depth) * c
            out.append(at)
        return out

    def _padding(self, o: Held) -> Stage | None:
        """The nest that makes an operand by putting constants around an argument: boxes of it are made where they are used."""
        writers = [s for s in stages(self.kernel) if o.buffer.name in st.written_buffers(s.root)]
        made = len(writers) == 1 and writers[0].store is not None and isinstance(writers[0].store.value, Where)
        return writers[0] if made else None

    def _packed(self, o: Held) -> list[Stmt]:
        """The copy of an operand in the order in which transfers can fetch boxes of it."""
        if o.buffer.name not in {a.name for a in self.kernel.args}:
            return []  # a local array is written in that order in the first place
        copy = o.buffer.with_(name=f"{o.buffer.name}_packed", layout=o.packed)
        at = [Var(f"{copy.name}_{d}") for d in range(copy.rank)]
        return [Alloc(copy), wrap(_loops(at, copy.shape), Store(copy, tuple(at), Load(o.buffer, tuple(at))))]

    def _copy(self, box: Buffer, o: Held, depth: int) -> Stmt:
        extents = o.shape({n: self._left(n, depth) for n in self.b.walks})
        at = [Var(f"{box.name}_{d}") for d in range(box.rank)]
        there = tuple(x + v for x, v in zip(self._origin(o, depth), at, strict=True))
        value: Expr = Load(o.buffer, there)
        fill: tuple[Stmt, ...] = ()
        if o.packed is None and (made := self._padding(o)) is not None and made.store is not None and isinstance(made.store.value, Where):
            env = {i.name: e for i, e in zip(made.store.indices, there, strict=True) if isinstance(i, Var)}
            value = ex.substitute(made.store.value.a, env)
            around = [Var(f"{box.name}_fill{d}") for d in range(box.rank)]
            fill = (wrap(_loops(around, extents), Store(box, tuple(around), made.store.value.b)),)
        return Block((*fill, wrap(_loops(at, extents), Store(box, tuple(at), value))))

    def _start(self, own: Buffer) -> Stmt:
        """The sums' first values: what the program starts from, or zeros."""
        if self.first is not None:
            return self._moved(self.first, own, own.name + "_first")
        at = [Var(f"{own.name}_first{d}") for d in range(own.rank)]
        extents = self.b.result.shape({n: self._left(n, len(self.b.order)) for n in self.b.walks})
        return wrap(_loops(at, extents), Store(own, tuple(at), ex.const(0, own.dtype)))

    def _finish(self, own: Buffer) -> Stmt:
        if self.reduced is not None:
            return self._windows(own, self.reduced)
        if self.last is not None:
            return self._moved(self.last, own, own.name + "_last")
        target = self.b.result
        at = [Var(f"{own.name}_{d}") for d in range(own.rank)]
        depth = len(self.b.order)
        there = tuple(x + v for x, v in zip(self._origin(target, depth), at, strict=True))
        extents = target.shape({n: self._left(n, depth) for n in self.b.walks})
        return wrap(_loops(at, extents), Store(target.buffer, there, Load(own, tuple(at))))

    def _windows(self, own: Buffer, reduced: Windowed) -> Stmt:
        """What is left of the windows of a block."""
        out, depth = reduced.nest.output, len(self.b.order)
        place, loops = {}, []
        for n, theirs in reduced.loops.items():
            w, v = self.b.walks[n], Var(f"{own.name}_{n}")
            whole = w.windows is None or n not in self.b.around[:depth]
            place[theirs] = v if w.windows is None else _block(w) * w.within + v
            loops.append((v.name, self._left(n, depth) if whole else w.within, LoopKind.SERIAL))
        assert reduced.nest.store is not None  # it is a reduction
        there = tuple(ex.substitute(i, place) for i in reduced.nest.store.indices)
        return wrap(loops, Store(out, there, ex.cast(Load(own, (ex.idx(0),) * own.rank), out.dtype)))

    def _moved(self, s: Stage, own: Buffer, mark: str) -> Stmt:
        """A nest over the whole result for one block of it."""
        assert s.store is not None  # stages that read or start the result are perfect nests
        result = self.b.result
        use = (
            s.store.indices
            if s.output.name == result.buffer.name
            else next(ld.indices for ld in ex.loads(s.store.value) if ld.buffer.name == result.buffer.name)
        )
        depth = len(self.b.order)
        origin, extents = self._origin(result, depth), result.shape({n: self._left(n, depth) for n in self.b.walks})
        env: dict[str, Expr] = {}
        loops = []
        for d, i in enumerate(use):
            if isinstance(i, Var):
                v = Var(f"{mark}{d}")
                env[i.name] = origin[d] + v
                loops.append((v, extents[d]))
        local = {i.name: Var(f"{mark}{d}") for d, i in enumerate(use) if isinstance(i, Var)}

        def load(e: Expr) -> Expr | None:
            if isinstance(e, Load) and e.buffer.name == result.buffer.name:
                return Load(own, tuple(local.get(i.name, i) if isinstance(i, Var) else i for i in use))
            return None

        value = ex.substitute(ex.transform(s.store.value, load), env)
        if s.output.name == result.buffer.name:
            target = Store(own, tuple(local.get(i.name, i) if isinstance(i, Var) else i for i in use), value, s.store.op)
        else:
            target = Store(s.store.buffer, tuple(ex.substitute(i, env) for i in s.store.indices), value, s.store.op)
        return wrap([(v.name, e, LoopKind.SERIAL) for v, e in loops], target)

    def _tiles(self, own: Buffer, boxes: Mapping[str, Buffer]) -> Stmt:
        """The instruction tiles of a block."""
        b, depth = self.b, len(self.b.around)
        outer: list[tuple[str, Expr, LoopKind]] = []
        inner: list[tuple[str, Expr, LoopKind]] = []
        at: dict[str, Expr] = {}
        for n in b.within:
            w, left = b.walks[n], self._left(n, depth)
            if w.axis is None:
                outer.append((f"{n}_one", left, LoopKind.SERIAL))
                at[n] = Var(f"{n}_one")
                continue
            outer.append((f"{n}_tile", ceil_div(left, ex.idx(w.tile)), LoopKind.SERIAL))
            at[n] = Var(f"{n}_tile") * w.tile + Var(f"{n}_in")

        for t in b.mapping.target.axes:
            inner += [(f"{n}_in", ex.idx(w.tile), LoopKind.UNROLL) for n, w in b.walks.items() if w.axis == t]

        def place(o: Held, held: int) -> tuple[Expr, ...]:
            """Inside the box that is held since loop ``held``."""
            out = []
            for i in o.index:
                e: Expr = ex.idx(0)
                for v, c in i.terms.items():
                    assert isinstance(v, Var)  # loops only
                    since = at[v.name] if v.name in b.around[:held] else self._start_of(v.name, depth) + at[v.name]
                    e = e + since * c
                out.append(e)
            return tuple(out)

        by_load = {(s.buffer.name): (boxes[s.hardware], place(s, d)) for s, d in zip(b.sources, b.loaded, strict=True)}
        assert self.update.store is not None  # it is a reduction
        value = ex.transform(
            self.update.store.value, lambda e: Load(*by_load[e.buffer.name]) if isinstance(e, Load) and e.buffer.name in by_load else None
        )
        return wrap([*outer, *inner], Store(own, place(b.result, len(b.order)), value, self.update.store.op))


def _block(w: Walk) -> Var:
    return Var(f"{w.loop}_block")


def _loops(at: Sequence[Var], extents: Sequence[Expr]) -> list[tuple[str, Expr, LoopKind]]:
    return [(v.name, e, LoopKind.SERIAL) for v, e in zip(at, extents, strict=True)]
