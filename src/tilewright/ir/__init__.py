"""The one typed program form: types, expressions, statements, kernels, and what reads them.

Public names load on first use: ``from tilewright.ir import Kernel, interpret``. What is named
like its module stays there: ``ir.buffer.buffer``, ``ir.verify.verify``, ``ir.reference.reference``.
"""

from __future__ import annotations

from typing import Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
