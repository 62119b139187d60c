"""Calls of kernels and instructions: ``fma(c[i, j:j + 16], a[i, k], b[k, j:j + 16])``."""

from __future__ import annotations

import ast
from typing import Any

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Const, Expr, Var
from tilewright.ir.stmt import Call, Kernel, Span, Window
from tilewright.lang.expressions import ExpressionReader, index_nodes


class CallReader:
    """Reads call statements in the scope of an expression reader."""

    def __init__(self, expressions: ExpressionReader) -> None:
        self.expressions = expressions
        self.source = expressions.source
        self.scope = expressions.scope

    def call(self, node: ast.Call) -> Call:
        """A call; sizes may be left out when windows of the callee's plain extents determine them."""
        callee = self.callee(node)
        n, m = len(callee.sizes), len(callee.args)
        given = node.args
        if node.keywords or len(given) not in (m, n + m):
            wanted = ", ".join([v.name for v in callee.sizes] + [b.name for b in callee.args])
            raise self.source.error(
                node, f"{callee.name} takes ({wanted}), got {len(given) + len(node.keywords)} arguments", hint="pass them by position"
            )
        windows = tuple(self.window(a, p) for a, p in zip(given[len(given) - m :], callee.args, strict=True))
        explicit = len(given) == n + m
        sizes = tuple(self.expressions.index(a) for a in given[:n]) if explicit else self.inferred(node, callee, windows)
        self.check_extents(node, callee, sizes, windows)
        return Call(callee, sizes, windows, self.source.location(node))

    def callee(self, node: ast.Call) -> Kernel:
        name = ast.unparse(node.func)
        found: Any = None
        if isinstance(node.func, ast.Name) and not self.scope.declared(name):
            found = self.scope.outside.get(name)
        elif isinstance(node.func, ast.Attribute):
            found = self.expressions.value(node.func)
        kernel = found if isinstance(found, Kernel) else getattr(found, "kernel", None)
        if not isinstance(kernel, Kernel):
            known = sorted(k for k, v in self.scope.outside.items() if isinstance(v, Kernel))
            raise self.source.error(
                node, f"{name!r} is not a kernel or instruction", hint=f"kernels known here: {', '.join(known) or 'none'}"
            )
        return kernel

    def window(self, node: ast.expr, param: Buffer) -> Window:
        """One array argument; the parameter fixes element type and number of dimensions."""
        base = node.value if isinstance(node, ast.Subscript) else node
        b = self.scope.lookup(base.id) if isinstance(base, ast.Name) and self.scope.declared(base.id) else None
        if not isinstance(b, Buffer):
            raise self.source.error(
                node, f"`{ast.unparse(node)}` is not an array or a part of one", hint="store a value in a scalar first, and pass that"
            )
        if isinstance(node, ast.Subscript):
            parts = index_nodes(node)
            if len(parts) != b.rank:
                raise self.source.error(node, f"{b.name} has {b.rank} dimensions but is indexed with {len(parts)}")
            indices = tuple(
                self.span(p, b.shape[d]) if isinstance(p, ast.Slice) else self.expressions.index(p) for d, p in enumerate(parts)
            )
        else:
            indices = tuple(Span(ex.idx(0), s) for s in b.shape)
        w = Window(b, indices)
        if len(w.spans) != param.rank:
            raise self.source.error(
                node,
                f"parameter {param.name} has {param.rank} dimensions, `{ast.unparse(node)}` has {len(w.spans)}",
                hint="slice what varies: c[i, j:j + 16]",
            )
        if b.dtype != param.dtype:
            raise self.source.error(node, f"parameter {param.name} is {param.dtype}, `{ast.unparse(node)}` is {b.dtype}")
        return w

    def span(self, node: ast.Slice, extent: Expr) -> Span:
        """``lo:hi:step`` of a dimension; hi is excluded."""
        step = self.expressions.constant_int(node.step) if node.step is not None else 1
        if step < 1:
            raise self.source.error(node, f"slice step {step} is not positive")
        lo = self.expressions.index(node.lower) if node.lower is not None else ex.idx(0)
        hi = self.expressions.index(node.upper) if node.upper is not None else extent
        return Span(lo, _count(_distance(lo, hi), step), step)

    def inferred(self, node: ast.Call, callee: Kernel, windows: tuple[Window, ...]) -> tuple[Expr, ...]:
        """Sizes of the callee read off the windows."""
        found: dict[str, Expr] = {}
        for w, p in zip(windows, callee.args, strict=True):
            for extent, s in zip(p.shape, w.spans, strict=True):
                if isinstance(extent, Var):
                    found.setdefault(extent.name, s.extent)
        if missing := [v.name for v in callee.sizes if v.name not in found]:
            raise self.source.error(node, f"size {missing[0]} of {callee.name} is no extent of an argument", hint="pass sizes first")
        return tuple(found[v.name] for v in callee.sizes)

    def check_extents(self, node: ast.Call, callee: Kernel, sizes: tuple[Expr, ...], windows: tuple[Window, ...]) -> None:
        env = {v.name: e for v, e in zip(callee.sizes, sizes, strict=True)}
        for w, p in zip(windows, callee.args, strict=True):
            for d, (declared, s) in enumerate(zip(p.shape, w.spans, strict=True)):
                want = ex.substitute(declared, env)
                if isinstance(want, Const) and isinstance(s.extent, Const) and want != s.extent:
                    raise self.source.error(
                        node,
                        f"dimension {d} of parameter {p.name} of {callee.name} has {want.value} elements, {w} has {s.extent.value}",
                    )


def _distance(lo: Expr, hi: Expr) -> Expr:
    """``hi - lo``, seeing through ``lo:lo + n``."""
    if isinstance(hi, Binary) and hi.op == "+" and hi.a == lo:
        return hi.b
    return ex.idx(0) if lo == hi else hi - lo


def _count(distance: Expr, step: int) -> Expr:
    """Elements in a half-open range of that length."""
    if step == 1:
        return distance
    if isinstance(distance, Binary) and distance.op == "*" and distance.b == ex.idx(step):
        return distance.a
    return (distance + (step - 1)) // step
