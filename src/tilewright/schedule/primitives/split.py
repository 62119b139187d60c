"""split: one loop becomes two, outer over tiles and inner within a tile."""

from __future__ import annotations

from dataclasses import replace

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import Block, For, If, Kernel, LoopKind, names, written_buffers
from tilewright.schedule.nest import copied, fresh, get_loop, range_text, replace_stmt, substituted, trip_count
from tilewright.schedule.primitive import primitive
from tilewright.util.errors import ScheduleError

TAILS = ("exact", "guard", "peel", "clip")


@primitive
def split(kernel: Kernel, loop: str, factor: int, tail: str = "exact", align: bool = False) -> tuple[Kernel, tuple[str, ...]]:
    """Split ``loop`` into an outer loop and an inner loop of ``factor`` iterations.

    ``tail`` says what happens when the extent is no multiple of the factor: "exact" refuses,
    "guard" puts ``if`` around the body, "peel" runs the remaining iterations in a loop after, "clip" lets the
    inner loop of the last tile run fewer iterations.
    With ``align`` (and "guard") tiles begin at multiples of the factor rather than at the lower bound: what
    tiling a skewed loop needs, whose lower bound moves.
    Returns (outer, inner), or (outer, inner, tail) when a tail loop was peeled. The order of
    iterations stays, so there is no dependence to check. ScheduleError: unknown loop or tail,
    factor below 1, bounds read from memory that the body writes, an extent that is not known to be a multiple ("exact").
    """
    f = get_loop(kernel, loop, "split")
    if not isinstance(factor, int) or factor < 1:
        raise ScheduleError(f"split {loop}: factor {factor!r} is not an int >= 1", location=f.loc)
    if tail not in TAILS:
        raise ScheduleError(f"split {loop}: unknown tail {tail!r}", hint=f"one of {', '.join(TAILS)}", location=f.loc)
    taken = names(kernel)
    outer, inner = Var(fresh(taken, loop + "o")), Var(fresh(taken, loop + "i"))
    if changed := written_buffers(f.body) & {ld.buffer.name for e in (f.lo, f.hi) for ld in ex.loads(e)}:
        raise ScheduleError(
            f"split {loop}: its range, {range_text(f)}, reads {', '.join(sorted(changed))}, which its body writes", location=f.loc
        )
    if align:
        return replace_stmt(kernel, f, _aligned(f, outer, inner, factor, tail)), (outer.name, inner.name)
    count = trip_count(f)
    multiple = count is not None and count % factor == 0
    if tail == "exact" and not multiple:
        extent = f"{f.extent} is not known to be" if count is None else f"{count} is not"
        raise ScheduleError(
            f"split {loop}: its extent {extent} a multiple of {factor}",
            hint='use tail="guard" or tail="peel", or another factor',
            location=f.loc,
        )
    if tail == "clip" and not multiple:
        return replace_stmt(kernel, f, _clipped(f, outer, inner, factor)), (outer.name, inner.name)
    if multiple or tail == "guard":
        return replace_stmt(kernel, f, _tiled(f, outer, inner, factor, guard=not multiple)), (outer.name, inner.name)
    return _peeled(kernel, f, outer, inner, factor, taken)


def _aligned(f: For, outer: Var, inner: Var, factor: int, tail: str) -> For:
    if tail != "guard" or f.step != 1:
        raise ScheduleError(f"split {f.name}: align needs tail='guard' and a loop of step 1", location=f.loc)
    index = outer * factor + inner
    inside = ex.logical("and", ex.compare("<=", f.lo, index), ex.compare("<", index, f.hi))
    body = Block((If(inside, substituted(f.body, {f.name: index}), loc=f.loc),))
    return _two_loops(f, (outer, f.lo // factor, (f.hi + (factor - 1)) // factor), (inner, ex.idx(factor)), body)


def _tiled(f: For, outer: Var, inner: Var, factor: int, guard: bool, tiles: Expr | None = None) -> For:
    """The two loops; ``tiles`` overrides the number of outer iterations (rounded up by default)."""
    index = f.lo + (outer * factor + inner) * f.step
    body = substituted(f.body, {f.name: index})
    if guard:
        body = Block((If(ex.compare("<", index, f.hi), body, loc=f.loc),))
    count = trip_count(f)
    if tiles is None:
        tiles = ex.idx(-(-count // factor)) if count is not None else (f.extent + (factor - 1)) // factor
    return _two_loops(f, (outer, ex.idx(0), tiles), (inner, ex.idx(factor)), body)


def _clipped(f: For, outer: Var, inner: Var, factor: int) -> For:
    """The two loops with as many inner iterations as are left, at most ``factor``."""
    left = f.extent - outer * factor
    body = substituted(f.body, {f.name: f.lo + (outer * factor + inner) * f.step})
    return _two_loops(f, (outer, ex.idx(0), (f.extent + (factor - 1)) // factor), (inner, ex.binary("min", ex.idx(factor), left)), body)


def _two_loops(f: For, outer: tuple[Var, Expr, Expr], inner: tuple[Var, Expr], body: Block) -> For:
    """The loops that take the place of ``f``, with the kinds that still hold."""
    inner_loop = replace(f, var=inner[0], lo=ex.idx(0), hi=inner[1], body=body, step=1)
    outer_loop = replace(f, var=outer[0], lo=outer[1], hi=outer[2], step=1)
    # Tiles of a vector run one after the other; iterations within a parallel tile do, too.
    if f.kind is LoopKind.VECTOR:
        outer_loop = replace(outer_loop, kind=LoopKind.SERIAL)
    elif f.kind in (LoopKind.PARALLEL, LoopKind.BIND):
        inner_loop = replace(inner_loop, kind=LoopKind.SERIAL, unit=None)
    return replace(outer_loop, body=Block((inner_loop,)))


def _peeled(kernel: Kernel, f: For, outer: Var, inner: Var, factor: int, taken: set[str]) -> tuple[Kernel, tuple[str, ...]]:
    count = trip_count(f)
    rest = Var(fresh(taken, f.name + "t"))
    # A loop whose bounds may cross (lo > hi) must not get a negative number of tiles: its tail would start before lo.
    extent = ex.idx(count) if count is not None else ex.binary("max", f.extent, ex.Const(0, ty.index))
    tiles = extent // factor
    tail = replace(f, var=rest, lo=f.lo + tiles * (factor * f.step), body=copied(substituted(f.body, {f.name: rest}), taken))
    main = _tiled(f, outer, inner, factor, guard=False, tiles=tiles)
    return replace_stmt(kernel, f, main, tail), (outer.name, inner.name, rest.name)
