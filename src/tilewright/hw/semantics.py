"""Reads the decorated function of an instruction: operands, axes, conditions, and the kernel.

The function is a kernel of the kernel language with declarations in front: ``i, j = axes(...)``
becomes the loop nest around the rest of the body, ``require(...)``, ``value_range(...)`` and
their like become constraints. What remains is read by the language's own front end.
"""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

from tilewright.hw.axis import REDUCTION, SPATIAL, STEP, VECTOR, Axis, AxisRule
from tilewright.hw.constraint import Constraint, Handle, Require
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.lang.frontend import parse
from tilewright.util.errors import Location, MachineError, TilewrightError

_COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
#: Calls that declare a condition; other calls belong to the body.
_CONDITIONS = ("require", "value_range", "mantissa", "tied")


@dataclass(frozen=True, slots=True)
class Semantics:
    """What an instruction's function says."""

    kernel: st.Kernel
    axes: tuple[Axis, ...]
    constraints: tuple[Constraint, ...]


def read_semantics(fn: Callable[..., Any], scope: Mapping[str, Any], *, configures: bool = False) -> Semantics:
    """The semantics of ``fn``; names are looked up in ``scope``, its closure, then its globals.

    ``configures`` allows a body that stores nothing (a setter of state). MachineError names the line.
    """
    return _Reader(fn, scope).read(configures)


