"""Parts of a value that only one way of a choice computes: whether they may be computed in every iteration.

``where(i >= 1, x[i - 1], 0)`` does not read ``x[-1]``, and ``where(n > 0, s // n, 0)`` does not divide by zero. Who computes such a part
elsewhere has to know that it has a value there too.
"""

from __future__ import annotations

from tilewright.ir import expr as ex
from tilewright.ir.expr import Binary, Const, Expr
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Stmt
from tilewright.schedule.region import accesses
from tilewright.util.errors import ScheduleError


def check_unguarded(scope: Simplifier, whole: Expr, part: Expr, moved: Stmt, subject: str) -> None:
    """ScheduleError if ``part``, which ``moved`` computes in ``scope``, has a value only where a choice in ``whole`` asks for it."""
    if any(e == part for e in ex.unconditional(whole)):
        return
    for name, buffer in {ld.buffer.name: ld.buffer for ld in ex.loads(part)}.items():
        for access, here in accesses(scope, moved, name):
            for i, extent in zip(access.first, buffer.shape, strict=True):
                form = here.linear(i)
                if not (here.nonneg(form) and here.nonneg(here.linear(extent - 1).plus(form, -1))):
                    raise ScheduleError(
                        f"{subject}: {part} is computed under a condition, without which it may read outside of {name}",
                        hint="take the whole choice",
                        location=getattr(moved, "loc", None),
                    )
    if any(isinstance(e, Binary) and e.op in ("//", "%") and not (isinstance(e.b, Const) and e.b.value) for e in ex.walk(part)):
        raise ScheduleError(
            f"{subject}: {part} is computed under a condition, without which it may divide by zero", hint="take the whole choice"
        )
