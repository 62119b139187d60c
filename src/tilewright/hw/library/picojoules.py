"""Energy of an access to memories of any size, in pJ: one basis for machines that are compared. Fits to Accelergy's figures."""

from __future__ import annotations

from typing import Any

#: A multiply-add of 8 bits; a word of a register; a word of main memory.
MULTIPLY_ADD, REGISTER, MAIN = 0.5608, 0.48746, 100.0


def shared(kilobytes: Any) -> Any:
    """A word of a memory that all units share."""
    return 0.49 + 0.02513 * kilobytes


def accumulator(kilobytes: Any) -> Any:
    """A sum in the memory of one column of units."""
    return 1.94 + 0.1005 * kilobytes
