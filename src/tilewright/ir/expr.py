"""Expressions: immutable trees, each node knowing its element type.

Build them through the functions at the end (``const``, ``binary``, ``compare``, ``cast`` ...) or
through Python operators on nodes: both infer types, fold constants that are only index
arithmetic, and reject what the language does not allow. Constructors of the dataclasses do no
checking and are for passes that rebuild nodes they took apart.

Equality and hashing are structural: ``==`` compares trees. Use :func:`compare` for the program's
own comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tilewright.ir import types as ty
from tilewright.ir.sizes import apply, choose
from tilewright.ir.types import DType
from tilewright.util.errors import IRTypeError

if TYPE_CHECKING:
    from tilewright.ir.buffer import Buffer

ARITHMETIC = ("+", "-", "*", "/", "//", "%", "min", "max", "&", "|", "^", "<<", ">>")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
#: Operators whose value is known now where both operands are index constants.
_FOLDED = ("+", "-", "*", "//", "%", "min", "max")
#: Mathematical functions: name -> number of arguments. The result has the joined float type.
INTRINSICS: dict[str, int] = {
    **dict.fromkeys(["exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "erf", "sigmoid"], 1),
    **dict.fromkeys(["sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"], 1),
    **dict.fromkeys(["floor", "ceil", "round", "trunc", "abs", "isnan", "isinf"], 1),
    **dict.fromkeys(["pow", "atan2", "fmod", "copysign"], 2),
    "fma": 3,
}
PREDICATES = ("isnan", "isinf")
Number = int | float | bool


class Expr:
    """Base of expression nodes. Python operators build typed nodes; ``==`` is structural."""

    __slots__ = ()
    dtype: DType

    def __add__(self, o: ExprLike) -> Expr:
        return binary("+", self, o)

    def __radd__(self, o: ExprLike) -> Expr:
        return binary("+", o, self)

    def __sub__(self, o: ExprLike) -> Expr:
        return binary("-", self, o)

    def __rsub__(self, o: ExprLike) -> Expr:
        return binary("-", o, self)

    def __mul__(self, o: ExprLike) -> Expr:
        return binary("*", self, o)

    def __rmul__(self, o: ExprLike) -> Expr:
        return binary("*", o, self)

    def __truediv__(self, o: ExprLike) -> Expr:
        return binary("/", self, o)

    def __rtruediv__(self, o: ExprLike) -> Expr:
        return binary("/", o, self)

    def __floordiv__(self, o: ExprLike) -> Expr:
        return binary("//", self, o)

    def __rfloordiv__(self, o: ExprLike) -> Expr:
        return binary("//", o, self)

    def __mod__(self, o: ExprLike) -> Expr:
        return binary("%", self, o)

    def __rmod__(self, o: ExprLike) -> Expr:
        return binary("%", o, self)

    def __and__(self, o: ExprLike) -> Expr:
        return binary("&", self, o)

    def __or__(self, o: ExprLike) -> Expr:
        return binary("|", self, o)

    def __xor__(self, o: ExprLike) -> Expr:
        return binary("^", self, o)

    def __lshift__(self, o: ExprLike) -> Expr:
        return binary("<<", self, o)

    def __rshift__(self, o: ExprLike) -> Expr:
        return binary(">>", self, o)

    def __neg__(self) -> Expr:
        return binary("-", 0, self)

    def __lt__(self, o: ExprLike) -> Expr:
        return compare("<", self, o)

    def __le__(self, o: ExprLike) -> Expr:
        return compare("<=", self, o)

    def __gt__(self, o: ExprLike) -> Expr:
        return compare(">", self, o)

    def __ge__(self, o: ExprLike) -> Expr:
        return compare(">=", self, o)

    def __bool__(self) -> bool:
        raise IRTypeError(
            f"the truth of {self} is only known when the program runs",
            hint="use where(cond, a, b) or an if statement of the kernel language",
        )

    def __str__(self) -> str:
        from tilewright.ir.printer import expr_text

        return expr_text(self)


@dataclass(frozen=True, slots=True, repr=False)
class Const(Expr):
    """A literal. Integers are Python ints (any width), floats Python floats; of fixed point the real value."""

    value: Number
    dtype: DType


@dataclass(frozen=True, slots=True, repr=False)
class Var(Expr):
    """A loop iterator or a symbolic size/knob, identified by its (kernel-unique) name."""

    name: str
    dtype: DType = ty.index


@dataclass(frozen=True, slots=True, repr=False)
class Load(Expr):
    """Element of ``buffer`` at logical ``indices`` (one index expression per dimension)."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    dtype: DType = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", self.buffer.dtype)


