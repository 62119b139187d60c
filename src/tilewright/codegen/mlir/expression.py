"""Expressions of the program form as arith and math operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilewright.codegen.mlir.builder import I1, INDEX, Builder, Value, element_type, value_type
from tilewright.ir import types as ty
from tilewright.ir.expr import Binary, Bitcast, Cast, Compare, Const, Expr, Intrinsic, Load, Logical, Not, Var, Where, children, walk
from tilewright.ir.types import DType
from tilewright.ir.values import literal
from tilewright.util.errors import CodegenError

_FLOAT = {"+": "addf", "-": "subf", "*": "mulf", "/": "divf", "min": "minimumf", "max": "maximumf"}
_INT = {"+": "addi", "-": "subi", "*": "muli", "&": "andi", "|": "ori", "^": "xori"}
_ORDER = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_MATH = {"abs": "absf", "round": "roundeven", "pow": "powf"}


@dataclass(slots=True)
class Expressions:
    """Emits expressions into ``builder``. ``load`` reads an element, ``variable`` a loop variable or size."""

    builder: Builder
    load: Callable[[Load], Value]
    variable: Callable[[str], Value]

    def value(self, e: Expr) -> Value:
        b = self.builder
        match e:
            case Const():
                stored = literal(e.value, e.dtype)
                return b.constant(float(stored) if e.dtype.is_float else stored, value_type(e.dtype))
            case Var():
                return self.variable(e.name)
            case Load():
                return self.load(e)
            case Binary():
                return self.binary(e.op, self.value(e.a), self.value(e.b), e.a.dtype, e.b.dtype, e.dtype)
            case Compare():
                return self._compare(e)
            case Logical():
                return b.op(f"arith.{e.op}i {self.value(e.a)}, {self.value(e.b)} : i1", I1)
            case Not():
                return b.op(f"arith.xori {self.value(e.a)}, {b.constant(True, I1)} : i1", I1)
            case Where():
                return self._where(e)
            case Cast():
                return self.converted(self.value(e.a), e.a.dtype, e.dtype)
            case Bitcast():
                a, kind = self.value(e.a), value_type(e.dtype)
                return a if kind == a.type else b.op(f"arith.bitcast {a} : {a.type} to {kind}", kind)
            case Intrinsic():
                return self._intrinsic(e)
        raise CodegenError(f"{type(e).__name__} is not an expression of the program form")

    def _where(self, e: Where) -> Value:
        b, kind = self.builder, value_type(e.dtype)
        cond = self.value(e.cond)
        if not any(isinstance(n, Load) or (isinstance(n, Binary) and n.op in ("//", "%")) for x in (e.a, e.b) for n in walk(x)):
            return b.op(f"arith.select {cond}, {self.value(e.a)}, {self.value(e.b)} : {kind}", kind)
        out = Value(b.fresh(), kind)  # only the chosen side may be evaluated
        with b.region(f"{out} = scf.if {cond} -> ({kind})"):
            b.line(f"scf.yield {self.value(e.a)} : {kind}")
            b.depth -= 1
            b.line("} else {")
            b.depth += 1
            b.line(f"scf.yield {self.value(e.b)} : {kind}")
        return out

    # arithmetic

    def binary(self, op: str, a: Value, b: Value, ta: DType, tb: DType, result: DType) -> Value:
        """``a op b`` in the exact result type."""
        kind = value_type(result)
        if result.is_float:
            return self._float(op, self.converted(a, ta, result), self.converted(b, tb, result), kind)
        if result.kind == ty.BOOL:
            return self.builder.op(f"arith.{ {'min': 'andi', 'max': 'ori'}.get(op) or _INT[op] } {a}, {b} : i1", I1)
        if ta.is_fixed or tb.is_fixed:
            frac = max(ta.frac, tb.frac)
            if op == "/":
                wide = DType(ty.INT, max(ta.bits + tb.frac, tb.bits, result.bits) + 2)
                return self._integer("//", self._scaled(a, ta, tb.frac, wide), self.resized(b, tb, wide), wide, result)
            places = (0, 0) if op == "*" else (frac - ta.frac, frac - tb.frac)
            work = DType(ty.INT if result.signed else ty.UINT, max(result.bits, ta.bits + places[0], tb.bits + places[1]))
            return self._integer(op, self._scaled(a, ta, places[0], work), self._scaled(b, tb, places[1], work), work, result)
        work = result
        if op in ("//", "%") and result.kind != ty.INDEX:
            signed = ta.signed or tb.signed
            work = DType(ty.INT if signed else ty.UINT, max(result.bits, ta.bits + 1, tb.bits + 1) + 1)
        if op in ("<<", ">>"):
            return self._shift(op, a, b, ta, tb)
        return self._integer(op, self.resized(a, ta, work), self.resized(b, tb, work), work, result)

    def _integer(self, op: str, a: Value, b: Value, work: DType, result: DType) -> Value:
        o, kind = self.builder, value_type(work)
        sign = "s" if work.signed else "u"
        if op in ("min", "max"):
            out = o.op(f"arith.{op}{sign}i {a}, {b} : {kind}", kind)
        elif op == "//":
            out = o.op(f"arith.{'floordivsi' if work.signed else 'divui'} {a}, {b} : {kind}", kind)
        elif op == "%" and not work.signed:
            out = o.op(f"arith.remui {a}, {b} : {kind}", kind)
        elif op == "%":
            whole = o.op(f"arith.floordivsi {a}, {b} : {kind}", kind)
            back = o.op(f"arith.muli {whole}, {b} : {kind}", kind)
            out = o.op(f"arith.subi {a}, {back} : {kind}", kind)
        else:
            out = o.op(f"arith.{_INT[op]} {a}, {b} : {kind}", kind)
        return self.resized(out, work, result)

    def _shift(self, op: str, a: Value, b: Value, ta: DType, tb: DType) -> Value:
        """Shifts by the width or more empty the value, which MLIR leaves open: they are done in a type that is wide enough."""
        o = self.builder
        wide = DType(ta.kind if ta.kind != ty.BOOL else ty.UINT, max(ta.bits, tb.bits, 8) + 1)
        kind = value_type(wide)
        amount = o.op(f"arith.minui {self.resized(b, tb, wide)}, {o.constant(ta.bits, kind)} : {kind}", kind)
        name = "shli" if op == "<<" else "shrsi" if ta.signed else "shrui"
        return self.resized(o.op(f"arith.{name} {self.resized(a, ta, wide)}, {amount} : {kind}", kind), wide, ta)

    def _float(self, op: str, a: Value, b: Value, kind: str) -> Value:
        o = self.builder
        if op in _FLOAT:
            return o.op(f"arith.{_FLOAT[op]} {a}, {b} : {kind}", kind)
        if op != "%":
            raise CodegenError(f"operator {op} on {kind} in MLIR", hint="write floor(a / b), or emit C or LLVM IR")
        zero = o.constant(0.0, kind)
        rest = o.op(f"arith.remf {a}, {b} : {kind}", kind)
        some = o.op(f"arith.cmpf une, {rest}, {zero} : {kind}", I1)
        signs = [o.op(f"arith.cmpf olt, {x}, {zero} : {kind}", I1) for x in (rest, b)]
        differ = o.op(f"arith.xori {signs[0]}, {signs[1]} : i1", I1)
        moved = o.op(f"arith.addf {rest}, {b} : {kind}", kind)
        signed = o.op(f"math.copysign {rest}, {b} : {kind}", kind)
        other = o.op(f"arith.select {differ}, {moved}, {rest} : {kind}", kind)
        return o.op(f"arith.select {some}, {other}, {signed} : {kind}", kind)

    # conversions

    def resized(self, v: Value, src: DType, dst: DType) -> Value:
        """An integer's low bits, or its extension, in the type of ``dst``."""
        o, kind = self.builder, value_type(dst)
        if v.type == kind:
            return v
        if INDEX in (v.type, kind):
            return o.op(f"arith.index_cast{'' if src.signed else 'ui'} {v} : {v.type} to {kind}", kind)
        name = "trunci" if int(kind[1:]) < int(v.type[1:]) else "extsi" if src.signed else "extui"
        return o.op(f"arith.{name} {v} : {v.type} to {kind}", kind)

    def _scaled(self, v: Value, src: DType, places: int, work: DType) -> Value:
        """``v * 2**places`` in ``work``, rounded towards minus infinity."""
        wide = self.resized(v, src, work)
        if not places:
            return wide
        kind = value_type(work)
        name = "shli" if places > 0 else "shrsi" if src.signed else "shrui"
        return self.builder.op(f"arith.{name} {wide}, {self.builder.constant(min(abs(places), work.bits - 1), kind)} : {kind}", kind)

    def converted(self, v: Value, src: DType, dst: DType) -> Value:
        """``v`` of type ``src`` as a value of ``dst``. A float beyond 64 bits has no integer (in the program form it wraps)."""
        o, kind = self.builder, value_type(dst)
        if src == dst:
            return v
        if dst.kind == ty.BOOL:
            zero = o.constant(0.0 if src.is_float else 0, v.type)
            return o.op(f"arith.cmp{'f une' if src.is_float else 'i ne'}, {v}, {zero} : {v.type}", I1)
        if dst.is_float:
            return self._to_float(v, src, dst, kind)
        if src.is_float:
            if dst.is_fixed:
                v = self.converted(v, src, ty.f64)
                v = o.op(f"arith.mulf {v}, {o.constant(2.0**dst.frac, 'f64')} : f64", "f64")
                v = o.op(f"math.floor {v} : f64", "f64")
            wide = DType(ty.INT, 64)
            return self.resized(o.op(f"arith.fptosi {v} : {v.type} to i64", "i64"), wide, dst)
        if src.frac == dst.frac:
            return self.resized(v, src, dst)
        places = dst.frac - src.frac
        work = DType(ty.INT, max(src.bits + max(places, 0), dst.bits) + 1)
        if dst.is_fixed or places > 0:
            return self.resized(self._scaled(v, src, places, work), work, dst)
        power = o.constant(1 << -places, value_type(work))  # towards zero
        return self.resized(o.op(f"arith.divsi {self.resized(v, src, work)}, {power} : {power.type}", power.type), work, dst)

    def _to_float(self, v: Value, src: DType, dst: DType, kind: str) -> Value:
        o = self.builder
        if src.is_float:
            if src.bits == dst.bits:  # f16 and bf16: through f32, which holds both
                return self.converted(self.converted(v, src, ty.f32), ty.f32, dst)
            return o.op(f"arith.{'extf' if src.bits < dst.bits else 'truncf'} {v} : {v.type} to {kind}", kind)
        if v.type == INDEX:
            v, src = self.resized(v, src, ty.i64), ty.i64
        if src.frac:
            wide = "f64" if dst.bits == 64 or src.bits > 24 else "f32"
            real = o.op(f"arith.{'s' if src.signed else 'u'}itofp {v} : {v.type} to {wide}", wide)
            real = o.op(f"arith.mulf {real}, {o.constant(2.0**-src.frac, wide)} : {wide}", wide)
            return self.converted(real, ty.f64 if wide == "f64" else ty.f32, dst)
        return o.op(f"arith.{'s' if src.signed else 'u'}itofp {v} : {v.type} to {kind}", kind)

    def loaded(self, raw: Value, dtype: DType) -> Value:
        """An element as a value: odd widths lose what is only stored."""
        kind = value_type(dtype)
        return raw if raw.type == kind else self.builder.op(f"arith.trunci {raw} : {raw.type} to {kind}", kind)

    def stored(self, v: Value, dtype: DType) -> Value:
        """A value as an element."""
        kind = element_type(dtype)
        return v if v.type == kind else self.builder.op(f"arith.ext{'s' if dtype.signed else 'u'}i {v} : {v.type} to {kind}", kind)

    # comparisons and functions

    def _compare(self, e: Compare) -> Value:
        o, ta, tb = self.builder, e.a.dtype, e.b.dtype
        a, b = self.value(e.a), self.value(e.b)
        if ta.is_float or tb.is_float:
            if any(not t.is_float and t.bits > 53 for t in (ta, tb)):
                raise CodegenError(f"comparison of {ta} with {tb} in MLIR", hint="convert one of them first")
            joined = ta if ta == tb else ty.f64
            real = {"==": "oeq", "!=": "une"}.get(e.op) or "o" + _ORDER[e.op]
            a, b = self.converted(a, ta, joined), self.converted(b, tb, joined)
            return o.op(f"arith.cmpf {real}, {a}, {b} : {a.type}", I1)
        predicate = {"==": "eq", "!=": "ne"}.get(e.op)
        if ta.kind == tb.kind == ty.INDEX:
            return o.op(f"arith.cmpi {predicate or 's' + _ORDER[e.op]}, {a}, {b} : index", I1)
        frac = max(ta.frac, tb.frac)
        work = DType(ty.INT, max(t.bits + frac - t.frac for t in (ta, tb)) + 1)
        a, b = self._scaled(a, ta, frac - ta.frac, work), self._scaled(b, tb, frac - tb.frac, work)
        return o.op(f"arith.cmpi {predicate or 's' + _ORDER[e.op]}, {a}, {b} : {a.type}", I1)

    def _intrinsic(self, e: Intrinsic) -> Value:
        o, dtype = self.builder, e.args[0].dtype
        args = [self.value(a) for a in e.args]
        kind = value_type(dtype)
        if not dtype.is_float:
            return o.op(f"math.absi {args[0]} : {kind}", kind) if dtype.signed else args[0]
        if e.name == "isnan":
            return o.op(f"arith.cmpf uno, {args[0]}, {args[0]} : {kind}", I1)
        if e.name == "isinf":
            size = o.op(f"math.absf {args[0]} : {kind}", kind)
            return o.op(f"arith.cmpf oeq, {size}, {o.constant(float('inf'), kind)} : {kind}", I1)
        if e.name == "fmod":
            return o.op(f"arith.remf {args[0]}, {args[1]} : {kind}", kind)
        if e.name == "sigmoid":
            one, minus = o.constant(1.0, kind), o.op(f"arith.negf {args[0]} : {kind}", kind)
            total = o.op(f"arith.addf {one}, {o.op(f'math.exp {minus} : {kind}', kind)} : {kind}", kind)
            return o.op(f"arith.divf {one}, {total} : {kind}", kind)
        return o.op(f"math.{_MATH.get(e.name, e.name)} {', '.join(map(str, args))} : {kind}", kind)


def reads(e: Expr) -> list[Load]:
    """Loads of ``e`` that are not inside an index of another one."""
    return [e] if isinstance(e, Load) else [x for c in children(e) for x in reads(c)]
