"""``while`` loops that count: how often the condition will hold, where its integers move by fixed steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.ir import types as ty
from tilewright.lang.block.builder import Builder
from tilewright.lang.block.ir import Op, Region, Value
from tilewright.lang.block.source import BlockError


@dataclass(frozen=True, slots=True)
class _Form:
    """``const + sum(coefficient * value)``."""

    terms: Mapping[Value, int]
    const: int = 0

    def plus(self, other: _Form, factor: int = 1) -> _Form:
        terms = dict(self.terms)
        for v, c in other.terms.items():
            terms[v] = terms.get(v, 0) + factor * c
        return _Form({v: c for v, c in terms.items() if c}, self.const + factor * other.const)


class _Opaque(Exception):
    """A value that is no such form."""


def trips(b: Builder, region: Region, inits: tuple[Value, ...], test: Value) -> Value | None:
    """How often the loop of ``region`` runs while ``test`` (computed in it) holds, as operations before the loop.

    None where the condition depends on more than integers that each pass moves by the same step, or where none moves towards the
    end; BlockError where such a loop is known to begin.
    """
    inside: dict[Value | None, Op] = {r: op for op in region.ops for r in ((op.result,) if op.region is None else op.region.results)}
    start = dict(zip(region.arguments, inits, strict=True))
    try:
        steps = {a: _step(a, y, inside) for a, y in zip(region.arguments, region.yields, strict=True)}
        below = [_moving(f, steps) for f in _negatives(test, inside)]
    except _Opaque:
        return None
    ends = [(f, step) for f, step in below if step > 0]
    if not ends:
        if _begins(b, below, start):
            hint = "its body moves nothing towards the end: count up to the limit, or break under a condition"
            raise BlockError("this while loop never ends", hint=hint)
        return None
    out: Value | None = None
    for f, step in ends:
        left = b.binary("max", b.binary("//", b.binary("+", b.binary("-", 0, _at_start(b, f, start)), step - 1), step), 0)
        out = left if out is None else b.binary("min", out, left)
    assert out is not None  # there is an end
    for f, step in below:
        if step <= 0:  # what holds at first holds until the end
            out = b.where(b.compare("<", _at_start(b, f, start), 0), out, 0)
    return b.cast(out, ty.i32)


def _step(argument: Value, now: Value, inside: Mapping[Value | None, Op]) -> int | None:
    """By how much a pass moves ``argument``; None where that is not fixed."""
    try:
        moved = _form(now, inside).plus(_Form({argument: 1}), -1)
    except _Opaque:
        return None
    return None if moved.terms else moved.const


def _moving(f: _Form, steps: Mapping[Value, int | None]) -> tuple[_Form, int]:
    """``f`` with by how much a pass moves it."""
    total = 0
    for v, c in f.terms.items():
        step = steps.get(v, 0)
        if step is None:
            raise _Opaque
        total += c * step
    return f, total


def _at_start(b: Builder, f: _Form, start: Mapping[Value, Value]) -> Any:
    out: Any = None
    for v, c in f.terms.items():
        first = start.get(v, v)
        if first.type.dtype != ty.i64 and not _holds(first.type.dtype, ty.i32):  # a difference may be outside, and is a number here
            first = b.cast(first, ty.i64)
        term = b.binary("*", first, c) if c != 1 else first
        out = term if out is None else b.binary("+", out, term)
    return b.value(f.const) if out is None else b.binary("+", out, f.const) if f.const else out


def _begins(b: Builder, below: Sequence[tuple[_Form, int]], start: Mapping[Value, Value]) -> bool:
    """Whether all forms are below zero before the loop, for all that is known: they are made of constants."""
    constants = {op.result: op.attributes["value"] for ops in b.stack for op in ops if op.name == "constant"}
    for f, _ in below:
        first = [(constants.get(start.get(v, v)), c) for v, c in f.terms.items()]
        if any(x is None for x, _ in first) or f.const + sum(x * c for x, c in first if x is not None) >= 0:
            return False
    return True


def _negatives(test: Value, inside: Mapping[Value | None, Op]) -> list[_Form]:
    """Forms that are all below zero exactly where ``test`` holds."""
    op = inside.get(test)
    if op is None:
        raise _Opaque
    if op.name == "and":
        return [f for o in op.operands for f in _negatives(o, inside)]
    if op.name == "constant" and op.attributes["value"] is True:
        return []
    if op.name not in ("lt", "le", "gt", "ge"):
        raise _Opaque
    a, c = (_form(o, inside) for o in (op.operands if op.name in ("lt", "le") else op.operands[::-1]))
    return [a.plus(c, -1).plus(_Form({}, -1 if op.name in ("le", "ge") else 0))]


def _form(v: Value, inside: Mapping[Value | None, Op]) -> _Form:
    """``v`` over the loop's arguments and values from before it."""
    if v.shape or not v.type.is_data or not v.type.dtype.is_int:
        raise _Opaque
    op = inside.get(v)
    if op is None:
        return _Form({v: 1})
    match op.name:
        case "constant":
            return _Form({}, int(op.attributes["value"]))
        case "add" | "sub":
            a, c = (_form(o, inside) for o in op.operands)
            return a.plus(c, 1 if op.name == "add" else -1)
        case "mul":
            a, c = (_form(o, inside) for o in op.operands)
            if a.terms and c.terms:
                raise _Opaque
            scaled, factor = (c, a.const) if not a.terms else (a, c.const)
            return _Form({}).plus(scaled, factor)
        case "cast" if _holds(v.type.dtype, op.operands[0].type.dtype):
            return _form(op.operands[0], inside)
    raise _Opaque


def _holds(target: ty.DType, source: ty.DType) -> bool:
    """Whether all integers of ``source`` are of ``target``: converting others changes them."""
    if not (target.is_int and source.is_int):
        return False
    return target.range[0] <= source.range[0] and source.range[1] <= target.range[1]
