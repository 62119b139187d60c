"""accumulate: a reduction into existing contents is first summed apart, then added once."""

from __future__ import annotations

from tilewright.ir import expr as ex
from tilewright.ir.stmt import Kernel
from tilewright.schedule.primitive import primitive
from tilewright.schedule.primitives.rfactor import apart, reduction_nest


@primitive
def accumulate(kernel: Kernel, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """Sum the perfect reduction nest around ``loop`` into a new buffer, and combine it with the old contents at the end.

    ``c[i, j] += a[i, k] * b[k, j]`` becomes three nests: ``p[i, j] = 0``, ``p[i, j] += a[i, k] * b[k, j]`` and
    ``c[i, j] += p[i, j]``. Returns (new buffer, root of the initialisation, of the update, of the combination).

    Reductions may be reassociated, so the only conditions are structural. ScheduleError: the loop is not
    in a perfect nest around one reduction store, loops around the result have bounds that are not constants,
    or the value reads the result.
    """
    subject = f"accumulate {loop}"
    chain, store = reduction_nest(kernel, loop, subject)
    return apart(kernel, chain, store, {n for i in store.indices for n in ex.free_vars(i)}, subject)
