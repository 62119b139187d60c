"""simplify: index arithmetic, dead guards, empty and one-trip loops."""

from __future__ import annotations

from tilewright.ir import simplify as simplifier
from tilewright.ir.stmt import Kernel
from tilewright.schedule.primitive import primitive


@primitive
def simplify(kernel: Kernel) -> tuple[Kernel, tuple[str, ...]]:
    """Simplify the whole kernel. One-trip loops disappear, and with them their handles. Always legal."""
    return simplifier.simplify(kernel), ()
