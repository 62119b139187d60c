"""Symbolic programs of results that are consumed block by block: further out than the tile, further in than the whole result.

A block of the result lives where some of the loops around the tiles begin another one. Its tiles are computed into it, and
the element-wise nest takes it when its sums are complete: while it is still in the cache that the block was made for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import LoopKind, Stmt, Store, substitute
from tilewright.space.levels import starts, wrap
from tilewright.space.rules import pointwise
from tilewright.space.stages import Stage
from tilewright.space.tiling import TilingSpace


@dataclass(frozen=True, slots=True)
class ResultBlock:
    """The block of the result that one iteration of the outer levels of a tiling computes.

    ``extents`` of the block along the result's loops, ``outer`` its first iterations, ``inner`` where a tile begins in it.
    """

    stage: Stage
    buffer: Buffer
    extents: Mapping[str, Expr]
    outer: Mapping[str, Expr]
    inner: Mapping[str, Expr]

    @staticmethod
    def of(space: TilingSpace, levels: int, name: str) -> ResultBlock:
        """The block inside the first ``levels`` of the tiling, in a buffer called ``name``."""
        stage = space.stage
        chunks = {level.loop: level.chunk for level in space.levels[:levels]}
        extents = {n: ex.binary("min", chunks.get(n, ex.idx(e)), ex.idx(e)) for n, e in stage.loops.items() if n in stage.spatial}
        assert stage.store is not None  # only reductions are tiled
        shape = tuple(extents[i.name] if isinstance(i, Var) else ex.idx(1) for i in stage.store.indices)
        buffer = stage.output.with_(name=name, shape=shape)
        return ResultBlock(stage, buffer, extents, starts(space.levels[:levels]), starts(space.levels[levels:]))

    def place(self, inside: Mapping[str, Expr]) -> tuple[Expr, ...]:
        """The element of the block at iterations ``inside`` of it."""
        assert self.stage.store is not None
        return tuple(inside.get(i.name, ex.idx(0)) if isinstance(i, Var) else ex.idx(0) for i in self.stage.store.indices)

    def tile(self, tiled: Sequence[str], suffix: str) -> tuple[Expr, ...]:
        """The element that loops of a tile are at; those of ``tiled`` are called by ``suffix``."""
        begin = {n: self.inner.get(n, ex.idx(0)) for n in self.extents}
        return self.place({n: e + Var(n + suffix) if n in tiled else e for n, e in begin.items()})

    def started(self, init: Store) -> Stmt:
        """The nest that gives all elements their first value."""
        mark = "_start"
        target = self.stage.target()
        order = sorted((i.name for i in target.indices if isinstance(i, Var)), key=lambda n: -abs(target.stride(n) or 0))
        return self.nest(order, mark, Store(self.buffer, self.place({n: Var(n + mark) for n in order}), init.value))

    def consumed(self, epilogue: Stage, at: Mapping[str, str]) -> Stmt:
        """The element-wise nest over the block; ``at`` are its loops by the reduction's."""
        assert epilogue.store is not None  # it is a perfect nest
        mark, mine = "_out", {theirs: n for n, theirs in at.items()}
        order = [mine.get(n, n) for n in pointwise.loop_order(epilogue)]
        env: dict[str, Expr] = {n: Var(n + mark) for n in epilogue.loops}
        env |= {theirs: self.outer.get(n, ex.idx(0)) + Var(n + mark) for n, theirs in at.items()}
        own = self.place({n: Var(n + mark) for n in at})

        def read(e: Expr) -> Expr | None:
            return Load(self.buffer, own) if isinstance(e, Load) and e.buffer.name == self.stage.output.name else None

        out = epilogue.store
        store = Store(out.buffer, out.indices, ex.transform(out.value, read), out.op)
        spread = {n: ex.idx(e) for n, e in epilogue.loops.items() if n not in mine}
        return self.nest(order, mark, substitute(store, env), spread)

    def nest(self, order: Sequence[str], mark: str, store: Stmt, more: Mapping[str, Expr] | None = None) -> Stmt:
        """``store`` in loops over the block (and ``more``), the last one in lanes."""
        extents = {**self.extents, **(more or {})}
        loops = [(n + mark, extents[n], LoopKind.SERIAL) for n in order]
        return wrap([*loops[:-1], *((n, e, LoopKind.VECTOR) for n, e, _ in loops[-1:])], store)
