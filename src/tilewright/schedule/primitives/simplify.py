"""simplify: guards and bounds that loop ranges decide disappear, as they do after a tail was peeled."""

from __future__ import annotations

from tilewright.ir import simplify as simplification
from tilewright.ir.stmt import Kernel, loops
from tilewright.schedule.primitive import primitive


@primitive
def simplify(kernel: Kernel, keep_loops: bool = True, tighten: bool = False) -> tuple[Kernel, tuple[str, ...]]:
    """Simplify indices, bounds and guards of the whole kernel. Returns no names.

    Empty loops disappear; loops that run once stay, as handles, unless ``keep_loops`` is false.
    With ``tighten`` the guards of a tail become loop bounds: ``for i in range(8): if i < 5`` runs
    5 iterations.
    """
    keep = frozenset(f.name for f in loops(kernel)) if keep_loops else frozenset()
    return simplification.simplify(kernel, keep, tighten), ()
