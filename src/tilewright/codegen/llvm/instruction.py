"""Calls of machine instructions that declare LLVM text: operands as flat vectors, one call."""

from __future__ import annotations

import itertools
from typing import Any

from tilewright.codegen.llvm import access
from tilewright.codegen.llvm.expression import poly
from tilewright.codegen.llvm.frame import Frame
from tilewright.codegen.llvm.index import Poly
from tilewright.codegen.llvm.values import memory_type
from tilewright.ir.stmt import Call, Span, Window
from tilewright.util.errors import CodegenError


def declared(machine: Any, call: Call) -> Any | None:
    """The machine's instruction that ``call`` names, if it has LLVM text and the call is of its full size."""
    from tilewright.hw.emit import LLVM

    name = call.kernel.instruction
    if name is None:
        return None
    for i in getattr(machine, "instructions", ()):
        if i.kernel.instruction == name and isinstance(i.emit, LLVM) and i.kernel.args == call.kernel.args:
            return i
    return None


def emit_call(f: Frame, s: Call) -> None:
    """Load every operand, call the instruction's function, store its result."""
    from tilewright.hw.llvm_text import function

    instr = declared(f.module.machine, s)
    if instr is None:
        raise CodegenError(f"call of {s.kernel.name} was not inlined", hint="emit() inlines calls before anything else")
    fn = function(instr)
    for text in fn.declares:
        f.module.declares[text] = text
    f.module.definitions[fn.symbol] = fn.definition
    operands = [(_elements(f, w), w) for w in s.args]
    args = [f"{kind} {_gathered(f, w, offsets, kind)}" for (offsets, w), kind in zip(operands, fn.parameters, strict=True)]
    position = next(n for n, p in enumerate(s.kernel.args) if p.name == fn.result)
    kind = fn.parameters[position]
    result = f.w.op(f"call {kind} @{fn.symbol}({', '.join(args)})")
    offsets, window = operands[position]
    _scattered(f, window, offsets, kind, result)


def _elements(f: Frame, w: Window) -> list[Poly]:
    """Physical offsets of the window's elements, row-major."""
    counts = []
    for sp in w.spans:
        n = poly(f, sp.extent)
        if not n.is_const:
            raise CodegenError(f"operand {w} of an instruction has no constant size")
        counts.append(n.const)
    base = [poly(f, i.lo if isinstance(i, Span) else i) for i in w.indices]
    steps = [i.step if isinstance(i, Span) else 0 for i in w.indices]
    target = f.storages[w.buffer.name]
    out = []
    for at in itertools.product(*(range(n) for n in counts)):
        it = iter(at)
        index = tuple(b + Poly(next(it) * step) if isinstance(i, Span) else b for b, step, i in zip(base, steps, w.indices, strict=True))
        out.append(access.physical_offset(f, target, index))
    return out


def _runs(offsets: list[Poly]) -> list[tuple[int, int]]:
    """(first element, length) of stretches that are contiguous in memory; lengths are powers of two."""
    out = []
    start = 0
    while start < len(offsets):
        n = 1
        while start + n < len(offsets) and _distance(offsets[start], offsets[start + n]) == n:
            n += 1
        n = 1 << (n.bit_length() - 1)
        out.append((start, n))
        start += n
    return out


def _distance(a: Poly, b: Poly) -> int | None:
    d = b - a
    return d.const if d.is_const else None


def _gathered(f: Frame, w: Window, offsets: list[Poly], kind: str) -> str:
    """The operand as one value of LLVM type ``kind``."""
    s = f.storages[w.buffer.name]
    align = access.element_align(s)
    runs = _runs(offsets)
    if len(runs) == 1:
        return _as(
            f,
            f.w.op(f"load {_memory(s, len(offsets))}, ptr {access.address(f, s, offsets[0])}, align {align}"),
            _memory(s, len(offsets)),
            kind,
        )
    whole = _memory(s, len(offsets))
    total = f"<{len(offsets)} x {memory_type(s.buffer.dtype)}>"
    ref = "poison"
    for start, n in runs:
        part = f.w.op(f"load {_memory(s, n)}, ptr {access.address(f, s, offsets[start])}, align {align}")
        ref = _inserted(f, total, ref, _memory(s, n), part, start, n, len(offsets))
    return _as(f, ref, whole, kind)


def _inserted(f: Frame, total: str, ref: str, part_type: str, part: str, start: int, n: int, size: int) -> str:
    if n == 1:
        return f.w.op(f"insertelement {total} {ref}, {part_type} {part}, i64 {start}")
    spread = ", ".join(f"i32 {i}" if i < n else "i32 poison" for i in range(size))
    wide = f.w.op(f"shufflevector {part_type} {part}, {part_type} poison, <{size} x i32> <{spread}>")
    if ref == "poison":
        pick = [i - start if start <= i < start + n else None for i in range(size)]
        lanes = ", ".join("i32 poison" if i is None else f"i32 {i}" for i in pick)
        return f.w.op(f"shufflevector {total} {wide}, {total} poison, <{size} x i32> <{lanes}>")
    lanes = ", ".join(f"i32 {size + i - start}" if start <= i < start + n else f"i32 {i}" for i in range(size))
    return f.w.op(f"shufflevector {total} {ref}, {total} {wide}, <{size} x i32> <{lanes}>")


def _scattered(f: Frame, w: Window, offsets: list[Poly], kind: str, result: str) -> None:
    s = f.storages[w.buffer.name]
    align = access.element_align(s)
    total = _memory(s, len(offsets))
    result = _as(f, result, kind, total)
    for start, n in _runs(offsets):
        part = result
        if n < len(offsets):
            if n == 1:
                part = f.w.op(f"extractelement {total} {result}, i64 {start}")
            else:
                lanes = ", ".join(f"i32 {start + i}" for i in range(n))
                part = f.w.op(f"shufflevector {total} {result}, {total} poison, <{n} x i32> <{lanes}>")
        f.w.line(f"store {_memory(s, n)} {part}, ptr {access.address(f, s, offsets[start])}, align {align}")


def _memory(s: Any, n: int) -> str:
    return memory_type(s.buffer.dtype, n if n > 1 else 0)


def _as(f: Frame, ref: str, have: str, want: str) -> str:
    """bf16 is i16 in memory and ``bfloat`` in instructions; sub-byte integers are truncated."""
    if have == want:
        return ref
    op = "bitcast" if "bfloat" in (have + want) else "zext" if have.rpartition("i")[2] < want.rpartition("i")[2] else "trunc"
    return f.w.op(f"{op} {have} {ref} to {want}")
