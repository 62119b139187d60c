"""Statements: Python syntax trees to IR statements, with unique names and source locations."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Block, For, If, LoopKind, Stmt, While, store
from tilewright.lang.calls import CallReader
from tilewright.lang.declarations import DeclarationReader
from tilewright.lang.expressions import OPERATORS, ExpressionReader, index_nodes
from tilewright.lang.scope import Scope
from tilewright.lang.source import Source

_KINDS = {k.value: k for k in LoopKind}
_ITERATIONS = 'range(n), grid(m, n), parallel(n), vector(n), unroll(n), bind("unit", n) or meta(...)'
_STATEMENTS = "for, while, if, with block(), assignments, declarations, calls of kernels, pass"
_REDUCING = ("+", "*", "&", "|", "^")


@dataclass(frozen=True, slots=True)
class _Range:
    """One loop as written: kind, bounds, step, unit."""

    kind: LoopKind
    lo: Expr
    hi: Expr
    step: int
    unit: str | None


class StatementReader:
    """Reads the statements of one kernel."""

    def __init__(self, source: Source, scope: Scope) -> None:
        self.source = source
        self.scope = scope
        self.expressions = ExpressionReader(source, scope)
        self.declarations = DeclarationReader(self.expressions)
        self.calls = CallReader(self.expressions)

    def block(self, nodes: Sequence[ast.stmt]) -> Block:
        """The statements of a suite, in a scope of their own."""
        with self.scope.level():
            return Block(tuple(s for n in nodes for s in self.stmt(n)))

    def stmt(self, node: ast.stmt) -> tuple[Stmt, ...]:
        """The IR statements that one Python statement stands for."""
        with self.source.blame(node):
            match node:
                case ast.For():
                    return self.loop(node)
                case ast.While():
                    self.no_else(node)
                    return (While(self.expressions.condition(node.test), self.block(node.body), self.source.location(node)),)
                case ast.If():
                    return self.branch(node)
                case ast.With():
                    return self.scoped(node)
                case ast.Assign():
                    return self.assign(node)
                case ast.AugAssign():
                    return self.augment(node)
                case ast.AnnAssign():
                    return self.declare(node)
                case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                    return ()
                case ast.Expr(value=ast.Call() as call):
                    return (self.calls.call(call),)
                case ast.Return():
                    raise self.source.error(node, "kernels return nothing", hint="write the result to an argument")
        text = ast.unparse(node).splitlines()[0]
        raise self.source.error(node, f"`{text}` is not a statement of the kernel language", hint=f"allowed: {_STATEMENTS}")

    # control

    def loop(self, node: ast.For) -> tuple[Stmt, ...]:
        self.no_else(node)
        call = node.iter
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise self.source.error(node, f"cannot iterate over `{ast.unparse(call)}`", hint=f"iterate over {_ITERATIONS}")
        if call.func.id == "meta":
            return self.unrolled_now(node, call)
        ranges = [self.range(a) for a in call.args] if call.func.id == "grid" else [self.range(call)]
        targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
        names = [t.id for t in targets if isinstance(t, ast.Name)]
        if len(names) != len(targets) or len(names) != len(ranges):
            raise self.source.error(node, f"{len(targets)} loop variables for {len(ranges)} loops", hint="for i, j in grid(M, N)")
        with self.scope.level():
            variables = [self.loop_variable(node, n) for n in names]
            body = self.block(node.body)
        for v, r in zip(reversed(variables), reversed(ranges), strict=True):
            body = Block((For(v, r.lo, r.hi, body, r.kind, r.step, r.unit, self.source.location(node)),))
        return body.stmts

    def loop_variable(self, node: ast.AST, name: str) -> Var:
        if self.scope.declared(name):
            raise self.source.error(node, f"loop variable {name!r} already means something here", hint="choose another name")
        variable = Var(self.scope.fresh(name))
        self.scope.bind(name, variable)
        return variable

    def range(self, node: ast.expr) -> _Range:
        """``range(hi)``, ``vector(lo, hi, step)``, ``bind("unit", hi)``; a bare extent is a range."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _KINDS:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "grid":
                raise self.source.error(node, "grid inside grid", hint="list the extents in one grid")
            return _Range(LoopKind.SERIAL, ex.idx(0), self.iteration_bound(node), 1, None)
        kind, args, unit = _KINDS[node.func.id], list(node.args), None
        if kind is LoopKind.BIND:
            if not args or not (isinstance(args[0], ast.Constant) and isinstance(args[0].value, str)):
                raise self.source.error(node, f"`{ast.unparse(node)}` names no unit", hint='bind("core", n)')
            unit = args.pop(0).value  # type: ignore[attr-defined]
        if not 1 <= len(args) <= 3 or node.keywords:
            raise self.source.error(node, f"`{ast.unparse(node)}`: a loop takes hi, or lo and hi, or lo, hi and step")
        step = self.expressions.constant_int(args.pop()) if len(args) == 3 else 1
        if step < 1:
            raise self.source.error(node, f"step {step} is not positive", hint="count up and compute the index: n - 1 - i")
        hi = self.iteration_bound(args.pop())
        return _Range(kind, self.iteration_bound(args.pop()) if args else ex.idx(0), hi, step, unit)

    def iteration_bound(self, node: ast.expr) -> Expr:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and self.is_unknown_function(node.func.id):
            raise self.source.error(node, f"cannot iterate over `{ast.unparse(node)}`", hint=f"iterate over {_ITERATIONS}")
        return self.expressions.index(node)

    def is_unknown_function(self, name: str) -> bool:
        return name in ("enumerate", "zip", "reversed", "sorted", "product")

    def unrolled_now(self, node: ast.For, call: ast.Call) -> tuple[Stmt, ...]:
        """``for x in meta(values)``: the body once for each compile-time value."""
        if len(call.args) != 1 or not isinstance(node.target, ast.Name):
            raise self.source.error(node, "a compile-time loop is written for x in meta(values)")
        values = self.expressions.constant(call.args[0])
        if not isinstance(values, (tuple, list, range)):
            raise self.source.error(
                node, f"`{ast.unparse(call.args[0])}` is not a sequence of constants", hint="meta(range(3)) or meta((1, 2, 4))"
            )
        out: list[Stmt] = []
        for v in values:
            with self.scope.level():
                self.scope.bind(node.target.id, v)
                body = self.block(node.body)
            out.extend(body.stmts if not any(isinstance(s, Alloc) for s in body.stmts) else (body,))
        return tuple(out)

    def branch(self, node: ast.If) -> tuple[Stmt, ...]:
        if isinstance(node.test, ast.Call) and isinstance(node.test.func, ast.Name) and node.test.func.id == "meta":
            taken = node.body if self.expressions.value(node.test) else node.orelse
            return tuple(s for n in taken for s in self.stmt(n))
        cond = self.expressions.condition(node.test)
        then = self.block(node.body)
        return (If(cond, then, self.block(node.orelse) if node.orelse else None, self.source.location(node)),)

    def scoped(self, node: ast.With) -> tuple[Stmt, ...]:
        if ast.unparse(node.items[0]) != "block()" or len(node.items) != 1:
            raise self.source.error(
                node, f"`with {ast.unparse(node.items[0])}` is not in the kernel language", hint="with block(): opens a scope"
            )
        return (self.block(node.body),)

    def no_else(self, node: ast.For | ast.While) -> None:
        if node.orelse:
            raise self.source.error(node.orelse[0], "loops have no else in the kernel language")

    # data

    def assign(self, node: ast.Assign) -> tuple[Stmt, ...]:
        if len(node.targets) != 1:
            raise self.source.error(node, "one assignment at a time: a = b = c is not in the kernel language")
        target, value = node.targets[0], node.value
        called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else None
        if isinstance(target, ast.Name) and called == "alloc":
            return (self.allocate(node, target.id, value),)  # type: ignore[arg-type]
        if isinstance(target, ast.Name) and called == "meta":
            self.scope.bind(target.id, self.expressions.value(value))
            return ()
        return (store(self.target(target), self.expressions.number_or_expr(value), loc=self.source.location(node)),)

    def allocate(self, node: ast.stmt, name: str, call: ast.Call) -> Alloc:
        """``t = alloc(f32[4, 16], "reg")``."""
        of = self.declarations.placed(call)
        if self.scope.declared(name):
            raise self.source.error(node, f"{name!r} is declared already", hint="choose another name")
        b = of.buffer(self.scope.fresh(name))
        self.scope.bind(name, b)
        return Alloc(b, self.source.location(node))

    def declare(self, node: ast.AnnAssign) -> tuple[Stmt, ...]:
        """``acc: f32 = 0`` or ``buf: f32[16]``."""
        if not isinstance(node.target, ast.Name):
            raise self.source.error(node, "only names are declared", hint="acc: f32 = 0")
        value = self.expressions.number_or_expr(node.value) if node.value is not None else None
        if self.scope.declared(node.target.id):
            raise self.source.error(node, f"{node.target.id!r} is declared already", hint="choose another name")
        b = self.declarations.annotation(node.annotation).buffer(self.scope.fresh(node.target.id))
        self.scope.bind(node.target.id, b)
        loc = self.source.location(node)
        if value is None:
            return (Alloc(b, loc),)
        if b.shape:
            raise self.source.error(node, f"array {b.name} cannot be set as a whole", hint="declare it, then write a loop")
        return Alloc(b, loc), store(b[()], value, loc=loc)

    def augment(self, node: ast.AugAssign) -> tuple[Stmt, ...]:
        """``x += v`` is a reduction, and so is ``x -= v`` (it adds -v); other operators read and write back."""
        target, value, loc = self.target(node.target), self.expressions.number_or_expr(node.value), self.source.location(node)
        op = OPERATORS.get(type(node.op))
        if op is None:
            raise self.source.error(
                node, f"`{ast.unparse(node)}` is not in the kernel language", hint="use += -= *= /= //= %= &= |= ^= <<= >>="
            )
        if op in _REDUCING:
            return (store(target, value, op, loc),)
        if op == "-":
            return (store(target, -ex.as_expr(value, target.dtype), "+", loc),)
        return (store(target, ex.binary(op, target, value), loc=loc),)

    def target(self, node: ast.expr) -> Load:
        """The element that an assignment writes."""
        match node:
            case ast.Name():
                name, indices = node.id, []
            case ast.Subscript(value=ast.Name(id=name)):
                indices = index_nodes(node)
            case _:
                raise self.source.error(node, f"cannot assign to `{ast.unparse(node)}`", hint="assign to one element: c[i, j] = ...")
        if not self.scope.declared(name):
            raise self.source.error(node, f"{name!r} is not declared", hint=f"declare a local scalar with its type: {name}: f32 = ...")
        b = self.scope.lookup(name)
        if not isinstance(b, Buffer):
            kind = "a loop variable or size" if isinstance(b, Var) else "a compile-time constant"
            raise self.source.error(node, f"cannot assign to {name!r}: it is {kind}")
        if any(isinstance(i, ast.Slice) for i in indices):
            raise self.source.error(node, f"cannot assign to a slice of {name}", hint="write a loop over its elements")
        if indices and not b.shape:
            raise self.source.error(node, f"{name} is a scalar and takes no index", hint=f"write {name} = ...")
        return b[tuple(self.expressions.index(i) for i in indices)]
