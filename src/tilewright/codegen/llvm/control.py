"""Control flow of LLVM functions: conditions and counted loops around code written by callbacks."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.codegen.llvm.expression import decided
from tilewright.codegen.llvm.frame import Frame
from tilewright.codegen.llvm.index import Poly

#: Metadata nodes that every module begins with; loops refer to them by these numbers.
LOOP_ATTRIBUTES = ('!0 = !{!"llvm.loop.vectorize.enable", i1 false}', '!1 = !{!"llvm.loop.unroll.disable"}')

#: Named metadata of modules whose loops are all as scheduled: LLVM has no loop to transform.
SCHEDULED = "!tilewright.scheduled"


def conditional(f: Frame, cond: str, then: Callable[[], None], orelse: Callable[[], None] | None) -> None:
    """``if cond: then() else: orelse()`` on an i1."""
    w = f.w
    yes, no, end = w.block("then"), w.block("else"), w.block("endif")
    w.branch(cond, yes, no if orelse else end)
    w.start(yes)
    then()
    w.jump(end)
    if orelse:
        w.start(no)
        orelse()
        w.jump(end)
    w.start(end)


def counted_loop(
    f: Frame, name: str, lo: Poly, hi: Poly, step: int, body: Callable[[], None], scheduled: bool, last: int | None = None
) -> None:
    """``for name in range(lo, hi, step)``. ``scheduled``: LLVM must not vectorise or unroll it again.

    ``last`` bounds the variable more tightly than hi - 1, where the caller knows.
    """
    known = decided("<", lo - hi)
    if known is False:
        return
    w = f.w
    if decided(">=", lo + Poly(step) - hi):
        with f.bound(name, lo):
            if known:
                body()
            else:
                conditional(f, w.pure(f"icmp slt i64 {w.scalar_index(lo)}, {w.scalar_index(hi)}"), body, None)
        return
    f.module.has_plain_loops |= not scheduled
    start, stop = w.scalar_index(lo), w.scalar_index(hi)
    head, latch, end = w.block("loop"), w.block("next"), w.block("end")
    if not known:
        pre = w.block("enter")
        w.branch(w.pure(f"icmp slt i64 {start}, {stop}"), pre, end)
        w.start(pre)
    before = w.label
    w.jump(head)
    w.start(head)
    var, following = w.name("i"), w.name("n")
    w.line(f"{var} = phi i64 [ {start}, %{before} ], [ {following}, %{latch} ]")
    if last is None and (most := hi.range()[1]) is not None:
        last = most - 1
    with f.bound(name, f.atom(var, lo.range()[0], last)):
        body()
    w.jump(latch)
    w.start(latch)
    w.line(f"{following} = add nsw i64 {var}, {step}")
    more = w.op(f"icmp slt i64 {following}, {stop}")
    w.line(f"br i1 {more}, label %{head}, label %{end}" + (f", !llvm.loop {_as_it_is(f)}" if scheduled else ""))
    w.start(end)


def _as_it_is(f: Frame) -> str:
    """A loop's metadata: no vectorisation, no unrolling."""
    n = len(f.module.metadata) + len(LOOP_ATTRIBUTES)
    f.module.metadata.append(f"!{n} = distinct !{{!{n}, !0, !1}}")
    return f"!{n}"
