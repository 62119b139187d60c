"""Products with a vector as products with a matrix of one row: what instructions on matrices can do."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, For, Kernel, Stmt, Store
from tilewright.space.stages import Stage, stages

_ROW = "row"


def single_rows(kernel: Kernel) -> Kernel:
    """``kernel`` with its vectors as matrices of one row, in nests with a loop over that row.

    Their memory stays as it is. ``kernel`` itself when no contraction of it has a vector as result, or a nest is no plain one.
    """
    nests = stages(kernel)
    contracted = [s for s in nests if s.is_reduction and s.factors() is not None]
    if not contracted or any(s.output.rank != 1 for s in contracted) or any(s.store is None or not s.loops for s in nests):
        return kernel
    rows = {b.name: b.with_(shape=(ex.idx(1), *b.shape)) for b in st.all_buffers(kernel) if b.rank == 1 and b.layout is None}
    if any(s.output.name not in rows for s in contracted):
        return kernel
    names = _fresh(kernel, len(nests))
    plain = iter(zip(nests, names, strict=True))
    body = [Alloc(rows.get(s.buffer.name, s.buffer)) if isinstance(s, Alloc) else _nest(*next(plain), rows) for s in kernel.body.stmts]
    return kernel.with_(args=tuple(rows.get(b.name, b) for b in kernel.args), body=st.block(*body))


def _nest(s: Stage, row: str, rows: dict[str, Buffer]) -> Stmt:
    """The nest inside a loop over the only row."""

    def node(e: Expr) -> Expr | None:
        if isinstance(e, Load) and e.buffer.name in rows:
            return Load(rows[e.buffer.name], (Var(row), *(ex.transform(i, node) for i in e.indices)))
        return None

    def stored(t: Stmt) -> Stmt | None:
        if not isinstance(t, Store):
            return None
        value = ex.transform(t.value, node)
        if t.buffer.name not in rows:
            return replace(t, value=value)
        return replace(t, buffer=rows[t.buffer.name], indices=(Var(row), *t.indices), value=value)

    return For(Var(row), ex.idx(0), ex.idx(1), st.block(st.map_stmts(s.root, stored)))


def _fresh(kernel: Kernel, count: int) -> list[str]:
    taken = st.names(kernel)
    names = (n for k in range(1 << 20) if (n := f"{_ROW}_{k}" if k else _ROW) not in taken)
    return [next(names) for _ in range(count)]
