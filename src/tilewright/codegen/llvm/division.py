"""Integer division rounding towards minus infinity.

Division by zero gives an unspecified number, never a trap: lanes that a guard switches off still
divide. Beyond 64 bits the quotient comes from a function of our own, because LLVM would call a routine of
the compiler's runtime library that need not be there.
"""

from __future__ import annotations

from tilewright.codegen.llvm.values import integer_type, splat_text
from tilewright.codegen.llvm.writer import Writer


def floor_division(w: Writer, op: str, x: str, y: str, bits: int, signed: bool, lanes: int, known: bool = False) -> str:
    """Quotient (``//``) or remainder (``%``) of LLVM integers of ``bits``; ``known``: ``y`` is a literal.

    The quotient of the smallest number and -1 wraps.
    """
    if lanes and bits > 64:
        return _each_lane(w, op, x, y, bits, signed, lanes)
    ints, conds = integer_type(bits, lanes), integer_type(1, lanes)

    def c(v: int) -> str:
        return splat_text(f"i{bits}", str(v), lanes)

    if not known or y == c(0):
        y = w.pure(f"select {conds} {w.pure(f'icmp eq {ints} {y}, {c(0)}')}, {ints} {c(1)}, {ints} {y}")
    if not signed:
        return _truncating(w, x, y, bits, False, lanes)[op == "%"]
    if not known or y == c(-1):  # the quotient that overflows, which would trap: negate instead
        minus = w.pure(f"icmp eq {ints} {y}, {c(-1)}")
        safe = w.pure(f"select {conds} {minus}, {ints} {c(1)}, {ints} {y}")
    else:
        minus, safe = "", y
    quo, rem = _truncating(w, x, safe, bits, True, lanes)
    inexact = w.pure(f"icmp ne {ints} {rem}, {c(0)}")
    signs = w.pure(f"xor {ints} {rem}, {safe}")
    fix = w.pure(f"and {conds} {inexact}, {w.pure(f'icmp slt {ints} {signs}, {c(0)}')}")
    if op == "%":
        return w.pure(f"select {conds} {fix}, {ints} {w.pure(f'add {ints} {rem}, {safe}')}, {ints} {rem}")
    quo = w.pure(f"add {ints} {quo}, {w.pure(f'sext {conds} {fix} to {ints}')}")
    if not minus:
        return quo
    return w.pure(f"select {conds} {minus}, {ints} {w.pure(f'sub {ints} {c(0)}, {x}')}, {ints} {quo}")


def _each_lane(w: Writer, op: str, x: str, y: str, bits: int, signed: bool, lanes: int) -> str:
    """One lane after the other: nothing is gained by vectors of wide integers, which LLVM cuts up itself."""
    vec, one = integer_type(bits, lanes), integer_type(bits)
    out = "poison"
    for i in range(lanes):
        a, b = (w.pure(f"extractelement {vec} {v}, i64 {i}") for v in (x, y))
        out = w.pure(f"insertelement {vec} {out}, {one} {floor_division(w, op, a, b, bits, signed, 0)}, i64 {i}")
    return out


def _truncating(w: Writer, x: str, y: str, bits: int, signed: bool, lanes: int) -> tuple[str, str]:
    """(quotient, remainder) rounding towards zero; more than 64 bits only without lanes."""
    ints = integer_type(bits, lanes)
    if bits <= 64:
        kind = "s" if signed else "u"
        return w.pure(f"{kind}div {ints} {x}, {y}"), w.pure(f"{kind}rem {ints} {x}, {y}")
    quo = _wide_quotient(w, x, y, bits, signed)
    return quo, w.pure(f"sub {ints} {x}, {w.pure(f'mul {ints} {quo}, {y}')}")


def _wide_quotient(w: Writer, x: str, y: str, bits: int, signed: bool) -> str:
    """By long division of the magnitudes."""
    symbol, ints = f"tw.udiv.i{bits}", integer_type(bits)
    w.definitions[symbol] = _DIVISION.format(n=bits, top=bits - 1, symbol=symbol)

    def size(v: str) -> str:
        negative = w.pure(f"icmp slt {ints} {v}, 0")
        return w.pure(f"select i1 {negative}, {ints} {w.pure(f'sub {ints} 0, {v}')}, {ints} {v}") if signed else v

    quo = w.pure(f"call {ints} @{symbol}({ints} {size(x)}, {ints} {size(y)})")
    if not signed:
        return quo
    differ = w.pure(f"icmp slt {ints} {w.pure(f'xor {ints} {x}, {y}')}, 0")
    return w.pure(f"select i1 {differ}, {ints} {w.pure(f'sub {ints} 0, {quo}')}, {ints} {quo}")


#: Long division, one bit at a time; operands below 2**(n-1).
_DIVISION = """define internal i{n} @{symbol}(i{n} %x, i{n} %y) noinline nounwind willreturn memory(none) {{
entry:
  br label %loop
loop:
  %i = phi i{n} [ {top}, %entry ], [ %i.next, %loop ]
  %rest = phi i{n} [ 0, %entry ], [ %rest.next, %loop ]
  %quo = phi i{n} [ 0, %entry ], [ %quo.next, %loop ]
  %down = lshr i{n} %x, %i
  %bit = and i{n} %down, 1
  %twice = shl i{n} %rest, 1
  %more = or i{n} %twice, %bit
  %fits = icmp uge i{n} %more, %y
  %less = sub i{n} %more, %y
  %rest.next = select i1 %fits, i{n} %less, i{n} %more
  %one = zext i1 %fits to i{n}
  %place = shl i{n} %one, %i
  %quo.next = or i{n} %quo, %place
  %i.next = sub i{n} %i, 1
  %done = icmp eq i{n} %i, 0
  br i1 %done, label %end, label %loop
end:
  ret i{n} %quo.next
}}
"""
