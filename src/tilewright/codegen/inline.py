"""Calls replaced by the body of the callee, its names made unique and its buffers the caller's windows.

Calls that a backend has an instruction for stay calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Block, Call, For, Kernel, Span, Stmt, Store, Window
from tilewright.util.errors import CodegenError


def inline_calls(kernel: Kernel, keep: Callable[[Call], bool]) -> Kernel:
    """``kernel`` without calls, except those for which ``keep`` holds. CodegenError for recursion."""
    if not any(isinstance(s, Call) for s in st.walk(kernel.body)):
        return kernel
    names = st.names(kernel)
    body = _inlined(kernel.body, keep, names, (kernel.name,))
    return kernel.with_(body=body)


def _inlined(body: Block, keep: Callable[[Call], bool], names: set[str], stack: tuple[str, ...]) -> Block:
    def stmt(s: Stmt) -> Stmt | None:
        if not isinstance(s, Call) or keep(s):
            return None
        if len(stack) > 64:
            raise CodegenError(f"calls nest deeper than 64: {' > '.join(stack[-4:])}", hint="recursive kernels cannot be compiled")
        return _inlined(_body_of(s, names), keep, names, (*stack, s.kernel.name))

    out = st.map_stmts(body, stmt)
    return out if isinstance(out, Block) else Block((out,))


def _body_of(call: Call, names: set[str]) -> Block:
    """The callee's body in the caller's terms."""
    callee = call.kernel
    body: Stmt = callee.body
    sizes: dict[str, Expr] = dict(zip((v.name for v in callee.sizes), call.sizes, strict=True))
    body, renamed = _fresh(body, names)
    body = st.substitute(body, {**sizes})
    windows = {p.name: w for p, w in zip(callee.args, call.args, strict=True)}
    body = _through_windows(body, windows, sizes, renamed)
    if not isinstance(body, Block):
        raise CodegenError(f"kernel {callee.name} has no body")
    return body


def _fresh(body: Stmt, names: set[str]) -> tuple[Stmt, dict[str, str]]:
    """``body`` with loops and buffers renamed so that none is in ``names`` (which grows)."""
    loops: dict[str, Expr] = {}
    buffers: dict[str, str] = {}
    for s in st.walk(body):
        old = s.name if isinstance(s, For) else s.buffer.name if isinstance(s, Alloc) else None
        if old is None:
            continue
        new, n = old, 0
        while new in names:
            n += 1
            new = f"{old}_{n}"
        names.add(new)
        if isinstance(s, For):
            loops[old] = Var(new)
        else:
            buffers[old] = new

    def rename(t: Stmt) -> Stmt | None:
        if isinstance(t, For):
            return replace(t, var=Var(loops[t.name].name, t.var.dtype))  # type: ignore[attr-defined]
        return None

    return st.map_stmts(st.substitute(body, loops), rename), buffers


def _through_windows(body: Stmt, windows: dict[str, Window], sizes: dict[str, Expr], renamed: dict[str, str]) -> Stmt:
    def local(b: Buffer) -> Buffer:
        return b.with_(name=renamed[b.name], shape=tuple(ex.substitute(e, sizes) for e in b.shape)) if b.name in renamed else b

    def node(e: Expr) -> Expr | None:
        if not isinstance(e, Load):
            return None
        w = windows.get(e.buffer.name)
        return Load(w.buffer, w.element(e.indices)) if w else Load(local(e.buffer), e.indices)

    def window(w: Window) -> Window:
        outer = windows.get(w.buffer.name)
        return _composed(outer, w) if outer else replace(w, buffer=local(w.buffer))

    def stmt(s: Stmt) -> Stmt | None:
        match s:
            case Store():
                w = windows.get(s.buffer.name)
                return replace(s, buffer=w.buffer, indices=w.element(s.indices)) if w else replace(s, buffer=local(s.buffer))
            case Alloc():
                return replace(s, buffer=local(s.buffer))
            case Call():
                return replace(s, args=tuple(window(w) for w in s.args))
        return None

    return st.map_stmts(st.map_exprs(body, lambda e: ex.transform(e, node)), stmt)


def _composed(outer: Window, inner: Window) -> Window:
    """The window of the caller's buffer that ``inner``, a window of the parameter, stands for."""
    it = iter(inner.indices)
    indices: list[Expr | Span] = []
    for i in outer.indices:
        if not isinstance(i, Span):
            indices.append(i)
            continue
        j = next(it)
        if isinstance(j, Span):
            indices.append(Span(i.lo + j.lo * i.step, j.extent, i.step * j.step))
        else:
            indices.append(i.lo + j * i.step)
    return Window(outer.buffer, tuple(indices))
