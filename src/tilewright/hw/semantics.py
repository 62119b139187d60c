"""Reads the decorated function of an instruction: operands, axes, conditions, and the kernel.

Declarations (``i, j = axes(...)``, ``require(...)``, ``value_range(...)``) are taken from the
syntax tree, because the names on the left are part of them. The remaining statements are
executed once with operands that record what is stored to them: they are ordinary Python over IR
expressions, so a declaration may loop, call functions and use the machine's parameters.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from tilewright.hw.axis import REDUCTION, SPATIAL, Axis, AxisRule
from tilewright.hw.constraint import Constraint, Handle, Mantissa, Require, Tied, ValueRange
from tilewright.hw.memory import Memory
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.types import DType
from tilewright.util.errors import Location, MachineError, TilewrightError

_COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


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
        try:
            lines, self.first_line = inspect.getsourcelines(fn)
        except OSError as e:
            raise MachineError(f"the source of instruction {fn.__name__} is not available", hint="declare it in a file") from e
        self.source = lines
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
        if not isinstance(tree, ast.FunctionDef):
            raise self.error(tree, "an instruction must be a def")
        self.tree = tree

    def read(self, configures: bool) -> Semantics:
        args = tuple(self.argument(a) for a in self.tree.args.args)
        self.handles = {b.name: Handle(b.name, b.rank) for b in args}
        rules: list[tuple[str, AxisRule]] = []
        constraints: list[Constraint] = []
        body: list[ast.stmt] = []
        for s in self.tree.body:
            if (declared := self.axis_rules(s)) is not None:
                rules += declared
                self.handles |= {n: Handle(n) for n, _ in declared}
            elif (c := self.constraint(s)) is not None:
                constraints.append(c)
            elif not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)):
                body.append(s)
        stores = self.record(body, args, [n for n, _ in rules])
        if not stores and not configures:
            raise self.error(
                self.tree, f"instruction {self.fn.__name__} stores nothing", hint="its body is its meaning: c[i] += a[i] * b[i]"
            )
        outputs = {v for s in stores for i in s.indices for v in ex.free_vars(i)}
        nest = st.block(*stores)
        for name, rule in reversed(rules):
            kind = st.LoopKind.VECTOR if rule.rule in ("vector", "step") else st.LoopKind.UNROLL
            nest = st.block(st.loop(name, 0, rule.extent, nest, kind=kind))
        kernel = st.Kernel(self.fn.__name__, args, nest, loc=self.location(self.tree))
        axes = tuple(Axis(n, r, SPATIAL if n in outputs or not stores else REDUCTION) for n, r in rules)
        return Semantics(kernel, axes, tuple(constraints))

    def argument(self, a: ast.arg) -> Buffer:
        """``name: dtype[shape] @ memory`` (shape ``()`` or no brackets: a scalar)."""
        form = "write name: f32[16] @ MEMORY (a Memory or its name)"
        note = a.annotation
        if isinstance(note, ast.Constant) and isinstance(note.value, str):
            note = ast.parse(note.value, mode="eval").body
        if not (isinstance(note, ast.BinOp) and isinstance(note.op, ast.MatMult)):
            raise self.error(a, f"operand {a.arg} does not say its type and memory", hint=form)
        memory = self.eval(note.right)
        shape: Any = ()
        element = note.left
        if isinstance(element, ast.Subscript):
            shape, element = self.eval(element.slice), element.value
        dtype = self.eval(element)
        if not isinstance(dtype, DType) or not isinstance(memory, (Memory, str)):
            raise self.error(a, f"operand {a.arg}: {ast.unparse(note)} is not an element type, a shape and a memory", hint=form)
        dims = shape if isinstance(shape, tuple) else (shape,)
        if not all(isinstance(d, int) and d >= 1 for d in dims):
            raise self.error(a, f"operand {a.arg}: shape {list(dims)} must be positive ints")
        return buffer(a.arg, dtype, dims, memory.name if isinstance(memory, Memory) else memory)

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
        if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)):
            return None
        call = s.value
        if _called(call) == "require":
            cond = call.args[0]
            if not (isinstance(cond, ast.Compare) and len(cond.ops) == 1 and type(cond.ops[0]) in _COMPARE):
                raise self.error(s, "require takes one comparison", hint="write require(stride(b, 1) == 1)")
            a, b = (self.eval(e, self.handles) for e in (cond.left, cond.comparators[0]))
            return Require(ex.compare(_COMPARE[type(cond.ops[0])], a, b), ast.unparse(cond))
        value = self.eval(call, self.handles)
        if not isinstance(value, (ValueRange, Mantissa, Tied)):
            raise self.error(s, f"{ast.unparse(s)} has no meaning in an instruction", hint="use require, value_range, mantissa or tied")
        return value

    def record(self, body: list[ast.stmt], args: tuple[Buffer, ...], names: list[str]) -> list[st.Store]:
        """Executes ``body`` with recording operands."""
        if not body:
            return []
        stores: list[st.Store] = []
        module = ast.Module(body, [])
        ast.increment_lineno(module, self.first_line - 1)
        env = {**self.env, **{n: ex.Var(n) for n in names}, **{b.name: _Recorder(b, stores) for b in args}}
        try:
            exec(compile(module, self.fn.__code__.co_filename, "exec"), env)
        except MachineError:
            raise
        except TilewrightError as e:
            raise self.error(self.tree, f"instruction {self.fn.__name__}: {e.message}", hint=e.hint) from e
        except (NameError, TypeError, AttributeError) as e:
            raise self.error(self.tree, f"instruction {self.fn.__name__}: {e}", hint="use operands, axes and names that are defined") from e
        return stores

    def eval(self, node: ast.expr, extra: Mapping[str, Any] | None = None) -> Any:
        try:
            return eval(compile(ast.Expression(node), self.fn.__code__.co_filename, "eval"), {**self.env, **(extra or {})})
        except MachineError as e:
            raise self.error(node, e.message, hint=e.hint) from e
        except (NameError, TypeError, AttributeError) as e:
            raise self.error(node, f"{ast.unparse(node)}: {e}") from e

    def location(self, node: ast.AST) -> Location:
        line = getattr(node, "lineno", 1)
        text = self.source[line - 1] if 0 < line <= len(self.source) else ""
        return Location(self.fn.__code__.co_filename, self.first_line + line - 1, text)

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> MachineError:
        return MachineError(message, hint=hint, location=self.location(node))


class _Recorder:
    """An operand during the one execution of a body: loads are expressions, stores are kept.

    ``c[i] += x`` arrives as a store of ``c[i] + x`` and is recorded as the reduction it was.
    """

    def __init__(self, buf: Buffer, stores: list[st.Store]):
        self.buffer = buf
        self.stores = stores

    def __getitem__(self, index: Any) -> ex.Load:
        return self.buffer[index]

    def __setitem__(self, index: Any, value: ex.ExprLike) -> None:
        target = self.buffer[index]
        if isinstance(value, ex.Binary) and value.op in st.REDUCTIONS and value.a == target:
            self.stores.append(st.store(target, value.b, value.op))
        else:
            self.stores.append(st.store(target, value))


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
