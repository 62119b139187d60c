"""Python functions to block IR: compile-time values are evaluated, everything else becomes operations.

Integers, element types, tuples and functions stay Python values until they meet a block. Loops over ``range``
become ``for`` operations that carry the names they assign; a condition of the running program becomes a
predicate of the stores under it and a choice between the values it assigns.
"""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from tilewright.ir.types import DType
from tilewright.lang.block.builder import Builder, constexpr_int
from tilewright.lang.block.ir import Function, Value
from tilewright.lang.block.marks import Mark
from tilewright.lang.block.memory import BlockWindow
from tilewright.lang.block.source import BlockError, Text
from tilewright.lang.block.vocabulary import METHODS, REFUSED, WORDS, Range, bounds
from tilewright.util.errors import LanguageError

BINARY: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.BitAnd: ("&", operator.and_),
    ast.BitOr: ("|", operator.or_),
    ast.BitXor: ("^", operator.xor),
    ast.LShift: ("<<", operator.lshift),
    ast.RShift: (">>", operator.rshift),
}
COMPARE: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
#: Python's own functions that keep their meaning on compile-time values; some have a word for blocks.
PYTHON = {"min": "minimum", "max": "maximum", "abs": "abs", "range": None, "len": None, "float": None, "int": None, "bool": None}
PYTHON |= {"tuple": None, "list": None, "isinstance": None}
_UNROLL_LIMIT = 4096
_ABSENT = object()


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A function as text and tree, with the names it closes over; ``callees`` are read in place."""

    function: Callable[..., Any]
    text: Text
    tree: ast.FunctionDef
    names: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.tree.name


@cache
def program_of(function: Callable[..., Any]) -> Program:
    """The source of ``function``. LanguageError when Python does not have it."""
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or "<unknown>"
    except (OSError, TypeError) as error:
        name = getattr(function, "__name__", repr(function))
        raise LanguageError(f"the source of {name} is not available: {error}", hint="define it in a file") from None
    text = textwrap.dedent("".join(lines))
    shift = len(lines[0]) - len(lines[0].lstrip())
    tree = next((n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)), None)
    if tree is None:
        raise LanguageError(f"{getattr(function, '__name__', function)!r} is not a function defined with def")
    return Program(function, Text(file, tuple(x.rstrip("\n") for x in lines), first, shift), tree, _names(function))


def _names(function: Callable[..., Any]) -> dict[str, Any]:
    assert isinstance(function, FunctionType)
    inside = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            inside[name] = cell.cell_contents
        except ValueError:
            continue
    return {**function.__globals__, **inside}


def read(program: Program, builder: Builder, arguments: Mapping[str, Any]) -> Function:
    """The block IR of ``program`` called with ``arguments`` (values of the builder, or compile-time values)."""
    Reader(program, builder, dict(arguments), depth=0).body(program.tree.body)
    return builder.function(program.text.location(program.tree))


class _Returned(Exception):
    """A ``return`` that is taken."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Reader:
    """Reads one activation of a function."""

    def __init__(self, program: Program, builder: Builder, names: dict[str, Any], depth: int) -> None:
        self.program, self.builder, self.names, self.depth = program, builder, names, depth
        self.text = program.text
        #: Names that were only set in a loop or under a condition, with the reason they have no value.
        self.gone: dict[str, str] = {}
        self.dynamic = 0

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> BlockError:
        return self.text.error(node, message, hint)

    # --- statements -------------------------------------------------------------------------

    def body(self, statements: list[ast.stmt]) -> Any:
        try:
            for s in statements:
                self.statement(s)
        except _Returned as r:
            return r.value
        return None

    def statement(self, s: ast.stmt) -> None:
        self.builder.loc = self.text.location(s)
        match s:
            case ast.Assign():
                value = self.eval(s.value)
                for target in s.targets:
                    self.assign(target, value)
            case ast.AnnAssign():
                if s.value is not None:
                    self.assign(s.target, self.eval(s.value))
            case ast.AugAssign():
                if not isinstance(s.target, ast.Name):
                    raise self.error(s.target, "only names are assigned to", hint="x += 1")
                left = self.name(ast.copy_location(ast.Name(s.target.id, ast.Load()), s.target))
                self.assign(s.target, self.binary(s, s.op, left, self.eval(s.value)))
            case ast.Expr():
                if not isinstance(s.value, ast.Constant):
                    self.eval(s.value)
            case ast.If():
                self.condition(s)
            case ast.For():
                self.loop(s)
            case ast.Return():
                self.returned(s)
            case ast.Assert():
                test = self.eval(s.test)
                if not isinstance(test, Value) and not test:
                    raise self.error(s, "this assertion does not hold")
            case ast.Pass():
                pass
            case ast.While():
                raise self.error(s, "while loops are not supported", hint="for i in range(lo, hi, step): bounds may be run-time values")
            case ast.Break() | ast.Continue():
                raise self.error(s, f"{type(s).__name__.lower()} is not supported", hint="bound the loop, or mask what it does")
            case _:
                raise self.error(s, f"{type(s).__name__} statements are not supported in block programs")

    def assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name():
                if isinstance(value, Value):
                    self.builder.rename(value, target.id)
                self.names[target.id] = value
                self.gone.pop(target.id, None)
            case ast.Tuple() | ast.List():
                if not isinstance(value, (tuple, list)) or len(value) != len(target.elts):
                    raise self.error(target, f"{len(target.elts)} names are assigned something that is no tuple of as many values")
                for t, v in zip(target.elts, value, strict=True):
                    self.assign(t, v)
            case _:
                raise self.error(target, "blocks are values: their elements cannot be assigned", hint="use tl.where, or tl.store to memory")

    def returned(self, s: ast.Return) -> None:
        value = self.eval(s.value) if s.value is not None else None
        if not self.dynamic:
            raise _Returned(value)
        raise self.error(s, "return under a condition of the running program", hint="put the rest under the opposite condition")

    def condition(self, s: ast.If) -> None:
        test = self.eval(s.test)
        if not isinstance(test, Value):
            for t in s.body if test else s.orelse:
                self.statement(t)
            return
        with self.text.blame(s.test):
            if test.shape:
                raise self.error(s.test, f"the condition is a block of shape {list(test.shape)}", hint="use tl.where, or a mask")
            test = self.builder.truth(test)
        if len(s.body) == 1 and isinstance(s.body[0], ast.Return) and not s.orelse and self.depth == 0 and not self.dynamic:
            self.builder.predicate = self.builder.both(self.builder.predicate, self.builder.invert(test))
            return
        before = dict(self.names)
        taken = self.branch(test, s.body, before)
        other = self.branch(self.builder.invert(test), s.orelse, before) if s.orelse else before
        self.names = self.merged(s, test, taken, other)

    def branch(self, test: Value, body: list[ast.stmt], before: dict[str, Any]) -> dict[str, Any]:
        """The names after ``body``, whose effects happen only where ``test`` holds."""
        outer = self.builder.predicate
        self.builder.predicate = self.builder.both(outer, test)
        self.names = dict(before)
        self.dynamic += 1
        for t in body:
            self.statement(t)
        self.dynamic -= 1
        self.builder.predicate = outer
        return self.names

    def merged(self, s: ast.If, test: Value, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name in {**a, **b}:
            x, y = a.get(name, _ABSENT), b.get(name, _ABSENT)
            if x is y or (not isinstance(x, Value) and not isinstance(y, Value) and _same(x, y)):
                out[name] = x
            elif x is _ABSENT or y is _ABSENT:
                self.gone[name] = "is only set under a condition of the running program"
            else:
                with self.text.blame(s):
                    out[name] = self.choice(test, x, y)
        return out

    def choice(self, test: Value, x: Any, y: Any) -> Any:
        if isinstance(x, BlockWindow) and isinstance(y, BlockWindow):
            return replace(x, offsets=tuple(self.choice(test, p, q) for p, q in zip(x.offsets, y.offsets, strict=True)))
        if isinstance(x, Value) and x.type.is_pointer:
            raise BlockError("pointers that depend on a condition cannot be analysed", hint="choose an offset: p + tl.where(c, a, b)")
        return self.builder.where(test, x, y)

    # --- loops ------------------------------------------------------------------------------

    def loop(self, s: ast.For) -> None:
        over = self.eval(s.iter)
        if s.orelse:
            raise self.error(s.orelse[0], "loops have no else in block programs")
        if isinstance(over, (tuple, list)):
            for item in over:
                self.assign(s.target, item)
                self.statements(s.body)
            return
        if not isinstance(over, Range):
            raise self.error(s.iter, f"cannot loop over `{ast.unparse(s.iter)}`", hint="range(lo, hi, step), tl.static_range or a tuple")
        if not isinstance(s.target, ast.Name):
            raise self.error(s.target, "the variable of a loop is one name")
        with self.text.blame(s.iter):
            step = constexpr_int(int(over.step) if isinstance(over.step, int) else over.step, "the step of a range")
            if step < 1:
                raise BlockError(f"the step of a range is {step}", hint="count upwards, and subtract")
        if over.unrolled:
            self.unroll(s, range(over.lo, over.hi, step))
        elif not isinstance(over.lo, Value) and not isinstance(over.hi, Value) and len(range(over.lo, over.hi, step)) == 0:
            return
        else:
            self.counted(s, over, step)

    def statements(self, body: list[ast.stmt]) -> None:
        for t in body:
            self.statement(t)

    def unroll(self, s: ast.For, counts: range) -> None:
        if len(counts) > _UNROLL_LIMIT:
            raise self.error(s.iter, f"tl.static_range would repeat the body {len(counts)} times", hint="use range")
        for i in counts:
            self.assign(s.target, i)
            self.statements(s.body)

    def counted(self, s: ast.For, over: Range, step: int) -> None:
        b = self.builder
        assert isinstance(s.target, ast.Name)  # loop() checked it
        with self.text.blame(s.iter):
            lo, hi = b.value(over.lo), b.value(over.hi)
            if lo.shape or hi.shape:
                raise BlockError("the limits of a range are scalars")
        before = dict(self.names)
        carried = [n for n in _assigned(s.body) if n in before and n != s.target.id and _carriable(before[n])]
        inits = {n: self.parts(n, before[n]) for n in carried}
        op = b.open_loop(s.target.id, lo, hi, step, [p for parts in inits.values() for p in parts])
        assert op.region is not None
        arguments = iter(op.region.arguments)
        for n in carried:
            self.names[n] = _joined(before[n], [next(arguments) for _ in inits[n]])
        self.names[s.target.id] = op.region.variable
        self.dynamic += 1
        self.statements(s.body)
        self.dynamic -= 1
        b.loc = self.text.location(s)
        yields = []
        with self.text.blame(s):
            for n in carried:
                for (_, init), (_, now) in zip(inits[n], self.parts(n, self.names[n]), strict=True):
                    yields.append(self.kept(n, init, now))
        results = iter(b.close_loop(op, yields))
        after = {n: _joined(before[n], [next(results) for _ in inits[n]]) for n in carried}
        for n in self.names.keys() - before.keys():
            self.gone[n] = "is only set inside a loop"
        changed = [n for n in _assigned(s.body) if n in before and n not in carried and n != s.target.id and self.names[n] is not before[n]]
        if changed:
            raise self.error(s, f"{changed[0]!r} changes in the loop and is not a block or a number", hint="use tl.static_range")
        self.names = {**before, **after}

    def parts(self, name: str, x: Any) -> list[tuple[str, Value]]:
        """The values a carried name consists of."""
        if isinstance(x, BlockWindow):
            return [(f"{name}_{d}", self.builder.value(o)) for d, o in enumerate(x.offsets)]
        return [(name, self.builder.value(x))]

    def kept(self, name: str, init: Value, now: Value) -> Value:
        """What the loop carries on must be of the type it started with."""
        if now.shape != init.shape:
            raise BlockError(
                f"{name!r} has shape {list(init.shape)} before the loop and {list(now.shape)} after a pass",
                hint="start it with tl.zeros or tl.full of the final shape",
            )
        if now.type == init.type:
            return now
        if init.type.is_data and now.type.is_data and (init.type.dtype.is_float or not now.type.dtype.is_float):
            return self.builder.cast(now, init.type.dtype)
        raise BlockError(f"{name!r} is {init.type} before the loop and {now.type} after a pass", hint="start it with the type it gets")

    # --- expressions ------------------------------------------------------------------------

    def eval(self, e: ast.expr) -> Any:
        with self.text.blame(e):
            return self._eval(e)

    def _eval(self, e: ast.expr) -> Any:
        match e:
            case ast.Constant():
                return e.value
            case ast.Name():
                return self.name(e)
            case ast.Tuple() | ast.List():
                return tuple(self.eval(x) for x in e.elts)
            case ast.BinOp():
                return self.binary(e, e.op, self.eval(e.left), self.eval(e.right))
            case ast.UnaryOp():
                return self.unary(e, self.eval(e.operand))
            case ast.Compare():
                return self.comparison(e)
            case ast.BoolOp():
                return self.logical(e)
            case ast.IfExp():
                test = self.eval(e.test)
                if isinstance(test, Value):
                    return self.builder.where(test, self.eval(e.body), self.eval(e.orelse))
                return self.eval(e.body if test else e.orelse)
            case ast.Attribute():
                return self.attribute(e, self.eval(e.value))
            case ast.Subscript():
                return self.subscript(e, self.eval(e.value))
            case ast.Call():
                return self.call(e)
            case ast.JoinedStr():
                return ast.unparse(e)
        raise self.error(e, f"`{ast.unparse(e)}` is not supported in block programs")

    def name(self, e: ast.Name) -> Any:
        if e.id in self.names:
            return self.names[e.id]
        if e.id in self.gone:
            raise self.error(e, f"{e.id!r} {self.gone[e.id]}", hint="give it a value before")
        if e.id in self.program.names:
            return self.program.names[e.id]
        if e.id in PYTHON:
            return __builtins__[e.id] if isinstance(__builtins__, dict) else getattr(__builtins__, e.id)
        raise self.error(e, f"{e.id!r} is not defined")

    def binary(self, e: ast.AST, op: ast.operator, a: Any, b: Any) -> Any:
        if type(op) not in BINARY:
            if isinstance(op, ast.Pow) and not isinstance(a, Value) and not isinstance(b, Value):
                return a**b
            raise self.error(e, f"operator {type(op).__name__} is not supported", hint="tl.dot multiplies matrices, tl.exp2 makes powers")
        symbol, plain = BINARY[type(op)]
        if not isinstance(a, Value) and not isinstance(b, Value):
            return self.plain(e, plain, a, b)
        with self.text.blame(e):
            return self.builder.binary(symbol, a, b)

    def plain(self, e: ast.AST, f: Callable[..., Any], *arguments: Any) -> Any:
        """Python's own operation on compile-time values."""
        try:
            return f(*arguments)
        except (TypeError, ValueError, ZeroDivisionError, AttributeError, IndexError) as error:
            raise self.error(e, f"{error}") from None

    def unary(self, e: ast.UnaryOp, a: Any) -> Any:
        if not isinstance(a, Value):
            plain: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
            return self.plain(e, plain.get(type(e.op), operator.invert), a)
        match e.op:
            case ast.USub():
                return (
                    self.builder.binary("-", 0, a) if not a.type.is_data or not a.type.dtype.is_float else self.builder.binary("-", 0.0, a)
                )
            case ast.UAdd():
                return a
        return self.builder.invert(self.builder.truth(a) if isinstance(e.op, ast.Not) else a)

    def comparison(self, e: ast.Compare) -> Any:
        out: Any = None
        left = self.eval(e.left)
        for op, node in zip(e.ops, e.comparators, strict=True):
            right = self.eval(node)
            part = self.compared(e, op, left, right)
            out = (
                part if out is None else self.builder.both(out, part) if isinstance(part, Value) or isinstance(out, Value) else out and part
            )
            left = right
        return out

    def compared(self, e: ast.Compare, op: ast.cmpop, a: Any, b: Any) -> Any:
        if isinstance(op, (ast.Is, ast.IsNot)):
            return (a is b) == isinstance(op, ast.Is)
        if isinstance(op, (ast.In, ast.NotIn)):
            return (a in b) == isinstance(op, ast.In)
        symbol, plain = COMPARE[type(op)]
        if not isinstance(a, Value) and not isinstance(b, Value):
            return self.plain(e, plain, a, b)
        if a is None or b is None or isinstance(a, str) or isinstance(b, str):
            return isinstance(op, ast.NotEq)
        return self.builder.compare(symbol, a, b)

    def logical(self, e: ast.BoolOp) -> Any:
        every = isinstance(e.op, ast.And)
        out: Any = every
        for node in e.values:
            x = self.eval(node)
            if isinstance(x, Value) or isinstance(out, Value):
                if not isinstance(out, Value) and out != every:
                    return out
                x = self.builder.truth(x) if isinstance(x, Value) else self.builder.value(bool(x))
                out = x if not isinstance(out, Value) else self.builder.binary("&" if every else "|", out, x)
            else:
                out = x
                if bool(x) != every:
                    return x
        return out

    def attribute(self, e: ast.Attribute, x: Any) -> Any:
        if isinstance(x, Value):
            match e.attr:
                case "dtype" | "type":
                    return x.type.element
                case "shape":
                    return x.shape
                case "T":
                    return WORDS["trans"](self.builder, x)
            if e.attr in METHODS:
                return _Method(e.attr, METHODS[e.attr], x)
            raise self.error(e, f"blocks have no attribute {e.attr!r}", hint=f"they have dtype, shape, T, {', '.join(sorted(METHODS))}")
        if isinstance(x, BlockWindow) and e.attr in ("dtype", "type"):
            return x.dtype
        if isinstance(x, DType):
            answers = {"is_fp16": x.bits == 16 and x.is_float, "is_floating": x.is_float, "is_int": x.is_int}
            if e.attr in answers:
                value = answers[e.attr]
                return lambda: value
            if e.attr == "primitive_bitwidth":
                return x.bits
            if e.attr in ("scalar", "element_ty"):
                return x
        if hasattr(x, e.attr):
            return getattr(x, e.attr)
        if isinstance(x, (ModuleType, SimpleNamespace)):
            known = ", ".join(sorted(WORDS)) if getattr(x, "__name__", "").endswith("language") else None
            raise self.error(
                e, f"`{ast.unparse(e)}`: there is no {e.attr!r}", hint=f"the words of the language are: {known}" if known else None
            )
        raise self.error(e, f"{type(x).__name__} has no attribute {e.attr!r}")

    def subscript(self, e: ast.Subscript, x: Any) -> Any:
        if not isinstance(x, Value):
            return self.plain(e, operator.getitem, x, self.eval(e.slice))
        parts = e.slice.elts if isinstance(e.slice, ast.Tuple) else [e.slice]
        out, d = x, 0
        for p in parts:
            if isinstance(p, ast.Constant) and p.value is None:
                out = self.builder.expand_dims(out, d)
            elif not (isinstance(p, ast.Slice) and p.lower is None and p.upper is None and p.step is None):
                raise self.error(p, "blocks are indexed with : and None only", hint="load the part you want, or mask and reduce")
            d += 1
        if sum(isinstance(p, ast.Slice) for p in parts) > len(x.shape):
            raise self.error(e, f"{len(parts)} indices for a block of shape {list(x.shape)}")
        return out

    # --- calls ------------------------------------------------------------------------------

    def call(self, e: ast.Call) -> Any:
        f = self.eval(e.func)
        arguments = [v for a in e.args for v in self.positional(a)]
        keywords = {k.arg: self.eval(k.value) for k in e.keywords if k.arg is not None}
        if isinstance(f, _Method):
            return self.word(e, f.word, [f.value, *arguments], keywords)
        if isinstance(f, Mark):
            return self.word(e, f.name, arguments, keywords)
        if (function := getattr(f, "block_function", None)) is not None:
            return self.inlined(e, function, arguments, keywords)
        if isinstance(f, (type(len), type)) and f.__name__ in PYTHON:
            return self.python(e, f, arguments, keywords)
        if not callable(f):
            raise self.error(e, f"`{ast.unparse(e.func)}` cannot be called")
        if any(isinstance(a, Value) for a in (*arguments, *keywords.values())):
            if getattr(f, "__name__", "") == "cdiv":
                return self.word(e, "cdiv", arguments, keywords)
            raise self.error(
                e, f"`{ast.unparse(e.func)}` is an ordinary Python function and cannot take blocks", hint="decorate it with @tilewright.jit"
            )
        return self.plain(e, lambda: f(*arguments, **keywords))

    def positional(self, a: ast.expr) -> tuple[Any, ...]:
        return tuple(self.eval(a.value)) if isinstance(a, ast.Starred) else (self.eval(a),)

    def word(self, e: ast.Call, name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if name in REFUSED:
            raise self.error(e, f"tl.{name} is not supported", hint=f"use {REFUSED[name]}")
        build = WORDS[name]
        keywords = {k: v for k, v in keywords.items() if not (name == "range" and k in ("num_stages", "loop_unroll_factor", "flatten"))}
        try:
            inspect.signature(build).bind(self.builder, *arguments, **keywords)
        except TypeError as error:
            raise self.error(e, f"tl.{name}: {error}") from None
        self.builder.loc = self.text.location(e)
        return build(self.builder, *arguments, **keywords)

    def python(self, e: ast.Call, f: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if f is range:
            return bounds(*arguments)
        blocks = [a for a in arguments if isinstance(a, Value)]
        if f is len and blocks:
            return blocks[0].shape[0] if blocks[0].shape else self.plain(e, len, 0)
        if blocks:
            word = PYTHON[f.__name__]
            if word is None:
                raise self.error(e, f"{f.__name__}() of a block", hint="x.to(tl.float32) converts, tl.load reads")
            return self.word(e, word, arguments, keywords)
        return self.plain(e, lambda: f(*arguments, **keywords))

    def inlined(self, e: ast.Call, function: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if self.depth > 32:
            raise self.error(e, "functions call each other without end", hint="recursion is not supported: use a loop")
        program = program_of(function)
        try:
            bound = inspect.signature(function).bind(*arguments, **keywords)
        except TypeError as error:
            raise self.error(e, f"{program.name}: {error}") from None
        bound.apply_defaults()
        inner = Reader(program, self.builder, dict(bound.arguments), self.depth + 1)
        inner.dynamic = 0
        out = inner.body(program.tree.body)
        self.builder.loc = self.text.location(e)
        return out


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    word: str
    value: Value


def _assigned(body: list[ast.stmt]) -> list[str]:
    """Names that statements of ``body`` set, in order."""

    def found() -> Iterator[str]:
        for s in body:
            for n in ast.walk(s):
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
                    yield n.id

    return list(dict.fromkeys(found()))


def _carriable(x: Any) -> bool:
    return isinstance(x, (Value, BlockWindow)) or (isinstance(x, (int, float)) and not isinstance(x, bool))


def _joined(like: Any, parts: list[Value]) -> Any:
    return replace(like, offsets=tuple(parts)) if isinstance(like, BlockWindow) else parts[0]


def _same(x: Any, y: Any) -> bool:
    return type(x) is type(y) and bool(x == y)
