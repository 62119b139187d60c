"""simplify: guards and bounds that loop ranges decide disappear, as they do after a tail was peeled."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.ir import simplify as simplification
from tilewright.ir.stmt import Kernel, loops
from tilewright.schedule.primitive import primitive


@primitive
def simplify(kernel: Kernel, keep_loops: bool | Sequence[str] = True, tighten: bool = False) -> tuple[Kernel, tuple[str, ...]]:
    """Simplify indices, bounds and guards of the whole kernel. Returns no names.

    Empty loops disappear; loops that run once stay, as handles, unless ``keep_loops`` is false or a list that does not name them.
    With ``tighten`` the guards of a tail become loop bounds: ``for i in range(8): if i < 5`` runs
    5 iterations.
    """
    names = [f.name for f in loops(kernel)] if keep_loops is True else keep_loops or ()
    keep = frozenset(names)
    return simplification.simplify(kernel, keep, tighten), ()
