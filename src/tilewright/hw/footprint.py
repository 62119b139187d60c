"""Which elements of its operands an instruction touches."""

from __future__ import annotations

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.interval import Range
from tilewright.ir.simplify import bounds


def accessed(k: st.Kernel) -> dict[str, tuple[tuple[int, int], ...]]:
    """Smallest and largest index in each dimension of every buffer that ``k`` accesses.

    Exact for indices that are affine in the loops, an enclosing interval otherwise. An index that
    depends on data (a gather) and a window passed to a call count as the whole dimension.
    """
    ranges: dict[str, Range] = {}
    for f in st.loops(k):
        ranges[f.name] = (bounds(f.lo, ranges)[0], (bounds(f.hi, ranges)[1] or 0) - 1)
    reach: dict[str, tuple[tuple[int, int], ...]] = {}
    for s in st.walk(k.body):
        refs = [(ld.buffer, ld.indices) for e in st.own_exprs(s) for ld in ex.loads(e)]
        refs += [(s.buffer, s.indices)] if isinstance(s, st.Store) else []
        for w in s.args if isinstance(s, st.Call) else ():
            reach[w.buffer.name] = tuple((0, n - 1) for n in w.buffer.static_shape)
        for buffer, indices in refs:
            now = []
            for index, extent in zip(indices, buffer.static_shape, strict=True):
                lo, hi = bounds(index, ranges) if not ex.loads(index) else (None, None)
                now.append((0 if lo is None else lo, extent - 1 if hi is None else hi))
            before = reach.get(buffer.name, tuple(now))
            reach[buffer.name] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(before, now, strict=True))
    return reach