@dataclass(frozen=True, slots=True, repr=False)
class Binary(Expr):
    """``a op b`` with op in :data:`ARITHMETIC`; // and % round towards minus infinity, min and max propagate NaN."""

    op: str
    a: Expr
    b: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, repr=False)
class Compare(Expr):
    """``a op b`` with op in :data:`COMPARISONS`, evaluated exactly across types."""

    op: str
    a: Expr
    b: Expr
    dtype: DType = ty.boolean


@dataclass(frozen=True, slots=True, repr=False)
class Logical(Expr):
    """``a and b`` / ``a or b`` on bools, both sides evaluated (no side effects exist)."""

    op: str
    a: Expr
    b: Expr
    dtype: DType = ty.boolean


@dataclass(frozen=True, slots=True, repr=False)
class Not(Expr):
    """Logical negation."""

    a: Expr
    dtype: DType = ty.boolean


@dataclass(frozen=True, slots=True, repr=False)
class Where(Expr):
    """``a if cond else b``: only the chosen side is evaluated (so it may guard a load)."""

    cond: Expr
    a: Expr
    b: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, repr=False)
class Cast(Expr):
    """Conversion: to integers truncates towards zero and wraps; to narrower ints keeps low bits."""

    a: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, repr=False)
class Bitcast(Expr):
    """The same bits read as another type of equal width."""

    a: Expr
    dtype: DType


@dataclass(frozen=True, slots=True, repr=False)
class Intrinsic(Expr):
    """A mathematical function of :data:`INTRINSICS`. ``round`` is half-to-even."""

    name: str
    args: tuple[Expr, ...]
    dtype: DType


ExprLike = Expr | int | float | bool
TRUE, FALSE = Const(True, ty.boolean), Const(False, ty.boolean)


# --- building -------------------------------------------------------------------------------


def const(value: Number, dtype: DType | None = None) -> Const:
    """A literal of ``dtype`` (by default the narrowest that holds it: see literal_type)."""
    dtype = dtype or ty.literal_type(value)
    if dtype.is_float:
        value = float(value)
    elif dtype.kind == ty.BOOL:
        value = bool(value)
    elif not dtype.is_fixed:
        value = int(value)
    return Const(value, dtype)


def idx(value: ExprLike) -> Expr:
    """``value`` as an index expression (ints become index constants)."""
    if isinstance(value, Expr):
        return value if value.dtype.kind == ty.INDEX else cast(value, ty.index)
    return Const(int(value), ty.index)


def as_expr(value: ExprLike, beside: DType | None = None) -> Expr:
    """``value`` as a node; a bare number takes its type from the operand it stands beside."""
    if isinstance(value, Expr):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        raise IRTypeError(f"{value!r} of type {type(value).__name__} is not an expression")
    return const(value, ty.weak_literal_type(value, beside) if beside else ty.literal_type(value))


def _pair(a: ExprLike, b: ExprLike) -> tuple[Expr, Expr]:
    ea = a if isinstance(a, Expr) else as_expr(a, b.dtype if isinstance(b, Expr) else None)
    return ea, as_expr(b, ea.dtype)


def binary(op: str, a: ExprLike, b: ExprLike) -> Expr:
    """``a op b`` with the result type of :func:`types.arithmetic_type`.

    Index arithmetic on constants and its neutral elements are folded here, so that index
    expressions stay small however often passes rebuild them.
    """
    ea, eb = _pair(a, b)
    dtype = ty.arithmetic_type(op, ea.dtype, eb.dtype)
    if dtype.kind == ty.INDEX and (folded := _fold_index(op, ea, eb)) is not None:
        return folded
    return Binary(op, ea, eb, dtype)


