"""Block IR: a block program as typed values, before addresses are analysed.

A value is a block: element type (or pointer to it) and a shape, ``()`` for scalars. Each operation makes one
value or has an effect; the only region is that of ``for`` and ``while``, with carried values as its arguments. Integers that
were known at launch are constants. ``print(function)`` is the ``block`` level of the lowering.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tilewright.ir.types import DType
from tilewright.util.errors import Location


@dataclass(frozen=True, slots=True)
class Pointer:
    """Element type of a block of addresses of ``element_ty`` values."""

    element_ty: DType

    def __str__(self) -> str:
        return f"ptr<{self.element_ty}>"


Element = DType | Pointer


@dataclass(frozen=True, slots=True)
class BlockType:
    """``f32[64, 32]``, ``ptr<f32>[64]``, or (shape ``()``) a scalar."""

    element: Element
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.element}[{', '.join(map(str, self.shape))}]" if self.shape else str(self.element)

    @property
    def dtype(self) -> DType:
        """The element type of a block of data."""
        assert isinstance(self.element, DType)  # callers check that it is data
        return self.element

    @property
    def is_pointer(self) -> bool:
        return isinstance(self.element, Pointer)

    @property
    def is_data(self) -> bool:
        return isinstance(self.element, DType)


@dataclass(eq=False, slots=True)
class Value:
    """The result of an operation, a function argument or a region argument; compared by identity.

    An ``automatic`` name says which operation made it, until it is assigned to a variable.
    """

    type: BlockType
    name: str
    automatic: bool = False

    def __str__(self) -> str:
        return f"%{self.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape


@dataclass(eq=False, slots=True)
class Op:
    """``result = name(operands) {attributes}``; loops have a region instead of more operands."""

    name: str
    operands: tuple[Value, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    result: Value | None = None
    loc: Location | None = None
    region: Region | None = None


@dataclass(eq=False, slots=True)
class Region:
    """The body of a loop: its variable, carried values (arguments, then what they become), operations, results.

    A ``while`` goes on as long as ``test`` holds, which the first ``head`` operations compute before each pass.
    """

    variable: Value
    arguments: list[Value]
    ops: list[Op]
    yields: tuple[Value, ...] = ()
    results: tuple[Value, ...] = ()
    test: Value | None = None
    head: int = 0


@dataclass(eq=False, slots=True)
class Function:
    """One block program, specialised for a launch: pointers and floats are arguments, integers are known."""

    name: str
    arguments: tuple[Value, ...]
    ops: list[Op]
    loc: Location | None = None

    def __str__(self) -> str:
        arguments = ", ".join(f"{a}: {a.type}" for a in self.arguments)
        return "\n".join([f"block @{self.name}({arguments}):", *_lines(self.ops, "    ")])


def walk(ops: list[Op]) -> Iterator[Op]:
    """All operations in program order, loops before what is inside."""
    for op in ops:
        yield op
        if op.region is not None:
            yield from walk(op.region.ops)


def _lines(ops: list[Op], indent: str) -> Iterator[str]:
    for op in ops:
        if op.region is not None:
            yield from _loop_lines(op, op.region, indent)
            continue
        left = f"{op.result} = " if op.result is not None else ""
        right = f" : {op.result.type}" if op.result is not None else ""
        attributes = "".join(f", {k}={_attribute(v)}" for k, v in op.attributes.items() if v is not None)
        yield f"{indent}{left}{op.name}({(', '.join(map(str, op.operands)) + attributes).removeprefix(', ')}){right}"


def _loop_lines(op: Op, r: Region, indent: str) -> Iterator[str]:
    carried = ", ".join(f"{a}: {a.type} = {i}" for a, i in zip(r.arguments, op.operands[2:], strict=True))
    left = ", ".join(map(str, r.results)) + " = " if r.results else ""
    lo, hi = op.operands[:2]
    if r.test is not None:
        yield f"{indent}{left}while carrying ({carried}):"
        yield from _lines(r.ops[: r.head], indent + "    ")
        yield f"{indent}    if not {r.test}: leave"
        yield from _lines(r.ops[r.head :], indent + "    ")
        if r.yields:
            yield f"{indent}    yield {', '.join(map(str, r.yields))}"
        return
    yield f"{indent}{left}for {r.variable} in range({lo}, {hi}, {op.attributes['step']}) carrying ({carried}):"
    yield from _lines(r.ops, indent + "    ")
    if r.yields:
        yield f"{indent}    yield {', '.join(map(str, r.yields))}"


def _attribute(v: Any) -> str:
    return f"({', '.join(map(str, v))}{',' * (len(v) == 1)})" if isinstance(v, tuple) else str(v)
