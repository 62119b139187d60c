"""The front doors: kernels in Python, kernels in text, tensor expressions. Everything loads on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from tilewright.lang.vocabulary import Fixed as Fixed
    from tilewright.lang.vocabulary import Int as Int
    from tilewright.lang.vocabulary import UFixed as UFixed
    from tilewright.lang.vocabulary import UInt as UInt
    from tilewright.lang.vocabulary import alloc as alloc
    from tilewright.lang.vocabulary import bf16 as bf16
    from tilewright.lang.vocabulary import bind as bind
    from tilewright.lang.vocabulary import bitcast as bitcast
    from tilewright.lang.vocabulary import block as block
    from tilewright.lang.vocabulary import cast as cast
    from tilewright.lang.vocabulary import f16 as f16
    from tilewright.lang.vocabulary import f32 as f32
    from tilewright.lang.vocabulary import f64 as f64
    from tilewright.lang.vocabulary import grid as grid
    from tilewright.lang.vocabulary import i8 as i8
    from tilewright.lang.vocabulary import i16 as i16
    from tilewright.lang.vocabulary import i32 as i32
    from tilewright.lang.vocabulary import i64 as i64
    from tilewright.lang.vocabulary import index as index
    from tilewright.lang.vocabulary import meta as meta
    from tilewright.lang.vocabulary import parallel as parallel
    from tilewright.lang.vocabulary import u8 as u8
    from tilewright.lang.vocabulary import u16 as u16
    from tilewright.lang.vocabulary import u32 as u32
    from tilewright.lang.vocabulary import u64 as u64
    from tilewright.lang.vocabulary import unroll as unroll
    from tilewright.lang.vocabulary import vector as vector
    from tilewright.lang.vocabulary import where as where
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
