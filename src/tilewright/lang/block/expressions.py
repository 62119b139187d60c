"""Expressions of block programs: compile-time values are evaluated, what has a block in it is built."""

from __future__ import annotations

import ast
import builtins
import inspect
import operator
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from tilewright.ir.types import DType
from tilewright.lang.block.builder import Builder
from tilewright.lang.block.ir import Value
from tilewright.lang.block.marks import Mark
from tilewright.lang.block.memory import BlockWindow, Descriptor
from tilewright.lang.block.source import BlockError, Text
from tilewright.lang.block.tables import Address, Known, Table, Undetermined
from tilewright.lang.block.vocabulary import DESCRIPTOR_METHODS, METHODS, REFUSED, WORDS, bounds
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
#: What to write instead of expressions that programs do not have.
_INSTEAD: dict[type[ast.expr], str] = {
    ast.Lambda: "write a function with @tilewright.jit",
    ast.ListComp: "loop with tl.static_range, or compute with blocks",
    ast.GeneratorExp: "loop with tl.static_range, or compute with blocks",
    ast.Dict: "use names of their own",
    ast.Set: "use a tuple",
    ast.NamedExpr: "assign on a line of its own",
}


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A function as text and tree, with the names it closes over; ``callees`` are read in place."""

    function: Callable[..., Any]
    text: Text
    tree: ast.FunctionDef
    names: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.tree.name


@cache
def definition_of(function: Callable[..., Any]) -> Definition:
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
    return Definition(function, Text(file, tuple(x.rstrip("\n") for x in lines), first, shift), tree, _names(function))


def _names(function: Callable[..., Any]) -> dict[str, Any]:
    assert isinstance(function, FunctionType)
    inside = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            inside[name] = cell.cell_contents
        except ValueError:
            continue
    return {**function.__globals__, **inside}


class ExpressionReader(ABC):
    """Evaluates expressions of one activation of a function; statements are the subclass's."""

    def __init__(self, definition: Definition, builder: Builder, names: dict[str, Any], depth: int) -> None:
        self.definition, self.builder, self.names, self.depth = definition, builder, names, depth
        self.text = definition.text
        #: Names that were only set in a loop or under a condition, with the reason they have no value.
        self.gone: dict[str, str] = {}
        self.dynamic = 0

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> BlockError:
        return self.text.error(node, message, hint)

    @abstractmethod
    def body(self, statements: list[ast.stmt]) -> Any:
        """Read ``statements``; the value they return."""

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
        raise self.error(e, f"`{ast.unparse(e)}` is not supported in block programs", hint=_INSTEAD.get(type(e)))

    def name(self, e: ast.Name) -> Any:
        if e.id in self.names:
            return self.names[e.id]
        if e.id in self.gone:
            raise self.error(e, f"{e.id!r} {self.gone[e.id]}", hint="give it a value before")
        if e.id in self.definition.names:
            return self.definition.names[e.id]
        if e.id in PYTHON:
            return getattr(builtins, e.id)
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
            if isinstance(a, Table) or isinstance(b, Table):
                hint = "index addresses by constants, or by the variable of a loop whose limits are known at the launch"
                raise Undetermined("which address is loaded is only known when the program runs", hint=hint)
            a, b = (self.builder.value(x) if isinstance(x, Known) else x for x in (a, b))
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
            if e.attr in DESCRIPTOR_METHODS:
                hint = f"tl.{e.attr}(pointer), or pass tilewright.TensorDescriptor.from_tensor(x, block_shape)"
                raise self.error(e, f"{x.type} is no tensor descriptor and has no {e.attr}", hint)
            raise self.error(e, f"blocks have no attribute {e.attr!r}", hint=f"they have dtype, shape, T, {', '.join(sorted(METHODS))}")
        if isinstance(x, Known) and not hasattr(x, e.attr):
            return self.attribute(e, x.pointer)
        if isinstance(x, Address) and e.attr == "to":
            return _Method(e.attr, METHODS[e.attr], x)
        if isinstance(x, Descriptor) and e.attr in DESCRIPTOR_METHODS:
            return _Method(e.attr, DESCRIPTOR_METHODS[e.attr], x)
        if isinstance(x, (int, float)) and e.attr in METHODS:  # the id of the only program is a number, too
            return _Method(e.attr, METHODS[e.attr], x)
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
        out = x
        for d, p in enumerate(parts):
            if isinstance(p, ast.Constant) and p.value is None:
                out = self.builder.expand_dims(out, d)
            elif not (isinstance(p, ast.Slice) and p.lower is None and p.upper is None and p.step is None):
                raise self.error(p, "blocks are indexed with : and None only", hint="load the part you want, or mask and reduce")
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
        arguments = [self.callable(e, a) for a in arguments]
        keywords = {k: self.callable(e, a) for k, a in keywords.items()}
        try:
            inspect.signature(build).bind(self.builder, *arguments, **keywords)
        except TypeError as error:
            raise self.error(e, f"tl.{name}: {error}") from None
        self.builder.loc = self.text.location(e)
        return build(self.builder, *arguments, **keywords)

    def callable(self, e: ast.Call, a: Any) -> Any:
        """Functions of the program that are given to a word are read where it calls them."""
        if (function := getattr(a, "block_function", None)) is not None:
            return lambda *values: self.inlined(e, function, list(values), {})
        return partial(WORDS[a.name], self.builder) if isinstance(a, Mark) and a.name in WORDS else a

    def python(self, e: ast.Call, f: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if f is range:
            return bounds(*arguments)
        if f is isinstance:
            return isinstance(*arguments)
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
        definition = definition_of(function)
        try:
            bound = inspect.signature(function).bind(*arguments, **keywords)
        except TypeError as error:
            raise self.error(e, f"{definition.name}: {error}") from None
        bound.apply_defaults()
        inner = type(self)(definition, self.builder, dict(bound.arguments), self.depth + 1)
        out = inner.body(definition.tree.body)
        self.builder.loc = self.text.location(e)
        return out


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    word: str
    value: Any
