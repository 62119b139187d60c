"""How an instruction is generated: data that the code generators read.

None of these is the meaning of an instruction: that is its kernel. An instruction without an
emission is generated from its kernel's loops, which is enough where the compiler below
recognises them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.util.errors import MachineError


@dataclass(frozen=True, slots=True)
class LLVM:
    """An LLVM function of the instruction's operands as flat vectors.

    ``body`` is LLVM IR that computes the new value of the written operand and returns it. It is the body
    of ``define <n x T> @f(<n x T> %c, <4 x i8> %a, ...)``: one parameter for each operand, named and ordered as in
    the declaration, holding all its elements in row-major order (an operand of one element is a
    scalar). ``declares`` are the declarations the body needs. :func:`tilewright.hw.llvm_text.function`
    puts them together.
    """

    body: str
    declares: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fragment:
    """The registers of one lane that hold its part of an operand: ``count`` of PTX type ``ptx``."""

    operand: str
    count: int
    ptx: str


@dataclass(frozen=True, slots=True)
class PTX:
    """Inline PTX of one warp (or warp group).

    ``text`` names each operand in braces (``{c}``): it is replaced by that operand's register
    list; ``fragments`` say how many registers of which type a lane holds. An operand without a
    fragment (a shared-memory descriptor of wgmma) is one 64-bit register.
    """

    text: str
    fragments: tuple[Fragment, ...]
    since: str = "sm_70"

    def registers(self, operand: str) -> Fragment:
        """The fragment of ``operand`` (a descriptor when it has none)."""
        return next((f for f in self.fragments if f.operand == operand), Fragment(operand, 1, "b64"))


@dataclass(frozen=True, slots=True)
class CText:
    """A C statement with operands in braces: ``{c}`` is a pointer to its first element, ``{c.stride0}`` a stride."""

    text: str
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bits:
    """A bit field of a 64-bit register: ``value`` is a number or the text of a quantity of the operands.

    Quantities of an operand in main memory: ``"a.address"`` and ``"a.stride"`` (from row to row) in bytes. Of one in a memory
    of lines: ``"a.address"``, ``"a.stride"`` and ``"a.block_stride"`` (between parts that are a line wide) in lines (without a field
    for them: 1, and as many as the operand has rows at most); of an image (rows, pixels of a row, elements) ``"a.pitch"``, lines from row
    to row, and along its dimensions ``"a.inside0"``, elements that are there, and ``"a.before0"``, those asked for before the first.
    Of both: ``"a.rows"``, ``"a.cols"``. ``"i.extent"``: iterations of an axis. ``"accumulate"``: whether the instruction adds to its result
    or replaces it. And the names of state fields.
    """

    lo: int
    width: int
    value: int | str


@dataclass(frozen=True, slots=True)
class RoCC:
    """One RISC-V custom instruction word (R type): two 64-bit source registers packed from bit fields.

    ``name`` tells the words of an instruction of several apart.
    """

    funct7: int
    rs1: tuple[Bits, ...] = ()
    rs2: tuple[Bits, ...] = ()
    opcode: int = 0x7B
    name: str = ""

    @property
    def quantities(self) -> tuple[str, ...]:
        """What the registers are packed from, in the order of first use: ``("src.address", "dst.address", ...)``."""
        return tuple(dict.fromkeys(b.value for b in (*self.rs1, *self.rs2) if isinstance(b.value, str)))

    def word(self, rs1: int, rs2: int, rd: int = 0) -> int:
        """The 32-bit instruction reading registers x``rs1`` and x``rs2`` (xs1 and xs2 set, xd clear)."""
        return self.funct7 << 25 | rs2 << 20 | rs1 << 15 | 0b011 << 12 | rd << 7 | self.opcode

    def registers(self, quantities: Mapping[str, int]) -> tuple[int, int]:
        """The contents of rs1 and rs2 for these ``quantities``; MachineError if one is missing or does not fit its field."""
        return _packed(self.rs1, quantities), _packed(self.rs2, quantities)


@dataclass(frozen=True, slots=True)
class Steps:
    """Several instruction words that together are the instruction (Gemmini: preload, then compute).

    ``again`` are the words that do it when operand ``held`` is still in the unit from the execution before.
    """

    steps: tuple[RoCC, ...]
    again: tuple[RoCC, ...] = ()
    held: str = ""


Emit = LLVM | PTX | CText | RoCC | Steps


def _packed(fields: tuple[Bits, ...], quantities: Mapping[str, int]) -> int:
    out = 0
    for f in fields:
        if isinstance(f.value, str) and f.value not in quantities:
            raise MachineError(f"the instruction word needs {f.value!r}", hint=f"given: {', '.join(quantities) or 'nothing'}")
        value = f.value if isinstance(f.value, int) else quantities[f.value]
        if not 0 <= value < 1 << f.width:
            raise MachineError(f"{f.value} = {value} does not fit bits [{f.lo + f.width - 1}:{f.lo}] of the instruction word")
        out |= value << f.lo
    return out