def _fold_index(op: str, a: Expr, b: Expr) -> Expr | None:
    if isinstance(a, Const) and isinstance(b, Const) and op in _FOLDED:
        if op in ("//", "%") and b.value == 0:
            raise IRTypeError(f"{a} {op} 0: division by zero in an index")
        return Const(apply(op, int(a.value), int(b.value)), ty.index)
    if isinstance(b, Const):
        if b.value == 0 and op in ("+", "-"):
            return a
        if b.value == 1 and op in ("*", "//"):
            return a
        if (b.value == 0 and op == "*") or (b.value == 1 and op == "%"):
            return Const(0, ty.index)
    if isinstance(a, Const):
        if a.value == 0 and op == "+":
            return b
        if a.value == 1 and op == "*":
            return b
        if a.value == 0 and op in ("*", "//", "%"):
            return Const(0, ty.index)
    return None


def compare(op: str, a: ExprLike, b: ExprLike) -> Expr:
    """The program's comparison ``a op b`` (a bool expression)."""
    ea, eb = _pair(a, b)
    return Compare(op, ea, eb)


def logical(op: str, a: Expr, b: Expr) -> Expr:
    """``a and b`` or ``a or b`` on bool expressions."""
    for e in (a, b):
        if e.dtype.kind != ty.BOOL:
            raise IRTypeError(f"operand {e} of '{op}' has type {e.dtype}", hint="compare it first: x != 0")
    return Logical(op, a, b)


def where(cond: Expr, a: ExprLike, b: ExprLike) -> Expr:
    """``a if cond else b``, in the type that holds both."""
    if cond.dtype.kind != ty.BOOL:
        raise IRTypeError(f"condition {cond} has type {cond.dtype}, not bool")
    ea, eb = _pair(a, b)
    dtype = ea.dtype if ea.dtype == eb.dtype else ty.arithmetic_type("max", ea.dtype, eb.dtype)
    return Where(cond, cast(ea, dtype), cast(eb, dtype), dtype)


def cast(a: ExprLike, dtype: DType) -> Expr:
    """``a`` converted to ``dtype``: itself where it already is; literals now, but for floats to integers and fixed point."""
    e = as_expr(a, dtype if dtype.is_float else None)
    if e.dtype == dtype:
        return e
    if isinstance(e, Const) and not dtype.is_fixed and not e.dtype.is_fixed:
        if dtype.is_float or dtype.kind in (ty.BOOL, ty.INDEX):
            return const(e.value, dtype)
        if not isinstance(e.value, float):
            lo, hi = dtype.range
            return const((int(e.value) - lo) % (hi - lo + 1) + lo, dtype)
    return Cast(e, dtype)


def bitcast(a: Expr, dtype: DType) -> Expr:
    """The bits of ``a`` read as ``dtype`` of the same width."""
    if a.dtype.bits != dtype.bits:
        raise IRTypeError(f"bitcast of {a.dtype} to {dtype}: widths differ")
    return Bitcast(a, dtype)


def intrinsic(name: str, *args: ExprLike) -> Expr:
    """Call of a mathematical function; integer arguments become f32 (``abs`` keeps integers)."""
    if name not in INTRINSICS:
        raise IRTypeError(f"unknown function {name!r}", hint=f"known: {', '.join(INTRINSICS)}")
    if len(args) != INTRINSICS[name]:
        raise IRTypeError(f"{name} takes {INTRINSICS[name]} arguments, got {len(args)}")
    typed = next((a.dtype for a in args if isinstance(a, Expr) and a.dtype.is_float), None)
    exprs = [as_expr(a, typed) for a in args]
    if name == "abs" and not exprs[0].dtype.is_float:
        return Intrinsic(name, tuple(exprs), exprs[0].dtype)
    dtype = exprs[0].dtype
    for e in exprs[1:]:
        dtype = ty.arithmetic_type("+", dtype, e.dtype) if dtype.is_float or e.dtype.is_float else dtype
    if not dtype.is_float:
        dtype = ty.f32
    return Intrinsic(name, tuple(cast(e, dtype) for e in exprs), ty.boolean if name in PREDICATES else dtype)


# --- walking --------------------------------------------------------------------------------


