"""Expressions: Python syntax trees to typed IR nodes.

A literal or a closed-over constant stays a Python number until it meets a typed operand, which
gives it its type; arithmetic between such numbers happens at compile time.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import reduce
from types import FunctionType, MethodType
from typing import Any

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, ExprLike
from tilewright.ir.sizes import apply
from tilewright.ir.types import DType
from tilewright.lang.scope import Scope
from tilewright.lang.source import Source

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
#: Operators on integers that sizes do not have.
_BITS: dict[str, Callable[[Any, Any], Any]] = {
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": operator.lshift,
    ">>": operator.rshift,
}
_PARAMETRIC: dict[str, Callable[..., DType]] = {"Int": ty.Int, "UInt": ty.UInt, "Fixed": ty.Fixed, "UFixed": ty.UFixed}
_FORMS = "literals, names, buffer elements, arithmetic, comparisons, and/or/not, `a if c else b`, where, min, max, casts like f32(x)"


class ExpressionReader:
    """Reads expressions in the scope of one kernel."""

    def __init__(self, source: Source, scope: Scope) -> None:
        self.source = source
        self.scope = scope

    # what a statement asks for

    def number_or_expr(self, node: ast.expr) -> ExprLike:
        """An expression, or a Python number that has no type yet."""
        v = self.value(node)
        if isinstance(v, Buffer):
            raise self.source.error(node, f"array {v.name} is used as a value", hint=f"read one element of its {v.rank} dimensions")
        if not isinstance(v, (Expr, bool, int, float)):
            raise self.source.error(node, f"`{ast.unparse(node)}` is {type(v).__name__}, not a value of the program")
        return v

    def expr(self, node: ast.expr) -> Expr:
        """A typed expression."""
        return ex.as_expr(self.number_or_expr(node))

    def index(self, node: ast.expr) -> Expr:
        """An index: integers only."""
        v = self.number_or_expr(node)
        floating = isinstance(v, (bool, float)) if not isinstance(v, Expr) else not v.dtype.is_int
        if floating:
            raise self.source.error(
                node, f"`{ast.unparse(node)}` is not an integer", hint="use // to divide indices, or index(x) to convert"
            )
        return ex.idx(v)

    def condition(self, node: ast.expr) -> Expr:
        """A bool expression."""
        e = self.expr(node)
        if e.dtype.kind != ty.BOOL:
            raise self.source.error(node, f"condition `{ast.unparse(node)}` has type {e.dtype}, not bool", hint="compare it: x != 0")
        return e

    def constant(self, node: ast.expr) -> Any:
        """A compile-time value: a number, or a sequence of numbers."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            return range(*(self.constant_int(a) for a in node.args))
        v = self.value(node)
        if isinstance(v, ex.Const):
            return v.value
        if isinstance(v, (Expr, Buffer)):
            raise self.source.error(
                node, f"`{ast.unparse(node)}` is not known at compile time", hint="meta(...) works on constants the kernel closes over"
            )
        return v

    def constant_int(self, node: ast.expr) -> int:
        """A compile-time integer."""
        v = self.constant(node)
        if isinstance(v, bool) or not isinstance(v, int):
            raise self.source.error(node, f"`{ast.unparse(node)}` must be an integer known at compile time, not {v!r}")
        return v

    # values

    def value(self, node: ast.expr) -> Any:
        """The meaning of any expression: Expr, number, Buffer, DType, or another closed-over object."""
        with self.source.blame(node):
            match node:
                case ast.Constant(value=bool() | int() | float() as v):
                    return v
                case ast.Name():
                    return self.name(node)
                case ast.Subscript():
                    return self.subscript(node)
                case ast.BinOp():
                    return self.binop(node)
                case ast.UnaryOp():
                    return self.unary(node)
                case ast.BoolOp():
                    return self.boolean(node)
                case ast.Compare():
                    return self.compare(node)
                case ast.IfExp():
                    return self.conditional(node)
                case ast.Call():
                    return self.call(node)
                case ast.Attribute() if not node.attr.startswith("_"):
                    return self.attribute(node)
                case ast.Tuple() | ast.List():
                    return tuple(self.value(e) for e in node.elts)
        raise self.source.error(node, f"`{ast.unparse(node)}` is not an expression of the kernel language", hint=f"allowed: {_FORMS}")

    def name(self, node: ast.Name) -> Any:
        try:
            found = self.scope.lookup(node.id)
        except KeyError:
            if node.id in ty.NAMED:
                return ty.NAMED[node.id]
            raise self.source.error(node, f"name {node.id!r} is not defined here", hint=f"declared: {self.scope.visible()}") from None
        if isinstance(found, Buffer) and not found.shape:
            return found[()]
        return plain(found)

    def attribute(self, node: ast.Attribute) -> Any:
        owner = self.value(node.value)
        if isinstance(owner, (Expr, Buffer)) or not hasattr(owner, node.attr):
            raise self.source.error(node, f"`{ast.unparse(node.value)}` has no attribute {node.attr!r}")
        return plain(getattr(owner, node.attr))

    def subscript(self, node: ast.Subscript) -> Any:
        base = self.value(node.value)
        if isinstance(base, Buffer):
            parts = index_nodes(node)
            if any(isinstance(p, ast.Slice) for p in parts):
                raise self.source.error(
                    node, f"a slice of {base.name} is not a value", hint="slices are arguments of calls; loop over elements instead"
                )
            return base[tuple(self.index(p) for p in parts)]
        if isinstance(base, Expr):
            return self.bits(node, base)
        if isinstance(base, (tuple, list)):
            return plain(base[self.constant_int(node.slice)])
        raise self.source.error(node, f"`{ast.unparse(node.value)}` cannot be indexed")

    def bits(self, node: ast.Subscript, e: Expr) -> Expr:
        """Bits ``e[lo:hi]`` (hi excluded) or bit ``e[n]`` of an integer, as UInt."""
        if e.dtype.kind not in (ty.INT, ty.UINT):
            raise self.source.error(node, f"`{ast.unparse(node.value)}` of type {e.dtype} has no bits to select")
        if isinstance(node.slice, ast.Slice):
            if node.slice.lower is None or node.slice.upper is None or node.slice.step is not None:
                raise self.source.error(node, "a bit slice is written x[low:high], high excluded")
            lo, hi = self.constant_int(node.slice.lower), self.constant_int(node.slice.upper)
        else:
            lo = self.constant_int(node.slice)
            hi = lo + 1
        if not 0 <= lo < hi <= e.dtype.bits:
            raise self.source.error(node, f"bits {lo}:{hi} are not within the {e.dtype.bits} bits of `{ast.unparse(node.value)}`")
        return ex.cast(e >> lo if lo else e, ty.UInt(hi - lo))

    def binop(self, node: ast.BinOp) -> ExprLike:
        a, b = self.number_or_expr(node.left), self.number_or_expr(node.right)
        if isinstance(node.op, ast.Pow):
            return a**b if not isinstance(a, Expr) and not isinstance(b, Expr) else ex.intrinsic("pow", a, b)
        op = OPERATORS.get(type(node.op))
        if op is None:
            raise self.source.error(
                node, f"operator in `{ast.unparse(node)}` is not defined on scalars", hint="write the loops of a matrix product"
            )
        return self.operate(node, op, a, b)

    def operate(self, node: ast.AST, op: str, a: ExprLike, b: ExprLike) -> ExprLike:
        """``a op b``: now if both are numbers, otherwise in the program."""
        if isinstance(a, Expr) or isinstance(b, Expr):
            return ex.compare(op, a, b) if op in ex.COMPARISONS else ex.binary(op, a, b)
        try:
            return _BITS[op](a, b) if op in _BITS else apply(op, a, b)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise self.source.error(node, f"constant {a!r} {op} {b!r}: {error}") from None

    def unary(self, node: ast.UnaryOp) -> ExprLike:
        v = self.number_or_expr(node.operand)
        match node.op:
            case ast.USub():
                return -v
            case ast.UAdd():
                return v
            case ast.Not():
                return ex.Not(self.condition(node.operand)) if isinstance(v, Expr) else not v
        raise self.source.error(node, "~ needs a width", hint="write x ^ mask")

    def boolean(self, node: ast.BoolOp) -> ExprLike:
        op = "and" if isinstance(node.op, ast.And) else "or"
        values = [self.number_or_expr(v) for v in node.values]
        if not any(isinstance(v, Expr) for v in values):
            return all(values) if op == "and" else any(values)
        return reduce(lambda a, b: ex.logical(op, a, b), (ex.as_expr(v) for v in values))

    def compare(self, node: ast.Compare) -> ExprLike:
        parts = [self.number_or_expr(e) for e in (node.left, *node.comparators)]
        out: list[ExprLike] = []
        for op, a, b in zip(node.ops, parts, parts[1:], strict=False):
            if type(op) not in _COMPARISONS:
                raise self.source.error(node, f"`{ast.unparse(node)}`: only < <= > >= == != compare values")
            out.append(self.operate(node, _COMPARISONS[type(op)], a, b))
        if not any(isinstance(c, Expr) for c in out):
            return all(out)
        return reduce(lambda a, b: ex.logical("and", a, b), (ex.as_expr(c) for c in out))

    def conditional(self, node: ast.IfExp) -> Any:
        cond = self.number_or_expr(node.test)
        if not isinstance(cond, Expr):
            return self.value(node.body if cond else node.orelse)
        return ex.where(cond, self.number_or_expr(node.body), self.number_or_expr(node.orelse))

    # calls

    def call(self, node: ast.Call) -> Any:
        if node.keywords:
            raise self.source.error(node, f"`{ast.unparse(node)}`: functions of the kernel language take no keywords")
        name = node.func.id if isinstance(node.func, ast.Name) else None
        match name:
            case "min" | "max":
                args = [self.number_or_expr(a) for a in node.args]
                if len(args) < 2:
                    raise self.source.error(node, f"{name} takes two or more values", hint="reduce over a loop: x = max(x, a[i])")
                return reduce(lambda a, b: self.operate(node, name, a, b), args)
            case "where":
                self.arity(node, 3)
                return ex.where(self.condition(node.args[0]), *(self.number_or_expr(a) for a in node.args[1:]))
            case "cast" | "bitcast":
                self.arity(node, 2)
                dtype = self.dtype(node.args[1])
                return ex.bitcast(self.expr(node.args[0]), dtype) if name == "bitcast" else self.cast(node.args[0], dtype)
            case "meta":
                self.arity(node, 1)
                return self.constant(node.args[0])
            case "len" if len(node.args) == 1 and isinstance(v := self.value(node.args[0]), (tuple, list)):
                return len(v)
        if name in _PARAMETRIC:
            return _PARAMETRIC[name](*(self.constant_int(a) for a in node.args))
        if name in ex.INTRINSICS:
            return self.intrinsic(node, name)
        callee = ty.NAMED[name] if name in ty.NAMED else self.value(node.func)
        if isinstance(callee, DType):
            self.arity(node, 1)
            return self.cast(node.args[0], callee)
        if isinstance(callee, (FunctionType, MethodType)):
            return self.written(node, callee)
        raise self.source.error(
            node,
            f"`{ast.unparse(node.func)}` is not a function on values",
            hint=f"known: min, max, where, cast, bitcast, meta, types, {', '.join(ex.INTRINSICS)}; kernels are called as statements",
        )

    def written(self, node: ast.Call, function: Callable[..., Any]) -> ExprLike:
        """What a Python function makes of expressions: it runs now, and what it returns takes the place of the call."""
        try:
            made = plain(function(*(self.number_or_expr(a) for a in node.args)))
        except TypeError as error:
            raise self.source.error(node, f"`{ast.unparse(node)}`: {error}", hint="functions take and return expressions") from error
        if not isinstance(made, (Expr, bool, int, float)):
            hint = "return an expression of the arguments; a kernel is called as a statement"
            raise self.source.error(node, f"`{ast.unparse(node.func)}` returns {type(made).__name__}, which is no expression", hint=hint)
        return made

    def arity(self, node: ast.Call, n: int) -> None:
        if len(node.args) != n:
            raise self.source.error(node, f"`{ast.unparse(node.func)}` takes {n} argument{'s' * (n > 1)}, got {len(node.args)}")

    def intrinsic(self, node: ast.Call, name: str) -> ExprLike:
        args = [self.number_or_expr(a) for a in node.args]
        if name == "abs" and len(args) == 1 and not isinstance(args[0], Expr):
            return abs(args[0])
        return ex.intrinsic(name, *args)

    def cast(self, node: ast.expr, dtype: DType) -> Expr:
        """``T(x)``; a number becomes a literal of that type."""
        v = self.number_or_expr(node)
        if isinstance(v, Expr):
            return ex.cast(v, dtype)
        if not dtype.is_float and not dtype.is_fixed:
            if isinstance(v, float) and not v.is_integer():
                raise self.source.error(node, f"{v} is not a value of {dtype}")
            lo, hi = dtype.range
            if not lo <= v <= hi:
                raise self.source.error(node, f"{v} is outside {dtype} ({lo} to {hi})")
        return ex.const(v, dtype)

    def dtype(self, node: ast.expr) -> DType:
        """An element type (a loop variable called i8 does not hide the type i8)."""
        v = ty.NAMED[node.id] if isinstance(node, ast.Name) and node.id in ty.NAMED else self.value(node)
        if not isinstance(v, DType):
            raise self.source.error(
                node,
                f"`{ast.unparse(node)}` is not an element type",
                hint=f"types: {', '.join(ty.NAMED)}, Int(n), UInt(n), Fixed(n, f), UFixed(n, f)",
            )
        return v


def plain(v: Any) -> Any:
    """NumPy scalars as the Python numbers they hold."""
    return v.item() if hasattr(v, "item") and getattr(v, "ndim", None) == 0 else v


def index_nodes(node: ast.Subscript) -> list[ast.expr]:
    """The indices written between the brackets."""
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
