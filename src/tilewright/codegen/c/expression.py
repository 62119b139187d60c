"""Expressions of the program form as C expressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilewright.codegen.c import prelude
from tilewright.codegen.c.conversion import cast, converted, rounded, scaled, wrapped
from tilewright.codegen.c.scalars import (
    AND,
    ATOM,
    BITS,
    CHOICE,
    DOUBLE,
    EQUAL,
    FLOAT,
    INT,
    OR,
    ORDER,
    PLUS,
    TIMES,
    UNARY,
    CType,
    Value,
    computed,
    constant,
    container,
)
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Bitcast, Cast, Compare, Const, Expr, Intrinsic, Load, Logical, Not, Var, Where
from tilewright.ir.types import DType
from tilewright.util.errors import CodegenError

_LEVEL = {"+": PLUS, "-": PLUS, "*": TIMES, "/": TIMES, "&": BITS, "|": BITS, "^": BITS}
#: Functions whose f32 form is exact or correctly rounded; the others are computed in f64 and rounded once.
_EXACT = frozenset({"sqrt", "floor", "ceil", "trunc", "abs", "fma", "fmod", "copysign", "round"})
_NAMES = {"abs": "fabs", "round": "rint"}


@dataclass(slots=True)
class Expressions:
    """Emits expressions. ``element`` gives the C text of a buffer's element; ``natural`` says that an index is never negative.

    ``used`` collects the helper functions and ``headers`` the headers that the text needs.
    """

    element: Callable[[Load], str]
    variable: Callable[[str], str]
    natural: Callable[[Expr], bool]
    used: dict[str, prelude.Helper] = field(default_factory=dict)
    headers: set[str] = field(default_factory=set)

    def use(self, name: str) -> str:
        """A helper function or a header becomes part of the file."""
        if name.endswith(".h"):
            self.headers.add(name)
            return name
        return self._add(name, prelude.FIXED[name])

    def templated(self, name: str, ctype: CType) -> str:
        """The helper of one type."""
        return self._add(*prelude.templated(name, ctype))

    def _add(self, name: str, helper: prelude.Helper) -> str:
        self.headers.update(helper.headers)
        self.used.setdefault(name, helper)
        return name

    def text(self, e: Expr) -> str:
        """C text of ``e``, not in parentheses."""
        return self.value(e).text

    def narrowed(self, e: Expr, dst: DType) -> Value:
        """``e`` converted to ``dst``. Of a sum or product wider than 64 bits only the low bits are computed where only they are kept."""
        if dst.is_int and dst.bits <= 64 < e.dtype.bits and e.dtype.is_int:
            return wrapped(self._low(e), DType(ty.INT, 66), dst)
        return converted(self.value(e), e.dtype, dst, self.use)

    def _low(self, e: Expr) -> Value:
        """An integer's value modulo 2^64."""
        word = CType("uint", 64)
        plain = isinstance(e, Binary) and all(x.dtype.is_int or x.dtype.kind == ty.BOOL for x in (e.a, e.b))
        if isinstance(e, Binary) and plain and e.dtype.bits > 64 and e.op in ("+", "-", "*", "&", "|", "^"):
            return self._integer(e.op, self._low(e.a), self._low(e.b), word)
        return cast(self.value(e), word)

    def stored(self, e: Expr, dst: DType) -> str:
        """C text of what is put into an element of type ``dst``."""
        return self._element_bits(self.narrowed(e, dst), dst)

    def _element_bits(self, out: Value, dst: DType) -> str:
        """A value as it is stored: f16 and bf16 by their bits."""
        if dst.is_float and dst.bits == 16:
            return f"{self.use('tw_bf16_bits' if dst.kind == ty.BFLOAT else 'tw_f16_bits')}({out.text})"
        return out.text

    def value(self, e: Expr) -> Value:
        match e:
            case Const():
                if e.dtype.is_float:
                    self.use("math.h") if e.value != e.value or e.value in (float("inf"), float("-inf")) else None
                return constant(e.value, e.dtype)
            case Var():
                return Value(self.variable(e.name), ATOM, CType("int", 64))
            case Load():
                return self._load(e)
            case Binary():
                return self._binary(e)
            case Compare():
                return self._compare(e)
            case Logical():
                level, op = (AND, "&&") if e.op == "and" else (OR, "||")
                sides = (self.value(x).at(level if isinstance(x, Logical) and x.op == e.op else AND + 1) for x in (e.a, e.b))
                return Value(f" {op} ".join(sides), level, INT)
            case Not():
                return Value(f"!{self.value(e.a).at(UNARY)}", UNARY, INT)
            case Where():
                return self._where(e)
            case Cast():
                return self.narrowed(e.a, e.dtype)
            case Bitcast():
                return self._bitcast(e)
            case Intrinsic():
                return self._intrinsic(e)
        raise CodegenError(f"{type(e).__name__} is not an expression of the program form")

    def _load(self, e: Load) -> Value:
        text = self.element(e)
        if e.dtype.is_float and e.dtype.bits == 16:
            return Value(f"{self.use('tw_bf16_value' if e.dtype.kind == ty.BFLOAT else 'tw_f16_value')}({text})", ATOM, FLOAT)
        return Value(text, ATOM, computed(e.dtype))

    def _where(self, e: Where) -> Value:
        cond, a, b = (self.value(x) for x in (e.cond, e.a, e.b))
        ctype = max(a.ctype, b.ctype, key=lambda t: (t.bits, t.kind == "uint"))
        a, b = (cast(x, ctype) if x.ctype.kind != ctype.kind else x for x in (a, b))
        return Value(f"{cond.at(OR)} ? {a.at(CHOICE + 1)} : {b.at(CHOICE + 1)}", CHOICE, ctype)

    # arithmetic

    def _general(self, e: Binary) -> Value:
        """``a op b``, exact in the result type."""
        a, b, ta, tb, result, op = self.value(e.a), self.value(e.b), e.a.dtype, e.b.dtype, e.dtype, e.op
        if result.is_float:
            return self._float_binary(op, converted(a, ta, result, self.use), converted(b, tb, result, self.use), result)
        if ta.is_fixed or tb.is_fixed:
            return self._fixed_binary(op, a, b, (ta, tb, result))
        if result.kind == ty.BOOL:
            symbol = {"min": "&", "max": "|"}.get(op, op)
            return Value(f"{a.at(UNARY)} {symbol} {b.at(UNARY)}", BITS, INT)
        match op:
            case "<<":
                word = CType("uint", max(64, container(result.bits)))
                shifted = f"{self.templated('shl', word)}({cast(a, word).text}, {self._amount(b, tb)})"
                return wrapped(Value(shifted, ATOM, word), DType(ty.UINT, word.bits + 1), result)
            case ">>":
                ctype = computed(result)
                return Value(f"{self.templated('shr', ctype)}({a.text}, {self._amount(b, tb)})", ATOM, ctype)
            case "//" | "%":
                return self._divided(op, a, b, (ta, tb, result))
        return self._integer(op, a, b, computed(result))

    @staticmethod
    def _amount(b: Value, dtype: DType) -> str:
        return f"{b.at(CHOICE + 1)} > 4096 ? 4096 : (uint64_t){b.at(UNARY)}" if dtype.bits > 64 else b.text

    def _binary(self, e: Binary) -> Value:
        if e.dtype.kind == ty.INDEX and e.op in ("//", "%") and self.natural(e.a) and self.natural(e.b):
            a, b = self.value(e.a), self.value(e.b)
            return Value(f"{a.at(TIMES)} {'/' if e.op == '//' else '%'} {b.at(UNARY)}", TIMES, CType("int", 64))
        return self._general(e)

    def _integer(self, op: str, a: Value, b: Value, ctype: CType) -> Value:
        """Exact in ``ctype``: one operand is converted if C would compute in another type."""
        if op in ("min", "max"):
            return Value(f"{self.templated(op, ctype)}({a.text}, {b.text})", ATOM, ctype)
        if ctype not in (a.ctype, b.ctype) or CType("uint", ctype.bits) in (a.ctype, b.ctype):
            a, b = cast(a, ctype), b if b.ctype.bits < ctype.bits or b.ctype == ctype else cast(b, ctype)
        level = _LEVEL[op]
        if level == BITS:
            return Value(f"{a.at(UNARY)} {op} {b.at(UNARY)}", BITS, ctype)
        return Value(f"{a.at(level)} {op} {b.at(level + 1)}", level, ctype)

    def _divided(self, op: str, a: Value, b: Value, types: tuple[DType, DType, DType]) -> Value:
        """Rounded towards minus infinity, in a type that holds both operands and the result."""
        ta, tb, result = types
        signed = ta.signed or tb.signed
        bits = max(result.bits, *(t.bits + (signed and not t.signed) for t in (ta, tb)))
        ctype = CType("int" if signed else "uint", max(32, container(bits)))
        if signed:
            name = self.templated("floordiv" if op == "//" else "mod", ctype)
            return Value(f"{name}({a.text}, {b.text})", ATOM, ctype)
        a = cast(a, ctype)
        return Value(f"{a.at(TIMES)} {'/' if op == '//' else '%'} {b.at(UNARY)}", TIMES, ctype)

    def _fixed_binary(self, op: str, a: Value, b: Value, types: tuple[DType, DType, DType]) -> Value:
        ta, tb, result = types
        frac = max(ta.frac, tb.frac)
        if op == "*":
            return self._integer("*", a, b, computed(result))
        if op == "/":
            a = scaled(a, ta.bits, ta.signed, tb.frac)
            plain = DType(ty.INT if ta.signed else ty.UINT, ta.bits + max(tb.frac, 0)), DType(ty.INT if tb.signed else ty.UINT, tb.bits)
            return self._divided("//", a, b, (*plain, DType(ty.INT if result.signed else ty.UINT, result.bits)))
        a, b = scaled(a, ta.bits, ta.signed, frac - ta.frac), scaled(b, tb.bits, tb.signed, frac - tb.frac)
        return self._integer(op, a, b, computed(result))

    def _float_binary(self, op: str, a: Value, b: Value, dtype: DType) -> Value:
        ctype = computed(dtype)
        if op in ("min", "max"):
            return Value(f"{self.templated(op, ctype)}({a.text}, {b.text})", ATOM, ctype)
        if op in ("//", "%"):
            out = Value(f"{self.templated('floordiv' if op == '//' else 'mod', ctype)}({a.text}, {b.text})", ATOM, ctype)
        else:
            level = _LEVEL[op]
            out = Value(f"{a.at(level)} {op} {b.at(level + 1)}", level, ctype)
        return rounded(out, dtype, self.use) if dtype.bits == 16 else out

    # comparisons

    def _compare(self, e: Compare) -> Value:
        a, b, ta, tb = self.value(e.a), self.value(e.b), e.a.dtype, e.b.dtype
        level = EQUAL if e.op in ("==", "!=") else ORDER
        if ta.is_float != tb.is_float:
            return self._with_float(e.op, a, b, ta, tb)
        if not ta.is_float:
            frac = max(ta.frac, tb.frac)
            a, b = scaled(a, ta.bits, ta.signed, frac - ta.frac), scaled(b, tb.bits, tb.signed, frac - tb.frac)
            if a.ctype.kind != b.ctype.kind:
                bits = max(t.bits + frac - t.frac + (not t.signed) for t in (ta, tb))
                wide = CType("int", max(32, container(bits)))
                a, b = (cast(x, wide) if x.ctype.kind == "uint" else x for x in (a, b))
        return Value(f"{a.at(PLUS)} {e.op} {b.at(PLUS)}", level, INT)

    def _with_float(self, op: str, a: Value, b: Value, ta: DType, tb: DType) -> Value:
        """A float with an integer or fixed point: exact. NaN differs from everything."""
        if tb.is_float:
            flipped = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
            return self._with_float(flipped.get(op, op), b, a, tb, ta)
        level = EQUAL if op in ("==", "!=") else ORDER
        if tb.bits <= 53:
            whole = converted(b, tb, ty.f64, self.use)
            return Value(f"{a.at(PLUS)} {op} {whole.at(PLUS)}", level, INT)
        if tb.bits > 127 or tb.frac:
            raise CodegenError(f"comparison of {ta} with {tb} in C", hint="convert one of them first, or use the llvm backend")
        order = f"{self.use('tw_compare')}({b.text}, {a.text})"
        tests = {"<": f"{order} == 1", "<=": f"({order} & ~1) == 0", ">": f"{order} == -1", ">=": f"{order} <= 0"}
        return Value(tests.get(op, f"{order} {op} 0"), ORDER if op == ">=" else EQUAL, INT)

    # functions

    def _bitcast(self, e: Bitcast) -> Value:
        src, dst, v = e.a.dtype, e.dtype, self.value(e.a)
        if src.is_float == dst.is_float and not src.is_float:
            return wrapped(v, DType(ty.INT, src.bits + 1), dst) if src.signed != dst.signed else v
        stored = self._element_bits(v, src)
        if src.bits == 16:
            bits = Value(stored, ATOM if src.is_float else UNARY, CType("uint", 16).promoted)
            if dst.is_float:
                return Value(f"{self.use('tw_bf16_value' if dst.kind == ty.BFLOAT else 'tw_f16_value')}({bits.text})", ATOM, FLOAT)
            return wrapped(bits, ty.u16, dst)
        name = f"tw_bits_{'f' if src.is_float else 'u'}{src.bits}_{'f' if dst.is_float else 'u'}{dst.bits}"
        of, to = (CType("float" if t.is_float else "uint", t.bits) for t in (src, dst))
        body = f"static inline {to} {name}({of} x) {{\n    {to} y;\n    memcpy(&y, &x, sizeof y);\n    return y;\n}}"
        self._add(name, prelude.Helper(body, headers=("string.h",)))
        out = Value(f"{name}({stored})", ATOM, to.promoted)
        return out if dst.is_float else wrapped(out, DType(ty.UINT, dst.bits), dst)

    def _intrinsic(self, e: Intrinsic) -> Value:
        args = [self.value(a) for a in e.args]
        dtype = e.args[0].dtype
        if not dtype.is_float:  # abs of an integer
            ctype = computed(dtype)
            if not dtype.signed:
                return args[0]
            return wrapped(Value(f"{self.templated('abs', ctype)}({args[0].text})", ATOM, ctype), DType(ty.INT, dtype.bits + 1), dtype)
        self.use("math.h")
        if e.name in ("isnan", "isinf"):
            return Value(f"({e.name}({args[0].text}) != 0)", ATOM, INT)
        name = _NAMES.get(e.name, e.name)
        exact = e.name in _EXACT and dtype.bits != 64
        if dtype.bits == 64 or (exact and not (dtype.bits == 16 and e.name == "fma")):
            texts = ", ".join(a.text for a in args)
            out = _call(name if dtype.bits == 64 else name + "f", texts, computed(dtype))
        else:
            texts = ", ".join(cast(a, DOUBLE).text for a in args)
            out = _call(name, texts, DOUBLE)
        return converted(out, ty.f64 if out.ctype == DOUBLE else ty.f32, dtype, self.use) if dtype.bits < 64 else out


def _call(name: str, args: str, ctype: CType) -> Value:
    one = "1.0" if ctype == DOUBLE else "1.0f"
    if name == "rsqrt":
        return Value(f"{one} / sqrt({args})", TIMES, ctype)
    if name == "sigmoid":
        return Value(f"{one} / ({one} + exp(-({args})))", TIMES, ctype)
    return Value(f"{name}({args})", ATOM, ctype)
