"""The one typed program form: types, expressions, statements, kernels, and what reads them.

Public names load on first use: ``from tilewright.ir import Kernel, interpret``. What is named
like its module stays there: ``ir.buffer.buffer``, ``ir.verify.verify``, ``ir.reference.reference``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.util.lazy import exports

_HOME = {
    **dict.fromkeys(("DType", "Fixed", "Int", "UFixed", "UInt", "from_numpy", "parse_dtype"), "types"),
    **dict.fromkeys(("bf16", "boolean", "f16", "f32", "f64", "i8", "i16", "i32", "i64", "index", "u8", "u16", "u32", "u64"), "types"),
    **dict.fromkeys(("Buffer", "Layout"), "buffer"),
    **dict.fromkeys(
        ("Binary", "Bitcast", "Cast", "Compare", "Const", "Expr", "Intrinsic", "Load", "Logical", "Not", "Var", "Where"), "expr"
    ),
    **dict.fromkeys(("Alloc", "Block", "Call", "For", "If", "Kernel", "LoopKind", "Span", "Stmt", "Store", "While", "Window"), "stmt"),
    "specialize": "stmt",
    **dict.fromkeys(("expr_text", "kernel_text", "module_text", "stmt_text", "window_text"), "printer"),
    "interpret": "interpreter",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from tilewright.ir.buffer import Buffer as Buffer
    from tilewright.ir.buffer import Layout as Layout
    from tilewright.ir.expr import Binary as Binary
    from tilewright.ir.expr import Bitcast as Bitcast
    from tilewright.ir.expr import Cast as Cast
    from tilewright.ir.expr import Compare as Compare
    from tilewright.ir.expr import Const as Const
    from tilewright.ir.expr import Expr as Expr
    from tilewright.ir.expr import Intrinsic as Intrinsic
    from tilewright.ir.expr import Load as Load
    from tilewright.ir.expr import Logical as Logical
    from tilewright.ir.expr import Not as Not
    from tilewright.ir.expr import Var as Var
    from tilewright.ir.expr import Where as Where
    from tilewright.ir.interpreter import interpret as interpret
    from tilewright.ir.printer import expr_text as expr_text
    from tilewright.ir.printer import kernel_text as kernel_text
    from tilewright.ir.printer import module_text as module_text
    from tilewright.ir.printer import stmt_text as stmt_text
    from tilewright.ir.printer import window_text as window_text
    from tilewright.ir.stmt import Alloc as Alloc
    from tilewright.ir.stmt import Block as Block
    from tilewright.ir.stmt import Call as Call
    from tilewright.ir.stmt import For as For
    from tilewright.ir.stmt import If as If
    from tilewright.ir.stmt import Kernel as Kernel
    from tilewright.ir.stmt import LoopKind as LoopKind
    from tilewright.ir.stmt import Span as Span
    from tilewright.ir.stmt import Stmt as Stmt
    from tilewright.ir.stmt import Store as Store
    from tilewright.ir.stmt import While as While
    from tilewright.ir.stmt import Window as Window
    from tilewright.ir.stmt import specialize as specialize
    from tilewright.ir.types import DType as DType
    from tilewright.ir.types import Fixed as Fixed
    from tilewright.ir.types import Int as Int
    from tilewright.ir.types import UFixed as UFixed
    from tilewright.ir.types import UInt as UInt
    from tilewright.ir.types import bf16 as bf16
    from tilewright.ir.types import boolean as boolean
    from tilewright.ir.types import f16 as f16
    from tilewright.ir.types import f32 as f32
    from tilewright.ir.types import f64 as f64
    from tilewright.ir.types import from_numpy as from_numpy
    from tilewright.ir.types import i8 as i8
    from tilewright.ir.types import i16 as i16
    from tilewright.ir.types import i32 as i32
    from tilewright.ir.types import i64 as i64
    from tilewright.ir.types import index as index
    from tilewright.ir.types import parse_dtype as parse_dtype
    from tilewright.ir.types import u8 as u8
    from tilewright.ir.types import u16 as u16
    from tilewright.ir.types import u32 as u32
    from tilewright.ir.types import u64 as u64
else:
    __getattr__, __dir__ = exports(__name__, _HOME)
