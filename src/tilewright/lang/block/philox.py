"""Random numbers of block programs: Philox4x32, a block cipher of an offset under a seed.

Numbers depend on seed and offset alone, so a program may make them again instead of keeping them. J. Salmon, M. Moraes,
R. Dror, D. Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

from typing import Any

from tilewright.ir import types as ty
from tilewright.lang.block.builder import Builder, constexpr_int
from tilewright.lang.block.ir import BlockType, Value
from tilewright.lang.block.source import BlockError

ROUNDS = 10
_FACTORS = 0xD2511F53, 0xCD9E8D57
_KEYS = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
#: Slightly less than 2**-31: what is made of the largest number stays below 1.
_TO_UNIT = 4.6566127342e-10

#: A word of 32 bits: known when the program is read, or a u32 block.
Word = int | Value


def philox(b: Builder, seed: Any, c0: Any, c1: Any, c2: Any, c3: Any, n_rounds: Any = ROUNDS) -> tuple[Any, ...]:
    """The four words that the counter ``c0`` to ``c3`` becomes under ``seed`` (64 bits)."""
    c: tuple[Word, Word, Word, Word] = (_word(b, c0), _word(b, c1), _word(b, c2), _word(b, c3))
    k: tuple[Word, Word] = _key(b, seed)
    for _ in range(constexpr_int(n_rounds, "the number of rounds")):
        (low0, high0), (low1, high1) = _product(b, _FACTORS[0], c[0]), _product(b, _FACTORS[1], c[2])
        c = _xor(b, _xor(b, high1, c[1]), k[0]), low1, _xor(b, _xor(b, high0, c[3]), k[1]), low0
        k = _sum(b, k[0], _KEYS[0]), _sum(b, k[1], _KEYS[1])
    return tuple(b.value(x, ty.u32) for x in c)


def randint4x(b: Builder, seed: Any, offset: Any, n_rounds: Any = ROUNDS) -> tuple[Any, ...]:
    """Four u32 blocks for the block ``offset``."""
    o = b.data(offset, "the offsets of random numbers")
    if not o.type.dtype.is_int:
        raise BlockError(f"offsets of random numbers are {o.type.dtype}, not integers", hint="tl.arange(0, BLOCK) and the like")
    return philox(b, seed, o, 0, 0, 0, n_rounds)


def randint(b: Builder, seed: Any, offset: Any, n_rounds: Any = ROUNDS) -> Any:
    """A u32 block for the block ``offset``."""
    return randint4x(b, seed, offset, n_rounds)[0]


def rand4x(b: Builder, seed: Any, offset: Any, n_rounds: Any = ROUNDS) -> tuple[Any, ...]:
    """Four f32 blocks, uniform in [0, 1)."""
    return tuple(uniform(b, x) for x in randint4x(b, seed, offset, n_rounds))


def rand(b: Builder, seed: Any, offset: Any, n_rounds: Any = ROUNDS) -> Any:
    """An f32 block, uniform in [0, 1)."""
    return uniform(b, randint(b, seed, offset, n_rounds))


def randn4x(b: Builder, seed: Any, offset: Any, n_rounds: Any = ROUNDS) -> tuple[Any, ...]:
    """Four f32 blocks, normally distributed."""
    x = rand4x(b, seed, offset, n_rounds)
    return (*_normal(b, x[0], x[1]), *_normal(b, x[2], x[3]))


def randn(b: Builder, seed: Any, offset: Any, n_rounds: Any = ROUNDS) -> Any:
    """An f32 block, normally distributed."""
    x = randint4x(b, seed, offset, n_rounds)
    return _normal(b, uniform(b, x[0]), uniform(b, x[1]))[0]


def uniform(b: Builder, x: Any) -> Value:
    """u32 or i32 numbers as f32 in [0, 1)."""
    v = b.data(x, "the operand of tl.uint_to_uniform_float")
    v = v if v.type.dtype == ty.i32 else b.emit("bitcast", (v,), BlockType(ty.i32, v.shape))
    v = b.where(b.compare("<", v, 0), b.binary("-", -1, v), v)
    return b.binary("*", b.cast(v, ty.f32), _TO_UNIT)


def umulhi(b: Builder, x: Any, y: Any) -> Value:
    """The upper 32 bits of products of u32 numbers."""
    v = b.data(x, "an operand of tl.umulhi")
    w = b.data(y, "an operand of tl.umulhi", v.type.dtype)
    for o in (v, w):
        if not o.type.dtype.is_int or o.type.dtype.bits != 32:
            raise BlockError(f"tl.umulhi of {o.type.dtype}: it is for 32 bits", hint="x.to(tl.uint32)")
    return _upper(b, _word(b, v), _word(b, w))


def _normal(b: Builder, x: Value, y: Value) -> tuple[Value, Value]:
    """Box and Muller's two normal numbers of two uniform ones."""
    radius = b.math("sqrt", b.binary("*", b.math("log", b.binary("max", x, 1.0e-7)), -2.0))
    angle = b.binary("*", y, 6.283185307179586)
    return b.binary("*", radius, b.math("cos", angle)), b.binary("*", radius, b.math("sin", angle))


def _key(b: Builder, seed: Any) -> tuple[Word, Word]:
    if isinstance(seed, int) and not isinstance(seed, bool):
        return int(seed) & _MASK, int(seed) >> 32 & _MASK
    v = b.data(seed, "a seed")
    if v.shape or not v.type.dtype.is_int:
        raise BlockError(f"a seed is {v.type}, not one integer", hint="tl.load(seeds + tl.program_id(0))")
    if v.type.dtype.bits <= 32:
        return _word(b, v), 0
    return b.cast(v, ty.u32), b.cast(b.binary(">>", v, 32), ty.u32)


def _word(b: Builder, x: Any) -> Word:
    """``x`` modulo 2**32."""
    if isinstance(x, int) and not isinstance(x, bool):
        return int(x) & _MASK
    v = b.data(x, "a counter of random numbers")
    if v.type.dtype == ty.u32:
        return v
    return b.emit("bitcast", (b.cast(v, ty.i32),), BlockType(ty.u32, v.shape))


def _product(b: Builder, x: int, y: Word) -> tuple[Word, Word]:
    """Lower and upper word."""
    if isinstance(y, int):
        return x * y & _MASK, x * y >> 32
    return b.binary("*", y, x), _upper(b, y, x)


def _upper(b: Builder, x: Word, y: Word) -> Value:
    wide = [b.cast(o, ty.u64) if isinstance(o, Value) else o for o in (x, y)]
    return b.cast(b.binary(">>", b.binary("*", *wide), 32), ty.u32)


def _xor(b: Builder, x: Word, y: Word) -> Word:
    if isinstance(x, int) and isinstance(y, int):
        return x ^ y
    if 0 in (x if isinstance(x, int) else 1, y if isinstance(y, int) else 1):
        return x if isinstance(x, Value) else y
    return b.binary("^", x, y)


def _sum(b: Builder, x: Word, y: int) -> Word:
    return x + y & _MASK if isinstance(x, int) else b.binary("+", x, y)
