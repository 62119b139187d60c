"""Formulas over symbols: a hash-consed graph, written with Python operators.

Every distinct sub-expression exists once, constants fold while a formula is built, and products
remember their factors (so ``a*b / b`` is ``a``). A :class:`~tilewright.cost.tape.Tape` evaluates them.

Symbols stand for loop extents and machine parameters, which are at least 1; folding uses that.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import reduce, wraps
from typing import Any, TypeVar, cast

from tilewright.ir import expr as ex
from tilewright.ir.expr import Expr
from tilewright.util.errors import IRTypeError

Number = int | float


class Formula:
    """A node of a :class:`Graph`. Operators build nodes; ``==`` and hashing are identity (equal nodes are one)."""

    __slots__ = ("args", "graph", "hi", "is_const", "lo", "number", "op", "product", "value")

    def __init__(self, graph: Graph, number: int, op: str, args: tuple[Formula, ...], value: Any, bounds: tuple[float, float]):
        self.graph, self.number, self.op, self.args, self.value = graph, number, op, args, value
        self.lo, self.hi = bounds
        self.is_const = op == "const"
        #: The factors of what is more than one (that one would refer to itself, and wait for the garbage collector).
        self.product: tuple[Number, tuple[Formula, ...]] | None = (value, ()) if self.is_const else None

    @property
    def factors(self) -> tuple[Number, tuple[Formula, ...]]:
        """Of products: constant part and symbolic factors with multiplicity."""
        return self.product or (1, (self,))

    def __add__(self, o: Formula | Number) -> Formula:
        return self.graph.add(self, o)

    __radd__ = __add__

    def __sub__(self, o: Formula | Number) -> Formula:
        return self.graph.add(self, self.graph.mul(o, -1))

    def __rsub__(self, o: Formula | Number) -> Formula:
        return self.graph.add(o, self.graph.mul(self, -1))

    def __mul__(self, o: Formula | Number) -> Formula:
        return self.graph.mul(self, o)

    __rmul__ = __mul__

    def __truediv__(self, o: Formula | Number) -> Formula:
        return self.graph.div(self, o)

    def __rtruediv__(self, o: Formula | Number) -> Formula:
        return self.graph.div(o, self)

    def __floordiv__(self, o: Formula | Number) -> Formula:
        return self.graph.floordiv(self, o)

    def __mod__(self, o: Formula | Number) -> Formula:
        return self.graph.mod(self, o)

    def __le__(self, o: Formula | Number) -> Formula:
        return self.graph.le(self, o)

    def __ge__(self, o: Formula | Number) -> Formula:
        return self.graph.le(o, self)

    def __gt__(self, o: Formula | Number) -> Formula:
        return self.graph.negate(self.graph.le(self, o))

    def __lt__(self, o: Formula | Number) -> Formula:
        return self.graph.negate(self.graph.le(o, self))

    def __repr__(self) -> str:
        if self.op in ("const", "var"):
            return str(self.value)
        return f"{self.op}({', '.join(map(repr, self.args))})"


Operation = TypeVar("Operation", bound=Callable[..., "Formula"])


def _remembered(operation: Operation) -> Operation:
    """``operation`` of a graph, looked up where it was asked for with the same arguments before.

    Programs of one space ask for most of their formulas again and again, and finding that two products are one takes longer.
    """
    name = operation.__name__

    @wraps(operation)
    def known(self: Graph, *args: Formula | Number) -> Formula:
        key = (name, *args)
        found = self.results.get(key)
        if found is None:
            found = self.results[key] = operation(self, *args)
        return found

    return cast(Operation, known)


class Graph:
    """Builder and owner of formulas. Programs that share a graph share the sub-expressions they have in common.

    ``memo`` keeps what functions of formulas made of their arguments (the key begins with the function's name).
    """

    def __init__(self) -> None:
        self.nodes: list[Formula] = []
        self.memo: dict[tuple[Any, ...], Any] = {}
        self._known: dict[tuple[Any, ...], Formula] = {}
        self._constants: dict[Number, Formula] = {}
        #: What operations made of their arguments.
        self.results: dict[tuple[Any, ...], Formula] = {}

    def clear(self) -> None:
        """Give up all formulas; those that are still used elsewhere remain valid, but can no longer be part of others."""
        self.nodes.clear()
        self.memo.clear()
        self._known.clear()
        self._constants.clear()
        self.results.clear()

    # --- leaves -------------------------------------------------------------------------------

    def const(self, value: Number) -> Formula:
        """The number ``value``; equal numbers are one node."""
        known = self._constants.get(value)
        if known is None:
            number = float(value) if isinstance(value, float) and not value.is_integer() else int(value)
            known = self._constants[value] = self._node("const", (), number)
        return known

    def var(self, name: str, lo: float = 1.0, hi: float = math.inf) -> Formula:
        """A symbol between ``lo`` (at least 1) and ``hi``: what these bounds decide is folded."""
        return self._node("var", (), name, bounds=(lo, hi), key=("var", name, lo, hi))

    def lift(self, value: Formula | Number) -> Formula:
        """``value`` itself where it is a formula, the constant where it is a number."""
        return value if value.__class__ is Formula else self.const(value)  # type: ignore[return-value,arg-type]

    def expr(self, e: Expr, env: Mapping[str, Formula]) -> Formula:
        """An index expression of the IR, variables looked up in ``env`` and otherwise taken as symbols."""
        match e:
            case ex.Const():
                return self.const(int(e.value))
            case ex.Var():
                return env[e.name] if e.name in env else self.var(e.name)
            case ex.Cast():
                return self.expr(e.a, env)
            case ex.Where():
                return self.where(self.expr(e.cond, env), self.expr(e.a, env), self.expr(e.b, env))
            case ex.Binary() if e.op in _BINARY:
                return self.binary(e.op, self.expr(e.a, env), self.expr(e.b, env))
            case ex.Compare() if e.op in ("<", "<=", ">", ">="):
                a, b = self.expr(e.a, env), self.expr(e.b, env)
                return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[e.op]
        raise IRTypeError(f"{e} is not an expression over sizes and knobs", hint="use + - * // % min max, comparisons, where")

    # --- operators ----------------------------------------------------------------------------

    def binary(self, op: str, a: Formula, b: Formula) -> Formula:
        """``a op b`` for an operator of index expressions."""
        return getattr(self, _BINARY[op])(a, b)  # type: ignore[no-any-return]

    @_remembered
    def add(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """``a + b``."""
        a, b = self.lift(a), self.lift(b)
        if a.is_const and b.is_const:
            return self.const(a.value + b.value)
        if a.is_const:
            a, b = b, a
        if b.is_const:
            if b.value == 0:
                return a
            if a.op == "add" and a.args[1].is_const:
                return self.add(a.args[0], a.args[1].value + b.value)
        elif (c := self._common(a, b)) is not None:
            return c
        elif a.number > b.number:
            a, b = b, a
        return self._node("add", (a, b), bounds=(a.lo + b.lo, a.hi + b.hi))

    def subtract(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """``a - b``."""
        return self.add(a, self.mul(b, -1))

    def _common(self, a: Formula, b: Formula) -> Formula | None:
        """``k1*x + k2*x`` is one product."""
        (ka, fa), (kb, fb) = a.factors, b.factors
        return self._product(ka + kb, fa) if fa == fb else None

    @_remembered
    def mul(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """``a * b``."""
        # Most formulas are products: factors are taken as they are kept.
        a, b = self.lift(a), self.lift(b)
        if a.is_const:
            a, b = b, a
        if b.is_const:
            if b.value == 1:
                return a
            if a.is_const:
                return self.const(a.value * b.value)
        (ka, fa), (kb, fb) = a.product or (1, (a,)), b.product or (1, (b,))
        return self._product(ka * kb, tuple(sorted(fa + fb, key=_number)) if fb else fa, (a, b))

    def _product(self, k: Number, factors: tuple[Formula, ...], args: tuple[Formula, Formula] | None = None) -> Formula:
        if k == 0 or not factors:
            return self.const(k)
        if k == 1 and len(factors) == 1:
            return factors[0]
        key = ("mul", k, factors)
        known = self._known.get(key)
        if known is not None:
            return known
        if args is None or any(a.is_const and a.value == 1 for a in args):
            rest = factors[1:] if k == 1 else factors
            args = (factors[0] if k == 1 else self.const(k), self._product(1, rest))
        node = self._node("mul", args, bounds=_product_bounds(*args), key=key)
        node.product = (k, factors)
        return node

    @_remembered
    def div(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """True quotient; factors that both share cancel."""
        a, b = self.lift(a), self.lift(b)
        (ka, fa), (kb, fb) = a.factors, b.factors
        if not fb:
            return self.mul(a, _ratio(1, kb))
        up, down = list(fa), []
        for f in fb:
            if f in up:
                up.remove(f)
            else:
                down.append(f)
        over = self._product(_ratio(ka, kb), tuple(up))
        if not down:
            return over
        under = self._product(1, tuple(down))
        lo = over.lo / under.hi if over.lo >= 0 and under.lo > 0 else -math.inf
        return self._node("div", (over, under), bounds=(lo, _most(over, under)))

    def quotient(self, a: Formula, b: Formula) -> Formula | None:
        """``a / b`` when the factors show that b divides a; None otherwise."""
        (ka, fa), (kb, fb) = a.factors, b.factors
        if kb == 0 or ka % kb or len(fb) > len(fa):
            return None
        rest = list(fa)
        for f in fb:
            if f not in rest:
                return None
            rest.remove(f)
        return self._product(_ratio(ka, kb), tuple(rest))

    @_remembered
    def floordiv(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """``a // b``, rounded down."""
        a, b = self.lift(a), self.lift(b)
        if a.is_const and b.is_const:
            return self.const(a.value // b.value)
        if (q := self.quotient(a, b)) is not None:
            return q
        if a.lo >= 0 and (a.hi < b.lo or (a.op == "add" and a.args[0] is b and a.args[1].is_const and a.args[1].value < 0)):
            return self.const(0)
        if (x := self._rounded_up(a, b)) is not None:
            return self.ceildiv(x, b)
        hi = math.floor(most) if math.isfinite(most := _most(a, b)) else most
        lo = math.floor(a.lo / b.hi) if a.lo >= 0 and math.isfinite(b.hi) else (0.0 if a.lo >= 0 else -math.inf)
        return self._node("floordiv", (a, b), bounds=(lo, hi))

    def _rounded_up(self, a: Formula, b: Formula) -> Formula | None:
        """``x`` where a is x + (b - 1): its floored quotient is x / b rounded up."""
        if a.op != "add":
            return None
        first, second = a.args
        if b.is_const:
            return first if second.is_const and second.value == b.value - 1 else None
        if first is b and second.is_const:
            return self.const(second.value + 1)
        less = self.add(b, -1)
        return second if first is less else first if second is less else None

    @_remembered
    def ceildiv(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """Quotient rounded up."""
        a, b = self.lift(a), self.lift(b)
        if (q := self.quotient(a, b)) is not None:
            return q
        if a.is_const and b.is_const:
            return self.const(-(-a.value // b.value))
        if a.lo > 0 and a.hi <= b.lo:
            return self.const(1)
        lo = math.ceil(a.lo / b.hi) if a.lo > 0 and math.isfinite(b.hi) else (1.0 if a.lo > 0 else 0.0 if a.lo >= 0 else -math.inf)
        hi = math.ceil(most) if math.isfinite(most := _most(a, b)) else most
        return self._node("ceildiv", (a, b), bounds=(lo, hi))

    @_remembered
    def mod(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """``a % b``, of the sign of ``b``."""
        a, b = self.lift(a), self.lift(b)
        if a.is_const and b.is_const:
            return self.const(a.value % b.value)
        if self.quotient(a, b) is not None:
            return self.const(0)
        return a - self.floordiv(a, b) * b

    @_remembered
    def min(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """The smaller of two."""
        return self._extremum("min", self.lift(a), self.lift(b))

    @_remembered
    def max(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """The larger of two."""
        return self._extremum("max", self.lift(a), self.lift(b))

    def _extremum(self, op: str, a: Formula, b: Formula) -> Formula:
        if a is b:
            return a
        if a.hi <= b.lo:
            return a if op == "min" else b
        if b.hi <= a.lo:
            return b if op == "min" else a
        if a.number > b.number:
            a, b = b, a
        pick = min if op == "min" else max
        return self._node(op, (a, b), bounds=(pick(a.lo, b.lo), pick(a.hi, b.hi)))

    @_remembered
    def le(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """Condition a <= b."""
        a, b = self.lift(a), self.lift(b)
        if a is b or a.hi <= b.lo or self._covers(b, a):
            return self.const(1)
        if a.lo > b.hi:
            return self.const(0)
        return self._node("le", (a, b), bounds=(0, 1))

    def _covers(self, b: Formula, a: Formula) -> bool:
        """Whether b is ceil(a / t) * t."""
        return any(f.op == "ceildiv" and f.args[0] is a and self.quotient(b, f) is f.args[1] for f in b.factors[1])

    def equal(self, a: Formula | Number, b: Formula | Number) -> Formula:
        """Condition a == b."""
        return self.both(self.le(a, b), self.le(b, a))

    @_remembered
    def both(self, a: Formula, b: Formula) -> Formula:
        """Condition a and b."""
        for x, y in ((a, b), (b, a)):
            if x.is_const:
                return y if x.value else x
        return a if a is b else self._node("and", (a, b), bounds=(0, 1))

    def negate(self, a: Formula) -> Formula:
        """Condition not a."""
        return self.const(0 if a.value else 1) if a.is_const else self._node("not", (a,), bounds=(0, 1))

    @_remembered
    def where(self, cond: Formula, a: Formula | Number, b: Formula | Number) -> Formula:
        """``a`` where ``cond`` holds, ``b`` elsewhere."""
        a, b = self.lift(a), self.lift(b)
        if cond.is_const:
            return a if cond.value else b
        if a is b:
            return a
        return self._node("where", (cond, a, b), bounds=(min(a.lo, b.lo), max(a.hi, b.hi)))

    def sum(self, terms: Iterable[Formula | Number]) -> Formula:
        """The sum of ``terms``; 0 of none."""
        return reduce(self.add, terms, self.const(0))

    def product(self, terms: Iterable[Formula | Number]) -> Formula:
        """The product of ``terms``; 1 of none."""
        return reduce(self.mul, terms, self.const(1))

    def largest(self, terms: Iterable[Formula | Number]) -> Formula:
        """The largest of ``terms``, and at least 0."""
        return reduce(self.max, terms, self.const(0))

    def _node(
        self,
        op: str,
        args: tuple[Formula, ...],
        value: Any = None,
        bounds: tuple[float, float] | None = None,
        key: tuple[Any, ...] | None = None,
    ) -> Formula:
        key = key or (op, value, args)
        node = self._known.get(key)
        if node is None:
            node = Formula(self, len(self.nodes), op, args, value, bounds or (value, value))
            self.nodes.append(node)
            self._known[key] = node
        return node


_BINARY = {"+": "add", "-": "subtract", "*": "mul", "//": "floordiv", "%": "mod", "min": "min", "max": "max", "/": "div"}


_number = operator.attrgetter("number")


def _product_bounds(a: Formula, b: Formula) -> tuple[float, float]:
    if a.lo > 0 and b.lo > 0:
        return a.lo * b.lo, a.hi * b.hi
    corners = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi) if not (math.isinf(x * y) and 0 in (x, y))]
    return (min(corners), max(corners)) if corners and not any(map(math.isnan, corners)) else (-math.inf, math.inf)


def _most(a: Formula, b: Formula) -> float:
    """The largest value of a / b."""
    return a.hi / (b.lo if a.hi >= 0 else b.hi) if b.lo > 0 else math.inf


def _ratio(a: Number, b: Number) -> Number:
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
