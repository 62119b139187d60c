"""The words of the kernel language as Python names, for editors and linters.

Kernels are read, never run, so importing these is optional; calling one outside a kernel is an
error. Element types are real values: ``f32[64, 32] @ "reg"`` works in annotations.
"""

from __future__ import annotations

from typing import Any

from tilewright.ir.types import Fixed, Int, UFixed, UInt, bf16, f16, f32, f64, i8, i16, i32, i64, index, u8, u16, u32, u64
from tilewright.util.errors import LanguageError

__all__ = [
    "Fixed",
    "Int",
    "UFixed",
    "UInt",
    "alloc",
    "bf16",
    "bind",
    "bitcast",
    "block",
    "cast",
    "f16",
    "f32",
    "f64",
    "grid",
    "i8",
    "i16",
    "i32",
    "i64",
    "index",
    "meta",
    "parallel",
    "u8",
    "u16",
    "u32",
    "u64",
    "unroll",
    "vector",
    "where",
]


def _word(name: str, meaning: str) -> Any:
    def use(*_: Any, **__: Any) -> Any:
        raise LanguageError(f"{name} is a word of the kernel language", hint="use it in a function decorated with @kernel")

    use.__name__ = use.__qualname__ = name
    use.__doc__ = meaning
    return use


grid = _word("grid", "``for i, j in grid(M, N)``: nested loops, the last one innermost.")
parallel = _word("parallel", "``for i in parallel(lo, hi, step)``: iterations run on any thread.")
vector = _word("vector", "``for i in vector(n)``: iterations run in vector lanes.")
unroll = _word("unroll", "``for i in unroll(n)``: the body is replicated in the generated code.")
bind = _word("bind", '``for i in bind("unit", n)``: iterations run on a unit of the machine.')
alloc = _word("alloc", '``t = alloc(f32[4, 16], "reg", layout="1/16 0 1")``: a local buffer, contents undefined.')
block = _word("block", "``with block():`` a scope for local buffers.")
meta = _word("meta", "``if meta(N > 4)``, ``for t in meta(range(3))``: decided when the kernel is read.")
where = _word("where", "``where(cond, a, b)``: a if cond else b; only the chosen side is evaluated.")
cast = _word("cast", "``cast(x, f32)``: the same as ``f32(x)``.")
bitcast = _word("bitcast", "``bitcast(x, u32)``: the same bits read as another type.")
