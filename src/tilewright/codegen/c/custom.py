"""Machine instructions with a RISC-V encoding as C functions: one parameter for each quantity of the operands."""

from __future__ import annotations

from tilewright.hw.emit import Bits, RoCC, Steps

#: The instruction word itself: opcode and funct7 are part of it, so they must be constants.
ISSUE = """#define rocc(opcode, funct7, rs1, rs2) \\
    __asm__ volatile(".insn r %0, 3, %1, x0, %2, %3" : : "i"(opcode), "i"(funct7), "r"(rs1), "r"(rs2) : "memory")
"""


def quantities(emit: RoCC | Steps) -> tuple[str, ...]:
    """What the instruction words are packed from, in the order of first use: ``("src.address", "dst.address", ...)``."""
    found: dict[str, None] = {}
    for word in words(emit):
        for field in (*word.rs1, *word.rs2):
            if isinstance(field.value, str):
                found[field.value] = None
    return tuple(found)


def words(emit: RoCC | Steps) -> tuple[RoCC, ...]:
    """The instruction words, in order."""
    return emit.steps if isinstance(emit, Steps) else (emit,)


def parameter(quantity: str) -> str:
    """The C parameter of a quantity: ``a.address`` is ``a_address``."""
    return quantity.replace(".", "_")


def wrapper(name: str, emit: RoCC | Steps, comment: str = "") -> str:
    """A C function ``name`` that packs its parameters, the :func:`quantities`, into registers and issues the words.

    Values must fit their fields: the caller (or the verifier before it) sees to that. The text needs :data:`ISSUE` before it.
    """
    parameters = ", ".join(f"uint64_t {parameter(q)}" for q in quantities(emit)) or "void"
    lines = [f"static inline void {name}({parameters}) {{" + (f"  // {comment}" if comment else "")]
    for word in words(emit):
        issue = f"rocc({word.opcode:#x}, {word.funct7}, {_packed(word.rs1)}, {_packed(word.rs2)});"
        lines.append(f"    {issue}" + (f"  // {word.note}" if word.note else ""))
    return "\n".join([*lines, "}"]) + "\n"


def _packed(fields: tuple[Bits, ...]) -> str:
    terms = []
    for f in fields:
        if f.value == 0:
            continue
        value = f"{f.value:#x}ull" if isinstance(f.value, int) else parameter(f.value)
        terms.append(f"{value} << {f.lo}" if f.lo else value)
    return " | ".join(terms) or "0ull"
