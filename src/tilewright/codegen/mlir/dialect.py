"""The instruction words of a machine as an MLIR dialect, declared in IRDL: one operation for each word, one operand for each quantity."""

from __future__ import annotations

import re

from tilewright.codegen.c.custom import parameter
from tilewright.codegen.commands.program import words
from tilewright.hw import Machine


def emit_irdl(machine: Machine) -> str:
    """An IRDL file that MLIR loads to know the dialect: all operands are of type index, ``fence`` has none.

    CodegenError if the machine declares no instruction words.
    """
    lines = [f"irdl.dialect @{dialect_name(machine.name)} {{"]
    for name, word in words(machine).items():
        lines.append(f"  irdl.operation @{operation_name(name)} {{")
        if operands := word.encoding.quantities:
            lines.append("    %index = irdl.is index")
            lines.append(f"    irdl.operands({', '.join(f'{parameter(q)}: %index' for q in operands)})")
        lines.append("  }")
    return "\n".join([*lines, "  irdl.operation @fence {", "  }", "}"]) + "\n"


def dialect_name(machine: str) -> str:
    """The dialect of a machine."""
    return re.sub(r"\W", "_", machine)


def operation_name(word: str) -> str:
    """The operation of a word: ``matmul.preload`` is ``matmul_preload``."""
    return re.sub(r"\W", "_", word)
