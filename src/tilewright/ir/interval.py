"""Intervals of integers: what is known about the value of an index."""

from __future__ import annotations

#: Inclusive bounds of an integer; None means unbounded on that side.
Range = tuple[int | None, int | None]

UNBOUNDED: Range = (None, None)


def extremum_range(op: str, a: Range, b: Range) -> Range:
    """The interval of ``op`` ("min" or "max") of values in ``a`` and ``b``."""
    pick = min if op == "min" else max
    both = [None if x is None or y is None else pick(x, y) for x, y in zip(a, b, strict=True)]
    side = 1 if op == "min" else 0  # min is below either upper bound, max above either lower bound
    if both[side] is None:
        both[side] = a[side] if b[side] is None else b[side]
    return both[0], both[1]


def quotient_range(a: Range, divisor: int) -> Range:
    """The interval of ``x // divisor`` for x in ``a`` and a positive divisor."""
    return None if a[0] is None else a[0] // divisor, None if a[1] is None else a[1] // divisor


def product_range(a: Range, b: Range) -> Range:
    """The interval of products of values in ``a`` and ``b``."""
    if a[0] is not None and b[0] is not None and a[0] >= 0 and b[0] >= 0:
        return a[0] * b[0], None if a[1] is None or b[1] is None else a[1] * b[1]
    if None in a or None in b:
        return UNBOUNDED
    corners = [x * y for x in a for y in b if x is not None and y is not None]
    return min(corners), max(corners)
