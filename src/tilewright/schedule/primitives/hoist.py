"""hoist: what every iteration of a loop computes anew is computed once, before the loop."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir.linear import Linear
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, own_exprs, read_buffers, walk, written_buffers
from tilewright.schedule.nest import loop_place, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import scope_at
from tilewright.schedule.stage import stage_buffer, stage_in
from tilewright.util.errors import ScheduleError


@primitive
def hoist(kernel: Kernel, stage: str, loop: str) -> tuple[Kernel, tuple[str, ...]]:
    """Move the statements in the body of ``loop`` that compute a buffer to before the loop.

    ``stage`` is the buffer, or the outermost loop of a nest that writes it; its allocation moves
    with it. Returns the loops that moved. ScheduleError when what is computed depends on the
    loop's variable or on other statements of its body, when the body changes the buffer
    afterwards or uses it before, or when an argument would be written although the loop may not
    run at all.
    """
    place = loop_place(kernel, loop, "hoist")
    f = place.node
    assert isinstance(f, For)
    buffer = stage_buffer(kernel, stage, "hoist")
    subject = f"hoist {buffer.name}, {loop}"
    if f.kind is LoopKind.VECTOR:
        raise ScheduleError(f"{subject}: the body of a vector loop is one statement", location=f.loc)
    moved = _stage_statements(f, buffer.name, subject)
    rest = [s for s in f.body.stmts if not any(s is m for m in moved)]
    _check_invariant(f, moved, rest, buffer.name, subject)
    declared = [m for m in moved if isinstance(m, Alloc) and m.buffer.name == buffer.name]
    if not declared:
        with scope_at(kernel, place, inside=False) as scope:
            _check_runs(scope, f, buffer.name, subject)
            if not stage_in(scope, buffer, moved, "hoist").starts_anew:
                raise ScheduleError(
                    f"{subject}: it continues from the value of the previous iteration",
                    hint="only a stage that starts by overwriting what it accumulates is invariant",
                    location=f.loc,
                )
    out = replace_stmt(kernel, f, *moved, replace(f, body=Block(tuple(rest))))
    return out, tuple(s.name for s in moved if isinstance(s, For))


def _stage_statements(f: For, name: str, subject: str) -> list[Stmt]:
    """Allocation and writers of the buffer in the loop's body, up to the first other statement that reads it."""
    moved: list[Stmt] = []
    used = False
    for s in f.body.stmts:
        writes = name in written_buffers(s)
        if writes and (used or written_buffers(s) - _declared_in(s) != {name}):
            others = sorted(written_buffers(s) - {name})
            why = (
                f"a statement of the body changes it after its use ({_head(s)})"
                if used
                else f"its statement also writes {', '.join(others)}"
            )
            raise ScheduleError(f"{subject}: {why}", location=getattr(s, "loc", None))
        if writes or (isinstance(s, Alloc) and s.buffer.name == name):
            moved.append(s)
        elif name in read_buffers(s):
            used = True
    if not any(name in written_buffers(s) for s in moved):
        raise ScheduleError(
            f"{subject}: no statement directly in the loop's body computes it", hint="hoist it out of the inner loops first"
        )
    return moved


def _head(s: Stmt) -> str:
    return f"'{str(s).strip().splitlines()[0]}'"


def _declared_in(s: Stmt) -> set[str]:
    return {t.buffer.name for t in walk(s) if isinstance(t, Alloc)}


def _check_invariant(f: For, moved: list[Stmt], rest: list[Stmt], name: str, subject: str) -> None:
    changing = set().union(*(written_buffers(s) for s in rest)) if rest else set()
    local = {s.buffer.name for s in rest if isinstance(s, Alloc)}
    for s in moved:
        for t in walk(s):
            for e in own_exprs(t):
                if f.name in ex.free_vars(e):
                    raise ScheduleError(
                        f"{subject}: {_head(t)} depends on {f.name}: iterations compute different values", location=getattr(t, "loc", None)
                    )
        if stale := sorted((read_buffers(s) - {name}) & (changing | local)):
            raise ScheduleError(
                f"{subject}: {_head(s)} reads {stale[0]}, which the body of {f.name} changes",
                hint=f"hoist {stale[0]} first, if it is invariant",
            )


def _check_runs(scope: Simplifier, f: For, name: str, subject: str) -> None:
    if any(ld.buffer.name == name for e in (f.lo, f.hi) for ld in ex.loads(e)):
        raise ScheduleError(f"{subject}: the bounds of {f.name} read it", location=f.loc)
    span = scope.linear(f.hi).plus(scope.linear(f.lo), -1)
    if not scope.nonneg(Linear(span.terms, span.const - 1)):
        raise ScheduleError(
            f"{subject}: {f.name} may run no iteration at all (range {f.lo}..{f.hi}), {name} would still be written",
            hint="hoist a local buffer",
            location=f.loc,
        )
