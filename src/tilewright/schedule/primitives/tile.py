"""tile: a band of loops becomes loops over tiles around loops within a tile."""

from __future__ import annotations

from tilewright.ir.stmt import Kernel
from tilewright.schedule.primitive import primitive
from tilewright.schedule.primitives.reorder import reorder
from tilewright.schedule.primitives.split import split
from tilewright.util.errors import ScheduleError


@primitive
def tile(
    kernel: Kernel, loops: tuple[str, ...], factors: tuple[int, ...], tail: str = "exact", align: bool = False
) -> tuple[Kernel, tuple[str, ...]]:
    """Split each of the nested ``loops`` by its factor, then bring the inner loops inside.

    ``tail`` is "exact" or "guard"; it and ``align`` are those of ``split``. Returns the outer loops, then the inner ones.
    ScheduleError: what ``split`` and ``reorder`` refuse; numbers of loops and factors that differ.
    """
    if len(loops) != len(factors) or not loops:
        raise ScheduleError(f"tile {', '.join(loops)}: {len(loops)} loops but {len(factors)} factors", hint="give one factor for each loop")
    if tail not in ("exact", "guard"):
        raise ScheduleError(f"tile {', '.join(loops)}: tail {tail!r}", hint='use "exact" or "guard"; peel tails with split')
    outer, inner = [], []
    for name, factor in zip(loops, factors, strict=True):
        kernel, (o, i) = split(kernel, name, factor, tail, align)
        outer.append(o)
        inner.append(i)
    kernel, order = reorder(kernel, *outer, *inner)
    return kernel, order
