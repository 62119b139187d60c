"""Symbolic programs of everything but tiles: element-wise nests, and nests merged row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from tilewright.cost.core import VectorCore
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, Store
from tilewright.schedule.schedule import Schedule
from tilewright.space.levels import ceil_div, wrap
from tilewright.space.rules import pointwise, rows
from tilewright.space.stages import Stage, stage_of

Loop = tuple[str, Expr, LoopKind]


def elementwise(stage: Stage, core: VectorCore, threads: int, vectors: Expr) -> Stmt:
    """``stage`` vectorised along memory in chunks of ``vectors`` registers, its outermost loop parallel when long."""
    assert stage.store is not None  # callers check ``opaque``
    order = pointwise.loop_order(stage)
    if not order:
        return stage.root
    chunk = vectors * core.lanes
    across = pointwise.transposed(stage, order[-1], core)
    if across is not None:
        order = [*(n for n in order if n not in (across, order[-1])), across, order[-1]]
        chunk = ex.idx(core.lanes)
    split = [n for n in order[-2 if across else -1 :] if not _fits(stage.loops[n], chunk)]
    outer: list[Loop] = []
    for n in order:
        extent = ex.idx(stage.loops[n])
        if n in split:
            outer.append((f"{n}_chunk", ceil_div(extent, chunk), LoopKind.SERIAL))
        elif n != order[-1]:
            outer.append((n, extent, LoopKind.SERIAL))
    inner: list[Loop] = [(n, chunk, LoopKind.SERIAL) for n in split if n != order[-1]]
    inner.append((order[-1], chunk if order[-1] in split else ex.idx(stage.loops[order[-1]]), LoopKind.VECTOR))
    if threads > 1 and stage.volume >= pointwise.PARALLEL_ELEMENTS and outer:
        outer[0] = (*outer[0][:2], LoopKind.PARALLEL)
    env: dict[str, Expr] = {n: Var(f"{n}_chunk") * chunk + Var(n) for n in split}
    return wrap([*outer, *inner], st.substitute(stage.store, env))


def _fits(extent: int, chunk: Expr) -> bool:
    return isinstance(chunk, ex.Const) and extent <= int(chunk.value)


@lru_cache(maxsize=32)  # sketches ask for the same few again and again
def by_rows(kernel: Kernel, merged: bool) -> Kernel:
    """``kernel`` with nests over the same rows merged, local buffers shrunk to a row."""
    sch = Schedule(kernel)
    if merged:
        rows.merge_rows(sch)
        rows.localize_rows(sch)
    return sch.kernel


def row_nest(root: For, cores: Mapping[str, VectorCore], threads: int, partials: Expr, vectors: Expr, taken: set[str]) -> Stmt:
    """One merged nest: reductions along memory in ``partials`` registers, element-wise parts in vectors."""
    inner = {n.name: n for n in rows.nests_of(root) if n.loops and not n.opaque}

    def rewrite(s: Stmt) -> Stmt | None:
        if not isinstance(s, For) or s.name not in inner:
            return None
        stage = stage_of(s)
        core = cores[str(stage.output.dtype)]
        if not stage.is_reduction:
            return elementwise(stage, core, 1, vectors)
        row = rows.horizontal_loops(stage)
        return _in_partials(stage, row, partials * core.lanes, taken) if row else s

    out = st.map_stmts(root, rewrite)
    if isinstance(out, For) and threads > 1 and rows.is_row(root) and rows.work(root) >= pointwise.PARALLEL_ELEMENTS:
        return _divided_rows(out, threads)
    return out


def _divided_rows(root: For, threads: int) -> For:
    """``root`` parallel, one with the loops inside while its iterations are few (as :func:`rows.divided_rows`)."""
    while (inner := rows.joins(root, threads)) is not None:
        both, width = Var(f"{root.name}_{inner.name}"), pointwise.trip_count(inner) or 1
        body = st.substitute(inner.body, {root.name: both // width, inner.name: both % width})
        assert isinstance(body, Block)  # substitution keeps the kind of statement
        root = For(both, ex.idx(0), ex.idx((pointwise.trip_count(root) or 1) * width), body)
    return replace(root, kind=LoopKind.PARALLEL)


def _in_partials(stage: Stage, row: tuple[str, ...], width: Expr, taken: set[str]) -> Stmt:
    """The reduction over the loops ``row``, as one, with ``width`` partial results: initialised, updated, combined."""
    store, loop = stage.store, row[-1]
    assert store is not None and store.op is not None  # callers pass reductions
    name = f"{store.buffer.name}_partial"
    while name in taken:
        name += "_"
    taken.add(name)
    partial = Buffer(name, store.buffer.dtype, (width,), "reg")
    first, last = Var(f"{loop}_first"), Var(f"{loop}_last")
    around: list[Loop] = [(n, ex.idx(stage.loops[n]), LoopKind.SERIAL) for n in stage.spatial]
    chunk: list[Loop] = [(n, ex.idx(stage.loops[n]), LoopKind.SERIAL) for n in stage.reduction if n not in row]
    chunk += [(f"{loop}_chunk", ceil_div(ex.idx(rows.row_length(stage)), width), LoopKind.SERIAL), (loop, width, LoopKind.VECTOR)]
    at = Var(f"{loop}_chunk") * width + Var(loop)
    env: dict[str, Expr] = {}
    for n in reversed(row):
        env[n] = at if n == row[0] else at % stage.loops[n]
        at = at // stage.loops[n]
    value = ex.substitute(store.value, env)
    return wrap(
        around,
        Alloc(partial),
        wrap([(first.name, width, LoopKind.VECTOR)], Store(partial, (first,), ex.const(partial.dtype.neutral(store.op), partial.dtype))),
        wrap(chunk, Store(partial, (Var(loop),), value, store.op)),
        wrap([(last.name, width, LoopKind.VECTOR)], Store(store.buffer, store.indices, Load(partial, (last,)), store.op)),
    )
