"""The golden model: runs a kernel exactly as the program form defines it.

A kernel becomes one Python function that computes with the values of :mod:`tilewright.ir.values`:
integers and fixed point of any width are exact, floats are IEEE in their own type, data nobody
wrote is tracked, and every index is checked. Loops of every kind run in order; instructions are
calls of the kernels that define them; layouts are ignored (indices are logical).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.ir import types as ty
from tilewright.ir.arguments import bind_arguments
from tilewright.ir.expr import Binary, Bitcast, Cast, Compare, Const, Expr, Intrinsic, Load, Logical, Not, Var, Where
from tilewright.ir.printer import stmt_text
from tilewright.ir.stmt import Alloc, Block, Call, For, If, Kernel, Span, Stmt, Store, While, Window, written_buffers
from tilewright.ir.types import DType
from tilewright.ir.values import (
    UNDEFINED,
    bitcaster,
    converter,
    exact,
    fixed_operation,
    floor_divide,
    intrinsic,
    literal,
    maximum,
    minimum,
    modulo,
    shift_left,
    shift_right,
    to_bf16,
)
from tilewright.ir.views import View, allocate, view_array, write_back
from tilewright.util.errors import ExecutionError, IRTypeError, Location

#: CPython refuses functions with more than 20 nested loops: deeper ones go to an inner function.
_MAX_NESTING = 12


def interpret(kernel: Kernel, args: Mapping[str, np.ndarray] | Sequence[np.ndarray], sizes: Mapping[str, int] | None = None) -> None:
    """Run ``kernel`` on arrays, updating them in place.

    ``args``: arrays by argument name, or in argument order, of ``dtype.to_numpy()`` and the
    declared shape (a scalar is a 0-d array). ``sizes``: values of ``kernel.sizes``; those that are
    the extent of an argument may be left out. Arrays stay untouched when the run fails.

    Raises IRTypeError for arguments that do not fit, ExecutionError for what the program does
    wrong: an index out of bounds, an integer division by zero, undefined data stored to an
    argument or used for a decision. The error tells the statement and the loop indices.
    """
    arrays, bound = bind_arguments(kernel, args, sizes)
    views = {b.name: view_array(b, arrays[b.name]) for b in kernel.args}
    program = _Program()
    entry = program.compile(kernel)
    with np.errstate(all="ignore"):
        try:
            entry(*(bound[v.name] for v in kernel.sizes), *(views[b.name] for b in kernel.args))
        except ExecutionError as error:
            raise program.located(error) from None
    for name in sorted(written_buffers(kernel.body)):
        if name in arrays:
            write_back(views[name], kernel.arg(name).dtype, arrays[name])


class _Program:
    """Kernels compiled for one run, and the way from generated lines back to statements."""

    def __init__(self) -> None:
        self.functions: dict[int, Any] = {}
        self.kept: list[Kernel] = []  # keeps kernels alive, so that their ids stay theirs
        self.lines: dict[str, dict[int, Stmt]] = {}

    def compile(self, kernel: Kernel) -> Any:
        if id(kernel) not in self.functions:
            self.kept.append(kernel)
            file = f"<kernel {kernel.name} {len(self.kept)}>"
            emitter = _Emitter(kernel, self)
            try:
                code = compile(emitter.run(), file, "exec")
            except (RecursionError, SyntaxError, MemoryError) as error:  # CPython's limits on nesting
                hint = "split it with local scalars, or raise sys.setrecursionlimit"
                raise IRTypeError(f"{kernel.name}: an expression is nested too deeply for Python ({error})", hint=hint) from None
            self.lines[file] = emitter.origin
            exec(code, emitter.scope)
            self.functions[id(kernel)] = emitter.scope["kernel"]
        return self.functions[id(kernel)]

    def located(self, error: ExecutionError) -> ExecutionError:
        """``error`` with the statement that was running and the values of its loop variables."""
        trace = error.__traceback__
        where: Location | None = None
        notes: list[str] = []
        while trace is not None:
            origin = self.lines.get(trace.tb_frame.f_code.co_filename, {}).get(trace.tb_lineno)
            if origin is not None:
                where = getattr(origin, "loc", None) or where
                indices = [f"{n[2:]}={v}" for n, v in trace.tb_frame.f_locals.items() if n.startswith("v_")]
                notes.append(f"in `{stmt_text(origin).splitlines()[0]}`" + (f" at {', '.join(indices)}" if indices else ""))
            trace = trace.tb_next
        return ExecutionError("\n  ".join([error.message, *reversed(notes)]), hint=error.hint, location=where)


class _Emitter:
    """Python source of one kernel. Names: v_ loop variables and sizes, w_ views, g_/p_ accessors, d_ local scalars."""

    def __init__(self, kernel: Kernel, program: _Program) -> None:
        self.kernel = kernel
        self.program = program
        self.scope: dict[str, Any] = {
            "UNDEFINED": UNDEFINED,
            "minimum": minimum,
            "maximum": maximum,
            "floor_divide": floor_divide,
            "modulo": modulo,
            "shift_right": shift_right,
            "bf16": lambda v: v if v is UNDEFINED else to_bf16(v),
            "number": lambda v: v if v is UNDEFINED else int(v),
            "land": lambda a, b: UNDEFINED if a is UNDEFINED or b is UNDEFINED else a and b,
            "lor": lambda a, b: UNDEFINED if a is UNDEFINED or b is UNDEFINED else a or b,
            "lnot": lambda a: a if a is UNDEFINED else not a,
            "View": View,
            "allocate": allocate,
            "check_shape": _check_shape,
        }
        self.lines: list[str] = []
        self.origin: dict[int, Stmt] = {}
        self.local_scalars: set[str] = set()
        self.counter = itertools.count()
        self.cached: dict[Any, str] = {}

    def run(self) -> str:
        k = self.kernel
        params = [f"v_{v.name}" for v in k.sizes] + [f"w_{b.name}" for b in k.args]
        self.lines.append(f"def kernel({', '.join(params)}):")
        for b in k.args:
            shape = "".join(self.expr(e) + ", " for e in b.shape)
            self.lines.append(f"    check_shape({k.name!r}, w_{b.name}, ({shape}))")
            self.lines.append(f"    g_{b.name}, p_{b.name} = w_{b.name}.accessors()")
        self.block(k.body, 1, 0)
        return "\n".join(self.lines)

    def name_for(self, key: Any, value: Any) -> str:
        """A global of the generated function holding ``value``, one for each ``key``."""
        if key not in self.cached:
            self.cached[key] = f"k{next(self.counter)}"
            self.scope[self.cached[key]] = value
        return self.cached[key]

    # statements

    def line(self, depth: int, text: str, origin: Stmt | None = None) -> None:
        self.lines.append("    " * depth + text)
        if origin is not None:
            self.origin[len(self.lines)] = origin

    def block(self, b: Block, depth: int, nesting: int) -> None:
        if not b.stmts:
            self.line(depth, "pass")
        for s in b.stmts:
            self.stmt(s, depth, nesting)

    def nested(self, b: Block, depth: int, nesting: int) -> None:
        if nesting < _MAX_NESTING:
            self.block(b, depth, nesting + 1)
            return
        inner = f"inner{next(self.counter)}"
        self.line(depth, f"def {inner}():")
        self.block(b, depth + 1, 0)
        self.line(depth, f"{inner}()")

    def stmt(self, s: Stmt, depth: int, nesting: int) -> None:
        match s:
            case Block():
                self.block(s, depth, nesting)
            case Store():
                self.line(depth, self.store(s), s)
            case For():
                self.line(depth, f"for v_{s.name} in range({self.expr(s.lo)}, {self.expr(s.hi)}, {s.step}):", s)
                self.nested(s.body, depth + 1, nesting)
            case While():
                self.line(depth, f"while {self.expr(s.cond)}:", s)
                self.nested(s.body, depth + 1, nesting)
            case If():
                self.line(depth, f"if {self.expr(s.cond)}:", s)
                self.nested(s.then, depth + 1, nesting)
                if s.orelse is not None:
                    self.line(depth, "else:")
                    self.nested(s.orelse, depth + 1, nesting)
            case Alloc():
                self.alloc(s, depth)
            case Call():
                self.line(depth, self.call(s), s)
            case _:
                raise IRTypeError(f"{type(s).__name__} is not a statement of the program form")

    def alloc(self, s: Alloc, depth: int) -> None:
        b = s.buffer
        if not b.shape:
            self.local_scalars.add(b.name)
            self.line(depth, f"d_{b.name} = [UNDEFINED]", s)
            return
        shape = "".join(self.expr(e) + ", " for e in b.shape)
        self.line(depth, f"w_{b.name} = allocate({b.name!r}, ({shape}))", s)
        self.line(depth, f"g_{b.name}, p_{b.name} = w_{b.name}.accessors()", s)

    def store(self, s: Store) -> str:
        target = Load(s.buffer, s.indices)
        value = s.value
        if s.op is not None:
            value = Binary(s.op, target, value, ty.arithmetic_type(s.op, target.dtype, value.dtype))
        text = self.converted(self.expr(value), value.dtype, s.buffer.dtype)
        if s.buffer.name in self.local_scalars:
            return f"d_{s.buffer.name}[0] = {text}"
        return f"p_{s.buffer.name}({', '.join([text, *map(self.expr, s.indices)])})"

    def call(self, s: Call) -> str:
        for w, p in zip(s.args, s.kernel.args, strict=True):
            if w.buffer.dtype != p.dtype:
                raise IRTypeError(f"{s.kernel.name} takes {p.dtype} for {p.name}, but {w} is {w.buffer.dtype}", location=s.loc)
        callee = self.name_for(("callee", id(s.kernel)), self.program.compile(s.kernel))
        args = [self.expr(e) for e in s.sizes]
        args += [self.window(w, p.name) for w, p in zip(s.args, s.kernel.args, strict=True)]
        return f"{callee}({', '.join(args)})"

    def window(self, w: Window, name: str) -> str:
        if w.buffer.name in self.local_scalars:
            return f"View({name!r}, d_{w.buffer.name}, 0, (), (), False)"
        parts = (
            f"({self.expr(i.lo)}, {self.expr(i.extent)}, {i.step}), " if isinstance(i, Span) else f"{self.expr(i)}, " for i in w.indices
        )
        return f"w_{w.buffer.name}.window(({''.join(parts)}), {name!r})"

    # expressions

    def converted(self, text: str, src: DType, dst: DType) -> str:
        f = converter(src, dst)
        return text if f is None else f"{self.name_for(('convert', src, dst), f)}({text})"

    def expr(self, e: Expr) -> str:
        """Python text for the value of ``e``: an atom, or in parentheses."""
        match e:
            case Const():
                value = literal(e.value, e.dtype)
                return repr(value) if isinstance(value, int) and value >= 0 else self.name_for((repr(e.value), e.dtype), value)
            case Var():
                return f"v_{e.name}"
            case Load():
                if e.buffer.name in self.local_scalars:
                    return f"d_{e.buffer.name}[0]"
                return f"g_{e.buffer.name}({', '.join(map(self.expr, e.indices))})"
            case Binary():
                return self.binary(e)
            case Compare():
                return self.compare(e)
            case Logical():
                return f"l{e.op}({self.expr(e.a)}, {self.expr(e.b)})"
            case Not():
                return f"lnot({self.expr(e.a)})"
            case Where():
                t = f"t{next(self.counter)}"
                return f"(UNDEFINED if ({t} := {self.expr(e.cond)}) is UNDEFINED else {self.expr(e.a)} if {t} else {self.expr(e.b)})"
            case Cast():
                return self.converted(self.expr(e.a), e.a.dtype, e.dtype)
            case Bitcast():
                return f"{self.name_for(('bits', e.a.dtype, e.dtype), bitcaster(e.a.dtype, e.dtype))}({self.expr(e.a)})"
            case Intrinsic():
                dtype = e.args[0].dtype if e.name in ("isnan", "isinf") else e.dtype
                return f"{self.name_for((e.name, dtype), intrinsic(e.name, dtype))}({', '.join(map(self.expr, e.args))})"
        raise IRTypeError(f"{type(e).__name__} is not an expression of the program form")

    def compare(self, e: Compare) -> str:
        a, b = self.expr(e.a), self.expr(e.b)
        if e.a.dtype.is_float != e.b.dtype.is_float or e.a.dtype.frac != e.b.dtype.frac:
            a = f"{self.name_for(('exact', e.a.dtype), exact(e.a.dtype))}({a})"
            b = f"{self.name_for(('exact', e.b.dtype), exact(e.b.dtype))}({b})"
        return f"({a} {e.op} {b})"

    def binary(self, e: Binary) -> str:
        a, b = self.expr(e.a), self.expr(e.b)
        if e.dtype.is_float:
            return self.float_binary(e, self.converted(a, e.a.dtype, e.dtype), self.converted(b, e.b.dtype, e.dtype))
        if e.a.dtype.is_fixed or e.b.dtype.is_fixed:
            f = self.name_for((e.op, e.a.dtype, e.b.dtype), fixed_operation(e.op, e.a.dtype, e.b.dtype))
            return f"{f}({a}, {b})"
        if e.dtype.kind != ty.BOOL:  # NumPy's bools would add as "or"
            a = f"number({a})" if e.a.dtype.kind == ty.BOOL else a
            b = f"number({b})" if e.b.dtype.kind == ty.BOOL else b
        match e.op:
            case "+" | "-" | "*" | "&" | "|" | "^":
                return f"({a} {e.op} {b})"
            case "min" | "max":
                return f"{e.op}imum({a}, {b})"
            case "//" | "%" if isinstance(e.b, Const) and e.b.value != 0:
                return f"({a} {e.op} {b})"
            case "//":
                return f"floor_divide({a}, {b})"
            case "%":
                return f"modulo({a}, {b})"
            case ">>":
                return f"shift_right({a}, {b})"
            case "<<":
                return f"{self.name_for(('<<', e.dtype), shift_left(e.dtype))}({a}, {b})"
        raise IRTypeError(f"operator {e.op} is not defined on {e.a.dtype} and {e.b.dtype}")

    @staticmethod
    def float_binary(e: Binary, a: str, b: str) -> str:
        if e.op in ("min", "max"):
            return f"{e.op}imum({a}, {b})"
        return f"bf16({a} {e.op} {b})" if e.dtype.kind == ty.BFLOAT else f"({a} {e.op} {b})"


def _check_shape(kernel: str, view: View, shape: tuple[int, ...]) -> None:
    if view.shape != shape:
        raise ExecutionError(f"{kernel} takes {view.name} of shape {list(shape)}, but is given {list(view.shape)}")
