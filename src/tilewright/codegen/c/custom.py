"""RISC-V custom instruction words as C functions: one parameter for each quantity their registers are packed from."""

from __future__ import annotations

from tilewright.hw.emit import Bits, RoCC

#: The instruction word itself: opcode and funct7 are part of it, so they must be constants.
ISSUE = """#define rocc(opcode, funct7, rs1, rs2) \\
    __asm__ volatile(".insn r %0, 3, %1, x0, %2, %3" : : "i"(opcode), "i"(funct7), "r"(rs1), "r"(rs2) : "memory")"""


def parameter(quantity: str) -> str:
    """The C parameter of a quantity: ``a.address`` is ``a_address``."""
    return quantity.replace(".", "_")


def wrapper(name: str, word: RoCC, comment: str = "") -> str:
    """A C function ``name`` that packs its parameters, the quantities of ``word``, into registers and issues the word.

    Values must fit their fields: the caller (or the verifier before it) sees to that. The text needs :data:`ISSUE` before it.
    """
    parameters = ", ".join(f"uint64_t {parameter(q)}" for q in word.quantities) or "void"
    head = f"static inline void {name}({parameters}) {{" + (f"  // {comment}" if comment else "")
    return f"{head}\n    rocc({word.opcode:#x}, {word.funct7}, {_packed(word.rs1)}, {_packed(word.rs2)});\n}}"


def _packed(fields: tuple[Bits, ...]) -> str:
    terms = []
    for f in fields:
        if f.value == 0:
            continue
        value = f"{f.value:#x}ull" if isinstance(f.value, int) else parameter(f.value)
        terms.append(f"{value} << {f.lo}" if f.lo else value)
    return " | ".join(terms) or "0ull"