def children(e: Expr) -> tuple[Expr, ...]:
    """Direct sub-expressions, left to right."""
    match e:
        case Var() | Const():  # most nodes
            return ()
        case Load():
            return e.indices
        case Binary() | Compare() | Logical():
            return (e.a, e.b)
        case Where():
            return (e.cond, e.a, e.b)
        case Cast() | Bitcast() | Not():
            return (e.a,)
        case Intrinsic():
            return e.args
    return ()


def walk(e: Expr) -> Iterator[Expr]:
    """All nodes of ``e``, parents before children."""
    left = [e]
    while left:
        e = left.pop()
        yield e
        if kids := children(e):
            left += kids[::-1]


def unconditional(e: Expr) -> Iterator[Expr]:
    """The nodes of ``e`` that are computed whenever ``e`` is: not the alternatives of a choice."""
    yield e
    for c in (e.cond,) if isinstance(e, Where) else children(e):
        yield from unconditional(c)


def rebuild(e: Expr, kids: tuple[Expr, ...]) -> Expr:
    """``e`` with its direct sub-expressions replaced; index arithmetic is folded again."""
    match e:
        case Load():
            return Load(e.buffer, kids)
        case Binary():
            if e.dtype.kind == ty.INDEX:
                folded = _fold_index(e.op, *kids)
                if folded is not None:
                    return folded
            return Binary(e.op, kids[0], kids[1], e.dtype)
        case Compare():
            return Compare(e.op, kids[0], kids[1])
        case Logical():
            return Logical(e.op, kids[0], kids[1])
        case Not():
            return Not(kids[0])
        case Where():
            return Where(kids[0], kids[1], kids[2], e.dtype)
        case Cast():
            return cast(kids[0], e.dtype)
        case Bitcast():
            return Bitcast(kids[0], e.dtype)
        case Intrinsic():
            return Intrinsic(e.name, kids, e.dtype)
    return e


def transform(e: Expr, f: Callable[[Expr], Expr | None]) -> Expr:
    """Bottom-up rewrite: ``f`` sees each node after its children; None keeps the node."""
    kids = children(e)
    if kids:
        new = tuple(transform(c, f) for c in kids)
        if any(n is not o for n, o in zip(new, kids, strict=True)):
            e = rebuild(e, new)
    out = f(e)
    return e if out is None else out


def substitute(e: Expr, env: Mapping[str, Expr]) -> Expr:
    """``e`` with variables replaced by name."""
    if not env:
        return e
    return transform(e, lambda n: env.get(n.name) if isinstance(n, Var) else None)


def free_vars(e: Expr) -> set[str]:
    """Names of the variables in ``e``."""
    return {n.name for n in walk(e) if isinstance(n, Var)}


def conjuncts(e: Expr) -> list[Expr]:
    """The conditions that ``e`` joins by ``and``, left to right; ``e`` itself where it joins none."""
    return [*conjuncts(e.a), *conjuncts(e.b)] if isinstance(e, Logical) and e.op == "and" else [e]


def loads(e: Expr) -> list[Load]:
    """All loads in ``e``, outermost first."""
    return [n for n in walk(e) if isinstance(n, Load)]


def evaluate(e: Expr, env: Mapping[str, Any]) -> Any:
    """Value of an index expression (no loads) with variables bound to ints, NumPy arrays or tensors.

    The one evaluator behind "one formula, many evaluators": everything is expressed with the
    operators of :mod:`tilewright.ir.sizes`.
    """
    match e:
        case Const():
            return e.value
        case Var():
            if e.name not in env:
                raise IRTypeError(f"size or knob {e.name!r} has no value", hint=f"bound are: {', '.join(env) or 'none'}")
            return env[e.name]
        case Binary():
            return apply(e.op, evaluate(e.a, env), evaluate(e.b, env))
        case Compare():
            return apply(e.op, evaluate(e.a, env), evaluate(e.b, env))
        case Logical():
            a, b = evaluate(e.a, env), evaluate(e.b, env)
            return a & b if e.op == "and" else a | b
        case Not():
            a = evaluate(e.a, env)
            return not a if isinstance(a, bool) else ~a
        case Where():
            c, a, b = (evaluate(x, env) for x in (e.cond, e.a, e.b))
            return choose(c, a, b)
        case Cast():
            return evaluate(e.a, env)
    raise IRTypeError(f"{e} cannot be evaluated without running the program")
