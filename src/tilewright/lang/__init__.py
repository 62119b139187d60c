"""The front doors: kernels in Python, kernels in text, tensor expressions. Everything loads on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_HOME = {
    **dict.fromkeys(("kernel", "parse"), "frontend"),
    **dict.fromkeys(("Axis", "all", "any", "max", "min", "prod", "reduce_axis", "sum"), "reductions"),
    **dict.fromkeys(("Tensor", "build", "compute", "size", "tensor"), "tensors"),
    "einsum": "contraction",
    **dict.fromkeys(("alloc", "bind", "bitcast", "block", "cast", "grid", "meta", "parallel", "unroll", "vector", "where"), "vocabulary"),
    **dict.fromkeys(("f16", "f32", "f64", "bf16", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "index"), "vocabulary"),
    **dict.fromkeys(("Int", "UInt", "Fixed", "UFixed"), "vocabulary"),
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from tilewright.lang.frontend import kernel as kernel
    from tilewright.lang.frontend import parse as parse


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
