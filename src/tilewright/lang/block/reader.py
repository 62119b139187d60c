"""Python functions to block IR: compile-time values are evaluated, everything else becomes operations.

Integers, element types, tuples and functions stay Python values until they meet a block. Loops over ``range``
become ``for`` operations that carry the names they assign; a condition of the running program becomes a
predicate of the stores under it and a choice between the values it assigns.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tilewright.lang.block.builder import Builder, constexpr_int
from tilewright.lang.block.counting import trips
from tilewright.lang.block.expressions import Definition, ExpressionReader
from tilewright.lang.block.ir import Function, Op, Region, Value
from tilewright.lang.block.jumps import jumps, live, without_jumps
from tilewright.lang.block.memory import BlockWindow
from tilewright.lang.block.source import BlockError
from tilewright.lang.block.tables import Known, Undetermined
from tilewright.lang.block.vocabulary import Range

_UNROLL_LIMIT = 4096
_ABSENT = object()
#: What to do instead of statements that programs do not have.
_INSTEAD: dict[type[ast.stmt], str] = {
    ast.Try: "nothing is raised while a program runs: check arguments before the launch",
    ast.Raise: "tl.static_assert checks what is known at compile time",
    ast.With: "open what is needed before the launch, and pass arrays",
    ast.FunctionDef: "define it outside, with @tilewright.jit",
    ast.Delete: "names need not be deleted: leave it out",
    ast.Match: "use if and elif",
}


def read(definition: Definition, builder: Builder, arguments: Mapping[str, Any]) -> Function:
    """The block IR of ``definition`` called with ``arguments`` (values of the builder, or compile-time values)."""
    Reader(definition, builder, dict(arguments), depth=0).body(definition.tree.body)
    return builder.function(definition.text.location(definition.tree))


class _Returned(Exception):
    """A ``return`` that is taken."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Reader(ExpressionReader):
    """Reads the statements of one activation of a function."""

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
                self.repeated(s)
            case ast.Break() | ast.Continue():
                raise self.error(
                    s,
                    f"{type(s).__name__.lower()} is not supported here",
                    hint="put it in a loop that is not unrolled, under conditions only",
                )
            case _:
                raise self.error(s, f"{type(s).__name__} statements are not supported in block programs", hint=_INSTEAD.get(type(s)))

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
        self.names = self.merged(test, taken, other)

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

    def merged(self, test: Value, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name in {**a, **b}:
            x, y = a.get(name, _ABSENT), b.get(name, _ABSENT)
            if x is y or (not isinstance(x, Value) and not isinstance(y, Value) and _same(x, y)):
                out[name] = x
            elif x is _ABSENT or y is _ABSENT:
                self.gone[name] = "is only set under a condition of the running program"
            else:
                try:
                    out[name] = self.choice(test, x, y)
                except BlockError as error:  # of no consequence unless it is used
                    self.gone[name] = f"has two values after a condition of the running program: {error.message}"
        return out

    def choice(self, test: Value, x: Any, y: Any) -> Any:
        if isinstance(x, BlockWindow) and isinstance(y, BlockWindow) and x == replace(y, offsets=x.offsets):
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

    def repeated(self, s: ast.While) -> None:
        """A ``while`` loop: counted where its condition allows it."""
        if s.orelse:
            raise self.error(s.orelse[0], "loops have no else in block programs")
        b = self.builder
        mark, names = b.checkpoint(), dict(self.names)
        body = self.without_jumps(s)
        zero = b.value(0)
        loop = self.opened("trip", zero, zero, 1, body, None)
        outer, alive = b.predicate, self.names[live(s)] if body is not s.body else None
        b.predicate = b.both(outer, alive)  # what the condition loads after the end may be outside
        test = self.eval(s.test)
        b.predicate = outer
        if not isinstance(test, Value) and not test:
            b.undo(mark)
            self.names, self.dynamic = names, self.dynamic - 1
            return
        with self.text.blame(s.test):
            if isinstance(test, Value) and test.shape:
                raise BlockError(f"the condition is a block of shape {list(test.shape)}", hint="tl.max reduces it to a number")
            test = b.both(alive, b.truth(test) if isinstance(test, Value) else b.value(True))
            wanted = b.both(b.predicate, test)
        assert test is not None and wanted is not None  # there is a test
        head = len(b.stack[-1])
        self.statements(body)

        def counted(region: Region) -> Value | None:
            with self.text.blame(s.test):
                limit = trips(b, region, loop.op.operands[2:], test)
            if limit is None:
                region.test, region.head = wanted, head
            return limit

        self.closed(s, loop, counted)

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
        body = self.without_jumps(s)
        mark, names, gone, dynamic = b.checkpoint(), dict(self.names), dict(self.gone), self.dynamic
        try:
            loop = self.opened(s.target.id, lo, hi, step, body, s.target.id)
            self.statements(body)
            self.closed(s, loop)
        except Undetermined:
            if isinstance(over.lo, Value) or isinstance(over.hi, Value) or jumps(s.body):
                raise
            b.undo(mark)
            self.names, self.gone, self.dynamic = names, gone, dynamic
            self.unroll(s, range(over.lo, over.hi, step))

    def without_jumps(self, s: ast.For | ast.While) -> list[ast.stmt]:
        """The body of a loop; if it may be left early, under a condition that holds now."""
        if not jumps(s.body):
            return s.body
        self.names[live(s)] = self.builder.value(True)
        return without_jumps(s)

    def opened(self, name: str, lo: Value, hi: Value, step: int, body: list[ast.stmt], variable: str | None) -> _Loop:
        """A loop over what follows, until :meth:`closed`; it carries the names that ``body`` assigns."""
        before = dict(self.names)
        carried = [n for n in _assigned(body) if n in before and n != variable and _carriable(before[n])]
        inits = {n: self.parts(n, before[n]) for n in carried}
        op = self.builder.open_loop(name, lo, hi, step, [p for parts in inits.values() for p in parts])
        assert op.region is not None
        arguments = iter(op.region.arguments)
        for n in carried:
            self.names[n] = _joined(before[n], [next(arguments) for _ in inits[n]])
        if variable is not None:
            self.names[variable] = op.region.variable
        self.dynamic += 1
        return _Loop(op, before, inits, [n for n in _assigned(body) if n in before and n not in carried and n != variable])

    def closed(self, s: ast.For | ast.While, loop: _Loop, trips: Callable[[Region], Value | None] | None = None) -> None:
        self.dynamic -= 1
        self.builder.loc = self.text.location(s)
        for n in [*loop.inits, *loop.others]:
            if n not in self.names:  # merged() says why
                raise self.error(s, f"{n!r} {self.gone[n]}", hint="give it values of one type and shape in the loop")
        yields = []
        with self.text.blame(s):
            for n, parts in loop.inits.items():
                for (_, init), (_, now) in zip(parts, self.parts(n, self.names[n]), strict=True):
                    yields.append(self.kept(n, init, now))
        results = iter(self.builder.close_loop(loop.op, yields, trips))
        after = {n: _joined(loop.before[n], [next(results) for _ in parts]) for n, parts in loop.inits.items()}
        for n in self.names.keys() - loop.before.keys():
            self.gone[n] = "is only set inside a loop"
        changed = [n for n in loop.others if self.names[n] is not loop.before[n]]
        if changed:
            raise self.error(s, f"{changed[0]!r} changes in the loop and is not a block or a number", hint="use tl.static_range")
        self.names = {**loop.before, **after}

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


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop being read: names before it, what each carried one consists of, and names it assigns that cannot be carried."""

    op: Op
    before: dict[str, Any]
    inits: dict[str, list[tuple[str, Value]]]
    others: list[str]


def _assigned(body: list[ast.stmt]) -> list[str]:
    """Names that statements of ``body`` set, in order."""

    def found() -> Iterator[str]:
        for s in body:
            for n in ast.walk(s):
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
                    yield n.id

    return list(dict.fromkeys(found()))


def _carriable(x: Any) -> bool:
    return isinstance(x, (Value, BlockWindow, Known)) or (isinstance(x, (int, float)) and not isinstance(x, bool))


def _joined(like: Any, parts: list[Value]) -> Any:
    return replace(like, offsets=tuple(parts)) if isinstance(like, BlockWindow) else parts[0]


def _same(x: Any, y: Any) -> bool:
    return type(x) is type(y) and bool(x == y)
