"""What combines or moves the elements of a block along one of its dimensions: scans, reductions by a program's own function, sorting.

A scan of n elements takes log2(n) steps, each over whole blocks: element i is combined with that 1, 2, 4, ... before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilewright.ir import types as ty
from tilewright.lang.block.builder import Builder, constexpr_int
from tilewright.lang.block.ir import Value
from tilewright.lang.block.source import BlockError

#: A function of the program: of two elements (or tuples of them), the one that was passed first first (in memory, unless in reverse).
Combine = Callable[..., Any]


def associative_scan(b: Builder, input: Any, axis: Any, combine_fn: Combine, reverse: bool = False) -> Any:
    """Element i is ``combine_fn`` of the elements up to i (``reverse``: from i on); tuples of blocks are scanned together."""
    values, a = _operands(b, input, axis, "tl.associative_scan")
    n, by = values[0].shape[a], 1
    at = _index(b, values[0], a)
    while by < n:
        inside = b.compare("<", at, n - by) if reverse else b.compare(">=", at, by)
        others = [b.where(inside, b.take(v, a, by if reverse else -by, 1, n, kept=True), v) for v in values]
        combined = _combined(b, combine_fn, others, values)
        values = [b.where(inside, new, v) for new, v in zip(combined, values, strict=True)]
        by *= 2
    return tuple(values) if isinstance(input, tuple) else values[0]


def reduce(b: Builder, input: Any, axis: Any, combine_fn: Combine, keep_dims: bool = False) -> Any:
    """``combine_fn`` of all elements along ``axis`` (None: of a block of one dimension)."""
    values, a = _operands(b, input, 0 if axis is None else axis, "tl.reduce")
    if axis is None and len(values[0].shape) != 1:
        raise BlockError(f"tl.reduce of a block of shape {list(values[0].shape)} needs an axis", hint="axis=0")
    while (n := values[0].shape[a]) > 1:
        first, second = ([b.take(v, a, start, 2, n // 2, kept=True) for v in values] for start in (0, 1))
        values = _combined(b, combine_fn, first, second)
    out = [v if keep_dims else _without(b, v, a) for v in values]
    return tuple(out) if isinstance(input, tuple) else out[0]


def running(op: str) -> Callable[..., Any]:
    """``tl.cumsum`` and the like."""

    def build(b: Builder, input: Any, axis: Any = 0, reverse: bool = False, dtype: Any = None) -> Any:
        from tilewright.lang.block.builder import as_dtype

        v = b.data(input, "the operand of a scan")
        if dtype is not None:
            v = b.cast(v, as_dtype(dtype))
        elif v.type.dtype.kind == ty.BOOL or (v.type.dtype.is_int and v.type.dtype.bits < 32):
            v = b.cast(v, ty.i32)
        return associative_scan(b, v, axis, lambda x, y: b.binary(op, x, y), reverse)

    return build


def xor_sum(b: Builder, input: Any, axis: Any = None, keep_dims: bool = False) -> Any:
    return reduce(b, input, axis, lambda x, y: b.binary("^", x, y), keep_dims)


def flip(b: Builder, x: Any, dim: Any = -1) -> Value:
    v = b.data(x, "the operand of tl.flip")
    a = b.axis(-1 if dim is None else dim, v)
    return b.take(v, a, v.shape[a] - 1, -1, v.shape[a])


def join(b: Builder, a: Any, c: Any) -> Value:
    """Two blocks side by side in a new last dimension."""
    x, y = b.pair(a, c, "tl.join")
    rank = len(x.shape)
    second = b.arange(0, 2)
    for _ in range(rank):
        second = b.expand_dims(second, 0)
    return b.where(b.compare("==", second, 0), b.expand_dims(x, rank), b.expand_dims(y, rank))


def interleave(b: Builder, a: Any, c: Any) -> Value:
    v = join(b, a, c)
    return b.reshape(v, (*v.shape[:-2], 2 * v.shape[-2])) if len(v.shape) > 1 else v


def cat(b: Builder, input: Any, other: Any, can_reorder: bool = False) -> Value:
    v = join(b, input, other)
    if len(v.shape) != 2:
        raise BlockError("tl.cat is for blocks of one dimension", hint="tl.join, then tl.reshape")
    return b.reshape(b.permute(v, (1, 0)), (2 * v.shape[0],))


def split(b: Builder, a: Any) -> tuple[Value, Value]:
    """The two halves of a last dimension of extent 2."""
    v = b.data(a, "the operand of tl.split")
    if not v.shape or v.shape[-1] != 2:
        raise BlockError(f"tl.split of a block of shape {list(v.shape)}: its last dimension is not 2", hint="tl.reshape it before")
    last = len(v.shape) - 1
    return _without(b, b.take(v, last, 0, 1, 1), last), _without(b, b.take(v, last, 1, 1, 1), last)


def histogram(b: Builder, input: Any, num_bins: Any, mask: Any = None) -> Value:
    """How often each number below ``num_bins`` occurs: i32."""
    v = b.data(input, "the operand of tl.histogram")
    if len(v.shape) != 1 or not v.type.dtype.is_int:
        raise BlockError(f"tl.histogram of {v.type}: it is for integers in one dimension", hint="tl.ravel(x).to(tl.int32)")
    hit = b.compare("==", b.expand_dims(v, 1), b.expand_dims(b.arange(0, constexpr_int(num_bins, "the number of bins")), 0))
    if mask is not None:
        hit = b.binary("&", hit, b.expand_dims(b.truth(mask), 1))
    return b.reduce("+", hit, 0)


def sort(b: Builder, x: Any, dim: Any = None, descending: bool = False) -> Value:
    """``x`` in order along its last dimension, by a bitonic network. NaN counts as larger than any number."""
    v = b.data(x, "the operand of tl.sort")
    a = b.axis(-1 if dim is None else dim, v)
    if a != len(v.shape) - 1:
        raise BlockError(f"tl.sort along dimension {a} of {len(v.shape)}: only the last one is sorted", hint="tl.trans before and after")
    at, n = _index(b, v, a), v.shape[a]
    size = 2
    while size <= n:
        apart = size // 2
        while apart:
            v = b.take(v, a, 0, 1, n, kept=True)
            pairs = b.reshape(v, (*v.shape[:-1], n // (2 * apart), 2, apart))
            other = b.reshape(b.take(pairs, len(pairs.shape) - 2, 1, -1, 2), v.shape)
            upward = b.binary("+", b.binary("//", at, size), b.binary("//", at, apart))
            first = b.compare("!=" if descending else "==", b.binary("%", upward, 2), 0)
            v = b.where(b.where(first, _less(b, other, v), _less(b, v, other)), other, v)
            apart //= 2
        size *= 2
    return v


def _less(b: Builder, x: Value, y: Value) -> Value:
    """Whether ``x`` comes before ``y``. Both partners of an exchange decide alike, so that no element is lost."""
    less = b.compare("<", x, y)
    if not x.type.dtype.is_float:
        return less
    return b.binary("|", less, b.binary("&", b.compare("!=", y, y), b.compare("==", x, x)))


def _operands(b: Builder, input: Any, axis: Any, what: str) -> tuple[list[Value], int]:
    values = [b.data(x, f"an operand of {what}") for x in (input if isinstance(input, tuple) else (input,))]
    if any(v.shape != values[0].shape for v in values):
        raise BlockError(f"{what} of blocks of shapes {', '.join(str(list(v.shape)) for v in values)}: they differ")
    if not values[0].shape:
        raise BlockError(f"{what} of a scalar")
    return values, b.axis(axis, values[0])


def _combined(b: Builder, combine_fn: Combine, first: Sequence[Value], second: Sequence[Value]) -> list[Value]:
    if not callable(combine_fn):
        raise BlockError(f"combine_fn is {combine_fn!r}, not a function", hint="a function decorated with @tilewright.jit")
    made = combine_fn(*first, *second)
    out = list(made) if isinstance(made, tuple) else [made]
    if len(out) != len(first):
        raise BlockError(f"combine_fn returns {len(out)} values for {len(first)} blocks", hint="return as many as it combines")
    return [
        b.broadcast_to(b.cast(b.data(x, "what combine_fn returns", v.type.dtype), v.type.dtype), v.shape)
        for x, v in zip(out, first, strict=True)
    ]


def _index(b: Builder, v: Value, axis: int) -> Value:
    """Positions along ``axis``, in as many dimensions as ``v`` has."""
    at = b.arange(0, v.shape[axis])
    for d in range(len(v.shape)):
        if d != axis:
            at = b.expand_dims(at, d)
    return at


def _without(b: Builder, v: Value, axis: int) -> Value:
    return b.reshape(v, tuple(n for d, n in enumerate(v.shape) if d != axis))
