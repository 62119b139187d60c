"""The LLVM function that an instruction's emission stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from tilewright.hw.emit import LLVM
from tilewright.hw.instruction import Instruction, Operand
from tilewright.ir.types import DType
from tilewright.util.errors import MachineError

_FLOAT = {16: "half", 32: "float", 64: "double"}


@dataclass(frozen=True, slots=True)
class LLVMFunction:
    """``definition`` of ``symbol`` (always inlined) and the ``declares`` it needs.

    ``parameters`` are the LLVM types of the operands in declaration order; the function returns the new value of
    the operand called ``result``. Operands are flat vectors of all elements, row-major.
    """

    symbol: str
    result: str
    parameters: tuple[str, ...]
    declares: tuple[str, ...]
    definition: str


def function(i: Instruction) -> LLVMFunction:
    """The function of ``i``; MachineError unless its emission is LLVM and it writes exactly one operand."""
    if not isinstance(i.emit, LLVM):
        raise MachineError(f"instruction {i.name} has no LLVM emission", hint="generate its kernel's loops instead")
    written = [o for o in i.operands if o.role != "in"]
    if len(written) != 1:
        raise MachineError(f"instruction {i.name} writes {len(written)} operands: an LLVM emission returns one")
    symbol = "tw." + re.sub(r"[^A-Za-z0-9_.]", ".", i.kernel.instruction or i.name)
    types = tuple(operand_type(o) for o in i.operands)
    parameters = ", ".join(f"{t} %{o.name}" for t, o in zip(types, i.operands, strict=True))
    body = "\n".join("  " + line.strip() for line in i.emit.body.strip().splitlines())
    text = f"define internal {operand_type(written[0])} @{symbol}({parameters}) alwaysinline nounwind {{\n{body}\n}}\n"
    return LLVMFunction(symbol, written[0].name, types, i.emit.declares, text)


def operand_type(o: Operand) -> str:
    """``<16 x float>``, or the element type for an operand of one element."""
    n = prod(o.shape)
    return f"<{n} x {element_type(o.dtype)}>" if n > 1 else element_type(o.dtype)


def element_type(t: DType) -> str:
    """LLVM's name of an element type (integers keep their width)."""
    if t.kind == "float":
        return _FLOAT[t.bits]
    return "bfloat" if t.kind == "bfloat" else f"i{t.bits}"