class _Reader:
    def __init__(self, fn: Callable[..., Any], scope: Mapping[str, Any]):
        if not isinstance(fn, FunctionType):
            raise MachineError(f"{fn!r} is not a Python function", hint="decorate a function whose body is the semantics")
        closure = inspect.getclosurevars(fn).nonlocals
        self.fn = fn
        self.env: dict[str, Any] = {**fn.__builtins__, **fn.__globals__, **closure, **scope}  # type: ignore[attr-defined]
        linecache.checkcache(fn.__code__.co_filename)
        self.source = linecache.getlines(fn.__code__.co_filename, fn.__globals__)
        tree = _definitions("".join(self.source)).get(fn.__code__.co_firstlineno)
        if tree is None:
            way_out = "declare it with def, in a file"
            raise MachineError(f"the source of instruction {fn.__name__} is not available", hint=way_out)
        self.tree = tree

    def read(self, configures: bool) -> Semantics:
        self.handles = {a.arg: Handle(a.arg, self.rank(a)) for a in self.tree.args.args}
        rules: list[tuple[str, AxisRule]] = []
        constraints: list[Constraint] = []
        body: list[ast.stmt] = []
        for s in self.tree.body:
            if (declared := self.axis_rules(s)) is not None:
                rules += declared
                self.handles |= {n: Handle(n) for n, _ in declared}
            elif (c := self.constraint(s)) is not None:
                constraints.append(c)
            elif not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)) and not isinstance(s, ast.Pass):
                body.append(s)
        if not body and not configures:
            way_out = "its body is its meaning: c[i] += a[i] * b[i]"
            raise self.error(self.tree, f"instruction {self.fn.__name__} stores nothing", hint=way_out)
        kernel = self.kernel(body, rules) if body else st.Kernel(self.fn.__name__, (), st.Block(()), loc=self.location(self.tree))
        stores = [s for s in st.walk(kernel.body) if isinstance(s, st.Store)]
        spatial = {v for s in stores for i in s.indices for v in ex.free_vars(i)}
        axes = tuple(Axis(n, r, SPATIAL if n in spatial else REDUCTION) for n, r in rules)
        return Semantics(kernel, axes, tuple(constraints))

    def kernel(self, body: list[ast.stmt], rules: list[tuple[str, AxisRule]]) -> st.Kernel:
        """The body inside the loops of the axes, read by the kernel language."""
        for name, rule in reversed(rules):
            kind = "vector" if rule.rule in (VECTOR, STEP) else "unroll"
            extent = ast.Call(ast.Name(kind, ast.Load()), [ast.Constant(rule.extent)], [])
            body = [ast.For(ast.Name(name, ast.Store()), extent, body, [])]
        function = ast.FunctionDef(self.fn.__name__, self.tree.args, body, [ast.Name("kernel", ast.Load())])
        try:
            kernel = parse(ast.unparse(ast.fix_missing_locations(function)), **self.env)
        except TilewrightError as e:
            raise self.error(self.blamed(e.location), f"instruction {self.fn.__name__}: {e.message}", hint=e.hint) from e
        for b in kernel.args:
            if not all(isinstance(d, ex.Const) and d.value >= 1 for d in b.shape):
                raise self.error(self.tree, f"operand {b.name}: shape {[str(d) for d in b.shape]} must be positive numbers")
        return kernel.with_(loc=self.location(self.tree))

    def rank(self, a: ast.arg) -> int:
        """Number of dimensions that ``name: dtype[shape] @ memory`` declares."""
        note = a.annotation
        if isinstance(note, ast.Constant) and isinstance(note.value, str):
            note = ast.parse(note.value, mode="eval").body
        if not (isinstance(note, ast.BinOp) and isinstance(note.op, ast.MatMult)):
            way_out = "write name: f32[16] @ MEMORY (a Memory or its name)"
            raise self.error(a, f"operand {a.arg} does not say its type and memory", hint=way_out)
        if not isinstance(note.left, ast.Subscript):
            return 0
        return len(note.left.slice.elts) if isinstance(note.left.slice, ast.Tuple) else 1

    def axis_rules(self, s: ast.stmt) -> list[tuple[str, AxisRule]] | None:
        if not (isinstance(s, ast.Assign) and isinstance(s.value, ast.Call) and _called(s.value) == "axes"):
            return None
        rules = self.eval(s.value)
        target = s.targets[0]
        names = [ast.unparse(t) for t in target.elts] if isinstance(target, ast.Tuple) else [ast.unparse(target)]
        if len(names) != len(rules):
            raise self.error(s, f"{len(names)} axis names for {len(rules)} extents")
        return list(zip(names, rules, strict=True))

    def constraint(self, s: ast.stmt) -> Constraint | None:
        if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Call) and _called(s.value) in _CONDITIONS):
            return None
        if _called(s.value) != "require":
            return self.eval(s.value, self.handles)
        cond = s.value.args[0] if len(s.value.args) == 1 else None
        if not (isinstance(cond, ast.Compare) and len(cond.ops) == 1 and type(cond.ops[0]) in _COMPARE):
            raise self.error(s, "require takes one comparison", hint="write require(stride(b, 1) == 1)")
        a, b = (self.eval(e, self.handles) for e in (cond.left, cond.comparators[0]))
        return Require(ex.compare(_COMPARE[type(cond.ops[0])], a, b), ast.unparse(cond))

    def eval(self, node: ast.expr, extra: Mapping[str, Any] | None = None) -> Any:
        try:
            return eval(compile(ast.Expression(node), self.fn.__code__.co_filename, "eval"), {**self.env, **(extra or {})})
        except MachineError as e:
            raise self.error(node, e.message, hint=e.hint) from e
        except (NameError, TypeError, AttributeError) as e:
            raise self.error(node, f"{ast.unparse(node)}: {e}") from e

    def blamed(self, place: Location | None) -> ast.AST:
        """The user's statement whose text the front end points at (it reads the rewritten function), or the function."""
        text = place.text.strip() if place else ""
        statements = (n for n in ast.walk(self.tree) if isinstance(n, ast.stmt) and n is not self.tree)
        return next((n for n in statements if ast.unparse(n).splitlines()[0] == text), self.tree)

    def location(self, node: ast.AST) -> Location:
        line = getattr(node, "lineno", 1)
        text = self.source[line - 1] if 0 < line <= len(self.source) else ""
        return Location(self.fn.__code__.co_filename, line, text)

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> MachineError:
        return MachineError(message, hint=hint, location=self.location(node))


@cache
def _definitions(text: str) -> dict[int, ast.FunctionDef]:
    """The functions a file defines, by first line (a decorator's, if there is one): a file of many instructions is parsed once."""
    try:
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    except SyntaxError:  # it changed since it was loaded
        return {}
    return {min([n.lineno, *(d.lineno for d in n.decorator_list)]): n for n in functions}


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
