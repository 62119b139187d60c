"""The front doors: kernels in Python, kernels in text, tensor expressions. Everything loads on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright.util.lazy import exports

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
    from tilewright.lang.contraction import einsum as einsum
    from tilewright.lang.frontend import kernel as kernel
    from tilewright.lang.frontend import parse as parse
    from tilewright.lang.reductions import Axis as Axis
    from tilewright.lang.reductions import all as all
    from tilewright.lang.reductions import any as any
    from tilewright.lang.reductions import max as max
    from tilewright.lang.reductions import min as min
    from tilewright.lang.reductions import prod as prod
    from tilewright.lang.reductions import reduce_axis as reduce_axis
    from tilewright.lang.reductions import sum as sum
    from tilewright.lang.tensors import Tensor as Tensor
    from tilewright.lang.tensors import build as build
    from tilewright.lang.tensors import compute as compute
    from tilewright.lang.tensors import size as size
    from tilewright.lang.tensors import tensor as tensor

    def __getattr__(name: str) -> Any:
        """The words of kernels, such as ``f32`` in ``a: f32[8, 8]``: they are read, and are no types of Python's."""

else:
    __getattr__, __dir__ = exports(__name__, _HOME)
