"""The words of the block language: what ``tl.name(...)`` builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.ir import types as ty
from tilewright.ir.sizes import apply
from tilewright.lang.block import along, memory, philox
from tilewright.lang.block.builder import Builder, as_dtype, checked_shape, constexpr_int
from tilewright.lang.block.ir import Value
from tilewright.lang.block.marks import Nothing
from tilewright.lang.block.source import BlockError
from tilewright.lang.block.tables import Address, PointerType

Word = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Range:
    """What ``range``, ``tl.range`` and ``tl.static_range`` are in a program."""

    lo: Any
    hi: Any
    step: Any
    unrolled: bool = False


def bounds(*limits: Any, unrolled: bool = False) -> Range:
    """Of ``range(hi)``, ``range(lo, hi)`` or ``range(lo, hi, step)``."""
    if not 1 <= len(limits) <= 3:
        raise BlockError(f"range takes 1 to 3 arguments, got {len(limits)}")
    lo, hi = (0, limits[0]) if len(limits) == 1 else limits[:2]
    return Range(lo, hi, limits[2] if len(limits) == 3 else 1, unrolled)


def cdiv(b: Builder, x: Any, div: Any) -> Any:
    if not isinstance(x, Value) and not isinstance(div, Value):
        return -(-x // div)
    return b.binary("//", b.binary("+", x, b.binary("-", div, 1) if isinstance(div, Value) else div - 1), div)


def _extremum(op: str) -> Word:
    def build(b: Builder, x: Any, y: Any, propagate_nan: Any = None) -> Any:
        if not isinstance(x, Value) and not isinstance(y, Value):
            return (min if op == "min" else max)(x, y)
        return b.binary(op, x, y)

    return build


def _reduction(op: str) -> Word:
    def build(b: Builder, input: Any, axis: Any = None, keep_dims: bool = False, dtype: Any = None, return_indices: bool = False) -> Any:
        if return_indices:
            return b.reduce(op, input, axis, keep_dims), b.position(op, input, axis)
        v = b.data(input, "the operand of a reduction")
        return b.reduce(op, v if dtype is None else b.cast(v, as_dtype(dtype)), axis, keep_dims)

    return build


def _position(op: str) -> Word:
    def build(b: Builder, input: Any, axis: Any = None, tie_break_left: bool = True) -> Any:
        return b.position(op, input, axis)

    return build


def _math(name: str) -> Word:
    intrinsic = "round" if name == "rint" else name

    def build(b: Builder, *operands: Any) -> Value:
        from tilewright.ir.expr import INTRINSICS

        if len(operands) != INTRINSICS[intrinsic]:
            raise BlockError(f"tl.{name} takes {INTRINSICS[intrinsic]} arguments, got {len(operands)}")
        return b.math(intrinsic, *operands)

    return build


def clamp(b: Builder, x: Any, min: Any, max: Any) -> Value:
    return b.binary("min", b.binary("max", x, min), max)


def softmax(b: Builder, x: Any, dim: Any = 0) -> Value:
    powers = b.math("exp", b.binary("-", x, b.reduce("max", x, dim, keep_dims=True)))
    return b.binary("/", powers, b.reduce("+", powers, dim, keep_dims=True))


def trans(b: Builder, input: Any, *order: Any) -> Value:
    v = b.value(input)
    dims = order[0] if len(order) == 1 and isinstance(order[0], (tuple, list)) else order
    if not dims and len(v.shape) < 2:
        raise BlockError(f"tl.trans of a block of shape {list(v.shape)}: it has no two dimensions to exchange")
    return b.permute(v, dims or (*range(len(v.shape) - 2), len(v.shape) - 1, len(v.shape) - 2))


def zeros_like(b: Builder, input: Value) -> Value:
    return b.full(input.shape, 0, input.type.dtype)


def cast(b: Builder, input: Any, dtype: Any, fp_downcast_rounding: Any = None, bitcast: bool = False) -> Any:
    if isinstance(input, Address) and isinstance(dtype, PointerType):
        return input.pointer(dtype)
    target = as_dtype(dtype)
    if isinstance(input, int) and not isinstance(input, bool) and target.is_int and target.bits >= 32 and not bitcast:
        lo, hi = target.range  # numbers known before the program runs are as wide as they need to be; others wrap around
        return input if lo <= input <= hi else (input - lo) % (hi - lo + 1) + lo
    v = b.data(input, "the operand of a conversion", target)
    if not bitcast or v.type.dtype == target:
        return b.cast(v, target)
    if v.type.dtype.bits != target.bits:
        raise BlockError(f"bitcast of {v.type.dtype} to {target}: widths differ")
    from tilewright.lang.block.ir import BlockType

    return b.emit("bitcast", (v,), BlockType(target, v.shape))


def static_assert(b: Builder, condition: Any, message: str = "") -> None:
    if isinstance(condition, Value):
        raise BlockError("the condition of tl.static_assert is only known when the program runs")
    if not condition:
        raise BlockError(f"tl.static_assert failed{': ' if message else ''}{message}")


def _hint(b: Builder, input: Any, *_: Any) -> Any:
    """What says something about a value that is found out here anyway."""
    return input


def _nothing(b: Builder, *_: Any, **__: Any) -> None:
    """What has no meaning where programs do not run in lock step."""


def make_range(b: Builder, *limits: Any, **_: Any) -> Range:
    return bounds(*limits)


def static_range(b: Builder, *limits: Any) -> Range:
    return bounds(*(constexpr_int(int(n) if isinstance(n, int) else n, "a limit of tl.static_range") for n in limits), unrolled=True)


def _atomic(name: str, op: str) -> Word:
    def build(b: Builder, pointer: Any, val: Any, mask: Any = None, sem: Any = None, scope: Any = None) -> Nothing:
        memory.store(b, pointer, val, mask, op=op)
        return Nothing(name)

    return build


def static_print(b: Builder, *values: Any, sep: str = " ", end: str = "\n", file: Any = None, flush: bool = False) -> None:
    """Print while the program is read; of blocks their type."""
    print(*(f"{v}: {v.type}" if isinstance(v, Value) else v for v in values), sep=sep, end=end, file=file, flush=flush)


def swizzle2d(b: Builder, i: Any, j: Any, size_i: Any, size_j: Any, size_g: Any) -> tuple[Any, Any]:
    """Row and column of a tile when rows are walked in groups of ``size_g``."""

    def of(op: str, x: Any, y: Any) -> Any:
        return b.binary(op, x, y) if isinstance(x, Value) or isinstance(y, Value) else apply(op, x, y)

    number, group = of("+", of("*", i, size_j), j), of("*", size_g, size_j)
    first = of("*", of("//", number, group), size_g)
    height, left = of("min", of("-", size_i, first), size_g), of("%", number, group)
    return of("+", first, of("%", left, height)), of("//", left, height)


MATH: tuple[str, ...] = (
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log1p",
    "sqrt",
    "rsqrt",
    "erf",
    "sigmoid",
    "sin",
    "cos",
    "tan",
    "tanh",
    "sinh",
    "cosh",
)
MATH += (
    "asin",
    "acos",
    "atan",
    "asinh",
    "acosh",
    "atanh",
    "atan2",
    "fmod",
    "copysign",
    "floor",
    "ceil",
    "abs",
    "pow",
    "fma",
    "trunc",
    "rint",
    "isnan",
    "isinf",
)
WORDS: dict[str, Word] = {
    **{name: _math(name) for name in MATH},
    "advance": memory.advance,
    "arange": lambda b, start, end: b.arange(start, end),
    "argmax": _position("max"),
    "argmin": _position("min"),
    "assume": _nothing,
    "associative_scan": along.associative_scan,
    "atomic_add": _atomic("atomic_add", "+"),
    "atomic_max": _atomic("atomic_max", "max"),
    "atomic_min": _atomic("atomic_min", "min"),
    "broadcast_to": lambda b, input, *shape: b.broadcast_to(b.value(input), checked_shape(_shape(shape))),
    "cast": cast,
    "cat": along.cat,
    "cdiv": cdiv,
    "clamp": clamp,
    "cumprod": along.running("*"),
    "cumsum": along.running("+"),
    "debug_barrier": _nothing,
    "div_rn": lambda b, x, y: b.binary("/", x, y),
    "dot": lambda b, input, other, acc=None, input_precision=None, allow_tf32=None, max_num_imprecise_acc=None, out_dtype=None: b.dot(
        input, other, acc, out_dtype
    ),
    "expand_dims": lambda b, input, axis: b.expand_dims(b.value(input), constexpr_int(axis, "an axis")),
    "fdiv": lambda b, x, y, ieee_rounding=False: b.binary("/", x, y),
    "flip": along.flip,
    "full": lambda b, shape, value, dtype: b.full(shape, value, dtype),
    "gather": lambda b, src, index, axis: b.gather(src, index, axis),
    "histogram": along.histogram,
    "interleave": along.interleave,
    "join": along.join,
    "load": memory.load,
    "load_tensor_descriptor": memory.load_described,
    "make_block_ptr": memory.make_block_ptr,
    "make_tensor_descriptor": memory.make_tensor_descriptor,
    "max": _reduction("max"),
    "max_constancy": _hint,
    "max_contiguous": _hint,
    "maximum": _extremum("max"),
    "min": _reduction("min"),
    "minimum": _extremum("min"),
    "multiple_of": _hint,
    "num_programs": lambda b, axis: b.num_programs(axis),
    "permute": lambda b, input, *dims: b.permute(b.value(input), _shape(dims)),
    "philox": philox.philox,
    "pointer_type": lambda b, element_ty, address_space=1: PointerType(as_dtype(element_ty)),
    "program_id": lambda b, axis: b.program_id(axis),
    "rand": philox.rand,
    "rand4x": philox.rand4x,
    "randint": philox.randint,
    "randint4x": philox.randint4x,
    "randn": philox.randn,
    "randn4x": philox.randn4x,
    "range": make_range,
    "ravel": lambda b, x: b.reshape(b.value(x), (_count(b.value(x)),)),
    "reduce": along.reduce,
    "reshape": lambda b, input, *shape: b.reshape(b.value(input), _shape(shape)),
    "softmax": softmax,
    "sort": along.sort,
    "split": along.split,
    "sqrt_rn": _math("sqrt"),
    "static_assert": static_assert,
    "static_print": static_print,
    "static_range": static_range,
    "store": lambda b, pointer, value, mask=None, boundary_check=(), cache_modifier="", eviction_policy="": memory.store(
        b, pointer, value, mask, boundary_check
    ),
    "store_tensor_descriptor": memory.store_described,
    "sum": _reduction("+"),
    "swizzle2d": swizzle2d,
    "trans": trans,
    "uint_to_uniform_float": philox.uniform,
    "umulhi": philox.umulhi,
    "view": lambda b, input, *shape: b.reshape(b.value(input), _shape(shape)),
    "where": lambda b, condition, x, y: b.where(condition, x, y),
    "zeros": lambda b, shape, dtype: b.full(shape, 0, dtype),
    "xor_sum": along.xor_sum,
    "zeros_like": zeros_like,
}
#: Words that exist elsewhere: what to use here.
REFUSED = {
    "atomic_cas": "one program that writes each element",
    "atomic_and": "one program that writes each element",
    "atomic_or": "one program that writes each element",
    "atomic_xor": "one program that writes each element",
    "atomic_xchg": "one program that writes each element",
    "device_print": "print(kernel.block_ir(...)) or the interpreter",
    "dot_scaled": "tl.dot of converted blocks",
    "inline_asm_elementwise": "the functions of tl",
    "topk": "tl.sort",
}
#: Words that are methods of blocks too.
METHODS = {"to": "cast"} | {
    n: n
    for n in (
        "sum",
        "max",
        "min",
        "cumsum",
        "cumprod",
        "associative_scan",
        "reduce",
        "flip",
        "gather",
        "sort",
        "split",
        "histogram",
        "xor_sum",
        "argmax",
        "argmin",
        "reshape",
        "view",
        "trans",
        "permute",
        "broadcast_to",
        "expand_dims",
        "abs",
        "ravel",
    )
}
METHODS |= {n: n for n in ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "sin", "cos", "sigmoid", "erf", "floor", "ceil", "cast")}
#: Methods of tensor descriptors.
DESCRIPTOR_METHODS = {"load": "load_tensor_descriptor", "store": "store_tensor_descriptor"}
UNSUPPORTED_DTYPES = ("float8e4b15", "float8e4b8", "float8e4nv", "float8e5", "float8e5b16")
DTYPES = {
    "float16": ty.f16,
    "bfloat16": ty.bf16,
    "float32": ty.f32,
    "float64": ty.f64,
    "int1": ty.boolean,
    **{f"int{n}": getattr(ty, f"i{n}") for n in (8, 16, 32, 64)},
    **{f"uint{n}": getattr(ty, f"u{n}") for n in (8, 16, 32, 64)},
}


def _shape(given: tuple[Any, ...]) -> tuple[int, ...]:
    flat = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    return tuple(constexpr_int(n, "an extent of a shape") for n in flat)


def _count(v: Value) -> int:
    n = 1
    for e in v.shape:
        n *= e
    return n
